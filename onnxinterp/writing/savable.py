"""Writing a module's weights to files, and reading them: the part of `OnnxModule` for that."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import nn

from onnxinterp.format.mapped_files import MappedFiles
from onnxinterp.graph.ir import Graph
from onnxinterp.limits import Limits
from onnxinterp.reading.source import Source
from onnxinterp.registry import Kernel
from onnxinterp.weights import Weights
from onnxinterp.writing import safetensors
from onnxinterp.writing.save import save
from onnxinterp.writing.template import Template, template_of


class Savable(nn.Module):
    """Files of weights: ONNX, by filling the source, and safetensors."""

    weights: Weights
    template: Template
    onnx_graph: Graph
    limits: Limits
    untied: bool | list[str]
    _file_graph: Graph
    _mapped: MappedFiles
    _kernels: Mapping[str, Kernel]

    def check_can_save(self) -> None:
        """Raise where the file cannot hold all that the module computes with."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Take over constants that were changed in place."""
        raise NotImplementedError

    def save_onnx(self, path: str | os.PathLike[str], like: Source | None = None) -> None:
        """Write the current weights back to ONNX, into the original graph.

        The file equals the source byte for byte, except for weights that changed. These keep their
        type and encoding: raw bytes, numbers, a Constant node, or external data, which are written
        beside `path` under their name. `path` may be the source. Writes are atomic.

        Args:
            path: the file to write.
            like: another file of the same graph, to be filled instead of the source.

        Raises:
            SaveError: a weight does not fit into the file, or `like` is another graph.
            UnsafeModelError: the model asks to write outside the folder of `path`.
            ChangedFileError: external data were written to while the module has them mapped.
            OSError: the disk is full, the folder is missing, ...
        """
        self.check_can_save()
        template = self.template
        if like is not None:
            template = template_of(
                like,
                self._file_graph,
                self._kernels,
                self.untied,
                self.weights.as_stored,
                template.fixed,
                self.limits,
            )
        save(self.weights.as_stored, template, path)

    def save_safetensors(self, path: str | os.PathLike[str]) -> None:
        """Write the current weights to a `.safetensors` file, by their ONNX names.

        Args:
            path: the file to write, atomically.

        Raises:
            MissingExtraError: safetensors is not installed.
            SaveError: a weight is on the meta device.
            ChangedFileError: external data were written to while the module has them mapped.
            OSError: the disk is full, the folder is missing, ...
        """
        self._mapped.check()
        safetensors.save(self.weights, path, self.onnx_graph.name)

    def load_safetensors(
        self, path: str | os.PathLike[str], *, strict: bool = True
    ) -> safetensors.Unmatched:
        """Read weights from a `.safetensors` file, also of the torch model that was exported.

        Parameters are changed in place, so optimizers stay valid, and keep the module's dtypes. A
        torch model's `num_batches_tracked` is ignored.

        Args:
            path: the file.
            strict: whether each weight must be in the file, and nothing else.

        Returns:
            The names that are in one of both only; empty if `strict`.

        Raises:
            MissingExtraError: safetensors is not installed.
            InvalidModelError: names (where `strict`), shapes or types do not fit; all are listed,
                and no weight is changed.
            FileNotFoundError: the path does not exist.
        """
        unmatched = safetensors.load(self.weights, path, strict)
        self.refresh()
        return unmatched
