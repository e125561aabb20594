"""The keys that clients must show, and the file in which they find them.

Every start makes new ones. They live in memory; the file is how they reach whoever may read
it, and it goes when the server goes.
"""

import hmac
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from torchkeep.runtime.key_file import KEY_FILE

KeyKind = Literal["management", "inference", "API"]

KEY_BYTES = 18  # of chance; 24 characters, where TorchServe has 6 bytes in 8
FOREVER = datetime.max.replace(tzinfo=UTC)
# TorchServe: `bearer` in lower case is refused, several blanks are not.
BEARER = re.compile(r"Bearer\s+(\S+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, and the end of its time where it has one."""

    text: str
    expires: datetime | None = None

    def admits(self, shown: str, now: datetime) -> bool:
        """Whether it is the key shown, and still in time; says nothing about how near it was."""
        is_same = hmac.compare_digest(shown.encode(), self.text.encode())
        return is_same and (self.expires is None or now < self.expires)

    def as_json(self) -> dict[str, str]:
        """Its entry in the key file."""
        if self.expires is None:
            return {"key": self.text}
        instant = self.expires.replace(tzinfo=None).isoformat(timespec="microseconds")
        return {"key": self.text, "expiration time": f"{instant}Z"}


class ApiKeys:
    """One key for each port, and one that renews those two and never expires."""

    def __init__(
        self, file: Path, lifetime_min: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.file = file
        self._lifetime_min = lifetime_min
        self._clock = clock
        self._keys: dict[KeyKind, ApiKey] = {}
        self._written = ""

    def open(self) -> None:
        """Make the keys and write the file; raises OSError."""
        self._write(
            {
                "management": self._new(),
                "inference": self._new(),
                "API": ApiKey(secrets.token_urlsafe(KEY_BYTES)),
            }
        )

    def renew(self, kind: KeyKind) -> None:
        """Replace a key; the old one ends at once. Raises OSError, and then it does not."""
        self._write({**self._keys, kind: self._new()})

    def admit(self, kinds: Sequence[KeyKind], authorization: str) -> bool:
        """Whether the value of an `Authorization` header holds one of these keys."""
        bearer = BEARER.fullmatch(authorization.strip(" \t"))  # the parser leaves those behind it
        if bearer is None:
            return False
        now = datetime.fromtimestamp(self._clock(), UTC)
        # All of them are looked at, so that the time does not tell which one it was.
        return any([self._keys[kind].admits(bearer[1], now) for kind in kinds])

    def close(self) -> None:
        """Remove the file, unless it has become another server's."""
        with suppress(OSError):
            if self.file.read_text() == self._written:
                self.file.unlink()

    def _new(self) -> ApiKey:
        now = datetime.fromtimestamp(self._clock(), UTC)
        try:
            # TorchServe: below zero it is over at once, as at zero
            expires = now + timedelta(minutes=max(0.0, self._lifetime_min))
        except OverflowError:
            expires = FOREVER
        return ApiKey(secrets.token_urlsafe(KEY_BYTES), expires)

    def _write(self, keys: dict[KeyKind, ApiKey]) -> None:
        entries: dict[str, Any] = {kind: key.as_json() for kind, key in keys.items()}
        text = json.dumps(entries, indent=2)
        # Nobody sees half a file, nor one that others could read for a moment.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{KEY_FILE}.", dir=self.file.parent)
        try:
            with open(descriptor, "w") as file:
                file.write(text)
            os.replace(temporary, self.file)
        except BaseException:
            os.unlink(temporary)
            raise
        self._keys, self._written = keys, text
