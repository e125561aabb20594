"""Evidence: what a TEE says about itself, for whoever releases a key.

`Evidence` is the seam. The sample TEE of Confidential Containers proves nothing, and exists to
try everything else with; brokers refuse it unless they are told to take it.
"""

import base64
from typing import Any, Protocol


class Evidence(Protocol):
    """A TEE that can vouch for data: 64 bytes that its evidence is bound to."""

    tee: str  # the name that Key Broker Services know it by

    async def evidence(self, report_data: bytes) -> dict[str, Any]:
        """Evidence in the form of the Confidential Containers attestation agent.

        Raises EvidenceUnavailable.
        """
        ...


class SampleEvidence:
    """SIMULATED: the `sample` attester of Confidential Containers. It protects nothing."""

    tee = "sample"

    async def evidence(self, report_data: bytes) -> dict[str, Any]:
        return {"svn": "1", "report_data": base64.b64encode(report_data).decode()}
