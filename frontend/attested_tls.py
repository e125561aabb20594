"""The attested listener's side of TLS: a key born here, a certificate that carries evidence."""

import asyncio
import logging
import ssl

from torchkeep.frontend.attestation import Attestor
from torchkeep.runtime.errors import EvidenceError
from torchkeep.runtime.identity import AttestedKey
from torchkeep.runtime.tls import server_context, use_identity

log = logging.getLogger("torchkeep.frontend")

RENEW_S = 12 * 3600.0  # half of what a certificate lasts: evidence is worth less as it ages
RETRY_S = 60.0  # where the TEE gave none


class AttestedTls:
    """One context for the listener; `open` it before anybody connects."""

    def __init__(self, attestor: Attestor, key: AttestedKey) -> None:
        self._attestor = attestor
        self._key = key
        self._context: ssl.SSLContext | None = None

    async def open(self) -> ssl.SSLContext:
        """Raises EvidenceError: without evidence there is nothing to show."""
        self._context = server_context(await self._chain(), self._key.private_key)
        return self._context

    async def keep_fresh(self) -> None:
        """For ever: new connections get a new certificate in time; the key stays."""
        pause_s = RENEW_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._renew()
                pause_s = RENEW_S
            except EvidenceError as error:
                log.warning("The certificate of the attested listener is not renewed: %s", error)
                pause_s = RETRY_S

    async def _renew(self) -> None:
        assert self._context is not None, "`open` comes first"
        use_identity(self._context, await self._chain(), self._key.private_key)

    async def _chain(self) -> bytes:
        """A certificate with fresh evidence, in PEM."""
        return ssl.DER_cert_to_PEM_cert(await self._attestor.certificate()).encode()
