"""What one archive of the cases is made of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

HANDLERS = Path(__file__).resolve().parent.parent / "tests" / "handlers"


@dataclass(frozen=True)
class Source:
    """What goes into one archive. The key in SOURCES is its file name without the suffix."""

    handler: str
    model_name: str | None = None
    version: str = "1.0"
    model_file: str | None = None
    serialized_file: str | None = None
    write_weights: Callable[[Path], None] | None = None
    extra_files: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()  # further ones of tests/handlers
    write_extra: dict[str, Callable[[Path], None]] = field(default_factory=dict)
    extra_folder: str | None = None  # of tests/handlers: what is in it comes to the top
    requirements: str | None = None
    config: str | None = None
    wheel: str | None = None  # of PyPI, whose files `handler` and `model_file` may be
    form: Literal[".mar", ".tar.gz", ""] = ".mar"  # "" is a directory

    @property
    def is_built_in(self) -> bool:
        return not self.handler.partition(":")[0].endswith(".py") and ":" not in self.handler
