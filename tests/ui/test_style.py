"""Rules of the style sheets that Gradio would bend: it sets its own prefix before every selector of a rule."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

SHEETS = ("style.css", "sheets.css", "battle.css", "leaderboard.css")


def selectors(sheet: str) -> list[list[str]]:
    """The selectors of every rule in one of the page's style sheets."""
    text = re.sub(r"/\*.*?\*/", "", files("arena.ui").joinpath(sheet).read_text("utf-8"), flags=re.DOTALL)
    return [[one.strip() for one in rule.split(",")] for rule in re.findall(r"([^{};]+)\{", text) if "@" not in rule]


@pytest.mark.parametrize("sheet", SHEETS)
def test_no_rule_asks_for_what_stands_before_the_prefix(sheet: str) -> None:
    rules = selectors(sheet)
    assert len(rules) > 50
    assert [rule for rule in rules for one in rule if re.match("body.", one)] == [], "the page's marks are on its tab"
    later = [rule for rule in rules if any(one.startswith(".dark") for one in rule[1:])]
    assert later == [], "a dark colour is a rule of its own: only its first selector would count"
