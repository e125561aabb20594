"""Where lines go: TorchServe's files, a Python logging configuration, or stdout alone."""

import io
import logging
import logging.handlers
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.log_outlets import Files
from torchkeep.runtime.log_setup import choose_outlet
from torchkeep.runtime.logging_config import Configured, read_logging_config
from torchkeep.runtime.logs import Outlet, Stdout, configure_logging, start_step
from torchkeep.runtime.metric_log import series

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"
ALL_FILES = {"ts_log", "model_log", "access_log", "ts_metrics", "model_metrics"}
SERIES = series("N", "ms", ("Level", "Hostname"), ("Host", "vm"))

CONFIG = """
version: 1
formatters:
  short: {format: "%(name)s %(levelname)s %(message)s"}
handlers:
  file: {class: logging.FileHandler, filename: FILE, formatter: short, level: LEVEL}
loggers:
  TS_METRICS: {level: INFO}
root: {level: INFO, handlers: [file]}
"""


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "logging.yaml"
    text = CONFIG.replace("FILE", str(tmp_path / "out.log")).replace("LEVEL", "INFO")
    path.write_text(text)
    return path


def files(place: Path, stream: io.StringIO) -> Files:
    outlet = Files(place / "logs", place / "metrics", Stdout(stream))
    outlet.open()
    return outlet


def speak(outlet: Outlet) -> None:
    """A line of every kind."""
    with configure_logging(outlet) as logs:
        start_step("Model server started.")
        logging.getLogger("torchkeep.frontend.x").info("worker %s ready", "W-9000-m_1.0")
        logging.getLogger("torchkeep.frontend.x").warning("careful\x1b[2J")
        logging.getLogger("library").info("chatter")
        life = "%s %s", "W-9000-m_1.0", "W-9000-m_1.0 State change null -> WORKER_STARTED"
        logging.getLogger("torchkeep.worker").debug(*life)
        model = logging.getLogger("torchkeep.model")
        model.info("%s %s", "W-9000-m_1.0-stdout", "hello stdout")
        model.warning("%s %s", "W-9000-m_1.0-stderr", "hello stderr")
        logs.access.add(("127.0.0.1", 36270), "GET", b"/models", 200, 2.7)
        logs.ts_metrics.add(SERIES, 1)
        logs.model_metrics.add(SERIES, 2.5, "a,b")


def read(place: Path) -> dict[str, list[str]]:
    return {
        path.stem: [re.sub(STAMP, "STAMP", line) for line in path.read_text().splitlines()]
        for path in place.rglob("*.log")
    }


def test_each_file_has_torchserves_lines(tmp_path: Path, stream: io.StringIO) -> None:
    speak(files(tmp_path, stream))
    lines = read(tmp_path)
    assert set(lines) == ALL_FILES
    model = [
        "STAMP [INFO ] W-9000-m_1.0-stdout MODEL_LOG - hello stdout",
        "STAMP [WARN ] W-9000-m_1.0-stderr MODEL_LOG - hello stderr",
    ]
    assert lines["model_log"] == model
    assert lines["access_log"] == ['STAMP - /127.0.0.1:36270 "GET /models HTTP/1.1" 200 2']
    assert sorted(lines["ts_log"]) == sorted(
        [
            "STAMP [INFO ] MainThread torchkeep.start - Model server started.",
            "STAMP [INFO ] MainThread torchkeep.frontend.x - worker W-9000-m_1.0 ready",
            r"STAMP [WARN ] MainThread torchkeep.frontend.x - careful\x1b[2J",
            "STAMP [DEBUG] W-9000-m_1.0 torchkeep.worker - W-9000-m_1.0 State change null ->"
            " WORKER_STARTED",
            *model,
            'STAMP [INFO ] MainThread ACCESS_LOG - /127.0.0.1:36270 "GET /models HTTP/1.1" 200 2',
        ]
    )
    (server,), (of_model,) = lines["ts_metrics"], lines["model_metrics"]
    assert server.startswith("STAMP - N.ms:1.0|#Level:Host|#hostname:vm,timestamp:")
    assert of_model.startswith("STAMP - N.ms:2.5|#Level:Host|#hostname:vm,requestID:a,b,timestamp:")
    assert {path.parent.name for path in tmp_path.rglob("*_metrics.log")} == {"metrics"}


def test_stdout_is_the_same_with_files_and_without(tmp_path: Path) -> None:
    with_files, alone = io.StringIO(), io.StringIO()
    speak(files(tmp_path, with_files))
    speak(Stdout(alone))

    def lines(stream: io.StringIO) -> list[str]:
        return sorted(re.sub(STAMP, "STAMP", stream.getvalue()).splitlines())

    assert lines(with_files) == lines(alone)
    assert "hello stdout" not in alone.getvalue()
    assert "Model server started.\n" in alone.getvalue()


def test_files_are_written_by_the_writers_thread_alone(
    tmp_path: Path, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    before = Files._append

    def append(self: Files, name: str, text: str) -> None:
        threads.add(threading.current_thread().name)
        before(self, name, text)

    monkeypatch.setattr(Files, "_append", append)
    speak(files(tmp_path, stream))
    assert threads == {"logs"}


def test_a_file_that_cannot_be_written_any_more_is_told_once(
    tmp_path: Path, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlet = files(tmp_path, stream)

    def full(_text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outlet._files["ts_log"], "write", full)
    outlet.access("t\0one\n")
    outlet.flush()
    outlet.access("t\0two\n")
    outlet.flush()
    outlet.close()
    assert stream.getvalue().count("ts_log.log cannot be written: No space left on device") == 1
    assert (tmp_path / "logs" / "access_log.log").read_text() == "t - one\nt - two\n"


def test_directories_come_from_the_environment(tmp_path: Path) -> None:
    places = {"LOG_LOCATION": str(tmp_path / "a"), "METRICS_LOCATION": str(tmp_path / "b")}
    outlet, warnings = choose_outlet(None, None, places)
    outlet.close()
    assert warnings == []
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.log")}
    assert found == {
        "a/ts_log.log",
        "a/model_log.log",
        "a/access_log.log",
        "b/ts_metrics.log",
        "b/model_metrics.log",
    }


def test_the_usual_directory_is_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outlet, _ = choose_outlet(None, None, {})
    outlet.close()
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {f"{n}.log" for n in ALL_FILES}


def test_where_no_file_can_be_written_stdout_stays(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("no directory")
    places = {"LOG_LOCATION": str(tmp_path), "METRICS_LOCATION": str(tmp_path / "taken")}
    outlet, (warning,) = choose_outlet(None, None, places)
    assert isinstance(outlet, Stdout)
    assert not outlet.keeps_metrics
    assert warning == (
        f"no log files: {tmp_path / 'taken'}: File exists; all lines go to stdout alone. "
        "LOG_LOCATION and METRICS_LOCATION name directories that can be written"
    )


@pytest.mark.parametrize(
    ("name", "text"), [("log4j2.xml", "<Configuration/>"), ("conf", "\n<Configuration/>")]
)
def test_a_log4j2_file_is_told_and_the_usual_files_are_written(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    places = {"LOG_LOCATION": str(tmp_path), "METRICS_LOCATION": str(tmp_path)}
    outlet, (warning,) = choose_outlet(str(path), None, places)
    outlet.close()
    assert isinstance(outlet, Files)
    assert warning.startswith(f"{path} is a log4j2 configuration, which is made for Java")


def test_a_log4j2_file_in_vmargs_is_told_too(tmp_path: Path) -> None:
    places = {"LOG_LOCATION": str(tmp_path), "METRICS_LOCATION": str(tmp_path)}
    vmargs = "-Xmx1g -Dlog4j.configurationFile=file:///opt/log4j2.xml"
    outlet, (warning,) = choose_outlet(None, vmargs, places)
    outlet.close()
    assert warning.startswith("file:///opt/log4j2.xml is a log4j2 configuration")


def test_a_python_configuration_gets_every_record(
    tmp_path: Path, config: Path, stream: io.StringIO
) -> None:
    outlet = Configured(config, read_logging_config(config), Stdout(stream))
    speak(outlet)
    lines = (tmp_path / "out.log").read_text().splitlines()
    assert sorted(lines[:6]) == sorted(
        [
            "torchkeep.start INFO Model server started.",
            "torchkeep.frontend.x INFO worker W-9000-m_1.0 ready",
            r"torchkeep.frontend.x WARN careful\x1b[2J",
            "library INFO chatter",
            "MODEL_LOG INFO hello stdout",
            "MODEL_LOG WARN hello stderr",
        ]
    )
    assert lines[6] == 'ACCESS_LOG INFO /127.0.0.1:36270 "GET /models HTTP/1.1" 200 2'
    assert lines[7].startswith("TS_METRICS INFO N.ms:1.0|#Level:Host")
    assert len(lines) == 8  # MODEL_METRICS is not named in the configuration
    # Tools wait for it there
    assert stream.getvalue() == "Model server started.\n"


def test_a_configuration_of_the_docs_brings_every_line_to_stdout(
    tmp_path: Path, stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[2] / "docs" / "logging.md"
    path = tmp_path / "log.yaml"
    path.write_text(re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.M | re.S)[1])
    speak(Configured(path, read_logging_config(path), Stdout(stream)))
    assert stream.getvalue() == "Model server started.\n"
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if "Model server started" in line]
    for text in (
        r"\[INFO \] \S+ MODEL_LOG - hello stdout",
        r"\[WARN \] \S+ MODEL_LOG - hello stderr",
        r'\[INFO \] \S+ ACCESS_LOG - /127\.0\.0\.1:36270 "GET /models HTTP/1\.1" 200 2',
        r"\[INFO \] \S+ TS_METRICS - N\.ms:1\.0\|#Level:Host.*",
        r"\[INFO \] \S+ MODEL_METRICS - .*",
    ):
        assert [line for line in lines if re.fullmatch(f"{STAMP} {text}", line)], text


def test_levels_and_filters_of_a_configuration_hold(
    tmp_path: Path, config: Path, stream: io.StringIO
) -> None:
    text = config.read_text().replace("level: INFO}\nloggers", "level: WARNING}\nloggers")
    config.write_text(text)
    speak(Configured(config, read_logging_config(config), Stdout(stream)))
    assert (tmp_path / "out.log").read_text().splitlines() == [
        r"torchkeep.frontend.x WARN careful\x1b[2J",
        "MODEL_LOG WARN hello stderr",
    ]


def test_metrics_are_kept_where_a_configuration_names_them(config: Path) -> None:
    with_metrics = read_logging_config(config)
    assert Configured(config, with_metrics, Stdout()).keeps_metrics
    assert not Configured(config, {"version": 1}, Stdout()).keeps_metrics


def test_handlers_of_a_configuration_run_in_the_writers_thread(
    config: Path, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    before = logging.FileHandler.emit

    def emit(self: logging.FileHandler, record: logging.LogRecord) -> None:
        threads.add(threading.current_thread().name)
        before(self, record)

    monkeypatch.setattr(logging.FileHandler, "emit", emit)
    speak(Configured(config, read_logging_config(config), Stdout(stream)))
    assert threads == {"logs"}


def test_after_a_configuration_logging_is_as_before(config: Path, stream: io.StringIO) -> None:
    root, model = logging.getLogger(), logging.getLogger("torchkeep.model")

    def state() -> Any:
        return root.level, list(root.handlers), model.level, list(model.handlers), model.disabled

    before = state()
    speak(Configured(config, read_logging_config(config), Stdout(stream)))
    assert state() == before


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("version: 1\nroot: {handlers: [none]}\n", "none"),
        ("version: 1\nhandlers: {f: {class: logging.NoSuch}}\n", "NoSuch"),
        ("version: 1\nhandlers: {f: {class: logging.FileHandler, filename: /no/f}}\n", "/no/f"),
    ],
)
def test_a_configuration_that_cannot_be_applied_stops_the_start(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "logging.yaml"
    path.write_text(text)
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    outlet, _ = choose_outlet(str(path), None, {})
    with pytest.raises(ConfigError, match=complaint), configure_logging(outlet):
        pass
    assert (root.level, list(root.handlers)) == before


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("root: {}", "is no Python logging configuration: expected a yaml map with `version: 1`"),
        ("- 1", "is no Python logging configuration"),
        ("a: [", "is no yaml"),
        ("version: !!int x", "is no yaml"),
        ("a: " + "[" * 2000, "is no yaml"),
    ],
)
def test_a_file_that_is_no_configuration_stops_the_start(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "logging.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        choose_outlet(str(path), None, {})
    os.unlink(path)
    with pytest.raises(ConfigError, match="No such file"):
        choose_outlet(str(path), None, {})
