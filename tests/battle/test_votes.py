"""What a vote says and counts for: ballots, leaks, digests, configurations, and votes with the names in sight."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arena.arena import Arena
from arena.battle import Battles, Column, Contest
from arena.battle.ballot import ranks, verdicts
from arena.battle.digests import Digests
from arena.battle.leaks import names_itself
from arena.battle.pace import SIDES
from arena.battle.reveal import configuration_of
from arena.errors import Conflict, Unreachable
from arena.leaderboard import View
from arena.streaming import Reply
from arena.types import Manifest, Metrics, ModelInfo, ModelInstance, Style
from tests.api.conftest import settings_for
from tests.battle.conftest import ANN, BEN, NAMES, THREE, Clock, between, shown_of
from tests.fake_ollama import FakeOllama

# ---- the ballot


def orders(count: int) -> list[dict[str, int]]:
    """Every way to rank so many sides."""
    sides = SIDES[:count]
    return [
        dict(zip(sides, places, strict=True))
        for places in product(range(1, count + 1), repeat=count)
        if set(places) == set(range(1, max(places) + 1))
    ]


@pytest.mark.parametrize(("count", "ways"), [(2, 3), (3, 13), (4, 75)])
def test_ranks_and_pairs_say_the_same(count: int, ways: int) -> None:
    every = orders(count)
    assert len(every) == ways
    for order in every:
        told = verdicts(SIDES[:count], order)
        assert len(told) == count * (count - 1) // 2
        assert ranks(told) == order
        for pair, verdict in told.items():
            one, other = (order[side] for side in pair)
            assert verdict == ("tie" if one == other else "a" if one < other else "b")


def test_gaps_between_places_do_not_matter() -> None:
    assert verdicts(THREE, {"a": 3, "b": 1, "c": 3}) == verdicts(THREE, {"a": 2, "b": 1, "c": 2})
    assert ranks(verdicts(THREE, "both_bad")) is None


# ---- leaks


@pytest.mark.parametrize("answer", ["I am Q**wen**", "*Q*WEN", "Q\u200bwen", "&#81;wen", "\uff31wen", "Q<i>wen</i>"])
def test_no_dress_hides_a_name(answer: str) -> None:
    assert names_itself(answer, "qwen2.5:3b")
    assert not names_itself(answer, "llama3.2:3b")


async def test_an_answer_that_names_its_model_is_not_rated(battles: Battles) -> None:
    for models, rated in ((("fx-ident", "fx-ok"), False), (("fx-ok", "fx-ok:n-5"), True)):
        view = await battles.create(ANN, between(*models))
        await shown_of(battles, view.id)
        assert (await battles.vote(view.id, ANN, "tie")).rated is rated


async def test_digests_that_were_not_known_yet_are_filled_in_before_the_vote_is_kept(
    battles: Battles, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after the start a host may answer before it has told its digests: else one model were two contestants."""
    first, second = [await battles.create(ANN, between("llama3.2:3b", "qwen2.5:3b")) for _ in range(2)]
    (endpoint,) = arena.fleet.endpoints
    monkeypatch.setattr(endpoint, "holds", {})
    await shown_of(battles, first.id)
    endpoint.forget()
    await battles.vote(first.id, ANN, "a")
    await shown_of(battles, second.id)
    await battles.vote(second.id, ANN, "a")
    assert len(arena.store.configurations()) == 2
    assert all(each.digest for each in arena.store.configurations().values())


async def test_a_host_that_tells_no_digests_keeps_no_vote_back(
    battles: Battles, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = await battles.create(ANN, between("llama3.2:3b", "qwen2.5:3b"))
    (endpoint,) = arena.fleet.endpoints
    monkeypatch.setattr(endpoint, "holds", {})
    await shown_of(battles, view.id)

    async def silent() -> Any:
        raise Unreachable("gone")

    monkeypatch.setattr(endpoint, "models", silent)
    assert (await battles.vote(view.id, ANN, "a")).verdict == "a"
    assert {each.digest for each in arena.store.configurations().values()} == {None}


async def test_a_host_that_hangs_keeps_no_other_host_from_telling(
    fake: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = Arena(settings_for(f"held={fake.url}", f"quick={fake.url}", data=tmp_path))
    held, quick = arena.fleet.endpoints
    asked, let_go = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr("arena.battle.digests.WAIT_S", 0.25)

    async def hang() -> Any:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            let_go.set()

    async def tell() -> Any:
        await asked.wait()  # whichever is asked first
        quick.holds = {"m1:latest": ModelInfo("m1", digest="d1")}

    monkeypatch.setattr(held, "models", hang)
    monkeypatch.setattr(quick, "models", tell)
    manifests = [Manifest("m1", name, "ollama") for name in ("held", "quick")]
    digests = Digests(arena.fleet)
    async with asyncio.timeout(10):
        await digests.told(manifests)
        await let_go.wait()
    assert [digests.completed(each).digest for each in manifests] == [None, "d1"]


async def test_one_that_names_itself_spoils_the_whole_ballot(battles: Battles, arena: Arena) -> None:
    view = await battles.create(ANN, Contest(between("fx-ident", "fx-ok", "fx-ok:n-5").contestants, sides=3))
    await shown_of(battles, view.id)
    assert (await battles.vote(view.id, ANN, {"a": 1, "b": 2, "c": 3})).rated is False
    assert {vote.rated for _, vote in arena.store.votes()} == {False}


async def test_of_three_only_the_pair_of_equals_is_not_rated(battles: Battles, arena: Arena) -> None:
    view = await battles.create(ANN, Contest(between("fx-ok", "fx-ok", "fx-ok:n-5").contestants, sides=3))
    await shown_of(battles, view.id)
    assert (await battles.vote(view.id, ANN, {"a": 1, "b": 2, "c": 3})).rated is True
    assert {(vote.rated, vote.model_a == vote.model_b) for _, vote in arena.store.votes()} == {
        (True, False),
        (False, True),
    }


async def test_how_long_it_took_and_how_often_it_was_asked_is_kept(
    battles: Battles, arena: Arena, clock: Clock
) -> None:
    same = ("fx-ok", "fx-ok:n-5")
    asked = (("Why?", ANN), ("  WHY?\n", ANN), ("Why not?", ANN), ("Why?", ANN), ("Why?", BEN), ("Why?", ANN))
    for place, (message, voter) in enumerate(asked):
        view = await battles.create(voter, between(*same) if place < 5 else between("fx-ok", "fx-ok:n-6"))
        async with aclosing(battles.turn(view.id, voter, message)) as steps:
            assert [step async for step in steps]
        clock.now_s += 7.5
        await battles.vote(view.id, voter, "a")
    votes = [vote for _, vote in arena.store.votes()]
    assert {vote.dwell_s for vote in votes} == {7.5}
    assert [vote.repeats for vote in votes] == [0, 1, 0, 2, 0, 0]
    assert len({vote.prompt for vote in votes}) == 2
    assert all(len(vote.prompt) == 16 for vote in votes)


async def test_one_contestant_against_itself_is_not_rated(battles: Battles) -> None:
    view = await battles.create(ANN, between("fx-ok", "fx-ok"))
    await shown_of(battles, view.id)
    assert (await battles.vote(view.id, ANN, "a")).rated is False


# ---- configurations


def test_what_makes_a_configuration() -> None:
    plain = configuration_of(ModelInstance("a", "m"), Manifest("M", "gpu1", digest="d"))
    again = configuration_of(ModelInstance("b", "n"), Manifest("n:latest", "gpu2", digest="d"))
    assert plain.id == again.id
    assert re.fullmatch(r"[0-9a-f]{16}", plain.id)
    others = [
        configuration_of(ModelInstance("a", "m"), Manifest("m", "gpu1", digest="e")),
        configuration_of(ModelInstance("a", "m"), Manifest("m", "gpu1")),
        configuration_of(ModelInstance("a", "m", system="Be brief."), Manifest("m", "gpu1", digest="d")),
        configuration_of(ModelInstance("a", "m"), Manifest("m", "gpu1", digest="d", options_sent={"seed": 1})),
        configuration_of(ModelInstance("a", "m"), Manifest("m", "gpu1", digest="d", think="high")),
    ]
    assert len({plain.id, *(other.id for other in others)}) == 6
    told = ["m:latest, own system prompt", "m:latest, seed 1", "m:latest, think high"]
    assert [other.label for other in others[2:]] == told
    assert [each.model for each in (plain, again, others[0], others[1])] == ["M:latest", "n:latest", "m:latest", "m"]
    spelled = [configuration_of(ModelInstance("a", "m"), Manifest(name, "gpu1")).id for name in ("m", "M:latest")]
    assert spelled[0] == spelled[1]


async def test_a_model_that_is_spelled_otherwise_is_the_same_model(battles: Battles, arena: Arena) -> None:
    told = []
    for pair in (("fx-ok:latest", "qwen2.5:3b"), ("fx-ok", "QWEN2.5:3B")):
        view = await battles.create(ANN, between(*pair))
        await shown_of(battles, view.id)
        voted, again = [await battles.vote(view.id, ANN, "tie") for _ in range(2)]
        assert msgspec.json.encode(voted) == msgspec.json.encode(again)
        told.append({side.model for side in (voted.revealed or {}).values()})
    assert told == [{"fx-ok:latest", "qwen2.5:3b"}] * 2
    assert {row.name: row.votes for row in arena.leaderboard.board().rows} == {"fx-ok:latest": 2, "qwen2.5:3b": 2}


# ---- votes with the names in sight


def column(name: str, *texts: str, **more: Any) -> Column:
    """A column whose answers are whole, unless told otherwise."""
    known = {"manifest": Manifest(name, "gpu1"), "metrics": Metrics(), **more}
    return Column(ModelInstance(name, name), tuple(Reply(name, text=text, **known) for text in texts))


async def test_the_best_column_wins_against_every_other_one(battles: Battles, arena: Arena) -> None:
    columns = [column(name, f"# {name}") for name in NAMES[:3]]
    for _ in range(2):
        assert await battles.prefer(ANN, ["Hello!"], columns, 1) == 2
    votes = [vote for _, vote in arena.store.votes()]
    assert [(vote.model_a, vote.model_b, vote.verdict) for vote in votes] == [("m1", "m2", "b"), ("m2", "m3", "a")]
    assert {(vote.blind, vote.rated, vote.style_a) for vote in votes} == {(False, True, Style(2, headers=1))}
    assert {(vote.sides, vote.turns, vote.dwell_s) for vote in votes} == {(3, 1, None)}
    assert all(len(vote.voter) == len(vote.prompt) == 16 for vote in votes)
    assert arena.leaderboard.board().votes == 0, "what was not blind counts only where it is asked for"
    assert arena.leaderboard.board(View(blind=False)).votes > 0
    kept = arena.store.battle(votes[0].battle_id)
    assert kept is not None
    assert (kept.mode, kept.prompts, kept.sides["b"].answers) == ("direct", ("Hello!",), ("# m2",))
    for other in (0, 2):
        with pytest.raises(Conflict, match="for another one"):
            await battles.prefer(ANN, ["Hello!"], columns, other)
    assert arena.store.last_number() == 2
    assert await battles.prefer(BEN, ["Hello!"], columns, 0) == 2
    assert await battles.prefer(ANN, ["Hello!"], [columns[0], column("m2", "other words")], 0) == 1
    assert {vote.repeats for vote in arena.store.ballot(votes[0].battle_id, votes[0].voter)} == {0}


async def test_several_turns_are_kept_with_the_vote(battles: Battles, arena: Arena) -> None:
    await battles.prefer(ANN, ["One?", "Two?"], [column("m1", "1", "2"), column("m2", "one", "two")], 0)
    ((_, vote),) = arena.store.votes()
    kept = arena.store.battle(vote.battle_id)
    assert kept is not None
    assert (vote.turns, kept.prompts, kept.sides["b"].answers) == (2, ("One?", "Two?"), ("one", "two"))


async def test_on_a_public_server_they_never_count(fake: FakeOllama, tmp_path: Path) -> None:
    arena = Arena(settings_for(fake.url, data=tmp_path, host="0.0.0.0", allow_open=True))
    await arena.battles.prefer(ANN, ["Hello!"], [column("m1", "1"), column("m2", "2")], 0)
    ((_, vote),) = arena.store.votes()
    assert (vote.rated, vote.blind) == (False, False)
    arena.store.close()


@pytest.mark.parametrize("best", [-1, 2, 30, 0, 1])
async def test_only_whole_answers_can_be_preferred(battles: Battles, best: int) -> None:
    columns = [column("m1", "1", metrics=None), column("m2", "2")]
    with pytest.raises(Conflict, match="whole answer"):
        await battles.prefer(ANN, ["Hello!"], columns, best)
