"""Packs a model. The work is `torchkeep.modelstore.archiver`'s; here are TorchServe's names."""

from pathlib import Path

from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_archiver_error import ModelArchiverError
from torchkeep.modelstore import archiver
from torchkeep.modelstore.errors import ArchiverError, PartMissing
from torchkeep.modelstore.manifest import RUNTIMES


def generate_model_archive(config: ModelArchiverConfig | None = None) -> None:
    """Write the archive that `config` describes; without one, as the command line says.

    FileNotFoundError for a part that is no file, ValueError for an unknown runtime,
    ModelArchiverError for everything else that was asked for and cannot be.
    """
    if config is None:
        config = ModelArchiverConfig.from_args(archiver.parser().parse_args())
    if config.runtime not in RUNTIMES:
        raise ValueError(f"{config.runtime!r} is not a valid runtime: expected one of {RUNTIMES}")
    parts = archiver.ArchiveParts(
        model_name=config.model_name,
        version=str(config.version),
        handler=config.handler,
        serialized_file=config.serialized_file,
        model_file=config.model_file,
        extra_files=(config.extra_files or "").split(","),
        requirements_file=config.requirements_file,
        config_file=config.config_file,
        runtime=config.runtime,
    )
    try:
        archiver.pack(parts, Path(config.export_path), config.archive_format, force=config.force)
    except PartMissing as error:
        raise FileNotFoundError(str(error)) from error
    except ArchiverError as error:
        raise ModelArchiverError(str(error)) from error
