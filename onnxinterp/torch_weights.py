"""Which inputs of an operator are which weights of a torch module, and in which layout.

torch's exporters rename the weights that they transpose or pack ("val_13"). A kernel file says
which weight of a torch module an input was:

    torch_weights("MatMul", B=[TorchWeight(("weight",), TRANSPOSED)])

`graph.adoption` uses it to restore names and layouts. A `Layout` is a bijection: nothing of the
tensor in the file is lost.

It also says which kernel is a layer of torch, for `planning.leaves`:

    @leaf(gemm, weight="B", bias="C")
    def _(B: Tensor, C: Tensor | None = None, *, transA: int) -> nn.Module | None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, nn

from onnxinterp.registry import F, Function, Kernel, find_kernel

Sizes: TypeAlias = Sequence[int]


class Layout(NamedTuple):
    """How a file stores one or several weights of a torch module as one tensor.

    Attributes:
        kernel: computes the tensor of the file from the weights; it runs in each call, if no fusion
            takes the weights as they are.
        attributes: of the kernel.
        split: the tensor of the file -> the weights, perhaps as views of it.
        sizes: the shape of the tensor of the file -> those of the weights; () where it has another
            shape than this layout.
    """

    kernel: Kernel
    attributes: Mapping[str, Any]
    split: Callable[[Tensor], tuple[Tensor, ...]]
    sizes: Callable[[Sizes], tuple[Sizes, ...]]

    def join(self, weights: Sequence[Tensor]) -> Tensor:
        """The tensor of the file."""
        joined: Tensor = self.kernel.function(*weights, **self.attributes)
        return joined


class TorchWeight(NamedTuple):
    """What an input is in the torch module that a node was exported from.

    Attributes:
        names: of the weights in the module; `{k}` stands for the number of the layer, counted over
            the nodes of one module.
        layout: how they are stored; "" as they are.
        rank: of the tensor in the file; None for any.
        follows: whether this holds only for a node that works on the result of another node of the
            module that has weights: the Add of a bias.
    """

    names: tuple[str, ...]
    layout: str = ""
    rank: int | None = None
    follows: bool = False

    def fits(self, shape: Sizes) -> bool:
        """Whether a tensor of this shape may be it."""
        return self.rank in (None, len(shape)) and (
            not self.layout or bool(LAYOUTS[self.layout].sizes(shape))
        )


class Rule(NamedTuple):
    """What the inputs of a node are, where its attributes are so.

    Attributes:
        when: whether it holds for these attributes.
        inputs: input name -> what it may be; the first one that fits its shape counts.
    """

    when: Callable[[Mapping[str, Any]], bool]
    inputs: Mapping[str, Sequence[TorchWeight]]


class Leaf(NamedTuple):
    """Which layer of torch computes what a kernel does.

    Attributes:
        build: returns the layer, on the meta device.
        names: parameter of the kernel -> attribute of the layer that holds this weight.
    """

    build: Callable[..., nn.Module | None]
    names: Mapping[str, str]


LAYOUTS: dict[str, Layout] = {}
RULES: dict[tuple[str, str], list[Rule]] = {}
LEAVES: dict[Function, Leaf] = {}


def layout(
    name: str,
    function: Function,
    split: Callable[[Tensor], tuple[Tensor, ...]],
    sizes: Callable[[Sizes], tuple[Sizes, ...]],
    **attributes: Any,
) -> str:
    """Register a layout and return its name.

    Args:
        name: by which checkpoints know it.
        function: a kernel, registered or not: the weights -> the tensor of the file.
        split: as in `Layout`.
        sizes: as in `Layout`.
        attributes: of the kernel.
    """
    kernel = find_kernel(function) or Kernel(
        function, name, domain="onnxinterp", infer_output_type=_first_type
    )
    LAYOUTS[name] = Layout(kernel, attributes, split, sizes)
    return name


def _first_type(_: dict[str, Any], types: Sequence[int]) -> int:
    return types[0]


def torch_weights(
    *op_types: str,
    when: Callable[[Mapping[str, Any]], bool] = lambda _: True,
    domain: str = "",
    **inputs: Sequence[TorchWeight],
) -> None:
    """Say which weights the inputs of some operators are, in all versions.

    Args:
        op_types: names of operators.
        when: whether it holds for a node with these attributes; of several rules, the first one.
        domain: of the operators; "" for ai.onnx.
        inputs: input name -> what it may be, the first one that fits its shape.
    """
    for op_type in op_types:
        RULES.setdefault((domain, op_type), []).append(Rule(when, inputs))


def roles_of(
    domain: str, op_type: str, attributes: Mapping[str, Any]
) -> Mapping[str, Sequence[TorchWeight]]:
    """Input name -> what it may be, of one node."""
    rules = RULES.get((domain, op_type), ())
    return next((rule.inputs for rule in rules if rule.when(attributes)), {})


def leaf(function: Callable[..., Any], **weights: str) -> Callable[[F], F]:
    """Attach a function that builds the layer of torch which a kernel, or a fused one, computes.

    It may take weights and attributes of the kernel, by their names, and `rank`, that of the input
    of the layer, None if unknown. It returns the layer on the meta device, or None where torch has
    none that computes the same; attributes that it does not take must not matter.

    Args:
        function: the kernel. The input of the layer is the one that is not in `weights`.
        weights: attribute of the layer -> parameter of the kernel.
    """

    def attach(build: F) -> F:
        LEAVES[function] = Leaf(build, {name: attribute for attribute, name in weights.items()})
        return build

    return attach
