"""Networks for the tests of the engine, with random weights and without another library."""

import runpy
from pathlib import Path
from typing import Any

import torch
from torch import nn

DEMO = Path(__file__).resolve().parent.parent.parent / "demo"


class Block(nn.Module):  # type: ignore[misc]
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):  # type: ignore[misc]
    """The layers of ResNet-18, as in torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        widths += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
        self.blocks = nn.Sequential(*(Block(*width) for width in widths))
        self.classify = nn.Linear(512, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.blocks(self.stem(x)).mean((2, 3)))


class BertLayer(nn.Module):  # type: ignore[misc]
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.heads = hidden // 64
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, hidden)
        self.norm1 = nn.LayerNorm(hidden)
        self.wide = nn.Linear(hidden, 4 * hidden)
        self.narrow = nn.Linear(4 * hidden, hidden)
        self.norm2 = nn.LayerNorm(hidden)

    def forward(self, x: Any, mask: Any) -> Any:
        heads = [
            part(x).unflatten(-1, (self.heads, 64)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        ]
        attended = nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        x = self.norm1(x + self.output(attended.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.narrow(nn.functional.gelu(self.wide(x))))


class BertClassifier(nn.Module):  # type: ignore[misc]
    """The layers of a BERT sequence classifier; an answer with a class of its own."""

    def __init__(self, layers: int = 4, hidden: int = 768) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, hidden)
        self.places = nn.Embedding(512, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.layers = nn.ModuleList(BertLayer(hidden) for _ in range(layers))
        self.pooler = nn.Linear(hidden, hidden)
        self.classify = nn.Linear(hidden, 4)

    def forward(self, input_ids: Any, attention_mask: Any = None) -> "ClassifierOutput":
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.norm(self.words(input_ids) + self.places(places))
        mask = None if attention_mask is None else (attention_mask != 0)[:, None, None]
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return ClassifierOutput(logits=self.classify(torch.tanh(self.pooler(hidden[:, 0]))))


class ClassifierOutput(dict[str, Any]):
    """A dict whose keys are attributes too, like the outputs of transformers."""

    def __init__(self, logits: Any = None) -> None:
        super().__init__(logits=logits)
        self.logits = logits


def resnet18() -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The network and the arguments of a call, the same in every process."""
    torch.manual_seed(18)
    return ResNet18().eval(), (torch.randn(1, 3, 224, 224),), {}


def resnet18_script() -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    model, args, kwargs = resnet18()
    return torch.jit.script(model), args, kwargs


def bert() -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    torch.manual_seed(4)
    model = BertClassifier().eval()
    ids = torch.randint(0, 30522, (1, 128))
    return model, (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def digits() -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    torch.manual_seed(8)
    model = runpy.run_path(str(DEMO / "digit_model.py"))["DigitNet"]()
    return model.eval(), (torch.rand(1, 1, 8, 8),), {}


NETWORKS = {
    "resnet18": resnet18,
    "resnet18_script": resnet18_script,
    "bert": bert,
    "digits": digits,
}
