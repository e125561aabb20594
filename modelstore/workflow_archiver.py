"""`torch-workflow-archiver`: write a workflow's archive from its specification and functions."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
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

log = logging.getLogger(__name__)

ARCHIVER_VERSION = "0.2.15"  # of the format: that of the archiver of TorchServe 0.12
MANIFEST_PATH = "WAR-INF/MANIFEST.json"


@dataclass(frozen=True, slots=True)
class WorkflowParts:
    """What goes into an archive; paths are files of the caller."""

    workflow_name: str
    spec_file: str
    handler: str | None = None
    extra_files: Sequence[str] = ()


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; exits with TorchServe's codes: 2 for wrong flags, else 1."""
    logging.basicConfig(format="%(levelname)s - %(message)s", level=logging.INFO)
    try:
        run(argv)
    except (ArchiverError, OSError) as error:
        log.error("%s", error)
        sys.exit(1)
    sys.exit(0)


def run(argv: Sequence[str] | None = None) -> Path:
    """What the command does, short of exiting; returns the path of the archive."""
    flags = _parser().parse_args(argv)
    parts = WorkflowParts(
        workflow_name=flags.workflow_name,
        spec_file=flags.spec_file,
        handler=flags.handler,
        extra_files=flags.extra_files.split(",") if flags.extra_files else (),
    )
    return pack(parts, Path(flags.export_path), force=flags.force)


def pack(parts: WorkflowParts, export_path: Path, *, force: bool = False) -> Path:
    """Write `{workflow_name}.war` below `export_path`; returns its path."""
    target = check_target("workflow", parts.workflow_name, export_path, ".war", force=force)
    write_archive(target, "default", parts.workflow_name, _collect(parts))
    return target


def _collect(parts: WorkflowParts) -> dict[str, Content]:
    """Every entry by its name: sorted, the manifest last."""
    if not parts.handler:
        # TorchServe: the flag is optional, and a traceback follows where it is not given
        raise PartMissing(
            "--handler is missing: expected the Python file that holds the workflow's functions, "
            "be it an empty one"
        )
    entries: dict[str, Content] = {}
    for source in (parts.spec_file, parts.handler, *parts.extra_files):
        entries[Path(source).name] = existing_file(source)
    manifest = {
        "createdOn": created_on(),
        "workflow": {
            "workflowName": parts.workflow_name,
            "specFile": base_name(parts.spec_file),
            "handler": base_name(parts.handler),
        },
        "archiverVersion": ARCHIVER_VERSION,
    }
    return {**dict(sorted(entries.items())), MANIFEST_PATH: json.dumps(manifest, indent=2).encode()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torch-workflow-archiver", description="Torch Workflow Archiver Tool"
    )
    parser.add_argument(
        "--workflow-name", required=True, help="the archive is written as {workflow-name}.war"
    )
    parser.add_argument("--spec-file", required=True, help="the workflow's graph, in YAML")
    parser.add_argument("--handler", help="Python file with the workflow's functions")
    parser.add_argument(
        "--export-path", default=os.getcwd(), help="directory to write to (default: this one)"
    )
    parser.add_argument("-f", "--force", action="store_true", help="overwrite what exists")
    parser.add_argument("--extra-files", help="files, separated by commas")
    return parser


if __name__ == "__main__":
    main()
