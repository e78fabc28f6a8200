"""The loop of fine-tuning: epochs of steps, measuring, and the best weights kept.

tune(...)  -> Iterator[float]     the loss of each epoch, as long as it is asked for more
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

from onnxinterp.errors import OnnxError
from onnxinterp.training.datasets import Examples

Loss = Literal["ce", "bce", "mse", "l1"]
Advance = Callable[[str], None]  # called once per step, with a remark
IGNORED = -100  # the label of what does not count, as in torch


class DivergedError(OnnxError, ArithmeticError):
    """The loss is no finite number any more."""


@dataclass(frozen=True)
class Objective:
    """What is to become small, and how often the model is right.

    Attributes:
        loss: "ce" cross-entropy of logits, "bce" binary cross-entropy of logits, "mse" mean squared
            and "l1" mean absolute difference.
    """

    loss: Loss

    def __call__(self, answers: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a batch."""
        if self.loss == "ce":
            return F.cross_entropy(self._by_class(answers, targets), targets.long())
        wanted = targets.reshape(answers.shape).to(answers.dtype)
        if self.loss == "bce":
            return F.binary_cross_entropy_with_logits(answers, wanted)
        return F.mse_loss(answers, wanted) if self.loss == "mse" else F.l1_loss(answers, wanted)

    @staticmethod
    def _by_class(answers: Tensor, targets: Tensor) -> Tensor:
        """Logits with classes in dimension 1; they may be last, as [batch, length, classes]."""
        last = answers.ndim > 2 and answers.shape[:-1] == targets.shape
        return answers.movedim(-1, 1) if last else answers

    def right(self, answers: Tensor, targets: Tensor) -> Tensor | None:
        """Which answers are right, for those that count; None where that is no question."""
        if self.loss == "ce":
            return (self._by_class(answers, targets).argmax(1) == targets)[targets != IGNORED]
        if self.loss == "bce":
            return (answers > 0) == (targets.reshape(answers.shape) > 0.5)
        return None


@dataclass(frozen=True)
class Score:
    """A model on some examples: the mean loss, and the part of the answers that are right."""

    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Epoch:
    """One time through the training examples: their loss, and the score on the others."""

    loss: float
    validation: Score


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: times through the examples, at most.
        batch_size: examples a step.
        optimizer: over the parameters that train; its learning rates are where it starts.
        schedule: "cosine" lets the rates fall to 0 at the end, "constant" keeps them.
        patience: epochs without a better validation loss after which to stop; None for never.
        seed: of the order of the examples.
    """

    epochs: int
    batch_size: int
    optimizer: torch.optim.Optimizer
    schedule: Literal["cosine", "constant"] = "constant"
    patience: int | None = None
    seed: int = 0

    def steps(self, examples: Examples) -> int:
        """How many steps all epochs have."""
        return self.epochs * math.ceil(len(examples) / self.batch_size)

    def scheduler(self, examples: Examples) -> torch.optim.lr_scheduler.LRScheduler:
        """What sets the learning rates after each step."""
        steps = self.steps(examples)

        def factor(step: int) -> float:
            falling = (1 + math.cos(math.pi * step / steps)) / 2
            return falling if self.schedule == "cosine" else 1.0

        return torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)


def tune(
    module: nn.Module, examples: Examples, objective: Objective, recipe: Recipe, advance: Advance
) -> Iterator[float]:
    """Train; the mean loss of each epoch as it ends. The module is in `train()` during an epoch.

    Args:
        module: takes the inputs of a batch and gives one tensor.
        examples: to train on.
        objective: what to make small.
        recipe: how.
        advance: told of each step.

    Raises:
        DivergedError: the loss is no finite number.
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
    """How many numbers of a module train, and how many it has."""
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
    """Train, and leave the module with the weights that were best on the validation examples.

    The weights it came with count, too: where no epoch is better, they are what is left.
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
