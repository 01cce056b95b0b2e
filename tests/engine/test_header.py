"""Reading a GGUF's header: what it says, and that no file, however broken, does harm."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from arena.engine.header import BrokenModel, read_header
from tests.engine.files import gguf_bytes

KEYS = {
    "general.architecture": "llama",
    "general.file_type": 7,
    "llama.context_length": 2048,
    "tokenizer.chat_template": "{{ messages }}",
    "general.languages": ["en", "de"],
    "tokenizer.ggml.tokens": [f"t{n}" for n in range(100)],
    "tokenizer.ggml.scores": [0.5] * 100,
}
GOOD = gguf_bytes(KEYS, {"a.weight": (64, 4), "b.weight": (64,)})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_reads_what_matters_and_skips_the_vocabulary(file: Path) -> None:
    file.write_bytes(GOOD)
    header = read_header(file)
    assert (header.architecture, header.quantization, header.parameters) == ("llama", "Q8_0", 320)
    assert header.of_architecture("context_length") == 2048
    assert header.chat_template == "{{ messages }}"
    assert header.keys["general.languages"] == ["en", "de"]
    assert header.keys["tokenizer.ggml.tokens"] is None
    assert header.keys["tokenizer.ggml.scores"] is None


def test_real_file(real: Path) -> None:
    header = read_header(real)
    assert (header.architecture, header.quantization, header.parameters) == ("llama", "Q4_1", 134_515_008)
    assert header.of_architecture("context_length") == 8192


def test_absent_values(file: Path) -> None:
    file.write_bytes(gguf_bytes({"general.file_type": "seven"}))
    header = read_header(file)
    assert (header.architecture, header.quantization, header.number("x")) == ("", "", None)


def nested(depth: int) -> bytes:
    """One key whose value is a list in a list in a list ..."""
    inner = struct.pack("<I", 4) + struct.pack("<QI", 1, 5)
    for _ in range(depth):
        inner = struct.pack("<IQ", 9, 1) + inner
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<I", 9) + inner


def one_key(kind: int, value: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<I", kind) + value


def one_tensor(dimensions: int, *rest: int) -> bytes:
    return (
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q", 1) + b"t"
        + struct.pack(f"<I{dimensions}QIQ", dimensions, *rest)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "only 0 bytes"),
        (b"GGUF", "only 4 bytes"),
        (b"NOPE" + GOOD[4:], "not a GGUF model"),
        (b"<html>" * 10, "not a GGUF model"),
        (GOOD[:4] + struct.pack("<I", 99) + GOOD[8:], "version 99"),
        (GOOD[:100], "ends inside its header"),
        (GOOD[:-40], "truncated"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**60), "a name"),
        (one_key(99, b""), "unknown type 99"),
        (one_key(8, struct.pack("<Q", 2**62)), "ends inside its header"),
        (one_key(9, struct.pack("<IQ", 8, 2**50)), "claims a list"),
        (one_key(9, struct.pack("<IQ", 10, 2**24)), "ends inside its header"),
        (nested(10), "at depth"),
        (one_tensor(5, 1, 1, 1, 1, 1, 0, 0), "5 dimensions"),
        (one_tensor(2, 2**40, 2**40, 0, 0), "impossibly large"),
        (one_tensor(1, 2**40, 0, 0), "truncated"),
        (gguf_bytes({"general.alignment": 2**30}), "alignment"),
    ],
)
def test_says_what_is_wrong(file: Path, content: bytes, text: str) -> None:
    file.write_bytes(content)
    with pytest.raises(BrokenModel, match=text) as caught:
        read_header(file)
    assert str(file.parent) not in caught.value.message


def test_unknown_tensor_type_is_left_to_llama(file: Path) -> None:
    file.write_bytes(one_tensor(1, 32, 1000, 0) + b"\0" * 64)
    assert read_header(file).tensors[0].size_bytes is None


def test_overlong_text_and_lists_of_lists_are_skipped(file: Path) -> None:
    long_text = struct.pack("<Q", 2**21) + b"x" * 2**21
    file.write_bytes(one_key(8, long_text))
    assert read_header(file).keys["k"] is None
    lists = struct.pack("<IQ", 9, 100) + (struct.pack("<IQ", 0, 1) + b"\1") * 100
    file.write_bytes(one_key(9, lists))
    assert read_header(file).keys["k"] is None


def test_file_that_shrinks_while_it_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(GOOD)

    class Claimed:
        st_size = 10 * len(GOOD)

    with monkeypatch.context() as patch:
        patch.setattr("arena.engine.header.os.fstat", lambda _: Claimed)
        file.write_bytes(GOOD[:60])
        with pytest.raises(BrokenModel, match="shorter"):
            read_header(file)


def test_a_thousand_damaged_files(file: Path) -> None:
    """Whatever bits flip and wherever the file ends: a header, or BrokenModel, nothing else."""
    source = random.Random(7)
    broken = 0
    for _ in range(1000):
        data = bytearray(GOOD)
        for _ in range(source.randint(1, 8)):
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        if source.random() < 0.3:
            del data[source.randrange(len(data)) :]
        file.write_bytes(data)
        try:
            read_header(file)
        except BrokenModel:
            broken += 1
    assert 200 < broken < 1000
