"""The model owner's commands: each failure one line, exit code 1, and no output."""

import base64
import errno
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import sealed_reference
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sealing import KEK, KEY_ID, jwe_bytes, mar_bytes

from torchkeep.modelstore.sealed import open_sealed
from torchkeep.modelstore.sealing_commands import main

MAR = mar_bytes("digits", "2.1")


class Owner:
    """A directory with keys and an archive, in which commands are run."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.capsys = capsys
        (home / "m.mar").write_bytes(MAR)

    def run(self, line: str) -> str:
        """What a command says that succeeds."""
        assert main(line.split()) == 0, self.capsys.readouterr().err
        output = self.capsys.readouterr()
        assert output.err == ""
        return output.out

    def fail(self, line: str) -> str:
        """The one line of a command that fails and leaves no file."""
        before = sorted(os.listdir(self.home))
        assert main(line.split()) == 1
        output = self.capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("torchkeep: ")
        assert output.err.count("\n") == 1
        assert sorted(os.listdir(self.home)) == before
        return output.err.removeprefix("torchkeep: ").rstrip("\n")

    def seal(self, options: str = "") -> str:
        return self.run(f"seal m.mar --key key --key-id {KEY_ID} -o m.sealed {options}")


@pytest.fixture
def owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Owner:
    monkeypatch.chdir(tmp_path)
    owner = Owner(tmp_path, capsys)
    owner.run("keygen -o key")
    owner.run("keygen --signing -o owner")
    return owner


def test_from_keygen_to_open(owner: Owner) -> None:
    said = owner.seal("--release 3")
    assert said.startswith("Sealed digits 2.1, release 3, as m.sealed\n")
    owner.run("open m.sealed --key key -o out.mar")
    assert Path("out.mar").read_bytes() == MAR
    assert stat.S_IMODE(Path("out.mar").stat().st_mode) == 0o600


def test_keys_are_private_and_never_replaced(owner: Owner) -> None:
    assert len(Path("key").read_bytes()) == 32
    assert b"PRIVATE KEY" in Path("owner").read_bytes()
    for name in ("key", "owner"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
    assert Path("owner.pub").read_text().startswith("ed25519:")
    assert owner.fail("keygen -o key") == "key exists; remove it or choose another name."
    assert "owner.pub exists" in owner.fail("keygen --signing -o owner")
    Path("owner.pub").rename("public")
    assert "owner exists" in owner.fail("keygen --signing -o owner")
    assert "missing/key: No such file" in owner.fail("keygen -o missing/key")
    assert "/dev/full exists" in owner.fail("keygen -o /dev/full")


def test_a_signed_archive_opens_for_its_owner_only(owner: Owner) -> None:
    owner.run("keygen --signing -o other")
    public = Path("owner.pub").read_text().strip()
    assert f"signed by {public}" in owner.seal("--sign owner")
    owner.run("open m.sealed --key key -o out.mar --owner owner.pub")
    complaint = owner.fail("open m.sealed --key key -o out2 --owner other.pub")
    assert complaint == f"m.sealed: it is signed by {public}."
    Path("m.sealed").unlink()
    owner.seal()
    complaint = owner.fail("open m.sealed --key key -o out2 --owner other.pub")
    assert complaint == "m.sealed: nobody signed it."


def test_inspect_needs_no_key(owner: Owner) -> None:
    owner.seal("--release 1790000000 --sign owner")
    said = owner.run("inspect m.sealed")
    assert "  model    digits 2.1\n" in said
    assert "  release  1790000000 (as a time: 2026-09-21 14:13:20 UTC)\n" in said
    assert f"  key      {KEY_ID}\n" in said
    assert f"  owner    {Path('owner.pub').read_text().strip()}, who signed this\n" in said
    assert f"  archive  {len(MAR)} bytes, sha256:" in said
    Path("m.sealed").unlink()
    owner.seal()
    assert "  owner    nobody signed\n" in owner.run("inspect m.sealed")
    header = open_sealed(Path("m.sealed")).header
    assert header.release > 1_790_000_000  # the time


def test_a_jwe_is_inspected_and_opened(owner: Owner) -> None:
    Path("m.jwe").write_bytes(jwe_bytes(MAR))
    Path("kek").write_text(base64.urlsafe_b64encode(KEK).decode())
    assert "not named" in owner.run("inspect m.jwe")
    owner.run("open m.jwe --key kek -o out.mar")
    assert Path("out.mar").read_bytes() == MAR
    assert owner.fail("open m.jwe --key key -o out2") == "key does not open m.jwe."
    assert "nobody signed it" in owner.fail("open m.jwe --key kek -o out2 --owner owner.pub")


def test_a_tar_is_sealed_too(owner: Owner) -> None:
    with tarfile.open("m.mar", "w:gz") as archive_tar:
        for name, content in (
            ("m/weights", bytes(3 << 20)),
            ("m/MAR-INF/MANIFEST.json", b'{"model": {"modelName": "tar"}}'),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive_tar.addfile(entry, io.BytesIO(content))
    assert "Sealed tar 1.0," in owner.seal()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda s: b"x" + s[1:], "m.sealed: it does not begin as a sealed archive does."),
        (lambda s: s[:-1], "m.sealed: it was cut off: "),
        (lambda s: s + b"x", "m.sealed: it goes on for 1 bytes behind its end."),
        (lambda s: s[:-1] + bytes([s[-1] ^ 1]), "m.sealed: chunk 0 of 1 was changed, moved or "),
        (lambda s: s.replace(b'"2.1"', b'"2.0"'), "m.sealed: its header was changed after it "),
        (lambda s: s.replace(b'"format":1', b'"format":2'), "m.sealed: its format version is 2,"),
        (lambda s: s[:8] + b"\xff" * 4 + s[12:], "m.sealed: its header would be 4294967295 byt"),
        (lambda s: b"", "m.sealed: it does not begin as a sealed archive does."),
    ],
)
def test_a_damaged_archive_is_refused(
    damage: Callable[[bytes], bytes], reason: str, owner: Owner
) -> None:
    owner.seal()
    path = Path("m.sealed")
    path.write_bytes(damage(path.read_bytes()))
    assert owner.fail("open m.sealed --key key -o out.mar").startswith(reason)


def test_a_digest_that_the_key_holder_lied_about_leaves_no_output(owner: Owner) -> None:
    owner.seal()
    text = Path("m.sealed").read_bytes()[12:].partition(b"}")[0] + b"}"
    fields = json.loads(text) | {"plaintext_sha256": "00" * 32}
    lying = sealed_reference.seal(fields, MAR, Path("key").read_bytes(), data_keys=b"d" * 64)
    Path("m.sealed").write_bytes(lying)
    complaint = owner.fail("open m.sealed --key key -o out.mar")
    assert complaint == "m.sealed: its contents are not those whose digest its header has."


def test_a_wrong_key_is_said_to_be_one(owner: Owner) -> None:
    owner.seal()
    Path("other").write_bytes(KEK)
    assert owner.fail("open m.sealed --key other -o out") == "other does not open m.sealed."
    Path("short").write_bytes(KEK[:16])
    assert "short: wrong key. Expected 32 bytes" in owner.fail("open m.sealed --key short -o out")
    assert owner.fail("open m.sealed --key nokey -o out") == "nokey: No such file or directory"
    assert owner.fail("open nothing --key key -o out") == "nothing: No such file or directory"


def test_a_disk_that_is_full_leaves_no_half_key(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for options in ("", "--signing"):
        complaint = owner.fail(f"keygen {options} -o new")
        assert complaint == "input or output: No space left on device"


def test_names_that_cannot_be_shown_are_no_reason_to_fail(owner: Owner) -> None:
    name = os.fsdecode(b"\xff")
    owner.seal()
    Path("m.sealed").rename(name)
    assert main(["inspect", name]) == 0
    assert "\\udcff is a sealed archive" in owner.capsys.readouterr().out


def test_whoever_is_ended_leaves_no_output(owner: Owner, poll: Callable[..., object]) -> None:
    Path("m.mar").write_bytes(mar_bytes(files={"weights": bytes(300 << 20)}, compression=0))
    owner.seal()
    command = [sys.executable, "-P", "-m", "torchkeep.modelstore", "open", "m.sealed"]
    with subprocess.Popen(
        [*command, "--key", "key", "-o", "out.mar"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        poll(lambda: list(owner.home.glob(".*.part")), "it has begun")
        process.terminate()
        _, error = process.communicate()
    assert (process.returncode, error) == (1, b"torchkeep: Interrupted.\n")
    assert sorted(os.listdir(owner.home)) == ["key", "m.mar", "m.sealed", "owner", "owner.pub"]


def test_what_exists_is_not_replaced(owner: Owner) -> None:
    owner.seal()
    assert "nowhere is no directory" in owner.fail("open m.sealed --key key -o nowhere/out")
    Path("out").write_text("mine")
    assert "out exists" in owner.fail("open m.sealed --key key -o out")
    assert Path("out").read_text() == "mine"
    complaint = owner.fail(f"seal m.mar --key key --key-id {KEY_ID} -o m.sealed")
    assert complaint == "m.sealed exists; remove it or choose another name."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"text", "m.mar is neither a .mar nor a .tar.gz."),
        (b"", "m.mar is neither a .mar nor a .tar.gz."),
        (b"PK, no zip", "m.mar is damaged, or no archive."),
        (mar_bytes(None), "m.mar: its manifest names no model."),
        (mar_bytes("a" * 2000), "The archive cannot be sealed: its header needs model_name, "),
        (mar_bytes().replace(b"MANIFEST", b"MANIFAST"), "m.mar has no MAR-INF/MANIFEST.json: "),
        (mar_bytes("../m", files={"../evil": b""}), "m.mar: entry '../evil' has a name with '..'"),
    ],
)
def test_what_no_server_would_open_is_not_sealed(content: bytes, reason: str, owner: Owner) -> None:
    Path("m.mar").write_bytes(content)
    complaint = owner.fail(f"seal m.mar --key key --key-id {KEY_ID} -o m.sealed")
    assert complaint.startswith(reason)


def test_what_is_no_key_id(owner: Owner) -> None:
    for key_id in ("digits", "kbs:///a/b", "kbs://host/a/b/c", "kbs:///a/../b"):
        complaint = owner.fail(f"seal m.mar --key key --key-id {key_id} -o m.sealed")
        assert complaint == (
            f"--key-id: its key id is '{key_id}', expected kbs:///repository/type/tag."
        )


def test_what_is_no_signing_key(owner: Owner) -> None:
    command = f"seal m.mar --key key --key-id {KEY_ID} -o m.sealed --sign"
    assert "key is no private key in PEM" in owner.fail(f"{command} key")
    rsa = generate_private_key(65537, 2048)
    pem = rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    Path("rsa").write_bytes(pem)
    Path("rsa").chmod(0o600)
    assert "rsa is no Ed25519 key" in owner.fail(f"{command} rsa")
    Path("owner").chmod(0o640)
    assert owner.fail(f"{command} owner") == "Others may read owner: chmod 600 owner."
    owner.seal()
    opening = "open m.sealed --key key -o out --owner"
    Path("short").write_text("ed25519:AAAA")
    for name in ("key", "m.sealed", "rsa", "short"):
        assert f"{name} is no public key" in owner.fail(f"{opening} {name}")


def test_wrong_usage_leaves_with_2(owner: Owner) -> None:
    for line in ("", "polish", "seal m.mar", "keygen"):
        with pytest.raises(SystemExit) as left:
            main(line.split())
        assert left.value.code == 2


@pytest.mark.parametrize(
    "program",
    [
        [sys.executable, "-P", "-m", "torchkeep.modelstore"],
        [sys.executable, "-c", "from torchkeep.runtime.__main__ import torchkeep; torchkeep()"],
    ],
)
def test_the_commands_are_where_they_are_looked_for(program: list[str], tmp_path: Path) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*program, *arguments], capture_output=True, text=True, cwd=tmp_path)

    assert "decrypt a sealed archive" in run("--help").stdout
    assert run("keygen", "-o", "key").returncode == 0
    second = run("keygen", "-o", "key")
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr == "torchkeep: key exists; remove it or choose another name.\n"
