"""Makes other people's Markdown harmless before the page renders it: no HTML, no pictures from elsewhere.

The sanitiser of the chat and the headers of the server stand behind this; neither is asked to be the only line.
"""

from __future__ import annotations

import re

_CODE = re.compile(r"(```[\s\S]*?(?:```|\Z)|~~~[\s\S]*?(?:~~~|\Z)|`[^`\n]+`)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def safe_markdown(text: str) -> str:
    """`text` with HTML shown instead of interpreted and pictures turned into links; code is left as it is."""
    if "<" not in text and "![" not in text:
        return text
    return "".join(part if index % 2 else _plain(part) for index, part in enumerate(_CODE.split(text)))


def _plain(text: str) -> str:
    return _TAG.sub("&lt;", text).replace("![", "[image: ")


def quoted(text: str) -> str:
    """`text` as a block quote, so that its own headings stay inside."""
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))
