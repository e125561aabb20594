"""Archives around public handlers: see tests/handlers/public/README.md for where each is from."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conformance.source import HANDLERS, Source
from conformance.weights import write_mlp_weights

SEED = 20
PUBLIC_HANDLERS = HANDLERS / "public"
FLOWERS = {"0": "setosa", "1": "versicolor", "2": "virginica"}
# Room for requests that come together: they are one batch.
PAIRS_CONFIG = "batchSize: 2\nmaxBatchDelay: 5000\nminWorkers: 1\nmaxWorkers: 1\n"
ONE_WORKER_CONFIG = "minWorkers: 1\nmaxWorkers: 1\n"
OWN_PACKAGES_CONFIG = f"{ONE_WORKER_CONFIG}useVenv: true\nstartupTimeout: 300\n"

# A very small BERT: its width, its longest text, and how many numbers its inner layer has.
WIDTH, LONGEST, INNER = 16, 32, 32
BERT_WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] it was great awful not very ##ly a film . !".split()  # noqa: SIM905
BERT_CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "vocab_size": len(BERT_WORDS),
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": INNER,
    "max_position_embeddings": LONGEST,
    "type_vocab_size": 2,
    "num_labels": 2,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
}


def write_flowers(path: Path) -> None:
    """The state dict of public/flower_model.py, with random weights."""
    write_mlp_weights(path, width=16)


def write_script(path: Path) -> None:
    """The same kind of model as TorchScript."""
    import torch

    torch.manual_seed(SEED)
    layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    torch.jit.script(layers.eval()).save(str(path))


def write_mood(path: Path) -> None:
    """The state dict of public/mood_model.py."""
    import torch

    weight = torch.tensor([[1.5, 1.0, -2.0, -0.5]])
    torch.save({"weights.weight": weight, "weights.bias": torch.tensor([-0.25])}, path)


def write_picture_classes(path: Path) -> None:
    """TorchScript from pictures of 3 x 8 x 8 to four classes."""
    import torch

    torch.manual_seed(SEED)
    layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    torch.jit.script(layers.eval()).save(str(path))


def write_line(path: Path) -> None:
    """The state dict of the model of mlflow-torchserve's tests: y = 2x + 1."""
    import torch

    state = {"linear.weight": torch.tensor([[2.0]]), "linear.bias": torch.tensor([1.0])}
    torch.save(state, path)


def write_lenet(path: Path) -> None:
    """A checkpoint of MMPretrain for public/mmpretrain/config.py, with random weights."""
    import torch
    from torch.nn import Conv2d, Linear

    torch.manual_seed(SEED)
    parts = {
        "backbone.features.0": Conv2d(1, 6, 5),
        "backbone.features.3": Conv2d(6, 16, 5),
        "backbone.features.6": Conv2d(16, 120, 5),
        "head.fc": Linear(120, 4),
    }
    with torch.no_grad():
        parts["head.fc"].weight.mul_(30)  # else all four classes are nearly as probable
    state = {
        f"{part}.{name}": value
        for part, layer in parts.items()
        for name, value in layer.state_dict().items()
    }
    torch.save(
        {"meta": {"dataset_meta": {"classes": ["a", "b", "c", "d"]}}, "state_dict": state}, path
    )


def write_bert(path: Path) -> None:
    """Random weights of BERT_CONFIG, as safetensors: no library for them is needed."""
    import torch

    torch.manual_seed(SEED)
    encoder = "bert.encoder.layer.0"
    linear = {
        f"{encoder}.attention.self.query": (WIDTH, WIDTH),
        f"{encoder}.attention.self.key": (WIDTH, WIDTH),
        f"{encoder}.attention.self.value": (WIDTH, WIDTH),
        f"{encoder}.attention.output.dense": (WIDTH, WIDTH),
        f"{encoder}.intermediate.dense": (INNER, WIDTH),
        f"{encoder}.output.dense": (WIDTH, INNER),
        "bert.pooler.dense": (WIDTH, WIDTH),
        "classifier": (2, WIDTH),
    }
    tables = {"word": len(BERT_WORDS), "position": LONGEST, "token_type": 2}
    state = {
        f"bert.embeddings.{name}_embeddings.weight": torch.randn(size, WIDTH)
        for name, size in tables.items()
    }
    for name, shape in linear.items():
        state |= {f"{name}.weight": torch.randn(shape), f"{name}.bias": torch.randn(shape[0])}
    for place in ("bert.embeddings", f"{encoder}.attention.output", f"{encoder}.output"):
        state[f"{place}.LayerNorm.weight"] = torch.ones(WIDTH)
        state[f"{place}.LayerNorm.bias"] = torch.zeros(WIDTH)
    write_safetensors(path, state)


def write_safetensors(path: Path, state: dict[str, Any]) -> None:
    """Tensors of float32, as https://huggingface.co/docs/safetensors describes the file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    content = b""
    for name, tensor in state.items():
        values = tensor.numpy().tobytes()
        offsets = [len(content), len(content) + len(values)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
        content += values
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def zipped(folder: str) -> Callable[[Path], None]:
    """Writes a zip of what is in this folder of tests/handlers/public."""

    def write(path: Path) -> None:
        root = PUBLIC_HANDLERS / folder
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(root.rglob("*.py")):
                archive.write(file, file.relative_to(root))

    return write


FLOWER_PARTS: dict[str, Any] = {
    "model_file": "public/flower_model.py",
    "serialized_file": "flowers.pt",
    "write_weights": write_flowers,
}

PUBLIC: dict[str, Source] = {
    "mms_service": Source(
        "public/mms_service.py",
        extra_files={
            "signature.json": json.dumps({"outputs": [{"labels": list(FLOWERS.values())}]})
        },
        config=PAIRS_CONFIG,
        **FLOWER_PARTS,
    ),
    "plain_class": Source(
        "public/plain_class.py", serialized_file="script.pt", write_weights=write_script
    ),
    "image_batch": Source(
        "public/image_batch.py",
        serialized_file="pictures.pt",
        write_weights=write_picture_classes,
        extra_files={
            "index_to_name.json": '{"0": "sky", "1": ["n1", "sea"], "2": "sun", "3": "x"}'
        },
        config=PAIRS_CONFIG,
    ),
    "many_files": Source(
        "public/many_files.py",
        model_file="public/mood_model.py",
        serialized_file="mood.pt",
        write_weights=write_mood,
        extra_folder="public/packaged",
    ),
    "zipped_package": Source(
        "public/zipped_package.py", write_extra={"shape_tools.zip": zipped("zipped")}
    ),
    "toolbox": Source(
        "public/toolbox.py",
        extra_files={"index_to_name.json": json.dumps(FLOWERS)},
        config=f"{ONE_WORKER_CONFIG}handler:\n  limit: 9.5\n  profile: true\n",
        **FLOWER_PARTS,
    ),
    # From here on they bring their own packages, from PyPI.
    "captum_flowers": Source(
        "public/captum_flowers.py",
        extra_files={"index_to_name.json": json.dumps(FLOWERS)},
        requirements="captum==0.9.0\n",
        config=OWN_PACKAGES_CONFIG,
        **FLOWER_PARTS,
    ),
    "sequence_classification": Source(
        "public/sequence_classification.py",
        serialized_file="model.safetensors",
        write_weights=write_bert,
        extra_files={
            "config.json": json.dumps(BERT_CONFIG),
            "vocab.txt": "\n".join(BERT_WORDS),
            "tokenizer_config.json": json.dumps({"tokenizer_class": "BertTokenizer"}),
            "setup_config.json": json.dumps(
                {"mode": "sequence_classification", "do_lower_case": True, "max_length": "12"}
            ),
            "index_to_name.json": '{"0": "Not Accepted", "1": "Accepted"}',
        },
        requirements="transformers==5.24.0\n",
        config=f"{OWN_PACKAGES_CONFIG}batchSize: 2\nmaxBatchDelay: 50\n",
    ),
    "sagemaker": Source(
        "base_handler",  # never called: the toolkit's own is named at registration
        serialized_file="model.pth",
        write_weights=write_script,
        extra_folder="public/sagemaker",
        requirements="sagemaker-pytorch-inference==2.0.25\n",
        config=OWN_PACKAGES_CONFIG,
    ),
    "mlflow_linear": Source(
        "tests/resources/linear_handler.py",
        model_file="tests/resources/linear_model.py",
        serialized_file="linear_state_dict.pt",
        write_weights=write_line,
        wheel="mlflow-torchserve==0.1.0",
    ),
    "mmpretrain": Source(
        "mmpretrain/.mim/tools/torchserve/mmpretrain_handler.py",
        model_file="public/mmpretrain/config.py",
        serialized_file="lenet.pth",
        write_weights=write_lenet,
        requirements="mmpretrain==1.2.0\nmmengine==0.10.7\nmmcv-lite==2.2.0\n",
        config=OWN_PACKAGES_CONFIG,
        wheel="mmpretrain==1.2.0",
    ),
}
