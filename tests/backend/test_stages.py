"""The guess of the zygote stage from what an archive imports."""

from pathlib import Path

import pytest

from torchkeep.backend.stages import MAX_SOURCE_BYTES, required_stage


@pytest.mark.parametrize("handler", ["base_handler", "vision_handler", "image_classifier"])
def test_built_in_handlers_declare_torch(handler: str, tmp_path: Path) -> None:
    assert required_stage(handler, tmp_path) == "torch"


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "import torch.nn as nn",
        "from torchvision import models",
        "def handle(data, context):\n    import transformers\n",
        "from ts.torch_handler.base_handler import BaseHandler",
        "from ts.torch_handler import base_handler",
        "from ts import torch_handler",
        "try:\n    import torch\nexcept ImportError:\n    torch = None",
    ],
)
def test_importing_torch_anywhere_asks_for_torch(source: str, tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text(source)
    assert required_stage("handler.py:handle", tmp_path) == "torch"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "import json, os.path",
        "from ts.context import Context",
        "from ts.utils.util import PredictionException",
        "text = 'import torch'",
        "import torchless",
        "from . import nothing",
        "from .. import nothing",
    ],
)
def test_handlers_without_torch_are_plain(source: str, tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text(source)
    assert required_stage("handler.py", tmp_path) == "plain"


def test_local_modules_are_followed(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("from package.inner import model")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").write_text("")
    (tmp_path / "package/inner.py").write_text("from .deep import model")
    (tmp_path / "package/deep.py").write_text("import handler\nimport torch")
    assert required_stage("handler.py", tmp_path) == "torch"


def test_modules_that_nothing_imports_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("import json")
    (tmp_path / "model.py").write_text("import torch")
    assert required_stage("handler.py", tmp_path) == "plain"


def test_a_handler_path_is_found_by_its_last_component(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("import torch")
    assert required_stage("my/dir/handler.py:run", tmp_path) == "torch"
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/other.py").write_text("import torch")
    assert required_stage("inner/other.py", tmp_path) == "torch"


def test_an_archive_may_bring_its_own_image_classifier(tmp_path: Path) -> None:
    (tmp_path / "image_classifier.py").write_text("import json")
    assert required_stage("image_classifier", tmp_path) == "plain"


@pytest.mark.parametrize(
    "source",
    [
        b"import torch\x00",
        b"\xff\xfe",
        b"def",
        b"(" * 100_000,
        b"-" * 500_000 + b"1",
        b"a" + b".b" * 200_000,
        b"1" + b"+1" * 200_000,
        b"not " * 100_000 + b"1",
        b"lambda:" * 50_000 + b"1",
        b"import a" + b".a" * 100_000,
        b"import a" + b" .\\\n a" * 50_000,
        b"import " + b",".join(b"a%d" % n for n in range(20_000)),
    ],
    ids=lambda source: repr(source[:12]),
)
def test_hostile_source_is_plain(source: bytes, tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_bytes(source)
    assert required_stage("handler.py", tmp_path) == "plain"


def test_source_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    source = b"import torch\n"
    (tmp_path / "handler.py").write_bytes(source.ljust(MAX_SOURCE_BYTES, b"#"))
    assert required_stage("handler.py", tmp_path) == "torch"
    (tmp_path / "handler.py").write_bytes(source.ljust(MAX_SOURCE_BYTES + 1, b"#"))
    assert required_stage("handler.py", tmp_path) == "plain"


@pytest.mark.parametrize("handler", ["", ":", "/", "..", "../..", "a\x00b", "x" * 5000])
def test_impossible_handler_names_are_plain(handler: str, tmp_path: Path) -> None:
    assert required_stage(handler, tmp_path) == "plain"
