"""Where the keys of sealed archives come from; `key_source` chooses."""

import asyncio
from pathlib import Path

from torchkeep.runtime.errors import ConfigError

FILE = "file:"


class FileKeys:
    """One key for every archive, in a file that is read each time. For development."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def delivered(self, key_id: str) -> bytes:
        """The file's contents; raises OSError."""
        return await asyncio.to_thread(self.path.read_bytes)


def key_source(setting: str | None) -> FileKeys | None:
    """The source that the configuration names; None where it names none."""
    if setting is None:
        return None
    if not setting.startswith(FILE):
        raise ConfigError(f"key_source={setting}: expected file:/path/to/key")
    return FileKeys(Path(setting.removeprefix(FILE)))
