"""The manifest of an archive, for scripts that write it and then call `package_model`."""

from argparse import Namespace

from model_archiver.model_archiver_config import ModelArchiverConfig
from torchkeep.modelstore.archiver import ArchiveParts, manifest_json
from torchkeep.modelstore.manifest import RUNTIMES


class ModelExportUtils:
    """TorchServe keeps its archiver's functions in a class of this name."""

    @staticmethod
    def generate_manifest_json(config: ModelArchiverConfig | Namespace) -> str:
        """The text of MANIFEST.json; ValueError for an unknown runtime."""
        return manifest_json(archive_parts(config))


def archive_parts(config: ModelArchiverConfig | Namespace) -> ArchiveParts:
    """What `config` names. Flags that a script of an earlier archiver leaves out are not given."""
    runtime = getattr(config, "runtime", "python")
    if runtime not in RUNTIMES:
        raise ValueError(f"{runtime!r} is not a valid runtime: expected one of {RUNTIMES}")
    return ArchiveParts(
        model_name=config.model_name,
        version=str(config.version),
        handler=config.handler,
        serialized_file=getattr(config, "serialized_file", None),
        model_file=getattr(config, "model_file", None),
        extra_files=(getattr(config, "extra_files", None) or "").split(","),
        requirements_file=getattr(config, "requirements_file", None),
        config_file=getattr(config, "config_file", None),
        runtime=runtime,
    )
