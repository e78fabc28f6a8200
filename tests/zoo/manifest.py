"""The models of the zoo, read from manifest.json, and where their files lie."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper

from tests.zoo import fetch
from tests.zoo.architectures import ARCHITECTURES
from tests.zoo.inputs import make_inputs

HERE = Path(__file__).parent
LIGHT_FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "light"


@dataclass(frozen=True)
class Model:
    """One model of the manifest.

    Attributes:
        name: unique in the manifest.
        origin: "light" (onnx package), "seeded" (built here) or "trained" (out of a wheel).
        kind: what it is for.
        opsets: domain -> version.
        seed: seeds case number i with seed + i.
        cases: input name -> what `make_inputs` needs, for each case.
        control: the weight whose noise the comparison must notice; "" where `no_control` says why.
        no_control: why no weight can serve.
        data_dependent: why its shapes or branches depend on data, so that it is not captured.
        licence: of the file.
        package: on the package index; "" where the file comes from elsewhere.
        version: of the package.
        path: in the wheel, or among the light models.
        sha256: of the file in the wheel.
    """

    name: str
    origin: str
    kind: str
    opsets: dict[str, int]
    seed: int
    cases: list[dict[str, dict[str, Any]]]
    control: str = ""
    no_control: str = ""
    data_dependent: str = ""
    licence: str = ""
    package: str = ""
    version: str = ""
    path: str = ""
    sha256: str = ""

    def file(self) -> Path:
        """Return the model's file, fetched or built when it is not in the cache yet.

        Raises:
            fetch.NoNetworkError: it has to be fetched and cannot be.
        """
        if self.origin == "light":
            return LIGHT_FOLDER / self.path
        if self.origin == "seeded":
            return built(self.name)
        wanted = {m.path: m.sha256 for m in manifest() if m.package == self.package}
        return fetch.fetch(self.package, self.version, wanted)[self.path]

    def inputs(self) -> Iterator[dict[str, np.ndarray]]:
        """Make the arrays of each case."""
        for number, case in enumerate(self.cases):
            yield make_inputs(case, self.seed + number)

    def shipped_output(self) -> np.ndarray:
        """What the onnx package says a light model answers to its first case."""
        stored = (LIGHT_FOLDER / self.path).with_name(f"{Path(self.path).stem}_output_0.pb")
        return numpy_helper.to_array(onnx.TensorProto.FromString(stored.read_bytes()))


@cache
def manifest() -> tuple[Model, ...]:
    """All models, in the order of the file."""
    return tuple(Model(**entry) for entry in json.loads((HERE / "manifest.json").read_text()))


def built(name: str) -> Path:
    """Build a seeded architecture, unless the cache has it from the very same sources."""
    folder = fetch.cache_folder() / "architectures"
    folder.mkdir(exist_ok=True)
    place = folder / f"{name}@{_sources_digest()}.onnx"
    if not place.exists():
        for other in folder.glob(f"{name}@*"):
            if not other.name.startswith(place.stem):  # of other sources
                other.unlink(missing_ok=True)
        partial = place.with_suffix(f".{os.getpid()}.partial")  # another process may build it
        onnx.save(ARCHITECTURES[name](), partial)
        partial.replace(place)
    return place


@cache
def _sources_digest() -> str:
    digest = hashlib.sha256()
    for source in (*sorted((HERE / "architectures").glob("*.py")), HERE / "inputs.py"):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
