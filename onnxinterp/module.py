"""OnnxModule: an ONNX model as one torch module."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from onnxinterp.calling import Caller
from onnxinterp.dtypes import NARROW, check_real
from onnxinterp.errors import plain
from onnxinterp.graph.adoption import Choices, adopt, rewrite, torch_names
from onnxinterp.graph.build import build
from onnxinterp.graph.ir import Model, check_kernels
from onnxinterp.graph.scopes import modules_of
from onnxinterp.graph.ties import Untie, resolve_untie, untie_weights
from onnxinterp.graph.typecheck import check_types
from onnxinterp.graph.types import infer_types, type_of
from onnxinterp.inspection import Inspectable
from onnxinterp.limits import Limits
from onnxinterp.planning.placement import device_of, floating_dtype
from onnxinterp.planning.plans import Plans
from onnxinterp.python_source import Printable
from onnxinterp.reading.source import Read, Source, read, rewritten
from onnxinterp.registry import kernel_of
from onnxinterp.runtime.binding import forward_of
from onnxinterp.runtime.inputs import Arguments, Floating
from onnxinterp.runtime.interpreter import Interpreter
from onnxinterp.runtime.plan import Plan
from onnxinterp.snapshots import Optimizable
from onnxinterp.weights import Weights
from onnxinterp.weights.constants import keep_complex
from onnxinterp.weights.loading import header, own_tensors, read_tensors
from onnxinterp.weights.trainable import SETS, Trainable, constant_names, parameters
from onnxinterp.weights.tunable import Tunable
from onnxinterp.weights.watch import Watch
from onnxinterp.writing.template import make_template


class OnnxModule(Tunable, Caller, Inspectable, Optimizable, Printable):
    """An ONNX model as a differentiable `torch.nn.Module`.

    Call it with the graph's inputs, by position, by name or both: `m(x)`, `m(**{"input.1": x})`.
    Inputs that have an initializer are optional and keyword-only. The result is a tensor if the
    graph has one output, else a tuple in graph order. A module starts in `eval()` mode, in which it
    computes what the file defines; in `train()` mode normalization uses batch statistics and
    dropout is active.

    Example:
        >>> m = OnnxModule("model.onnx")  # doctest: +SKIP
        >>> y = m(torch.randn(1, 3, 224, 224))  # doctest: +SKIP

    Args:
        source: a path, bytes, a binary file or an `onnx.ModelProto`. External data is found only
            beside a path.
        outputs: names of any values of the graph to return in place of its outputs; nodes that
            they do not need are removed.
        trainable: the weights that are trained: "weights" (all floating tensors that kernels
            compute with and that a gradient can reach, except settings: see `weights.trainable`),
            "all", "none", a name pattern (`fnmatch`) or several, or a predicate of name and tensor.
        untie: whether weights that an exporter merged because they were equal become separate
            weights (`graph.ties` describes how they are recognized). False keeps one parameter for
            each initializer; name patterns or a predicate of the name untie all uses of those.
        tie: whether large tensors of equal data, also transposed, become one parameter again: an
            exporter writes a tied weight twice where it transposes one use of it. False keeps them
            separate; names in `untie` always are.
        kernels: "domain::Op" (or "Op") -> kernel function, for this module only; it takes
            precedence over registered kernels.
        fuse: whether nodes that are one function in torch (decomposed GELU, attention, ...) run as
            one; False runs each node by itself.
        limits: limits of memory, nodes, loop trips and seconds, for loading and for each call.
        allowed_ops: the only operators ("domain::Op", or "Op" of ai.onnx) that the file may use;
            None allows all that have a kernel.
        data_root: a folder within which external data may be behind symlinks, as in the caches of
            model hubs; without it, external data must be regular files below the model's folder.
        leaves: "nn" makes each module of the tree that is one layer (linear, convolution,
            embedding, normalization) this layer of torch, an `nn.Linear` and so on with the same
            weights, for tools that look for layers (see `planning.leaves`). A call goes through all
            modules of the tree then.
        reinsert_normalization: a calibration batch, a tensor or a tuple of all inputs, to insert
            BatchNormalization again where it was folded (see `reinsert_batchnorm`).
        dtype: float16, bfloat16, float32 or float64: the module computes in this type, and expects
            inputs of it, as after `module.to(dtype)`. Saving writes the types of the file.

    Attributes:
        weights: all weights, by the names of the torch module that was exported, where the file
            shows them; otherwise by their ONNX names. Those work as keys, too.
        onnx_graph: the decoded graph.
        inputs: name, type and shape of the required inputs.
        optional_inputs: the same of the inputs that have an initializer.
        untied: the choice made by `untie`.
        tied: the choice made by `tie`.
        frozen_statistics: names of the statistics that `train()` does not change.
        interpreter: runs the plan; replace it to profile or trace.
        template: the bytes of the source without its weights, for `save_onnx`.

    Raises:
        InvalidModelError: the file is not a valid model.
        UnsafeModelError: it refers to a path outside its folder, exceeds `limits`, or uses an
            operator that is not in `allowed_ops`.
        UnsupportedOpError: operators are missing; all are listed, before any weight is read.
        ValueError: a pattern of `trainable` or `untie` matches no tensor; `dtype` is another.
    """

    def __init__(
        self,
        source: Source | Read,
        *,
        outputs: Sequence[str] | None = None,
        trainable: Trainable = "weights",
        untie: Untie = True,
        tie: bool = True,
        kernels: Mapping[str, Callable[..., Any]] | None = None,
        fuse: bool = True,
        limits: Limits = Limits(),
        allowed_ops: Collection[str] | None = None,
        data_root: str | os.PathLike[str] | None = None,
        leaves: Literal["nn"] | None = None,
        reinsert_normalization: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if leaves not in (None, "nn"):
            raise ValueError(f'leaves must be None or "nn", got {leaves!r}')
        check_real(dtype)
        self.fuse = fuse
        self.limits = limits
        self._kernels = {name: kernel_of(name, f) for name, f in (kernels or {}).items()}
        rules: Any = {"limits": limits, "data_root": data_root, "allowed_ops": allowed_ops}
        how = "reinsert_normalization"
        source = rewritten(how, source, reinsert_normalization, kernels=kernels, **rules)
        opened = read(source, kernels=self._kernels, lean=True, **rules)
        self.tied = tie
        model = self._decode(opened, outputs, untie)
        self.interpreter = Interpreter()
        self._plans = self._load(model, opened, trainable)
        opened.reader.payloads.close()
        if leaves is not None:
            self._plans.place_layers()
        self.frozen_statistics: frozenset[str] = frozenset()
        self._set_forward()
        self._set_floating()
        self.training = False
        if dtype is not None:
            self.to(dtype)
        self.eval()

    def _decode(self, opened: Read, outputs: Sequence[str] | None, untie: Untie) -> Model:
        """Decode the model, and take over what it says of itself."""
        model = build(opened.proto, self._kernels, self.limits, opened.reader.payloads)
        self.untied = resolve_untie(untie, model)
        model = untie_weights(model, self.untied)
        self._file_graph = self.onnx_graph = graph = model.graph.pruned(model.infos(outputs))
        check_kernels(graph)
        self.opset_imports = model.opset_imports
        self.producer = model.producer
        self.inputs = tuple(i for i in graph.inputs if i.name not in model.tensors)
        self.optional_inputs = tuple(i for i in graph.inputs if i.name in model.tensors)
        self._call = Arguments(self.inputs, self.optional_inputs)
        return model

    def _load(self, model: Model, opened: Read, trainable: Trainable) -> Plans:
        """Read the weights, and prepare for planning."""
        graph = self.onnx_graph
        stored = {name: header(held)[0] for name, held in model.tensors.items()}
        check_types(graph, stored)
        tensors, strings = read_tensors(model, graph, opened.reader)
        self._mapped = opened.reader.mapped
        packed = {n: stored[n] for n in tensors if stored[n] in NARROW}
        reader = opened.reader
        choices = Choices(self.tied, self.untied, reader.adopted, reader.shared)
        with self._mapped.sampled():
            adoption = adopt(model, graph, tensors, tensors.get, choices)
        self.onnx_graph = graph = rewrite(graph, adoption)
        tensors = adoption.weights(tensors, own_tensors(model, reader))
        if trainable not in SETS:
            trainable = torch_names(trainable, adoption.stored)
        known = {name: type_of(value) for name, value in (tensors | strings).items()} | packed
        types = infer_types(graph, known)
        with self._mapped.sampled():
            values = parameters(model, graph, tensors, types, trainable, adoption.tied)
        constants = constant_names(graph, values)
        modules = modules_of(graph.nodes, model.protos)
        weights = Weights(values, self, constants, adoption, modules)
        self.__dict__["weights"] = weights  # not a child: it shares the tables of the module
        self.template = make_template(
            opened.content, opened.proto, model, weights.as_stored, opened.reader
        )
        return Plans(
            graph, self.weights, strings, packed, self.limits, self.fuse, types, Watch(self)
        )

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the required inputs, in graph order."""
        return tuple(i.name for i in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(o.name for o in self.onnx_graph.outputs)

    @property
    def plan(self) -> Plan:
        """The steps that a call runs, in the current mode: `print(module.plan)`."""
        nested = self._plans.is_nested(self.training)
        return self._plans.get(self.training, nested=nested).plan

    def forward(self, *args: Any, **keywords: Any) -> Any:
        """Run the model. `inspect.signature(module.forward)` names the inputs of the graph.

        Args:
            *args: inputs, in graph order.
            **keywords: inputs by ONNX name, or by the name in the signature.

        Returns:
            The one output, or a tuple of the outputs in graph order.

        Raises:
            InputError: an input is missing, unknown, or of another rank or type than declared.
            NodeError: a kernel failed; the message names the node, its inputs and the cause.
            UnsafeModelError: the call exceeded `limits`.
            ChangedFileError: external data were written to while the module has them mapped.
        """
        results = self._run(args, keywords, self._plans)
        return results[0] if len(results) == 1 else results

    def train(self, mode: bool = True) -> OnnxModule:
        """As `nn.Module.train`; the plan of the mode is made now, so that `compile` finds it."""
        super().train(mode)
        self._set_modes(self.frozen_statistics, training=False)
        self._plans.get(mode)
        return self

    def refresh(self) -> None:
        """Read constants again that were changed in place.

        Integer tensors and other buffers that are never trained are read when the module is created
        or moved, and by `load_state_dict`. After changing one in place, call this method.
        Parameters are read at every call.
        """
        self._replan(reread=True)

    def check_can_save(self) -> None:
        """Check that the file can hold all that the module computes with.

        Raises:
            SaveError: a tool has put another module in the place of one of the file.
            ChangedFileError: external data were written to while the module has them mapped.
        """
        self._mapped.check()
        self._plans.watch.check_kept()
        self._plans.leaves.check_kept(self)

    def _replan(self, *, reread: bool = False) -> None:
        """Make the plan of the current mode anew."""
        self.weights.constants.place(device_of(self.weights))
        self._plans.reset(self.frozen_statistics, reread=reread)
        self._plans.get(self.training)
        self._set_floating()

    def _set_floating(self) -> None:
        """Note the floating types that inputs must have."""
        self._floating: Floating | None = None
        declared = self._plans.loaded_as
        if declared is not None:  # without weights, any
            dtypes = {declared: floating_dtype(self.weights) or declared}
            self._floating = Floating(dtypes, lambda: floating_dtype(self.weights))

    def _set_forward(self) -> None:
        """Give the instance a `forward` with the signature of its graph."""
        self.forward = forward_of(type(self).forward.__get__(self), self._call.signature())  # type: ignore[method-assign]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OnnxModule:
        super()._apply(keep_complex(fn), recurse)  # type: ignore[no-untyped-call]  # untyped in torch
        self.weights.constants.follow(fn)
        self._replan()
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **keywords: Any
    ) -> None:
        self.weights.take(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest, **keywords)

    def state_dict(self, *args: Any, **keywords: Any) -> Any:
        """As `nn.Module.state_dict`; raises ChangedFileError where external data were changed."""
        self._mapped.check()
        return super().state_dict(*args, **keywords)

    def __getstate__(self) -> dict[str, Any]:
        self._mapped.check()
        return {k: v for k, v in self.__dict__.items() if k not in ("forward", "_floating")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # untyped in torch
        if self.weights.root is self.weights:  # a copy has not found its module yet
            self.weights.attach(self)
            self._plans.watch.attach(self)
        self._set_forward()
        self._replan()

    def __repr__(self) -> str:
        graph = self.onnx_graph
        opsets = ", ".join(f"{d or 'ai.onnx'} {v}" for d, v in self.opset_imports.items())
        count = sum(p.numel() for p in self.parameters() if p.requires_grad)
        total = sum({id(t): t.numel() for t in self.weights.values()}.values())
        lines = (
            f"{type(self).__name__}({graph.name!r}: {len(graph.nodes)} nodes, {opsets}",
            f"  inputs:  {'; '.join(map(str, self.inputs))}",
            f"  outputs: {'; '.join(map(str, graph.outputs))}",
            f"  weights: {len(self.weights)} tensors, {total:,} elements, {count:,} trainable",
            ")",
        )
        return "\n".join(map(plain, lines))
