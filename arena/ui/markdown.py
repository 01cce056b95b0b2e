"""Makes other people's Markdown harmless before the page renders it: no HTML, no pictures from elsewhere.

The sanitiser of the chat and the headers of the server stand behind this; neither is asked to be the only line.
"""

from __future__ import annotations

import re

_CODE = re.compile(r"(```[\s\S]*?(?:```|\Z)|~~~[\s\S]*?(?:~~~|\Z)|`[^`\n]+`)")
_OPENING = re.compile(r"(`{3,}(?=[^`]*$)|~{3,})")
_CLOSING = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def safe_markdown(text: str) -> str:
    """`text` with HTML shown instead of interpreted and pictures turned into links; code is left as it is."""
    if "<" not in text and "![" not in text:
        return text
    return "".join(part if index % 2 else _plain(part) for index, part in enumerate(_CODE.split(text)))


def _plain(text: str) -> str:
    return _TAG.sub("&lt;", text).replace("![", "[image: ")


def quoted(text: str) -> str:
    """`text` as a block quote for a file: its headings stay inside, and no viewer finds HTML or pictures in it.

    No sanitiser stands behind a file, so only what every viewer takes for code is left as it is: fenced blocks that
    begin at the margin, where no list can end them early.
    """
    lines, fence = [], ""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if fence:
            lines.append(line)
            closing = _CLOSING.fullmatch(line)
            fence = "" if closing and closing[1].startswith(fence) else fence
        else:
            opening = _OPENING.match(line)
            fence = opening[1] if opening else ""
            lines.append(_plain(line))
    return "\n".join(f"> {line}".rstrip() for line in lines)


def in_line(text: str) -> str:
    """`text` as a part of one line, without HTML and pictures."""
    return _plain(" ".join(text.split()))
