"""The training loop of fine-tuning.

tune(...)  -> Iterator[float]     trains one epoch per iteration, and yields its loss
fit(...)   -> list[Epoch]         with validation, patience, and the best weights at the end
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn
from torch.optim import lr_scheduler

from onnxinterp.errors import OnnxError
from onnxinterp.training.datasets import Examples

Loss = Literal["ce", "bce", "mse", "l1"]
Advance = Callable[[str], None]  # called once per step, with a remark
IGNORED = -100  # of examples that do not count, as in torch


class DivergedError(OnnxError, ArithmeticError):
    """The loss is not a finite number any more."""


@dataclass(frozen=True)
class Objective:
    """The loss to minimize, and which answers are right.

    Attributes:
        loss: "ce" cross-entropy of logits, "bce" binary cross-entropy of logits, "mse" mean squared
            and "l1" mean absolute difference.
    """

    loss: Loss

    def __call__(self, answers: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a batch."""
        if self.loss == "ce":
            return F.cross_entropy(classes_second(answers, targets), targets.long())
        wanted = targets.reshape(answers.shape).to(answers.dtype)
        if self.loss == "bce":
            return F.binary_cross_entropy_with_logits(answers, wanted)
        return F.mse_loss(answers, wanted) if self.loss == "mse" else F.l1_loss(answers, wanted)

    def right(self, answers: Tensor, targets: Tensor) -> Tensor | None:
        """Which of the answers that count are right; None if the loss has no such notion."""
        if self.loss == "ce":
            return (classes_second(answers, targets).argmax(1) == targets)[targets != IGNORED]
        if self.loss == "bce":
            return (answers > 0) == (targets.reshape(answers.shape) > 0.5)
        return None


def classes_second(answers: Tensor, targets: Tensor) -> Tensor:
    """Logits with classes in dimension 1; they may come last: [batch, time, classes]."""
    last = answers.ndim > 2 and answers.shape[:-1] == targets.shape
    return answers.movedim(-1, 1) if last else answers


@dataclass(frozen=True)
class Score:
    """The mean loss of a model on some examples, and the fraction of right answers."""

    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Epoch:
    """One pass over the training examples: their loss, and the score on the validation examples."""

    loss: float
    validation: Score


@dataclass(frozen=True)
class Recipe:
    """The settings of a training.

    Attributes:
        epochs: the maximal number of passes over the examples.
        batch_size: examples per step.
        optimizer: over the parameters that train, with the initial learning rates.
        schedule: "cosine" decreases the rates to 0 at the end, "constant" keeps them.
        patience: epochs without a better validation loss after which to stop; None for never.
        seed: for the order of the examples.
    """

    epochs: int
    batch_size: int
    optimizer: torch.optim.Optimizer
    schedule: Literal["cosine", "constant"] = "constant"
    patience: int | None = None
    seed: int = 0

    def steps(self, examples: Examples) -> int:
        """The number of steps of all epochs."""
        return self.epochs * math.ceil(len(examples) / self.batch_size)

    def scheduler(self, examples: Examples) -> lr_scheduler.LRScheduler:
        """The scheduler that sets the learning rates after each step."""
        if self.schedule == "cosine":
            return lr_scheduler.CosineAnnealingLR(self.optimizer, self.steps(examples))
        return lr_scheduler.ConstantLR(self.optimizer, factor=1.0)


def tune(
    module: nn.Module, examples: Examples, objective: Objective, recipe: Recipe, advance: Advance
) -> Iterator[float]:
    """Train, and yield the mean loss of each epoch. The module is in `train()` during an epoch.

    Args:
        module: takes the inputs of a batch and returns one tensor.
        examples: the training examples.
        objective: the loss.
        recipe: the settings.
        advance: called after each step.

    Raises:
        DivergedError: the loss is not a finite number.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer, schedule = recipe.optimizer, recipe.scheduler(examples)
    for epoch in range(recipe.epochs):
        module.train()
        total = 0.0
        order = torch.randperm(len(examples), generator=generator)
        for batch in torch.split(order, recipe.batch_size):
            optimizer.zero_grad()
            loss = objective(*answered(module, examples, batch))
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            if not math.isfinite(value := loss.item()):
                raise DivergedError(f"the loss is {value} in epoch {epoch + 1}: lower --lr")
            total += value * len(batch)
            advance(f"epoch {epoch + 1}, loss {value:.3f}")
        module.eval()
        yield total / len(examples)


def measure(module: nn.Module, examples: Examples, objective: Objective, batch_size: int) -> Score:
    """The score of a module, in `eval()`."""
    module.eval()
    total, hits, count = 0.0, 0.0, 0
    for batch in torch.split(torch.arange(len(examples)), batch_size):
        with torch.no_grad():
            answers, targets = answered(module, examples, batch)
        total += float(objective(answers, targets)) * len(batch)
        right = objective.right(answers, targets)
        if right is not None:
            hits, count = hits + float(right.sum()), count + right.numel()
    return Score(total / len(examples), hits / count if count else None)


def answered(module: nn.Module, examples: Examples, batch: Tensor) -> tuple[Tensor, Tensor]:
    """The answers of a module to a batch, and the targets, on its device."""
    some = next(iter(module.parameters()), None)
    device = torch.device("cpu") if some is None else some.device
    inputs = [x.to(device, non_blocking=True) for x in examples.read(batch)]
    return module(*inputs), examples.targets[batch].to(device)


def counts(module: nn.Module) -> tuple[int, int]:
    """The number of elements of a module that train, and of all elements."""
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return trained, sum(t.numel() for t in module.state_dict().values())


def fit(
    module: nn.Module,
    train: Examples,
    validation: Examples,
    objective: Objective,
    recipe: Recipe,
    advance: Advance,
) -> list[Epoch]:
    """Train; at the end, the module has the weights with the least loss on the validation examples.

    If no epoch is better than the original weights, the module has these.
    """
    best = measure(module, validation, objective, recipe.batch_size).loss
    weights, epochs, waited = copy.deepcopy(module.state_dict()), [], 0
    for loss in tune(module, train, objective, recipe, advance):
        score = measure(module, validation, objective, recipe.batch_size)
        epochs.append(Epoch(loss, score))
        waited += 1
        if score.loss < best:
            best, weights, waited = score.loss, copy.deepcopy(module.state_dict()), 0
        if waited == recipe.patience:
            break
    module.load_state_dict(weights)
    return epochs
