"""JSON in one form only, so that its hash is one: sorted keys, no blanks, UTF-8."""

import json
from collections.abc import Callable
from typing import Any


def canonical_json(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """`default` makes what JSON has no form for into what it has."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=default
    )
    return text.encode()
