"""OnnxModule: an ONNX model as one torch module."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from onnxinterp.dtypes import NARROW
from onnxinterp.errors import NodeError, UnsupportedOpError, plain
from onnxinterp.graph.build import build
from onnxinterp.graph.ir import Graph, Node
from onnxinterp.graph.ties import Untie, resolve_untie, untie_weights
from onnxinterp.graph.typecheck import check_types
from onnxinterp.limits import Limits
from onnxinterp.planning import planner
from onnxinterp.planning.carriers import type_of
from onnxinterp.reading import source as reading
from onnxinterp.registry import kernel_of
from onnxinterp.runtime.binding import forward_of
from onnxinterp.runtime.guard import Guard, guard_of
from onnxinterp.runtime.inputs import Arguments, Floating
from onnxinterp.runtime.interpreter import Frame, Interpreter
from onnxinterp.runtime.plan_cache import BoundPlan, sizes_of
from onnxinterp.values import Host, is_traced
from onnxinterp.weights import (
    Trainable,
    Weights,
    elem_type,
    parameters,
    read,
    read_tensors,
    roles,
)
from onnxinterp.weights.tunable import Tunable
from onnxinterp.writing import safetensors as tensorfiles
from onnxinterp.writing.save import save
from onnxinterp.writing.template import template as make_template
from onnxinterp.writing.template import template_of


class OnnxModule(Tunable):
    """An ONNX model as a differentiable `torch.nn.Module`.

    Call it with the graph's inputs, by position, by name or mixed: `m(x)`, `m(**{"input.1": x})`.
    Inputs with an initializer behind them are optional and go by name. One output comes as a
    tensor, several as a tuple in graph order. It starts in `eval()` mode, as the file says; in
    `train()` mode normalisation uses the statistics of the batch and dropout drops.

    Example:
        >>> m = OnnxModule("model.onnx")  # doctest: +SKIP
        >>> y = m(torch.randn(1, 3, 224, 224))  # doctest: +SKIP

    Args:
        source: a path, bytes, a binary file or an `onnx.ModelProto`. External data is found beside
            a path only.
        outputs: names of any tensors of the graph to give instead of the graph's outputs; nodes
            they do not need are dropped.
        trainable: which weights train: "weights" (all floating tensors that kernels compute with;
            not statistics, quantization scales, bounds, exponents, rank-0 settings), "all",
            "none", a name pattern (`fnmatch`) or several, or a predicate of name and tensor.
        untie: whether weights that an exporter merged because their values were equal become
            weights of their own (`ties` tells how it knows); False keeps one parameter for each
            initializer; name patterns or a predicate of the name untie all uses of those.
        kernels: "domain::Op" (or "Op") -> kernel function for this module only; it takes
            precedence over everything else.
        fuse: whether nodes that are one function in torch (GELU in parts, attention, ...) run as
            one; False runs each node by itself.
        limits: what loading and each call may take of memory, nodes, trips and seconds.
        allowed_ops: the only operators ("domain::Op", or "Op" of ai.onnx) a file may use; None
            allows all that have a kernel.
        data_root: a folder within which external data may lie behind links, as in the caches of
            model hubs; without it external data are plain files below the model's folder.

    Attributes:
        weights: every tensor the file ships, by its ONNX name.
        graph: the decoded graph.
        inputs: what a call must give: name, type and shape.
        optional_inputs: what a call may give by name; left out, the initializer counts.
        untied: what was asked for by `untie`.
        frozen_statistics: names of the statistics that `train()` leaves as they are.
        interpreter: what runs the plan; replace it to profile or trace.
        template: the bytes of the source without its weights, for `save_onnx`.

    Raises:
        InvalidModelError: the file is no valid model.
        UnsafeModelError: it points outside its folder, asks for more than `limits`, or for an
            operator that is not in `allowed_ops`.
        UnsupportedOpError: operators are missing; all are listed, before any weight is read.
    """

    def __init__(
        self,
        source: reading.Source,
        *,
        outputs: Sequence[str] | None = None,
        trainable: Trainable = "weights",
        untie: Untie = True,
        kernels: Mapping[str, Callable[..., Any]] | None = None,
        fuse: bool = True,
        limits: Limits = Limits(),
        allowed_ops: Collection[str] | None = None,
        data_root: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.fuse = fuse
        self.limits = limits
        self._kernels = {name: kernel_of(name, f) for name, f in (kernels or {}).items()}
        proto, reader, content = reading.read(
            source, limits, data_root, kernels=self._kernels, allowed_ops=allowed_ops
        )
        model = build(proto, self._kernels, limits)
        self.untied = resolve_untie(untie, model)
        model = untie_weights(model, untie)
        graph = model.graph.pruned(model.infos(outputs))
        _refuse_missing(graph)
        self.opset_imports = model.opset_imports
        self.producer = model.producer
        self.interpreter = Interpreter()
        stored = {name: elem_type(held) for name, held in model.tensors.items()}
        check_types(graph, stored)
        tensors, self._literals = read_tensors(model, graph, reader)
        self._mapped = reader.mapped
        self._packed = {n: stored[n] for n in tensors if stored[n] in NARROW}
        constants = {n for n, held in model.tensors.items() if isinstance(held, Node)}
        self.weights = Weights(parameters(tensors, graph, trainable, constants))
        self.template = make_template(content, proto, model, self.weights, reader)
        self.graph = graph
        self.inputs = tuple(i for i in graph.inputs if i.name not in model.tensors)
        self.optional_inputs = tuple(i for i in graph.inputs if i.name in model.tensors)
        self._call = Arguments(self.inputs, self.optional_inputs)
        self._float = _floating_type(self.weights)
        self._hosts: dict[str, Host] = {}
        self.frozen_statistics: frozenset[str] = frozenset()
        self._replan()
        self.eval()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs a call must give, in graph order."""
        return tuple(i.name for i in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what a call gives, in order."""
        return tuple(o.name for o in self.graph.outputs)

    def _run(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The forward pass, which `forward` is."""
        if self._mapped and not torch.compiler.is_compiling():
            self._mapped.check()
        given = self._call.gather(args, keywords, self._floating)
        overridden = frozenset(given).difference(self.input_names)
        planned = self._plan(overridden)
        sizes = sizes_of(self._call.infos, given) if planned.plan.sized else None
        known = planned.by_sizes.get(sizes) if sizes else None
        current = known or planned
        values: dict[str, Any] = {"": None, **current.plan.constants}
        for name, holder, attribute in current.reads:
            values[name] = read(holder, attribute)
        values.update(given)
        device = self._device(given)
        frame = Frame(values, device, guard_of(self.limits, given), self.limits.loop_trips)
        try:
            results = frame.watched(self.interpreter.run, current.plan)
        except NodeError as error:
            self._call.blame_sizes(given, error)
            raise
        if sizes and known is None:
            make = partial(self._make_plan, planned.training, overridden, guard=frame.guard)
            planned.specialize(sizes, values, make)
        results = tuple([r.tensor(device) if isinstance(r, Host) else r for r in results])
        if current.kept:
            results = tuple([_copy(r) if i in current.kept else r for i, r in enumerate(results)])
        return results[0] if len(results) == 1 else results

    def _device(self, given: Mapping[str, Any]) -> torch.device:
        flat = (x for v in given.values() for x in (v if isinstance(v, list) else (v,)))
        first = next((x for x in flat if isinstance(x, Tensor)), None)
        return self._weights_device() if first is None else first.device

    def _weights_device(self) -> torch.device:
        some = next(self.weights.parameters(), next(self.weights.buffers(), None))
        return torch.device("cpu") if some is None else some.device

    def refresh(self) -> None:
        """Take over constants that were changed in place.

        Integer tensors and other buffers that never train are read when the module is made, moved
        or loaded with `load_state_dict`; after changing one in place, call this. Parameters are
        always read as they are.
        """
        self._hosts = {n: h for n, h in self._hosts.items() if self.weights[n].is_meta}
        self._replan()

    def save_onnx(self, path: str | os.PathLike[str], like: reading.Source | None = None) -> None:
        """Write the weights, as they are now, back into the very same graph.

        The file is the source's, byte for byte, but for the weights that changed; these keep their
        type and their form, be it raw bytes, numbers, a Constant node or external data, which are
        written beside `path` under the name they have. `path` may be the source. Files appear whole
        or not at all.

        Args:
            path: the file to write.
            like: another file of the same graph, to be filled instead of the source.

        Raises:
            SaveError: a weight does not fit into the file, or `like` is another graph.
            UnsafeModelError: the model asks to write outside the folder of `path`.
            ChangedFileError: external data were written to while the module has them mapped.
            OSError: the disk is full, the folder is missing, ...
        """
        self._mapped.check()
        template = self.template
        if like is not None:
            template = template_of(
                like,
                self.graph,
                self._kernels,
                self.untied,
                self.weights,
                template.fixed,
                self.limits,
            )
        save(self.weights, template, path)

    def save_safetensors(self, path: str | os.PathLike[str]) -> None:
        """Write the weights, as they are now, to a `.safetensors` file, by their ONNX names.

        Args:
            path: the file to write; it appears whole or not at all.

        Raises:
            MissingExtraError: safetensors is not installed.
            SaveError: a weight is on the meta device.
            ChangedFileError: external data were written to while the module has them mapped.
            OSError: the disk is full, the folder is missing, ...
        """
        self._mapped.check()
        tensorfiles.save(self.weights, path, self.graph.name)

    def load_safetensors(
        self, path: str | os.PathLike[str], *, strict: bool = True
    ) -> tensorfiles.Unmatched:
        """Read weights from a `.safetensors` file, also of the torch model that was exported.

        They are taken over in place, so optimizers go on with them, and in the module's floating
        types. A torch model's `num_batches_tracked` is passed over.

        Args:
            path: the file.
            strict: whether each weight must be in the file, and nothing else.

        Returns:
            What of weights and file did not match; empty where `strict`.

        Raises:
            MissingExtraError: safetensors is not installed.
            InvalidModelError: names (where `strict`), shapes or types do not fit; all are listed,
                and no weight is changed.
            FileNotFoundError: the path does not exist.
        """
        unmatched = tensorfiles.load(self.weights, path, strict)
        self.refresh()
        return unmatched

    def _replan(self) -> None:
        """Derive what forward needs from graph and weights."""
        kernels = [node.kernel for node in self.graph.walk() if node.kernel]
        self._has_modes = any(k.state or "training" in k.attributes for k in kernels)
        self._setting = self._now()
        self._plans: dict[tuple[bool, frozenset[str]], BoundPlan] = {
            (training, frozenset()): self._make_plan(training, frozenset())
            for training in {False, self._has_modes}
        }
        self._floating: Floating | None = None
        if self._float is not None:  # without weights a model takes what its kernels take
            dtypes = {self._float: _floating_type(self.weights) or self._float}
            self._floating = Floating(dtypes, lambda: _floating_type(self.weights))
        self.forward = forward_of(self._run, self._call.signature())

    def _now(self) -> planner.Setting:
        """What plans depend on, as it is now: `functional_call` may put other weights in place."""
        state = roles(self.graph)[1]
        buffers = {n: t for n, t in self.weights.items() if not isinstance(t, nn.Parameter)}
        constants = {n: t for n, t in buffers.items() if n not in state}
        hosts = self._hosts
        for name, tensor in constants.items():
            if name not in hosts and (host := planner.snapshot(tensor)) is not None:
                hosts[name] = host
        now = _floating_type(self.weights)
        return planner.Setting(
            weights=frozenset(self.weights),
            constants={**constants, **self._literals},
            # the numbers of the file, in the type that the tensor has been moved to
            hosts={n: Host(hosts[n].data, t.dtype) for n, t in constants.items() if n in hosts},
            training=False,
            device=self._weights_device(),
            dtypes={self._float: now} if now is not None and self._float is not None else {},
            types={n: type_of(t) for n, t in self.weights.items()} | self._packed,
            frozen_stats=self.frozen_statistics,
            fuse=self.fuse,
        )

    def _plan(self, overridden: frozenset[str] = frozenset()) -> BoundPlan:
        """The plan for the current mode, where `overridden` initializers are given by the call."""
        mode, plans = self._mode, self._plans  # a thread may put others there meanwhile
        planned = plans.get((mode, overridden))
        if planned is None:
            planned = plans[mode, overridden] = self._make_plan(mode, overridden)
        return planned

    @property
    def _mode(self) -> bool:
        """Whether the training plan runs: never where no kernel knows the difference."""
        return self.training and self._has_modes

    def _make_plan(
        self,
        training: bool,
        overridden: frozenset[str],
        sized: Mapping[str, Host] | None = None,
        guard: Guard | None = None,
    ) -> BoundPlan:
        base = self._setting
        constants = {n: t for n, t in base.constants.items() if n not in overridden}
        setting = replace(
            base,
            weights=base.weights - overridden,
            constants=constants,
            hosts={n: h for n, h in base.hosts.items() if n in constants},
            training=training,
            sized=sized or {},
            guard=guard or Guard.of_plan(self.limits),
        )
        # a call inside grad, vmap or a trace may want a plan: what it folds is for other calls, too
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            temporarily_clear_interpreter_stack(),
            _untraced(),
        ):
            plan = planner.plan(self.graph, setting)
        wanted = {*plan.captures, *plan.inputs}
        reads = [(n, *self.weights.holder(n)) for n in self.weights if n in wanted]
        return BoundPlan(plan, reads, training)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OnnxModule:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # untyped in torch
        self._replan()
        return self

    def load_state_dict(self, *args: Any, **keywords: Any) -> Any:
        """As `nn.Module.load_state_dict`; constants are taken over too."""
        result = super().load_state_dict(*args, **keywords)
        self.refresh()
        return result

    def state_dict(self, *args: Any, **keywords: Any) -> Any:
        """As `nn.Module.state_dict`; external data that were changed underneath are an error."""
        self._mapped.check()
        return super().state_dict(*args, **keywords)

    def __getstate__(self) -> dict[str, Any]:
        self._mapped.check()
        derived = ("forward", "_floating", "_plans", "_setting", "_has_modes")
        return {k: v for k, v in self.__dict__.items() if k not in derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # untyped in torch
        self._replan()

    def __repr__(self) -> str:
        opsets = ", ".join(f"{d or 'ai.onnx'} {v}" for d, v in self.opset_imports.items())
        count = sum(p.numel() for p in self.parameters() if p.requires_grad)
        total = sum(t.numel() for t in self.weights.values())
        lines = (
            f"{type(self).__name__}({self.graph.name!r}: {len(self.graph.nodes)} nodes, {opsets}",
            f"  inputs:  {'; '.join(map(str, self.inputs))}",
            f"  outputs: {'; '.join(map(str, self.graph.outputs))}",
            f"  weights: {len(self.weights)} tensors, {total:,} elements, {count:,} trainable",
            ")",
        )
        return "\n".join(map(plain, lines))


@contextmanager
def _untraced() -> Iterator[None]:
    """Do what is no part of the graph that `torch.jit.trace` may be recording."""
    if not is_traced():
        yield
        return
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]  # untyped in torch
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]  # as above


def _copy(result: Any) -> Any:
    """What the module keeps, for a caller who may write to it."""
    if not isinstance(result, Tensor):
        return result.copy()
    many = zip(result.shape, result.stride(), strict=True)
    if any(n > 1 and not step for n, step in many):
        return result  # one element at many places: nobody can write to it, nor hold all of them
    return result.clone()


def _refuse_missing(graph: Graph) -> None:
    missing = [node.missing() for node in graph.walk() if node.kernel is None]
    if missing:
        raise UnsupportedOpError({(m.domain, m.op_type): m for m in reversed(missing)}.values())


def _floating_type(weights: Weights) -> torch.dtype | None:
    """The type of the first floating weight: what `.double()` and `.bfloat16()` change."""
    return next((t.dtype for t in weights.values() if t.is_floating_point()), None)
