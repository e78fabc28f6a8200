"""External data: what a location may name, where it may lead, and what offsets may claim."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from tests.untrusted.files.case import CANARY_NAME, Case, Must
from tests.untrusted.files.models import INT64, branch, conditional, identity, model

COUNT = 4  # float32 elements
DATA = np.arange(COUNT, dtype=np.float32)
HERE = "w.bin"


def entry(location: str | None, *, kind: int = 1, dims: tuple[int, ...] = (COUNT,), **more: str):
    """A tensor whose data lie elsewhere."""
    proto = TensorProto(name="w", data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
    keys = {**({} if location is None else {"location": location}), **more}
    for key, value in keys.items():
        proto.external_data.add(key=key, value=value)
    return proto


def holding(proto: TensorProto) -> bytes:
    """A model that answers with the tensor."""
    return model([identity("w", "y")], initializers=[proto]).SerializeToString()


def write(folder: Path, name: str = HERE, size: int | None = None) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(DATA.tobytes() if size is None else bytes(size))


def link(folder: Path, target: str, name: str = HERE) -> None:
    (folder / name).symlink_to(target)


def hard_link(folder: Path, target: str) -> None:
    os.link(folder / target, folder / HERE)


def inner_hard_link(folder: Path) -> None:
    write(folder, "v.bin")
    os.link(folder / "v.bin", folder / HERE)


def linked_folder(folder: Path) -> None:
    (folder / "sub").symlink_to("..")


def chain(folder: Path) -> None:
    link(folder, "a", HERE)
    link(folder, f"../{CANARY_NAME}", "a")


def loop(folder: Path) -> None:
    link(folder, "b", HERE)
    link(folder, HERE, "b")


def linked_within(folder: Path) -> None:
    write(folder, "v.bin")
    link(folder, "v.bin")


def fifo(folder: Path) -> None:
    os.mkfifo(folder / HERE)


def listening(folder: Path) -> None:
    """A socket in the file system; its name must be short."""
    before = os.open(".", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(folder)
        try:
            made.bind(HERE)
        finally:
            os.fchdir(before)
            os.close(before)


def device(folder: Path) -> None:
    """/dev/zero, or a link to it where only links can be made."""
    try:
        os.mknod(folder / HERE, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        link(folder, "/dev/zero")


def folder_instead(folder: Path) -> None:
    (folder / HERE).mkdir()


def nothing(folder: Path) -> None:
    pass


def unreadable(folder: Path) -> None:
    write(folder)
    (folder / HERE).chmod(0)


OUTSIDE = {
    "absolute": "/etc/hostname",
    "up": f"../{CANARY_NAME}",
    "up-and-down": f"sub/../../{CANARY_NAME}",
    "up-in-dots": f"./.././{CANARY_NAME}",
    "up-doubled": f"..//{CANARY_NAME}",
    "up-far": "../" * 40 + "etc/hostname",
    "procfs": "/proc/self/environ",
    "procfs-descriptor": "/proc/self/fd/0",
    "device": "/dev/zero",
    "url": "file:///etc/hostname",
    "web": "http://127.0.0.1:9/w.bin",
    "home": "~/.profile",
    "variable": "$HOME/.profile",
    "empty": "",
    "dot": ".",
    "dots": "..",
    "slash": "/",
    "windows-drive": "C:\\Windows\\win.ini",
    "windows-up": f"..\\{CANARY_NAME}",
    "windows-drive-relative": "C:w.bin",
    "windows-share": "\\\\server\\share\\w.bin",
    "windows-device": "\\\\.\\NUL",
    "nul": f"w.bin\0/../../{CANARY_NAME}",
    "newline": f"..\n/{CANARY_NAME}",
    "wildcard": "*",
    "trailing-slash": "w.bin/",
    "through-a-file": "model.onnx/../w.bin",
    "model-folder-by-name": f"../model/../{CANARY_NAME}",
    "long": "a" * 5000,
    "deep": "a/" * 3000 + "w.bin",
    "escape": "\x1b[31mw.bin\x1b]0;owned\x07",
    "format": "{0.__class__.__init__.__globals__}%s%n",
}

MAKERS: dict[str, tuple[Callable[[Path], None], Must]] = {
    "link-outside": (partial(link, target=f"../{CANARY_NAME}"), "refused"),
    "link-absolute": (partial(link, target="/etc/hostname"), "refused"),
    "link-to-procfs": (partial(link, target="/proc/self/environ"), "refused"),
    "link-to-device": (partial(link, target="/dev/zero"), "refused"),
    "link-to-terminal": (partial(link, target="/dev/tty"), "refused"),
    "link-dangling": (partial(link, target="nothing"), "refused"),
    "link-within": (linked_within, "refused"),
    "link-chain": (chain, "refused"),
    "link-loop": (loop, "refused"),
    "hard-link-outside": (partial(hard_link, target=f"../{CANARY_NAME}"), "refused"),
    "hard-link-within": (inner_hard_link, "refused"),
    "fifo": (fifo, "refused"),
    "socket": (listening, "refused"),
    "character-device": (device, "refused"),
    "folder": (folder_instead, "refused"),
    "missing": (nothing, "refused"),
    "unreadable": (unreadable, "refused" if os.getuid() else "right"),
    "empty-file": (partial(write, size=0), "refused"),
    "short-file": (partial(write, size=4 * COUNT - 1), "refused"),
}

CLAIMS: dict[str, tuple[dict[str, str], Must]] = {
    "offset-minus": ({"offset": "-4"}, "refused"),
    "offset-beyond": ({"offset": "4"}, "refused"),
    "offset-far": ({"offset": str(2**62)}, "refused"),
    "offset-overflow": ({"offset": str(2**64 - 8)}, "refused"),
    "offset-huge": ({"offset": "9" * 400}, "refused"),
    "offset-endless": ({"offset": "9" * 10_000}, "refused"),
    "offset-text": ({"offset": "four"}, "refused"),
    "offset-float": ({"offset": "0.0"}, "refused"),
    "offset-hex": ({"offset": "0x0"}, "refused"),
    "offset-empty": ({"offset": ""}, "either"),
    "offset-underscore": ({"offset": "0_0"}, "either"),
    "offset-spaces": ({"offset": " 0 "}, "either"),
    "offset-arabic": ({"offset": "\u0660"}, "either"),
    "length-minus": ({"length": "-16"}, "refused"),
    "length-short": ({"length": "12"}, "refused"),
    "length-long": ({"length": "20"}, "refused"),
    "length-far": ({"length": str(2**62)}, "refused"),
    "length-text": ({"length": "all"}, "refused"),
    "length-0": ({"length": "0"}, "either"),
    "both-far": ({"offset": str(2**63), "length": str(2**63)}, "refused"),
    "checksum-wrong": ({"checksum": "0" * 40}, "either"),
    "unknown-key": ({"__class__": "os"}, "either"),
    "basepath": ({"basepath": "/"}, "either"),
}

LEGAL = ("w.bin", "w..bin", "..w", "w.bin..", ".w", "sub/w.bin", "./w.bin", "sub/./w.bin",
         "sub//w.bin", "ü.bin", "w b.bin", "%2e%2e", "con", "$HOME",
         "~", "-rf")  # fmt: skip


def cases() -> Iterator[Case]:
    for name, location in OUTSIDE.items():
        yield Case(f"external/at-{name}", holding(entry(location)), "refused", beside=write)
    for name, (maker, must) in MAKERS.items():
        expected = (DATA,) if must == "right" else None
        yield Case(f"external/{name}", holding(entry(HERE)), must, {}, expected, beside=maker)
    for name, (claim, must) in CLAIMS.items():
        content = holding(entry(HERE, **claim))
        yield Case(f"external/{name}", content, must, {}, (DATA,), beside=write)
    for i, location in enumerate(LEGAL):
        maker = partial(write, name=location)
        content = holding(entry(location))
        yield Case(f"external/legal-{i}", content, "right", {}, (DATA,), beside=maker)
    content = holding(entry("a\\b.bin"))  # a name here, a path elsewhere
    beside = partial(write, name="a\\b.bin")
    yield Case("external/backslash", content, "either", {}, (DATA,), beside=beside)
    yield from _shapes()
    yield from _places()
    folder_link = holding(entry(f"sub/{CANARY_NAME}"))
    yield Case("external/link-of-folder", folder_link, "refused", beside=linked_folder)
    for i in range(4):
        yield Case(
            f"external/race-{i}",
            holding(entry(HERE)),
            "either",
            {},
            (DATA,),
            beside=racing,
            race=(HERE, "v.bin", f"../{CANARY_NAME}"),
        )


def racing(folder: Path) -> None:
    write(folder)
    write(folder, "v.bin")


def _shapes() -> Iterator[Case]:
    """Shapes and types that the file does not hold."""
    huge = {
        "beyond": (2**20,),
        "overflow": (2**62, 8),
        "overflow-to-0": (2**32, 2**32),
        "minus": (-4,),
    }
    for name, dims in huge.items():
        yield Case(
            f"external/dims-{name}", holding(entry(HERE, dims=dims)), "refused", beside=write
        )
    for kind in (0, 99, 8, 14, 15, 22):
        content = holding(entry(HERE, kind=kind, dims=(64,)))
        yield Case(f"external/type-{kind}", content, "refused", beside=write)
    both = entry(HERE)
    both.raw_data = DATA.tobytes()
    yield Case("external/and-raw", holding(both), "either", {}, (DATA,), beside=write)
    none = entry(None)
    yield Case("external/no-location", holding(none), "refused", beside=write)
    twice = entry(f"../{CANARY_NAME}")
    twice.external_data.add(key="location", value=HERE)
    yield Case("external/two-locations", holding(twice), "either", {}, (DATA,), beside=write)
    twice = entry(HERE)
    twice.external_data.add(key="location", value=f"../{CANARY_NAME}")
    yield Case("external/two-locations-back", holding(twice), "refused", beside=write)
    unused = entry(HERE)
    del unused.external_data[:]
    yield Case("external/no-entries", holding(unused), "refused", beside=write)
    yield Case("external/of-bytes", holding(entry(HERE)), "refused", as_bytes=True, beside=write)
    absolute = holding(entry("/etc/hostname"))
    yield Case("external/of-bytes-absolute", absolute, "refused", as_bytes=True)
    itself = holding(entry("model.onnx", dims=(1,)))
    yield Case("external/the-model-itself", itself, "either")


def _places() -> Iterator[Case]:
    """A location outside, wherever a tensor may stand."""
    bad = entry(f"../{CANARY_NAME}")
    constant = helper.make_node("Constant", [], ["w"], value=bad)
    shape = entry(f"../{CANARY_NAME}", dims=(1,))
    filled = helper.make_node("ConstantOfShape", ["s"], ["y"], value=shape)
    size = helper.make_node("Constant", [], ["s"], value_ints=[4])
    inner = branch([identity("w", "o")], "o", [bad])
    function = helper.make_function(
        "f", "F", [], ["o"], [constant, identity("w", "o")], [helper.make_opsetid("", 21)]
    )
    indices = TensorProto(name="i", data_type=INT64, dims=[4], int64_data=[0, 1, 2, 3])
    sparse = helper.make_sparse_tensor(bad, indices, [8])
    models = {
        "Constant": model([constant, identity("w", "y")]),
        "ConstantOfShape": model([size, filled]),
        "If": model(conditional(inner)),
        "branch-not-taken": model(conditional(branch([size], "s"), inner)),
        "function": model(
            [helper.make_node("F", [], ["y"], domain="f")], functions=[function], imports=[("f", 1)]
        ),
        "sparse_value": model([helper.make_node("Constant", [], ["y"], sparse_value=sparse)]),
        "unused": model([size, identity("s", "y")], initializers=[bad]),
        "unknown-attribute": model([helper.make_node("Constant", [], ["y"], value_int=1, t=bad)]),
    }
    sparse_model = model([identity("w", "y")])
    sparse_model.graph.sparse_initializer.append(sparse)
    models["sparse_initializer"] = sparse_model
    training = model([size, identity("s", "y")])
    training.training_info.add().initialization.initializer.append(bad)
    models["training_info"] = training
    function_unused = model([size, identity("s", "y")], functions=[function], imports=[("f", 1)])
    models["function-not-called"] = function_unused
    lax = ("unused", "training_info", "function-not-called", "branch-not-taken")
    for name, built in models.items():
        must: Must = "either" if name in lax else "refused"
        yield Case(f"external/in-{name}", built.SerializeToString(), must, asked=False)
