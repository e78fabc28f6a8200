"""Weights that an exporter merged are written apart where they differ, and nowhere else."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from onnxinterp import OnnxModule, SaveError, checkpoints
from tests.saving.models import HEADER, LARGE, mean_square_error, parse, run, saved, tune
from tests.training.merged import IDS, Normalized, Twins, dynamo, torchscript

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
SCOPES = "pkg.torch.onnx.name_scopes"


def dotted(text: str) -> onnx.ModelProto:
    """ONNX's text has no dots in names: here a_weight means a.weight."""
    data = parse(f"{HEADER} g {text}").SerializeToString()
    return onnx.load_from_string(data.replace(b"_weight", b".weight"))


def identities(count: int = 3) -> onnx.ModelProto:
    """As the older exporter merges: b.weight is an Identity of a.weight, with a declared type."""
    model = dotted(f"""(float[{count}] x) => (float[{count}] y) {{
      b_weight = Identity(a_weight)
      s = Mul(x, a_weight) t = Sin(s) y = Mul(t, b_weight) }}""")
    declared = helper.make_tensor_value_info("b.weight", TensorProto.FLOAT, [count])
    model.graph.value_info.append(declared)
    return _with_weights(model, "a.weight", count)


def scopes(count: int = 3) -> onnx.ModelProto:
    """As the newer one does: two nodes of different torch modules read a.weight."""
    model = dotted(f"""(float[{count}] x) => (float[{count}] y) {{
      s = Mul(x, a_weight) t = Sin(s) y = Mul(t, a_weight) }}""")
    for node, scope in ((0, "a"), (2, "b")):
        model.graph.node[node].metadata_props.add(key=SCOPES, value=f"['', '{scope}', 'mul']")
    return _with_weights(model, "a.weight", count)


def branches(count: int = 3) -> onnx.ModelProto:
    """The same readers, in branches: one of the outer tensor, two of one of its own."""
    size = f"float[{count}]"
    model = dotted(f"""(bool c, {size} x) => ({size} y) {{
      s = Mul(x, a_weight)
      y = If(c) <
        then_branch = yes () => ({size} p) {{ p = Mul(s, a_weight) }},
        else_branch = no () => ({size} q) {{ k = Mul(s, c_weight) q = Mul(k, c_weight) }} > }}""")
    yes, no = (a.g for a in model.graph.node[1].attribute)
    readers = {"a": model.graph.node[0], "b": yes.node[0], "c": no.node[0], "d": no.node[1]}
    for scope, node in readers.items():
        node.metadata_props.add(key=SCOPES, value=f"['', '{scope}', 'mul']")
    no.initializer.append(_ones("c.weight", count))
    return _with_weights(model, "a.weight", count)


def _ones(name: str, count: int) -> TensorProto:
    return numpy_helper.from_array(np.ones(count, np.float32), name)


def _with_weights(model: onnx.ModelProto, name: str, count: int) -> onnx.ModelProto:
    model.graph.initializer.extend([_ones(name, count), _ones("unused", count)])
    return model


def fill(module: OnnxModule, **values: float) -> None:
    with torch.no_grad():
        for name, value in values.items():
            module.weights[f"{name}.weight"].fill_(value)


def expected(model: onnx.ModelProto, apart: Iterable[str], module: OnnxModule) -> bytes:
    """The bytes where these are written apart: built by hand, with onnx's own classes."""
    want = onnx.ModelProto.FromString(model.SerializeToString())
    at = [t.name for t in want.graph.initializer].index("a.weight") + 1
    for name in reversed(list(apart)):
        array = module.weights[name].detach().numpy()
        want.graph.initializer.insert(at, numpy_helper.from_array(array, name))
        for node in [n for n in want.graph.node if name in n.output]:
            want.graph.node.remove(node)
        for node in want.graph.node:
            if any(f"'{name.removesuffix('.weight')}'" in p.value for p in node.metadata_props):
                node.input[1] = name
    return want.SerializeToString()


def judge(module: OnnxModule, path: Path, *inputs: torch.Tensor) -> bytes:
    """Runs alike in onnxruntime; read again it is the same module; saved again the same file."""
    data = saved(module, path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert mean_square_error(module(*inputs), run(path, *inputs)) < 1e-10
    again = OnnxModule(path)
    assert set(again.weights) == set(module.weights)
    for name, weight in module.weights.items():
        assert torch.equal(again.weights[name], weight), name
    assert saved(again, path) == data, "a fixed point"
    assert saved(module, path) == data
    return data


by_form = pytest.mark.parametrize("make", [identities, scopes])
Make = Callable[[int], onnx.ModelProto]


@by_form
@pytest.mark.parametrize("count", [3, LARGE])
def test_only_what_differs_is_written_apart(make: Make, count: int, tmp_path: Path) -> None:
    model, path, x = make(count), tmp_path / "m.onnx", torch.randn(count)
    module = OnnxModule(model)
    assert list(module.weights) == ["a.weight", "b.weight"]
    assert judge(module, path, x) == model.SerializeToString()
    fill(module, a=2, b=2)
    same = saved(module, path)
    assert len(onnx.load_from_string(same).graph.initializer) == 2, "changed, but equal"
    fill(module, a=1)
    assert judge(module, path, x) == expected(model, ["b.weight"], module)
    fill(module, a=3, b=1)
    data = judge(module, path, x)
    want = onnx.load_from_string(expected(model, ["b.weight"], module)).graph
    got = onnx.load_from_string(data).graph
    assert (got.node, got.initializer[1]) == (want.node, want.initializer[1])


@by_form
def test_equal_in_the_type_of_the_file_is_equal(make: Make, tmp_path: Path) -> None:
    model = make(3)
    module = OnnxModule(model).double()
    fill(module, b=1 + 1e-12)
    assert saved(module, tmp_path / "m.onnx") == model.SerializeToString()
    fill(module, b=float(np.nextafter(np.float32(1), np.float32(2))))
    assert saved(module, tmp_path / "m.onnx") != model.SerializeToString()


@cache
def exported(network: type[nn.Module], write: Callable[..., onnx.ModelProto]) -> bytes:
    torch.manual_seed(0)
    return write(network(), IDS if network is Twins else X).SerializeToString()


by_exporter = pytest.mark.parametrize("write", [torchscript, dynamo])


@by_exporter
def test_exports(write: Callable[..., onnx.ModelProto], tmp_path: Path) -> None:
    """One of the merged layers stays as it was: it stays merged."""
    data, path = exported(Twins, write), tmp_path / "m.onnx"
    module = OnnxModule(data)
    assert judge(module, path, IDS) == data
    module.freeze(["layers.0.*", "again.*"])
    tune(module)
    module.refresh()
    judge(module, path, IDS)
    names = {t.name for t in onnx.load(path).graph.initializer}
    before = {t.name for t in onnx.load_from_string(data).graph.initializer}
    assert names - before == {"layers.1.weight", "layers.1.bias"}
    module.unfreeze()
    tune(module)
    module.refresh()
    judge(module, path, IDS)


@by_exporter
@pytest.mark.parametrize("frozen", [False, True])
def test_a_fresh_normalization_that_trained(
    write: Callable[..., onnx.ModelProto], frozen: bool, tmp_path: Path
) -> None:
    """Its mean and bias were one tensor of zeros, variance and weight one of ones."""
    data, path = exported(Normalized, write), tmp_path / "m.onnx"
    assert len(onnx.load_from_string(data).graph.initializer) == 2
    module = OnnxModule(data).train()
    if frozen:
        module.freeze_statistics("first.*")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        (module(X) - X.flip(1)).square().mean().backward()
        optimizer.step()
    module.eval()
    judge(module, path, X)
    names = ("weight", "bias", "running_mean", "running_var")
    written = {t.name for t in onnx.load(path).graph.initializer}
    assert written == {f"{layer}.{name}" for layer in ("first", "second") for name in names}
    assert frozen == (module.weights["first.running_mean"] == 0).all()


def test_subgraphs(tmp_path: Path) -> None:
    model, path = branches(), tmp_path / "m.onnx"
    x, yes, no = torch.randn(3), torch.tensor(True), torch.tensor(False)
    module = OnnxModule(model)
    assert set(module.weights) == {"a.weight", "b.weight", "c.weight", "d.weight"}
    assert judge(module, path, yes, x) == model.SerializeToString()
    fill(module, a=2, b=3, c=4, d=5)
    judge(module, path, yes, x)
    judge(module, path, no, x)
    graph = onnx.load(path).graph
    assert [t.name for t in graph.initializer] == ["a.weight", "b.weight", "unused"]
    inner = graph.node[1].attribute[1].g
    assert [t.name for t in inner.initializer] == ["c.weight", "d.weight"]


def test_a_branch_reads_what_an_identity_gave(tmp_path: Path) -> None:
    model = parse(f"""{HEADER} g (bool c, float[3] x) => (float[3] y) <float[3] w = {{1, 2, 3}}> {{
      v = Identity(w) s = Mul(x, w)
      y = If(c) <then_branch = yes () => (float[3] p) {{ p = Mul(s, v) }},
                 else_branch = no () => (float[3] q) {{ q = Add(s, w) }} > }}""")
    module = OnnxModule(model)
    tune(module)
    for c in (True, False):
        judge(module, tmp_path / "m.onnx", torch.tensor(c), torch.randn(3))
    assert "Identity" not in {n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node}


IDENTITIES = {
    "one alone would show nothing": "u = Identity(w) v = Identity(w) s = Mul(x, u) y = Add(s, v)",
    "of an Identity": "u = Identity(w) v = Identity(u) r = Mul(x, w) s = Mul(r, u) y = Add(s, v)",
    "an output": "y = Identity(w) s = Mul(x, w) v = Neg(s) u = Add(v, w)",
}


@pytest.mark.parametrize("case", IDENTITIES)
def test_identities_of_every_kind(case: str, tmp_path: Path) -> None:
    text = f"""{HEADER} g (float[3] x) => (float[3] y, float[3] u) <float[3] w = {{1, 2, 3}}>
        {{ {IDENTITIES[case]} }}"""
    for changed in OnnxModule(parse(text)).weights:
        module, x = OnnxModule(parse(text)), torch.randn(3)
        assert len(module.weights) > 1
        assert judge(module, tmp_path / "m.onnx", x) == parse(text).SerializeToString()
        with torch.no_grad():
            module.weights[changed].zero_()
        module.refresh()
        judge(module, tmp_path / "m.onnx", x)


def test_a_graph_in_two_pieces_and_nodes_in_any_order(tmp_path: Path) -> None:
    one, two, x = scopes(LARGE), onnx.ModelProto(), torch.randn(LARGE)
    two.graph.node.append(one.graph.node.pop(0))
    module = OnnxModule(one.SerializeToString() + two.SerializeToString())
    tune(module)
    saved(module, tmp_path / "m.onnx")
    again = OnnxModule(tmp_path / "m.onnx")
    assert set(again.weights) == {"a.weight", "b.weight"}
    assert torch.equal(again(x), module(x))


def test_what_was_asked_for_by_name(tmp_path: Path) -> None:
    """The file does not tell these: as soon as one differs, each has a tensor."""
    text = f"""{HEADER} g (float[3] x) => (float[3] y) <float[3] w = {{1, 2, 3}}>
      {{ a = Mul(x, w) b = Sin(a) c = Add(b, w) y = Mul(c, w) }}"""
    module = OnnxModule(parse(text), untie="w")
    assert set(module.weights) == {"w", "w.1", "w.2"}
    assert saved(module, tmp_path / "m.onnx") == parse(text).SerializeToString()
    with torch.no_grad():
        module.weights["w.2"].zero_()
    judge(module, tmp_path / "m.onnx", torch.randn(3))


def test_two_origins_do_not_meet_under_one_name(tmp_path: Path) -> None:
    model = dotted("""(float[3] x) => (float[3] y) {
      r = Mul(x, a_weight) s = Mul(r, b_weight) t = Mul(s, a_weight) y = Mul(t, b_weight) }""")
    for node, scope in zip(model.graph.node, "abcc", strict=True):
        node.metadata_props.add(key=SCOPES, value=f"['', '{scope}', 'mul']")
    for number, name in enumerate(("a.weight", "b.weight")):
        array = np.full(3, number + 2, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    module, x = OnnxModule(model), torch.randn(3)
    torch.testing.assert_close(module(x), 36 * x)
    assert len(module.weights) == 4
    tune(module)
    judge(module, tmp_path / "m.onnx", x)


def test_a_weight_read_in_a_function_is_refused(tmp_path: Path) -> None:
    model = parse("""<ir_version: 8, opset_import: ["": 17, "mine": 1]>
    g (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> {
      s = mine.F(x, w)
      y = Mul(s, w)
    }
    <domain: "mine", opset_import: ["": 17]>
    F (x, w) => (y) { v = Identity(w) y = Mul(x, v) }""")
    module = OnnxModule(model)
    assert set(module.weights) == {"w", "v"}
    assert saved(module, tmp_path / "m.onnx") == model.SerializeToString()
    tune(module)
    with pytest.raises(SaveError, match=r"'v' and 'w' differ.*read in a function.*untie=False"):
        module.save_onnx(tmp_path / "m.onnx")
    tied = OnnxModule(model, untie=False)
    tune(tied)
    saved(tied, tmp_path / "m.onnx")
    x = torch.randn(3)
    assert mean_square_error(tied(x), run(tmp_path / "m.onnx", x)) < 1e-10


@by_form
@pytest.mark.parametrize("kept", ["s", "y"])
def test_pruned_modules_leave_the_rest_as_it_was(make: Make, kept: str, tmp_path: Path) -> None:
    """What is cut off is not tuned, whichever of the two holds the tensor."""
    path = tmp_path / "m.onnx"
    model = make(LARGE)
    if kept == "y":  # which here needs b alone
        model.graph.node[-1].input[0] = "x"
    module = OnnxModule(model, outputs=[kept])
    (name,) = module.weights
    assert saved(module, path) == model.SerializeToString()
    fill(module, **{name[0]: 7})
    for one in (module, pickle.loads(pickle.dumps(module)), _checkpoint(module, model, tmp_path)):
        saved(one, path)
        values = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        assert (values["a.weight"] == (7 if name == "a.weight" else 1)).all()
        assert (values["b.weight"] == (7 if name == "b.weight" else 1)).all()


def _checkpoint(module: OnnxModule, model: onnx.ModelProto, folder: Path) -> OnnxModule:
    checkpoints.save(model, folder / "m.pth", module=module)
    return checkpoints.load(folder / "m.pth")


@by_form
def test_copies_and_checkpoints(make: Make, tmp_path: Path) -> None:
    model, path = make(LARGE), tmp_path / "m.onnx"
    module = OnnxModule(model)
    fill(module, a=2, b=3)
    want = saved(module, path)
    copies: list[Any] = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        _checkpoint(module, model, tmp_path),
    ]
    for one in copies:
        assert saved(one, path) == want


@by_form
def test_another_file_of_the_graph_is_filled(make: Make, tmp_path: Path) -> None:
    """Whether there they share a tensor or not."""
    model, path = make(LARGE), tmp_path / "m.onnx"
    module = OnnxModule(model)
    fill(module, a=2, b=3)
    want = saved(module, path)
    assert saved(module, path, like=model) == want
    assert saved(module, path, like=path) == want
    fill(module, a=3)
    assert saved(module, path, like=path).count(b"a.weight") > 0
    again = OnnxModule(path)
    assert saved(again, path, like=model) == saved(module, path)
    assert all((w == 3).all() for w in again.weights.values())


@by_form
def test_external_origins(make: Make, tmp_path: Path) -> None:
    """The external file keeps its size; the tensors that come are in the model."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    source, path, x = tmp_path / "a" / "m.onnx", tmp_path / "b" / "m.onnx", torch.randn(LARGE)
    onnx.save(make(LARGE), source, save_as_external_data=True, location="w.bin", size_threshold=0)
    module = OnnxModule(source)
    fill(module, b=3)
    judge(module, path, x)
    assert (tmp_path / "a" / "w.bin").read_bytes() == (tmp_path / "b" / "w.bin").read_bytes()
    origin, own, _ = onnx.load(path, load_external_data=False).graph.initializer
    assert (own.name, own.HasField("raw_data")) == ("b.weight", True)
    assert origin.data_location == TensorProto.EXTERNAL
    pruned = OnnxModule(source, outputs=["s"])
    fill(pruned, a=7)
    saved(pruned, path)
    assert {n: w.mean().item() for n, w in OnnxModule(path).weights.items()} == {
        "a.weight": 7,
        "b.weight": 1,
    }
    (tmp_path / "a" / "w.bin").unlink()
    with pytest.raises(SaveError, match=r"'w\.bin' of the source are gone.*'b\.weight'.*like="):
        saved(pruned, path)


@by_form
def test_half_precision(make: Make, tmp_path: Path) -> None:
    model = make(3)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    module = OnnxModule(model).float()
    fill(module, b=1 / 3)
    saved(module, tmp_path / "m.onnx")
    own = onnx.load(tmp_path / "m.onnx").graph.initializer[1]
    assert own.data_type == TensorProto.FLOAT16
    assert (numpy_helper.to_array(own) == np.float16(1 / 3)).all()
