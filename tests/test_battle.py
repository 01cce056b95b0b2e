"""The pieces of a battle: the draw, the pace, the leaks, the seal, and what is forgotten."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import combinations
from pathlib import Path

import pytest

from arena.arena import Arena
from arena.battle import Battles, Column, Contest, Shown, Voter, drawn
from arena.battle.battles import IDLE_S, MAX_PER_VOTER
from arena.battle.draw import can_chat, pair
from arena.battle.leaks import identity_words, names_itself
from arena.battle.pace import SIDES, Pace
from arena.battle.reveal import configuration_of
from arena.errors import BadRequest, Conflict, NotFound, TooManyRequests
from arena.streaming import Reply
from arena.types import Manifest, Metrics, ModelInfo, ModelInstance, Options, Style
from tests.api.conftest import settings_for
from tests.fake_ollama import FakeOllama, text_said_by
from tests.store.votes import vote

ANN, BEN = Voter("ann", "192.0.2.1"), Voter("ben")
NAMES = ("m1", "m2", "m3", "m4", "m5")
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
        a, b = pair(CONTESTANTS, drawn)
        pairs[frozenset((a.model, b.model))] += 1
        sides[a.model < b.model] += 1
    assert set(pairs) == {frozenset(each) for each in combinations(NAMES, 2)}
    assert chi_square(pairs, 10) < 44.0
    assert chi_square(sides, 2) < 23.9


def test_whoever_chooses_the_pair_does_not_choose_the_sides() -> None:
    first = Counter(pair(CONTESTANTS, lambda _: (3, 1))[0].model for _ in range(200))
    assert set(first) == {"m2", "m4"}


@pytest.mark.parametrize("count", [0, 1])
def test_nobody_fights_alone(count: int) -> None:
    with pytest.raises(BadRequest, match="at least two"):
        pair(CONTESTANTS[:count], drawn)


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


async def test_a_store_that_fails_does_not_stop_battles(fake: FakeOllama, tmp_path: Path) -> None:
    (tmp_path / "arena.sqlite3").write_bytes(b"no database" * 999)
    arena = Arena(settings_for(fake.url, data=tmp_path))
    assert (await arena.battles.create(ANN, Contest(CONTESTANTS))).state == "open"


# ---- the pace


def lengths(pace: Pace) -> tuple[int, int]:
    shown = {each.side: len(each.text) for each in pace.take()}
    return shown.get("a", 0), shown.get("b", 0)


def test_neither_side_is_ahead_of_the_other() -> None:
    pace = Pace(step=10)
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
    assert pace.take() == [Shown(side, done=True) for side in SIDES]
    assert pace.over


def test_the_last_piece_and_the_ends_come_together() -> None:
    pace = Pace()
    pace.put("b", "word")
    pace.end("a")
    pace.end("b")
    assert pace.take() == [Shown("b", "word"), Shown("a", done=True), Shown("b", done=True)]


def test_one_failure_ends_both_alike() -> None:
    pace = Pace()
    pace.put("a", "text")
    pace.end("b", failed=True)
    assert pace.take() == [Shown(side, done=True, failed=True) for side in SIDES]
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


async def test_an_answer_that_names_its_model_is_not_rated(battles: Battles) -> None:
    for models, rated in ((("fx-ident", "fx-ok"), False), (("fx-ok", "fx-ok:n-5"), True)):
        view = await battles.create(ANN, between(*models))
        await shown_of(battles, view.id)
        assert (await battles.vote(view.id, ANN, "tie")).rated is rated


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
    said = dict.fromkeys(SIDES, "")
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


async def test_the_best_column_wins_against_every_other_one(battles: Battles, arena: Arena) -> None:
    columns = [
        Column(
            ModelInstance(name, name), Reply(name, text=f"# {name}", manifest=Manifest(name, "gpu1"), metrics=Metrics())
        )
        for name in NAMES[:3]
    ]
    for _ in range(2):
        assert await battles.prefer("turn", ANN, "Hello!", columns, 1) == 2
    votes = [vote for _, vote in arena.store.votes()]
    assert [(vote.model_a, vote.model_b, vote.verdict) for vote in votes] == [("m1", "m2", "b"), ("m2", "m3", "a")]
    assert {(vote.blind, vote.rated, vote.style_a) for vote in votes} == {(False, False, Style(2, headers=1))}
    assert arena.store.cells() == []
    kept = arena.store.battle(votes[0].battle_id)
    assert kept is not None
    assert (kept.mode, kept.prompts, kept.sides["b"].answers) == ("direct", ("Hello!",), ("# m2",))
    for other in (0, 2):
        with pytest.raises(Conflict, match="another answer"):
            await battles.prefer("turn", ANN, "Hello!", columns, other)
    assert arena.store.last_number() == 2


@pytest.mark.parametrize("best", [-1, 2, 0])
async def test_only_whole_answers_can_be_preferred(battles: Battles, best: int) -> None:
    columns = [Column(ModelInstance(name, name), Reply(name, manifest=Manifest(name, "gpu1"))) for name in ("m1", "m2")]
    with pytest.raises(Conflict, match="whole answer"):
        await battles.prefer("turn", ANN, "Hello!", columns, best)
