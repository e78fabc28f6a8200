"""Small decoders written by hand, in the layouts of the exporters.

Two layers of attention with four heads, two of keys, and learned positions, which show every
mistake with padding. All layouts have the same weights, so that their logits are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnx
from onnx import numpy_helper

from tests.models import parse

VOCABULARY, HIDDEN, CONTEXT, LAYERS = 40, 64, 64, 2
HEADS, KV_HEADS, HEAD = 4, 2, 16
SIZES = {
    "tokens": (VOCABULARY, HIDDEN),
    "places": (CONTEXT, HIDDEN),
    "head": (HIDDEN, VOCABULARY),
    **{f"q{i}": (HIDDEN, HEADS * HEAD) for i in range(LAYERS)},
    **{f"k{i}": (HIDDEN, KV_HEADS * HEAD) for i in range(LAYERS)},
    **{f"v{i}": (HIDDEN, KV_HEADS * HEAD) for i in range(LAYERS)},
    **{f"o{i}": (HEADS * HEAD, HIDDEN) for i in range(LAYERS)},
    **{f"m{i}": (HIDDEN, HIDDEN) for i in range(LAYERS)},
}
BUILDER = {
    f"past_{kind}_{i}": f"past_key_values.{i}.{kind}"
    for i in range(LAYERS)
    for kind in ("key", "value")
} | {
    f"present_{kind}_{i}": f"present.{i}.{kind}" for i in range(LAYERS) for kind in ("key", "value")
}
Cache = Literal["shared", "concatenated", "none"]


def decoder(
    cache: Cache = "concatenated",
    *,
    mask: bool = True,
    positions: bool = True,
    hidden: str = "-1e9",
    names: Mapping[str, str] = BUILDER,
    width: int | str = "s",
    head: int | str = HEAD,
    gqa: str = "",
) -> onnx.ModelProto:
    """A decoder.

    Args:
        cache: as in `generation.layout`.
        mask: whether it has the input attention_mask.
        positions: whether it has the input position_ids; if not, it counts from the past on.
        hidden: the score of what a row must not see.
        names: of the inputs and outputs of the cache, by `past_key_0` and so on.
        width: what the file declares as the length of input_ids.
        head: what it declares as the size of a head.
        gqa: further attributes of GroupQueryAttention; `do_rotary` brings tables of angles.
    """
    ids = [f"int64[b, {width}] input_ids"]
    ids += ["int64[b, t] attention_mask"] * mask
    ids += [f"int64[b, {width}] position_ids"] * positions
    parts = [f"{kind}_{i}" for i in range(LAYERS) for kind in ("key", "value")]
    pasts = [f"float[b, {KV_HEADS}, p, {head}] past_{part}" for part in parts]
    presents = [f"float[b, {KV_HEADS}, t, {head}] present_{part}" for part in parts]
    cached = cache != "none"
    inputs = ", ".join(ids + pasts * cached)
    outputs = ", ".join([f"float[b, {width}, {VOCABULARY}] logits"] + presents * cached)
    layers = _shared(gqa) if cache == "shared" else _concatenated(cached)
    body = _start(cached, mask, positions, hidden, cache == "shared") + layers
    model = parse(
        f"""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        decoder ({inputs}) => ({outputs}) {{ {body}
            logits = MatMul(x{LAYERS}, head)
        }}"""
    )
    rng = np.random.default_rng(0)
    for name, shape in SIZES.items():
        weight = rng.standard_normal(shape).astype(np.float32) / shape[0] ** 0.5
        weight = weight * 8 if name in ("tokens", "places") else weight
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    if "do_rotary" in gqa:
        angles = np.outer(np.arange(CONTEXT), 0.5 ** np.arange(HEAD // 2))
        for name, table in (("cosines", np.cos(angles)), ("sines", np.sin(angles))):
            model.graph.initializer.append(numpy_helper.from_array(table.astype(np.float32), name))
    return renamed(model, names)


def _start(cached: bool, mask: bool, positions: bool, hidden: str, shared: bool) -> str:
    """Embeddings, and what rows see."""
    text = """
        from = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        no_past = Constant <value_ints = [0]> ()
        axis1 = Constant <value_ints = [1]> ()
        shape = Shape(input_ids)
        length = Gather(shape, one)"""
    past = "Shape <start = 2, end = 3> (past_key_0)" if cached else "Identity(no_past)"
    text += f"""
        past_length = {past}
        start = Squeeze(past_length)
        total = Add(start, length)
        rows = Range(start, total, one)"""
    places = "position_ids" if positions else "rows"
    text += f"""
        embedded = Gather(tokens, input_ids)
        placed = Gather(places, {places})
        x0 = Add(embedded, placed)"""
    if shared:
        return text + _lengths()
    allowed = """
        columns = Range(from, total, one)
        below = Unsqueeze(rows, axis1)
        causal = LessOrEqual(columns, below)"""
    if mask:
        allowed += """
        axes12 = Constant <value_ints = [1, 2]> ()
        present_mask = Cast <to = 9> (attention_mask)
        wide = Unsqueeze(present_mask, axes12)
        allowed = And(causal, wide)"""
    else:
        allowed += " allowed = Identity(causal)"
    value = "float {-inf}" if hidden == "-inf" else f"float {{{hidden}}}"
    return (
        text
        + allowed
        + f"""
        zero = Constant <value_float = 0.0> ()
        hidden = Constant <value = {value}> ()
        bias = Where(allowed, zero, hidden)"""
    )


def _lengths() -> str:
    """What GroupQueryAttention gets of the mask, as the builder writes it."""
    return """
        sums = ReduceSum <keepdims = 0> (attention_mask, axis1)
        ends = Sub(sums, one)
        lengths = Cast <to = 6> (ends)
        mask_shape = Shape(attention_mask)
        mask_width = Gather(mask_shape, one)
        total_length = Cast <to = 6> (mask_width)"""


def _shared(gqa: str) -> str:
    tables = ", cosines, sines" if "do_rotary" in gqa else ""
    return "".join(
        f"""
        query{i} = MatMul(x{i}, q{i})
        key{i} = MatMul(x{i}, k{i})
        value{i} = MatMul(x{i}, v{i})
        y{i}, present_key_{i}, present_value_{i} = com.microsoft.GroupQueryAttention
            <num_heads = {HEADS}, kv_num_heads = {KV_HEADS}{gqa}>
            (query{i}, key{i}, value{i}, past_key_{i}, past_value_{i},
             lengths, total_length{tables})
        {_end(i)}"""
        for i in range(LAYERS)
    )


def _concatenated(cached: bool) -> str:
    text = f"""
        split_q = Constant <value_ints = [0, 0, {HEADS}, {HEAD}]> ()
        split_kv = Constant <value_ints = [0, 0, {KV_HEADS}, {HEAD}]> ()
        repeat = Constant <value_ints = [0, 0, 1, 1]> ()
        joined = Constant <value_ints = [0, 0, {HEADS * HEAD}]> ()
        scale = Constant <value_float = 0.25> ()"""
    for i in range(LAYERS):
        for kind, letter in (("key", "k"), ("value", "v")):
            join = f"Concat <axis = 2> (past_{kind}_{i}, new_{kind}{i})"
            join = join if cached else f"Identity(new_{kind}{i})"
            text += f"""
        {kind}{i} = MatMul(x{i}, {letter}{i})
        split_{kind}{i} = Reshape({kind}{i}, split_kv)
        new_{kind}{i} = Transpose <perm = [0, 2, 1, 3]> (split_{kind}{i})
        present_{kind}_{i} = {join}
        all_{kind}{i} = Gather <axis = 1> (present_{kind}_{i}, repeat)"""
        text += f"""
        query{i} = MatMul(x{i}, q{i})
        split_query{i} = Reshape(query{i}, split_q)
        heads{i} = Transpose <perm = [0, 2, 1, 3]> (split_query{i})
        keys{i} = Transpose <perm = [0, 1, 3, 2]> (all_key{i})
        products{i} = MatMul(heads{i}, keys{i})
        scaled{i} = Mul(products{i}, scale)
        scores{i} = Add(scaled{i}, bias)
        weights{i} = Softmax <axis = -1> (scores{i})
        mixed{i} = MatMul(weights{i}, all_value{i})
        rows{i} = Transpose <perm = [0, 2, 1, 3]> (mixed{i})
        y{i} = Reshape(rows{i}, joined)
        {_end(i)}"""
    return text


def _end(i: int) -> str:
    """The rest of a layer."""
    return f"""
        attended{i} = MatMul(y{i}, o{i})
        added{i} = Add(x{i}, attended{i})
        inner{i} = MatMul(added{i}, m{i})
        active{i} = Tanh(inner{i})
        x{i + 1} = Add(added{i}, active{i})"""


def renamed(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """The model with other names of values."""
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    return model
