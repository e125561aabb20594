"""Who may ask what: routers that answer nothing, but refuse who shows no key.

TorchServe: the keys come before the routes, so that without one an unknown path is a 400 too.
"""

import logging
from collections.abc import Awaitable

from torchkeep.frontend.api_keys import ApiKeys, KeyKind
from torchkeep.frontend.call import Call
from torchkeep.frontend.errors import InvalidKey
from torchkeep.frontend.responses import JSON_TYPE, Reply

log = logging.getLogger("torchkeep.frontend")

RENEWABLE: tuple[KeyKind, ...] = ("management", "inference")


class KeyCheck:
    """Stands before the routers that ask for one of these keys."""

    def __init__(self, keys: ApiKeys, *kinds: KeyKind) -> None:
        self._keys = keys
        self._kinds = kinds

    def admits(self, call: Call) -> bool:
        """Whether the request shows a key that counts here."""
        return self._keys.admit(self._kinds, call.header(b"authorization"))

    def route(self, call: Call) -> None:
        """Leaves the answer to the next router, or raises InvalidKey."""
        if not self.admits(call):
            raise InvalidKey("Authorization")


class KeyRenewal:
    """`/token?type=management` and `/token?type=inference`, for who has the API key."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    def route(self, call: Call) -> Awaitable[Reply] | None:
        """TorchServe: any method, and any path that begins so.

        It even looks for `/token` in the middle of paths and in headers, so that a model named
        `tokenizer` cannot be managed there.
        """
        raw_path: bytes = call.scope.get("raw_path", b"")
        return self._renew(call) if raw_path.startswith(b"/token") else None

    async def _renew(self, call: Call) -> Reply:
        if not self._keys.admit(["API"], call.header(b"authorization")):
            raise InvalidKey("Authentication")
        wanted = call.query.get("type")
        for kind in RENEWABLE:
            if kind == wanted:
                self._replace(kind)
                return Reply(200, b"\n", (JSON_TYPE,))
        raise InvalidKey("Authentication")

    def _replace(self, kind: KeyKind) -> None:
        try:
            self._keys.renew(kind)
        except OSError as error:
            # TorchServe: in the same words, and what it was is in the log
            log.error("Failed to update key file %s: %s", self._keys.file, error.strerror)
            raise InvalidKey("Authentication") from error
