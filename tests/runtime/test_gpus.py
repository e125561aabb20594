"""How many GPUs there are, by what the driver shows and the environment says."""

from pathlib import Path

from torchkeep.runtime.gpus import gpu_count


def test_the_number_of_gpus(tmp_path: Path) -> None:
    assert gpu_count(None, False, {}, tmp_path) == 0
    for number in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "driver/nvidia/gpus" / number).mkdir(parents=True)
    assert gpu_count(None, False, {}, tmp_path) == 2
    assert gpu_count(None, False, {"CUDA_VISIBLE_DEVICES": "0, 3,5"}, tmp_path) == 3
    assert gpu_count(None, False, {"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == 0
    # TorchServe: a file is capped at what there is, TS_NUMBER_OF_GPU is not.
    assert gpu_count(5, False, {}, tmp_path) == 2
    assert gpu_count(5, True, {}, tmp_path) == 5
    assert gpu_count(0, False, {}, tmp_path) == 0
