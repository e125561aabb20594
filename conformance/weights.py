"""The weights of the archives: random, but the same in every process."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from conformance.source import HANDLERS

ROOT = Path(__file__).resolve().parent.parent
SEED = 20
Writer = Callable[[Path], None]


def write_mlp_weights(path: Path, width: int = 8) -> None:
    """A state dict from 4 numbers to 3, with a layer of so many between them."""
    import torch

    torch.manual_seed(SEED)
    layers = torch.nn.Sequential(
        torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 3)
    )
    torch.save({f"layers.{name}": value for name, value in layers.state_dict().items()}, path)


def write_resnet(path: Path) -> None:
    import torch
    import torchvision

    torch.manual_seed(SEED)
    model = torchvision.models.resnet18(weights=None).eval()
    # Random weights answer nearly alike for every class; wider last weights spread the
    # probabilities far beyond the differences between two CPUs.
    with torch.no_grad():
        model.fc.weight.mul_(8)
    torch.jit.script(model).save(str(path))


def write_state(make: Callable[[], Any], path: Path, seed: int = SEED, **factors: float) -> None:
    """The state dict of a model with random weights, some multiplied (`a__b` is `a.b`)."""
    import torch

    torch.manual_seed(seed)
    state = make().state_dict()
    for name, factor in factors.items():
        state[name.replace("__", ".")].mul_(factor)
    torch.save(state, path)


def model_of(module: str, name: str) -> Callable[[], Any]:
    """A class of tests/handlers, which is imported when it is called."""

    def make() -> Any:
        spec = spec_from_file_location(Path(module).name, HANDLERS / f"{module}.py")
        assert spec is not None
        assert spec.loader is not None
        loaded = module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return getattr(loaded, name)()

    return make


def write_detector(path: Path) -> None:
    # Wide scores and boxes: answers that differ by more than two CPUs do.
    write_state(
        model_of("small_detector", "SmallDetector"),
        path,
        seed=27,  # two finds that are certain, two that are not
        roi_heads__box_predictor__cls_score__weight=40.0,
        rpn__head__cls_logits__weight=50.0,
    )


def write_segmenter(path: Path) -> None:
    write_state(model_of("small_segmenter", "SmallSegmenter"), path, classifier__4__weight=9.0)


def write_classifier(path: Path) -> None:
    write_state(model_of("small_classifier", "SmallClassifier"), path)


def write_text_model(path: Path) -> None:
    write_state(model_of("text_model", "TextModel"), path)


# As the tokenizer leaves a text: words, and pairs of neighbours.
WORDS = "do not stop it was great do not cannot stop cafe is open 5 stars and more".split()  # noqa: SIM905
PAIRS = [" ".join(pair) for pair in itertools.pairwise(WORDS)]
VOCABULARY = {word: number for number, word in enumerate(dict.fromkeys([*WORDS, *PAIRS]))}


def write_vocabulary(path: Path) -> None:
    import torch

    torch.save(VOCABULARY, path)


def filled(make: Callable[[], Any], seed: int = SEED, gain: float = 2.0) -> Any:
    """A model whose parameters follow from their names' order alone, whoever made it first."""
    import torch

    numbers = torch.Generator().manual_seed(seed)
    model = make().eval()
    with torch.no_grad():
        for name, value in sorted(model.named_parameters()):
            drawn = torch.randn(value.shape, generator=numbers)
            if value.dim() > 1:
                value.copy_(drawn * gain / value[0].numel() ** 0.5)
            else:
                value.copy_(drawn * 0.1 + (1.0 if name.endswith("weight") else 0.0))
    return model


def example(module: str, name: str, seed: int = SEED, gain: float = 2.0) -> Any:
    """A class of tests/handlers/examples, filled."""
    return filled(model_of(f"examples/{module}", name), seed, gain)


def state_of(module: str, name: str, seed: int = SEED, gain: float = 2.0) -> Writer:
    def write(path: Path) -> None:
        import torch

        torch.save(example(module, name, seed, gain).state_dict(), path)

    return write


def script_of(module: str, name: str, seed: int = SEED, gain: float = 2.0) -> Writer:
    def write(path: Path) -> None:
        import torch

        torch.jit.script(example(module, name, seed, gain)).save(str(path))

    return write


def safetensors_of(module: str, name: str) -> Writer:
    """As the format's page says: a length, a header in JSON, and the numbers."""

    def write(path: Path) -> None:
        header, content = {}, b""
        for tensor_name, value in example(module, name).state_dict().items():
            numbers = value.numpy().tobytes()
            header[tensor_name] = {
                "dtype": "F32",
                "shape": list(value.shape),
                "data_offsets": [len(content), len(content) + len(numbers)],
            }
            content += numbers
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content)

    return write


def onnx_of(module: str, name: str, shape: tuple[int, ...]) -> Writer:
    def write(path: Path) -> None:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the old exporter needs onnx alone
            torch.onnx.export(
                example(module, name), (torch.zeros(shape),), str(path), dynamo=False,
                input_names=["picture"], dynamic_axes={"picture": {0: "batch"}},
            )  # fmt: skip

    return write


@contextmanager
def _compiler_cache() -> Iterator[None]:
    """What torch's compilers keep between two runs goes when this one ends."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with TemporaryDirectory() as directory:
        os.environ[name] = directory
        try:
            yield
        finally:
            del os.environ[name]
            if before is not None:
                os.environ[name] = before


def exported_of(module: str, name: str, shape: tuple[int, ...]) -> Writer:
    def write(path: Path) -> None:
        import torch

        with _compiler_cache():
            program = torch.export.export(example(module, name), (torch.zeros(shape),))
        torch.export.save(program, path)

    return write


def compiled_of(module: str, name: str, shape: tuple[int, ...]) -> Writer:
    """By AOTInductor, which needs a C++ compiler: a package for `.pt2`, a library for `.so`.

    In a process of its own, as the compiler leaves helpers and files where it ran.
    """

    def write(path: Path) -> None:
        call = f"compile_weights({module!r}, {name!r}, {shape!r}, Path({str(path)!r}))"
        code = f"from pathlib import Path; from conformance.weights import compile_weights; {call}"
        with TemporaryDirectory() as scratch:
            environment = {
                **os.environ,
                "TMPDIR": scratch,
                "TORCHINDUCTOR_CACHE_DIR": f"{scratch}/cache",
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            }
            subprocess.run(
                [sys.executable, "-c", code], env=environment, check=True, capture_output=True
            )

    return write


def compile_weights(module: str, name: str, shape: tuple[int, ...], path: Path) -> None:
    import torch

    model, given = example(module, name), (torch.zeros(shape),)
    with torch.no_grad():
        if path.suffix == ".pt2":
            program = torch.export.export(model, given)
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        else:
            options = {"aot_inductor.output_path": str(path)}
            torch._export.aot_compile(model, given, options=options)


# A small language for transformers: special tokens, then words.
TOKENS = (  # noqa: SIM905
    "[PAD] [UNK] [CLS] [SEP] [MASK] the a cat dog sat on mat who is where and great bad . ? "
    "##s ran to rome in anna lives"
).split()  # fmt: skip


def transformer_part(mode: str, part: str) -> Writer:
    """`config.json` or `model.safetensors` of a transformer for this mode."""

    def write(path: Path) -> None:
        with TemporaryDirectory() as scratch:
            filled(lambda: _transformer(mode), gain=3.0).save_pretrained(scratch)
            shutil.copy(Path(scratch, part), path)

    return write


def _transformer(mode: str) -> Any:
    import transformers

    sizes = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 16}
    size = len(TOKENS)
    if mode == "text_generation":
        config = transformers.GPT2Config(
            vocab_size=size, n_positions=32, n_embd=16, n_layer=2, n_head=2,
            bos_token_id=2, eos_token_id=3,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config)
    config = transformers.BertConfig(
        vocab_size=size, intermediate_size=32, max_position_embeddings=32, num_labels=3, **sizes
    )
    names = {
        "sequence_classification": "BertForSequenceClassification",
        "token_classification": "BertForTokenClassification",
        "question_answering": "BertForQuestionAnswering",
    }
    if mode == "question_answering":
        config.num_labels = 2
    return getattr(transformers, names[mode])(config)
