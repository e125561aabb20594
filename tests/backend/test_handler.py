"""TorchServe's rules of finding an entry point."""

import os
import sys
from pathlib import Path

import pytest

from torchkeep.backend.handler import (
    TS_COMPAT,
    EntryPoint,
    expose_handler_paths,
    load_entry_point,
)


def load(
    tmp_path: Path, source: str, handler: str = "my_handler.py", envelope: str = ""
) -> EntryPoint:
    from ts.context import Context

    name = handler.split(":")[0].split("/")[-1].removesuffix(".py")
    (tmp_path / f"{name}.py").write_text(source)
    expose_handler_paths(tmp_path, handler)
    context = Context("m", str(tmp_path), None, 1, None, "0.12.0")
    return load_entry_point(handler, envelope, context)


FUNCTIONS = """
calls = []
def handle(data, context):
    calls.append(data)
    return ["handle", list(calls)]
def other(data, context):
    return "other"
class Ignored:
    pass
class AlsoIgnored:
    pass
"""

CLASS = """
from json import JSONDecoder
class Handler:
    def __init__(self):
        self.log = ["created"]
    def initialize(self, context):
        self.log.append(context.model_name)
        self.handle = lambda data, context: ["replaced"]
    def handle(self, data, context):
        return self.log + list(data)
"""


def test_a_function_named_handle_wins_over_classes_and_is_initialised_once(tmp_path: Path) -> None:
    entry_point = load(tmp_path, FUNCTIONS)
    assert entry_point([1], None) == ["handle", [None, [1]]]


def test_the_part_after_the_first_colon_names_the_function(tmp_path: Path) -> None:
    assert load(tmp_path, FUNCTIONS, "my_handler.py:other")([], None) == "other"
    assert load(tmp_path, FUNCTIONS, "my_handler:other")([], None) == "other"


def test_a_named_function_that_is_missing_falls_back_to_the_class(tmp_path: Path) -> None:
    assert load(tmp_path, CLASS, "my_handler:none")(["x"], None)[-1] == "x"


def test_only_the_last_path_component_is_imported(tmp_path: Path) -> None:
    assert load(tmp_path, FUNCTIONS, "some/where/my_handler.py:other")([], None) == "other"


def test_the_one_own_class_is_created_and_initialised(tmp_path: Path) -> None:
    assert load(tmp_path, CLASS)([1], None) == ["created", "m", 1]


def test_handle_is_read_before_initialize(tmp_path: Path) -> None:
    assert load(tmp_path, CLASS)([], None) != ["replaced"]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("", ValueError),
        ("from json import JSONDecoder", ValueError),
        ("class A: pass\nclass B: pass", ValueError),
        ("class A:\n def initialize(self, c): pass", AttributeError),
        ("class A:\n def handle(self, d, c): pass", AttributeError),
        ("class A:\n def __init__(self, x): pass", TypeError),
        ("import no_such_package", ModuleNotFoundError),
        ("def handle(data, context): raise KeyError('init')", KeyError),
        ("raise RuntimeError('import')", RuntimeError),
        ("import sys; sys.exit(3)", SystemExit),
    ],
)
def test_what_cannot_be_loaded_raises(tmp_path: Path, source: str, error: type) -> None:
    with pytest.raises(error):
        load(tmp_path, source)


def test_the_users_own_import_error_is_the_one_reported(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="No module named 'no_such_package'"):
        load(tmp_path, "import no_such_package")


def test_any_import_error_falls_through_to_the_built_in_handler(tmp_path: Path) -> None:
    package = tmp_path / "compat"
    source = "def handle(data, context): return 'built in'"
    sys.modules.pop("ts.torch_handler.probe_handler", None)
    import ts.torch_handler

    package.mkdir()
    (package / "probe_handler.py").write_text(source)
    ts.torch_handler.__path__.append(str(package))
    try:
        entry_point = load(tmp_path, "raise ImportError('user code')", "probe_handler")
        assert entry_point([], None) == "built in"
    finally:
        ts.torch_handler.__path__.remove(str(package))


def test_an_archive_file_wins_over_a_module_imported_before(tmp_path: Path) -> None:
    before = sys.modules["colorsys"] = type(sys)("colorsys")
    try:
        entry_point = load(tmp_path, "def handle(d, c): return 'archive'", "colorsys.py")
        assert entry_point([], None) == "archive"
    finally:
        sys.modules["colorsys"] = before
        del sys.modules["colorsys"]


def test_an_envelope_wraps_the_entry_point(tmp_path: Path) -> None:
    entry_point = load(tmp_path, "def handle(d, c): return d", envelope="body")
    assert entry_point([{"body": 1}, {"data": 2}], None) == [1, 2]


def test_an_unknown_envelope_fails_the_load(tmp_path: Path) -> None:
    with pytest.raises(ImportError):
        load(tmp_path, "def handle(d, c): return d", envelope="no_such")


def test_ts_then_torchserves_order_are_first_on_both_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    expected = [str(TS_COMPAT), str(tmp_path / "dir"), "/somewhere", str(tmp_path)]
    for _ in range(2):
        expose_handler_paths(tmp_path, "dir/handler.py")
        assert sys.path[:4] == expected
        assert os.environ["PYTHONPATH"].split(":") == expected


def test_a_model_that_is_served_in_place_is_searched_there_and_beside_its_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    model, link = tmp_path / "model", tmp_path / "unpacked" / "model"
    model.mkdir()
    link.parent.mkdir()
    link.symlink_to(model)
    expose_handler_paths(link, "handler.py")
    assert sys.path[:3] == [str(TS_COMPAT), str(model), str(link.parent)]
