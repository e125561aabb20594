"""The two console scripts."""

from pathlib import Path

import pytest

from torchkeep.roof.commands import torchkeep


def test_ts_path_is_the_folder_of_ts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        torchkeep(["ts-path"])
    assert caught.value.code == 0
    folder = Path(capsys.readouterr().out.removesuffix("\n"))
    assert (folder / "ts/py.typed").is_file()
