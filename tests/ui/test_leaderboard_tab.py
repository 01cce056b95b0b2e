"""The leaderboard tab over a store: what it shows when, what its buttons do, and its silence while nothing changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from shutil import copy
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest

from arena.arena import Arena
from arena.errors import StoreUnavailable
from arena.exchange import Caller
from arena.fleet import Fleet
from arena.settings import load
from arena.store import Store
from arena.types import Configuration, ModelInfo, Style, Vote
from arena.ui.leaderboard import BoardEvents, LeaderboardPanel, changed
from arena.ui.leaderboard_query import Chosen, Part, chosen
from arena.ui.leaderboard_view import BoardView, hues, installed
from tests.fleet.hosts import quiet_fleet, tell
from tests.ui.pieces import EVIL
from tests.ui.test_leaderboard_pieces import text

MODELS = ("x:1", "y:1", "z:1")


def vote(number: int, a: str, b: str, verdict: Any = "a", **more: Any) -> Vote:
    at = f"2026-03-{1 + number % 28:02}T12:00:00.000+00:00"
    given: dict[str, Any] = {
        "configuration_a": f"{a}-1", "configuration_b": f"{b}-1", "voter": f"v{number % 3}", "style_a": Style(30, 1),
        "style_b": Style(10 + number % 5),
    }  # fmt: skip
    return Vote(f"b{number}", at, model_a=a, model_b=b, verdict=verdict, **given | more)


def votes(count: int = 60, **more: Any) -> list[Vote]:
    """x beats y beats z, mostly."""
    pairs = (("x:1", "y:1"), ("y:1", "z:1"), ("x:1", "z:1"))
    return [vote(at, *pairs[at % 3], "b" if at % 7 == 0 else "a", **more) for at in range(count)]


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    """An arena that was never started, with three models on one host and no store yet."""
    arena = Arena(load(engine="off", data=tmp_path))
    arena.fleet = quiet_fleet({"host": MODELS})
    yield arena
    arena.store.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's file with sixty votes."""
    file = tmp_path_factory.mktemp("filled") / "arena.sqlite3"
    store = Store(f"sqlite:///{file}")
    store.add_votes(votes(), [Configuration(f"{model}-1", model, label=model) for model in MODELS])
    store.close()
    return file


@pytest.fixture
def store(arena: Arena, filled: Path, tmp_path: Path) -> Store:
    """The arena's store, with these votes."""
    copy(filled, tmp_path)
    return arena.store


def seen(arena: Arena, part: Part = "ranking", **wanted: Any) -> str:
    """The body of the tab."""
    view = BoardView(arena)
    return view.pieces(view.sight(Chosen(part=part, **wanted), view.last_vote(), installed(arena.fleet)))[2]


# ---- what it shows


def test_before_the_first_vote_it_says_what_to_do_and_makes_no_file(arena: Arena, tmp_path: Path) -> None:
    told = seen(arena)
    assert "No votes yet" in told
    assert 'data-action="battle"' in told
    assert "What the ratings cannot tell" in seen(arena, "method")
    assert list(tmp_path.iterdir()) == []
    arena.store.open()
    assert "No votes yet" in seen(arena)


def test_every_part_is_about_the_same_votes(arena: Arena, store: Store) -> None:
    parts: dict[Part, tuple[str, ...]] = {
        "ranking": ("x:1", "Votes to flip", "95 % confidence"),
        "pairs": ("Wins", "Battles", "pairs are decided", "x:1"),
        "time": ("Ratings over time", "x:1", "Each band"),
        "cost": ("No fair run is kept yet", "Quality against memory"),
        "style": ("What style buys", "Ratings with style held equal", "From 60 of 60 votes"),
        "method": ("What the ratings cannot tell",),
    }
    for part, says in parts.items():
        told = text(seen(arena, part))
        for word in says:
            assert word in told, (part, word)


def test_the_head_counts_votes_voters_and_models(arena: Arena, store: Store) -> None:
    view = BoardView(arena)
    head, form, _ = view.pieces(view.sight(Chosen(), view.last_vote(), installed(arena.fleet)))
    assert "60 votes by 3 voters on 3 models" in text(head)
    assert 'data-ago="' in head
    assert "Download" in head
    assert "counted as" not in head
    store.add_votes([vote(100 + at, "x:1", "z:1", voter=f"w{at % 90}", address=f"w{at % 90}") for at in range(180)])
    store.add_votes([vote(900 + at, "z:1", "x:1", voter="stuffer") for at in range(50)])
    assert "counted as" in view.pieces(view.sight(Chosen(), view.last_vote(), None))[0]
    assert "Which votes count" in form


def test_filters_narrow_the_votes_and_can_be_cleared(arena: Arena, store: Store) -> None:
    store.add_votes([vote(100 + at, "y:1", "x:1", category="coding", tags=("python",)) for at in range(5)])
    narrowed: tuple[dict[str, Any], ...] = ({"category": "coding"}, {"tag": "python"})
    for narrow in narrowed:
        assert 'data-label="votes">5<' in seen(arena, **narrow)
    assert 'data-label="votes">5<' not in seen(arena)
    assert seen(arena, since="2026-03-05", until="2026-03-05").count('data-label="votes">') == 3
    assert 'data-action="clear"' in seen(arena, voters=("nobody",))
    assert "No vote matches" in seen(arena, "pairs", since="2027-01-01")


def test_votes_with_the_names_in_sight_count_only_when_asked_for(arena: Arena) -> None:
    arena.store.add_votes(votes(6, blind=False))
    assert "No vote counts for the ratings yet" in seen(arena)
    assert "x:1" in seen(arena, blind=False)


def test_style_held_equal_brings_its_effects(arena: Arena, store: Store) -> None:
    told = seen(arena, style=True)
    assert "What style buys" in told
    assert "Votes to flip" not in told
    assert "Style is not held equal here." in seen(arena, "time", style=True)


def test_where_no_style_was_counted_it_says_so(arena: Arena) -> None:
    arena.store.add_votes(votes(6, style_a=None, style_b=None))
    assert "Style was counted in none of these votes" in seen(arena, "style")
    assert "Style was counted in none of these votes" in seen(arena, style=True)


def test_models_that_are_gone_are_hidden_in_every_part(arena: Arena, store: Store) -> None:
    store.add_votes([vote(280 + 28 * at, "gone:1", "x:1") for at in range(3)])
    for part in ("pairs", "time", "style"):
        assert "gone:1" not in seen(arena, part), part
        assert "gone:1" in seen(arena, part, gone=True), part
    assert "1 model that no host has is hidden (gone:1)" in seen(arena)
    arena.fleet = quiet_fleet({"host": ("other",)})
    assert 'data-action="gone"' in seen(arena)
    assert "None of the 4 rated models is installed now" in seen(arena, "pairs")


def test_what_hosts_have_not_told_yet_hides_nothing(arena: Arena, store: Store) -> None:
    assert installed(Fleet()) is None
    assert installed(quiet_fleet({"a": MODELS})) is not None
    arena.fleet = Fleet()
    assert "x:1" in seen(arena)


def test_settings_are_rated_apart_under_their_names(arena: Arena, store: Store) -> None:
    cooler = Configuration("x:1-2", "x:1", label="x:1, temperature 0.2")
    store.add_votes([vote(100 + at, "x:1", "y:1", configuration_a="x:1-2") for at in range(5)], [cooler])
    assert "temperature 0.2" in seen(arena, settings=True)
    assert "x:1, temperature 0.2" in seen(arena, "pairs", settings=True)
    assert "temperature" not in seen(arena)
    assert "weights" not in seen(arena, settings=True)
    again = Configuration("x:1-3", "x:1", label="x:1", digest="fedcba9876")
    store.add_votes([vote(200 + at, "x:1", "y:1", configuration_a="x:1-3") for at in range(5)], [again])
    for part in ("ranking", "pairs"):
        found = seen(arena, part, settings=True)
        assert "weights fedcba9" in found
        assert "weights unknown" in found


def test_ratings_on_one_day_are_points(arena: Arena) -> None:
    arena.store.add_votes([vote(28 * at, "x:1", "y:1") for at in range(3)])
    assert "the lines begin with the next one" in seen(arena, "time")
    arena.store.add_votes([vote(28 * at + 1, "x:1", "y:1") for at in range(3, 20)])
    assert "the lines begin with the next one" in seen(arena, "time"), "three votes on the first day say little"
    arena.store.add_votes([vote(28 * 20 + 2, "x:1", "y:1")])
    assert "Each band holds" in seen(arena, "time")


def test_colours_stay_with_their_models(arena: Arena, store: Store) -> None:
    rows = arena.leaderboard.board().rows
    assert hues(rows) == hues(rows[::-1]) == {"x:1": "a", "y:1": "b", "z:1": "c"}


# ---- what its buttons do


@pytest.mark.parametrize(
    ("action", "value", "wanted"),
    [
        ("part", "time", Chosen("time", category="c")),
        ("part", "secrets", Chosen(category="c")),
        ("filter", "blind=1&tag=t", Chosen("pairs", tag="t")),
        ("filter", "", Chosen("pairs", blind=False)),
        ("dance", "", Chosen("pairs", category="c")),
    ],
)
def test_a_button_changes_what_is_wanted(action: str, value: str, wanted: Chosen) -> None:
    assert changed(Chosen("pairs", category="c"), action, value) == wanted


REQUEST = cast(gr.Request, SimpleNamespace(request=None))


@pytest.fixture
async def events(arena: Arena) -> BoardEvents:
    """The tab."""
    with gr.Blocks(analytics_enabled=False):
        return LeaderboardPanel(arena).render()


async def click(events: BoardEvents, asked: str, marks: str, **data: str) -> dict[Any, Any]:
    return await events.act(asked, marks, REQUEST, gr.EventData(None, data))


@pytest.mark.anyio
async def test_it_sends_only_what_has_changed(arena: Arena, store: Store, events: BoardEvents) -> None:
    drawn = events.drawn
    first = await events.refresh("", "", REQUEST)
    assert all("data-now" in first[piece] for piece in drawn.pieces)
    asked, marks = first[drawn.asked], first[drawn.marks]
    again = await events.refresh(asked, marks, REQUEST)
    assert set(again) == {drawn.marks}
    part = await click(events, asked, marks, action="part", value="pairs")
    assert set(part) == {drawn.body, drawn.asked, drawn.marks}
    assert chosen(part[drawn.asked]).part == "pairs"
    same = await click(events, asked, marks, action="part", value="ranking")
    assert set(same) == {drawn.body, drawn.asked, drawn.marks}, "who asks is answered"
    narrowed = await click(events, asked, marks, action="filter", value="blind=1&until=2026-03-03")
    assert set(narrowed) == {drawn.head, drawn.body, drawn.asked, drawn.marks}, "what is typed into the form stays"
    store.add_votes([vote(100, "x:1", "y:1", category="new")])
    fresh = await events.refresh(asked, marks, REQUEST)
    assert set(fresh) == {*drawn.pieces, drawn.asked, drawn.marks}
    assert "61 votes" in fresh[drawn.head]


@pytest.mark.anyio
async def test_a_model_that_is_pulled_comes_back(arena: Arena, store: Store, events: BoardEvents) -> None:
    arena.fleet = quiet_fleet({"host": MODELS[:2]})
    before = await events.refresh("", "", REQUEST)
    assert "z:1</span>" not in before[events.drawn.body]
    (host,) = arena.fleet.endpoints
    tell(host, *MODELS)
    after = await events.refresh(before[events.drawn.asked], before[events.drawn.marks], REQUEST)
    assert "z:1</span>" in after[events.drawn.body]


@pytest.mark.anyio
async def test_sizes_are_shown_also_while_another_host_is_silent(
    arena: Arena, store: Store, events: BoardEvents
) -> None:
    arena.fleet = quiet_fleet({"host": MODELS, "silent": ()})
    host, silent = arena.fleet.endpoints
    host._take_models(tuple(ModelInfo(name, size_bytes=2_000_000_000) for name in MODELS))
    silent.heard = False
    drawn = events.drawn
    first = await events.refresh("", "", REQUEST)
    part = await click(events, first[drawn.asked], first[drawn.marks], action="part", value="cost")
    assert "x:1: 2.0 GB" in part[drawn.body]


@pytest.mark.anyio
async def test_ones_own_votes_are_named(arena: Arena, store: Store, events: BoardEvents) -> None:
    store.add_votes([vote(100, "x:1", "y:1", voter=store.pseudonym("visitor me"))])
    caller = Caller("127.0.0.1", "127.0.0.1", "r", visitor="me")
    asking = cast(gr.Request, SimpleNamespace(request=SimpleNamespace(scope={"arena.caller": caller})))
    form = (await events.refresh("", "", asking))[events.drawn.filters]
    assert re.search(r'value="[0-9a-f]{16}"> <b>you</b> <span class="dim">1 vote<', form)
    assert "<b>you</b>" not in (await events.refresh("", "", REQUEST))[events.drawn.filters]


@pytest.mark.anyio
async def test_on_a_server_open_to_all_nobody_is_offered_what_others_said(store: Store, tmp_path: Path) -> None:
    arena = Arena(load(engine="off", data=tmp_path, host="0.0.0.0", allow_open=True))
    arena.fleet = quiet_fleet({"host": MODELS})
    with gr.Blocks(analytics_enabled=False):
        events = LeaderboardPanel(arena).render()
    head = (await events.refresh("", "", REQUEST))[events.drawn.head]
    assert "api/votes?format=csv" in head
    assert "jsonl" not in head
    arena.store.close()


@pytest.mark.anyio
async def test_a_store_that_fails_is_told_and_asked_again(
    arena: Arena, store: Store, events: BoardEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def fail() -> int:
            raise StoreUnavailable(f"disk {EVIL}")

        broken.setattr(store, "last_number", fail)
        told = await events.refresh("", "", REQUEST)
    assert "The votes cannot be read" in told[events.drawn.body]
    assert "<img" not in told[events.drawn.body]
    assert told[events.drawn.marks] == ""
    assert "x:1" in (await events.refresh("", "", REQUEST))[events.drawn.body]
