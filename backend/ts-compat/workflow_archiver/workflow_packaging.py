"""Packs a workflow. The work is `torchkeep.modelstore.workflow_archiver`'s; here are TorchServe's
names."""

from torchkeep.modelstore import workflow_archiver
from torchkeep.modelstore.errors import ArchiverError, PartMissing
from workflow_archiver.workflow_archiver_error import WorkflowArchiverError


def generate_workflow_archive() -> None:
    """Write the archive that the command line asks for.

    FileNotFoundError for a part that is no file, WorkflowArchiverError for everything else.
    """
    try:
        workflow_archiver.run()
    except PartMissing as error:
        raise FileNotFoundError(str(error)) from error
    except ArchiverError as error:
        raise WorkflowArchiverError(str(error)) from error
