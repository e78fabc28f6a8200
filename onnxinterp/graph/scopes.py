"""The torch modules in whose calls a node was recorded, as torch's exporters note them.

    newer exporter    pkg.torch.onnx.name_scopes: ['', 'blk', 'blk.0', 'linear'], and the classes in
                      pkg.torch.onnx.class_hierarchy; a module called again has `@` and a number
                      behind its path
    older exporter    the name of the node: /blk/blk.0/MatMul. Each part is a module called inside
                      the one before it; the number of an entry of a list is written behind the name
                      of the list. A module called again has `_` and a number behind its name, if
                      no weight has that name

Both list the modules that were *called*: a Sequential, but not a ModuleList.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from onnx import NodeProto

if TYPE_CHECKING:
    from onnxinterp.graph.ir import Node

NAMES, CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"
MAX_SCOPES = 64  # modules inside each other
MAX_PATH_CHARS = 512  # characters of the path of a module
ROOT = ("",)
QUOTED = re.compile(r"'([^']*)'")
CALL = re.compile(r"(.*[^.])_(\d+)")
TORCH_NAME = re.compile(r"[\w.]+")
GENERATED = re.compile(r"(val|t|transpose|permute|numpy_t|mT)?(_?\d+)*(\.untied.*|\.\d+)*")
NUMBER = re.compile(r"\d+")
IS_PATH = re.compile(r"[\w.@]+")


def scopes_of(proto: NodeProto) -> tuple[str, ...]:
    """The paths of the modules around a node, outermost first; () where nothing is noted.

    A node of the root module is in `ROOT` alone.
    """
    noted = _quoted(proto, NAMES)[:-1]  # the last one is the operation
    paths = [path for path in noted if path and not path.startswith("_empty")]
    if not noted and proto.name.startswith("/"):
        paths = _paths(proto.name.split("/")[1:-1])
    elif not noted:
        return ()
    if len(paths) > MAX_SCOPES or not all(map(_is_path, paths)):
        return ()
    return tuple(paths) or ROOT


def classes_of(proto: NodeProto) -> dict[str, str]:
    """Path of each module around a node -> name of its class, where both are noted."""
    paths, classes = _quoted(proto, NAMES)[:-1], _quoted(proto, CLASSES)[:-1]
    if len(paths) != len(classes):
        return {}
    return {path_of(p): c.rpartition(".")[2] for p, c in zip(paths, classes, strict=True)}


def modules_of(nodes: Iterable[Node], protos: Mapping[str, NodeProto]) -> dict[str, str]:
    """Path of each module that nodes were recorded in -> name of its class, "" where unknown.

    Args:
        nodes: of a graph, in order.
        protos: first output of a node -> its message.
    """
    modules: dict[str, str] = {}
    seen: set[tuple[str, ...]] = set()
    for node in nodes:
        if node.scopes in seen:
            continue
        seen.add(node.scopes)
        proto = protos.get(node.outputs[0])
        classes = {} if proto is None else classes_of(proto)
        for path in filter(None, map(path_of, node.scopes)):
            modules.setdefault(path, classes.get(path, ""))
    return modules


def differ_in_numbers(one: str, other: str) -> bool:
    """Whether two names are different, but equal without their numbers: "layers.0", "layers.1"."""
    return one != other and NUMBER.sub("", one) == NUMBER.sub("", other)


def are_separate(scope: str, home: str) -> bool:
    """Whether two torch modules are neither the same nor one inside the other."""
    return bool(scope) and not is_within(scope, home) and not is_within(home, scope)


def is_within(inner: str, outer: str) -> bool:
    """Whether a torch module is another or is in it; copies no name."""
    return inner.startswith(outer) and inner[len(outer) : len(outer) + 1] in ("", ".")


def is_torch_name(name: str) -> bool:
    """Whether a name may be that of a parameter of a torch module; exporters write others."""
    return (
        len(name) <= MAX_PATH_CHARS
        and TORCH_NAME.fullmatch(name) is not None
        and GENERATED.fullmatch(name) is None
    )


def module_with_mode(node: Node) -> str:
    """The path of the module whose mode a node follows; "" where it is the root's, or unknown."""
    kernel = node.kernel
    if node.scopes or kernel is None:
        return node.scope
    named = zip(kernel.parameters, node.inputs, strict=False)
    state = next((name for parameter, name in named if parameter.name in kernel.state), "")
    return state.rpartition(".")[0] if len(state) <= MAX_PATH_CHARS else ""


def path_of(scope: str) -> str:
    """The path of a module, without the number of its call."""
    return scope.partition("@")[0]


def numbered_calls(scopes: Iterable[tuple[str, ...]], weights: Iterable[str]) -> dict[str, str]:
    """The older exporter's name of each second call ("a.relu_1") -> the newer one's ("a.relu@1").

    Args:
        scopes: of all nodes.
        weights: names of the weights: a module that has some is no second call.
    """
    paths = dict.fromkeys(path for around in scopes for path in around)
    if not any(map(CALL.search, paths)):
        return {}
    short = (name for name in weights if len(name) <= MAX_PATH_CHARS)
    known = {name[: dot.start()] for name in short for dot in re.finditer(r"\.", name)}
    calls: dict[str, str] = {}
    for path in paths:  # a module comes before those inside of it
        around = next((p for p in _prefixes(path) if p in calls), "")
        base, _, number = calls.get(around, "").partition("@")
        own = base + path[len(around) :]
        again = CALL.fullmatch(own)
        if again and own not in known and again[1] in known:
            own, number = again[1], "_".join(filter(None, (number, again[2])))
        known.add(own)
        if number:
            calls[path] = f"{own}@{number}"
    return calls


def _prefixes(path: str) -> Iterable[str]:
    """The paths of the modules around one, innermost first."""
    return (path[: dot.start()] for dot in reversed(list(re.finditer(r"\.", path))))


def _quoted(proto: NodeProto, key: str) -> list[str]:
    note = next((p.value for p in proto.metadata_props if p.key == key), "")
    return QUOTED.findall(note) if note else []


def _paths(parts: list[str]) -> list[str]:
    """Relative names ("blk", "blk.0", "fc") -> paths ("blk", "blk.0", "blk.0.fc")."""
    around, last, paths = list[str](), "", []
    for part in parts:
        if last and part.startswith(f"{last}."):
            around[-1] = part
        else:
            around.append(part)
        last = part
        paths.append(".".join(around))
    return paths


def _is_path(path: str) -> bool:
    return len(path) <= MAX_PATH_CHARS and IS_PATH.fullmatch(path) is not None
