"""Where `key_file.json` is written, and whose links are followed."""

import os
from pathlib import Path

import pytest

from torchkeep.runtime.key_file import KEY_FILE, key_file


def test_it_is_in_the_working_directory(tmp_path: Path) -> None:
    assert key_file(tmp_path) == tmp_path / KEY_FILE
    (tmp_path / KEY_FILE).touch()
    assert key_file(tmp_path) == tmp_path / KEY_FILE


def test_or_where_a_link_leads_there_or_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).symlink_to("volume/keys")
    assert key_file(tmp_path) == tmp_path / "volume/keys"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes links of other users")
def test_a_link_of_another_user_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / KEY_FILE
    link.symlink_to("precious")
    os.chown(link, 12345, 12345, follow_symlinks=False)
    assert key_file(tmp_path) == link
