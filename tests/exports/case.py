"""What a network is fed: named inputs, their dynamic dimensions, the sizes and exports to try."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from tests.exports.seeding import seed_weights

Sizes = Mapping[str, int]
Fill = Callable[[tuple[int, ...], Sizes, torch.Generator], Tensor]
Exporter = Literal["torchscript", "dynamo"]


def floats(shape: tuple[int, ...], _: Sizes, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def tokens(vocabulary: int) -> Fill:
    def fill(shape: tuple[int, ...], _: Sizes, generator: torch.Generator) -> Tensor:
        return torch.randint(vocabulary, shape, generator=generator)

    return fill


def lengths(dim: str) -> Fill:
    """One length per batch entry, between half of `dim` and all of it."""

    def fill(shape: tuple[int, ...], sizes: Sizes, generator: torch.Generator) -> Tensor:
        longest = sizes[dim]
        return torch.randint((longest + 1) // 2, longest + 1, shape, generator=generator)

    return fill


def prefix_mask(shape: tuple[int, ...], sizes: Sizes, generator: torch.Generator) -> Tensor:
    """[batch, length] of ones, then zeros where the shorter sequences are padded."""
    used = lengths("length")(shape[:1], {**sizes, "length": shape[1]}, generator)
    return (torch.arange(shape[1]) < used[:, None]).long()


class Input(NamedTuple):
    """A graph input; a dimension is a name where it is dynamic."""

    name: str
    dims: tuple[str | int, ...]
    fill: Fill


class Export(NamedTuple):
    """One way to write the network as ONNX."""

    exporter: Exporter
    opset: int


@dataclass(frozen=True)
class Case:
    """A network and all that is needed to export it, feed it and compare it."""

    name: str
    network: Callable[[], nn.Module]
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    sizes: tuple[dict[str, int], ...]
    """Three sizes, every dynamic dimension above one (torch specialises on zero and one)."""
    edges: tuple[dict[str, int], ...]
    """Sizes with ones and zeros in them."""
    torchscript: tuple[int, ...]
    dynamo: tuple[int, ...]
    folded: tuple[str, ...] = ()
    """Patterns of the parameters that exporters fold away: batch normalisation into convolution."""

    def module(self) -> nn.Module:
        """Return the network in eval mode, with the same weights at every call."""
        network = self.network()
        seed_weights(network)
        return network.eval()

    def arguments(self, sizes: Sizes, seed: int = 0) -> tuple[Tensor, ...]:
        """Return one tensor per input, in order."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(
            fill(tuple(sizes[d] if isinstance(d, str) else d for d in dims), sizes, generator)
            for _, dims, fill in self.inputs
        )

    def dynamic_dims(self) -> tuple[dict[int, str], ...]:
        """Return, per input, the name of each dynamic dimension by its axis."""
        return tuple(
            {axis: d for axis, d in enumerate(spec.dims) if isinstance(d, str)}
            for spec in self.inputs
        )

    def exports(self) -> tuple[Export, ...]:
        """Return every exporter and opset this network is written with."""
        return (
            *(Export("torchscript", opset) for opset in self.torchscript),
            *(Export("dynamo", opset) for opset in self.dynamo),
        )
