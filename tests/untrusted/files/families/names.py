"""Names that files may give, and what reads names may stumble over."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from tests.untrusted.files.case import Case, Must
from tests.untrusted.files.models import branch, conditional, identity, model, tensor

X = np.float32([1, 2])
W = np.float32([3, 5])
node = helper.make_node

NAMES = {
    "nul": "a\0b",
    "escape": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "bell": "\a\b\r\n\t\v\f",
    "newline": "w\nERROR: all is lost",
    "c1": "\x9b31m",
    "right-to-left": "\u202egnp.exe",
    "zero-width": "w\u200b\u200d\ufeff",
    "combining": "w" + "\u0301" * 200,
    "emoji": "\U0001f4a3",
    "noncharacter": "\ufffe\uffff",
    "private": "\ue000\U0010ffff",
    "space": " ",
    "spaces": "  w  ",
    "dot": ".",
    "dots": "..",
    "three-dots": "a...b",
    "ends-in-dot": "w.",
    "starts-with-dot": ".w",
    "up": "../../w",
    "slashes": "/etc/passwd",
    "backslash": "\\\\server\\w",
    "colon": "a:b:0",
    "format": "{0.__class__.__init__.__globals__}",
    "format-open": "{",
    "percent": "%s%n%d%(name)s",
    "f-string": "{__import__('os').getpid()}",
    "dollar": "$HOME $(id) `id`",
    "quote": "'\"'''\"\"\"",
    "code": "__import__('os').abort()",
    "semicolon": "x; import os; os.abort()",
    "sql": "'; DROP TABLE weights; --",
    "html": "<script>alert(1)</script>",
    "class": "__class__",
    "dict": "__dict__",
    "init": "__init__",
    "reduce": "__reduce__",
    "getattr": "__getattr__",
    "call": "__call__",
    "slots": "__slots__.__doc__",
    "forward": "forward",
    "training": "training",
    "weights": "weights",
    "self": "self",
    "args": "args",
    "keywords": "keywords",
    "parameters": "_parameters",
    "buffers": "_buffers",
    "modules": "_modules",
    "hooks": "_forward_hooks",
    "state_dict": "state_dict",
    "load_state_dict": "load_state_dict",
    "train": "train",
    "eval": "eval",
    "to": "to",
    "keys": "keys",
    "pop": "pop",
    "graph": "graph",
    "interpreter": "interpreter",
    "nested-forward": "layer.forward.weight",
    "nested-class": "a.__class__.b",
    "keyword": "lambda",
    "none": "None",
    "number": "123",
    "minus": "-rf",
    "host": "w\0host",
    "list": "w\0list",
    "unused": "unused",
    "numbered": "x.1",
    "underscore": "_",
    "dunder": "__",
    "long": "n" * 1_000_000,
    "long-dotted": "a." * 5_000 + "b",
    "long-escape": "\x1b" * 100_000,
}

Put = Callable[[str], ModelProto]


def _weight(name: str) -> ModelProto:
    info = helper.make_tensor_value_info("in", 1, [2])
    return model([node("Add", ["in", name], ["out"])], [info], ["out"], [tensor(W, name)])


def _input(name: str) -> ModelProto:
    info = helper.make_tensor_value_info(name, 1, [2])
    return model([node("Add", [name, "held"], ["out"])], [info], ["out"], [tensor(W, "held")])


def _output(name: str) -> ModelProto:
    info = helper.make_tensor_value_info("in", 1, [2])
    return model([node("Add", ["in", "held"], [name])], [info], [name], [tensor(W, "held")])


def _everywhere(name: str) -> ModelProto:
    """As the name of all that has a name of its own, of no meaning."""
    built = _weight("held")
    built.graph.name = built.graph.node[0].name = built.producer_name = name
    built.producer_version = built.domain = built.graph.doc_string = built.doc_string = name
    built.graph.node[0].doc_string = built.graph.initializer[0].doc_string = name
    helper.set_model_props(built, {name: name})
    built.graph.node[0].metadata_props.add(
        key="pkg.torch.onnx.name_scopes", value=f"['{name}', '']"
    )
    built.graph.input[0].type.tensor_type.shape.dim[0].dim_param = name
    built.graph.input[0].type.denotation = name
    return built


def _inner(name: str) -> ModelProto:
    """In a branch."""
    arm = branch([node("Add", ["in", "held"], [name]), identity(name, "o")], "o")
    info = helper.make_tensor_value_info("in", 1, [2])
    built = model(conditional(arm), [info], ["y"], [tensor(W, "held")])
    built.graph.node[0].output[0] = built.graph.node[1].input[0] = "choose"
    return built


def _function(name: str) -> ModelProto:
    """As a function's name, domain and inner names."""
    body = [node("Add", [name, "held"], ["o"])]
    constant = node("Constant", [], ["held"], value=tensor(W))
    opsets = [helper.make_opsetid("", 21)]
    made = helper.make_function(name, name, [name], ["o"], [constant, *body], opsets)
    call = node(name, ["in"], ["out"], domain=name)
    info = helper.make_tensor_value_info("in", 1, [2])
    return model([call], [info], ["out"], functions=[made], imports=[(name, 1)])


def _operator(name: str) -> ModelProto:
    info = helper.make_tensor_value_info("in", 1, [2])
    return model([node(name, ["in"], ["out"])], [info], ["out"])


def _domain(name: str) -> ModelProto:
    info = helper.make_tensor_value_info("in", 1, [2])
    return model([node("Neg", ["in"], ["out"], domain=name)], [info], ["out"], imports=[(name, 1)])


def _failing(name: str) -> ModelProto:
    """A node that must fail, with the name in all that its error may show."""
    info = helper.make_tensor_value_info("in", 1, [2])
    held = tensor(np.float32([1, 2, 3]), f"{name} held")
    made = node("Add", ["in", f"{name} held"], [f"{name} made"], name=f"{name} node")
    return model([made], [info], [f"{name} made"], [held])


def _attribute(name: str) -> ModelProto:
    info = helper.make_tensor_value_info("in", 1, [2])
    return model([node("Neg", ["in"], ["out"], **{name: 1})], [info], ["out"])


def _text(name: str) -> ModelProto:
    """As the text of an attribute that takes any text, or none of this kind."""
    info = helper.make_tensor_value_info("in", 1, [2])
    return model(
        [node("Pad", ["in", "p"], ["out"], mode=name)],
        [info],
        ["out"],
        [tensor(np.array([0, 0]), "p")],
    )


PLACES: dict[str, tuple[Put, Must, str]] = {
    "weight": (_weight, "right", "in"),
    "input": (_input, "right", ""),
    "output": (_output, "right", "in"),
    "everywhere": (_everywhere, "right", "in"),
    "inner": (_inner, "right", "in"),
    "function": (_function, "right", "in"),
    "operator": (_operator, "refused", "in"),
    "domain": (_domain, "refused", "in"),
    "failing": (_failing, "refused", "in"),
    "attribute": (_attribute, "refused", "in"),
    "text": (_text, "refused", "in"),
}
MUST_BE_TRIED = ("escape", "nul", "format", "long", "class", "code", "forward", "host")


def cases() -> Iterator[Case]:
    for index, (label, name) in enumerate(NAMES.items()):
        for place, (put, must, given) in PLACES.items():
            turn = sum(place.encode()) + index
            if label not in MUST_BE_TRIED and turn % 4 and place not in ("weight", "failing"):
                continue
            content = put(name).SerializeToString()
            feeds = {given or name: X}
            expected = (X + W,) if must == "right" else None
            yield Case(f"names/{label}/{place}", content, must, feeds, expected)
    yield from _twins()


def _twins() -> Iterator[Case]:
    """Names that something may take for one another."""
    nfc, nfd = "\u00e9", unicodedata.normalize("NFD", "\u00e9")
    pairs: dict[str, tuple[str, str]] = {
        "normalised": (nfc, nfd),
        "compatible": ("ﬁ", "fi"),
        "capitals": ("w", "W"),
        "dot-and-underscore": ("a.b", "a_b"),
        "dot-within": ("a", "a.b"),
        "dot-within-back": ("a.b", "a"),
        "dots-within": ("a.b.c", "a.b"),
        "space": ("w", "w "),
        "nul": ("w", "w\0"),
        "nul-tail": ("w\0a", "w\0b"),
        "numbered": ("w", "w.1"),
        "slash": ("a/b", "a.b"),
        "looks-alike": ("a", "\u0430"),
        "width": ("w", "\uff57"),
        "empty-part": ("a..b", "a.b"),
        "escaped": ("forward", "forward_"),
        "escaped-back": ("training", "_training"),
        "long": ("n" * 70_000 + "1", "n" * 70_000 + "2"),
    }
    both = X * W - W
    for name, (first, second) in pairs.items():
        info = helper.make_tensor_value_info("in", 1, [2])
        nodes = [node("Mul", ["in", first], ["t"]), node("Sub", ["t", second], ["out"])]
        held = [tensor(W, first), tensor(W, second)]
        content = model(nodes, [info], ["out"], held).SerializeToString()
        yield Case(f"names/twins-{name}/weights", content, "right", {"in": X}, (both,))
        infos = [helper.make_tensor_value_info(n, 1, [2]) for n in (first, second)]
        nodes = [node("Mul", [first, "held"], ["t"]), node("Sub", ["t", second], ["out"])]
        content = model(nodes, infos, ["out"], [tensor(W, "held")]).SerializeToString()
        feeds: dict[str, Any] = {first: X, second: W}
        yield Case(f"names/twins-{name}/inputs", content, "right", feeds, (both,))
