"""The comparison as a file: nothing of an answer is lost, and nothing in it breaks the file."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from arena.kept import FORMAT
from arena.types import Manifest
from arena.ui.attachments import Attachment
from arena.ui.export import as_html, as_json, as_markdown
from tests.test_share import harmless
from tests.ui.pieces import EVIL, FULL, failed, session_with, turn, with_manifest

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_json_has_every_visible_column_with_figures_and_manifest() -> None:
    picture = Attachment("p.png", "image", 3, "aGk=")
    session = session_with(
        A=[with_manifest(turn(text="Because", thinking="hm", metrics=FULL, attachments=(picture,)))],
        B=[turn("B", "Be", error=failed("upstream_eof"))],
        C=[turn("C")],
    )
    session.close("C")
    document = json.loads(as_json(session, NOW))
    assert document["format"] == FORMAT
    assert document["exported_at"] == "2026-01-02T03:04:05+00:00"
    first, second = (column["turns"][0] for column in document["columns"])
    assert first["answer"] == "Because"
    assert first["thinking"] == "hm"
    assert first["complete"] is True
    assert first["metrics"]["tokens"] == 120
    assert first["manifest"]["digest"] == "d" * 64
    assert first["instance"]["options"] == {"temperature": 0.3}
    assert first["attachments"][0]["name"] == "p.png"
    assert "aGk=" not in json.dumps(document)
    assert (second["complete"], second["error"]["code"]) == (False, "upstream_eof")


def test_markdown_has_prompt_table_answers_and_manifest() -> None:
    session = session_with(
        A=[with_manifest(turn(text="# Because", thinking="hm", metrics=FULL))],
        B=[turn("B", error=failed("timeout", "No answer."))],
    )
    text = as_markdown(session, NOW)
    assert "## 1. Prompt\n\n> Why?\n" in text
    assert "| A | m | temperature 0.3 | 120 | 60.0 | 0.50 s | 0.40 s |  |" in text
    assert "> # Because" in text
    assert "<summary>Thinking</summary>" in text
    assert "<summary>Manifest</summary>" in text
    assert "*No answer.*" in text
    assert "*timeout: No answer.*" in text


def test_columns_that_were_asked_differently_show_their_own_prompts() -> None:
    files = (Attachment("a|b.txt", "text", 1, "x"),)
    session = session_with(A=[turn(prompt="one", metrics=FULL, attachments=files)], B=[turn("B", prompt="two")])
    text = as_markdown(session, NOW)
    assert "### A: m\n\n> one\n\nAttached: a|b.txt" in text
    assert "### B: m\n\n> two" in text


def test_a_name_with_a_bar_does_not_break_the_table() -> None:
    assert r"| a\|b |" in as_markdown(session_with(A=[turn(model="a|b")]), NOW)


def test_columns_may_have_different_numbers_of_turns() -> None:
    session = session_with(A=[turn(metrics=FULL), turn(prompt="And?", metrics=FULL)], B=[turn("B", metrics=FULL)])
    assert as_markdown(session, NOW).count("### B") == 1


def test_nothing_asked_is_a_short_file() -> None:
    assert as_markdown(session_with(A=[]), NOW).startswith("# Comparison\n")
    assert json.loads(as_json(session_with(A=[])))["columns"] == [{"id": "A", "turns": []}]


def test_nothing_in_the_file_loads_a_picture_or_is_html() -> None:
    evil = "<img src=http://a> ![x](http://a)"
    files = (Attachment(evil, "text", 1, "x"),)
    told = turn(prompt=evil, text=evil, thinking=f"{evil}</details>", model=evil, attachments=files)
    text = as_markdown(session_with(A=[told], B=[turn("B", error=failed("timeout", evil))]), NOW)
    assert "<img" not in text
    assert "![" not in text
    assert text.count("</details>") == text.count("<details>") == 1


def test_html_has_every_prompt_with_its_answers() -> None:
    chosen = turn(text="# Because", metrics=FULL, model="llama3.2:3b")
    chosen.ballot = "best"
    session = session_with(
        A=[chosen, turn(text="Yes", metrics=FULL, prompt="And?")],
        B=[turn("B", EVIL, error=failed("upstream_eof"), model=EVIL, prompt=EVIL)],
    )
    found = harmless(as_html(session, now=NOW))
    for said in (
        "A: llama3.2:3b",
        "★ best",
        "temperature 0.3",
        "120 tokens, 60.0 tokens/s, first token 0.50 s",
        "Prompt 3",
    ):
        assert said in found.said
    assert "upstream_eof: It did not work." in found.said
    assert found.said.count(EVIL) == 3


def test_masked_html_tells_no_model_and_no_figure() -> None:
    session = session_with(
        A=[turn(text="I am Llama", metrics=FULL, model="llama3.2:3b")],
        B=[turn("B", "Not llama3.2:3b but Qwen by Alibaba", metrics=FULL, model="qwen2.5:3b")],
    )
    body = as_html(session, masked=True, now=NOW).partition("<main>")[2].partition("</main>")[0]
    assert not [word for word in ("llama", "qwen", "alibaba", "tokens", "temperature") if word in body.lower()]
    assert "Not ████" in body
    assert "Comparison" in as_html(session_with(A=[]), masked=True, now=NOW)


@pytest.mark.parametrize("manifest", [Manifest("qwen2.5:3b", "host"), Manifest("fast", "host", family="qwen2")])
def test_masked_html_tells_nothing_of_what_an_alias_stands_for(manifest: Manifest) -> None:
    told = turn(text="I am Qwen", metrics=FULL, model="fast")
    told.reply.manifest = manifest
    body = as_html(session_with(A=[told]), masked=True, now=NOW)
    assert "I am ████" in body
    assert "qwen" not in body.lower()
