"""Who meets whom: the draw, newcomers, pairs that teach most, and who rests after a failure."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from itertools import combinations
from pathlib import Path

import pytest

from arena.arena import RATERS, Arena
from arena.battle import Battles, Contest, Mode, Standing, drawn, joined, newcomer
from arena.battle.battle import Battle
from arena.battle.draw import can_chat, lineup
from arena.battle.resting import REST_S, Resting
from arena.errors import BadRequest
from arena.names import canonical
from arena.streaming import Reply
from arena.types import Failed, Metrics, ModelInfo, ModelInstance, Options
from tests.api.conftest import settings_for
from tests.battle.conftest import ANN, CONTESTANTS, NAMES, Clock, between, shown_of
from tests.fake_ollama import FakeOllama
from tests.store.votes import vote


def chi_square(seen: Counter[object], kinds: int) -> float:
    expected = seen.total() / kinds
    return sum((count - expected) ** 2 / expected for count in seen.values()) + expected * (kinds - len(seen))


def test_every_pair_and_both_sides_are_equally_likely() -> None:
    """10,000 draws; the limits leave one run in a million wrongly red."""
    pairs: Counter[object] = Counter()
    sides: Counter[object] = Counter()
    for _ in range(10_000):
        a, b = lineup(CONTESTANTS, 2, drawn)
        pairs[frozenset((a.model, b.model))] += 1
        sides[a.model < b.model] += 1
    assert set(pairs) == {frozenset(each) for each in combinations(NAMES, 2)}
    assert chi_square(pairs, 10) < 44.0
    assert chi_square(sides, 2) < 23.9


def test_whoever_chooses_the_pair_does_not_choose_the_sides() -> None:
    first = Counter(lineup(CONTESTANTS, 2, lambda *_: (3, 1))[0].model for _ in range(200))
    assert set(first) == {"m2", "m4"}


@pytest.mark.parametrize(("count", "sides", "wanted"), [(0, 2, "two"), (1, 2, "two"), (2, 3, "three"), (3, 4, "four")])
def test_nobody_fights_alone(count: int, sides: int, wanted: str) -> None:
    with pytest.raises(BadRequest, match=f"at least {wanted}"):
        lineup(CONTESTANTS[:count], sides, drawn)


def test_every_line_up_of_four_is_equally_likely() -> None:
    """10,000 draws of four out of five; the limits leave one run in a million wrongly red."""
    out: Counter[object] = Counter()
    first: Counter[object] = Counter()
    for _ in range(10_000):
        sides = [each.model for each in lineup(CONTESTANTS, 4, drawn)]
        out[frozenset(NAMES) - set(sides)] += 1
        first[sides[0]] += 1
    assert len(out) == 5
    assert chi_square(out, 5) < 33.4
    assert chi_square(first, 5) < 33.4


def test_who_joins_a_pair_is_drawn_from_the_others() -> None:
    seen: Counter[object] = Counter()
    for _ in range(300):
        places = joined((3, 1), CONTESTANTS, 4)
        assert places[:2] == (3, 1)
        assert len(set(places)) == 4
        seen[frozenset(places[2:])] += 1
    assert len(seen) == 3


MANY = tuple(ModelInstance(f"m{i}", f"m{i}") for i in range(1, 11))
KNOWN = {f"m{i}:latest": Standing(1500.0 - i, 100) for i in range(1, 9)} | {"m9:latest": Standing(2000.0, 19)}


@pytest.mark.parametrize("sides", [2, 3, 4])
def test_a_newcomer_meets_the_best(sides: int) -> None:
    met = [[f"m{place + 1}" for place in newcomer(MANY, sides, KNOWN)] for _ in range(200)]
    assert {len(set(each)) for each in met} == {sides}
    assert {each[0] for each in met} == {"m9", "m10"}, "nineteen votes are few, whatever they say"
    assert {name for each in met for name in each[1:]} == {"m1", "m2", "m3", "m4", "m5"}


@pytest.mark.parametrize(
    ("standings", "new", "rivals"),
    [
        ({}, set(NAMES), set(NAMES)),
        ({"m1": Standing(1000.0, 50)}, set(NAMES) - {"m1"}, {"m1"}),
        ({name: Standing(1000.0, 30 + (name == "m2")) for name in NAMES}, set(NAMES) - {"m2"}, set(NAMES)),
    ],
)
def test_newcomers_among_the_unknown_and_the_known(
    standings: dict[str, Standing], new: set[str], rivals: set[str]
) -> None:
    known = {canonical(name): standing for name, standing in standings.items()}
    met = [[NAMES[place] for place in newcomer(CONTESTANTS, 2, known)] for _ in range(200)]
    assert {one for one, _ in met} == new
    assert {other for _, other in met} == rivals
    assert not [one for one, other in met if one == other]


def test_a_known_model_is_no_newcomer_in_another_spelling() -> None:
    fit = [ModelInstance("a", "SmolLM2:135M"), ModelInstance("b", "other")]
    known = {"smollm2:135m": Standing(1000.0, 50)}
    assert {newcomer(fit, 2, known)[0] for _ in range(40)} == {1}


async def test_a_newcomer_stays_one_however_often_somebody_repeats_one_comparison(
    fake: FakeOllama, tmp_path: Path
) -> None:
    arena = Arena(settings_for(fake.url, data=tmp_path))
    settled = [vote(f"b{i}", model_a="m1", model_b="m2", verdict="ab"[i % 2]) for i in range(40)]
    again = [vote(f"c{i}", model_a="m1", model_b="m3", verdict="b", repeats=i) for i in range(30)]
    arena.store.add_votes(settled + again)
    assert {arena._newcomer(CONTESTANTS[:3], 2)[0] for _ in range(40)} == {2}
    arena.store.close()


async def test_in_the_mode_newcomers_the_one_without_votes_fights(fake: FakeOllama, tmp_path: Path) -> None:
    settled = [vote(f"b{i}", model_a="m1", model_b="m2", verdict="ab"[i % 2]) for i in range(40)]
    for host, rated in (("127.0.0.1", True), ("0.0.0.0", False)):
        arena = Arena(settings_for(fake.url, data=tmp_path, host=host, allow_open=True))
        arena.store.add_votes(settled)
        for _ in range(5):
            begun = await arena.battles.create(ANN, Contest(CONTESTANTS[:3], mode="newcomers"))
            battle = arena.battles._battles[begun.id]
            assert "m3" in {each.model for each in battle._instances.values()}
            assert (battle.mode, battle._rated) == ("newcomers", rated)
        arena.store.close()


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        (ModelInfo("llama3.2:3b"), True),
        (ModelInfo("x", capabilities=("completion", "tools")), True),
        (ModelInfo("x", capabilities=("embedding",)), False),
        (ModelInfo("nomic-embed-text"), False),
        (ModelInfo("all-minilm", family="bert"), False),
    ],
)
def test_who_can_chat(model: ModelInfo, fits: bool) -> None:
    assert can_chat(model) is fits


async def test_after_votes_the_pair_that_teaches_most_is_drawn(fake: FakeOllama, tmp_path: Path) -> None:
    settled = [vote(f"b{i}", model_a="m1", model_b="m2", verdict="ab"[i % 2]) for i in range(200)]
    contest = Contest(CONTESTANTS[:3])
    met: dict[str, Counter[object]] = {}
    for host in ("127.0.0.1", "0.0.0.0"):
        arena = Arena(settings_for(fake.url, data=tmp_path, host=host, allow_open=True))
        arena.store.add_votes(settled)
        met[host] = Counter()
        for _ in range(30):
            begun = await arena.battles.create(ANN, contest)
            sides = arena.battles._battles[begun.id]._instances
            met[host][frozenset(each.model for each in sides.values())] += 1
        arena.store.close()
    known = frozenset(("m1", "m2"))
    assert met["127.0.0.1"][known] < 8, "these two are known well; they meet only when exploring"
    assert met["0.0.0.0"][known] >= 1, "where others vote the pair cannot be foreseen"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_no_battle_waits_for_ratings_that_somebody_else_asked_for(
    fake: FakeOllama, tmp_path: Path, host: str
) -> None:
    arena = Arena(settings_for(fake.url, data=tmp_path, host=host, allow_open=True))
    fitted = threading.Event()
    fits = [asyncio.create_task(arena.rated(fitted.wait, 30)) for _ in range(RATERS)]
    try:
        async with asyncio.timeout(20):
            assert (await arena.battles.create(ANN, Contest(CONTESTANTS))).state == "open"
        assert not any(fit.done() for fit in fits)
    finally:
        fitted.set()
        await asyncio.wait(fits)


async def test_what_a_log_line_is_about_is_known_where_ratings_are_read(arena: Arena) -> None:
    request_id = ContextVar("request_id", default="")

    def choose(contestants: Sequence[ModelInstance], sides: int) -> tuple[int, ...]:
        heard.append(request_id.get())
        return drawn(contestants, sides)

    heard: list[str] = []
    request_id.set("r1")
    arena.battles._choose = choose
    await arena.battles.create(ANN, Contest(CONTESTANTS))
    assert heard == [await arena.rated(request_id.get)] == ["r1"]


async def test_a_model_that_has_just_failed_is_left_out_while_others_remain(battles: Battles, clock: Clock) -> None:
    contest = between("fx-status", "fx-ok", "fx-unicode")

    async def failed() -> bool:
        begun = await battles.create(ANN, contest)
        await shown_of(battles, begun.id)
        return (await battles.view(begun.id, ANN)).state == "failed"

    battles._choose = lambda contestants, _: (0, 1)
    assert await failed()
    assert not any([await failed() for _ in range(3)]), "the others fight meanwhile"
    clock.now_s += REST_S
    assert await failed(), "it is tried again"


async def test_where_others_vote_nobody_keeps_a_model_out_by_choosing_it(arena: Arena, clock: Clock) -> None:
    battles = Battles(
        arena.compare,
        arena.fleet,
        arena.store,
        choose=lambda contestants, sides: (0, 1),
        rate_chosen=False,
        clock=clock,
        tick=lambda: asyncio.sleep(0),
    )
    for _ in range(2):
        begun = await battles.create(ANN, between("fx-status", "fx-ok", "fx-unicode"))
        await shown_of(battles, begun.id)
        assert (await battles.view(begun.id, ANN)).state == "failed", "the one that has failed is drawn again"


def test_who_rests_after_a_failure() -> None:
    clock = Clock()
    resting = Resting(clock)
    hot = ModelInstance("x", "m2", Options(temperature=9.0))
    resting.heard(ModelInstance("a", "M1"), well=False)
    resting.heard(hot, well=False)
    assert resting.fit(CONTESTANTS[:3], 2) == [*CONTESTANTS[1:3]], "settings that fail are not the model's fault"
    assert resting.fit(CONTESTANTS[:2], 2) == CONTESTANTS[:2], "two have to fight if there are no others"
    resting.heard(ModelInstance("b", "m1:latest"), well=True)
    assert resting.fit(CONTESTANTS[:3], 2) == [*CONTESTANTS[:3]]


@pytest.mark.parametrize("code", ["busy", "no_more_connections"])
def test_a_busy_server_is_not_held_against_a_model(code: str) -> None:
    one, other = (ModelInstance(model, model) for model in ("m1", "m2"))
    battle = Battle("id", "ann", "", (one, other), mode="installed", rated=True, category="", tags=(), now_s=0.0)
    ended = battle.ended(
        {
            "a": Reply("a", error=Failed("a", code, "The queue is full", Metrics())),
            "b": Reply("b", error=Failed("b", "upstream_error", "It broke", Metrics())),
        }
    )
    assert [(instance.model, well) for instance, well in ended] == [("m2", False)]


async def test_a_store_that_fails_does_not_stop_battles(fake: FakeOllama, tmp_path: Path) -> None:
    (tmp_path / "arena.sqlite3").write_bytes(b"no database" * 999)
    arena = Arena(settings_for(fake.url, data=tmp_path))
    modes: tuple[Mode | None, ...] = (None, "newcomers")
    for mode in modes:
        assert (await arena.battles.create(ANN, Contest(CONTESTANTS, sides=3, mode=mode))).state == "open"
