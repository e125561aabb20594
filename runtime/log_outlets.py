"""Where log lines go: TorchServe's files beside stdout, or where the user's own logging
configuration sends them.
"""

import logging
from pathlib import Path

from torchkeep.runtime.log_files import LogFile
from torchkeep.runtime.logs import (
    MARK,
    MODEL,
    STDOUT_LEVELS,
    TORCHSERVE_NAMES,
    WORKER,
    Queue,
    Stdout,
    Tap,
    spelled,
)

# Of others than the server only warnings: what a library says below that may be a payload.
FILE_LEVELS = {
    **STDOUT_LEVELS,
    "torchkeep": logging.INFO,
    MODEL: logging.INFO,
    WORKER: logging.DEBUG,  # TorchServe: changes of a worker's state are told at this level
}
LOG_FILES = ("ts_log", "model_log", "access_log")
METRIC_FILES = ("ts_metrics", "model_metrics")


class Files:
    """TorchServe's log files, and stdout as it is without them."""

    keeps_metrics = True

    def __init__(self, log_directory: Path, metrics_directory: Path, stdout: Stdout) -> None:
        self._stdout = stdout
        self._tap = Tap(FILE_LEVELS)
        places = dict.fromkeys(LOG_FILES, log_directory)
        places |= dict.fromkeys(METRIC_FILES, metrics_directory)
        self._files = {name: LogFile(place, name) for name, place in places.items()}
        self._text: dict[str, list[str]] = {name: [] for name in places}
        self._is_failing: set[str] = set()

    def open(self) -> None:
        """Raises OSError for the first file that cannot be written."""
        try:
            for file in self._files.values():
                file.open()
        except OSError:
            self.close()
            raise

    def install(self, lines: Queue) -> None:
        self._tap.install(lines)

    def uninstall(self) -> None:
        self._tap.uninstall()

    def record(self, record: logging.LogRecord) -> None:
        self._stdout.record(record)
        line = spelled(record)
        self._text["ts_log"].append(line)
        if record.name == TORCHSERVE_NAMES[MODEL]:
            self._text["model_log"].append(line)

    def access(self, marked: str) -> None:
        self._stdout.access(marked)
        self._text["ts_log"].append(marked.replace(MARK, " [INFO ] MainThread ACCESS_LOG - "))
        self._text["access_log"].append(marked.replace(MARK, " - "))

    def metrics(self, name: str, lines: str) -> None:
        self._text[name].append(lines)

    def flush(self) -> None:
        for name, lines in self._text.items():
            if lines:
                text = "".join(lines)
                lines.clear()
                self._append(name, text)
        self._stdout.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _append(self, name: str, text: str) -> None:
        try:
            self._files[name].write(text)
        except OSError as error:
            if name not in self._is_failing:
                path = self._files[name].path
                self._stdout.say(f"Warning: {path} cannot be written: {error.strerror}\n")
            self._is_failing.add(name)
        else:
            self._is_failing.discard(name)


def open_files(
    log_directory: Path, metrics_directory: Path, stdout: Stdout
) -> tuple[Files | Stdout, str]:
    """The files, opened; or stdout alone and a sentence that says why."""
    files = Files(log_directory, metrics_directory, stdout)
    try:
        files.open()
    except OSError as error:
        return stdout, (
            f"no log files: {error.filename}: {error.strerror}; all lines go to stdout alone. "
            "LOG_LOCATION and METRICS_LOCATION name directories that can be written"
        )
    return files, ""
