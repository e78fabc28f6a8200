"""Of external data, loading reads the pages that it looks at, and no others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import onnxinterp.module
from onnxinterp import OnnxModule
from tests.distributed.network import batch, exported, original

READ_AT_RANDOM = "rr"  # of the flags of a mapping in /proc/self/smaps, see proc(5)


def flags_of_maps(file: Path) -> list[set[str]]:
    """The flags of each mapping of a file."""
    found, is_ours = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            is_ours = line.endswith(str(file))
        elif is_ours and line.startswith("VmFlags:"):
            found.append(set(line.split()[1:]))
    return found


def test_nothing_around_what_loading_looks_at_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Reading ahead is off while weights are looked at, and on when they are used."""
    file = shutil.copytree(exported("dynamo").parent, tmp_path / "copy") / "m.onnx"
    weights = file.with_name("m.onnx.data")
    seen = []
    for name in ("adopt", "parameters"):
        work = getattr(onnxinterp.module, name)

        def watched(*arguments: object, work=work, **keywords: object) -> object:
            seen.extend(flags_of_maps(weights))
            return work(*arguments, **keywords)

        monkeypatch.setattr(onnxinterp.module, name, watched)
    module = OnnxModule(file)
    seen += flags_of_maps(weights)
    assert [READ_AT_RANDOM in flags for flags in seen] == [True, True, False]
    torch.testing.assert_close(module(batch()[0]), original()(batch()[0]))
