"""The digest of a model that came as a directory, where there is no archive to hash.

SHA-256 of a label and, for each file in the order of its path's bytes:

    kind (1 byte) ‖ length of the path (4 bytes, big-endian) ‖ path ‖ SHA-256 (32 bytes)

Kinds: `f`, a file, by its contents, also where a link leads to it; `l`, a link to anything else,
by where it leads as it is written; `u`, a file that we may not read, by nothing. Directories
count by what is in them, and sockets, pipes and devices not at all.

It says what was there when the model was opened: whoever can write to the directory can change
it afterwards, so models that must be known by digest are served from archives.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

LABEL = b"torchkeep-directory-1\n"
PATH_LENGTH_BYTES = 4
CHUNK_BYTES = 1 << 20


def directory_digest(directory: Path, check_abandoned: Callable[[], None] = lambda: None) -> bytes:
    """Reads every file; `check_abandoned` is called now and then and ends the work by raising."""
    digest = hashlib.sha256(LABEL)
    root = os.fsencode(directory)
    for path in sorted(_files(root)):
        counted = _counted(os.path.join(root, path), check_abandoned)
        if counted is not None:
            kind, content = counted
            digest.update(kind + len(path).to_bytes(PATH_LENGTH_BYTES, "big") + path + content)
    return digest.digest()


def _files(root: bytes) -> Iterator[bytes]:
    """Paths below `root` of all that is no directory; a link to one counts as a link."""
    for place, directories, files in os.walk(root):
        links = [name for name in directories if os.path.islink(os.path.join(place, name))]
        for name in [*files, *links]:
            yield os.path.relpath(os.path.join(place, name), root)


def _counted(path: bytes, check_abandoned: Callable[[], None]) -> tuple[bytes, bytes] | None:
    """Kind and digest of one path; None for what has no contents."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            return b"f", _contents_digest(path, check_abandoned)
    except OSError:
        if not os.path.islink(path):
            return b"u", hashlib.sha256().digest()
    if os.path.islink(path):
        return b"l", hashlib.sha256(os.readlink(path)).digest()
    return None


def _contents_digest(path: bytes, check_abandoned: Callable[[], None]) -> bytes:
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK_BYTES)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            check_abandoned()
            digest.update(memoryview(buffer)[:count])
    return digest.digest()
