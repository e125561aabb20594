"""KServe's encrypted archives: one JWE in compact form, A256KW and A256GCM.

GCM in one piece tells only at its end whether all of it is right, and until then nothing of it
may be used. So the contents are opened into anonymous memory (a sealed memfd, which no file
system shows), read from there, and given back when the archive is unpacked: opening takes as
much memory as the archive is long, beside the unpacked files. Our own format needs none of it.
"""

import binascii
import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from torchkeep.modelstore.errors import KeyUnavailable, SealBroken
from torchkeep.modelstore.key_wrap import WRAP_OVERHEAD_BYTES, unwrap_key
from torchkeep.modelstore.keys import KEY_BYTES, wipe
from torchkeep.modelstore.seal_header import KEY_ID

MAGIC = b"eyJ"  # `{"` in base64: how every protected header begins
MAX_PROTECTED_BYTES = 8 << 10  # of base64
MAX_FILE_BYTES = 4 << 30  # its contents are held in memory
IV_BYTES = 12
TAG_BYTES = 16
PIECE_CHARS = 1 << 20  # a multiple of 4, so that pieces decode by themselves

_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/***")  # what is not of the URL-safe alphabet fails


def is_jwe(start: bytes) -> bool:
    """Whether a file that begins like this can only be a JWE."""
    return start.startswith(MAGIC)


def open_jwe(path: Path) -> "JweFile":
    """Read and check what needs no key. Raises SealBroken, OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SealBroken(path.name, "it is no plain file")
        try:
            return JweFile(descriptor, path.name)
        except ValueError as error:
            raise SealBroken(path.name, str(error)) from error
    except BaseException:
        os.close(descriptor)
        raise


class JweFile:
    """An open JWE whose key is not known yet. Whoever opened it closes it."""

    def __init__(self, descriptor: int, name: str) -> None:
        """Raises ValueError for what is no JWE of KServe's kind."""
        size = os.fstat(descriptor).st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"a JWE of {size} bytes, at most {MAX_FILE_BYTES} are opened")
        start = os.pread(descriptor, MAX_PROTECTED_BYTES, 0)
        parts = start.split(b".", 3)
        if len(parts) < 4:
            raise ValueError("it is no JWE in compact form")
        self.protected, encrypted_key, iv, _ = parts
        self.key_id = _key_id(_header(self.protected))
        self.name = name
        self.descriptor = descriptor
        self.encrypted_key = _decoded(encrypted_key, KEY_BYTES + WRAP_OVERHEAD_BYTES)
        self.iv = _decoded(iv, IV_BYTES)
        self.start = len(start) - len(parts[3])
        tag_chars = len(_encoded(bytes(TAG_BYTES)))
        end = os.pread(descriptor, tag_chars + 3, max(self.start, size - tag_chars - 3)).rstrip()
        contents, dot, tag = end.rpartition(b".")
        if not dot or b"." in contents or len(tag) != tag_chars:
            raise ValueError("it is no JWE in compact form, or was cut off")
        self.tag = _decoded(tag, TAG_BYTES)
        self.end = max(self.start, size - tag_chars - 3) + len(contents)

    def unlock(self, kek: bytearray) -> "UnlockedJwe":
        """The contents, still closed; the caller wipes `kek`."""
        key = unwrap_key(kek, self.encrypted_key) if len(kek) == KEY_BYTES else None
        if key is None:
            raise KeyUnavailable(
                self.key_id,
                "wrong key",
                f"It does not open {self.name}: ask for the key it was sealed with.",
            )
        return UnlockedJwe(self, key)

    def close(self) -> None:
        """May be called twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class UnlockedJwe:
    """The contents of a JWE: after `verify`, in memory until `close`."""

    def __init__(self, file: JweFile, key: bytearray) -> None:
        self.name = file.name
        self.length = 0
        self.sha256 = b""
        self._file = file
        self._key = key
        self._memory: IO[bytes] | None = None

    @contextlib.contextmanager
    def verified(self, check_abandoned: Callable[[], None] = lambda: None) -> Iterator[IO[bytes]]:
        """The contents as a file in memory, all of which is right."""
        self.verify(check_abandoned)
        yield self.reader()

    def verify(self, check_abandoned: Callable[[], None] = lambda: None) -> None:
        """Open everything into memory; raises SealBroken. `check_abandoned` may end the work."""
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self._memory = open(os.memfd_create("torchkeep-archive", flags), "w+b")  # noqa: SIM115
        try:
            self._decrypt(self._memory, check_abandoned)
        except InvalidTag:
            raise SealBroken(self.name, "it was changed after it was encrypted") from None
        except ValueError as error:
            raise SealBroken(self.name, str(error)) from error
        finally:
            wipe(self._key)
        self._memory.flush()
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(self._memory, fcntl.F_ADD_SEALS, seals)

    def reader(self) -> IO[bytes]:
        assert self._memory is not None, "verify comes first"
        self._memory.seek(0)
        return self._memory

    def close(self) -> None:
        wipe(self._key)
        if self._memory is not None:
            self._memory.close()

    def _decrypt(self, memory: IO[bytes], check_abandoned: Callable[[], None]) -> None:
        file = self._file
        mode = modes.GCM(file.iv, file.tag)
        decryptor = Cipher(algorithms.AES(self._key), mode).decryptor()
        decryptor.authenticate_additional_data(file.protected)
        digest = hashlib.sha256()
        for position in range(file.start, file.end, PIECE_CHARS):
            check_abandoned()
            text = os.pread(file.descriptor, min(PIECE_CHARS, file.end - position), position)
            piece = decryptor.update(_decoded(text))
            digest.update(piece)
            memory.write(piece)
        decryptor.finalize()
        self.length = memory.tell()
        self.sha256 = digest.digest()


def _header(protected: bytes) -> dict[str, Any]:
    try:
        header = json.loads(_decoded(protected))
    except (ValueError, RecursionError) as error:
        raise ValueError("its protected header is no JSON in base64") from error
    if not isinstance(header, dict):
        raise ValueError("its protected header is no JSON object")
    if (header.get("alg"), header.get("enc")) != ("A256KW", "A256GCM"):
        raise ValueError("its alg and enc are others than A256KW and A256GCM")
    if unknown := {"crit", "zip"} & header.keys():
        raise ValueError(f"its protected header has {sorted(unknown)[0]}, which is not understood")
    return header


def _key_id(header: dict[str, Any]) -> str:
    """Empty where the JWE does not say: KServe's do not, the environment does."""
    key_id = header.get("kid")
    return key_id if isinstance(key_id, str) and KEY_ID.fullmatch(key_id) else ""


def _decoded(text: bytes, length: int | None = None) -> bytes:
    try:
        padded = text.translate(_TO_STANDARD) + b"=" * (-len(text) % 4)
        decoded = binascii.a2b_base64(padded, strict_mode=True)
    except binascii.Error as error:
        raise ValueError("it has something that is no base64 of the URL-safe kind") from error
    if length is not None and len(decoded) != length:
        raise ValueError(f"it has {len(decoded)} bytes where {length} are due")
    return decoded


def _encoded(content: bytes) -> bytes:
    return binascii.b2a_base64(content, newline=False).rstrip(b"=")
