"""`torchkeep keygen`, `seal`, `inspect` and `open`: the model owner's side.

Every failure is one line and exit code 1, and leaves no output: that is written beside its
place, under a hidden name, and moved there when all of it is right.
"""

import argparse
import contextlib
import io
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from torchkeep.modelstore.archive import ZIP_MAGIC, Packed, packed_manifest
from torchkeep.modelstore.errors import (
    KeyUnavailable,
    ModelStoreError,
    SealBroken,
    SealingError,
    UnreadableArchive,
)
from torchkeep.modelstore.found import JWE_SUFFIX, recognise
from torchkeep.modelstore.jwe import JweFile
from torchkeep.modelstore.keys import wipe
from torchkeep.modelstore.manifest import MANIFEST_PATH, Manifest, parse_manifest
from torchkeep.modelstore.owner_key import (
    PUBLIC_SUFFIX,
    new_key,
    new_signing_key,
    owner_text,
    read_key,
    read_owner,
    read_signing_key,
)
from torchkeep.modelstore.seal_header import check_key_id
from torchkeep.modelstore.sealed import SealedFile, SealRequest, open_sealed, seal

GZIP_MAGIC = b"\x1f\x8b"
COPY_BYTES = 1 << 20

COMMANDS: Mapping[str, str] = {
    "keygen": "make a key that seals archives, or one that signs them",
    "seal": "encrypt an archive",
    "inspect": "say what a sealed archive tells without its key",
    "open": "decrypt a sealed archive",
}


def main(argv: Sequence[str], prog: str = "torchkeep") -> int:
    """Run one of COMMANDS; returns the exit code. Leaves by `SystemExit(2)` on wrong usage."""
    flags = _parser(prog).parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may hold what it cannot show
    # Whoever is ended clears up as if interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run: Callable[[argparse.Namespace], None] = flags.run
    try:
        run(flags)
    except ModelStoreError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _fail("Interrupted.")
    return 0


def _fail(reason: str) -> int:
    sys.stderr.write(f"torchkeep: {' '.join(reason.split())}\n")
    return 1


def _keygen(flags: argparse.Namespace) -> None:
    if not flags.signing:
        new_key(flags.output)
        _say(f"Wrote {flags.output}: 32 bytes. Whoever has them can open what they seal.")
        return
    public = new_signing_key(flags.output)
    _say(f"Wrote {flags.output}, which signs, and {public}, for whom to trust:")
    _say(f"  {public.read_text().strip()}")


def _seal(flags: argparse.Namespace) -> None:
    try:
        check_key_id(flags.key_id)
    except ValueError as error:
        raise SealingError(f"--key-id: {error}.") from error
    signing_key = read_signing_key(flags.sign) if flags.sign else None
    with flags.archive.open("rb") as plain:
        manifest = _manifest_of(plain, flags.archive)
        assert manifest.model_name is not None, "checked with the manifest"
        request = SealRequest(
            manifest.model_name,
            manifest.model_version,
            int(time.time()) if flags.release is None else flags.release,
            flags.key_id,
            signing_key,
        )
        key = read_key(flags.key)
        try:
            with _new_file(flags.output, 0o666) as sealed:
                header = seal(plain, sealed, key, request)
        finally:
            wipe(key)
    _say(
        f"Sealed {header.model_name} {header.model_version}, release {header.release}, "
        f"as {flags.output}"
    )
    _say(f"  digest of the archive: sha256:{header.plaintext_sha256.hex()}")
    if header.owner is not None:
        _say(f"  signed by {owner_text(header.owner)}")


def _inspect(flags: argparse.Namespace) -> None:
    found = _sealed(flags.archive)
    try:
        if isinstance(found, JweFile):
            _say(f"{found.name} is a JWE, A256KW and A256GCM, as KServe has them")
            _say(f"  key      {found.key_id or 'not named; KServe is told by its environment'}")
            _say("It tells nothing of the model, and is signed by nobody.")
            return
        header = found.header
        made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(min(header.release, 1 << 35)))
        owner = f"{owner_text(header.owner)}, who signed this" if header.owner else "nobody signed"
        _say(f"{found.name} is a sealed archive, format 1")
        _say(f"  model    {header.model_name} {header.model_version}")
        _say(f"  release  {header.release} (as a time: {made})")
        _say(f"  key      {header.key_id}")
        _say(f"  owner    {owner}")
        _say(f"  archive  {header.plaintext_length} bytes, sha256:{header.plaintext_sha256.hex()}")
        _say(f"  chunks   {header.chunk_count} of {header.chunk_size} bytes, AES-256-GCM")
        _say("Its length is right. Only its key proves the rest.")
    finally:
        found.close()


def _open(flags: argparse.Namespace) -> None:
    found = _sealed(flags.archive)
    try:
        _check_owner(found, flags.owner)
        key = read_key(flags.key)
        try:
            contents = found.unlock(key)
        except KeyUnavailable as error:
            raise SealingError(f"{flags.key} does not open {found.name}.") from error
        finally:
            wipe(key)
        try:
            # The last word on the contents is said when `verified` ends, before the file appears.
            with _new_file(flags.output, 0o600) as plain, contents.verified() as reader:
                while piece := reader.read(COPY_BYTES):
                    plain.write(piece)
        finally:
            contents.close()
    finally:
        found.close()
    _say(f"Opened {found.name} as {flags.output}")


def _check_owner(found: SealedFile | JweFile, public: Path | None) -> None:
    if public is None:
        return
    owner = read_owner(public)
    if isinstance(found, JweFile) or found.header.owner is None:
        raise SealBroken(found.name, "nobody signed it")
    if found.header.owner != owner:
        raise SealBroken(found.name, f"it is signed by {owner_text(found.header.owner)}")


def _sealed(path: Path) -> SealedFile | JweFile:
    # What is not recognised is opened as ours, for the sake of its error.
    return recognise(path, downloaded=None).sealed or open_sealed(path)


def _manifest_of(plain: IO[bytes], path: Path) -> Manifest:
    start = plain.read(len(ZIP_MAGIC))
    if start not in (ZIP_MAGIC, GZIP_MAGIC):
        raise SealingError(f"{path} is neither a .mar nor a .tar.gz.")
    plain.seek(0)
    size = os.fstat(plain.fileno()).st_size
    try:
        text = packed_manifest(Packed(plain, path.name, size, start == ZIP_MAGIC), MANIFEST_PATH)
    except UnreadableArchive as error:
        raise SealingError(f"{path} is damaged, or no archive.") from error
    if text is None:
        raise SealingError(f"{path} has no {MANIFEST_PATH}: torch-model-archiver writes one.")
    manifest = parse_manifest(text)
    if manifest.model_name is None:
        raise SealingError(f"{path}: its manifest names no model.")
    return manifest


@contextlib.contextmanager
def _new_file(path: Path, mode: int) -> Iterator[IO[bytes]]:
    """A file that appears under its name when it is complete; what was there is not replaced."""
    if path.exists():
        raise SealingError(f"{path} exists; remove it or choose another name.")
    if not path.parent.is_dir():
        raise SealingError(f"{path.parent} is no directory.")
    partial = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Seal archives, and open them.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        text = COMMANDS[name]
        added = commands.add_parser(name, help=text, description=f"{text.capitalize()}.")
        added.set_defaults(run=run)
        return added

    keygen = command("keygen", _keygen)
    keygen.add_argument("-o", dest="output", type=Path, required=True, metavar="KEY")
    keygen.add_argument(
        "--signing",
        action="store_true",
        help=f"a key that signs (Ed25519); its public half is written to KEY{PUBLIC_SUFFIX}",
    )

    sealing = command("seal", _seal)
    sealing.add_argument("archive", type=Path, metavar="MODEL.mar")
    sealing.add_argument("--key", type=Path, required=True, help="file with the 32 bytes")
    sealing.add_argument(
        "--key-id", required=True, help="where a server gets the key: kbs:///repository/type/tag"
    )
    sealing.add_argument("-o", dest="output", type=Path, required=True, metavar="OUT")
    sealing.add_argument(
        "--sign", type=Path, metavar="OWNER_KEY", help="sign as the owner of this key"
    )
    sealing.add_argument(
        "--release",
        type=int,
        help="a number that grows, against older archives of the same model (default: the time)",
    )

    inspect = command("inspect", _inspect)
    inspect.add_argument("archive", type=Path, metavar="SEALED")

    opening = command("open", _open)
    opening.add_argument(
        "archive", type=Path, metavar="SEALED", help=f"a sealed archive, or KServe's {JWE_SUFFIX}"
    )
    opening.add_argument("--key", type=Path, required=True, help="file with the key")
    opening.add_argument("-o", dest="output", type=Path, required=True, metavar="OUT")
    opening.add_argument(
        "--owner", type=Path, metavar="PUBLIC", help="insist on the signature of this public key"
    )
    return parser
