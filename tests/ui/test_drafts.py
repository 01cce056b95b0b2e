"""A growing text as HTML: what is drawn stays as it is, and none of it is a model's own HTML."""

from __future__ import annotations

import pytest

from arena.ui import drafts
from arena.ui.drafts import Draft, Frame, for_script, renderer
from tests.fake_ollama.payloads import XSS

TEXT = (
    "# Title\r\n\r\nOne *two* three,\nfour.\n\n- a\n- b\n\n  more of b\n\n```python\nx = '<b>'\n\ny = 2\n```\n\n"
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n> quoted\n\nThe end."
)


def grown(text: str, piece: int = 1) -> Draft:
    draft = Draft(renderer())
    for end in range(piece, len(text) + piece, piece):
        draft.grow(text[:end])
    return draft


@pytest.mark.parametrize("piece", [1, 3, 17, 1000])
def test_however_a_text_grows_it_ends_as_it_would_at_once(piece: int) -> None:
    draft = grown(TEXT, piece)
    assert draft.blocks + draft.last == renderer().render(TEXT)
    assert draft.rest == ""


def test_blocks_only_grow() -> None:
    draft, before = Draft(renderer()), ""
    for end in range(1, len(TEXT) + 1):
        draft.grow(TEXT[:end])
        assert draft.blocks.startswith(before)
        before = draft.blocks
    assert "<h1>Title</h1>" in before
    assert "<code>" not in draft.last


def test_a_long_block_is_rendered_seldom_and_what_came_since_is_plain() -> None:
    calls = 0
    markdown = renderer()
    parse = markdown.parse

    def counted(text: str) -> object:
        nonlocal calls
        calls += 1
        return parse(text)

    markdown.parse = counted  # type: ignore[method-assign,assignment]
    draft, text = Draft(markdown), ""
    for _ in range(2000):
        text += "word "
        draft.grow(text)
        assert text.endswith(draft.rest)
    assert calls < 120
    assert len(draft.rest) <= len(text) / drafts.SELDOM


def test_nothing_yet_is_nothing() -> None:
    draft = grown("\n\n \n")
    assert (draft.blocks, draft.last) == ("", "")


@pytest.mark.parametrize("evil", XSS)
def test_no_html_of_a_model_is_drawn(evil: str) -> None:
    draft = grown(f"{evil}\n\nand\n\n{evil}", 7)
    html = (draft.blocks + draft.last).lower()
    for mark in ("<script", "<img", "<svg", "<iframe", "<style", "<form", "<math", 'href="javascript', 'href="data'):
        assert mark not in html


def test_links_stay_and_pictures_become_links() -> None:
    html = grown("[a](https://a.example) ![b](https://b.example/x.png)").last
    assert '<a href="https://a.example">a</a>' in html
    assert "<img" not in html


def test_the_script_finds_a_frame_by_its_columns_element() -> None:
    frame = Frame(1.5, "<p>a</p>", "", "", "", "<div></div>")
    told = {"turn": 1.5, "blocks": "<p>a</p>", "last": "", "rest": "", "thought": "", "status": "<div></div>"}
    assert for_script({"A": frame}) == {"a": told}
