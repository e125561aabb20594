"""What reaches stdout, in which form, and that writing it stops nobody."""

import io
import logging
import queue
import re
import threading
import time
from typing import Any

import pytest
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from torchkeep.runtime import logs as module
from torchkeep.runtime.log_text import Bell
from torchkeep.runtime.logs import MARK, AccessLog, Stdout, configure_logging, start_step

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_a_start_step_stands_as_it_is(stream: io.StringIO) -> None:
    with configure_logging(Stdout(stream)):
        start_step("Model server started.")
        start_step("100 % of %s")
    assert stream.getvalue() == "Model server started.\n100 % of %s\n"


def access(log: AccessLog, path: bytes = b"/models") -> None:
    log.add(("127.0.0.1", 36270), "GET", path, 200, 2.7)


def test_an_access_line_in_torchserves_pattern(stream: io.StringIO) -> None:
    with configure_logging(Stdout(stream)) as logs:
        access(logs.access)
        logs.access.add(None, "PUT", b"/", 404, 0.2, "1.0")  # over a unix socket
    pattern = (
        STAMP + r" \[INFO \] MainThread ACCESS_LOG - "
        r'/127\.0\.0\.1:36270 "GET /models HTTP/1\.1" 200 2\n'
        + STAMP
        + r' \[INFO \] MainThread ACCESS_LOG - 127\.0\.0\.1 "PUT / HTTP/1\.0" 404 0\n'
    )
    assert re.fullmatch(pattern, stream.getvalue())


def test_an_access_line_tells_the_time_of_its_request(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with configure_logging(Stdout(stream)) as logs:
        for now in (1e9, 1e9 + 0.5, 1e9 + 61.25):
            monkeypatch.setattr(module.time, "time", lambda now=now: now)
            access(logs.access)
    monkeypatch.undo()
    stamps = [line.split(" ")[0] for line in stream.getvalue().splitlines()]
    expected = [
        time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at)) + f",{at % 1 * 1000:03.0f}"
        for at in (1e9, 1e9 + 0.5, 1e9 + 61.25)
    ]
    assert stamps == expected


def test_many_access_lines_come_out_whole_and_in_order(stream: io.StringIO) -> None:
    with configure_logging(Stdout(stream)) as logs:
        for number in range(1000):
            access(logs.access, b"/%d" % number)
    numbers = [line.split(" ")[8] for line in stream.getvalue().splitlines()]
    assert numbers == [f"/{number}" for number in range(1000)]


def test_what_is_logged_is_read_as_it_was_written(stream: io.StringIO) -> None:
    words = ["before"]
    with configure_logging(Stdout(stream)):
        logging.getLogger("torchkeep.x").warning("first")
        logging.getLogger("torchkeep.x").warning("%s", words)
        words.append("after")
    assert stream.getvalue().endswith("torchkeep.x - ['before']\n")


def test_a_path_cannot_write_lines_or_move_the_cursor(stream: io.StringIO) -> None:
    with configure_logging(Stdout(stream)) as logs:
        access(logs.access, "/a\r\nb\x1b[2J\x9b\u2028 end".encode())
        logging.getLogger("torchkeep.x").warning("a\rb\x1b[2J\x9b\u2028\udcff end")
    path, text = stream.getvalue().splitlines()
    assert path.endswith(r'"GET /a\r\nb\x1b[2J\xc2\x9b\xe2\x80\xa8 end HTTP/1.1" 200 2')
    assert text.endswith(r"- a\rb\x1b[2J\x9b\u2028\udcff end")


def test_access_lines_that_nobody_reads_are_counted(stream: io.StringIO) -> None:
    lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
    log = AccessLog(Bell(lines.put))
    for _ in range(10_003):
        access(log)
    assert log.take().count("\n") == 10_000
    access(log)
    assert f"{MARK}(3 lines before this one were dropped) /127" in log.take()
    assert lines.qsize() == 1  # one ring for all that one look finds


def test_of_a_worker_the_warnings_are_written(stream: io.StringIO) -> None:
    with configure_logging(Stdout(stream)):
        logging.getLogger("torchkeep.model").info("%s %s", "W-9000-m_1.0-stdout", "print(request)")
        logging.getLogger("torchkeep.model").warning("%s %s", "W-9000-m_1.0-stderr", "Traceback")
    (line,) = stream.getvalue().splitlines()
    # TorchServe: the pipe stands where the thread is named
    assert line.endswith("[WARN ] W-9000-m_1.0-stderr MODEL_LOG - Traceback")


def test_of_a_workers_life_only_the_warnings_are_written(stream: io.StringIO) -> None:
    with configure_logging(Stdout(stream)):
        worker = logging.getLogger("torchkeep.worker")
        worker.debug("%s %s", "W-9000-m_1.0", "W-9000-m_1.0 State change A -> B")
        worker.info("%s %s", "W-9000-m_1.0", "9000 Worker disconnected. B")
        worker.warning("%s %s", "W-9000-m_1.0", "Retry worker: 9000 in 1 seconds.")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("[WARN ] W-9000-m_1.0 torchkeep.worker - Retry worker: 9000 in 1 seconds.")


def test_a_traceback_keeps_its_lines(stream: io.StringIO) -> None:
    with configure_logging(Stdout(stream)):
        try:
            raise ValueError("bell \a")
        except ValueError:
            logging.getLogger("torchkeep.x").exception("it failed")
    lines = stream.getvalue().splitlines()
    assert re.fullmatch(STAMP + r" \[ERROR\] MainThread torchkeep\.x - it failed", lines[0])
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == r"ValueError: bell \x07"


def test_only_warnings_come_from_everyone_else(stream: io.StringIO) -> None:
    with configure_logging(Stdout(stream)):
        logging.getLogger("torchkeep.x").info("chatter")
        logging.getLogger("other").warning("careful: %d", 3)
    assert re.fullmatch(STAMP + r" \[WARN \] MainThread other - careful: 3\n", stream.getvalue())


def test_the_parser_of_forms_is_not_heard_because_it_quotes_the_body(stream: io.StringIO) -> None:
    with configure_logging(Stdout(stream)):
        parser = MultipartParser(b"boundary")
        with pytest.raises(MultipartParseError):
            parser.write(b"payload")
    assert stream.getvalue() == ""


def test_everything_is_as_before_afterwards(stream: io.StringIO) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), threading.active_count())
    with configure_logging(Stdout(stream)):
        pass
    start_step("unheard")
    assert (root.level, list(root.handlers), threading.active_count()) == before
    assert stream.getvalue() == ""


class Stalled(io.StringIO):
    """A reader who does not read until told to."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()

    def write(self, text: str) -> int:
        assert self.opened.wait(60)
        return super().write(text)


def test_a_stalled_reader_costs_lines_not_time() -> None:
    stream = Stalled()
    with configure_logging(Stdout(stream)):
        for number in range(10_100):
            logging.getLogger("x").warning("%d", number)
        stream.opened.set()
        deadline = time.monotonic() + 60
        while " - 9000\n" not in stream.getvalue() and time.monotonic() < deadline:
            pass
        logging.getLogger("x").warning("last")
    lines = stream.getvalue().splitlines()
    assert 10_000 < len(lines) < 10_100
    assert re.search(r" - \(\d+ lines before this one were dropped\) last$", lines[-1])


def test_a_reader_who_never_reads_cannot_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LAST_LINES_S", 0.05)
    stream = Stalled()
    for lines in (1, 10_100):  # with room for the end mark, and without
        with configure_logging(Stdout(stream)):
            for number in range(lines):
                logging.getLogger("x").warning("%d", number)
    assert stream.getvalue() == ""
    stream.opened.set()


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_who_left_is_not_complained_about(capsys: pytest.CaptureFixture[str]) -> None:
    with configure_logging(Stdout(Gone())):
        start_step("hello")
    assert capsys.readouterr().err == ""


def test_a_narrow_encoding_costs_no_line() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    with configure_logging(Stdout(stream)):
        start_step("mod\u00e8le")
    assert raw.getvalue() == b"mod\\xe8le\n"
    stream.close()
