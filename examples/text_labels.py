"""A transformer encoder learns to label sentences: is it praise, also where "not" turns it around?

The encoder is a small one, exported here; a BERT that comes as ONNX is tuned by the same lines.

    python examples/text_labels.py [EPOCHS]
"""

from __future__ import annotations

import itertools
import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from onnxinterp import OnnxModule
from onnxinterp.verify import verify

GOOD, BAD = ["good", "great", "fresh", "lovely"], ["bad", "awful", "stale", "boring"]
THINGS = ["food", "film", "bread", "music", "room", "play"]
WORDS = ["<pad>", "the", "was", "is", "not", "very", *GOOD, *BAD, *THINGS]


class Encoder(nn.Module):
    """Words in, two logits out."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS), width)
        self.places = nn.Parameter(torch.randn(5, width) * 0.1)
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 2)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (batch, 5) to logits (batch, 2)."""
        return self.head(self.encoder(self.words(ids) + self.places).mean(1))


def sentences() -> tuple[Tensor, Tensor]:
    """Make all of "the THING was|is not|very|<pad> WORD", and whether it is praise."""
    ids, labels = [], []
    parts = THINGS, ["was", "is"], ["not", "very", "<pad>"], GOOD + BAD
    for thing, verb, turn, word in itertools.product(*parts):
        ids.append([WORDS.index(w) for w in ("the", thing, verb, turn, word)])
        labels.append(int((word in GOOD) != (turn == "not")))
    return torch.tensor(ids), torch.tensor(labels)


def main(epochs: int = 15) -> float:
    """Export, tune, save and verify; the accuracy on sentences that were not trained on."""
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operator has no ONNX
    ids, labels = sentences()
    how = {"dynamic_axes": {"ids": {0: "batch"}}, "input_names": ["ids"], "dynamo": False}
    keep = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    torch.onnx.export(Encoder().eval(), (ids[:2],), "encoder.onnx", **how, **keep)

    module = OnnxModule("encoder.onnx").train()  # dropout drops
    train, test = torch.randperm(len(ids)).split([len(ids) * 2 // 3, len(ids) // 3])
    optimizer = torch.optim.AdamW(module.parameter_groups(lr=3e-3, weight_decay=0.01))
    for epoch in range(1, epochs + 1):
        for batch in train[torch.randperm(len(train))].split(16):
            optimizer.zero_grad()
            cross_entropy(module(ids[batch]), labels[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            right = (module.eval()(ids[test]).argmax(1) == labels[test]).double().mean().item()
        module.train()
        print(f"epoch {epoch:2d}: {right:.1%} of {len(test)} unseen sentences")
    module.save_onnx("praise.onnx")
    print(f"wrote praise.onnx; MSE against onnxruntime {verify('praise.onnx', [ids]).mse:.1g}")
    return right


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
