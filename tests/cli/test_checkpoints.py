"""A .pth is a plain state dict, and a module can be loaded from it without its .onnx."""

from __future__ import annotations

import io
from collections import OrderedDict
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxinterp import InvalidModelError, OnnxModule, checkpoints

DIGITS = Path(str(files("onnxinterp") / "data" / "digits.onnx"))
IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_file_is_a_plain_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    checkpoints.save(DIGITS, path)
    state = torch.load(path, weights_only=True)
    module = OnnxModule(DIGITS)
    assert set(state) == set(module.weights), "constants, too"
    assert state.keys() >= module.state_dict().keys()
    assert all(type(v) is torch.Tensor for v in state.values())
    module.load_state_dict(state)
    assert [p.name for p in tmp_path.iterdir()] == ["m.pth"]


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "proto"])
def test_the_module_loads_without_its_model(kind: str, tmp_path: Path) -> None:
    data = DIGITS.read_bytes()
    proto = onnx.load_from_string(data)
    sources = {"path": DIGITS, "bytes": data, "file": io.BytesIO(data), "proto": proto}
    checkpoints.save(sources[kind], tmp_path / "m.pt")
    again = checkpoints.load(tmp_path / "m.pt")
    assert not again.training
    assert torch.equal(again(IMAGES), OnnxModule(DIGITS)(IMAGES))
    assert proto == onnx.load_from_string(data), "the source is not changed"


def test_trained_weights_statistics_and_choices_are_kept(tmp_path: Path) -> None:
    module = OnnxModule(DIGITS, outputs=["relu_1", "logits"], trainable="head.*")
    module.train()
    module(IMAGES)[1].square().sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    module.eval()
    checkpoints.save(DIGITS, tmp_path / "m.pth", module=module)
    again = checkpoints.load(tmp_path / "m.pth")
    assert again.output_names == ("relu_1", "logits")
    for ours, want in zip(again(IMAGES), module(IMAGES), strict=True):
        assert torch.equal(ours, want)
    assert not torch.equal(again.weights["head.bias"], OnnxModule(DIGITS).weights["head.bias"])
    training = {n for n, p in again.named_parameters() if p.requires_grad}
    assert training == {"head.weight", "head.bias"}


def test_another_float_dtype_is_kept(tmp_path: Path) -> None:
    module = OnnxModule(DIGITS).double()
    checkpoints.save(DIGITS, tmp_path / "m.pth", module=module)
    again = checkpoints.load(tmp_path / "m.pth")
    assert again(IMAGES.double()).dtype == torch.float64
    assert torch.equal(again(IMAGES.double()), module(IMAGES.double()))


def test_a_loaded_module_trains_and_saves_again(tmp_path: Path) -> None:
    checkpoints.save(DIGITS, tmp_path / "m.pth")
    again = checkpoints.load(tmp_path / "m.pth").train()
    again(IMAGES).sum().backward()
    assert all(p.grad is not None for p in again.parameters() if p.requires_grad)


def test_weights_are_not_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(_data(1))),
            helper.make_node("Add", ["x", "w"], ["a"]),
            helper.make_node("Add", ["a", "k"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [100_000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [100_000])],
        [numpy_helper.from_array(_data(2), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    source = tmp_path / "m.onnx"
    onnx.save_model(model, source, save_as_external_data=True, location="m.data")
    checkpoints.save(source, path)
    assert path.stat().st_size < 2 * 400_000 + 20_000
    (tmp_path / "m.data").unlink()
    x = torch.zeros(100_000)
    assert torch.equal(checkpoints.load(path)(x), torch.from_numpy(_data(1) + _data(2)))


def _data(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(100_000, dtype=np.float32)


def test_a_file_that_is_not_a_checkpoint_raises(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(b"no zip file")
    with pytest.raises(InvalidModelError, match="is not a PyTorch file"):
        checkpoints.load(path)
    torch.save({"w": torch.zeros(1)}, path)
    with pytest.raises(InvalidModelError, match="has no graph"):
        checkpoints.load(path)
    state = OrderedDict(w=torch.zeros(1))
    state._metadata = {"": {checkpoints.KEY: {"template": torch.ones(9)}}}
    torch.save(state, path)
    with pytest.raises(InvalidModelError, match="damaged model: places"):
        checkpoints.load(path)
    torch.save(torch.nn.ReLU(), path)  # a pickled object: code, not tensors
    with pytest.raises(InvalidModelError, match="is not a PyTorch file"):
        checkpoints.load(path)
    with pytest.raises(FileNotFoundError):
        checkpoints.load(tmp_path / "absent.pth")
