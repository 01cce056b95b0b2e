"""Attached files: text is put into the prompt, pictures go beside it, anything else is refused by name."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from arena.errors import BadRequest
from arena.ui import attachments
from arena.ui.attachments import Attachment, inlined, read

PNG = b"\x89PNG\r\n\x1a\nrest"


def test_text_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes("\ufeffGrüße".encode())
    (item,) = read([str(tmp_path / "a.md")])
    assert (item.name, item.kind, item.content) == ("a.md", "text", "Grüße")


def test_a_picture_is_told_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "odd.txt").write_bytes(PNG)
    (item,) = read([str(tmp_path / "odd.txt")])
    assert item.kind == "image"
    assert base64.b64decode(item.content) == PNG


@pytest.mark.parametrize("data", [b"%PDF-1.7\xff\xfe", b"a\0b"])
def test_other_files_are_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(BadRequest, match=r"x\.bin is neither text nor"):
        read([str(tmp_path / "x.bin")])


def test_a_text_too_long_for_a_prompt_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments, "MAX_TEXT_BYTES", 4)
    (tmp_path / "x.txt").write_text("12345")
    with pytest.raises(BadRequest, match="too long"):
        read([str(tmp_path / "x.txt")])


def test_texts_stand_before_the_prompt_between_lines_that_name_them() -> None:
    files = (Attachment("a.txt", "text", 2, "A\n"), Attachment("p.png", "image", 2, "aGk="))
    assert inlined("Why?", files) == "--- a.txt ---\nA\n--- end of a.txt ---\n\nWhy?"
    assert inlined("Why?", ()) == "Why?"
