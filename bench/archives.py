"""The archives that both servers are given, and the requests that they are asked.

Everything is made from seeds: random weights cost a processor as much as trained ones do.
"""

import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

MODELS = Path(__file__).resolve().parent / "models"
ARCHIVER = Path(sys.executable).parent / "torch-model-archiver"
SEED = 20
IMAGE_SIZE = (640, 480)
CLASS_NAMES = {str(number): [f"n{number:08}", f"class_{number}"] for number in range(1000)}


@dataclass(frozen=True)
class Model:
    """One archive: what it is packed from, and one request for it."""

    name: str
    handler: str
    payload: Callable[[], bytes]
    content_type: str = "application/octet-stream"
    model_file: str = ""
    weights: str = ""
    write_weights: Callable[[Path], None] | None = None
    texts: dict[str, str] = field(default_factory=dict)  # further files, by name
    config: str = ""  # model-config.yaml


def echo_payload() -> bytes:
    return b"hello"


def image_payload() -> bytes:
    """A JPEG of the size of a photograph on a web page, neither flat nor mere noise."""
    import numpy
    from PIL import Image

    width, height = IMAGE_SIZE
    rows, columns = numpy.mgrid[0:height, 0:width]
    waves = [128 + 100 * numpy.sin(columns / 37 + k) * numpy.cos(rows / 23 - k) for k in range(3)]
    noise = numpy.random.default_rng(SEED).normal(0, 8, (height, width, 3))
    pixels = (numpy.stack(waves, axis=-1) + noise).clip(0, 255).astype("uint8")
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=85)
    return encoded.getvalue()


def text_payload() -> bytes:
    return b"The quick brown fox jumps over the lazy dog. " * 3


def write_resnet_script(path: Path) -> None:
    import torch

    torch.jit.script(_resnet()).save(str(path))


def write_resnet_weights(path: Path) -> None:
    import torch

    torch.save(_resnet().state_dict(), path)


def write_bert_weights(path: Path) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(SEED)
    state = BertForSequenceClassification(BertConfig()).state_dict()
    torch.save({f"bert.{name}": value for name, value in state.items()}, path)


def _resnet() -> Any:
    import torch
    import torchvision

    torch.manual_seed(SEED)
    model = torchvision.models.resnet18(weights=None).eval()
    # Random weights answer nearly alike for every class; wider last weights set them apart,
    # so that two servers' answers can be compared.
    with torch.no_grad():
        model.fc.weight.mul_(8)
    return model


LABELS = {"index_to_name.json": json.dumps(CLASS_NAMES)}
# One worker: how fast a server is, not how well its processes share the cores with the client.
ECHO = Model("echo", str(MODELS / "echo.py"), echo_payload, config="minWorkers: 1\nmaxWorkers: 1\n")
ECHO_UNSET = Model("echo_unset", str(MODELS / "echo.py"), echo_payload)
RESNET_SCRIPT = Model(
    "resnet_script",
    "image_classifier",
    image_payload,
    "image/jpeg",
    weights="resnet18.pt",
    write_weights=write_resnet_script,
    texts=LABELS,
)
RESNET_EAGER = Model(
    "resnet_eager",
    "image_classifier",
    image_payload,
    "image/jpeg",
    model_file="resnet18.py",
    weights="resnet18_state.pt",
    write_weights=write_resnet_weights,
    texts=LABELS,
)
BERT = Model(
    "bert",
    str(MODELS / "bert_handler.py"),
    text_payload,
    "text/plain",
    model_file="bert_model.py",
    weights="bert_state.pt",
    write_weights=write_bert_weights,
)


def model_store(build_dir: Path) -> Path:
    """A model store that belongs to these sources: archives of older ones are not met in it."""
    digest = hashlib.sha256(version("torch").encode())
    for path in (Path(__file__), *sorted(MODELS.glob("*.py"))):
        digest.update(path.read_bytes())
    store = build_dir.resolve() / f"models-{digest.hexdigest()[:12]}"
    store.mkdir(parents=True, exist_ok=True)
    return store


def build(model: Model, store: Path) -> Path:
    """The archive of this model, packed unless an earlier run has done so."""
    archive = store / f"{model.name}.mar"
    if archive.exists():
        return archive
    scratch = store / f"{model.name}.parts"
    shutil.rmtree(scratch, ignore_errors=True)
    packed = scratch / "packed"
    packed.mkdir(parents=True)
    command = [str(ARCHIVER), "--model-name", model.name, "--version", "1.0"]
    command += ["--handler", model.handler, "--export-path", str(packed)]
    if model.model_file:
        command += ["--model-file", str(MODELS / model.model_file)]
    if model.write_weights:
        model.write_weights(scratch / model.weights)
        command += ["--serialized-file", str(scratch / model.weights)]
    if model.config:
        (scratch / "model-config.yaml").write_text(model.config)
        command += ["--config-file", str(scratch / "model-config.yaml")]
    for name, text in model.texts.items():
        (scratch / name).write_text(text)
    if model.texts:
        command += ["--extra-files", ",".join(str(scratch / name) for name in model.texts)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    # Moved into place whole: an interrupted run leaves no half archive.
    (packed / archive.name).replace(archive)
    shutil.rmtree(scratch)
    return archive
