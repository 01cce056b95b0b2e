"""A second contestant out of the first: the same weights stored in 8 bits, `smollm2:135m-q8_0`.

It is made from the packaged file of about four bits and knows nothing more: size and speed differ, not quality.
Run as `python -m arena.engine.requantise SOURCE TARGET`, a process of its own: the gguf library maps the file and
computes for some seconds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

NAME = "smollm2:135m-q8_0"
BLOCK = 32  # numbers in one block of Q8_0
Q8_0_FILE_TYPE = 7


def requantise(source: Path, target: Path) -> None:
    """Write `source` again with its matrices as Q8_0; `target` appears whole or not at all."""
    import gguf

    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    writer = gguf.GGUFWriter(partial, architecture)
    _copy_keys(gguf, reader, writer)
    writer.add_file_type(Q8_0_FILE_TYPE)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, *_as_q8_0(gguf, tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, target)


def _copy_keys(gguf: Any, reader: Any, writer: Any) -> None:
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        item_kind = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, item_kind)


def _as_q8_0(gguf: Any, tensor: Any) -> tuple[Any, None, Any]:
    """The tensor's data and type: matrices become Q8_0, vectors (norms) stay as they are."""
    kinds = gguf.GGMLQuantizationType
    is_matrix = len([size for size in tensor.shape if size > 1]) >= 2 and tensor.shape[0] % BLOCK == 0
    if not is_matrix or tensor.tensor_type == kinds.Q8_0:
        return tensor.data, None, tensor.tensor_type
    numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return gguf.quants.quantize(numbers, kinds.Q8_0), None, kinds.Q8_0


if __name__ == "__main__":
    requantise(Path(sys.argv[1]), Path(sys.argv[2]))
