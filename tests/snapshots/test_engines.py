"""What is particular to an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch

from onnxinterp import OnnxModule
from onnxinterp.snapshots import EngineError
from onnxinterp.snapshots.engines import exported, integers
from onnxinterp.snapshots.engines import onnxruntime as ort
from onnxinterp.snapshots.engines.exported import export
from tests.models import parse
from tests.snapshots.conftest import QUICK
from tests.snapshots.models import FIXED, MLP, mlp, right, rows


def external(folder: Path, text: str = MLP) -> Path:
    model = parse(text)
    for tensor in model.graph.initializer:
        tensor.raw_data = onnx.numpy_helper.to_array(tensor).tobytes()
        del tensor.float_data[:]
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data_reach_the_engine(tmp_path: Path, engine: str) -> None:
    """Also after the source is gone."""
    module = OnnxModule(external(tmp_path))
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.mul_(2)  # read, and not of the file any more
    for file in tmp_path.glob("*.*"):
        file.unlink()
    fast = module.optimize(rows(2), engine=engine)
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))


def test_external_data_where_onnxruntime_takes_none_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_now = onnxruntime.SessionOptions

    class Older:
        """The settings of a session in earlier releases."""

        def __init__(self) -> None:
            self.__dict__["real"] = settings_now()

        def __getattr__(self, name: str) -> Any:
            if name == "add_external_initializers_from_files_in_memory":
                raise AttributeError(name)
            return getattr(self.real, name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self.real, name, value)

    module = OnnxModule(external(tmp_path))
    opened: list[Any] = []
    real = onnxruntime.InferenceSession

    def session(source: Any, settings: Any, **keywords: Any) -> Any:
        opened.append(source)
        return real(source, settings.real, **keywords)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Older)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    fast = module.optimize(rows(2), engine="onnxruntime")
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))
    assert not opened[0].exists()
    assert not opened[0].parent.exists()


def test_onnxruntime_uses_as_many_threads_as_torch_and_none_that_spin() -> None:
    model = exported.export(mlp())
    for threads in (1, 2):
        session = ort._open(onnxruntime, model, threads, [ort.CPU])
        settings = session.get_session_options()
        assert settings.intra_op_num_threads == threads
        assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_onnxruntime_has_the_providers_that_are_asked_for() -> None:
    x = rows(2)
    fast = mlp().optimize(x, engine="onnxruntime", providers=["CPUExecutionProvider"])
    torch.testing.assert_close(fast(x), right(mlp(), x))
    with pytest.raises(EngineError, match=r"providers must be some of .*, got 'None'"):
        mlp().optimize(x, engine="onnxruntime", providers=["None"])


BFLOAT16 = """
g (bfloat16[n] x, float[n] z) => (bfloat16[n] y, float[n] a)
{ y = Identity(x) c = Cast<to=1>(x) a = Add(c, z) }
"""


def test_onnxruntime_runs_types_that_numpy_lacks() -> None:
    module = OnnxModule(parse(BFLOAT16))
    x, z = torch.tensor([1.5, 3.0, -2.0]).bfloat16(), torch.ones(3)
    fast = module.optimize(x, z, engine="onnxruntime")
    for given in (x, x[1:], x.flip(0)[::2]):
        y, a = fast(given, z[: len(given)])
        assert y.dtype == torch.bfloat16
        assert torch.equal(y, given)
        assert torch.equal(a, given.float() + 1)
        y.fill_(0)
    assert x.tolist() == [1.5, 3.0, -2.0]


def test_files_of_the_first_ir_versions_have_all_initializers_as_inputs() -> None:
    model = parse(FIXED)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    module = OnnxModule(model, outputs=["s"])
    x = rows(2)
    fast = module.optimize(x, engine="onnxruntime")
    torch.testing.assert_close(fast(x), right(module, x))


def test_attributes_that_allow_less_exact_results_do_not_allow_them() -> None:
    """MatMulNBits with accuracy_level 4 rounds its input to 8 bits in onnxruntime."""
    text = """
    g (float[n, 16] x) => (float[n, 1] y)
    <uint8[1, 1, 8] w = {1, 35, 69, 103, 137, 171, 205, 239}, float[1, 1] s = {0.37}>
    {
        y = com.microsoft.MatMulNBits <K = 16, N = 1, block_size = 16, accuracy_level = 4> (x, w, s)
    }
    """
    module, x = OnnxModule(parse(text)), torch.randn(3, 16)
    fast = module.optimize(x, engine="onnxruntime", cache=False)
    torch.testing.assert_close(fast(x), right(module, x), rtol=1e-6, atol=1e-6)
    levels = [
        a.i for a in onnx.ModelProto.FromString(export(module).content).graph.node[0].attribute
    ]
    assert 4 not in levels


def test_nodes_that_outputs_do_not_need_are_removed() -> None:
    module = OnnxModule(
        parse(
            "g (float[n, 4] x, string[n] t) => (float[n, 4] y, string[n] u)"
            "<bool yes = {1}> { u = StringNormalizer(t) y = If(yes) <"
            "then_branch = a () => (float[n, 4] p) { p = Relu(h) },"
            "else_branch = b () => (float[n, 4] q) { q = Neg(h) }> h = Neg(x) }"
        ),  # nodes may be in any order
        outputs=["y"],
    )
    proto = onnx.ModelProto.FromString(exported.export(module).content)
    assert [node.op_type for node in proto.graph.node] == ["If", "Neg"]
    assert [info.name for info in proto.graph.input] == list(module.input_names)


def test_a_module_without_bytes_is_refused() -> None:
    module = mlp()
    module.template.wire = None  # as of a ModelProto of more than 2 GiB
    with pytest.raises(EngineError, match="a ModelProto of more than 2 GB cannot be written"):
        module.optimize(rows(2), engine="onnxruntime")
    assert module.optimize(rows(2)).engine in ("faithful", "torch")


# large integers in engines that compare them as floats

SQUARES = "g (int64[n] x) => (int64[n] y) { y = Mul(x, x) }"
NEIGHBOURS = """
g (DTYPE[n] x, DTYPE[n] z, DTYPE[n] k) => (bool[n] y)
{ a = Mul(x, k) b = Add(a, z) y = Equal(a, b) }
"""
TOKENS = """
g (int64[n] ids, int64[n] mask) => (float[n, 2] y)
<float[3, 2] table = {1, 2, 3, 4, 5, 6}, int64[1] one = {1}, int64[1] last = {-1}>
{
    e = Gather(table, ids)
    m = Sub(one, mask)
    f = Cast<to=1>(m)
    g = Unsqueeze(f, last)
    y = Add(e, g)
}
"""


def test_models_that_compute_large_integers_are_found() -> None:
    with pytest.raises(EngineError, match=r"integers beyond 2\*\*24"):
        integers.check_integers(OnnxModule(parse(SQUARES)), (torch.tensor([1, 2]),))
    for dtype in ("int32", "int64"):
        model = parse(NEIGHBOURS.replace("DTYPE", dtype))
        inputs = tuple(torch.tensor([x]).to(getattr(torch, dtype)) for x in (1, 0, 17))
        with pytest.raises(EngineError, match=r"integers beyond 2\*\*24"):
            integers.check_integers(OnnxModule(model), inputs)
    ids, mask = torch.tensor([0, 2]), torch.tensor([1, 0])
    integers.check_integers(OnnxModule(parse(TOKENS)), (ids, mask))


def test_large_integers_in_a_call_are_found() -> None:
    integers.check_inputs((torch.tensor([2**20, -(2**20)]), torch.tensor([1e30])))
    for dtype in integers.WIDE:
        integers.check_inputs((torch.zeros(0, dtype=dtype),))
        with pytest.raises(EngineError, match="must be at most 1,048,576"):
            integers.check_inputs((torch.tensor([0, 2**20 + 1]).to(dtype),))


DOUBLES = """
g (float[n] x) => (float[n] y) <double one = {1}>
{ a = Cast<to=11>(x) b = Add(a, one) y = Cast<to=1>(b) }
"""


def test_models_that_compute_doubles_are_found() -> None:
    with pytest.raises(EngineError, match="computes 'a' in double precision"):
        integers.check_no_doubles(OnnxModule(parse(DOUBLES)))
    integers.check_no_doubles(mlp())


if "openvino" in QUICK:

    @pytest.mark.parametrize("text", [SQUARES, DOUBLES], ids=["integers", "doubles"])
    def test_openvino_refuses_what_it_would_compute_in_less(text: str) -> None:
        x = torch.tensor([1, 2]) if text == SQUARES else torch.ones(2)
        with pytest.raises(EngineError, match="openvino: the model computes"):
            OnnxModule(parse(text)).optimize(x, engine="openvino")

    def test_openvino_refuses_operators_of_onnxruntime() -> None:
        text = "g (float[n] x) => (float[n] y) { y = com.microsoft.QuickGelu (x) }"
        with pytest.raises(EngineError, match=r"com.microsoft::QuickGelu .* is not relied on"):
            OnnxModule(parse(text)).optimize(torch.ones(2), engine="openvino")

    def test_openvino_leaves_large_integers_to_the_module() -> None:
        module = OnnxModule(parse("g (int64[n] x) => (float[n] y) { y = Cast<to=1>(x) }"))
        fast = module.optimize(torch.tensor([1, 2]), engine="openvino")
        assert fast(torch.tensor([2**40, 5])).tolist() == [2.0**40, 5.0]
        assert fast.engine == "openvino"

    def test_openvino_leaves_large_integers_of_32_bits_to_the_module() -> None:
        """It compares them as floats: 16777217 and 16777216 would be equal."""
        module = OnnxModule(parse("g (int32[n] x, int32[n] z) => (bool[n] y) { y = Equal(x, z) }"))
        small = torch.tensor([[1, 2], [1, 3]], dtype=torch.int32)
        fast = module.optimize(*small, engine="openvino")
        x, z = torch.tensor([[2**24 + 1, 5], [2**24, 5]], dtype=torch.int32)
        assert fast(x, z).tolist() == [False, True]
        assert fast.engine == "openvino"

    def test_openvino_computes_in_float32() -> None:
        """By default it takes bfloat16, where the processor has it."""
        model = parse("g (float[n, 64] x) => (float[n, 64] y) { y = MatMul(x, w) }")
        weight = onnx.numpy_helper.from_array(torch.randn(64, 64).numpy(), "w")
        model.graph.initializer.append(weight)
        module = OnnxModule(model)
        x = torch.randn(8, 64)
        y = module.optimize(x, engine="openvino")(x)
        torch.testing.assert_close(y, right(module, x), rtol=1e-5, atol=1e-5)

    def test_openvino_returns_outputs_whose_sizes_depend_on_values() -> None:
        module = OnnxModule(parse("g (float[n] x) => (int64[1, m] y) { y = NonZero(x) }"))
        fast = module.optimize(torch.tensor([0.0, 1.0, 2.0]), engine=["openvino", "faithful"])
        for values, found in (([0, 3, 0], [[1]]), ([1, 1, 1], [[0, 1, 2]]), ([0, 0, 0], [[]])):
            assert fast(torch.tensor(values).float()).tolist() == found
