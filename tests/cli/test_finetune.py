"""`onnxinterp finetune`: all data formats, all losses, the best epoch, and error messages."""

from __future__ import annotations

import sys
import xml.etree.ElementTree
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch

from onnxinterp import InputError, OnnxModule
from onnxinterp.cli import main
from onnxinterp.cli.curve import svg
from onnxinterp.graph.ir import ValueInfo
from onnxinterp.training.datasets import Examples, ImageReader, Scaling, load, tensors
from onnxinterp.training.loop import Objective, Recipe, fit, measure
from onnxinterp.verify import verify

Captured = pytest.CaptureFixture[str]
TINY = """<ir_version: 8, opset_import: ["": 17]> g (float[n, 2] x) => (float[n, 2] y)
    <float[2, 2] w = {1, 0, 0, 1}, float[2] b = {0, 0}> { a = Gemm(x, w, b) END }"""


@pytest.fixture
def rotated(tmp_path: Path) -> Path:
    """Some digits of the package, rotated by 90 degrees."""
    with np.load(str(files("onnxinterp") / "data" / "digits.npz")) as data:
        arrays = {
            name: (np.rot90(a, axes=(1, 2)) if a.ndim > 1 else a)[:320] for name, a in data.items()
        }
    np.savez(tmp_path / "rotated.npz", **arrays)
    return tmp_path / "rotated.npz"


def tiny(folder: Path, end: str) -> Path:
    path = folder / "tiny.onnx"
    onnx.save(onnx.parser.parse_model(TINY.replace("END", end)), path)
    return path


def finetune(model: Path, data: Path, output: Path, *more: object) -> int:
    arguments = ["finetune", str(model), "--data", str(data), "--output", str(output)]
    return main([*arguments, *map(str, more)])


def test_the_demo_model_learns_rotated_digits(
    digits: Path, rotated: Path, tmp_path: Path, capsys: Captured
) -> None:
    out, curve = tmp_path / "tuned.onnx", tmp_path / "loss.svg"
    options = ("--scale", 1 / 16, "--epochs", 4, "--lr", 5e-3, "--curve", curve)
    assert finetune(digits, rotated, out, *options) == 0
    text = capsys.readouterr().out
    for line in (
        "6186 of 6282 parameters are trainable, on ",
        "examples: 288 train, 320 test, 32 validation",
        "accuracy, 320 test examples",
        f"wrote {out} (31.0 kB) with the weights of epoch",
        "tuned.onnx against onnxruntime",
        "agrees",
    ):
        assert line in text
    with np.load(rotated) as arrays:
        images = torch.from_numpy(arrays["test_images"][:, None] / 16).float()
        labels = torch.from_numpy(arrays["test_labels"]).long()
    before, after = (
        measure(OnnxModule(m), tensors({"image": images}, labels), Objective("ce"), 64)
        for m in (digits, out)
    )
    assert before.accuracy < 0.4 < 0.7 < after.accuracy
    assert after.loss < before.loss
    drawing = xml.etree.ElementTree.parse(curve).getroot()
    lines = drawing.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [4, 4]


def images(folder: Path, **brightness: int) -> Path:
    image = pytest.importorskip("PIL.Image")
    generator = np.random.default_rng(0)
    for name, mean in brightness.items():
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(mean - 40, mean + 40, (10, 12, 3), dtype=np.uint8)
            image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_a_folder_of_images_gets_a_new_head(digits: Path, tmp_path: Path, capsys: Captured) -> None:
    data, out = images(tmp_path / "data", bright=200, dark=50, grey=120), tmp_path / "out.onnx"
    options = ("--head", "auto", "--train", "head.*", "--epochs", 8, "--lr", 0.05)
    assert finetune(digits, data, out, *options, "--batch-size", 8) == 0
    text = capsys.readouterr().out
    assert "new head (head.weight, head.bias): 3 outputs instead of 10" in text
    assert "387 of 5379 parameters are trainable" in text
    assert "classes: 0 bright, 1 dark, 2 grey" in text
    module, old = OnnxModule(out), OnnxModule(digits)
    assert module.weights["head.weight"].shape == (3, 128)
    assert module.onnx_graph.outputs[0].shape == ("batch", 3)
    assert torch.equal(module.weights["conv2.weight"], old.weights["conv2.weight"])
    assert verify(out).ok
    reader = ImageReader((1, 1, 8, 8), torch.float32, Scaling(1 / 255))
    shown = module(reader([data / "bright" / "0.png", data / "dark" / "0.png"]))
    assert shown.argmax(1).tolist() == [0, 1]


def test_images_are_resized_scaled_and_laid_out_as_the_model_has_them(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "red.png"
    image.new("RGB", (5, 7), (255, 51, 0)).save(path)
    plain = ImageReader((1, 3, 2, 4), torch.uint8, Scaling(1 / 255))([path, path])
    assert plain.shape == (2, 3, 2, 4)
    assert plain[0, :, 1, 1].tolist() == [255, 51, 0]
    scaling = Scaling(1 / 255, mean=(0.5, 0.2, 0.0), std=(0.5, 1.0, 2.0))
    last = ImageReader((1, 2, 4, 3), torch.float32, scaling)([path])
    assert last.shape == (1, 2, 4, 3)
    torch.testing.assert_close(last[0, 0, 0], torch.tensor([1.0, 0.0, 0.0]))
    grey = ImageReader((1, 1, 2, 2), torch.float32, Scaling(1 / 255))([path])
    assert 0.2 < float(grey.mean()) < 0.6
    with pytest.raises(InputError, match="2 for 3 channels"):
        ImageReader((1, 3, 2, 2), torch.float32, Scaling(1.0, mean=(1.0, 2.0)))([path])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match="cannot be read as an image"):
        ImageReader((1, 3, 2, 2), torch.float32, Scaling())([tmp_path / "text.png"])


def test_folders_that_are_divided_stay_divided(tmp_path: Path) -> None:
    for portion in ("train", "val", "test"):
        images(tmp_path / portion, a=50, b=200)
    info = ValueInfo("x", onnx.TensorProto.FLOAT, ("n", 1, 4, 4), "tensor")
    portions = load(tmp_path, [info], (1, 1, 4, 4), Scaling())
    assert {name: len(p) for name, p in portions.items()} == dict.fromkeys(
        ("train", "validation", "test"), 24
    )
    (batch,) = portions["train"].read(torch.tensor([0, 23]))
    assert float(batch[0].mean()) < 0.4 < float(batch[1].mean()) <= 1
    assert portions["test"].classes == ("a", "b")


X, L = np.arange(8, dtype=np.float32).reshape(4, 2), np.arange(4)
FORMS = {
    "the input's name": ({"x": X, "labels": L}, {"train": 4}),
    "any name": ({"images": X, "y": L}, {"train": 4}),
    "behind": ({"x_train": X, "y_train": L, "x_val": X, "y_val": L}, {"train": 4, "validation": 4}),
    "before": (
        {"train_x": X, "train_targets": L, "test_x": X[:2], "test_targets": L[:2]},
        {"train": 4, "test": 2},
    ),
    "words": ({"x": X, "label": np.array(["b", "a", "b", "c"])}, {"train": 4}),
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_are_found_by_name(form: str, tmp_path: Path) -> None:
    arrays, sizes = FORMS[form]
    np.savez(tmp_path / "data.npz", **arrays)
    info = ValueInfo("x", onnx.TensorProto.FLOAT, ("n", 2), "tensor")
    portions = load(tmp_path / "data.npz", [info], (), Scaling(2.0, (1.0,)))
    assert {name: len(p) for name, p in portions.items()} == sizes
    (batch,) = portions["train"].read(torch.tensor([1, 3]))
    assert batch.tolist() == [[3, 5], [11, 13]]
    if form == "words":
        assert portions["train"].classes == ("a", "b", "c")
        assert portions["train"].targets.tolist() == [1, 0, 1, 2]


@pytest.mark.parametrize(
    ("loss", "end", "targets"),
    [
        ("ce", "y = Softmax(a)", [1, 0] * 8),
        ("ce", "s = LogSoftmax(a) y = Identity(s)", [1, 0] * 8),
        ("bce", "y = Sigmoid(a)", [[0.0, 1.0], [1.0, 0.0]] * 8),
        ("mse", "y = Identity(a)", [[3.0, -2.0], [2.0, 5.0]] * 8),
        ("l1", "y = Relu(a)", [[3.0, 2.0], [2.0, 5.0]] * 8),
    ],
)
def test_every_loss_decreases(
    loss: str, end: str, targets: list[object], tmp_path: Path, capsys: Captured
) -> None:
    x = np.array([[1.0, 0.0], [0.0, 1.0]] * 8, dtype=np.float64)
    np.savez(tmp_path / "data.npz", x=x, targets=targets)
    model, out = tiny(tmp_path, end), tmp_path / "out.onnx"
    options = ("--loss", loss, "--epochs", 3, "--lr", 0.1, "--optimizer", "sgd")
    assert finetune(model, tmp_path / "data.npz", out, *options, "--validation", 0.25) == 0
    text = capsys.readouterr().out
    assert ("the loss is computed on" in text) == (loss in ("ce", "bce"))
    assert ("accuracy" in text) == (loss in ("ce", "bce"))
    assert [n.op_type for n in onnx.load(out).graph.node] == [
        n.op_type for n in onnx.load(model).graph.node
    ]


def test_several_inputs_and_a_selected_output(two_inputs: Path, tmp_path: Path) -> None:
    arrays = {"x": np.eye(3)[[0, 1, 2, 0]], "y": np.zeros((4, 2)), "labels": np.ones((4, 2))}
    np.savez(tmp_path / "data.npz", **arrays)
    options = ("--loss", "mse", "--answer", "sum", "--epochs", 2, "--batch-size", 3)
    assert finetune(two_inputs, tmp_path / "data.npz", tmp_path / "out.onnx", *options) == 0
    assert len(onnx.load(tmp_path / "out.onnx").graph.output) == 2


def line(count: int = 8) -> Examples:
    x = torch.linspace(-1, 1, count)[:, None]
    return tensors({"x": x}, 2 * x)


@pytest.mark.parametrize(("rate", "epochs_run"), [(0.1, 5), (3.0, 2)])
def test_the_best_weights_are_kept_and_patience_ends(rate: float, epochs_run: int) -> None:
    module = torch.nn.Linear(1, 1)
    recipe = Recipe(5, 8, torch.optim.SGD(module.parameters(), lr=rate), patience=2)
    before = measure(module, line(), Objective("mse"), 3)
    epochs = fit(module, line(), line(), Objective("mse"), recipe, lambda _: None)
    assert len(epochs) == epochs_run
    best = min(before.loss, *(e.validation.loss for e in epochs))
    assert measure(module, line(), Objective("mse"), 8).loss == pytest.approx(best)


def test_cosine_decays_to_zero() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    recipe = Recipe(2, 3, optimizer, "cosine")
    schedule, rates = recipe.scheduler(line(6)), []
    for _ in range(recipe.steps(line(6))):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1, 0.854, 0.5, 0.146], abs=1e-3)
    assert schedule.get_last_lr()[0] == pytest.approx(0)


def test_ignored_token_labels_do_not_count() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]])
    labels = torch.tensor([[0, 0, -100]])
    right = Objective("ce").right(logits, labels)
    assert right is not None
    assert right.tolist() == [True, False]
    want = torch.nn.functional.cross_entropy(logits[0], labels[0])
    torch.testing.assert_close(Objective("ce")(logits, labels), want)


def test_without_improvement_the_original_weights_are_saved_and_the_status_is_1(
    tmp_path: Path, capsys: Captured
) -> None:
    model, out = tiny(tmp_path, "y = Identity(a)"), tmp_path / "out.onnx"
    np.savez(tmp_path / "data.npz", x=np.eye(2), targets=np.eye(2))
    options = ("--loss", "mse", "--epochs", 2, "--weight-decay", 0.5)
    assert finetune(model, tmp_path / "data.npz", out, *options) == 1
    assert "no epoch improved" in capsys.readouterr().out
    assert out.read_bytes() == model.read_bytes()


@pytest.mark.parametrize(
    ("arrays", "more", "message"),
    [
        ({"x": X, "labels": L}, (), "labels must be 0 to 1, got 0 to 3; see --head auto"),
        ({"x": X, "labels": L + 0.5}, (), "targets for cross-entropy must be integer class labels"),
        ({"x": X, "labels": X}, (), "targets for cross-entropy must be integer class labels"),
        (
            {"x": X, "labels": X[:, :1]},
            ("--loss", "mse"),
            "targets must have shape [2] per example, got [1]; see --head",
        ),
        ({"x": X, "z": X, "labels": L}, (), "the model takes 'x'; the train arrays are 'x', 'z'"),
        ({"x": X, "y": L, "labels": L}, (), "one array is to be called labels or"),
        ({"x": X, "label": L[:3]}, (), "4 examples of 'x', but 3 label"),
        ({"x": X[:, :1], "label": L}, (), "does not fit the input x: float"),
        ({"x": X.astype(str), "label": L}, (), "holds no numbers"),
        ({"test_x": X, "test_y": L}, (), "no arrays to train on, only test"),
        ({"x": X[:1], "label": L[:1]}, (), "cannot be divided"),
        ({"x": X, "label": L % 2}, ("--freeze", "nothing.*"), "a parameter, got 'nothing.*'"),
        (
            {"x": X, "label": L % 2},
            ("--freeze", "*"),
            "at least one weight must be trainable, got none",
        ),
        ({"x": X, "label": L % 2}, ("--freeze-statistics",), "a running statistic, got '*'"),
        (
            {"x": X, "label": L % 2},
            ("--answer", "z"),
            "--answer must be an output of the model (y), got 'z'",
        ),
        (
            {"x": X, "label": L % 2},
            ("--curve", "/nowhere/at/all.svg"),
            "the folder of an output file must exist, got /nowhere",
        ),
        ({"x": X + np.float32("inf"), "label": L % 2}, (), "the loss is nan in epoch 1"),
        ({"x": X, "label": L % 2}, ("--mean", 1, 2, 3), "3 for 2 channels"),
    ],
)
def test_errors_exit_2_before_anything_is_written(
    arrays: dict[str, np.ndarray],
    more: tuple[object, ...],
    message: str,
    tmp_path: Path,
    capsys: Captured,
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    model, out = tiny(tmp_path, "y = Softmax(a)"), tmp_path / "out.onnx"
    assert finetune(model, tmp_path / "data.npz", out, *more) == 2
    err = capsys.readouterr().err
    assert err.startswith("onnxinterp: ")
    assert message in err
    assert not out.exists()


def test_errors_name_a_missing_head_and_a_missing_pillow(
    tmp_path: Path, digits: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "data.npz", x=X, labels=L)
    model = tiny(tmp_path, "s = Softmax(a) y = Softplus(s) ")
    text = TINY.replace("a = Gemm(x, w, b) END", "y = LayerNormalization(x, b)")
    onnx.save(onnx.parser.parse_model(text), model)
    assert finetune(model, tmp_path / "data.npz", tmp_path / "o.onnx", "--head", "auto") == 2
    assert "is LayerNormalization 'y', which is not a linear" in capsys.readouterr().err
    data = images(tmp_path / "photos", a=50)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert finetune(digits, data, tmp_path / "o.onnx") == 2
    assert "this needs PIL: pip install onnxinterp[images]" in capsys.readouterr().err
    (tmp_path / "empty" / "a").mkdir(parents=True)
    monkeypatch.undo()
    assert finetune(digits, tmp_path / "empty", tmp_path / "o.onnx") == 2
    assert "has no images in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--epochs", "0"),
        ("--head", "0"),
        ("--head", "some"),
        ("--validation", "1"),
        ("--device", "x"),
    ],
)
def test_wrong_usage(arguments: tuple[str, str], digits: Path, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as exit_:
        finetune(digits, digits, digits, *arguments)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_without_onnxruntime_it_fine_tunes_without_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    np.savez(tmp_path / "data.npz", x=X, labels=L % 2)
    model = tiny(tmp_path, "y = Softmax(a)")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    options = ("--head", "4", "--epochs", 1, "--lr", 1e-2)
    assert finetune(model, tmp_path / "data.npz", tmp_path / "out.onnx", *options) == 0
    assert "not compared: this needs onnxruntime" in capsys.readouterr().out
    assert OnnxModule(tmp_path / "out.onnx").weights["w"].shape == (2, 4)


def test_a_curve_of_one_number_is_valid_svg() -> None:
    for series in ({"a <b>": [1.0]}, {"a": [0.5, 0.5]}, {}):
        xml.etree.ElementTree.fromstring(svg("title & more", series))
