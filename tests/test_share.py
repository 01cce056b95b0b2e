"""Pages to send around: whole, harmless, and silent about the models when they are to be."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from arena.battle import without_names
from arena.leaderboard import Leaderboard, View
from arena.share import Answer, Round, answers_page, battle_page, board_page
from arena.share.page import POLICY
from arena.store import Side, Store, StoredBattle
from arena.types import Configuration, Verdict, Vote

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
EVIL = "</style></title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
MARKDOWN = "# Title\n\n![p](http://evil.example/p.png) [good](http://good.example) [bad](javascript:alert(1)) <b>x</b>"


class Tags(HTMLParser):
    """The elements of a document with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said += data


def harmless(text: str) -> Tags:
    """The document, once it is sure that it runs and fetches nothing."""
    found = Tags(text)
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "img", "iframe", "object", "embed", "link", "form", "base", "video", "svg"}, names
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "background")]
        assert not re.match(r"\s*(javascript|data|file):", attributes.get("href") or "")
        assert tag != "meta" or attributes.get("http-equiv") in (None, "Content-Security-Policy")
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert not re.search(r"url\(|@import|expression", style)
    assert "prefers-color-scheme: dark" in style
    assert POLICY in text
    assert text.startswith("<!doctype html>")
    return found


def test_answers_are_markdown_and_all_else_is_text() -> None:
    answers = (
        Answer(EVIL, f"{MARKDOWN}\n\n{EVIL}", EVIL, EVIL, EVIL, best=True),
        Answer("B", "| a | b |\n|---|---|\n| 1 | ~~2~~ |"),
        Answer("C", ""),
    )
    found = harmless(answers_page(EVIL, [EVIL], [Round(EVIL, answers), Round("Two?", answers[:1])], NOW))
    links = [attributes["href"] for tag, attributes in found.tags if tag == "a"]
    assert links == ["http://evil.example/p.png", "http://good.example"] * 2, "a picture is only a link"
    assert found.said.count(EVIL) == 4 + 2 * 5
    for said in ("Prompt 1", "Prompt 2", "No answer.", "2026-01-02 03:04 UTC"):
        assert said in found.said
    assert {"table", "s", "h1"} <= {tag for tag, _ in found.tags}


def side(model: str, *answers: str) -> Side:
    metrics = {"tokens": 1234, "tokens_per_sec": 5.5, "rate_reliable": True, "ttft_s": 0.25}
    of = Configuration(f"c-{model}", model, "sha", {}, "gpu", f"{model}, temperature 0.2")
    return Side(of, answers, (metrics,) * len(answers), ({"model": model, "endpoint": "gpu"},) * len(answers))


def fought(**verdicts: Verdict) -> tuple[list[Vote], StoredBattle]:
    """A battle over two turns with these verdicts by pair."""
    models = {"a": "llama3.2:3b", "b": "qwen2.5:3b", "c": "mistral:7b"}
    letters = sorted({letter for pair in verdicts for letter in pair})
    sides = {letter: side(models[letter], "Hi", f"I am {models[letter]}, Llama by Meta AI") for letter in letters}
    votes = [
        Vote("b", "2026-01-01T00:00:00.000+00:00", "", "", "", "", verdict, pair=pair, sides=len(letters))
        for pair, verdict in verdicts.items()
    ]
    return votes, StoredBattle("b", "2026-01-01", "installed", ("One?", "Two?"), sides)


def test_a_battle_tells_who_fought() -> None:
    found = harmless(battle_page(*fought(ab="b"), now=NOW))
    for said in (
        "Verdict: B is best",
        "A: llama3.2:3b",
        "temperature 0.2",
        "1,234 tokens, 5.5 tokens/s, first token 0.25 s",
    ):
        assert said in found.said
    assert [attributes for tag, attributes in found.tags if tag == "article"] == [{}, {}, {}, {"class": "best"}]


def test_masked_it_tells_nothing_of_them() -> None:
    text = battle_page(*fought(ab="b"), masked=True, now=NOW)
    found = harmless(text)
    assert not re.search(
        r"llama|qwen|meta ai|alibaba|tokens|temperature|gpu|sha",
        text.partition("<main>")[2].partition("</main>")[0],
        re.I,
    )
    assert "not named here" in found.said
    assert "I am ████" in found.said


def test_masked_it_hides_the_family_that_an_alias_does_not_tell() -> None:
    votes, battle = fought(ab="b")
    manifests = ({"model": "my-bot", "endpoint": "gpu", "family": "llama"}, {"model": "my-bot", "family": None})
    alias = Side(
        Configuration("c", "my-bot", "sha", {}, "gpu", "my-bot"), ("Hi", "I am Llama by Meta AI"), (), manifests
    )
    plain = Side(battle.sides["b"].configuration, ("Hi", "Hello"))
    battle = StoredBattle("b", "2026-01-01", "installed", battle.prompts, {"a": alias, "b": plain})
    assert "I am ████ by ████" in harmless(battle_page(votes, battle, masked=True, now=NOW)).said


@pytest.mark.parametrize(
    ("answer", "masked"),
    [
        ("I am &#76;lama 3.2, and &lt;b&gt;", "I am ████, and &lt;b&gt;"),
        ("**Llama** 3.2-3B-Instruct, not `llama3.2:1b`.", "**██**██-Instruct, not `████`."),
        ("Llama 3.2 3B by Meta AI. 3 words.", "████ by ████. 3 words."),
        ("**Lla**ma and L*lam*a**3.2**, or __LLAMA__!", "**██**██ and ██*██*██**██**, or __████__!"),
        ("[L](http://llama.com)lama, l\\lama, L<b>lama", "[████, ████, ████"),
        ("L\u200blama, lla&#8203;ma, lla&shy;ma, \uff2c\uff4c\uff41\uff4d\uff41", "████, ████, ████, ████"),
        ("\U0001d40b\U0001d425\U0001d41a\U0001d426\U0001d41a\uff01", "████\uff01"),
        ("Small amas, all a *m* a", "Small amas, all a *m* a"),
    ],
)
def test_a_name_is_masked_with_its_version_however_it_is_spelled(answer: str, masked: str) -> None:
    assert without_names(answer, ["llama3.2:3b"]) == masked


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ({"ab": "tie"}, "Verdict: a tie"),
        ({"ab": "both_bad"}, "Verdict: both are bad"),
        ({"ab": "both_bad", "ac": "both_bad", "bc": "both_bad"}, "Verdict: all are bad"),
        ({"ab": "b", "ac": "tie", "bc": "a"}, "Verdict: B is best"),
        ({"ab": "tie", "ac": "a", "bc": "a"}, "Verdict: A and B are best"),
        ({"ac": "b"}, "Verdict: C is best"),
    ],
)
def test_every_verdict_has_its_words(verdicts: dict[str, Any], said: str) -> None:
    assert said in harmless(battle_page(*fought(**verdicts), now=NOW)).said


def test_places_stand_beside_the_names() -> None:
    found = harmless(battle_page(*fought(ab="b", ac="tie", bc="a"), now=NOW))
    assert found.said.count("place 2") == 2
    assert found.said.count("★ best") == 1


def test_the_leaderboard_with_names_and_without(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'votes.sqlite3'}")
    leaderboard = Leaderboard(store)
    assert "Nobody has voted yet." in harmless(board_page(leaderboard.board(), now=NOW)).said
    at = "2026-01-01T00:00:00.000+00:00"
    store.add_votes(Vote(f"b{n}", at, "x", "y", EVIL, "n", "a", voter=f"v{n}", category="go") for n in range(30))
    view = View(blind=False, category="go", tag=None, since="2025-01-01", until="2027-01-01", voters=None)
    told = harmless(board_page(leaderboard.board(view), now=NOW))
    assert EVIL in told.said
    assert (
        "30 votes by 30 voters. Blind votes and others, category go, from 2025-01-01, before 2027-01-01." in told.said
    )
    masked = board_page(leaderboard.board(), masked=True, now=NOW)
    assert "Model 2" in harmless(masked).said
    assert "onerror" not in masked
    for view in (View(tag="t", voters=("v1",)), View(style=True)):
        harmless(board_page(leaderboard.board(view), now=NOW))
    store.close()
