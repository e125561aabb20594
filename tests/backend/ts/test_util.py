"""Helpers that handlers import."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ts import __version__
from ts.handler_utils.timer import timed
from ts.service import PredictionException
from ts.utils import util


def test_the_version_is_torchserves() -> None:
    assert __version__ == "0.12.0"


def test_a_prediction_exception_shows_message_and_code() -> None:
    error = PredictionException("no", 404)
    assert (error.message, error.error_code, str(error)) == ("no", 404, "no : 404")
    assert PredictionException("no").error_code == 500


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"0": "a"}, {"0": "a"}),
        ({"0": ["n01", "tench"]}, {"0": "tench"}),
        ({"object_type_names": ["a", "b"]}, {"0": "a", "1": "b"}),
    ],
)
def test_label_mappings(tmp_path: Path, mapping: Any, expected: dict[str, str]) -> None:
    path = tmp_path / "index_to_name.json"
    path.write_text(json.dumps(mapping))
    assert util.load_label_mapping(str(path)) == expected


@pytest.mark.parametrize("mapping", [["a"], "x", {"0": 3}, {"0": []}, {"object_type_names": {}}])
def test_label_mappings_of_a_wrong_type_are_errors(tmp_path: Path, mapping: Any) -> None:
    path = tmp_path / "index_to_name.json"
    path.write_text(json.dumps(mapping))
    with pytest.raises(ValueError, match="index->name"):
        util.load_label_mapping(str(path))


def test_a_missing_label_mapping_is_none(tmp_path: Path) -> None:
    assert util.load_label_mapping(str(tmp_path / "none.json")) is None


def test_classes_to_labels() -> None:
    assert util.map_class_to_label([[0.1, 0.2]]) == [{"0": 0.1, "1": 0.2}]
    assert util.map_class_to_label([[0.1, 0.2]], None, [[5, 3]]) == [{"5": 0.1, "3": 0.2}]
    assert util.map_class_to_label([[0.1]], {"0": "a"}) == [{"a": 0.1}]
    with pytest.raises(KeyError):
        util.map_class_to_label([[0.1]], {"1": "a"})
    with pytest.raises(TypeError):
        util.map_class_to_label(((0.1,),))
    with pytest.raises(TypeError):
        util.map_class_to_label([[0.1]], ["a"])  # type: ignore[arg-type]


def test_torch_compile_backends() -> None:
    assert util.check_valid_pt2_backend("inductor")
    assert not util.check_valid_pt2_backend("magic")


def test_own_classes_only() -> None:
    assert util.PredictionException in util.list_classes_from_module(util)
    assert util.StrEnum not in util.list_classes_from_module(util)
    assert util.list_classes_from_module(util, Exception) == [util.PredictionException]


def test_yaml_is_read_safely(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a: [1]")
    assert util.get_yaml_config(str(tmp_path / "c.yaml")) == {"a": [1]}


class Timed:
    def __init__(self, config: Any) -> None:
        self.recorded: list[str] = []
        metrics = SimpleNamespace(add_time=lambda name, value: self.recorded.append(name))
        self.context = SimpleNamespace(model_yaml_config=config, metrics=metrics)

    @timed
    def preprocess(self, data: int) -> int:
        return data + 1


@pytest.mark.parametrize(
    ("config", "recorded"),
    [
        (None, []),
        ({}, []),
        ({"handler": {"profile": False}}, []),
        ({"handler": {"profile": True}}, ["ts_handler_preprocess"]),
    ],
)
def test_methods_are_timed_when_the_model_asks(config: Any, recorded: list[str]) -> None:
    handler = Timed(config)
    assert handler.preprocess(1) == 2
    assert handler.recorded == recorded


def test_a_deprecated_function_works_and_warns() -> None:
    @util.deprecated("0.1", replacement="other.thing", klass=DeprecationWarning)
    def old(number: int) -> int:
        return number + 1

    with pytest.warns(DeprecationWarning, match=r"^old is deprecated in 0\.1 and moved to other"):
        assert old(1) == 2


def test_html_is_recognised() -> None:
    assert util.CLEANUP_REGEX.sub("", "<b>a</b>&nbsp;b&#160;c&#xa0;d & e;") == "abcd & e;"
