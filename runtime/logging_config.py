"""`--log-config`: a Python logging configuration (yaml) in place of TorchServe's log files.

The file is read as `logging.config.dictConfig` has it. Its handlers run in the thread that
writes the logs, never in the event loop. Loggers of interest: `torchkeep` and what is below,
`torchkeep.model` (what models print), `ACCESS_LOG`, `TS_METRICS` and `MODEL_METRICS`.
"""

import logging
import logging.config
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.logs import MARK, START, DroppingHandler, Queue, Stdout

_METRIC_LOGGERS = {"ts_metrics": "TS_METRICS", "model_metrics": "MODEL_METRICS"}
_COLLECTED = ("ACCESS_LOG", *_METRIC_LOGGERS.values())
# PyYAML's constructors let their own errors through (`!!int x`, month 13).
_CONVERSION_ERRORS = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
_LOG4J_SUFFIXES = (".xml", ".properties", ".jsn")


def is_log4j(path: Path) -> bool:
    """True for a configuration of TorchServe's own logging, which is made for Java."""
    if path.suffix in _LOG4J_SUFFIXES:
        return True
    try:
        return path.read_bytes().lstrip().startswith(b"<")
    except OSError:
        return False


def read_logging_config(path: Path) -> dict[str, Any]:
    """Raises ConfigError where the file is no logging configuration."""
    try:
        config = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"--log-config {path}: {error.strerror}") from error
    except (yaml.YAMLError, *_CONVERSION_ERRORS) as error:
        raise ConfigError(f"--log-config {path} is no yaml: {error}") from error
    if not isinstance(config, dict) or config.get("version") != 1:
        raise ConfigError(
            f"--log-config {path} is no Python logging configuration: expected a yaml map with "
            "`version: 1`, as logging.config.dictConfig takes it"
        )
    # Python's default would silence every logger of ours that the file does not name.
    return {"disable_existing_loggers": False, **config}


class Configured:
    """An outlet that hands every record to the handlers of the user's configuration.

    Only the steps of the start go to stdout in any case: tools wait for one of them there.
    """

    def __init__(self, path: Path, config: dict[str, Any], stdout: Stdout) -> None:
        self._path = path
        self._config = config
        self._stdout = stdout
        self._before: list[_Settings] = []
        self._handlers: list[logging.Handler] = []
        self._collected: dict[str, _Collected] = {}
        self._named = set(config.get("loggers") or {})
        self.keeps_metrics = bool(self._named & set(_METRIC_LOGGERS.values()))

    def install(self, lines: Queue) -> None:
        self._before = [_Settings(one) for one in _loggers()]
        try:
            logging.config.dictConfig(self._config)
        except (ValueError, TypeError, AttributeError, ImportError, OSError) as error:
            self._restore()
            raise ConfigError(f"--log-config {self._path}: {error}: {error.__cause__}") from error
        # TorchServe's loggers of metrics write thousands of lines a second: not to the
        # handlers of everything, unless the file asks for them.
        for name in set(_METRIC_LOGGERS.values()) - self._named:
            logging.getLogger(name).disabled = True
        start = logging.getLogger(START)
        start.setLevel(logging.INFO)
        for logger in _loggers():
            for handler in list(logger.handlers):
                self._handlers.append(handler)
                logger.removeHandler(handler)
                logger.addHandler(DroppingHandler(lines, handler))
        start.addHandler(DroppingHandler(lines))
        self._collected = {name: _Collected(name) for name in _COLLECTED}

    def uninstall(self) -> None:
        self._restore()

    def record(self, record: logging.LogRecord) -> None:
        self._stdout.record(record)

    def access(self, marked: str) -> None:
        texts = (line.partition(MARK)[2] for line in marked.splitlines())
        self._collected["ACCESS_LOG"].hand_on(texts)

    def metrics(self, name: str, lines: str) -> None:
        texts = (line.partition(" - ")[2] for line in lines.splitlines())
        self._collected[_METRIC_LOGGERS[name]].hand_on(texts)

    def flush(self) -> None:
        self._stdout.flush()

    def close(self) -> None:
        for handler in self._handlers:
            handler.close()

    def _restore(self) -> None:
        known = {one.logger for one in self._before}
        for logger in _loggers():
            if logger not in known:
                logger.handlers[:] = []
        for one in self._before:
            one.restore()


class _Settings:
    """What a configuration may change of a logger."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        self._level = logger.level
        self._handlers = list(logger.handlers)
        self._filters = list(logger.filters)
        self._propagate = logger.propagate
        self._disabled = logger.disabled

    def restore(self) -> None:
        self.logger.setLevel(self._level)
        self.logger.handlers[:] = self._handlers
        self.logger.filters[:] = self._filters
        self.logger.propagate = self._propagate
        self.logger.disabled = self._disabled


def _loggers() -> list[logging.Logger]:
    named = logging.getLogger().manager.loggerDict.values()
    return [logging.getLogger(), *(one for one in named if isinstance(one, logging.Logger))]


class _Collected:
    """What a logger would do with the lines that the event loop collects, without a queue."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._filters = list(self._logger.filters)
        self._targets = (
            list(_targets(self._logger)) if self._logger.isEnabledFor(logging.INFO) else []
        )

    def hand_on(self, texts: Iterable[str]) -> None:
        """Called by the writer's thread, also when logging is as it was before already."""
        if not self._targets:
            return
        filters = logging.Filterer()
        filters.filters = self._filters
        for text in texts:
            record = self._logger.makeRecord(self._logger.name, logging.INFO, "", 0, text, (), None)
            if filters.filter(record):
                for handler in self._targets:
                    handler.handle(record)


def _targets(logger: logging.Logger) -> Iterator[logging.Handler]:
    """The configured handlers that a line of this logger reaches."""
    at: logging.Logger | None = logger
    while at is not None:
        for handler in at.handlers:
            target = handler.target if isinstance(handler, DroppingHandler) else None
            if target is not None and target.level <= logging.INFO:
                yield target
        at = at.parent if at.propagate else None
