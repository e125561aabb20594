"""What an archive is made of, and where it goes."""

import os
from argparse import Namespace
from dataclasses import dataclass, fields
from typing import Literal


@dataclass
class ModelArchiverConfig:
    """The flags of `torch-model-archiver`, with dashes as underscores."""

    model_name: str
    handler: str
    version: str
    serialized_file: str | None = None
    model_file: str | None = None
    extra_files: str | None = None  # separated by commas
    runtime: str = "python"
    export_path: str = os.getcwd()  # TorchServe: of the time of the import
    archive_format: Literal["default", "tgz", "no-archive", "zip-store"] = "default"
    force: bool = False
    requirements_file: str | None = None
    config_file: str | None = None

    @classmethod
    def from_args(cls, args: Namespace) -> "ModelArchiverConfig":
        """From parsed flags, each of which must be there."""
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls)})
