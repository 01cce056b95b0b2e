"""The battle tab's handlers on a fake Ollama, without a browser: from prompt to reveal, and all that can fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr
import msgspec
import pytest

from arena.arena import Arena
from arena.battle import Battles, BattleView
from arena.errors import Conflict, NotFound, StoreUnavailable
from arena.leaderboard import Board
from arena.settings import load
from arena.ui.battle import BattleEvents, BattlePanel
from arena.ui.battle_draw import HINTS, BattleParts, draw_battle
from arena.ui.battle_play import STILL, VOTING
from arena.ui.battle_table import BEFORE, ENDS, LEFT, NOT_ALL, Tables
from arena.ui.callers import NOBODY, caller_of, voter_of
from arena.ui.conversation import Conversations
from arena.ui.lineup import ColumnChoice
from arena.ui.sessions import Sessions
from tests.fake_ollama import FakeOllama, text_of
from tests.ui.battles import ANN, event, request

PATIENCE_S = 10.0
MASKED = ("tiny", "mistral", "llama3.2", "fake-host", "Q4_K_M")


@pytest.fixture
async def arena(fake: FakeOllama, tmp_path: Path) -> AsyncIterator[Arena]:
    """The arena, with two models on one endpoint and battles without a pace."""
    fake.state(models=("tiny", "mistral:7b"))
    arena = Arena(load(endpoints=(f"fake-host={fake.url}",), engine="off", data=tmp_path))

    async def at_once() -> None:
        await asyncio.sleep(0)

    arena.battles = Battles(arena.compare, arena.fleet, arena.store, tick=at_once)
    async with arena.running():
        await arena.started()
        yield arena


@pytest.fixture(scope="module")
async def drawn() -> tuple[BattleParts, gr.Textbox, gr.Tabs]:
    """The tab's components, drawn once, with what it needs of the page; Gradio wants an event loop to be there."""
    with gr.Blocks(analytics_enabled=False):
        system = gr.Textbox("")
        with gr.Tabs() as tabs, gr.Tab("Battle"):
            return draw_battle(), system, tabs


class Player:
    """Somebody at the battle tab."""

    def __init__(self, arena: Arena, drawn: BattleParts, system: gr.Textbox, tabs: gr.Tabs) -> None:
        self.arena, self.drawn, self.system = arena, drawn, system
        self.sessions = Sessions("ABCDEF")
        self.panel = BattlePanel(arena, Conversations(arena), self.sessions)
        self.events = BattleEvents(drawn, self.panel, system, tabs)
        self.table = self.panel.tables.of("s")
        self.set_up: dict[Any, Any] = {
            drawn.mode: "installed", drawn.sides: 2, drawn.chosen: [], drawn.category: "", drawn.tags: [], system: "",
        }  # fmt: skip
        self.told: list[Any] = []
        self.type("Hello!")

    def type(self, text: str) -> None:
        """Write into the box."""
        self.set_up[self.drawn.prompt] = {"text": text, "files": []}

    async def ask(self, text: str = "Hello!") -> None:
        """Send a prompt and follow the answers."""
        self.type(text)
        self.told += (await self.events.ask(self.set_up, request())).values()
        await self.follow()

    async def follow(self) -> None:
        """Follow what was asked to its end."""
        async with asyncio.timeout(PATIENCE_S):
            self.told += [update async for update in self.events.answer(request())]
        self.told += self.events.settle(request()).values()

    async def press(self, action: str, **data: str) -> None:
        """Press a button of the ballot."""
        self.told += (await self.events.act(self.set_up, event(action=action, **data), request())).values()

    @property
    def phase(self) -> str:
        """Where the battle stands."""
        return self.table.phase

    @property
    def heard(self) -> str:
        """Everything that has gone to the browser."""
        return json.dumps([str(each) for each in self.told])


@pytest.fixture
async def player(arena: Arena, drawn: tuple[BattleParts, gr.Textbox, gr.Tabs]) -> Player:
    return Player(arena, *drawn)


async def test_a_battle_is_asked_judged_revealed_and_rated(player: Player, arena: Arena) -> None:
    table, drawn = player.table, player.drawn
    await player.ask()
    assert player.phase == "ready"
    assert table.said["a"] == table.said["b"] == [text_of(20)]
    assert drawn.columns["a"].chat in player.events.show(table)
    await player.ask("And then?")
    assert (player.phase, table.prompts) == ("ready", ["Hello!", "And then?"])
    assert not any(word in player.heard for word in MASKED), "nothing about anybody before the vote"
    await player.press("vote", verdict="a")
    assert player.phase == "voted"
    shown = player.events.show(table)
    names = {word for word in MASKED[:2] for side in "ab" if word in shown[drawn.columns[side].head]}
    assert names == set(MASKED[:2])
    await player.events.rate(request())
    assert {row.votes for row in table.ratings.values()} == {1}
    assert "standings" in await player.events.rate(request()) or table.ratings
    votes = [vote for _, vote in arena.store.votes()]
    assert [(vote.verdict, vote.turns, vote.voter) for vote in votes] == [("a", 2, arena.store.pseudonym("ann"))]


async def test_the_next_battle_is_one_press_away(player: Player, fake: FakeOllama) -> None:
    await player.ask()
    await player.press("vote", verdict="tie")
    first = player.table.battle_id
    await player.press("again")
    await player.follow()
    assert (player.phase, player.table.prompts) == ("ready", ["Hello!"])
    assert player.table.battle_id != first
    await player.press("next")
    assert player.phase == "ready", "a vote that is open is not thrown away"
    await player.press("vote", verdict="both_bad")
    fake.state(models=("tiny", "mistral:7b", "llama3.2:3b"))
    await player.arena.fleet.models(0)
    player.set_up[player.drawn.sides] = 3
    await player.press("next")
    assert (player.phase, player.table.sides) == ("idle", ("a", "b", "c"))
    await player.press("again")
    assert player.phase == "idle", "there is nothing to ask again"


async def test_more_sides_are_ranked(player: Player, fake: FakeOllama) -> None:
    fake.state(models=("tiny", "mistral:7b", "llama3.2:3b"))
    await player.arena.fleet.models(0)
    player.set_up[player.drawn.sides] = 3
    await player.ask()
    assert player.table.sides == ("a", "b", "c")
    await player.press("rank", order="c>a")
    assert "must give a place to each" in player.table.told
    await player.press("rank", order="c>a=b")
    assert player.table.outcome is not None
    assert player.table.outcome.ranks == {"a": 2, "b": 2, "c": 1}


async def test_who_may_fight_is_chosen(player: Player) -> None:
    drawn, session = player.drawn, player.sessions.of("s")
    hint = await player.events.choose("chosen", 2, request())
    assert hint[drawn.hint] == HINTS["chosen"]
    assert hint[drawn.chosen].visible
    assert not (await player.events.choose("newcomers", 2, request()))[drawn.chosen].visible
    player.set_up |= {
        drawn.mode: "chosen", drawn.chosen: ["tiny", "tiny", "gone:1b"], drawn.category: "coding!",
        drawn.tags: ["a", "?"],
    }  # fmt: skip
    contest = player.events._contest(player.set_up, request())
    assert [instance.model for instance in contest.contestants or ()] == ["tiny", "tiny"]
    assert (contest.category, contest.tags, contest.mode) == ("coding", ("a",), None)
    player.set_up[drawn.mode] = "newcomers"
    assert player.events._contest(player.set_up, request()).mode == "newcomers"
    session.set_columns([ColumnChoice("tiny"), ColumnChoice("tiny", system="Be brief."), ColumnChoice()])
    player.set_up |= {drawn.mode: "columns", player.system: "Be kind."}
    contest = player.events._contest(player.set_up, request())
    assert [instance.system for instance in contest.contestants or ()] == ["Be kind.", "Be brief."]
    await player.ask()
    await player.press("vote", verdict="b")
    outcome = player.table.outcome
    assert outcome is not None
    assert {side.model for side in (outcome.revealed or {}).values()} == {"tiny:latest"}
    assert outcome.rated, "one model with two system prompts is two contestants"


@pytest.mark.parametrize("mode", ["installed", "chosen", "columns", "newcomers"])
async def test_a_key_fights_with_its_own_models_only(player: Player, mode: str) -> None:
    limited = request(caller=msgspec.structs.replace(ANN, key="ann", models=("tiny*",)))
    drawn, session = player.drawn, player.sessions.of("s")
    session.set_columns([ColumnChoice("tiny"), ColumnChoice("mistral:7b")])
    looked = await player.events.arrange("chosen", 2, limited)
    assert looked[drawn.chosen].choices == [("tiny:latest", "tiny:latest")]
    assert "your key may use only tiny:latest" in player.table.told
    await player.events.choose("chosen", 2, request())
    player.set_up |= {drawn.mode: mode, drawn.chosen: ["tiny", "mistral:7b"]}
    await player.events.ask(player.set_up, limited)
    assert player.phase == "idle"
    assert ("may not use that model" if mode in ("chosen", "columns") else "at least two") in player.table.told


async def test_a_prompt_that_cannot_be_sent_stays_in_the_box(player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    infos: list[str] = []
    monkeypatch.setattr(gr, "Info", infos.append)
    await player.events.ask(player.set_up, request())
    again = await player.events.ask(player.set_up, request())
    assert player.drawn.prompt not in again
    assert infos == [STILL]
    await player.follow()
    await player.ask("  ")
    assert (len(player.table.prompts), infos) == (1, [STILL])


async def test_too_few_models_are_told_before_and_after_the_prompt(player: Player, fake: FakeOllama) -> None:
    fake.state(models=("tiny",))
    await player.arena.fleet.models(0)
    await player.events.arrange("chosen", 2, request())
    assert "Only tiny" in player.table.told
    await player.ask()
    assert player.phase == "idle"
    assert "at least two models" in player.table.told
    assert "Pull another one in the Models tab, or let" in player.table.told
    player.set_up[player.drawn.sides] = 3
    await player.ask()
    assert "at least three models, or settings of them. Pull another one in the Models tab, choose fewer sides, or" in (
        player.table.told
    )
    await player.events.choose("columns", 2, request())
    assert player.table.told == "", "which was said of another set-up"
    await player.events.arrange("installed", 2, request())
    assert player.drawn.prompt not in await player.events.ask(player.set_up, request())


async def test_a_side_that_fails_ends_the_battle_and_tells_nothing(player: Player, fake: FakeOllama) -> None:
    fake.state(models=("tiny", "fx-nodone:n-3"))
    await player.arena.fleet.models(0)
    await player.ask()
    assert player.phase == "failed"
    assert not any(word in player.heard for word in (*MASKED, "nodone"))
    await player.press("vote", verdict="a")
    assert player.phase == "failed"
    await player.events.rate(request())
    assert player.table.ratings == {}


async def test_stopping_frees_the_models(player: Player, fake: FakeOllama) -> None:
    fake.state(models=("fx-hang", "fx-hang:n-3"))
    await player.arena.fleet.models(0)
    await player.events.ask(player.set_up, request())
    following = asyncio.create_task(player.follow())
    await fake.arrived(2, path="/api/chat")
    await player.press("stop")
    await asyncio.wait_for(following, PATIENCE_S)
    await fake.closed(2, within_s=PATIENCE_S)
    assert player.phase == "failed"
    assert "You stopped" in player.table.told


@pytest.mark.parametrize(("how", "why"), [("fails", NOT_ALL), ("stopped", "You stopped"), ("left", LEFT)])
async def test_a_later_turn_that_comes_to_nothing_leaves_the_vote_on_those_before(
    player: Player, fake: FakeOllama, how: str, why: str
) -> None:
    session, models = player.sessions.of("s"), ("tiny", "fx-gate:id-a_n-2")
    fake.state(models=models)
    await player.arena.fleet.models(0)
    session.set_columns([ColumnChoice(model) for model in models])
    player.set_up[player.drawn.mode] = "columns"
    fake.release("a", 2)
    await player.ask()
    if how == "fails":
        fake.state(routes={"/api/chat": "fx-nodone"})
    player.type("And then?")
    await player.events.ask(player.set_up, request())
    following = asyncio.create_task(player.follow())
    await fake.arrived(4, path="/api/chat")
    if how == "stopped":
        await player.press("stop")
    elif how == "left":
        player.events.leave(request())
    await asyncio.wait_for(following, PATIENCE_S)
    assert (player.phase, player.table.prompts, player.table.again) == ("ready", ["Hello!"], "And then?")
    assert player.table.told.startswith(why)
    assert player.table.told.endswith(BEFORE)
    fake.state(routes={})
    fake.release("a", 2)
    await player.press("retry")
    await player.follow()
    assert (player.phase, player.table.prompts) == ("ready", ["Hello!", "And then?"])
    await player.press("vote", verdict="a")
    assert player.phase == "voted"


async def test_a_page_that_leaves_frees_the_models_and_may_come_back(player: Player, fake: FakeOllama) -> None:
    await player.ask()
    battle = player.table.battle_id
    player.events.leave(request())
    shown = player.events.resume(battle, request("reloaded"))
    assert player.events.tabs in shown
    assert player.panel.tables.of("reloaded") is player.table
    assert list(player.events.resume("", request("fresh"))) == [player.drawn.ballot]
    fake.state(models=("fx-hang", "fx-hang:n-3"))
    await player.arena.fleet.models(0)
    gone = request("gone")
    await player.events.ask(player.set_up, gone)
    async with aclosing(player.events.answer(gone)) as frames:
        await anext(frames)
        await fake.arrived(4, path="/api/chat")
    await fake.closed(2, within_s=PATIENCE_S)
    assert (player.panel.tables.of("gone").phase, player.panel.tables.of("gone").told) == ("failed", f"{LEFT} {ENDS}")
    later = request("later")
    await player.events.ask(player.set_up, later)
    player.events.leave(later)
    assert [update async for update in player.events.answer(later)] == []
    assert player.panel.tables.of("later").told == f"{LEFT} {ENDS}"


@pytest.mark.parametrize("how", ["stopped", "left", "stopped and asked again"])
async def test_a_battle_that_is_stopped_while_it_is_drawn_never_begins(
    player: Player, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing, go = asyncio.Event(), asyncio.Event()
    create = player.arena.battles.create

    async def slow(*given: Any) -> BattleView:
        drawing.set()
        await go.wait()
        return await create(*given)

    monkeypatch.setattr(player.arena.battles, "create", slow)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(player.ask())
        await drawing.wait()
        if how == "left":
            player.events.leave(request())
        else:
            await player.press("stop")
        assert player.phase == "failed"
        if how == "stopped and asked again":
            monkeypatch.setattr(player.arena.battles, "create", create)
            await player.ask("Again?")
        go.set()
    told = {"stopped": "You stopped", "left": LEFT}.get(how, "")
    assert told in player.table.told
    assert player.table.prompts == (["Again?"] if how == "stopped and asked again" else [])
    assert player.phase == ("ready" if how == "stopped and asked again" else "failed")


async def test_a_draw_that_fails_after_it_was_stopped_changes_nothing(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> BattleView:
        await player.press("stop")
        raise NotFound("no such thing")

    monkeypatch.setattr(player.arena.battles, "create", refuse)
    await player.ask()
    assert (player.phase, "You stopped" in player.table.told) == ("failed", True)


async def test_while_a_vote_is_kept_nothing_else_is_done(player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    infos: list[str] = []
    monkeypatch.setattr(gr, "Info", infos.append)
    await player.ask()
    keeping, go = asyncio.Event(), asyncio.Event()
    vote = player.arena.battles.vote

    async def slow(*given: Any) -> BattleView:
        assert not keeping.is_set(), "one vote is enough"
        keeping.set()
        await go.wait()
        return await vote(*given)

    monkeypatch.setattr(player.arena.battles, "vote", slow)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(player.press("vote", verdict="a"))
        await keeping.wait()
        await player.press("vote", verdict="b")
        await player.ask("And more?")
        go.set()
    assert infos == [VOTING]
    assert (player.phase, len(player.table.prompts), player.table.told) == ("voted", 1, "")


async def test_ratings_that_come_late_are_not_shown_beside_the_next_battle(
    player: Player, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    await player.ask()
    await player.press("vote", verdict="a")
    board = arena.leaderboard.board()

    async def late(*_: Any) -> Board:
        await player.press("next")
        return board

    monkeypatch.setattr(arena, "rated", late)
    await player.events.rate(request())
    assert (player.phase, player.table.ratings) == ("idle", {})


async def test_a_vote_that_the_store_cannot_keep_is_pressed_again(
    player: Player, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    await player.ask()

    def full(*_: object) -> None:
        raise StoreUnavailable("The disk is full.")

    with monkeypatch.context() as broken:
        broken.setattr(arena.store, "add_ballot", full)
        await player.press("vote", verdict="b")
        await player.press("vote", verdict="b")
    assert player.phase == "ready"
    assert "is not lost" in player.table.told
    assert player.table.told.endswith("Tried 2 times.")
    await player.press("vote", verdict="b")
    assert (player.phase, player.table.told) == ("voted", "")
    with monkeypatch.context() as broken:
        broken.setattr(arena.leaderboard, "board", full)
        await player.events.rate(request())
    assert player.table.ratings == {}


async def test_only_the_words_of_the_ballot_are_a_vote(player: Player) -> None:
    await player.ask()
    await player.press("vote", verdict="everything")
    assert player.phase == "ready"


@pytest.mark.parametrize(
    ("error", "phase"), [(NotFound("It has expired"), "failed"), (Conflict("It is full", code="battle_full"), "ready")]
)
async def test_a_turn_that_cannot_begin_says_why(
    player: Player, arena: Arena, monkeypatch: pytest.MonkeyPatch, error: Exception, phase: str
) -> None:
    await player.ask()

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(arena.battles, "turn", refuse)
    await player.ask("More?")
    assert player.phase == phase
    assert player.table.told == str(error)
    assert len(player.table.prompts) == (1 if phase == "ready" else 2)


@pytest.mark.parametrize(
    ("error", "phase"), [(NotFound("It has expired"), "failed"), (Conflict("Voted", code="voted"), "ready")]
)
async def test_a_vote_that_is_refused_says_why(
    player: Player, arena: Arena, monkeypatch: pytest.MonkeyPatch, error: Exception, phase: str
) -> None:
    await player.ask()

    async def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(arena.battles, "vote", refuse)
    await player.press("vote", verdict="a")
    assert (player.phase, player.table.told) == (phase, str(error))


async def test_a_vote_on_a_battle_that_is_gone_says_so(player: Player) -> None:
    await player.ask()
    player.panel.tables = Tables()
    shown = await player.events.act(player.set_up, event(action="vote", verdict="a"), request())
    assert "does not have this battle any more" in shown[player.drawn.ballot]
    assert player.drawn.columns["a"].chat in shown, "and the page shows no answers of it any more"


async def test_the_same_prompt_on_the_same_models_says_what_it_counts(player: Player) -> None:
    for told in ("counts for the ratings", "counts a half: you have compared these two on this prompt before"):
        await player.ask()
        await player.press("vote", verdict="a")
        assert told in await player.events.rate(request())


async def test_the_set_up_follows_the_user(player: Player) -> None:
    drawn = player.drawn
    assert player.events.example(event(prompt="Why?")) == {"text": "Why?", "files": []}
    player.sessions.of("s").set_columns([ColumnChoice("tiny")] * 4)
    shown = await player.events.arrange("columns", 4, request())
    assert [shown[drawn.columns[side].box].visible for side in "abcd"] == [True] * 4
    assert 'data-most="4"' in shown[drawn.ballot]
    assert drawn.sides not in shown
    shown = await player.events.choose("installed", 4, request())
    assert shown[drawn.sides].value == 2, "as many as there are models"
    assert 'data-most="2"' in shown[drawn.ballot]
    await player.ask()
    assert list(await player.events.arrange("installed", 3, request())) == [drawn.chosen]
    assert player.table.sides == ("a", "b")
    assert drawn.chosen in await player.events.arrange("installed", 2, request())


def test_the_voter_is_whom_the_guard_has_found() -> None:
    assert caller_of(request()) == ANN
    assert caller_of(request(caller=None)) == NOBODY
    assert voter_of(ANN).name == "ann"
    visitor = msgspec.structs.replace(ANN, visitor="x")
    assert voter_of(visitor).name == "visitor x"
