"""What `make setup` decides, and when it does nothing; nothing is downloaded here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_ENSUREPIP = f"""#!/bin/sh
[ "$2" = "import ensurepip, venv" ] && exit 1
exec {sys.executable} "$@"
"""
TOO_OLD = """#!/bin/sh
[ "$1" = -V ] && echo Python 3.10.12 && exit 0
exit 1
"""


class Checkout:
    """A copy of what set-up needs, with commands of our own before everybody else's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "fake-bin"
        self.installed = root / "installed.log"
        shutil.copytree(ROOT / "requirements", root / "requirements")
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, root)
        self.bin.mkdir()
        self.command(
            "python3",
            f'#!/bin/sh\n[ "$1 $2" = "-m venv" ] && set -- "$@" --without-pip\n'
            f'exec {sys.executable} "$@"\n',
        )
        self.machine("x86_64")
        self.refuse("nothing")

    def command(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(script)
        path.chmod(0o755)

    def machine(self, name: str) -> None:
        self.command("uname", f"#!/bin/sh\necho Linux {name}\n")

    def refuse(self, lock: str) -> None:
        self.command(
            "uv",
            f'#!/bin/sh\necho "$@" >> {self.installed}\ncase "$*" in *{lock}*) exit 1;; esac\n',
        )

    def install_slowly(self) -> None:
        """A lock is installed when somebody writes to the pipe `go`."""
        os.mkfifo(self.root / "go")
        self.command(
            "uv",
            f'#!/bin/sh\necho "$@" >> {self.installed}\n'
            f'case "$*" in *requirements/*) read go < {self.root}/go;; esac\n',
        )

    def start(self, *variables: str) -> subprocess.Popen[str]:
        environment = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        return subprocess.Popen(
            ["make", "setup", *variables],
            cwd=self.root,
            env=environment | {"PATH": f"{self.bin}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def setup(self, *variables: str) -> subprocess.CompletedProcess[str]:
        run = self.start(*variables)
        stdout, stderr = run.communicate(timeout=60)
        return subprocess.CompletedProcess(run.args, run.returncode, stdout, stderr)

    def locks(self) -> list[str]:
        """The locks that were installed since the last call, in order."""
        text = self.installed.read_text() if self.installed.exists() else ""
        self.installed.unlink(missing_ok=True)
        return [Path(word).stem for word in text.split() if word.startswith("requirements/")]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_second_run_sets_nothing_up_again(checkout: Checkout) -> None:
    assert checkout.setup().returncode == 0
    assert checkout.locks() == ["ipex"]
    again = checkout.setup()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert checkout.locks() == []


def test_ipex_is_taken_where_it_installs_and_the_other_is_named(checkout: Checkout) -> None:
    said = [line for line in checkout.setup().stdout.splitlines() if line.startswith("Engine")]
    assert len(said) == 1
    assert "IPEX" in said[0]
    assert "ENGINE=torch" in said[0]


def test_torch_is_taken_on_other_machines(checkout: Checkout) -> None:
    checkout.machine("aarch64")
    assert "Engine: torch, because IPEX needs x86-64" in checkout.setup().stdout
    assert checkout.locks() == ["torch"]


def test_torch_is_taken_when_ipex_does_not_install(checkout: Checkout) -> None:
    checkout.refuse("ipex")
    run = checkout.setup()
    assert run.returncode == 0
    assert "Engine: torch, because IPEX did not install" in run.stdout
    assert checkout.locks() == ["ipex", "torch"]


def test_engine_asked_for_is_not_replaced_by_another(checkout: Checkout) -> None:
    checkout.refuse("ipex")
    assert checkout.setup("ENGINE=ipex").returncode != 0
    assert checkout.locks() == ["ipex"]


def test_another_engine_gets_a_fresh_environment_and_stays(checkout: Checkout) -> None:
    checkout.setup()
    old_file = checkout.root / ".venv" / "left-by-ipex"
    old_file.touch()
    assert checkout.setup("ENGINE=torch").returncode == 0
    assert not old_file.exists()
    checkout.setup()
    assert checkout.locks() == ["ipex", "torch"]


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements/ipex.txt"])
def test_changed_requirements_are_installed(checkout: Checkout, changed: str) -> None:
    checkout.setup()
    with (checkout.root / changed).open("a") as file:
        file.write("\n")
    checkout.setup()
    assert checkout.locks() == ["ipex", "ipex"]


def test_setup_that_broke_off_starts_afresh(checkout: Checkout) -> None:
    checkout.refuse("ipex")
    checkout.setup("ENGINE=ipex")
    debris = checkout.root / ".venv" / "debris"
    debris.touch()
    checkout.refuse("nothing")
    assert checkout.setup().returncode == 0
    assert not debris.exists()


def test_second_setup_waits_for_the_first(checkout: Checkout) -> None:
    checkout.install_slowly()
    first = checkout.start("ENGINE=torch")
    assert first.stdout is not None
    assert "Creating .venv" in first.stdout.readline()
    assert "Installing" in first.stdout.readline()
    second = checkout.start("ENGINE=torch")
    assert second.stdout is not None
    said = second.stdout.readline()
    (checkout.root / "go").write_text("on\n")
    assert first.communicate(timeout=60)[1] == ""
    rest, errors = second.communicate(timeout=60)
    assert said == "Waiting for another set-up of this clone to end ...\n"
    assert (first.returncode, second.returncode, rest, errors) == (0, 0, "", "")
    assert checkout.locks() == ["torch"]


@pytest.mark.parametrize(
    ("python", "script", "said"),
    [
        ("python3", WITHOUT_ENSUREPIP, "    sudo apt-get install python3-venv\n"),
        ("python3.12", WITHOUT_ENSUREPIP, "    sudo apt-get install python3.12-venv\n"),
        ("python3", TOO_OLD, "needs Python 3.11, 3.12 or 3.13, and python3 is Python 3.10.12"),
    ],
)
def test_python_that_will_not_do_is_explained(
    checkout: Checkout, python: str, script: str, said: str
) -> None:
    checkout.command(python, script)
    run = checkout.setup(f"PYTHON={python}")
    assert run.returncode != 0
    assert said in run.stderr
    assert not (checkout.root / ".venv").exists()


@pytest.mark.parametrize("lock", ["base", "ipex", "torch"])
def test_a_lock_holds_versions_and_hashes_and_no_registry(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert "://" not in text
    requirements = text.replace(" \\\n", " ").splitlines()
    pinned = re.compile(r"[a-z0-9-]+==[^ ]+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+")
    assert [one for one in requirements if not pinned.fullmatch(one)] == []
    versions = {one.partition("==")[0]: one.partition("==")[2] for one in requirements}
    if lock == "ipex":
        assert versions["torch"].startswith("2.8.")
        assert versions["torchvision"].startswith("0.23.")
        assert versions["intel-extension-for-pytorch"].startswith("2.8.")
    assert ("torch" in versions) == (lock != "base")


def test_unknown_engine_is_refused(checkout: Checkout) -> None:
    run = checkout.setup("ENGINE=java")
    assert run.returncode != 0
    assert "ENGINE=java is unknown" in run.stderr
