"""The guess of the zygote stage from what an archive imports."""

from pathlib import Path

import pytest

from torchkeep.backend.stages import MAX_SOURCE_BYTES, Needs, needs_of


def stage_of(handler: str, model_dir: Path) -> str:
    return needs_of(handler, model_dir, optimizes_with_ipex=False).stage


@pytest.mark.parametrize("handler", ["base_handler", "vision_handler", "image_classifier"])
def test_built_in_handlers_declare_torch(handler: str, tmp_path: Path) -> None:
    assert stage_of(handler, tmp_path) == "torch"


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
    assert stage_of("handler.py:handle", tmp_path) == "torch"


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
    assert stage_of("handler.py", tmp_path) == "plain"


def test_local_modules_are_followed(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("from package.inner import model")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").write_text("")
    (tmp_path / "package/inner.py").write_text("from .deep import model")
    (tmp_path / "package/deep.py").write_text("import handler\nimport torch")
    assert stage_of("handler.py", tmp_path) == "torch"


def test_modules_that_nothing_imports_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("import json")
    (tmp_path / "model.py").write_text("import torch")
    assert stage_of("handler.py", tmp_path) == "plain"


def test_a_handler_path_is_found_by_its_last_component(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("import torch")
    assert stage_of("my/dir/handler.py:run", tmp_path) == "torch"
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/other.py").write_text("import torch")
    assert stage_of("inner/other.py", tmp_path) == "torch"


def test_an_archive_may_bring_its_own_image_classifier(tmp_path: Path) -> None:
    (tmp_path / "image_classifier.py").write_text("import json")
    assert stage_of("image_classifier", tmp_path) == "plain"


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
    assert stage_of("handler.py", tmp_path) == "plain"


def test_source_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    source = b"import torch\n"
    (tmp_path / "handler.py").write_bytes(source.ljust(MAX_SOURCE_BYTES, b"#"))
    assert stage_of("handler.py", tmp_path) == "torch"
    (tmp_path / "handler.py").write_bytes(source.ljust(MAX_SOURCE_BYTES + 1, b"#"))
    assert stage_of("handler.py", tmp_path) == "plain"


@pytest.mark.parametrize("handler", ["", ":", "/", "..", "../..", "a\x00b", "x" * 5000])
def test_impossible_handler_names_are_plain(handler: str, tmp_path: Path) -> None:
    assert stage_of(handler, tmp_path) == "plain"


def needs(source: str, model_dir: Path, handler: str = "handler.py") -> Needs:
    (model_dir / "handler.py").write_text(source)
    return needs_of(handler, model_dir, optimizes_with_ipex=True)


BASE = "from ts.torch_handler.base_handler import BaseHandler\n"


@pytest.mark.parametrize(
    "source",
    [
        BASE + "class H(BaseHandler):\n    def preprocess(self, data): return data\n",
        BASE + "from abc import ABC\nclass H(BaseHandler, ABC): pass\n",
        "from ts.torch_handler import base_handler\nclass H(base_handler.BaseHandler): pass\n",
        "from ts.torch_handler.image_classifier import ImageClassifier as Parent\n"
        "class H(Parent): topk = 3\n",
    ],
)
def test_class_that_keeps_the_loading_of_ours_can_share(source: str, tmp_path: Path) -> None:
    assert needs(source, tmp_path) == Needs("ipex", can_share=True)


@pytest.mark.parametrize(
    "source",
    [
        BASE + "class H(BaseHandler):\n    def initialize(self, context): pass\n",
        BASE + "class H(BaseHandler):\n    initialize = print\n",
        BASE + "class H(BaseHandler):\n    if True:\n        initialize = print\n",
        BASE + "class A(BaseHandler): pass\nclass H(A): pass\n",
        BASE + "class H(BaseHandler): pass\ndef handle(data, context): pass\n",
        BASE + "class H(BaseHandler): pass\nhandle = H().handle\n",
        BASE + "class H(BaseHandler): pass\nfrom other import handle\n",
        BASE + "class H(BaseHandler): pass\nfrom other import *\n",
        BASE + "from mixin import Mixin\nclass H(Mixin, BaseHandler): pass\n",
        BASE + "class H(BaseHandler, metaclass=print): pass\n",
        "import ts.torch_handler.base_handler as b\nclass H: pass\n",
    ],
)
def test_class_that_may_load_otherwise_cannot_share(source: str, tmp_path: Path) -> None:
    assert needs(source, tmp_path) == Needs("ipex", can_share=False)


def test_function_of_a_module_cannot_share(tmp_path: Path) -> None:
    source = BASE + "class H(BaseHandler): pass\n"
    assert not needs(source, tmp_path, "handler.py:answer").can_share


def test_ipex_is_for_models_that_ours_load_and_for_who_imports_it(tmp_path: Path) -> None:
    assert needs("import torch", tmp_path).stage == "torch"
    (tmp_path / "handler.py").write_text("import intel_extension_for_pytorch as ipex")
    assert needs_of("handler.py", tmp_path, optimizes_with_ipex=False).stage == "ipex"
    assert needs_of("image_classifier", tmp_path, True) == Needs("ipex", can_share=True)
    assert needs_of("image_classifier", tmp_path, False) == Needs("torch", can_share=True)
    assert needs_of("no_such_handler", tmp_path, True) == Needs("plain", can_share=False)


def test_an_archive_with_its_own_copy_of_a_library_is_plain(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("import torch, msgpack\nclass H(BaseHandler): ...\n")
    assert stage_of("handler.py", tmp_path) == "torch"
    (tmp_path / "statistics.py").write_text("")  # one of the standard library is no reason
    (tmp_path / "msgpack.txt").write_text("")
    (tmp_path / "msgpack").mkdir()
    assert stage_of("handler.py", tmp_path) == "torch"
    (tmp_path / "msgpack" / "__init__.py").write_text("")
    assert needs_of("handler.py", tmp_path, False) == Needs("plain", can_share=False)
