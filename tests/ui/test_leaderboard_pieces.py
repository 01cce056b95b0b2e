"""What the leaderboard tab says: table, maps, pairs, speed and memory, the form, the files, the method."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from arena.api.leaderboard import operations
from arena.arena import Arena
from arena.leaderboard import Board, Choices, Matrix, Pace, View, places
from arena.names import canonical
from arena.ratings import Duel, Effect, Flip, Ladder, Rating
from arena.settings import load
from arena.types import ModelInfo
from arena.ui.leaderboard_cost import cost
from arena.ui.leaderboard_filters import NAMES, files, filters, parts_row
from arena.ui.leaderboard_method import method
from arena.ui.leaderboard_pairs import MOST_NAMES, MOST_PAIRS, evidence, head_to_head
from arena.ui.leaderboard_query import PARTS, Chosen, chosen
from arena.ui.leaderboard_ranking import (
    Line,
    effects,
    is_gone,
    models_of,
    ranking,
    share,
    shown,
    style_change,
    with_settings,
)
from tests.ui.pieces import EVIL

AT = "2026-03-01T12:00:00.000+00:00"


def row(name: str, rating: float = 1000.0, *, margin: float = 50.0, **more: Any) -> Rating:
    given: dict[str, Any] = {
        "name": name, "model": name, "rating": rating, "lower": rating - margin, "upper": rating + margin, "rank": 1,
        "rank_best": 1, "rank_worst": 2, "votes": 40, "weight": 40.0, "wins": 20, "losses": 10, "ties": 6,
        "both_bad": 4, "win_rate": 0.625, "preliminary": False,
    }  # fmt: skip
    return Rating(**given | more)


def duel(a: str, b: str, wins: int = 8, losses: int = 2, **more: Any) -> Duel:
    given: dict[str, Any] = {
        "a": a, "b": b, "wins": wins, "losses": losses, "ties": 1, "both_bad": 1, "win_rate": 0.75, "expected": 0.7,
        "e_value": 3.2, "decided": False, "votes_needed": 14,
    }  # fmt: skip
    return Duel(**given | more)


def known(*names: str, size: int = 0) -> dict[str, ModelInfo]:
    return {name: ModelInfo(name, size_bytes=size) for name in names}


def text(html: str) -> str:
    """What one reads, without tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def sound(html: str) -> ElementTree.Element:
    """The piece as XML."""
    return ElementTree.fromstring(f"<div>{html}</div>")


# ---- the table


def test_a_row_tells_rating_interval_ranks_and_votes() -> None:
    shown_rows = ranking(models_of([row("x:1", 1100, rank_worst=1), row("y:1", 950.4)]), [Flip("x:1", "y:1", 23)], None)
    first, second = sound(shown_rows).findall(".//tbody/tr")
    assert text(ElementTree.tostring(first, encoding="unicode")).split() == [
        "1", "x:1", "1100", "±50", "x:1:", "1100,", "95", "%", "interval", "1050", "to", "1150", "40", "62", "%", "10",
        "%", "23",
    ]  # fmt: skip
    assert "1–2" in text(ElementTree.tostring(second, encoding="unicode"))  # noqa: RUF001 - a span of ranks
    assert "If 23 more battles between the two went to y:1, it would pass x:1" in shown_rows


def test_few_votes_are_marked_preliminary_and_a_small_lead_fragile() -> None:
    table = ranking(models_of([row("x:1", preliminary=True), row("y:1")]), [Flip("x:1", "y:1", 4)], None)
    assert table.count("preliminary</span>") == 1
    assert "fig warn" in table
    assert "to flip" not in ranking(models_of([row("x:1")]), [], None)


def test_an_interval_that_reaches_further_up_says_so() -> None:
    table = text(ranking([Line(row("x", 1323, lower=1103, upper=2011), "x")], [], None))
    assert "1323 +688 \N{MINUS SIGN}220" in table


def test_models_that_no_host_has_are_hidden_until_asked_for() -> None:
    lines = models_of([row("x:1"), row("gone:1"), row("Y")])
    there = known("x:1", "y:latest")
    seen, hidden = shown(lines, Chosen(), there)
    assert ([line.label for line in seen], hidden) == (["x:1", "Y"], ["gone:1"])
    assert "1 model that no host has is hidden (gone:1); ranks count it too." in ranking(seen, [], there, hidden=hidden)
    many = ranking(seen, [], there, hidden=[f"m{at}" for at in range(7)])
    assert "7 models that no host has are hidden (m0, m1, m2, m3, m4…); ranks count them too." in many
    seen, hidden = shown(lines, Chosen(gone=True), there)
    assert (len(seen), hidden) == (3, [])
    assert ranking(seen, [], there).count("not installed") == 1
    assert not is_gone("gone:1", None), "nobody knows before all hosts have told"


def test_settings_stand_below_their_model_where_there_are_several() -> None:
    settings = (row("c1", 1050, model="x:1"), row("c2", 950, model="x:1"))
    ladders = [Ladder(row("x:1"), settings), Ladder(row("y:1"), (row("c3", model="y:1"),))]
    lines = with_settings(ladders, {"c1": "x:1, temperature 0.2", "c2": "x:1", "c3": "y:1"})
    assert [(line.label, line.setting) for line in lines] == [
        ("x:1", False), ("temperature 0.2", True), ("the model's own settings", True), ("y:1", False),
    ]  # fmt: skip
    table = ranking(lines, [Flip("x:1", "y:1", 9)], known("y:1"))
    assert "Settings are rated against everything" in table
    assert table.count('class="setting"') == 2
    assert shown(lines, Chosen(), known("y:1"))[0] == [lines[-1]], "settings go with their model"


def test_settings_that_differ_in_their_weights_alone_tell_them() -> None:
    ladder = Ladder(row("x:1"), tuple(row(name, model="x:1") for name in ("c1", "c2")))
    labels = {"c1": "x:1, weights a1b2c3d4e5f6", "c2": "x:1, weights unknown"}
    assert [line.label for line in with_settings([ladder], labels)] == [
        "x:1", "weights a1b2c3d4e5f6", "weights unknown",
    ]  # fmt: skip


def test_figures_are_for_people() -> None:
    assert places(row("x", rank_best=3, rank_worst=3)) == "3"
    assert (share(None), share(0.0), share(0.5)) == ("–", "0 %", "50 %")  # noqa: RUF001 - a dash
    assert [evidence(value) for value in (0.24, 19.6, 5e6)] == ["0.2", "20", "over 1,000"]
    assert "–" in text(ranking([Line(row("x", votes=0, win_rate=None), "x")], [], None))  # noqa: RUF001 - a dash


def test_what_style_buys_is_told_in_wins() -> None:
    found = [
        Effect("tokens", 0.4, 0.2, 0.6), Effect("headers", -0.4, -0.6, -0.2), Effect("lists", 0, -0.1, 0.1),
        Effect("bold", 0.1, -0.1, 0.3),
    ]  # fmt: skip
    told = effects(found)
    assert [cell.text for cell in sound(told).findall(".//tbody/tr/td[3]")] == [
        "liked", "disliked", "no clear effect", "no clear effect",
    ]  # fmt: skip
    assert "Length: 60 %, 95 % interval 55 to 65 %" in told


def test_ratings_with_and_without_style_stand_side_by_side() -> None:
    def board(*rows: Rating) -> Board:
        return Board(View(), 9, 90, 3, 90.0, rows, {})

    moved = row("y:1", 1010.4, rank_best=2, rank_worst=3)
    told = style_change(
        board(row("x:1", 1100), row("y:1", 990), row("z:1", 1000)),
        board(row("x:1", 1060), moved, row("z:1"), row("w")),
        lambda one: one.name != "hidden",
    )  # fmt: skip
    figures = [" ".join(cell.text or "" for cell in line.findall("td")) for line in sound(told).findall(".//tbody/tr")]
    assert figures == [
        "1100 1060 −40 1–2", "990 1010 +20 1–2 → 2–3", "1000 1000 ±0 1–2",  # noqa: RUF001 - minus signs and dashes
    ]  # fmt: skip


# ---- pairs


def cells(html: str, name: str) -> list[list[str]]:
    """The figures of a map, row by row."""
    table = sound(html).find(f".//table[@aria-label='{name} by pair']/tbody")
    assert table is not None
    return [[cell.text or "" for cell in line.findall("td")] for line in table]


def test_both_maps_are_read_row_against_column() -> None:
    matrix = Matrix(("x", "y", "z"), {"y": "why"}, (duel("x", "y"), duel("z", "x", 1, 9, win_rate=0.1)), ())
    told = head_to_head(matrix, lambda name: True)
    assert cells(told, "Wins") == [["", "75", "90"], ["25", "", "–"], ["10", "–", ""]]  # noqa: RUF001 - a dash
    assert cells(told, "Battles") == [["", "12", "12"], ["12", "", "–"], ["12", "–", ""]]  # noqa: RUF001 - a dash
    assert "x against z: 9 won, 1 lost, 2 drawn. The ratings expect 30 %." in told
    assert "why and z have not met" in told
    shades = {cell.text: cell.get("style") for cell in sound(told).iter("td") if cell.get("class") in ("win", "loss")}
    assert shades == {"75": "--p:38%", "90": "--p:60%", "25": "--p:38%", "10": "--p:60%"}


def test_pairs_say_what_is_decided_and_what_is_missing() -> None:
    met = (
        duel("x", "y", 30, 5, decided=True, e_value=400.0, votes_needed=0),
        duel("x", "z", 2, 6, votes_needed=12),
        duel("y", "z", 5, 5, votes_needed=None),
        duel("w", "x", 1, 0, votes_needed=1),
    )
    told = head_to_head(Matrix(("w", "x", "y", "z"), {}, met, ()), lambda name: True)
    lines = [
        text(ElementTree.tostring(line, encoding="unicode"))
        for line in sound(told).findall(".//table[@aria-label='Pairs']/tbody/tr")
    ]
    assert [" ".join(line.split()[:3]) for line in lines] == ["w leads x", "z leads x", "x beats y", "y and z"]
    assert "about 1 more vote" in lines[0]
    assert "about 12 more votes" in lines[1]
    assert "6–2" in lines[1]  # noqa: RUF001 - the score of who leads stands first
    assert "decided" in lines[2]
    assert "not in sight" in lines[3]
    assert "1 of 4 pairs are decided" in told


def test_hidden_contestants_are_in_no_map_and_no_pair() -> None:
    matrix = Matrix(("x", "y", "gone"), {}, (duel("x", "gone"),), ())
    told = head_to_head(matrix, lambda name: name != "gone")
    assert "gone" not in told
    assert "No two of these models have met yet." in told


def test_maps_and_pairs_have_an_end() -> None:
    names = tuple(f"m{at:03}" for at in range(MOST_NAMES + 5))
    met = tuple(duel(names[0], other, votes_needed=at) for at, other in enumerate(names[1:]))
    told = head_to_head(Matrix(names, {}, met * 3, ()), lambda name: True)
    assert len(cells(told, "Wins")) == MOST_NAMES
    assert f"the best {MOST_NAMES} of {len(names)}" in told
    assert len(sound(told).findall(".//table[@aria-label='Pairs']/tbody/tr")) == MOST_PAIRS
    assert f"The first {MOST_PAIRS} are listed." in told
    assert "left out" not in told
    for omitted, said in ((1, "1 is left out"), (1234, "1,234 are left out")):
        assert said in head_to_head(Matrix(names[:2], {}, met[:1], (), omitted), lambda name: True)


# ---- speed and memory


def test_quality_is_set_against_speed_and_memory() -> None:
    paces = {"x:1": Pace(7, 50.04, 45, 55, 0.25), "y:1": Pace(1, 20, 20, 20, None)}
    told = cost([row("x:1"), row("y:1", 900), row("z:1")], {"x:1": "a"}, paces, known("x:1", "y:1", size=2_000_000_000))
    plots = sound(told).findall(".//figure/svg")
    assert [len(plot.findall("g")) for plot in plots] == [2, 2]
    assert "x:1: 50.0 tokens/s (half of 7 runs from 45.0 to 55.0), rating 1000 (950 to 1050)" in told
    assert "no other is both better and faster (x:1)" in told
    table = [
        text(ElementTree.tostring(line, encoding="unicode")).strip() for line in sound(told).findall(".//tbody/tr")
    ]
    assert table[0] == "x:1 1000 50.0 0.25 s 7 2.0 GB"
    assert table[2] == "z:1 1000 – – – –"  # noqa: RUF001 - dashes


def test_without_figures_it_says_so_and_what_to_do() -> None:
    told = cost([row("x:1")], {}, {}, {})
    assert "No fair run is kept yet" in told
    assert "one after another" in told
    assert "No host has told the size" in told
    assert "<svg" not in told
    assert "<table" not in told


# ---- which votes


FULL = Chosen(
    part="pairs", settings=True, blind=False, style=True, gone=True, category="a&b", tag="c d", since="2026-01-01",
    until="2026-01-31", voters=("v1", "v=2"),
)  # fmt: skip


def test_what_is_chosen_comes_back_from_its_text() -> None:
    assert chosen(FULL.told()) == FULL
    assert chosen(Chosen().told()) == chosen("") == chosen(None) == Chosen()
    assert FULL.narrowed
    assert not Chosen(blind=False, gone=True).narrowed


def test_what_makes_no_sense_is_left_out() -> None:
    odd = chosen(
        "part=secrets&since=yesterday&until=2026-13-01&category=" + "x" * 500 + "&voter=a&voter=a&voter=b&%ff=%00"
    )
    assert odd == Chosen(blind=False, category="x" * 200, voters=("a", "b"))


def test_a_view_has_the_last_day_in_it() -> None:
    view = FULL.view()
    assert (view.since, view.until, view.category, view.voters) == ("2026-01-01", "2026-02-01", "a&b", ("v1", "v=2"))
    assert Chosen().view() == View()
    assert Chosen(until="9999-12-31").view().until == "9999-12-31"


def test_links_ask_the_api_for_the_same_votes() -> None:
    assert Chosen().asked() == ""
    assert FULL.asked() == (
        "?per=configuration&blind=false&style=true&category=a%26b&tag=c+d&since=2026-01-01&until=2026-02-01&voter=v1&voter=v%3D2"
    )
    assert "style" not in FULL.asked(style=False)
    assert "per=" not in FULL.asked(per=False)


def test_every_file_of_the_api_is_offered() -> None:
    plain, narrow = files(Chosen()), files(FULL)
    routes = [each.path for each in operations(Arena(load(engine="off"))) if each.method == "GET"]
    assert "/leaderboard/matrix" in routes
    for path in routes:
        assert f'href="api{path}' in plain, path
    for kind in ("leaderboard?format=csv", "leaderboard?format=md", "leaderboard?format=html", "votes?format=csv"):
        assert f'href="api/{kind}"' in plain, kind
    assert 'href="/' not in plain, "the page may stand below a prefix"
    assert "voter=v%3D2&amp;format=csv" in narrow


def test_what_would_be_refused_is_not_offered() -> None:
    told = files(Chosen(), conversations=False)
    assert "conversations" not in told
    assert "preferences" not in told
    assert "api/votes?format=csv" in told
    assert "exported by the operator of this server alone" in told
    assert "operator" not in files(Chosen())


def test_parquet_is_offered_where_it_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.ui.leaderboard_filters.find_spec", lambda name: None)
    assert "parquet" not in files(Chosen())
    monkeypatch.setattr("arena.ui.leaderboard_filters.find_spec", lambda name: name == "pyarrow")
    assert "api/votes?format=parquet" in files(Chosen())


def test_the_form_offers_what_there_is_and_shows_what_is_chosen() -> None:
    bare = filters(Chosen(), Choices())
    assert "<select" not in bare
    assert "Raters" not in bare
    assert re.findall(r'name="(\w+)" value="1" checked', bare) == ["blind"]
    choices = Choices(("coding",), ("python",), (("v1", 3), ("v2", 1)), AT, me="v2")
    form = filters(FULL, choices)
    assert '<option value="a&amp;b" selected>' in form, "also what is offered no more"
    assert re.findall(r'name="voter" value="([^"]*)" checked', form) == ["v1", "v=2"]
    assert "you" in text(form)
    assert "Raters" not in filters(Chosen(), Choices(raters=(("v1", 3),)))


def test_parts_can_be_told_apart() -> None:
    assert set(NAMES) == set(PARTS)
    told = sound(parts_row("pairs"))
    assert [button.text for button in told.iter("button") if button.get("aria-current")] == ["Head to head"]


def test_the_method_says_how_and_what_it_cannot_tell() -> None:
    told = text(method())
    for says in (
        "Bradley-Terry", "95 % confidence", "weigh less than 20", "ever reaches 20 with a chance of at most 5 %",
        "at most 20 votes and an address for 60", "cannot tell", "Votes to flip",
    ):  # fmt: skip
        assert says in told, says


# ---- names


def test_nothing_from_outside_is_html() -> None:
    duels = (duel(EVIL, "y"),)
    told = [
        ranking([Line(row(EVIL, model="m"), EVIL)], [Flip(EVIL, EVIL, 3)], known("x"), hidden=[EVIL]),
        head_to_head(Matrix((EVIL, "y"), {EVIL: EVIL}, duels, ()), lambda name: True),
        cost([row(EVIL)], {}, {canonical(EVIL): Pace(1, 2, 2, 2, 1)}, known(canonical(EVIL), size=5)),
        effects([Effect(EVIL, 0.1, 0.0, 0.2)]),
        style_change(*(Board(View(), 1, 1, 1, 1.0, (row(EVIL),), {}),) * 2, lambda one: True),
        filters(Chosen(category=EVIL, tag=EVIL, voters=(EVIL,)), Choices((EVIL,), (EVIL,), ((EVIL, 1), ("v", 1)))),
        files(Chosen(category=EVIL)),
    ]
    assert not [piece for piece in told if "<img" in piece or "x\"'" in piece]
    for piece in told[:5]:
        sound(piece)
