"""A graph against onnxruntime: first each node on the oracle's own values, then the whole.

The values of a graph are what onnxruntime gives node by node. A kernel is judged on exactly these,
so no error adds up, and the first node that differs is told. The whole graph, parts of it inside
If, Loop, Scan and functions, has the same values; where it differs from them by what float32 loses
from node to node, it must be what our own nodes give one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto

from onnxinterp import OnnxModule, backend
from tests.processes import Child, Lost
from tests.property.agreement import assert_agree
from tests.property.oracles import to_lane
from tests.untrusted.fuzz.choices import Choices, chance, one_of
from tests.untrusted.fuzz.drafting import Draft, Drafter
from tests.untrusted.fuzz.naming import made, reads, relabelled
from tests.untrusted.fuzz.oracle import Question, Refusal
from tests.untrusted.fuzz.regions import wrap

STRANGE = (
    "a.b",
    "x:0",
    "1",
    "input",
    "forward",
    "weights",
    "training",
    "ü",
    "a b",
    "%s{0}",
    "items",
)


class DisagreementError(AssertionError):
    """An answer differs from onnxruntime's.

    Attributes:
        model: a model that shows it.
        feeds: its inputs.
    """

    def __init__(self, what: str, model: ModelProto, feeds: Mapping[str, Any]) -> None:
        super().__init__(what)
        self.model, self.feeds = model, dict(feeds)


@dataclass
class Tally:
    """What the graphs were."""

    graphs: int = 0
    nodes: int = 0
    held: int = 0
    refused: int = 0
    amplified: int = 0
    losses: int = 0
    operators: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        return (
            f"{self.graphs} graphs of {self.nodes} nodes, {len(self.operators)} operators, "
            f"{self.held} regions in If, Loop, Scan or functions; as a whole onnxruntime refused "
            f"{self.refused} and died of {self.losses}; rounding grew in {self.amplified}"
        )


@dataclass
class Judge:
    """Asks onnxruntime what nodes compute, and sees that ours compute the same.

    Attributes:
        oracle: a process that runs onnxruntime.
        kernels: what `OnnxModule` gets; wrong ones must be found.
        check: whether nodes are compared.
    """

    oracle: Child
    kernels: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    check: bool = True
    tally: Tally = field(default_factory=Tally)

    def asked(self, model: ModelProto, feeds: Mapping[str, Any]) -> list[Any] | None:
        """Onnxruntime's answer; None where it refuses or dies."""
        answer = self.oracle.ask(Question(model.SerializeToString(), dict(feeds)))
        self.tally.losses += isinstance(answer, Lost)
        return None if isinstance(answer, (Lost, Refusal)) else answer

    def values(self, draft: Draft, nodes: Sequence[NodeProto]) -> dict[str, Any] | None:
        """What nodes give in onnxruntime, and here."""
        model, feeds = draft.model(nodes, made(nodes))
        answer = self.asked(model, feeds)
        if answer is None:
            return None
        values = dict(zip(made(nodes), answer, strict=True))
        if self.check and all(isinstance(v, (np.ndarray, list)) for v in answer):
            known = Draft(draft.opset, constants=draft.constants, values=draft.values | values)
            for node in nodes:
                self.node(known, node)
        return values

    def node(self, draft: Draft, node: NodeProto) -> None:
        """See that one node gives what the draft knows it gives."""
        outputs = [n for n in node.output if n]
        model, feeds = draft.model([node], outputs)
        try:
            got = ours(model, feeds, self.kernels)
            types = dtypes(draft.values[n] for n in (*reads([node]), *outputs))
            for name, g in zip(outputs, got, strict=True):
                assert_agree(g, to_lane(draft.values[name]), name, types)
        except Exception as error:
            message = f"{node.op_type} at opset {draft.opset} differs: {error}"
            raise DisagreementError(message, model, feeds) from error

    def whole(self, draft: Draft, flat: Draft, names: Mapping[str, str], model: ModelProto) -> None:
        """See that the whole graph gives the values of its nodes, each time it is called.

        Args:
            draft: the graph as it is.
            flat: the graph before parts of it were held by other nodes.
            names: output in the model -> value of the graph.
            model: the model.
        """
        feeds = {i.name: draft.values[names[i.name]] for i in model.graph.input}
        outputs = [o.name for o in model.graph.output]
        want = self.asked(model, feeds)
        self.tally.refused += want is None
        want = want or [draft.values[names[n]] for n in outputs]
        types = dtypes(flat.values.values())
        try:
            module = OnnxModule(model, kernels=self.kernels)
            for _ in range(3):  # the second call makes a plan for its sizes, the third one runs it
                got = called(module, feeds)
                if not _agree(got, want, types):
                    own = self.one_by_one(flat)
                    for name, g in zip(outputs, got, strict=True):
                        assert_agree(g, own[names[name]], name, types)
                    self.tally.amplified += 1
                    break
        except Exception as error:
            raise DisagreementError(f"the whole graph differs: {error}", model, feeds) from error

    @staticmethod
    def one_by_one(draft: Draft) -> dict[str, Any]:
        """What our own nodes give, each one a module, one after the other."""
        values = {n: to_lane(v) for n, v in (draft.inputs | draft.constants).items()}
        for node in draft.nodes:
            outputs = [n for n in node.output if n]
            model, feeds = draft.model([node], outputs)
            module = OnnxModule(model)
            with torch.no_grad():
                answer = module(**{n: values[n] for n in feeds})
            answers = answer if isinstance(answer, tuple) else (answer,)
            values.update(zip(outputs, answers, strict=True))
        return values


def ours(
    model: ModelProto, feeds: Mapping[str, Any], kernels: Mapping[str, Callable[..., Any]]
) -> list[Any]:
    return called(OnnxModule(model, kernels=kernels), feeds)


def called(module: OnnxModule, feeds: Mapping[str, Any]) -> list[Any]:
    """A module's answer to numpy arrays."""
    with torch.no_grad():
        answer = module(**{n: backend.to_torch(v) for n, v in feeds.items()})
    return list(answer) if isinstance(answer, tuple) else [answer]


def dtypes(values: Any) -> list[torch.dtype]:
    """The torch types of arrays, those in sequences too."""
    flat = (x for v in values for x in (v if isinstance(v, list) else [v]))
    lanes = (to_lane(x[:0] if x.ndim else x) for x in flat if isinstance(x, np.ndarray))
    return list({x.dtype for x in lanes if isinstance(x, torch.Tensor)})


def _agree(got: Sequence[Any], want: Sequence[Any], types: Sequence[torch.dtype]) -> bool:
    try:
        for g, w in zip(got, want, strict=True):
            assert_agree(g, to_lane(w), types=types)
    except AssertionError:
        return False
    return True


def finished(draft: Draft, choices: Choices) -> tuple[ModelProto, dict[str, str]]:
    """The model of a draft, some of its names strange ones.

    Returns:
        The model, and name in it -> name in the draft, of inputs and outputs.
    """
    known = [n for n in made(draft.nodes) if n in draft.values]
    read = {x for node in draft.nodes for x in reads([node])}
    outputs = [n for n in known if n not in read or chance(choices, 20)]
    names = {}
    for strange in STRANGE:
        if chance(choices, 30):
            names[one_of(choices, [*known, *draft.inputs, *draft.constants])] = strange
    optional = [n for n in draft.constants if chance(choices, 20)]
    renamed = Draft(
        draft.opset,
        nodes=relabelled(draft.nodes, names),
        constants={names.get(n, n): a for n, a in draft.constants.items()},
        values={names.get(n, n): a for n, a in draft.values.items()},
        functions=draft.functions,
    )
    optional = [names.get(n, n) for n in optional]
    model, _ = renamed.model(renamed.nodes, [names.get(n, n) for n in outputs], optional)
    back = {new: old for old, new in names.items()}
    every = [i.name for i in (*model.graph.input, *model.graph.output)]
    return model, {n: back.get(n, n) for n in every}


def one_graph(choices: Choices, judge: Judge, most: int = 30) -> ModelProto | None:
    """Draw a graph, and see that it gives what onnxruntime gives.

    Raises:
        DisagreementError: it does not.
    """
    draft = Drafter(choices, judge).grow(choices.integer(1, most))
    if not draft.nodes:
        return None
    flat = Draft(
        draft.opset,
        list(draft.nodes),
        dict(draft.inputs),
        dict(draft.constants),
        dict(draft.values),
    )
    held = sum(wrap(draft, choices) for _ in range(choices.integer(0, 4)))
    model, names = finished(draft, choices)
    judge.tally.graphs += 1
    judge.tally.nodes += len(flat.nodes)
    judge.tally.held += held
    judge.tally.operators |= {f"{n.domain}::{n.op_type}" for n in flat.nodes}
    judge.whole(draft, flat, names, model)
    return model
