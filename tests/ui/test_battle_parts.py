"""What the battle tab shows: nothing about anybody before the vote, everything after it, and what to press when."""

from __future__ import annotations

import re
from typing import Any

import pytest

from arena.battle import Shown
from arena.errors import Unreachable
from arena.ratings import Rating
from arena.ui import battle_parts as parts
from arena.ui import battle_table
from arena.ui.battle import label_of, ranks_of
from arena.ui.battle_table import BEFORE, ENDS, LEFT, NOT_ALL, Table, Tables
from tests.ui.battles import asked, known, ready, voted
from tests.ui.pieces import EVIL


def text(html: str) -> str:
    """What one reads, without tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)).strip()


def keys(html: str) -> list[str]:
    return re.findall(r'data-key="([^"]*)"', html)


def failed(why: str = "") -> Table:
    table = asked()
    table.fail(why)
    return table


def rated(model: str, **changes: Any) -> Rating:
    values: dict[str, Any] = {
        "name": model, "model": model, "rating": 1034.4, "lower": 950.2, "upper": 1100.0, "rank": 1, "rank_best": 1,
        "rank_worst": 3, "votes": 1200, "weight": 1.0, "wins": 1, "losses": 0, "ties": 0, "both_bad": 0,
        "win_rate": 1.0, "preliminary": False, **changes,
    }  # fmt: skip
    return Rating(**values)


# ---- before the vote


@pytest.mark.parametrize("table", [Table(), asked(), ready(), failed()], ids=["idle", "answering", "ready", "failed"])
def test_before_the_vote_the_sides_differ_by_their_letter_alone(table: Table) -> None:
    assert parts.head(table, "a").replace("Model A", "Model B") == parts.head(table, "b")
    assert parts.figures(table) == {}
    assert parts.standings(table) == ""


def test_the_sides_share_one_status_line() -> None:
    table = asked()
    table.said["a"][-1] = table.said["b"][-1] = ""
    assert 'data-state="reading" data-live="true"' in parts.status(table, 3.4)
    assert text(parts.status(table, 3.4)) == "waiting until both have begun 3 s"
    three = asked(sides="abc")
    three.said = {side: [""] for side in "abc"}
    assert text(parts.status(three, 3.4)) == "waiting until all 3 have begun 3 s"
    table.hear(Shown("b", "Well"))
    assert text(parts.status(table, 4.0)) == "writing 4 s"
    assert text(parts.status(ready(), 4.0)) == "complete"
    assert text(parts.status(failed(), 4.0)) == "no result"
    assert text(parts.status(Table(), 4.0)) == ""


def test_the_vote_of_two_sides_has_four_buttons_with_their_keys() -> None:
    shown = parts.ballot(ready())
    assert keys(shown) == ["1", "0", "9", "2"]
    assert re.findall(r'data-verdict="(\w+)"', shown) == ["a", "tie", "both_bad", "b"]
    assert text(shown).startswith("1 A is better 0 Tie 9 Both bad 2 B is better Not sure yet?")
    assert f'data-battle="{"b" * 32}"' in shown
    assert "Press 1 if A is better" in parts.say(ready())


def test_more_sides_are_put_in_order() -> None:
    table = ready(sides="abc")
    shown = parts.ballot(table)
    assert keys(shown) == ["1", "2", "3", "0", "9", "=", "Backspace", "Enter"]
    assert re.findall(r'data-rank="(\w)"', shown) == ["a", "b", "c"]
    assert "All 3 answers are complete." in parts.say(table)


def test_while_they_answer_there_is_nothing_but_a_way_to_stop() -> None:
    shown = parts.ballot(asked())
    assert keys(shown) == ["Escape"]
    assert 'data-action="stop"' in shown
    assert parts.say(asked(sides="abcd")) == "All 4 sides answer."


def test_a_battle_that_failed_says_so_and_leads_on() -> None:
    assert keys(parts.ballot(failed())) == ["n", "r"]
    assert parts.OVER in parts.ballot(failed())
    assert parts.OVER in parts.say(failed())
    assert "stays hidden" in parts.head(failed(), "a")
    told = parts.ballot(failed("You <stopped> it"))
    assert "You &lt;stopped&gt; it" in told
    assert parts.OVER not in text(told)


def test_the_chat_leaves_the_growing_answer_to_the_script() -> None:
    table = asked("One", "Two")
    assert [message["content"] for message in parts.chat(table, "a")] == ["One", "a says", "Two"]
    table.settle()
    assert [message["content"] for message in parts.chat(table, "a")][-1] == "a says"
    table.said["a"][-1] = ""
    assert "without a word" in parts.chat(table, "a")[-1]["content"]
    table.fail("")
    assert [message["role"] for message in parts.chat(table, "a")] == ["user", "assistant", "user"]
    assert parts.chat(table, "c") == []


def test_what_anyone_writes_in_a_battle_is_harmless() -> None:
    table = ready(EVIL)
    table.said["a"][-1] = EVIL
    assert all("<img" not in message["content"] for message in parts.chat(table, "a"))
    after = voted(EVIL, "b", revealed={"a": known(EVIL, label=f"{EVIL}, {EVIL}", endpoint=EVIL), "b": known("b")})
    after.ratings = {EVIL: rated(EVIL)}
    after.told = EVIL
    for html in (parts.head(after, "a"), parts.ballot(after), parts.standings(after), *parts.figures(after).values()):
        assert "<img" not in html
        assert "\"'" not in html


# ---- after the vote


def test_the_reveal_names_each_side_with_its_settings_and_figures() -> None:
    table = voted()
    assert text(parts.head(table, "a")) == "llama3.2:3b your choice temperature 0.2 3B Q4_K_M gpu1 A B"
    assert text(parts.head(table, "b")) == "qwen2.5:3b temperature 0.2 3B Q4_K_M gpu1 A B"
    shown = parts.figures(table)
    assert set(shown) == {"a", "b"}
    assert "20 tokens" in text(shown["a"])
    assert "20.0 tokens/s" in text(shown["a"])
    assert "answer 1.00 s" in text(shown["a"])
    assert "A was llama3.2:3b, temperature 0.2. B was qwen2.5:3b" in parts.say(table)
    assert keys(parts.ballot(table)) == ["n", "r"]
    assert f'href="api/battles/{table.battle_id}/page" download' in parts.ballot(table)
    assert f'href="api/battles/{table.battle_id}/page?masked=true" download' in parts.ballot(table)
    assert 'data-best="a"' in parts.ballot(table)
    assert "data-best" not in parts.ballot(voted(verdict="tie"))


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        ({}, "A is better"),
        ({"verdict": "b"}, "B is better"),
        ({"verdict": "tie"}, "a tie"),
        ({"verdict": "both_bad"}, "both are bad"),
    ],
)
def test_the_vote_is_told_in_words(outcome: dict[str, Any], told: str) -> None:
    assert text(parts.ballot(voted(**outcome))).startswith(f"Your vote: {told}. It is kept and counts for the ratings.")


@pytest.mark.parametrize(
    ("ranks", "told", "best"),
    [
        ({"a": 2, "b": 1, "c": 2}, "B > A = C", "b"),
        ({"a": 1, "b": 1, "c": 1}, "all are equal", ""),
        (None, "all are bad", ""),
        ({"a": 1, "b": 2, "c": 1}, "A = C > B", "ac"),
    ],
)
def test_ranks_are_told_in_words(ranks: dict[str, int] | None, told: str, best: str) -> None:
    table = voted("x", "y", "z", verdict=None, ranks=ranks)
    assert told in parts.ballot(table).replace("&gt;", ">")
    assert "".join(side for side in "abc" if "your choice" in parts.head(table, side)) == best


@pytest.mark.parametrize(("repeats", "told"), [(1, "a half"), (2, "a third"), (6, "a seventh"), (9, "an eighth")])
def test_a_prompt_that_was_asked_before_counts_less_and_says_so(repeats: int, told: str) -> None:
    two, three = voted(), voted("x", "y", "z", verdict=None, ranks={"a": 1, "b": 2, "c": 3})
    two.repeats = three.repeats = repeats
    assert f"counts {told}: you have compared these two on this prompt before." in parts.ballot(two)
    assert "counts less: you have compared some of these" in parts.ballot(three)


def test_a_vote_that_is_not_rated_says_why() -> None:
    assert "gave its model away or was cut before its first word" in parts.ballot(voted(rated=False))
    same = {"a": known("m"), "b": known("m")}
    assert "all sides were the same" in parts.ballot(voted("m", "m", rated=False, revealed=same))


def test_the_ratings_stand_beside_the_reveal_as_soon_as_they_are_known() -> None:
    table = voted()
    assert "standings" not in parts.ballot(table)
    table.ratings = {"llama3.2:3b": rated("llama3.2:3b", preliminary=True)}
    told = text(parts.ballot(table))
    assert "A llama3.2:3b 1034 950 to 1100 1\N{EN DASH}3 1,200 preliminary" in told
    assert "B qwen2.5:3b \N{EN DASH} not rated yet" in told
    table.ratings = {"llama3.2:3b": rated("llama3.2:3b", rank_worst=1)}
    assert "950 to 1100 1 1,200" in text(parts.standings(table))


# ---- words


def test_a_vote_that_is_not_kept_is_not_lost() -> None:
    assert parts.not_kept("The disk is full.", 1).endswith("in a moment. The disk is full.")
    assert parts.not_kept("The disk is full.", 3).endswith("Tried 3 times.")


@pytest.mark.parametrize("sides", ["ab", "abc"])
@pytest.mark.parametrize(("left", "said"), [(None, ""), (1, "your last vote today"), (3, "3 votes left today")])
def test_the_end_of_a_days_votes_is_told_before_the_vote(sides: str, left: int | None, said: str) -> None:
    table = ready(sides=sides)
    table.votes_left = left
    assert said in parts.ballot(table)
    assert ("midnight UTC" in parts.ballot(table)) is bool(said)


def test_too_few_models_are_told_with_the_remedy() -> None:
    assert "No model is installed" in parts.too_few([])
    assert "Only tiny:latest is installed" in parts.too_few(["tiny:latest"])
    assert "engine is starting" in parts.too_few([], starting=True)
    assert "your key may use none, and" in parts.too_few([], limited=True)
    assert parts.too_few([], error=Unreachable("desk is not reachable")).endswith(": desk is not reachable.")
    assert parts.too_few(["a", "b"], starting=True) == ""


@pytest.mark.parametrize(
    ("said", "taken"), [("  c++ ", "c"), ("maths!<b>", "maths b"), ("x" * 60, "x" * 40), ("R & D", "R D"), ("?", "")]
)
def test_labels_are_cut_to_what_the_ratings_take(said: str, taken: str) -> None:
    assert label_of(said) == taken


def test_an_order_becomes_places() -> None:
    assert ranks_of("b>a=c") == {"b": 1, "a": 2, "c": 2}
    assert ranks_of("") == {}


def test_who_can_export_battles_is_told_before_the_first() -> None:
    assert "Whoever may open this page can export them" in parts.kept_note(True)
    assert "Only who runs this server" in parts.kept_note(False)


# ---- tables


def test_tables_are_kept_for_pages_that_come_back_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(battle_table, "MOST_TABLES", 3)
    tables = Tables()
    names = ("running", "left", "idle")
    running, left, idle = (tables.of(name) for name in names)
    running.ask("Why?", 0.0)
    left.phase, left.left = "ready", True
    for name in "xyz":  # pages that were only opened
        tables.of(name)
    assert len(tables) == 3
    assert tables.of("running") is running
    assert tables.of("idle") is not idle
    for name in "xyz":
        tables.of(name).ask("Why?", 0.0)
    assert (left.told, running.told) == ("", f"{LEFT} {ENDS}"), (
        "left alone for longest of those under way; a left one just goes"
    )
    assert running.phase == "failed"
    tables.leave("nobody")


def test_only_the_same_person_gets_a_left_battle_back() -> None:
    tables = Tables()
    table = tables.of("old")
    table.begin("battle", ("a", "b"), "ann")
    assert tables.resume("new", "battle", "ann") is not table, "somebody still looks at it"
    tables.leave("old")
    assert tables.resume("other", "battle", "ben") is not table
    assert tables.resume("other", "", "ann") is not table
    assert tables.resume("new", "battle", "ann") is table
    assert tables.of("new") is table
    assert not table.left
    assert tables.of("old") is not table


def test_a_battle_that_was_left_in_the_middle_is_over_at_once() -> None:
    tables = Tables()
    table = tables.of("old")
    table.begin("battle", ("a", "b"), "ann")
    table.ask("Why?", 0.0)
    table.left = True  # and its answers are about to be stopped
    assert tables.resume("new", "battle", "ann").phase == "failed"
    table.settle()
    assert (table.phase, table.told) == ("failed", f"{LEFT} {ENDS}")


@pytest.mark.parametrize("sides", ["ab", "abc"])
def test_a_turn_that_came_to_nothing_can_be_asked_again_or_left_out(sides: str) -> None:
    table = ready("Why?", sides=sides)
    table.ask("And then?", 0.0)
    table.hear(Shown("a", "half of it"))
    table.settle()
    assert (table.phase, table.prompts, table.said["a"]) == ("ready", ["Why?"], ["a says"])
    table.hear(Shown("a", "a late word"))
    assert table.said["a"] == ["a says"]
    assert 'data-action="retry"' in parts.ballot(table)
    assert parts.say(table).startswith(f"{NOT_ALL} {BEFORE} Press")
    table.ask(table.again, 0.0)
    assert table.again == ""
