"""What is seen before the vote: the pace, the seal, whose battle it is, and what is forgotten."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from arena.arena import Arena
from arena.battle import Battles, Contest, Shown, Voter
from arena.battle.battle import Battle
from arena.battle.battles import IDLE_S, MAX_PER_VOTER
from arena.battle.pace import LEAST_CHARACTERS, Pace, SideName
from arena.errors import Conflict, NotFound, TooManyRequests
from arena.streaming import Reply
from arena.types import Manifest, Metrics, ModelInstance, Options
from tests.battle.conftest import ANN, BEN, THREE, TWO, Clock, at_once, between, shown_of
from tests.fake_ollama import FakeOllama, text_said_by

LONG = "x" * 2000

# ---- the pace


def lengths(pace: Pace) -> tuple[int, int]:
    shown = {each.side: len(each.text) for each in pace.take(0.0)}
    return shown.get("a", 0), shown.get("b", 0)


def test_neither_side_is_ahead_of_the_other() -> None:
    pace = Pace(TWO, step=10)
    pace.put("a", "x" * 25)
    assert lengths(pace) == (0, 0)
    pace.put("b", "y" * 4)
    assert lengths(pace) == (4, 4)
    assert lengths(pace) == (0, 0)
    pace.put("b", "y" * 30)
    assert lengths(pace) == (10, 10)
    pace.end("a")
    assert lengths(pace) == (10, 10)
    assert lengths(pace) == (1, 10)
    assert not pace.over
    pace.end("b")
    assert pace.take(0.0) == [Shown(side, done=True) for side in TWO]
    assert pace.over


def test_of_three_the_slowest_is_waited_for() -> None:
    pace = Pace(THREE, step=10)
    lots: dict[SideName, int] = {"a": 30, "b": 30, "c": 3}
    for side, size in lots.items():
        pace.put(side, "x" * size)
    assert [len(shown.text) for shown in pace.take(0.0)] == [3, 3, 3]
    assert pace.take(0.0) == []
    pace.end("c")
    assert [(shown.side, len(shown.text)) for shown in pace.take(0.0)] == [("a", 10), ("b", 10)]
    pace.end("b", failed=True)
    assert pace.take(0.0) == [Shown(side, done=True, failed=True) for side in THREE]


def test_the_last_piece_and_the_ends_come_together() -> None:
    pace = Pace(TWO)
    pace.put("b", "word")
    pace.end("a")
    pace.end("b")
    assert pace.take(0.0) == [Shown("b", "word"), Shown("a", done=True), Shown("b", done=True)]


def test_pieces_of_any_size_come_out_as_they_went_in() -> None:
    pieces = ["", "ab", "c" * 95, "é", "", "d" * 40, "ef"]
    pace = Pace(TWO)
    for piece in pieces:
        for side in TWO:
            pace.put(side, piece)
    for side in TWO:
        pace.end(side)
    told = []
    while not pace.over:
        told += [shown.text for shown in pace.take(0.0) if shown.text and shown.side == "b"]
    assert "".join(told) == "".join(pieces)
    assert [len(text) for text in told] == [40, 40, 40, 20]


def test_a_side_far_ahead_costs_no_more_for_it() -> None:
    """Two sides, one of which has said 60 MB: copying it for every piece and step would take an hour."""
    pace = Pace(TWO)
    for _ in range(30_000):
        pace.put("a", LONG)
    for _ in range(30_000):
        pace.put("b", "y")
        assert len(pace.take(0.0)) == 2


def test_one_failure_ends_both_alike() -> None:
    pace = Pace(TWO)
    pace.put("a", "text")
    pace.end("b", failed=True)
    assert pace.take(0.0) == [Shown(side, done=True, failed=True) for side in TWO]
    assert pace.over


def rest_of(quick: SideName, *, tick_s: float) -> list[int]:
    """Steps of the longer answer after the shorter one's end; of both sides the `quick` one waits for the other."""
    pace, now_s, steps = Pace(TWO), 0.0, []
    for _ in range(100):  # both say the same number of words, the quick one all at once
        pace.put("a", "word" if quick == "b" else "word" * 100 if not now_s else "")
        pace.put("b", "word" if quick == "a" else "word" * 400 if not now_s else "")
        pace.take(now_s)
        now_s += tick_s
    for side in TWO:
        if side == quick or side == "a":
            pace.end(side)
    for place in range(40):
        if quick == "a":
            pace.put("b", "word")  # it goes on as it did
        steps += [len(shown.text) for shown in pace.take(now_s + place * tick_s) if shown.side == "b"]
    return steps


def test_after_the_first_end_the_other_side_goes_on_at_the_pace_of_both() -> None:
    slow, quick = rest_of("a", tick_s=0.1), rest_of("b", tick_s=0.1)
    assert set(slow) == {4}, "it says a word a step by itself"
    assert set(quick) == {5}, "all of it waits, and comes as the other side's words came"


def test_whatever_waits_after_the_first_end_comes_step_by_step_alike() -> None:
    for burst in (1, 3, 1000):
        pace = Pace(TWO)
        pace.put("a", "Yes.")
        pace.put("b", LONG)
        assert lengths(pace) == (4, 4)
        pace.end("a")
        told = []
        for _ in range(20):
            pace.put("b", "y" * burst)
            told.append(lengths(pace)[1])
        assert set(told) == {10}


def test_a_very_slow_pace_is_no_slower_than_people_read() -> None:
    pace = Pace(TWO)
    pace.put("a", "Yes.")
    pace.put("b", LONG)
    pace.take(0.0)
    pace.end("a")
    assert len(pace.take(900.0)[0].text) == LEAST_CHARACTERS


# ---- the seal


async def test_the_slow_side_is_waited_for(battles: Battles, fake: FakeOllama) -> None:
    view = await battles.create(ANN, between("fx-gate:n-4_id-x", "fx-ok:n-30"))
    steps = battles.turn(view.id, ANN, "Hello!")
    said = dict.fromkeys(TWO, "")
    async with aclosing(steps):
        for passed in range(1, 5):
            fake.release("x", 1)
            for shown in await anext(steps):
                said[shown.side] += shown.text
            if passed < 4:
                assert len(said["a"]) == len(said["b"]) > 0
        async for step in steps:
            for shown in step:
                said[shown.side] += shown.text
    assert set(said.values()) == {text_said_by("fx-gate:n-4_id-x"), text_said_by("fx-ok:n-30")}


async def test_thoughts_are_not_shown(battles: Battles) -> None:
    view = await battles.create(ANN, between("fx-think", "fx-ok"))
    said = "".join(each.text for step in await shown_of(battles, view.id) for each in step)
    assert len(said) == len(text_said_by("fx-think") + text_said_by("fx-ok"))


async def test_whoever_leaves_in_the_middle_ends_the_battle(battles: Battles, fake: FakeOllama) -> None:
    view = await battles.create(ANN, between("fx-gate:n-4_id-x", "fx-ok"))
    steps = battles.turn(view.id, ANN, "Hello!")
    fake.release("x", 1)
    await anext(steps)
    await steps.aclose()
    await fake.closed(1)
    assert (await battles.view(view.id, ANN)).state == "failed"


async def test_a_later_turn_that_fails_leaves_the_turns_before_it(
    battles: Battles, arena: Arena, fake: FakeOllama
) -> None:
    view = await battles.create(ANN, between("fx-gate:n-2_id-x", "fx-ok"))
    fake.release("x", 2)
    await shown_of(battles, view.id, "One?")
    steps = battles.turn(view.id, ANN, "Two?")
    fake.release("x", 1)
    assert await anext(steps)
    assert not steps.vote_open
    await steps.aclose()
    await fake.closed(1)
    assert steps.vote_open
    left = await battles.view(view.id, ANN)
    assert (left.state, left.turns, left.vote_open) == ("ready", 1, True)
    fake.release("x", 2)
    await shown_of(battles, view.id, "Two again?")
    assert (await battles.vote(view.id, ANN, "a")).turns == 2
    kept = arena.store.battle(view.id)
    assert kept is not None
    assert kept.prompts == ("One?", "Two again?")
    assert {len(side.answers) for side in kept.sides.values()} == {2}


async def test_a_turn_that_is_closed_late_takes_nothing_back_of_the_next_one(
    battles: Battles, fake: FakeOllama
) -> None:
    view = await battles.create(ANN, between("fx-gate:n-2_id-x", "fx-ok"))
    fake.release("x", 2)
    slow = battles.turn(view.id, ANN, "One?")
    while not slow.vote_open:  # its reader stays with the last step
        await anext(slow)
    async with aclosing(battles.turn(view.id, ANN, "Two?")) as steps:
        fake.release("x", 1)
        await anext(steps)
        await slow.aclose()
        assert (await battles.view(view.id, ANN)).state == "answering"
        fake.release("x", 1)
        assert [step async for step in steps]
    assert (await battles.vote(view.id, ANN, "a")).turns == 2


@pytest.mark.parametrize(
    ("names", "said", "rated"),
    [
        (("llama3.2:3b", "llama"), "I am Llama, and", False),
        (("llama3.2:3b", "llama"), "A llama is calm", True),
        (("my-own", "qwen2"), "I am Qwen, and", False),
        (("my-own", ""), "I am Qwen, and", True),
    ],
)
def test_a_turn_that_was_taken_back_may_have_told_who_fights(names: tuple[str, str], said: str, rated: bool) -> None:
    """Whoever asks for the name, reads it and stops must not vote as if it had not been read."""
    model, family = names
    lineup = [ModelInstance("1", model), ModelInstance("2", "other")]
    battle = Battle("id", "ann", "", lineup, mode="installed", rated=True, category="", tags=(), now_s=0.0)
    whole: dict[str, Reply] = {
        side: Reply(side, "Hello!", manifest=Manifest(name, "gpu1", family=family or None), metrics=Metrics())
        for side, name in zip(TWO, (model, "other"), strict=True)
    }
    battle.begin("Hello!")
    battle.settle(whole, 1.0)
    battle.begin("Who are you?")
    battle.settle({**whole, "a": Reply("a", said)}, 2.0)
    assert (battle.state, battle.turns) == ("ready", 1)
    ((vote,), kept) = battle.votes("a", str.upper, "", 3.0)
    assert vote.rated is rated
    assert kept.prompts == ("Hello!",)


async def test_an_answer_has_so_many_tokens_and_then_ends_well(arena: Arena, fake: FakeOllama) -> None:
    battles = Battles(arena.compare, arena.fleet, arena.store, answer_tokens=10, tick=at_once)
    instances = [ModelInstance(str(i), "fx-ok:n-30", Options(num_predict=limit)) for i, limit in enumerate((4, -1))]
    view = await battles.create(ANN, Contest((*instances, ModelInstance("2", "fx-ok:n-30")), sides=3))
    await shown_of(battles, view.id)
    sides = (await battles.vote(view.id, ANN, "tie")).revealed
    assert sides is not None
    assert {side.label: side.metrics[0]["tokens"] for side in sides.values()} == {
        "fx-ok:n-30, num_predict 4": 4,
        "fx-ok:n-30, num_predict -1": 10,
        "fx-ok:n-30": 10,
    }
    assert {side.metrics[0]["done_reason"] for side in sides.values()} == {"length"}
    sent = [record.body["options"]["num_predict"] for record in fake.log if record.path == "/api/chat"]
    assert sorted(sent) == [4, 10, 10]
    assert {side.manifests[0]["options_sent"]["num_predict"] for side in sides.values()} == {4, 10}


async def test_one_that_spends_all_its_tokens_on_thoughts_is_not_rated(arena: Arena) -> None:
    for tokens, rated in ((2, False), (2000, True)):
        battles = Battles(arena.compare, arena.fleet, arena.store, answer_tokens=tokens, tick=at_once)
        view = await battles.create(ANN, between("fx-think", "fx-ok"))
        await shown_of(battles, view.id)
        assert (await battles.vote(view.id, ANN, "a")).rated is rated


async def test_a_turn_that_nobody_reads_ends_the_battle(battles: Battles, fake: FakeOllama) -> None:
    view = await battles.create(ANN, between("fx-ok", "fx-ok:n-5"))
    async with aclosing(battles.turn(view.id, ANN, "Hello!")):
        assert (await battles.view(view.id, ANN)).state == "answering"
    assert (await battles.view(view.id, ANN)).state == "failed"
    assert not [record for record in fake.log if record.path == "/api/chat"]


async def test_a_battle_is_its_owners(battles: Battles) -> None:
    view = await battles.create(ANN, between("fx-ok", "fx-ok:n-5"))
    with pytest.raises(NotFound):
        battles.turn(view.id, BEN, "Hello!")
    with pytest.raises(NotFound):
        await battles.view(view.id, BEN)
    await shown_of(battles, view.id)
    with pytest.raises(NotFound):
        await battles.vote(view.id, BEN, "a")
    moved = Voter("ann", "198.51.100.7")
    assert (await battles.vote(view.id, moved, "a")).verdict == "a"
    with pytest.raises(NotFound):
        await battles.view(view.id, BEN)


async def test_no_battle_has_an_id_that_databases_refuse(
    battles: Battles, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena.store, "ballot", None)
    with pytest.raises(NotFound):
        await battles.view("\0", ANN)


async def test_idle_battles_are_forgotten_but_not_running_ones(
    battles: Battles, clock: Clock, fake: FakeOllama
) -> None:
    idle = await battles.create(ANN, between("fx-ok", "fx-ok:n-5"))
    running = await battles.create(ANN, between("fx-gate:n-4_id-x", "fx-ok"))
    steps = battles.turn(running.id, ANN, "Hello!")
    fake.release("x", 1)
    await anext(steps)
    clock.now_s += IDLE_S + 1
    await battles.create(BEN, between("fx-ok", "fx-ok:n-5"))
    with pytest.raises(NotFound):
        await battles.view(idle.id, ANN)
    assert (await battles.view(running.id, ANN)).state == "answering"
    await steps.aclose()


async def test_a_voter_has_so_many_open_battles_and_all_together_too(
    battles: Battles, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = between("fx-ok", "fx-ok:n-5")
    begun = [await battles.create(ANN, contest) for _ in range(MAX_PER_VOTER + 1)]
    with pytest.raises(NotFound):
        await battles.view(begun[0].id, ANN)
    await battles.view(begun[1].id, ANN)
    monkeypatch.setattr("arena.battle.battles.MAX_BATTLES", MAX_PER_VOTER)
    with pytest.raises(TooManyRequests):
        await battles.create(BEN, contest)


async def test_many_browsers_at_one_address_leave_room_for_everybody_else(
    battles: Battles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arena.battle.battles.MAX_PER_ADDRESS", 2)
    contest = between("fx-ok", "fx-ok:n-5")
    for name in ("visitor 1", "visitor 2"):
        await battles.create(Voter(name, "192.0.2.7"), contest)
    with pytest.raises(TooManyRequests):
        await battles.create(Voter("visitor 3", "192.0.2.7"), contest)
    for voter in (ANN, BEN, BEN, BEN):
        await battles.create(voter, contest)


async def test_a_battle_has_so_many_turns(battles: Battles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.battle.battle.MAX_TURNS", 2)
    view = await battles.create(ANN, between("fx-ok", "fx-ok:n-5"))
    for _ in range(2):
        await shown_of(battles, view.id)
    with pytest.raises(Conflict, match="at most 2 turns"):
        battles.turn(view.id, ANN, "Hello!")
    assert (await battles.vote(view.id, ANN, "b")).turns == 2


async def test_turns_that_were_left_count_too(battles: Battles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.battle.battle.MAX_TURNS", 2)
    view = await battles.create(ANN, between("fx-ok", "fx-ok:n-5"))
    await shown_of(battles, view.id)
    await battles.turn(view.id, ANN, "Hello!").aclose()
    with pytest.raises(Conflict, match="at most 2 turns"):
        battles.turn(view.id, ANN, "Hello!")


async def test_no_turn_while_the_vote_is_being_kept(battles: Battles, arena: Arena) -> None:
    view = await battles.create(ANN, between("fx-ok", "fx-ok:n-5"))
    await shown_of(battles, view.id)
    arena.store.open()
    with arena.store.database.writing():
        voting = asyncio.ensure_future(battles.vote(view.id, ANN, "a"))
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match="being voted on"):
            battles.turn(view.id, ANN, "Hello!")
    assert (await voting).verdict == "a"


async def test_no_turn_beside_a_vote_that_comes_too_early(battles: Battles) -> None:
    view = await battles.create(ANN, between("fx-ok", "fx-ok:n-5"))
    voting = asyncio.ensure_future(battles.vote(view.id, ANN, "a"))
    await asyncio.sleep(0)
    with pytest.raises(Conflict, match="being voted on"):
        battles.turn(view.id, ANN, "Hello!")
    with pytest.raises(Conflict, match="nothing to vote on yet"):
        await voting


async def test_options_and_system_prompt_are_part_of_who_fought(battles: Battles) -> None:
    contest = Contest(
        (ModelInstance("1", "fx-ok", Options(temperature=0.2)), ModelInstance("2", "fx-ok", system="Be brief.")),
    )
    view = await battles.create(ANN, contest)
    await shown_of(battles, view.id)
    sides = (await battles.vote(view.id, ANN, "a")).revealed
    assert sides is not None
    assert {side.label for side in sides.values()} == {
        "fx-ok:latest, temperature 0.2",
        "fx-ok:latest, own system prompt",
    }
