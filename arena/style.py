"""What is striking about the look of an answer: its length and its Markdown, which sway votes whatever it says."""

from __future__ import annotations

import re
from collections.abc import Iterable

from arena.types import Style

_FENCED = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*\n.*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_TOKEN = re.compile(r"\w+|[^\w\s]")
_HEADER = re.compile(r"^ {0,3}#{1,6}(?:[ \t]|$)", re.MULTILINE)
_LIST = re.compile(r"^[ \t]*(?:[-*+]|[0-9]{1,9}[.)])[ \t]+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=\S)[^\n*]+?(?<=\S)\*\*|(?<!\w)__(?=\S)[^\n_]+?(?<=\S)__(?!\w)")


def counted(answers: Iterable[str]) -> Style:
    """Sums over the answers: words and signs (`tokens`, the same for every model), headings, list items, bold spans.

    The Markdown of fenced code is not looked at; its words are part of the length.
    """
    tokens = headers = lists = bold = 0
    for answer in answers:
        tokens += sum(1 for _ in _TOKEN.finditer(answer))
        prose = _FENCED.sub("", answer)
        headers += len(_HEADER.findall(prose))
        lists += len(_LIST.findall(prose))
        bold += len(_BOLD.findall(prose))
    return Style(tokens, headers, lists, bold)
