"""Markdown from elsewhere: shown as it was written, never as HTML, never fetching."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.ui.markdown import in_line, quoted, safe_markdown


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a < b and 1<2", "a < b and 1<2"),
        ("<b>x</b>", "&lt;b>x&lt;/b>"),
        ("<!-- x -->", "&lt;!-- x -->"),
        ("use `<div>` here", "use `<div>` here"),
        ("```html\n<p>\n```\n<p>", "```html\n<p>\n```\n&lt;p>"),
        ("```html\n<p> still open", "```html\n<p> still open"),
        ("~~~\n<p>\n~~~", "~~~\n<p>\n~~~"),
        ("![x](http://a/b.png)", "[image: x](http://a/b.png)"),
        ("`![x](y)`", "`![x](y)`"),
        ("plain", "plain"),
    ],
)
def test_html_is_shown_and_pictures_become_links(text: str, safe: str) -> None:
    assert safe_markdown(text) == safe


@given(st.text(st.characters(codec="utf-8", exclude_characters="`~")))
def test_no_tag_and_no_picture_is_left_outside_code(text: str) -> None:
    safe = safe_markdown(text)
    assert "![" not in safe
    assert not any(safe[i] == "<" and (safe[i + 1].isascii() and safe[i + 1].isalpha()) for i in range(len(safe) - 1))


def test_a_quote_keeps_headings_inside() -> None:
    assert quoted("# a\n\nb") == "> # a\n>\n> b"
    assert quoted("") == ">"


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("<p>\r\n![x](y)\r<b>", "> &lt;p>\n> [image: x](y)\n> &lt;b>"),
        ("```html\n<p>\n```\n<p>", "> ```html\n> <p>\n> ```\n> &lt;p>"),
        ("````\n```\n<p>\n`````  \n<p>", "> ````\n> ```\n> <p>\n> `````\n> &lt;p>"),
        ("~~~ a`b\n<p>\n```\n<p>", "> ~~~ a`b\n> <p>\n> ```\n> <p>"),
        ("said ``` <p>", "> said ``` &lt;p>"),
        ("``` not ` a fence <p>\n<p>", "> ``` not ` a fence &lt;p>\n> &lt;p>"),
        ("- x\n\n  ```\n<p>", "> - x\n>\n>   ```\n> &lt;p>"),
        ("`a\\` <p> `b`", "> `a\\` &lt;p> `b`"),
    ],
)
def test_a_quote_leaves_only_sure_code_as_it_is(text: str, quote: str) -> None:
    assert quoted(text) == quote


def test_a_part_of_a_line_stays_in_its_line() -> None:
    assert in_line("a\n\n# b <i>  ![c](d)") == "a # b &lt;i> [image: c](d)"
