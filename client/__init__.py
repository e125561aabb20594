"""A user's own process: verify a server, then talk to it. Needs no torch; `torchkeep[client]`.

`Client` and `AsyncClient` show nothing to a server before its evidence satisfies a `Policy`;
`verify_document` and `verify_certificate` judge evidence that came by another way.
docs/attestation.md says what each check proves, and what none of them does.
"""

from torchkeep.client.client import AsyncClient, Client
from torchkeep.client.errors import KeyChanged, NotVerified, PolicyError, Unreachable
from torchkeep.client.exchange import receipt_of
from torchkeep.client.policy import Policy, parse_policy, read_policy
from torchkeep.client.verdict import Check, Verdict
from torchkeep.client.verifier import verify_certificate, verify_document

__all__ = [
    "AsyncClient",
    "Check",
    "Client",
    "KeyChanged",
    "NotVerified",
    "Policy",
    "PolicyError",
    "Unreachable",
    "Verdict",
    "parse_policy",
    "read_policy",
    "receipt_of",
    "verify_certificate",
    "verify_document",
]
