"""One cell: a check of the original against its import, and against its own copy."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException

from onnxinterp import NodeError, OnnxModule, reinsert_batchnorm
from tests.citizen.checks import ROWS, Row
from tests.citizen.checks.comparing import DifferenceError
from tests.citizen.columns import Column
from tests.citizen.networks import NETWORKS, Network

MAX_REASON_CHARS = 110
FOLDED = "the exporter folded parameters into others or into constants"


@dataclass(frozen=True)
class Outcome:
    """What a check said.

    Attributes:
        reason: why it failed, in words that hold for many cells; "" where it passed.
        detail: the whole message.
        way: what had to be done first, "" for nothing.
        names: what only one of both has.
    """

    reason: str = ""
    detail: str = ""
    way: str = ""
    names: frozenset[str] = frozenset()


PASSED = Outcome()


def outcome(row: Row, network: Network, make: Callable[[], nn.Module]) -> Outcome:
    """Run a check on a new original and what `make` returns.

    Warnings of the tools are theirs: what is judged is the result.
    """
    torch.manual_seed(0)
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            row.check(network.original(), make(), network.inputs(0))
        except (Exception, CheckpointException) as error:  # the latter is a BaseException
            names = getattr(error, "names", frozenset())
            return Outcome(_reason(error), f"{type(error).__name__}: {error}", names=names)
    return PASSED


def _reason(error: BaseException) -> str:
    """The first line, without figures and without what is particular to one network."""
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, AssertionError) and text:
        return text.partition(":")[0][:MAX_REASON_CHARS]
    if isinstance(error, NodeError):
        return f"a step fails: {_general(error.__cause__ or error)}"[:MAX_REASON_CHARS].strip()
    return _general(error)[:MAX_REASON_CHARS].strip()


def _general(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0].partition(": ")[0]
    text = re.sub(r" for \w+:$", "", text)
    text = re.sub(r"0x[0-9a-f]+|['\"`][^'\"`]*['\"`]|\[[^\]]*\]", "…", text)
    text = re.sub(r"\d+", "N", text).replace("|", "/")
    return f"{type(error).__name__}: {text}"


@cache
def of_original(name: str, network_name: str) -> Outcome:
    """The check of the original against its copy: where it fails, the tool is not for it."""
    network = next(n for n in NETWORKS if n.name == network_name)
    return outcome(ROWS[name], network, lambda: copy.deepcopy(network.original()))


def applies(row: Row, network: Network) -> bool:
    """Whether a check means something for a network."""
    return row.only(network.original())


def of_import(row: Row, column: Column) -> Outcome:
    """The check of the original against its import.

    Where normalization was folded, it is inserted again in the documented way, and gets the
    weights of the original.
    """
    found = outcome(row, column.network, lambda: column.imported(**row.options))
    if not found.reason or not column.lost():
        return found
    if any(isinstance(m, nn.BatchNorm2d) for m in column.network.original().modules()):
        again = outcome(row, column.network, lambda: _with_normalization(row, column))
        if not again.reason:
            return Outcome(way="reinsert_batchnorm, then load_state_dict")
    return Outcome(FOLDED, found.detail) if _is_of(found, column) else found


def _is_of(found: Outcome, column: Column) -> bool:
    """Whether an outcome is that of parameters which the file does not hold.

    Other names must be those of the parameters, of their modules, or of what the file has instead.
    """
    own = {name for name, _ in column.network.original().named_parameters()}
    instead = {name for name, _ in column.imported().named_parameters()} - own
    modules = {name.rpartition(".")[0] for name in column.lost()} - {""}
    known = {*column.lost(), *instead, *modules}
    if found.names:
        return all(any(_fits(name, of) for of in known) for name in found.names)
    differs = found.detail.startswith((DifferenceError.__name__, AssertionError.__name__))
    return differs or any(name in found.detail for name in known)


def _fits(name: str, known: str) -> bool:
    """Whether a name is another, with a prefix more or less, or is inside of it."""
    name, known = f".{name}.", f".{known}."
    return known in name or name in known


def _with_normalization(row: Row, column: Column) -> nn.Module:
    original, inputs = column.network.original(), column.network.inputs(0)
    module = OnnxModule(reinsert_batchnorm(column.model(), *inputs), **row.options)
    module.load_state_dict(original.state_dict())
    return module
