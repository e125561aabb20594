"""`torch-model-archiver`: write an archive from its parts.

This is the choice of what goes into an archive; `archive_writer` puts it there.
"""

import argparse
import glob
import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchkeep.modelstore.archive_writer import Content, write_archive
from torchkeep.modelstore.errors import ArchiverError
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
MODEL_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_\-.]*$")
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
    flags = _parser().parse_args(argv)
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
) -> Path:
    """Write the archive below `export_path`; returns its path."""
    if not MODEL_NAME.fullmatch(parts.model_name):
        raise ArchiverError(
            "Model name contains special characters.\n"
            f"The allowed regular expression filter for model name is: {MODEL_NAME.pattern}"
        )
    if not export_path.is_dir():
        raise ArchiverError(
            f"Given export-path {export_path} is not a directory. "
            "Point to a valid export-path directory."
        )
    target = export_path / (parts.model_name + ARCHIVE_SUFFIXES[archive_format])
    if target.exists():
        if not force:
            raise ArchiverError(
                f"{target} already exists.\n"
                "Please specify --force/-f option to overwrite the model archive output file.\n"
                "See -h/--help for more details."
            )
        log.warning("Overwriting %s ...", target)
    write_archive(target, archive_format, parts.model_name, _collect(parts))
    return target


def _collect(parts: ArchiveParts) -> dict[str, Content]:
    """Every entry by its name, in the order of the archive: sorted, the manifest last."""
    entries: dict[str, Content] = {}
    handler_file = _handler_file(parts)
    named = (parts.serialized_file, parts.model_file, handler_file, parts.requirements_file)
    for source in (*named, parts.config_file):
        if source is not None:
            _add(entries, Path(source).name, _existing_file(source))
    for pattern in parts.extra_files:
        for path in _expand(pattern):
            if path.is_dir():
                for name, file in _walk(path):
                    _add(entries, name, file)
            else:
                _add(entries, path.name, _existing_file(str(path)))
    entries.pop(MANIFEST_PATH, None)
    manifest = json.dumps(_manifest(parts), indent=2).encode()
    return {**dict(sorted(entries.items())), MANIFEST_PATH: manifest}


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
        raise ArchiverError(f"File does not exist: {path} (write {module[: -len(suffix)]}:...)")
    return directory + slash + (module if module.endswith(suffix) else module + suffix)


def _existing_file(path: str) -> Path:
    file = Path(path)
    if file.is_dir():
        raise ArchiverError(f"Is a directory: {path}")
    if not file.is_file():
        raise ArchiverError(f"File does not exist: {path}")
    return file


def _expand(pattern: str) -> list[Path]:
    if not pattern:
        return []
    if not glob.has_magic(pattern) or Path(pattern).exists():
        if not Path(pattern).exists():
            raise ArchiverError(f"File does not exist: {pattern}")
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
            files.append((file.relative_to(directory).as_posix(), _existing_file(str(file))))
    return files


def _manifest(parts: ArchiveParts) -> Mapping[str, object]:
    """The manifest; keys of parts that were not given are left out."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    created = time.gmtime(int(epoch)) if epoch.isdecimal() else time.localtime()
    model = {
        "modelName": parts.model_name,
        "serializedFile": _base_name(parts.serialized_file),
        "handler": _base_name(parts.handler),
        "modelFile": _base_name(parts.model_file),
        "modelVersion": parts.version or None,
        "requirementsFile": _base_name(parts.requirements_file),
        "configFile": _base_name(parts.config_file),
    }
    return {
        "createdOn": time.strftime("%d/%m/%Y %H:%M:%S", created),
        "runtime": parts.runtime,
        "model": {key: value for key, value in model.items() if value is not None},
        "archiverVersion": ARCHIVER_VERSION,
    }


def _base_name(path: str | None) -> str | None:
    return None if path is None else path.rpartition("/")[2]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torch-model-archiver", description="Torch Model Archiver Tool"
    )
    parser.add_argument(
        "--model-name", required=True, help="the archive is written as {model-name}.mar"
    )
    parser.add_argument("--serialized-file", help="weights: state dict, TorchScript or ONNX")
    parser.add_argument(
        "--model-file", help="Python file with the model's class; needed for state dicts"
    )
    parser.add_argument(
        "--handler", required=True, help="name of a built-in handler, or a Python file"
    )
    parser.add_argument(
        "--extra-files", help="files, directories and patterns, separated by commas"
    )
    parser.add_argument("--runtime", default="python", choices=RUNTIMES)
    parser.add_argument(
        "--export-path", default=os.getcwd(), help="directory to write to (default: this one)"
    )
    parser.add_argument(
        "--archive-format",
        default="default",
        choices=("tgz", "no-archive", "zip-store", "default"),
        help="default: .mar, compressed; zip-store: .mar, not compressed; tgz: .tar.gz; "
        "no-archive: a directory",
    )
    parser.add_argument("-f", "--force", action="store_true", help="overwrite what exists")
    parser.add_argument("-v", "--version", required=True, help="version of the model")
    parser.add_argument("-r", "--requirements-file", help="requirements.txt of the model")
    parser.add_argument("-c", "--config-file", help="model-config.yaml")
    return parser


if __name__ == "__main__":
    main()
