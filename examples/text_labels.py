"""Fine-tune a transformer encoder to classify sentences as praise or not, including negation.

The script creates and exports a small encoder. The same code fine-tunes a BERT in ONNX format.

    python examples/text_labels.py [EPOCHS]
"""

from __future__ import annotations

import sys
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from onnxinterp import OnnxModule, replace_head
from onnxinterp.verify import verify

GOOD, BAD = ["good", "great", "fresh", "lovely"], ["bad", "awful", "stale", "boring"]
THINGS = ["food", "film", "bread", "music", "room", "play"]
WORDS = ["<pad>", "the", "was", "is", "not", "very", *GOOD, *BAD, *THINGS]


class Encoder(nn.Module):
    """Classify the topic of a sentence: one logit for each thing."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS), width)
        self.places = nn.Parameter(torch.randn(5, width) * 0.1)
        self.layer = nn.TransformerEncoderLayer(width, 4, 64, batch_first=True)
        self.head = nn.Linear(width, len(THINGS))

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (batch, 5) to logits (batch, things)."""
        return self.head(self.layer(self.words(ids) + self.places).mean(1))


def sentences() -> tuple[Tensor, Tensor, Tensor]:
    """Return all "the THING was|is not|very|<pad> WORD", their things and whether they praise."""
    rows = []
    for words in product(["the"], THINGS, ["was", "is"], ["not", "very", "<pad>"], GOOD + BAD):
        praise = (words[4] in GOOD) != (words[3] == "not")
        rows.append([*map(WORDS.index, words), THINGS.index(words[1]), int(praise)])
    table = torch.tensor(rows)
    return table[:, :5], table[:, 5], table[:, 6]


def train(network: nn.Module, ids: Tensor, labels: Tensor, epochs: int) -> None:
    """Minimize cross-entropy; a network and an imported module train in the same way."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    network.train()  # enables dropout
    for batch in (b for _ in range(epochs) for b in torch.randperm(len(ids)).split(16)):
        optimizer.zero_grad()
        cross_entropy(network(ids[batch]), labels[batch]).backward()
        optimizer.step()


def main(epochs: int = 15) -> float:
    """Export, fine-tune, save and verify; return the accuracy on unseen sentences."""
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no operator for it
    ids, things, praise = sentences()
    train(encoder := Encoder(), ids, things, epochs=1)
    how = {"input_names": ["ids"], "dynamic_axes": {"ids": {0: "batch"}}, "dynamo": False}
    keep = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    torch.onnx.export(encoder.eval(), (ids[:2],), "encoder.onnx", **how, **keep)
    module = OnnxModule(replace_head("encoder.onnx", out_features=2))
    seen, unseen = torch.randperm(len(ids)).split([len(ids) * 2 // 3, len(ids) // 3])
    train(module, ids[seen], praise[seen], epochs)
    right = (module.eval()(ids[unseen]).argmax(1) == praise[unseen]).double().mean().item()
    print(f"trained on {len(seen)} sentences, accuracy on {len(unseen)} others: {right:.1%}")
    module.save_onnx("praise.onnx")
    print(f"wrote praise.onnx; MSE against onnxruntime {verify('praise.onnx', [ids]).mse:.1g}")
    return right


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
