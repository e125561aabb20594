"""What both archivers share: where an archive goes, what its parts are, and its date."""

import logging
import os
import re
import time
from pathlib import Path

from torchkeep.modelstore.errors import ArchiverError, PartMissing

log = logging.getLogger(__name__)

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_\-.]*$")


def check_target(kind: str, name: str, export_path: Path, suffix: str, *, force: bool) -> Path:
    """Where the archive of a model or a workflow goes; raises where it may not be written."""
    if not NAME.fullmatch(name):
        raise ArchiverError(
            f"{kind.capitalize()} name contains special characters.\n"
            f"The allowed regular expression filter for {kind} name is: {NAME.pattern}"
        )
    if not export_path.is_dir():
        raise ArchiverError(
            f"Given export-path {export_path} is not a directory. "
            "Point to a valid export-path directory."
        )
    target = export_path / (name + suffix)
    if target.exists():
        if not force:
            raise ArchiverError(
                f"{target} already exists.\n"
                f"Please specify --force/-f option to overwrite the {kind} archive output file.\n"
                "See -h/--help for more details."
            )
        log.warning("Overwriting %s ...", target)
    return target


def existing_file(path: str) -> Path:
    file = Path(path)
    if file.is_dir():
        raise PartMissing(f"Is a directory: {path}")
    if not file.is_file():
        raise PartMissing(f"File does not exist: {path}")
    return file


def base_name(path: str | None) -> str | None:
    return None if path is None else path.rpartition("/")[2]


def created_on() -> str:
    """A manifest's date: SOURCE_DATE_EPOCH, else the one that all entries of an archive have.

    The time of packing would make two archives of equal parts differ.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch.isdecimal():
        return "01/01/1980 00:00:00"
    return time.strftime("%d/%m/%Y %H:%M:%S", time.gmtime(int(epoch)))
