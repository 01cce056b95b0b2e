"""Reading a GGUF file's header, safely: every length is checked before it is believed, nothing is mapped.

Plain reads, because a mapped file that is cut while it is read would kill the process with SIGBUS.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

from msgspec import Struct

from arena.errors import BadRequest

MAGIC = b"GGUF"
MOST_KEYS = 100_000
MOST_TENSORS = 1_000_000
MOST_ITEMS = 20_000_000
LONGEST_NAME = 64 * 1024
LONGEST_KEPT = 1024 * 1024  # a longer string is skipped
LONGEST_LIST_KEPT = 64
DEEPEST_LIST = 4

_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _LIST = 8, 9

# ggml's types: name, numbers in a block, bytes of a block
TENSOR_TYPES: Final = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}  # fmt: skip

# general.file_type: what a file is called by its mix of tensor types
FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip


class BrokenModel(BadRequest):
    """The file is not a model that can be loaded; the message says what is wrong with it, never where it lies."""

    status = 500
    default_code = "broken_model"


class Tensor(Struct, frozen=True, gc=False):
    """One tensor as the header describes it. `offset` counts bytes from the beginning of the data."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int | None:
        """Its bytes in the file; None when the type is one we do not know."""
        known = TENSOR_TYPES.get(self.type)
        return None if known is None else -(-self.elements // known[1]) * known[2]


class Header(Struct, frozen=True):
    """What a GGUF file says about itself. Long lists (the vocabulary) are None in `keys`."""

    keys: dict[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        """Such as "llama"; "" when the file does not say."""
        return self.text("general.architecture")

    @property
    def parameters(self) -> int:
        """All numbers of all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def quantization(self) -> str:
        """Such as "Q4_1"; "" when the file does not say."""
        kind = self.number("general.file_type")
        return "" if kind is None else FILE_TYPES.get(kind, "")

    @property
    def chat_template(self) -> str:
        """The Jinja template of a chat; "" for a base model."""
        return self.text("tokenizer.chat_template")

    def text(self, key: str) -> str:
        """The string under `key`; "" when there is none."""
        value = self.keys.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """The whole number under `key`, if there is one."""
        value = self.keys.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def of_architecture(self, key: str) -> int | None:
        """The whole number under `<architecture>.<key>`."""
        return self.number(f"{self.architecture}.{key}")


class _Source:
    """A file of known size that refuses to read past its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0

    def take(self, count: int) -> bytes:
        if count > self.size - self.position:
            raise BrokenModel(f"the file ends inside its header (it has {self.size} bytes)")
        data = self._file.read(count)
        if len(data) != count:
            raise BrokenModel("the file became shorter while it was read")
        self.position += count
        return data

    def skip(self, count: int) -> None:
        if count > self.size - self.position:
            raise BrokenModel(f"the file ends inside its header (it has {self.size} bytes)")
        self._file.seek(count, os.SEEK_CUR)
        self.position += count

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def name(self) -> str:
        length: int = self.number("<Q")
        if length > LONGEST_NAME:
            raise BrokenModel(f"a name in its header is said to have {length} bytes")
        return self.take(length).decode("utf-8", "replace")


def read_header(path: Path) -> Header:
    """Read and check the header of the GGUF file at `path`. Raises BrokenModel or OSError."""
    with path.open("rb") as file:
        source = _Source(file)
        version = _check_magic(source)
        tensor_count, key_count = source.number("<Q"), source.number("<Q")
        if tensor_count > MOST_TENSORS or key_count > MOST_KEYS:
            raise BrokenModel(f"its header claims {tensor_count} tensors and {key_count} keys")
        keys: dict[str, Any] = {}
        for _ in range(key_count):
            name = source.name()
            keys[name] = _value(source, source.number("<I"), 0)
        tensors = tuple(_tensor(source) for _ in range(tensor_count))
        header = Header({"general.version": version, **keys}, tensors)
        _check_data(header, source)
        return header


def _check_magic(source: _Source) -> int:
    if source.size < 24:
        raise BrokenModel(f"the file has only {source.size} bytes: it is not a GGUF model")
    magic = source.take(4)
    if magic != MAGIC:
        raise BrokenModel(f"the file is not a GGUF model (it begins with {magic!r})")
    version: int = source.number("<I")
    if version not in (2, 3):
        raise BrokenModel(f"GGUF version {version} is not supported")
    return version


def _value(source: _Source, kind: int, depth: int) -> Any:
    if kind == _STRING:
        length: int = source.number("<Q")
        if length > LONGEST_KEPT:
            source.skip(length)
            return None
        return source.take(length).decode("utf-8", "replace")
    if kind == _LIST:
        return _list(source, depth)
    if kind not in _SCALARS:
        raise BrokenModel(f"its header holds a value of unknown type {kind}")
    return source.number(_SCALARS[kind])


def _list(source: _Source, depth: int) -> list[Any] | None:
    kind: int = source.number("<I")
    count: int = source.number("<Q")
    if count > MOST_ITEMS or depth >= DEEPEST_LIST:
        raise BrokenModel(f"its header claims a list of {count} values at depth {depth}")
    if count <= LONGEST_LIST_KEPT:
        return [_value(source, kind, depth + 1) for _ in range(count)]
    if kind in _SCALARS:
        source.skip(count * struct.calcsize(_SCALARS[kind]))
    else:
        for _ in range(count):
            if kind == _STRING:
                source.skip(source.number("<Q"))
            else:
                _value(source, kind, depth + 1)
    return None


def _tensor(source: _Source) -> Tensor:
    name = source.name()
    dimensions: int = source.number("<I")
    if dimensions > 4:
        raise BrokenModel(f"a tensor is said to have {dimensions} dimensions")
    shape = tuple(source.number("<Q") for _ in range(dimensions))
    if math.prod(shape) >= 2**63:
        raise BrokenModel("a tensor is impossibly large")
    return Tensor(name, shape, source.number("<I"), source.number("<Q"))


def _check_data(header: Header, source: _Source) -> None:
    """Does all the data lie inside the file? A download that was cut short does not."""
    alignment = header.number("general.alignment") or 32
    if alignment <= 0 or alignment > 2**20:
        raise BrokenModel(f"its header asks for an alignment of {alignment}")
    begin = -(-source.position // alignment) * alignment
    needed = max((begin + t.offset + (t.size_bytes or 0) for t in header.tensors), default=0)
    if needed > source.size:
        raise BrokenModel(f"the file is truncated: it has {source.size} bytes, its tensors need {needed}")
