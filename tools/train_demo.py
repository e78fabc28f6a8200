"""Train the digit classifier of `onnxinterp demo`, and write it with its data.

scikit-learn's 1797 handwritten digits (8 x 8 pixels, 17 grey levels) are split with a fixed seed.
The test portion is never used for training, neither here nor in the demo. Writes `digits.onnx` and
`digits.npz`.

    python tools/train_demo.py [FOLDER]

Needs scikit-learn and onnxscript besides torch, and takes about 20 s.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxscript
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

FOLDER = Path(__file__).parents[1] / "onnxinterp" / "data"
TEST_IMAGES = 500
EPOCHS = 60


class Digits(nn.Module):
    """A small network with batch normalization and a dynamic batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(32)
        self.head = nn.Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (batch, 1, 8, 8) with values from 0 to 1 to logits (batch, 10)."""
        x = nn.functional.max_pool2d(self.bn1(self.conv1(image)).relu(), 2)
        x = nn.functional.max_pool2d(self.bn2(self.conv2(x)).relu(), 2)
        return self.head(x.flatten(1))


def split(seed: int = 0) -> dict[str, np.ndarray]:
    """Return the training and test digits of the package, as uint8 grey levels from 0 to 16."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images, labels = digits.images[order].astype(np.uint8), digits.target[order].astype(np.uint8)
    return {
        "train_images": images[TEST_IMAGES:],
        "train_labels": labels[TEST_IMAGES:],
        "test_images": images[:TEST_IMAGES],
        "test_labels": labels[:TEST_IMAGES],
    }


def tensors(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Scale grey levels to the range 0 to 1 and add the channel axis."""
    return torch.tensor(images[:, None] / 16, dtype=torch.float32), torch.tensor(labels).long()


def train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Minimize cross-entropy with AdamW and a cosine schedule."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    model.eval()


def export(model: nn.Module, path: Path) -> None:
    """Write an ONNX model with a dynamic batch size.

    Only constants are folded. The exporter's own optimization would also fold BatchNormalization
    nodes, which the demo trains. Metadata of nodes (stack traces) is removed.
    """
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        training=torch.onnx.TrainingMode.PRESERVE,
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    onnxscript.optimizer.fold_constants(program.model)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    onnx_ir.passes.common.ClearMetadataAndDocStringPass()(program.model)
    onnx.save(program.model_proto, path)


def main() -> None:
    """Train, export, and print the accuracy on the test portion."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    data = split()
    model = Digits()
    train(model, *tensors(data["train_images"], data["train_labels"]))
    images, labels = tensors(data["test_images"], data["test_labels"])
    accuracy = (model(images).argmax(1) == labels).double().mean().item()
    export(model, folder / "digits.onnx")
    np.savez_compressed(folder / "digits.npz", allow_pickle=False, **data)
    print(f"test accuracy {accuracy:.2%} on {len(labels)} images")
    for path in sorted(folder.glob("digits.*")):
        print(f"{path.name} {path.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
