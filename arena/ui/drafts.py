"""An answer while it grows, as the page's script draws it: blocks that are complete once, the last one as far as it is.

Gradio would lay a whole conversation out again for every frame. So while an answer grows, its chat keeps still; the
frames go through one small component, and the script appends what is new. The chat gets the answer when it has ended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from markdown_it import MarkdownIt
from msgspec import Struct

from arena.ui.markdown import safe_markdown

OFTEN = 300
"""A last block of up to so many characters is rendered anew at every frame."""
SELDOM = 8
"""A longer one is rendered anew when it has grown by this fraction of itself (one in so many parts)."""

_NEWLINE = re.compile(r"\r\n?|\n")


class Frame(Struct, frozen=True):
    """What the script needs to draw one growing answer; every frame holds all of it, so that none has to arrive.

    `turn` tells one answer from the next. `blocks` and `last` are harmless HTML: blocks that will not change, and the
    last one as it was lately; `rest` is plain text that came since, and so is `thought`.
    """

    turn: float
    blocks: str
    last: str
    rest: str
    thought: str
    status: str


def for_script(frames: Mapping[str, Frame]) -> Any:
    """Frames by column as the value of the component that carries them, keyed as the columns' elements are named."""
    return msgspec.to_builtins({letter.lower(): frame for letter, frame in frames.items()})


def renderer() -> MarkdownIt:
    """Markdown as the chat understands it, without HTML and without pictures; its links go nowhere but to the web."""
    options = {"html": False, "breaks": True}
    return MarkdownIt("commonmark", options).enable(["table", "strikethrough"]).disable("image")


class Draft:
    """How far a growing text is rendered."""

    def __init__(self, markdown: MarkdownIt) -> None:
        self._markdown = markdown
        self._settled = 0  # characters of the text that are in `blocks`
        self._rendered = 0  # ... and in `last`
        self.blocks = ""
        self.last = ""
        self.rest = ""

    def grow(self, text: str) -> None:
        """Take over a text that begins with what it was before."""
        growing, shown = len(text) - self._settled, self._rendered - self._settled
        if growing <= OFTEN or growing - shown > shown // SELDOM:
            self._render(text)
        self.rest = text[self._rendered :]

    def _render(self, text: str) -> None:
        pending = text[self._settled :]
        tokens = self._markdown.parse(safe_markdown(pending))
        starts = [(at, token.map[0]) for at, token in enumerate(tokens) if token.level == 0 and token.map is not None]
        self._rendered = len(text)
        if not starts:
            self.last = ""
            return
        first_token, line = starts[-1]
        render = self._markdown.renderer.render
        self.blocks += render(tokens[:first_token], self._markdown.options, {})
        self.last = render(tokens[first_token:], self._markdown.options, {})
        self._settled += _line_offset(pending, line)


def _line_offset(text: str, line: int) -> int:
    """Where line number `line` of `text` begins."""
    return [0, *(newline.end() for newline in _NEWLINE.finditer(text))][line]
