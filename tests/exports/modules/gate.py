"""A voice detector in the manner of Silero's: one of two networks, by the value of an input.

A filter bank for each sampling rate, chosen by If, then a recurrent cell whose state is an input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.exports.case import Case, Input, Sizes, floats

WIDTH = 16
HIGH_RATE = 16000


def high_rate(_: tuple[int, ...], __: Sizes, ___: torch.Generator) -> Tensor:
    return torch.tensor(HIGH_RATE)


class Bank(nn.Module):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, WIDTH, length, stride=8, bias=False)

    def forward(self, samples: Tensor) -> Tensor:
        return self.filters(samples.unsqueeze(1)).square().mean(-1).log1p()


class Gate(nn.Module):
    """Samples, the state and the sampling rate in, the probability of speech and the state out."""

    def __init__(self) -> None:
        super().__init__()
        self.high = Bank(16)
        self.low = Bank(8)
        self.cell = nn.Linear(2 * WIDTH, 2 * WIDTH)
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, samples: Tensor, state: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        bands = torch.cond(rate == HIGH_RATE, self.high, self.low, (samples,))
        gate, new = self.cell(torch.cat((bands, state), 1)).chunk(2, 1)
        gate = gate.sigmoid()
        state = gate * state + (1 - gate) * new.tanh()
        return self.head(state).sigmoid(), state


GATE = Case(
    name="gate",
    network=Gate,
    inputs=(
        Input("samples", ("batch", 64), floats),
        Input("state", ("batch", WIDTH), floats),
        Input("rate", (), high_rate),
    ),
    outputs=("speech", "new_state"),
    sizes=({"batch": 2}, {"batch": 3}, {"batch": 5}),
    edges=({"batch": 1},),
    torchscript=(),
    dynamo=(18, 20),
)
