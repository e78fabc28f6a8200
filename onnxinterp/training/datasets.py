"""Training data: a folder of images, or the arrays of an .npz file.

    DIR/cat/1.png, DIR/dog/2.png               one folder per class
    DIR/train/cat/..., DIR/validation/cat/...  the same, divided in portions; test/ too
    FILE.npz: image, labels                    arrays by input name, and the right answers
    FILE.npz: train_image, train_labels, ...   the same, divided in portions

The answers have the name labels, label, targets, target or y. If a model has one input, its array
may have any name. The portion is train, validation (val) or test, before or after the name.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnxinterp.errors import InputError
from onnxinterp.extras import require
from onnxinterp.graph.ir import ValueInfo

ANSWERS = ("labels", "label", "targets", "target", "y")
PORTIONS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Examples:
    """Inputs of a model and the right answers.

    Attributes:
        read: indices (n,) -> the inputs of these examples, in the order of the model.
        targets: the right answers, along the first dimension.
        classes: the names of the classes, if the data has them.
    """

    read: Callable[[Tensor], tuple[Tensor, ...]]
    targets: Tensor
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    def part(self, indices: Tensor) -> Examples:
        """The examples with these indices."""
        return replace(self, read=lambda i: self.read(indices[i]), targets=self.targets[indices])

    def split(self, fraction: float, seed: int) -> tuple[Examples, Examples]:
        """Two portions, of at least one example each: the rest, and a random `fraction`.

        Raises:
            InputError: there are fewer than two examples.
        """
        if len(self) < 2:
            raise InputError(f"{len(self)} example(s) cannot be divided: give a validation portion")
        count = min(max(round(fraction * len(self)), 1), len(self) - 1)
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.part(order[count:]), self.part(order[:count])


@dataclass(frozen=True)
class Scaling:
    """The conversion from stored numbers to inputs of the model: (x * scale - mean) / std.

    Attributes:
        scale: None for 1/255 if image files are read, else 1.
        mean: one number, or one per channel.
        std: one number, or one per channel.
    """

    scale: float | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, x: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
        """Scale `x`, whose dimension `channels` has the channels; integers are only cast.

        Raises:
            InputError: the number of channels differs from that of means or deviations.
        """
        if self in (Scaling(), Scaling(1.0)) or not dtype.is_floating_point:
            return x.to(dtype)
        shape = [-1 if d == channels % x.ndim else 1 for d in range(x.ndim)]
        for values in (self.mean, self.std):
            if len(values) not in (1, x.shape[channels]):
                raise InputError(
                    f"--mean and --std: {len(values)} for {x.shape[channels]} channels"
                )
        mean, std = (torch.tensor(values).reshape(shape) for values in (self.mean, self.std))
        return ((x.float() * (self.scale or 1.0) - mean) / std).to(dtype)


def channels_axis(shape: Sequence[int | str | None]) -> int:
    """The dimension of channels: the last if only that is 1 or 3, else the second."""
    last = len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3)
    return -1 if last else 1


def tensors(inputs: Mapping[str, Tensor], targets: Tensor, classes: Sequence[str] = ()) -> Examples:
    """Examples in memory, along the first dimension of each tensor."""
    return Examples(lambda i: tuple(x[i] for x in inputs.values()), targets, tuple(classes))


def load(
    path: Path, inputs: Sequence[ValueInfo], shape: tuple[int, ...], scaling: Scaling
) -> dict[str, Examples]:
    """Read examples: always "train", and "validation" and "test" if the data has these portions.

    Args:
        path: a folder of images or an .npz file.
        inputs: the inputs of the model.
        shape: the shape of the first input, without unknown sizes.
        scaling: for images and floating inputs.

    Raises:
        InputError: the data has another form, or does not fit the model.
        MissingExtraError: images need Pillow.
    """
    if path.is_dir():
        return _folders(path, inputs, shape, scaling)
    return _arrays(path, inputs, scaling)


def _folders(
    path: Path, inputs: Sequence[ValueInfo], shape: tuple[int, ...], scaling: Scaling
) -> dict[str, Examples]:
    if len(inputs) != 1 or len(shape) != 4 or inputs[0].dtype is None:
        raise InputError("a folder of images suits a model with one input of 4 dimensions")
    divided = {
        PORTIONS[f.name]: f
        for f in sorted(path.iterdir())
        if f.name in PORTIONS and any(sub.is_dir() for sub in f.iterdir())
    }
    portions = divided if "train" in divided else {"train": path}
    classes = sorted({f.name for p in portions.values() for f in p.iterdir() if f.is_dir()})
    if scaling.scale is None:
        scaling = replace(scaling, scale=1 / 255)
    reader = ImageReader(shape, inputs[0].dtype, scaling)
    return {name: _folder(p, classes, reader) for name, p in portions.items()}


def _folder(path: Path, classes: list[str], reader: ImageReader) -> Examples:
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((path / name).rglob("*"))
        if file.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise InputError(f"{path} has no images in it: one folder for each class, CLASS/name.png")
    paths, labels = zip(*files, strict=True)
    return Examples(
        lambda indices: (reader([paths[i] for i in indices.tolist()]),),
        torch.tensor(labels),
        tuple(classes),
    )


class ImageReader:
    """Reads image files as one batch for an input of a model.

    The layout is that of the shape: [batch, channels, height, width], or channels last.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, scaling: Scaling) -> None:
        """Load Pillow: only images need it."""
        self.axis = channels_axis(shape)
        channels, *size = shape[1:] if self.axis == 1 else (shape[3], *shape[1:3])
        if channels not in (1, 3):
            raise InputError(f"images have 1 or 3 channels; the model's input is {list(shape)}")
        self.mode = "L" if channels == 1 else "RGB"
        self.height, self.width = size
        self.dtype, self.scaling = dtype, scaling
        require("PIL", "images")
        self.pillow = require("PIL.Image", "images")
        self.threads = ThreadPoolExecutor(4)

    def __call__(self, paths: Sequence[Path]) -> Tensor:
        """The images, resized and scaled, as one batch."""
        images = torch.stack(list(self.threads.map(self._read, paths)))
        batch = images.movedim(-1, self.axis).contiguous()
        return self.scaling(batch, self.axis, self.dtype)

    def _read(self, path: Path) -> Tensor:
        """One image: [height, width, channels], with numbers from 0 to 255."""
        try:
            with self.pillow.open(path) as file:
                resized = file.convert(self.mode).resize((self.width, self.height))
        except OSError as error:
            raise InputError(f"{path} cannot be read as an image: {error}") from error
        return torch.from_numpy(np.array(resized)).reshape(self.height, self.width, -1)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by name; nothing in the file is executed.

    Raises:
        InputError: it is not such a file, or contains pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no .npz file of plain arrays: {error}") from error


def _arrays(path: Path, inputs: Sequence[ValueInfo], scaling: Scaling) -> dict[str, Examples]:
    portions: dict[str, dict[str, Array]] = {}
    for key, array in read_arrays(path).items():
        portion, name = _portion(key, {i.name for i in inputs})
        portions.setdefault(portion, {})[name] = array
    if "train" not in portions:
        raise InputError(f"{path} has no arrays to train on, only {', '.join(portions)}")
    found = [p[name] for p in portions.values() for name in ANSWERS if name in p]
    strings = [labels.reshape(-1) for labels in found if labels.dtype.kind == "U"]
    classes = np.unique(np.concatenate(strings)).tolist() if strings else []
    return {n: _portion_of_arrays(n, p, inputs, scaling, classes) for n, p in portions.items()}


def _portion(key: str, inputs: set[str]) -> tuple[str, str]:
    """The portion of an array, and its name there: val_x and x_val are x of "validation"."""
    for word, portion in PORTIONS.items():
        for name in (key.removeprefix(f"{word}_"), key.removesuffix(f"_{word}")):
            if name != key and key not in inputs:
                return portion, name
    return "train", key


def _answer(arrays: Mapping[str, Array], inputs: Sequence[ValueInfo]) -> str:
    """The name of the array of answers."""
    inputs_too = {i.name for i in inputs}
    found = [name for name in ANSWERS if name in arrays and name not in inputs_too]
    if len(found) != 1:
        raise InputError(f"one array is to be called {' or '.join(ANSWERS)}, not {found or 'none'}")
    return found[0]


def _portion_of_arrays(
    portion: str,
    arrays: Mapping[str, Array],
    inputs: Sequence[ValueInfo],
    scaling: Scaling,
    classes: list[str],
) -> Examples:
    answer = _answer(arrays, inputs)
    given = {name: array for name, array in arrays.items() if name != answer}
    if len(inputs) == 1 and len(given) == 1:
        given = {inputs[0].name: next(iter(given.values()))}
    names = [i.name for i in inputs]
    if set(given) != set(names):
        raise InputError(
            f"the model takes {', '.join(map(repr, names))}; the {portion} arrays are "
            f"{', '.join(map(repr, given))} and {answer!r}"
        )
    labels = arrays[answer]
    if labels.dtype.kind == "U":
        labels = np.searchsorted(np.array(classes), labels)
    values = {i.name: _fitted(i, given[i.name], scaling) for i in inputs}
    for name, value in values.items():
        if len(value) != len(labels):
            raise InputError(f"{len(value)} examples of {name!r}, but {len(labels)} {answer}")
    return tensors(values, torch.from_numpy(np.ascontiguousarray(labels)), classes)


def _fitted(info: ValueInfo, array: Array, scaling: Scaling) -> Tensor:
    """An array with the type and rank of an input: missing dimensions of 1 are inserted."""
    if info.dtype is None:
        raise InputError(f"the input {info} is no tensor of numbers")
    try:
        value = torch.from_numpy(np.ascontiguousarray(array))
    except TypeError as error:
        raise InputError(f"the array for {info.name!r} holds no numbers: {error}") from error
    shape = value.shape[:1] if info.shape is None else info.shape
    for axis, size in enumerate(shape):
        if size == 1 and axis and value.ndim < len(shape):
            value = value.unsqueeze(axis)
    sizes = zip(value.shape[1:], shape[1:], strict=False)
    fits = value.ndim == len(shape) and all(n == s or not isinstance(s, int) for n, s in sizes)
    if info.shape is not None and not fits:
        raise InputError(f"an array of shape {list(array.shape)} does not fit the input {info}")
    return scaling(value, channels_axis(shape), info.dtype)
