"""Which models a server has loaded, in the runtime measurements of its TEE.

Claims tell a client what is served now; an event, recorded before any code of the model runs,
cannot be taken back later. It takes an attestation agent that keeps such a log.
"""

import json
import logging

from torchkeep.runtime.errors import EvidenceError
from torchkeep.runtime.evidence import AgentEvidence

log = logging.getLogger(__name__)

OPERATION = "load-model"


class ModelEvents:
    """Records; a failure is logged and costs no model."""

    def __init__(self, agent: AgentEvidence) -> None:
        self._agent = agent
        self._is_kept = True

    async def record(self, name: str, version: str, digest: bytes) -> None:
        """One event: canonical JSON of the model's name, version and digest."""
        if not self._is_kept:
            return
        event = {"digest": digest.hex(), "name": name, "version": version}
        content = json.dumps(event, sort_keys=True, separators=(",", ":"))
        try:
            self._is_kept = await self._agent.record(OPERATION, content)
        except EvidenceError as error:
            log.warning("the load of model %s is not in the runtime measurements: %s", name, error)
            return
        if not self._is_kept:
            log.warning("the attestation agent keeps no runtime measurements: none are recorded")
