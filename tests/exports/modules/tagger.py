"""A tagger: embedded words through a bidirectional LSTM of two layers."""

from __future__ import annotations

from torch import Tensor, nn

from tests.exports.case import Case, Input, tokens

VOCABULARY = 83
WIDTH = 24
TAGS = 11


class Tagger(nn.Module):
    """Word ids in; a score per word and tag, the summary of the last word and the cells out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers=2, bidirectional=True, batch_first=True)
        self.tags = nn.Linear(2 * WIDTH, TAGS)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, (_, cells) = self.lstm(self.words(ids))
        return self.tags(states), states[:, -1], cells


TAGGER = Case(
    name="tagger",
    network=Tagger,
    inputs=(Input("ids", ("batch", "time"), tokens(VOCABULARY)),),
    outputs=("scores", "summary", "cells"),
    sizes=({"batch": 2, "time": 7}, {"batch": 3, "time": 4}, {"batch": 5, "time": 13}),
    edges=({"batch": 1, "time": 1}, {"batch": 1, "time": 6}),
    torchscript=(11, 14, 17, 20),
    dynamo=(18, 20),
)
