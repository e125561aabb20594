"""How many GPUs there are. Which one a worker gets: `frontend/gpus.py`."""

from collections.abc import Mapping
from pathlib import Path


def gpu_count(
    asked: int | None,
    is_from_environment: bool,
    environ: Mapping[str, str],
    proc: Path = Path("/proc"),
) -> int:
    """The GPUs to serve on: all that there are, or as many as are asked for."""
    found = _detected(environ, proc)
    if asked is None:
        return found
    # TorchServe: TS_NUMBER_OF_GPU is believed, number_of_gpu in a file is not.
    return asked if is_from_environment else min(asked, found)


def _detected(environ: Mapping[str, str], proc: Path) -> int:
    if "CUDA_VISIBLE_DEVICES" in environ:
        return len([one for one in environ["CUDA_VISIBLE_DEVICES"].split(",") if one.strip()])
    try:
        return len(list((proc / "driver/nvidia/gpus").iterdir()))  # without asking the driver
    except OSError:
        return 0
