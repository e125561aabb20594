"""Trains the demo's network on scikit-learn's bundled digits, the same way every time."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from digit_model import DigitNet
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 7
EPOCHS = 20
BATCH_SIZE = 32
WHITE = 16  # the brightest level in scikit-learn's images


@dataclass(frozen=True, slots=True)
class TrainedDigits:
    """A trained network, how well it does on digits it never saw, and those digits."""

    state_dict: dict[str, torch.Tensor]
    accuracy: float
    held_out_pixels: torch.Tensor
    held_out_digits: torch.Tensor


def train_digits(say: Callable[[str], None]) -> TrainedDigits:
    """Seeded and on one thread, hence repeatable; `say` hears of the progress."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    images, digits = load_digits(return_X_y=True)
    split = train_test_split(images, digits, test_size=0.25, random_state=SEED, stratify=digits)
    pixels, held_out_pixels = (
        torch.tensor(part, dtype=torch.float32).reshape(-1, 1, 8, 8) / WHITE for part in split[:2]
    )
    labels, held_out_labels = (torch.tensor(part, dtype=torch.int64) for part in split[2:])

    net = DigitNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    last_said = time.monotonic()
    for epoch in range(1, EPOCHS + 1):
        loss_sum = 0.0
        for batch in torch.randperm(len(pixels)).split(BATCH_SIZE):
            loss = torch.nn.functional.cross_entropy(net(pixels[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(batch)
        if time.monotonic() - last_said > 1 or epoch == EPOCHS:
            say(f"  epoch {epoch} of {EPOCHS}, loss {loss_sum / len(pixels):.3f}")
            last_said = time.monotonic()

    with torch.inference_mode():
        answers = net(held_out_pixels).argmax(dim=1)
    accuracy = (answers == held_out_labels).double().mean().item()
    return TrainedDigits(net.state_dict(), accuracy, held_out_pixels, held_out_labels)
