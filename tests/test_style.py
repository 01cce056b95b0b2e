"""What is counted of an answer's look."""

from __future__ import annotations

import pytest

from arena.style import counted
from arena.types import Style


@pytest.mark.parametrize(
    ("answer", "style"),
    [
        ("", Style()),
        ("Two plus two is four.", Style(6)),
        ("# One\n\n## Two\ntext", Style(6, headers=2)),
        ("#hashtag and #2", Style(5)),
        ("- a\n- b\n\n1. c\n2) d\n   * e", Style(12, lists=5)),
        ("3.14 is pi - or so", Style(8)),
        ("**bold** and __this__ but not ** this ** nor snake__case__name", Style(16, bold=2)),
        ("2 ** 3 ** 4", Style(7)),
        ("```sh\n# no heading\n- no list\n```\n# heading", Style(15, headers=1)),
        ("~~~\n**never closed", Style(7)),
        ("日本語 здравствуй", Style(2)),
    ],
)
def test_counts(answer: str, style: Style) -> None:
    assert counted([answer]) == style


def test_turns_are_summed() -> None:
    assert counted(["# a", "**b** c"]) == Style(8, headers=1, bold=1)


def test_a_hostile_answer_takes_no_time() -> None:
    for piece in ("**a", "```\n", "__", "#" * 7, "- ", " " * 9):
        assert counted([piece * 50_000]).bold < 50_000
