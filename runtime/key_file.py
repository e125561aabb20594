"""Where clients find their keys: TorchServe's `key_file.json`, where the server was started."""

import os
from pathlib import Path

KEY_FILE = "key_file.json"


def key_file(directory: Path) -> Path:
    """The file to write. Where a link is in its place, what the link names.

    So a directory that cannot be written, as in a container, says where the file is to be. A
    link of another user is not followed: it may lead to a file of ours.
    """
    path = directory / KEY_FILE
    try:
        is_trusted = path.is_symlink() and path.lstat().st_uid in (0, os.geteuid())
    except FileNotFoundError:
        return path
    return path.resolve() if is_trusted else path
