"""`torch-model-archiver`: write an archive from its parts.

This is the choice of what goes into an archive; `archive_writer` puts it there.
"""

import argparse
import glob
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchkeep.modelstore.archive_target import (
    base_name,
    check_target,
    created_on,
    existing_file,
)
from torchkeep.modelstore.archive_writer import Content, write_archive
from torchkeep.modelstore.errors import ArchiverError, PartMissing
from torchkeep.modelstore.manifest import MANIFEST_PATH, RUNTIMES

log = logging.getLogger(__name__)

ARCHIVER_VERSION = "0.12.0"  # of the format: what TorchServe's own archiver of that version writes
ARCHIVE_SUFFIXES = {"default": ".mar", "zip-store": ".mar", "tgz": ".tar.gz", "no-archive": ""}
BUILT_IN_HANDLERS = (
    "base_handler",
    "text_classifier",
    "image_classifier",
    "object_detector",
    "image_segmenter",
    "dali_image_classifier",
    "vllm_handler",
    "trt_llm_handler",
)
SKIPPED_DIRS = ("__pycache__", "__MACOSX")


@dataclass(frozen=True, slots=True)
class ArchiveParts:
    """What goes into an archive; paths are files of the caller."""

    model_name: str
    version: str
    handler: str
    serialized_file: str | None = None
    model_file: str | None = None
    extra_files: Sequence[str] = ()  # files, directories, glob patterns
    requirements_file: str | None = None
    config_file: str | None = None
    runtime: str = "python"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; exits with TorchServe's codes: 2 for wrong flags, else 1."""
    logging.basicConfig(format="%(levelname)s - %(message)s", level=logging.INFO)
    flags = parser().parse_args(argv)
    parts = ArchiveParts(
        model_name=flags.model_name,
        version=flags.version,
        handler=flags.handler,
        serialized_file=flags.serialized_file,
        model_file=flags.model_file,
        extra_files=(flags.extra_files or "").split(","),
        requirements_file=flags.requirements_file,
        config_file=flags.config_file,
        runtime=flags.runtime,
    )
    try:
        pack(parts, Path(flags.export_path), flags.archive_format, force=flags.force)
    except (ArchiverError, OSError) as error:
        log.error("%s", error)
        sys.exit(1)
    sys.exit(0)


def pack(
    parts: ArchiveParts,
    export_path: Path,
    archive_format: str = "default",
    *,
    force: bool = False,
    manifest: str | None = None,
) -> Path:
    """Write the archive below `export_path`; returns its path.

    Its manifest tells of `parts`, or is the given text.
    """
    if archive_format not in ARCHIVE_SUFFIXES:
        raise ArchiverError(
            f"Archive format {archive_format}: expected one of {', '.join(ARCHIVE_SUFFIXES)}."
        )
    suffix = ARCHIVE_SUFFIXES[archive_format]
    target = check_target("model", parts.model_name, export_path, suffix, force=force)
    content = (manifest_json(parts) if manifest is None else manifest).encode()
    entries = {**_collect(parts), MANIFEST_PATH: content}
    write_archive(target, archive_format, parts.model_name, entries)
    return target


def manifest_json(parts: ArchiveParts) -> str:
    """The text of MANIFEST.json for these parts."""
    return json.dumps(_manifest(parts), indent=2)


def _collect(parts: ArchiveParts) -> dict[str, Content]:
    """Every entry but the manifest by its name, in the order of the archive: sorted."""
    entries: dict[str, Content] = {}
    handler_file = _handler_file(parts)
    named = (parts.serialized_file, parts.model_file, handler_file, parts.requirements_file)
    for source in (*named, parts.config_file):
        if source is not None:
            _add(entries, Path(source).name, existing_file(source))
    for pattern in parts.extra_files:
        for path in _expand(pattern):
            if path.is_dir():
                for name, file in _walk(path):
                    _add(entries, name, file)
            else:
                _add(entries, path.name, existing_file(str(path)))
    entries.pop(MANIFEST_PATH, None)
    return dict(sorted(entries.items()))


def _add(entries: dict[str, Content], name: str, file: Path) -> None:
    earlier = entries.get(name)
    if isinstance(earlier, Path) and not earlier.samefile(file):
        log.warning("%s in the archive is %s, no longer %s", name, file, earlier)
    entries[name] = file


def _handler_file(parts: ArchiveParts) -> str | None:
    """The file that holds the handler; None where the server has it."""
    if parts.handler in BUILT_IN_HANDLERS and parts.runtime != "LSP":
        return None
    path = parts.handler
    suffix = ".so" if parts.runtime == "LSP" else ".py"
    directory, slash, name = path.rpartition("/")
    module, colon, _ = name.partition(":")
    # TorchServe: `file:function` names file.py, `file.py:function` is not accepted
    if colon and module.endswith(suffix):
        raise PartMissing(f"File does not exist: {path} (write {module[: -len(suffix)]}:...)")
    return directory + slash + (module if module.endswith(suffix) else module + suffix)


def _expand(pattern: str) -> list[Path]:
    if not pattern:
        return []
    if not glob.has_magic(pattern) or Path(pattern).exists():
        if not Path(pattern).exists():
            raise PartMissing(f"File does not exist: {pattern}")
        return [Path(pattern)]
    matches = sorted(Path(match) for match in glob.glob(pattern))
    if not matches:
        log.warning("Given wildcard pattern did not match any file: %s", pattern)
    return matches


def _walk(directory: Path) -> list[tuple[str, Path]]:
    """The files below a directory by their relative names; hidden directories are left out."""
    files = []
    for parent, names, file_names in os.walk(directory, followlinks=True):
        if len(Path(parent).parts) > len(directory.parts) + 64:
            raise ArchiverError(f"Too many nested directories: {parent}")
        names[:] = [n for n in names if not n.startswith(".") and n not in SKIPPED_DIRS]
        for name in file_names:
            file = Path(parent, name)
            files.append((file.relative_to(directory).as_posix(), existing_file(str(file))))
    return files


def _manifest(parts: ArchiveParts) -> Mapping[str, object]:
    """The manifest; keys of parts that were not given are left out."""
    model = {
        "modelName": parts.model_name,
        "serializedFile": base_name(parts.serialized_file),
        "handler": base_name(parts.handler),
        "modelFile": base_name(parts.model_file),
        "modelVersion": parts.version or None,
        "requirementsFile": base_name(parts.requirements_file),
        "configFile": base_name(parts.config_file),
    }
    return {
        "createdOn": created_on(),
        "runtime": parts.runtime,
        "model": {key: value for key, value in model.items() if value is not None},
        "archiverVersion": ARCHIVER_VERSION,
    }


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    flags = argparse.ArgumentParser(
        prog="torch-model-archiver", description="Torch Model Archiver Tool"
    )
    flags.add_argument(
        "--model-name", required=True, help="the archive is written as {model-name}.mar"
    )
    flags.add_argument("--serialized-file", help="weights: state dict, TorchScript or ONNX")
    flags.add_argument(
        "--model-file", help="Python file with the model's class; needed for state dicts"
    )
    flags.add_argument(
        "--handler", required=True, help="name of a built-in handler, or a Python file"
    )
    flags.add_argument("--extra-files", help="files, directories and patterns, separated by commas")
    flags.add_argument("--runtime", default="python", choices=RUNTIMES)
    flags.add_argument(
        "--export-path", default=os.getcwd(), help="directory to write to (default: this one)"
    )
    flags.add_argument(
        "--archive-format",
        default="default",
        choices=("tgz", "no-archive", "zip-store", "default"),
        help="default: .mar, compressed; zip-store: .mar, not compressed; tgz: .tar.gz; "
        "no-archive: a directory",
    )
    flags.add_argument("-f", "--force", action="store_true", help="overwrite what exists")
    flags.add_argument("-v", "--version", required=True, help="version of the model")
    flags.add_argument("-r", "--requirements-file", help="requirements.txt of the model")
    flags.add_argument("-c", "--config-file", help="model-config.yaml")
    return flags


if __name__ == "__main__":
    main()
