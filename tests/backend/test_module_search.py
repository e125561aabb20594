"""What a model brings and what a process has imported: both are there, and do not meet."""

import importlib
import sys
from pathlib import Path

import pytest

from torchkeep.backend.module_search import forget_shadowed, searched_first


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Where a process finds libraries, and where a model has its own."""
    ours, models = tmp_path / "ours", tmp_path / "models"
    for place in (ours, models):
        (place / "package_of_both").mkdir(parents=True)
        for path in ("module_of_both.py", "package_of_both/__init__.py", "package_of_both/sub.py"):
            (place / path).write_text(f"PLACE = {place.name!r}\n")
    monkeypatch.syspath_prepend(str(ours))
    names = ("module_of_both", "package_of_both", "package_of_both.sub")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return ours, models


def test_what_the_model_has_is_found_next_and_the_other_is_kept(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = importlib.import_module("module_of_both"), importlib.import_module("package_of_both.sub")
    monkeypatch.syspath_prepend(str(places[1]))
    forget_shadowed([str(places[1])])
    found = (
        importlib.import_module("module_of_both"),
        importlib.import_module("package_of_both.sub"),
    )
    assert [one.PLACE for one in kept] == ["ours", "ours"]
    assert [one.PLACE for one in found] == ["models", "models"]


def test_what_comes_later_on_the_path_shadows_nothing(places: tuple[Path, Path]) -> None:
    kept = importlib.import_module("module_of_both")
    sys.path.append(str(places[1]))
    forget_shadowed([str(places[1])])
    assert importlib.import_module("module_of_both") is kept


@pytest.mark.parametrize("name", ["sys", "os", "torchkeep", "__main__", "json"])
def test_what_no_model_can_replace_is_kept(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = sys.modules[name]
    if name == "json":
        (tmp_path / "json").mkdir()  # no `__init__.py`: not in the place of a package
    else:
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    forget_shadowed([str(tmp_path), str(tmp_path / "not there")])
    assert sys.modules[name] is kept


def test_libraries_are_searched_first_for_a_while(places: tuple[Path, Path]) -> None:
    before = sys.path[:]
    with searched_first([str(places[1])]):
        assert importlib.import_module("module_of_both").PLACE == "models"
    assert sys.path == before
    with pytest.raises(ZeroDivisionError), searched_first(["/nowhere"]):
        raise ZeroDivisionError
    assert sys.path == before
