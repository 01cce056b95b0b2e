"""The pieces of a battle: the draw, the pace, the leaks, the seal, and what is forgotten."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from arena.arena import RATERS, Arena
from arena.battle import Battles, Column, Contest, Mode, Shown, Standing, Voter, drawn, joined, newcomer
from arena.battle.ballot import ranks, verdicts
from arena.battle.battle import Battle
from arena.battle.battles import IDLE_S, MAX_PER_VOTER
from arena.battle.digests import Digests
from arena.battle.draw import can_chat, lineup
from arena.battle.leaks import identity_words, names_itself
from arena.battle.pace import SIDES, Pace, SideName
from arena.battle.resting import REST_S, Resting
from arena.battle.reveal import configuration_of
from arena.errors import BadRequest, Conflict, NotFound, TooManyRequests, Unreachable
from arena.leaderboard import View
from arena.streaming import Reply
from arena.types import Failed, Manifest, Metrics, ModelInfo, ModelInstance, Options, Style
from tests.api.conftest import settings_for
from tests.fake_ollama import FakeOllama, text_said_by
from tests.store.votes import vote

ANN, BEN = Voter("ann", "192.0.2.1"), Voter("ben")
NAMES = ("m1", "m2", "m3", "m4", "m5")
TWO, THREE = SIDES[:2], SIDES[:3]
LONG = "x" * 2000
CONTESTANTS = tuple(ModelInstance(name, name) for name in NAMES)


class Clock:
    """Seconds moved by hand."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def arena(fake: FakeOllama, tmp_path: Path) -> AsyncIterator[Arena]:
    arena = Arena(settings_for(fake.url, data=tmp_path))
    async with arena.running():
        await arena.started()
        yield arena


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def battles(arena: Arena, clock: Clock) -> Battles:
    """Battles without a pace."""

    async def at_once() -> None:
        await asyncio.sleep(0)

    return Battles(arena.compare, arena.fleet, arena.store, clock=clock, tick=at_once)


def between(*models: str) -> Contest:
    return Contest(tuple(ModelInstance(str(i), model) for i, model in enumerate(models)))


async def shown_of(battles: Battles, battle_id: str, message: str = "Hello!") -> list[list[Shown]]:
    async with aclosing(battles.turn(battle_id, ANN, message)) as steps:
        return [step async for step in steps]


# ---- the draw


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
KNOWN = {f"m{i}": Standing(1500.0 - i, 100) for i in range(1, 9)} | {"m9": Standing(2000.0, 19)}


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
    met = [[NAMES[place] for place in newcomer(CONTESTANTS, 2, standings)] for _ in range(200)]
    assert {one for one, _ in met} == new
    assert {other for _, other in met} == rivals
    assert not [one for one, other in met if one == other]


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


async def test_where_pairs_need_no_ratings_no_battle_waits_for_ratings_that_are_fitted(
    fake: FakeOllama, tmp_path: Path
) -> None:
    arena = Arena(settings_for(fake.url, data=tmp_path, host="0.0.0.0", allow_open=True))
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


def test_a_busy_server_is_not_held_against_a_model() -> None:
    one, other = (ModelInstance(model, model) for model in ("m1", "m2"))
    battle = Battle("id", "ann", "", (one, other), mode="installed", rated=True, category="", tags=(), now_s=0.0)
    ended = battle.ended(
        {
            "a": Reply("a", error=Failed("a", "busy", "The queue is full", Metrics())),
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


# ---- the pace


def lengths(pace: Pace) -> tuple[int, int]:
    shown = {each.side: len(each.text) for each in pace.take()}
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
    assert pace.take() == [Shown(side, done=True) for side in TWO]
    assert pace.over


def test_of_three_the_slowest_is_waited_for() -> None:
    pace = Pace(THREE, step=10)
    lots: dict[SideName, int] = {"a": 30, "b": 30, "c": 3}
    for side, size in lots.items():
        pace.put(side, "x" * size)
    assert [len(shown.text) for shown in pace.take()] == [3, 3, 3]
    assert pace.take() == []
    pace.end("c")
    assert [(shown.side, len(shown.text)) for shown in pace.take()] == [("a", 10), ("b", 10)]
    pace.end("b", failed=True)
    assert pace.take() == [Shown(side, done=True, failed=True) for side in THREE]


def test_the_last_piece_and_the_ends_come_together() -> None:
    pace = Pace(TWO)
    pace.put("b", "word")
    pace.end("a")
    pace.end("b")
    assert pace.take() == [Shown("b", "word"), Shown("a", done=True), Shown("b", done=True)]


def test_pieces_of_any_size_come_out_as_they_went_in() -> None:
    pieces = ["", "ab", "c" * 95, "é", "", "d" * 40, "ef"]
    pace = Pace(TWO)
    for piece in pieces:
        pace.put("a", piece)
    for side in TWO:
        pace.end(side)
    told = []
    while not pace.over:
        told += [shown.text for shown in pace.take() if shown.text]
    assert "".join(told) == "".join(pieces)
    assert [len(text) for text in told] == [40, 40, 40, 20]


def test_a_side_far_ahead_costs_no_more_for_it() -> None:
    """Two sides, one of which has said 60 MB: copying it for every piece and step would take an hour."""
    pace = Pace(TWO)
    for _ in range(30_000):
        pace.put("a", LONG)
    for _ in range(30_000):
        pace.put("b", "y")
        assert len(pace.take()) == 2


def test_one_failure_ends_both_alike() -> None:
    pace = Pace(TWO)
    pace.put("a", "text")
    pace.end("b", failed=True)
    assert pace.take() == [Shown(side, done=True, failed=True) for side in TWO]
    assert pace.over


# ---- leaks


@pytest.mark.parametrize(
    ("model", "answer", "leaks"),
    [
        ("llama3.2:3b", "I'm Llama, an assistant.", True),
        ("llama3.2:3b", "I am LLAMA3 by Meta AI", True),
        ("llama3.2:3b", "A llama's wool", True),
        ("llama3.2:3b", "Collamation and llamas", False),
        ("llama3.2:3b", "I am Qwen", False),
        ("qwen2.5:7b", "made by Alibaba Cloud", True),
        ("qwen2.5:7b", "I am &#81;w&#x65;n2.5", True),
        ("qwen2.5:7b", "我是通义千问", True),
        ("qwen2.5-coder:7b", "as qwen2.5-coder I", True),
        ("hf.co/bartowski/gemma-2-9b-it-GGUF:Q4_K_M", "trained by Google DeepMind", True),
        ("gpt-oss:20b", "I'm ChatGPT", True),
        ("phi4:14b", "The golden ratio phi", False),
        ("phi4:14b", "I am Phi4", True),
        ("phi4:14b", "developed by Microsoft", True),
        ("command-r:35b", "Run this command", False),
        ("command-r:35b", "built by Cohere", True),
        ("smollm2:135m", "I am SmolLM, by Hugging Face", True),
        ("my-model", "I am my-model", True),
        ("my-model", "that is my opinion", False),
        ("x:1", "x", False),
        ("tinyllama", "I am TinyLlama", True),
        ("command", "command", False),
    ],
)
def test_who_names_itself(model: str, answer: str, leaks: bool) -> None:
    assert names_itself(answer, model) is leaks, identity_words(model)


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
    assert [other.label for other in others[2:]] == ["m, own system prompt", "m, seed 1", "m, think high"]
    spelled = [configuration_of(ModelInstance("a", "m"), Manifest(name, "gpu1")).id for name in ("m", "M:latest")]
    assert spelled[0] == spelled[1]


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
    assert {side.label for side in sides.values()} == {"fx-ok, temperature 0.2", "fx-ok, own system prompt"}


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
