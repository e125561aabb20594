"""`make demo-confidential` as its user runs it, and the transcript of it in the documents."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from neighbouring_ports import neighbouring_ports
from uncovered import uncovered_environment

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo" / "confidential_walkthrough.py"
PAGE = ROOT / "docs" / "confidential.md"
LIMIT_S = 280  # "under five minutes", on a machine that others use too
MARK = "<!-- transcript of `make demo-confidential`: {} -->"
OLDER = "an older release of the model lies in its place"

# What is different in each run, and nothing else.
VARYING = (
    (r"(?m)^  epoch .*\n", ""),
    (r"ed25519:[A-Za-z0-9+/]{43}=", "ed25519:KEY"),
    (r"\b[0-9a-f]{12,}\b", "HEX"),
    (r"\d+-\d+-\d+ \d+:\d+:\d+", "TIME"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"after \d+\.\d s", "after SECONDS"),
    (r"\b\d+ bytes", "BYTES"),
    (r"files searched: \d+", "files searched: COUNT"),
)


def shape(text: str) -> list[str]:
    for pattern, name in VARYING:
        text = re.sub(pattern, name, text)
    return text.strip().splitlines()


def transcript() -> str:
    block = PAGE.read_text().partition(MARK.format("begin"))[2].partition(MARK.format("end"))[0]
    return block.partition("```text\n")[2].partition("```")[0]


@contextmanager
def walking(place: Path, first_port: int, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The demo, running; its temporary directory is `place`."""
    command = [sys.executable, str(DEMO), "--ports-from", str(first_port)]
    demo = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=uncovered_environment() | {"TMPDIR": str(place)} | environment,
    )
    try:
        yield demo
    finally:
        demo.terminate()  # a test that failed leaves no server behind
        demo.wait(100)
        assert demo.stdout is not None
        demo.stdout.close()


def nothing_is_left(place: Path, pid: int) -> bool:
    return not [*place.iterdir(), *Path("/dev/shm").glob(f"torchkeep-demo-{pid}-*")]


@pytest.fixture
def first_port() -> int:
    pytest.importorskip("sklearn")
    return neighbouring_ports(4)


@pytest.mark.torch
@pytest.mark.timeout(LIMIT_S + 110)
def test_every_step_ends_as_it_should_and_as_the_documents_show(
    tmp_path: Path, first_port: int
) -> None:
    with walking(tmp_path, first_port) as demo:
        said, _ = demo.communicate(timeout=LIMIT_S)
        assert demo.returncode == 0, said
    outcomes = re.findall(r"(?m)^(PASSED|REFUSED) ", said)
    assert f"All {len(outcomes)} steps ended as they should." in said
    assert outcomes.count("PASSED") >= 12
    assert outcomes.count("REFUSED") >= 20
    assert "NOT AS EXPECTED" not in said
    assert shape(said) == shape(transcript())
    assert nothing_is_left(tmp_path, demo.pid)


@pytest.mark.torch
@pytest.mark.long
@pytest.mark.timeout(LIMIT_S + 110)
def test_protection_that_is_gone_is_found(tmp_path: Path, first_port: int) -> None:
    """The product without its check of releases: the walk-through says so, and fails."""
    broken, temp = tmp_path / "broken", tmp_path / "tmp"
    broken.mkdir()
    temp.mkdir()
    (broken / "sitecustomize.py").write_text(
        "from torchkeep.modelstore.trust import Trust\n"
        "Trust.check_header = lambda self, header: None\n"
    )
    with walking(temp, first_port, PYTHONPATH=str(broken)) as demo:
        said, _ = demo.communicate(timeout=LIMIT_S)
        assert demo.returncode == 1
    assert re.search(rf"(?m)^PASSED   {OLDER}", said)
    assert f"\n  {OLDER}\n" in said.partition("steps did not end as they should:")[2]
    assert nothing_is_left(temp, demo.pid)


@pytest.mark.torch
@pytest.mark.long
@pytest.mark.timeout(LIMIT_S + 110)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_walk_leaves_nothing(
    number: signal.Signals, tmp_path: Path, first_port: int
) -> None:
    with walking(tmp_path, first_port) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith("Somebody in between"):
                break
        demo.send_signal(number)
        said, _ = demo.communicate(timeout=LIMIT_S)
        assert (demo.returncode, said.splitlines()[-1]) == (1, "Stopped.")
    assert nothing_is_left(tmp_path, demo.pid)


def test_tests_that_the_page_names_exist() -> None:
    words = re.findall(r"`((?:tests/[\w/*]+\.py)|(?:test_\w+))`", PAGE.read_text())
    assert len(words) > 15
    everything = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for word in words:
        assert list(ROOT.glob(word)) or f"def {word}(" in everything, word


def test_links_of_the_page_lead_somewhere() -> None:
    text = PAGE.read_text()
    headings = {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"(?m)^#+ (.*)$", text)
    }
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 15
    for link in links:
        file, _, heading = link.partition("#")
        if not link.startswith("https:"):
            assert (PAGE.parent / file).exists(), link
            assert file or heading in headings, link


def test_outcome_that_was_not_expected_is_told_and_fails_the_walk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(DEMO.parent)
    from report import Refused, Report

    def refused() -> str:
        raise Refused("server: wrong key")

    report = Report()
    report.passes("a", "b", lambda: "seen")
    report.refuses("c", "d", "wrong key", refused)
    assert report.conclude() == 0
    capsys.readouterr()
    report.passes("should pass", "b", refused)
    report.refuses("should be refused", "d", "wrong key", lambda: "wrong key")
    report.refuses("should be refused by another", "d", "policy denied", refused)
    assert report.conclude() == 1
    said = capsys.readouterr().out
    assert said.count("NOT AS EXPECTED") == 3
    assert "3 of 5 steps did not end as they should:" in said
    assert "\n  should pass\n  should be refused\n  should be refused by another\n" in said
