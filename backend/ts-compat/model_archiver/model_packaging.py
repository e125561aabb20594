"""Packs a model. The work is `torchkeep.modelstore.archiver`'s; here are TorchServe's names."""

from argparse import Namespace
from pathlib import Path

from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_archiver_error import ModelArchiverError
from model_archiver.model_packaging_utils import ModelExportUtils as ModelExportUtils
from model_archiver.model_packaging_utils import archive_parts
from torchkeep.modelstore import archiver
from torchkeep.modelstore.errors import ArchiverError, PartMissing


def generate_model_archive(config: ModelArchiverConfig | None = None) -> None:
    """Write the archive that `config` describes; without one, as the command line says.

    FileNotFoundError for a part that is no file, ValueError for an unknown runtime,
    ModelArchiverError for everything else that was asked for and cannot be.
    """
    if config is None:
        config = ModelArchiverConfig.from_args(archiver.parser().parse_args())
    _pack(config, None)


def package_model(config: ModelArchiverConfig | Namespace, manifest: str) -> None:
    """Write the archive that `config` describes, with this text as its manifest.

    The packing scripts of the OpenMMLab projects call it, with
    `ModelExportUtils.generate_manifest_json`; raises as `generate_model_archive` does.
    """
    _pack(config, manifest)


def _pack(config: ModelArchiverConfig | Namespace, manifest: str | None) -> None:
    parts = archive_parts(config)
    archive_format = getattr(config, "archive_format", "default")
    force = bool(getattr(config, "force", False))
    try:
        archiver.pack(
            parts, Path(config.export_path), archive_format, force=force, manifest=manifest
        )
    except PartMissing as error:
        raise FileNotFoundError(str(error)) from error
    except ArchiverError as error:
        raise ModelArchiverError(str(error)) from error
