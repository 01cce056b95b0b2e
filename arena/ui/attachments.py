"""Files that the user attaches: text goes into the prompt, pictures beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from arena.errors import BadRequest

_IMAGES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}
MAX_TEXT_BYTES = 2 * 1024 * 1024
"""Largest text file that is put into a prompt, in bytes."""


class Attachment(Struct, frozen=True):
    """One attached file. `content` is the text, or the picture as bare base64; `path` is where the upload lies.

    One that was kept with its conversation has neither: only its `sha256` is known.
    """

    name: str
    kind: Literal["text", "image"]
    size_bytes: int
    content: str
    path: str = ""
    sha256: str = ""


def read(paths: Sequence[str]) -> tuple[Attachment, ...]:
    """Read the uploaded files. Raises BadRequest naming the file that is neither text nor a picture."""
    return tuple(_read(Path(path)) for path in paths)


def _read(path: Path) -> Attachment:
    data = path.read_bytes()
    if any(data.startswith(magic) for magic in _IMAGES):
        return Attachment(path.name, "image", len(data), base64.b64encode(data).decode("ascii"), str(path))
    if len(data) > MAX_TEXT_BYTES:
        raise BadRequest(f"{path.name} is too long for a prompt: at most {MAX_TEXT_BYTES // 1024**2} MiB of text.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise BadRequest(f"{path.name} is neither text nor a PNG, JPEG, GIF or WebP picture.")
    return Attachment(path.name, "text", len(data), text, str(path))


def inlined(prompt: str, attachments: Sequence[Attachment]) -> str:
    """The prompt with the text of the files before it, each between lines that name it."""
    texts = [
        f"--- {item.name} ---\n{item.content.rstrip()}\n--- end of {item.name} ---"
        for item in attachments
        if item.kind == "text"
    ]
    return "\n\n".join([*texts, prompt]).strip()
