"""A recurrent network that goes on by itself; TorchScript keeps its loop."""

import torch
from torch import nn


class ForecastNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(1, 8)
        self.value = nn.Linear(8, 1)

    def forward(self, series: torch.Tensor, ahead: int) -> torch.Tensor:
        state = torch.zeros(1, 8)
        for number in range(series.shape[0]):
            state = self.cell(series[number].reshape(1, 1), state)
        values = []
        for _ in range(ahead):
            value = self.value(state)
            values.append(value[0, 0])
            state = self.cell(value, state)
        return torch.stack(values)
