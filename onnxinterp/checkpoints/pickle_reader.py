"""Safe reading of files of `torch.save`: dicts, lists, strings, numbers and plain tensors.

    read             the object in a file
        ZipEntries   the zip archive: not compressed, not larger than the file
        Unpickler    the pickle in it, opcode by opcode

`torch.load(..., weights_only=True)` runs no untrusted code, but trusts the numbers: it hashes
nested tuples without end, inflates compressed archives, allocates arrays of any size, and takes the
length of a storage from the pickle. Here keys are strings, the elements of a tensor do not overlap
and are inside the bytes of its entry, and what `checkpoints.save` does not need is an error.

Source: https://docs.pytorch.org/docs/stable/notes/serialization.html and `pickletools`.
"""

from __future__ import annotations

import math
import os
import pickletools
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from onnxinterp.dtypes import CARRIER
from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.format.tensor_checks import MAX_RANK, MAX_TENSOR_BYTES

BLOCK_BYTES = 2**24  # read at once
MAX_PICKLE_BYTES = 2**26  # a tensor takes some 150
MAX_SHARING = 16  # tensors on the same bytes, on average
DAMAGE_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    RuntimeError,  # zipfile's for encrypted entries
    ValueError,
    struct.error,
)
"""What zipfile and pickletools raise for invalid bytes."""


class StateDict(dict[str, Any]):
    """An OrderedDict of the file; `metadata` is the `_metadata` of a state dict."""

    metadata: object = None


class Storage(NamedTuple):
    """The bytes of one entry, flat uint8, and the dtype that the pickle declares for them."""

    data: Tensor
    dtype: torch.dtype | None


class ZipEntries:
    """The zip archive of a PyTorch file.

    Attributes:
        size: bytes of the file.
        root: the folder of all entries.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.size = os.fstat(file.fileno()).st_size
        self._zip = zipfile.ZipFile(file)
        infos = self._zip.infolist()
        self._infos = {info.filename: info for info in infos}
        if any(i.compress_type != zipfile.ZIP_STORED or i.flag_bits & 1 for i in infos):
            raise UnsafeModelError("its entries must not be compressed")
        claimed = sum(i.file_size for i in infos)
        unequal = any(i.compress_size != i.file_size for i in infos)
        if unequal or len(self._infos) < len(infos) or claimed > self.size:
            raise UnsafeModelError("its entries claim more bytes than the file has")
        roots = [name for name in self._infos if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise InvalidModelError("it is a zip archive, but not of PyTorch")
        self.root = roots[0].removesuffix("data.pkl")
        order = self.root + "byteorder"
        if order in self._infos and bytes(self.data("byteorder").numpy()) != sys.byteorder.encode():
            raise InvalidModelError(f"its numbers must be {sys.byteorder}-endian, as here")

    def pickle(self) -> bytes:
        """The pickle, without the bytes of the tensors."""
        if self._infos[self.root + "data.pkl"].file_size > MAX_PICKLE_BYTES:
            raise UnsafeModelError(f"its pickle has more than {MAX_PICKLE_BYTES} bytes")
        return self._zip.read(self.root + "data.pkl")

    def data(self, name: str) -> Tensor:
        """The bytes of an entry, as uint8 of shape [n]."""
        info = self._infos[self.root + name]
        data = torch.empty(info.file_size, dtype=torch.uint8)
        at, view = 0, memoryview(data.numpy())  # type: ignore[arg-type]  # is one
        with self._zip.open(info) as entry:
            while part := entry.read(BLOCK_BYTES):
                view[at : at + len(part)] = part
                at += len(part)
        if at != info.file_size:
            raise InvalidModelError(f"its entry {name!r} ends too soon")
        return data


def read(file: BinaryIO) -> object:
    """The object that `torch.save` wrote; tensors are on the CPU and require no gradient.

    Raises:
        InvalidModelError: it is not a file of PyTorch, or contains other objects than plain data.
        UnsafeModelError: tensors or entries claim more bytes than the file has.
    """
    try:
        entries = ZipEntries(file)
        return Unpickler(entries).run(entries.pickle())
    except DAMAGE_ERRORS as error:
        if isinstance(error, InvalidModelError):
            raise
        raise InvalidModelError(f"it is damaged: {error}") from error


class Unpickler:
    """The stack machine that runs a pickle, with the opcodes that `torch.save` uses.

    Nothing here hashes, compares or walks through a value unless it is a string or a number: nested
    values may contain one object 2**40 times.
    """

    def __init__(self, entries: ZipEntries) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Tensor] = {}
        self.entries = entries
        self.bytes_left = MAX_SHARING * entries.size

    def run(self, program: bytes) -> object:
        """The object that the pickle makes."""
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name == "STOP":
                return self.stack.pop()
            step = STEPS.get(opcode.name)
            if step is None:
                raise _not_plain(f"the opcode {opcode.name}")
            step(self, argument)
        raise EOFError("its pickle has no end")

    def since_mark(self) -> list[Any]:
        """Take what is above the last mark from the stack."""
        return self.take(len(self.stack) - self.marks.pop())

    def set_items(self, items: list[Any]) -> None:
        """Store keys and values, in turns, in the dict on the stack."""
        target = self.stack[-1]
        if type(target) not in (dict, StateDict) or len(items) % 2:
            raise _not_plain("items outside of a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise _not_plain(f"a key of type {type(key).__name__}")
            target[key] = value

    def append(self, items: list[Any]) -> None:
        """Append to the list on the stack."""
        if type(self.stack[-1]) is not list:
            raise _not_plain("elements outside of a list")
        self.stack[-1].extend(items)

    def take(self, count: int) -> list[Any]:
        """Take a number of values from the stack."""
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def push_global(self, name: str) -> None:
        """Push the name of a global; its use is checked when it is called."""
        if name not in GLOBALS:
            raise _not_plain(f"the object {name!r}")
        self.stack.append(name)

    def call(self) -> None:
        """Make an object that `torch.save` writes as a call: an OrderedDict or a tensor."""
        function, arguments = self.take(2)
        if type(arguments) is not tuple or not isinstance(function, str):
            raise _not_plain("a call")
        count, make = MAKERS.get(function, (None, None))
        if make is None or len(arguments) != count:
            name = function.partition(" ")[2]
            raise _not_plain(f"a call of {name} with {len(arguments)} arguments")
        self.stack.append(make(self, *arguments))

    def build(self) -> None:
        """Set the metadata of a state dict."""
        target, state = self.take(2)
        if type(target) is not StateDict or type(state) is not dict or [*state] != ["_metadata"]:
            raise _not_plain("an object with attributes")
        target.metadata = state["_metadata"]
        self.stack.append(target)

    def storage(self) -> None:
        """Read the bytes of a storage, once."""
        (found,) = self.take(1)
        if type(found) is not tuple or len(found) != 5:
            raise _not_plain("a persistent id that is not a storage")
        _, kind, key, _, _ = found  # the device and the length are not trusted
        if type(key) is not str or type(kind) is not str or kind not in STORAGES:
            raise _not_plain("a storage without a name or type")
        if key not in self.storages:
            self.storages[key] = self.entries.data(f"data/{key}")
        self.stack.append(Storage(self.storages[key], STORAGES[kind]))

    def tensor(
        self,
        storage: object,
        offset: object,
        size: object,
        stride: object,
        _requires_grad: object,
        _hooks: object,
        dtype: object = None,
    ) -> Tensor:
        """A tensor whose elements are inside its storage and do not overlap."""
        if not isinstance(storage, Storage):
            raise _not_plain("a tensor without a storage")
        kind = DTYPES.get(dtype) if type(dtype) is str else storage.dtype
        if kind is None:
            raise _not_plain("a tensor of an unknown type")
        sizes, strides, (start,) = _numbers(size), _numbers(stride), _numbers((offset,))
        if len(sizes) != len(strides) or len(sizes) > MAX_RANK:
            raise _not_plain("a tensor with an invalid shape")
        if math.prod(max(n, 1) for n in sizes) * kind.itemsize > MAX_TENSOR_BYTES:
            raise UnsafeModelError("it has a tensor that is too large for any memory")
        if 0 in sizes:
            return torch.empty(sizes, dtype=kind)
        reach = 0
        for step, length in sorted(zip(strides, sizes, strict=True)):
            if length > 1 and step <= reach:
                raise UnsafeModelError("it has a tensor whose elements share their bytes")
            reach += step * (length - 1)
        bytes_needed = math.prod(sizes) * kind.itemsize
        self.bytes_left -= bytes_needed
        if (start + reach + 1) * kind.itemsize > len(storage.data) or self.bytes_left < 0:
            raise UnsafeModelError("it has tensors that are larger than their bytes")
        flat = storage.data[: len(storage.data) // kind.itemsize * kind.itemsize].view(kind)
        steps = [min(step, len(flat)) for step in strides]  # with one element it may be anything
        return flat.as_strided(sizes, steps, start)


def _numbers(found: object) -> list[int]:
    """The numbers of a tuple, none of them negative."""
    if type(found) is not tuple or any(type(n) is not int or n < 0 for n in found):
        raise _not_plain("a tensor with an invalid shape")
    return list(found)


def _not_plain(what: str) -> InvalidModelError:
    return InvalidModelError(f"it has {what}, which is not plain data")


STORAGES: Mapping[str, torch.dtype | None] = MappingProxyType(
    {
        "torch FloatStorage": torch.float32,
        "torch DoubleStorage": torch.float64,
        "torch HalfStorage": torch.float16,
        "torch BFloat16Storage": torch.bfloat16,
        "torch LongStorage": torch.int64,
        "torch IntStorage": torch.int32,
        "torch ShortStorage": torch.int16,
        "torch CharStorage": torch.int8,
        "torch ByteStorage": torch.uint8,
        "torch BoolStorage": torch.bool,
        "torch ComplexFloatStorage": torch.complex64,
        "torch ComplexDoubleStorage": torch.complex128,
        "torch.storage UntypedStorage": None,
    }
)
"""Class of a storage in the pickle -> its dtype; None if the tensor has it."""
DTYPES = {str(dtype).replace(".", " "): dtype for dtype in CARRIER.values()}
MAKERS: Mapping[str, tuple[int, Callable[..., object]]] = MappingProxyType(
    {
        "collections OrderedDict": (0, lambda _m: StateDict()),
        "torch._utils _rebuild_tensor_v2": (6, Unpickler.tensor),
        "torch._utils _rebuild_tensor_v3": (7, Unpickler.tensor),
        "torch._utils _rebuild_parameter": (3, lambda _m, data, _requires_grad, _hooks: data),
    }
)
"""What `torch.save` writes as a call: the number of arguments, and what makes the object."""
GLOBALS = {*STORAGES, *DTYPES, *MAKERS}

Step = Callable[[Unpickler, Any], None]
VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")
STEPS: Mapping[str, Step] = MappingProxyType(
    {
        **dict.fromkeys(VALUES, lambda m, value: m.stack.append(value)),
        **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, n: m.stack.append(m.memo[n])),
        **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda m, n: m.memo.__setitem__(n, m.stack[-1])),
        "PROTO": lambda _m, _version: None,
        "MARK": lambda m, _: m.marks.append(len(m.stack)),
        "NONE": lambda m, _: m.stack.append(None),
        "NEWTRUE": lambda m, _: m.stack.append(True),
        "NEWFALSE": lambda m, _: m.stack.append(False),
        "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
        "EMPTY_LIST": lambda m, _: m.stack.append([]),
        "EMPTY_DICT": lambda m, _: m.stack.append({}),
        "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
        "TUPLE1": lambda m, _: m.stack.append(tuple(m.take(1))),
        "TUPLE2": lambda m, _: m.stack.append(tuple(m.take(2))),
        "TUPLE3": lambda m, _: m.stack.append(tuple(m.take(3))),
        "APPEND": lambda m, _: m.append(m.take(1)),
        "APPENDS": lambda m, _: m.append(m.since_mark()),
        "SETITEM": lambda m, _: m.set_items(m.take(2)),
        "SETITEMS": lambda m, _: m.set_items(m.since_mark()),
        "GLOBAL": Unpickler.push_global,
        "REDUCE": lambda m, _: m.call(),
        "BUILD": lambda m, _: m.build(),
        "BINPERSID": lambda m, _: m.storage(),
    }
)
"""Opcode -> what it does to the machine, given the opcode's argument."""
