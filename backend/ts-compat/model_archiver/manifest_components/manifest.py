"""The interpreters that a manifest can name, for `ModelArchiverConfig(runtime=...)`."""

from enum import Enum


class RuntimeType(Enum):
    PYTHON = "python"
    PYTHON3 = "python3"
    LSP = "LSP"
