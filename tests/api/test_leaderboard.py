"""The leaderboard and the exports over the API."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from html import escape
from typing import Any

import pytest

from arena.store import Side, Store, StoredBattle
from arena.types import Configuration, Style, Vote
from tests.api.asgi import Client, started
from tests.api.conftest import create_api, settings_for
from tests.api.test_openapi import check
from tests.fake_ollama import FakeOllama

pytestmark = pytest.mark.anyio

EVIL = "=HYPERLINK(1)"


def vote(number: int, a: str, b: str, verdict: Any, **more: Any) -> Vote:
    """A vote of one of five voters."""
    day = f"2026-01-{1 + number % 9:02}T10:00:00.000+00:00"
    style = {"style_a": Style(10 + number, 1, 2, 3), "style_b": Style(20, 1, 1, number % 4)}
    values: dict[str, Any] = {"voter": f"v{number % 5}", "address": "home", **style, **more}
    return Vote(f"battle-{number}", day, f"{a}-cold", f"{b}-warm", a, b, verdict, **values)


def filled(store: Store) -> None:
    """Thirty votes on three models, one with its battle, one with open eyes."""
    configurations = [
        Configuration(f"{m}-{s}", m, label=f"{m} {s}") for m in ("x", "y", EVIL) for s in ("cold", "warm")
    ]
    rounds = [("x", "y", "a"), ("y", EVIL, "b"), (EVIL, "x", "tie"), ("x", "y", "b"), ("y", "x", "both_bad")]
    votes = [vote(number, *rounds[number % 5], category="coding" if number % 2 else "") for number in range(30)]
    store.add_votes(votes, configurations)
    sides = {
        "a": Side(configurations[0], ("I am good",), manifests=({"model": "x"},)),
        "b": Side(configurations[3], ("so am I",), manifests=({"model": "y"},)),
    }
    last = vote(30, "x", "y", "a", blind=False)
    store.add_vote(last, StoredBattle(last.battle_id, last.at, "installed", ("Who is good?",), sides), configurations)


@pytest.fixture
async def voted(fake: FakeOllama, tmp_path: Any) -> Any:
    """An API with votes."""
    settings = settings_for(fake.url, database_url=f"sqlite:///{tmp_path / 'votes.sqlite3'}")
    store = Store(f"sqlite:///{tmp_path / 'votes.sqlite3'}")
    filled(store)
    store.close()
    async with started(create_api(settings)) as client:
        yield client


async def test_every_answer_has_the_described_shape(voted: Client) -> None:
    document = (await voted.get("/openapi.json")).json()
    for path, name in (
        ("/api/leaderboard", "Board"),
        ("/api/leaderboard?per=configuration&style=1&blind=false", "Board"),
        ("/api/leaderboard/settings", "Ladders"),
        ("/api/leaderboard/matrix?category=coding", "Matrix"),
        ("/api/leaderboard/timeline?points=3", "Timeline"),
    ):
        answer = await voted.get(path)
        assert answer.status == 200, path
        check(document, name, answer.json())
    for path, name in (("/api/votes", "VoteRow"), ("/api/votes/preferences?blind=false", "Preference")):
        for line in (await voted.get(path)).lines():
            check(document, name, line)


async def test_the_board_counts_blind_votes_and_is_filtered(voted: Client) -> None:
    assert (await voted.get("/api/leaderboard")).json()["votes"] == 30
    assert (await voted.get("/api/leaderboard?blind=false")).json()["votes"] == 31
    assert (await voted.get("/api/leaderboard?voter=v1&voter=v2")).json()["votes"] == 12
    assert (await voted.get("/api/leaderboard?since=2026-01-09")).json()["votes"] == 3
    coding = (await voted.get("/api/leaderboard?category=coding&style=true")).json()
    assert coding["votes"] == 15
    assert [each["feature"] for each in coding["effects"]] == ["tokens", "headers", "lists", "bold"]
    settings = (await voted.get("/api/leaderboard/settings")).json()
    assert {row["name"] for row in settings["ladders"][0]["settings"]} <= set(settings["labels"])


async def test_the_ratings_over_time_are_told_by_name_and_as_they_were_told_then(voted: Client) -> None:
    found: Any = {"told": []}

    async def kept() -> None:
        nonlocal found
        while not found["told"]:  # a thread writes them
            found = (await voted.get("/api/leaderboard/timeline")).json()

    await asyncio.wait_for(kept(), 30)
    board = (await voted.get("/api/leaderboard")).json()
    by_name = {row["name"]: {key: row[key] for key in ("rating", "lower", "upper")} for row in board["rows"]}
    (said,) = found["told"]
    assert (said["votes"], said["last_vote"], said["ratings"]) == (30, 31, by_name)
    assert found["moments"][-1]["ratings"].keys() == by_name.keys()
    for each in found["moments"]:
        assert all(known["lower"] < known["rating"] < known["upper"] for known in each["ratings"].values())
    assert (await voted.get("/api/leaderboard/timeline?blind=false")).json()["told"] == []


async def test_tables_are_safe_to_open(voted: Client) -> None:
    sheet = await voted.get("/api/leaderboard?format=csv")
    assert sheet.headers["content-disposition"] == 'attachment; filename="leaderboard.csv"'
    assert f"'{EVIL}" in {row["name"] for row in csv.DictReader(io.StringIO(sheet.body.decode()))}
    text = (await voted.get("/api/leaderboard?format=md")).body.decode()
    assert text.startswith("| Rank | Model |")
    assert "30 votes by 5 voters" in text
    for query, named in (("", True), ("&masked=true", False)):
        page = await voted.get(f"/api/leaderboard?format=html{query}")
        assert page.headers["content-disposition"] == 'attachment; filename="leaderboard.html"'
        assert (escape(EVIL) in page.body.decode(), "Model 1" in page.body.decode()) == (named, not named)
    assert (await voted.get("/api/leaderboard?format=csv&masked=true")).status == 400
    rows = list(csv.DictReader(io.StringIO((await voted.get("/api/votes?format=csv")).body.decode())))
    assert len(rows) == 31
    assert {row["winner"] for row in rows} == {"model_a", "model_b", "tie", "tie (bothbad)"}
    assert not any(value.startswith("=") for row in rows for value in row.values())


async def test_a_kept_battle_becomes_a_preference_pair(voted: Client) -> None:
    assert (await voted.get("/api/votes/preferences")).body == b""
    (pair,) = (await voted.get("/api/votes/preferences?blind=false")).lines()
    assert pair["chosen"] == [
        {"role": "user", "content": "Who is good?"},
        {"role": "assistant", "content": "I am good"},
    ]
    assert (pair["chosen_model"], pair["blind"], pair["rejected_manifests"]) == ("x", False, [{"model": "y"}])
    conversations = [
        row["conversation_a"] for row in (await voted.get("/api/votes")).lines() if "conversation_a" in row
    ]
    assert conversations == [pair["chosen"]]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("leaderboard?perr=model", "there is no parameter 'perr'"),
        ("leaderboard?per=family", "per must be one of model, configuration"),
        ("leaderboard?blind=perhaps", "blind must be true or false"),
        ("leaderboard?since=yesterday", "since must be a day"),
        ("leaderboard?since=2026-13-45", "since must be a day"),
        ("leaderboard?until=2026-01-01T....", "until must be a day"),
        ("leaderboard?format=xml", "format must be one of json, csv, md"),
        ("leaderboard?tag=" + "x" * 201, "tag is longer than 200"),
        ("leaderboard?category=%00", "category must not hold the character NUL"),
        ("leaderboard/timeline?points=0", "points must be a whole number from 1 to 100"),
        ("votes?format=xls", "format must be one of jsonl, csv, parquet"),
    ],
)
async def test_a_wrong_query_is_told_what_is_wrong(api: Client, query: str, said: str) -> None:
    answer = await api.get(f"/api/{query}")
    assert answer.status == 400
    assert said in answer.json()["error"]


async def test_moments_are_compared_as_moments(voted: Client) -> None:
    for since, until in (("T12:00:00Z", "T12:00:00.500Z"), ("T12:00", "T12:00:00.5+00:00")):
        told = (
            await voted.get(f"/api/leaderboard?since=2026-01-31{since}&until=2026-01-31{until}".replace("+", "%2B"))
        ).json()
        assert told["view"]["since"] == "2026-01-31T12:00:00.000+00:00"
        assert told["view"]["until"] == "2026-01-31T12:00:00.500+00:00"


async def test_an_empty_arena_has_an_empty_board(api: Client) -> None:
    assert (await api.get("/api/leaderboard")).json()["rows"] == []
    for path in ("leaderboard?style=1", "leaderboard/settings", "leaderboard/matrix", "leaderboard/timeline", "votes"):
        assert (await api.get(f"/api/{path}")).status == 200
    assert json.loads((await api.get("/api/leaderboard/matrix")).body)["duels"] == []
