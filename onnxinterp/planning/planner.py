"""From a Graph to a Plan, in passes.

    facts       infer(graph, setting)           element types, straight-through values
    steps       each node resolved in order     its kernel, how it gets its inputs; constants folded
    fusion      fuse(steps, ...)                several steps that are one function in torch
    sizes       size_values(steps, ...)         host values that depend on the inputs' shapes alone
    liveness    live_steps(steps, ...)          steps that are needed, and what dies after each

Two questions are answered for every value, once:

    Is it a constant?    Integers and other tensors that never train are; a node that reads nothing
                         else runs now and its outputs are constants too (`constants`).
    May it be a host value at run time?   Small constants, what Shape returns, and what kernels with
                         a host rule compute from such values. Only steps that read one look at
                         classes at run time; all others pass their inputs straight to the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from onnxinterp.errors import InvalidModelError, OnnxError
from onnxinterp.graph.ir import Graph, Node, WeightRef
from onnxinterp.graph.scopes import module_with_mode
from onnxinterp.kinds import Kind
from onnxinterp.planning.attributes import decode, placed
from onnxinterp.planning.carriers import emulate
from onnxinterp.planning.constants import Constants
from onnxinterp.planning.facts import NUMBER_KINDS, TENSOR_KINDS, Facts, Setting
from onnxinterp.planning.fusion import fuse
from onnxinterp.planning.liveness import live_steps
from onnxinterp.planning.sizes import size_values
from onnxinterp.registry import ENGINE_KEYWORDS, IGNORED_ATTRIBUTES, Kernel
from onnxinterp.runtime.plan import Key, Plan, Step
from onnxinterp.values import Host
from onnxinterp.versions import host_rule_of


def make_plan(graph: Graph, setting: Setting, facts: Facts) -> Plan:
    """Make the plan of a main graph, pruned to what its outputs need.

    Args:
        graph: the main graph.
        setting: the weights, the mode, the device.
        facts: what `infer` found for the graph.

    Raises:
        InvalidModelError: there is none; the message names the node at fault, where there is one.
        UnsafeModelError: it takes longer than the limits allow.
    """
    try:
        return _Planner(setting, facts).plan(graph)
    except OnnxError:
        raise
    except Exception as error:
        raise InvalidModelError(f"no plan can be made of the graph: {error}") from error


class _Planner:
    """Plans one model in one mode; collects the constants that its steps pass to kernels."""

    def __init__(self, setting: Setting, facts: Facts) -> None:
        self.setting = setting
        self.facts = facts
        self.constants = Constants(setting)
        self.may_be_host: set[str] = set()
        self._kinds: dict[tuple[Kernel, int], tuple[Kind, ...]] = {}

    def plan(self, graph: Graph, is_root: bool = True) -> Plan:
        """Plan a graph. The inputs of a subgraph are not known: any may be a host value."""
        setting, constants = self.setting, self.constants
        inputs = tuple(i.name for i in graph.inputs)
        if not is_root:
            self.may_be_host.update(inputs)
        steps = [step for node in graph.nodes if (step := self._resolve(node)) is not None]
        kind = Kind.TENSOR if is_root else Kind.ANY
        outputs = tuple(constants.key(o.name, kind) for o in graph.outputs)
        sized = size_values(steps, constants.known, setting.weights) if is_root else set()
        if setting.fuse:
            steps = fuse(steps, outputs, constants, by_module=setting.by_module)
        computed = set(inputs).union(o for s in steps for o in s.outputs)
        sized &= computed
        steps, dead = live_steps(steps, {*outputs, *sized}, computed)
        reads = [r for s in steps for r in s.reads] + list(outputs)
        dtypes = setting.dtypes
        captures = tuple(r for r in dict.fromkeys(reads) if r and r not in computed)
        return Plan(
            steps=tuple(steps),
            dead=tuple(dead),
            inputs=inputs,
            outputs=outputs,
            captures=captures,
            constants=self._placed_constants() if is_root else self._numbers_of(captures),
            output_types=tuple((self.facts.dtype_of(o, dtypes), o.shape) for o in graph.outputs),
            static_shapes=partial(self.facts.static_shapes, graph.outputs),
            sized=tuple(sorted(sized)),
        )

    def _placed_constants(self) -> dict[Key, Any]:
        """The constants of the plan, where the module is."""
        forms, device = self.constants.forms, self.setting.device
        if device == self.constants.device:
            return forms
        return {key: placed(value, device) for key, value in forms.items()}

    def _numbers_of(self, keys: Sequence[Key]) -> dict[Key, Any]:
        """The constants among some values that are plain numbers."""
        numbers = int, float, list, Host
        forms = {key: self.constants.forms.get(key) for key in keys}
        return {key: form for key, form in forms.items() if isinstance(form, numbers)}

    def _resolve(self, node: Node) -> Step | None:
        """The step of a node; None where it is folded.

        Raises:
            InvalidModelError: no plan can be made of the node.
        """
        try:
            return self._step(node)
        except OnnxError:
            raise
        except Exception as error:
            message = f"node {node.name!r} ({node.op_type}, opset {node.opset}): {error}"
            raise InvalidModelError(message) from error

    def _step(self, node: Node) -> Step | None:
        kernel, known = node.kernel, self.constants.known
        assert kernel is not None, "missing operators are refused before planning"
        if node.outputs[0] in known and all(o in known for o in node.outputs):
            return None
        kinds = self._kinds_of(kernel, node)
        host_rule = self._host_rule(kernel, node, kinds)
        numbers = self._numbers(node, kinds)
        key, weights = self.constants.key, node.weights
        step = Step(
            node=node,
            kernel=self._function(kernel, node, kinds),
            inputs=tuple(
                [
                    key(n, self._passed_as(kernel, i, n, k, host_rule)) if n in known else n
                    for i, (n, k) in enumerate(zip(node.inputs, kinds, strict=True))
                ]
            ),
            outputs=node.outputs,
            attributes=self._attributes(kernel, node),
            direct=not (host_rule or numbers) and self._is_direct(kernel, node),
            kinds=kinds,
            numbers=numbers,
            host_rule=host_rule,
            subgraphs=self._subgraphs(kernel, node),
            weights={attribute: key(name, Kind.TENSOR) for attribute, name in weights.items()},
            wants_device="device" in kernel.attributes,
            updates=self._updates(kernel, node) if kernel.state else (),
        )
        if self.constants.fold(step, kernel):
            return None
        if kernel.returns_host or host_rule or step.subgraphs:
            self.may_be_host.update(node.outputs)
        return step

    def _kinds_of(self, kernel: Kernel, node: Node) -> tuple[Kind, ...]:
        """What the kernel wants for each input of a node."""
        count = len(node.inputs)
        if (kinds := self._kinds.get((kernel, count))) is not None:
            return kinds
        parameters = [kernel.parameter(i) for i in range(count)]
        if None in parameters:
            message = f"node {node.name!r}: {kernel.op_type} at opset {node.opset} takes at most "
            raise InvalidModelError(f"{message}{len(kernel.parameters)} inputs, got {count}")
        kinds = tuple(kernel.kinds[p.name] for p in parameters if p is not None)
        self._kinds[kernel, count] = kinds
        return kinds

    def _host_rule(self, kernel: Kernel, node: Node, kinds: Sequence[Kind]) -> Any:
        """The kernel's rule for plain numbers, where all its tensors may be such numbers."""
        rule = host_rule_of(kernel.function)
        if rule is None:
            return None
        names = [n for n, k in zip(node.inputs, kinds, strict=True) if n and k not in NUMBER_KINDS]
        is_host = self.constants.is_shape_like
        fits = all(n in self.may_be_host or is_host(n) for n in names)
        return rule if fits else None

    def _passed_as(self, kernel: Kernel, index: int, name: str, kind: Kind, rule: Any) -> Kind:
        """The form in which a constant is passed to the kernel, or to its host rule."""
        if rule and kind in TENSOR_KINDS:
            return Kind.HOST
        return self.constants.kind_of(kernel, index, name, kind)

    def _numbers(self, node: Node, kinds: Sequence[Kind]) -> tuple[tuple[int, Kind], ...]:
        """The inputs that must be read into plain numbers at run time."""
        known, pairs = self.constants.known, zip(node.inputs, kinds, strict=True)
        return tuple(
            [(i, k) for i, (n, k) in enumerate(pairs) if k in NUMBER_KINDS and n and n not in known]
        )

    def _is_direct(self, kernel: Kernel, node: Node) -> bool:
        """Whether inputs that are not read as numbers can be passed as they are in the frame."""
        if "device" in kernel.attributes or node.weights or node.subgraphs:
            return False
        return self.may_be_host.isdisjoint(node.inputs)

    def _function(self, kernel: Kernel, node: Node, kinds: Sequence[Kind]) -> Any:
        """The kernel's function, fit for the element types of the node's inputs."""
        types = self.facts.types
        inputs = [types.get(name, 0) for name in node.inputs]
        outputs = [types.get(name, 0) for name in node.outputs]
        return emulate(kernel, node.attributes, kinds, inputs, outputs)

    def _attributes(self, kernel: Kernel, node: Node) -> dict[str, Any]:
        """Keyword arguments: the node's attributes and what the engine provides."""
        provided = [n for n in kernel.keywords if n in ENGINE_KEYWORDS and n != "device"]
        given = {n: self._provide(n, kernel, node) for n in provided}
        dtypes = self.setting.dtypes
        for name, parameter in kernel.keywords.items():  # a default dtype follows the module
            if isinstance(parameter.default, torch.dtype) and parameter.default in dtypes:
                given[name] = dtypes[parameter.default]
        for name, value in node.attributes.items():
            if name not in kernel.attributes or name in ENGINE_KEYWORDS:
                if name in IGNORED_ATTRIBUTES:
                    continue
                message = f"node {node.name!r}: {kernel.op_type} has no attribute {name!r}"
                raise InvalidModelError(f"{message} at opset {node.opset}")
            if name in kernel.keywords and not isinstance(value, (Graph, WeightRef)):
                given[name] = value
        device = self.setting.device
        return {k: decode(kernel, k, v, dtypes, device) for k, v in given.items()}

    def _provide(self, keyword: str, kernel: Kernel, node: Node) -> Any:
        """The value of a keyword that the engine provides, not the node."""
        types = self.facts.types
        match keyword:
            case "n_outputs":
                return len(node.outputs)
            case "input_type":
                return types.get(node.inputs[0], 0) if node.inputs else 0
            case "output_type":
                return types.get(node.outputs[0], 0)
            case "training":
                return None if self._has_frozen_stats(kernel, node) else self._trains(node)
            case "straight_through":
                return node.outputs[0] in self.facts.straight_through
            case "prepared":
                return placed(node.prepared, self.setting.device)
        return None

    def _subgraphs(self, kernel: Kernel, node: Node) -> dict[str, Plan]:
        for name in node.subgraphs:
            if not kernel.wants_subgraph(name):
                raise InvalidModelError(f"{kernel.op_type} takes no subgraph {name!r}")
        return {name: self.plan(g, is_root=False) for name, g in node.subgraphs.items()}

    def _updates(self, kernel: Kernel, node: Node) -> tuple[tuple[str, int], ...]:
        """The state that this step updates when training."""
        if not self._trains(node) or self._has_frozen_stats(kernel, node) or node.is_copy:
            return ()
        position = {p.name: i for i, p in enumerate(kernel.parameters)}
        updates = [(node.inputs[position[p]], output) for p, output in kernel.state.items()]
        return tuple((name, output) for name, output in updates if name in self.setting.weights)

    def _trains(self, node: Node) -> bool:
        """Whether the torch module that a node came from is in training mode."""
        return self.setting.training != (module_with_mode(node) in self.setting.apart)

    def _has_frozen_stats(self, kernel: Kernel, node: Node) -> bool:
        """Whether the statistics that a node reads are frozen."""
        inputs, frozen = (
            zip(kernel.parameters, node.inputs, strict=False),
            self.setting.frozen_stats,
        )
        return any(p.name in kernel.state and name in frozen for p, name in inputs)
