"""Battles over HTTP: what is told before the vote, what the vote keeps, and who may do it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from arena.api.battle import TAKEN_BACK
from arena.app import create_app
from arena.arena import Arena
from arena.leaderboard import Board, Leaderboard, View
from arena.store import Store
from tests.api.asgi import JSON_TYPE, Answer, Client, started
from tests.api.conftest import create_api, settings_for
from tests.fake_ollama import DEFAULT_MODELS, FakeOllama, text_said_by

BATTLES = int(os.environ.get("ARENA_TEST_BATTLES", "20"))
RACES = int(os.environ.get("ARENA_TEST_RACES", "3"))
FAULTY = ("fx-status:c-500", "fx-cutline", "fx-errline", "fx-badjson", "fx-hang", "fx-eof0", "fx-think", "fx-ok")
PAIR = ["llama3.2:3b", "qwen2.5:3b"]


@pytest.fixture(autouse=True)
def _no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace is looked at elsewhere."""
    monkeypatch.setattr("arena.battle.battles.TICK_S", 0)


@pytest.fixture
async def api(fake: FakeOllama, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A started API that keeps its votes in `tmp_path`, with the test's own settings if it has some."""
    settings = settings_for(f"hidden-host={fake.url}", data=tmp_path, **getattr(request, "param", {}))
    async with started(create_api(settings)) as client:
        yield client


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The same file, seen from outside."""
    return Store(f"sqlite:///{tmp_path / 'arena.sqlite3'}")


async def begun(api: Client, **body: Any) -> str:
    answer = await api.post("/api/battles", body)
    assert answer.status == 200, answer.body
    battle_id = answer.json()["id"]
    sides = ["a", "b", "c", "d"][: body.get("sides", 2)]
    assert answer.json() == {"id": battle_id, "state": "open", "turns": 0, "vote_open": False, "sides": sides}
    return str(battle_id)


async def told(api: Client, battle_id: str, message: str = "Hello!") -> Answer:
    return await api.post(f"/api/battles/{battle_id}/stream", {"message": message})


async def voted(api: Client, battle_id: str, verdict: str = "a") -> Answer:
    return await api.post(f"/api/battles/{battle_id}/vote", {"verdict": verdict})


async def ranked(api: Client, battle_id: str, ranks: dict[str, Any]) -> Answer:
    return await api.post(f"/api/battles/{battle_id}/vote", {"ranks": ranks})


def texts(answer: Answer) -> dict[str, str]:
    """What each side said."""
    lines = answer.lines()
    sides = dict.fromkeys(line["instance_id"] for line in lines)
    return {side: "".join(line["token"] for line in lines if line["instance_id"] == side) for side in sides}


async def test_from_the_pair_to_the_reveal(api: Client, store: Store) -> None:
    battle_id = await begun(api, models=PAIR, category="greeting", tags=["short", "short", ""])
    said = texts(await told(api, battle_id))
    assert set(said.values()) == {text_said_by(model) for model in PAIR}
    seen = await api.get(f"/api/battles/{battle_id}")
    assert seen.json() == {"id": battle_id, "state": "ready", "turns": 1, "vote_open": True, "sides": ["a", "b"]}

    answer = await voted(api, battle_id, "b")
    assert answer.status == 200
    told_now = answer.json()
    sides = told_now["revealed"]
    assert (told_now["verdict"], told_now["rated"], told_now["state"]) == ("b", True, "voted")
    assert {side["model"] for side in sides.values()} == set(PAIR)
    for name, side in sides.items():
        assert side["answers"] == [said[name]] == [text_said_by(side["model"])]
        assert side["endpoint"] == side["manifests"][0]["endpoint"] == "hidden-host"
        assert side["metrics"][0]["tokens"] > 0
    ((_, vote),) = store.votes()
    assert (vote.model_a, vote.model_b) == (sides["a"]["model"], sides["b"]["model"])
    assert (vote.category, vote.tags, vote.turns, vote.blind) == ("greeting", ("short",), 1, True)
    assert vote.style_a is not None
    assert vote.style_a.tokens > 0
    assert len(vote.voter) == len(vote.address) == 16
    kept = store.battle(battle_id)
    assert kept is not None
    assert kept.prompts == ("Hello!",)
    assert {vote.configuration_a, vote.configuration_b} <= set(store.configurations())


async def test_several_turns_each_side_with_its_own_history(api: Client, fake: FakeOllama) -> None:
    battle_id = await begun(api, models=PAIR)
    first = texts(await told(api, battle_id, "One?"))
    await told(api, battle_id, "Two?")
    asked = [record.body["messages"] for record in fake.log if record.path == "/api/chat"][2:]
    assert [[message["role"] for message in messages] for messages in asked] == [["user", "assistant", "user"]] * 2
    assert {messages[1]["content"] for messages in asked} == set(first.values())
    assert (await voted(api, battle_id)).json()["turns"] == 2


@pytest.mark.parametrize("api", [{"first_byte_timeout_s": 0.2}], indirect=True, ids=["impatient"])
async def test_no_byte_before_the_vote_tells_who_fights(api: Client, fake: FakeOllama) -> None:
    """Good and faulty models, every route and refusal: no name of a model, its family, or an endpoint."""
    names = [*DEFAULT_MODELS, *FAULTY]
    words = {word for name in names for word in (name, name.partition(":")[0])} | {"hidden-host", "fx-", "127.0.0.1"}
    words.add(fake.url.rpartition(":")[2])
    ends: Counter[str] = Counter()
    for i in range(BATTLES):
        battle_id = await begun(api, models=names, sides=2 + i % 3, mode=("chosen", "newcomers")[i % 2])
        answers = [await voted(api, battle_id), await told(api, battle_id)]
        ends[answers[1].lines()[-1].get("error_code", "well")] += 1
        answers += [await api.get(f"/api/battles/{battle_id}"), await told(api, battle_id, " ")]
        answers.append(await api.post(f"/api/battles/{battle_id}/vote", {"verdict": "left"}))
        answers.append(await ranked(api, battle_id, {"a": 1, "e": 9}))
        for answer in answers:
            heard = (repr(answer.headers).encode() + answer.body).decode().lower().replace(battle_id, "")
            assert not [word for word in words if word in heard], heard
            assert not {"metrics", "thinking", "manifest", "details", "duration_s"} & set(heard.split('"'))
    assert len(ends) == 2, f"both kinds must have been seen: {ends}"


async def test_a_side_that_fails_ends_the_battle_without_saying_why(api: Client, store: Store) -> None:
    battle_id = await begun(api, models=["fx-ok", "fx-status:c-500"])
    last = (await told(api, battle_id)).lines()[-2:]
    assert [line["instance_id"] for line in last] == ["a", "b"]
    assert {line["error_code"] for line in last} == {"battle_failed"}
    assert len({line["error"] for line in last}) == 1
    for answer in (await voted(api, battle_id), await told(api, battle_id)):
        assert (answer.status, answer.json()["code"]) == (409, "battle_failed")
    assert store.last_number() == 0


async def test_a_later_turn_that_fails_can_be_asked_again_or_voted_without(api: Client, store: Store) -> None:
    battle_id = await begun(api, models=["fx-flaky:seed-4_n-3", "fx-ok"])  # of its answers the second fails
    await told(api, battle_id, "One?")
    last = (await told(api, battle_id, "Two?")).lines()[-2:]
    assert {(line["done"], line["error_code"]) for line in last} == {(True, "turn_failed")}
    assert {line["error"] for line in last} == {TAKEN_BACK}
    seen = (await api.get(f"/api/battles/{battle_id}")).json()
    assert (seen["state"], seen["turns"], seen["vote_open"]) == ("ready", 1, True)
    assert (await told(api, battle_id, "Two?")).lines()[-1]["done"]
    assert (await voted(api, battle_id)).json()["turns"] == 2
    kept = store.battle(battle_id)
    assert kept is not None
    assert kept.prompts == ("One?", "Two?")


async def test_no_vote_before_both_answers_are_whole(api: Client, fake: FakeOllama) -> None:
    battle_id = await begun(api, models=["fx-gate:n-3_id-x", "fx-ok"])
    assert (await voted(api, battle_id)).json()["code"] == "battle_open"
    async with api.open(f"/api/battles/{battle_id}/stream", {"message": "Hello!"}) as exchange:
        fake.release("x", 1)
        assert await exchange.chunk()
        for answer in (await voted(api, battle_id), await told(api, battle_id)):
            assert (answer.status, answer.json()["code"]) == (409, "battle_answering")
        fake.release("x", 2)
        assert (await exchange.answer()).lines()[-1]["done"]
    assert (await voted(api, battle_id)).status == 200


async def test_hanging_up_frees_the_models_and_ends_the_battle(api: Client, fake: FakeOllama) -> None:
    battle_id = await begun(api, models=["fx-gate:n-3_id-x", "fx-gate:n-3_id-y"])
    async with api.open(f"/api/battles/{battle_id}/stream", {"message": "Hello!"}):
        await fake.arrived(2, path="/api/chat")
    await fake.closed(2)
    assert (await voted(api, battle_id)).json()["code"] == "battle_failed"


async def test_fifty_equal_votes_at_once_are_one(api: Client, store: Store) -> None:
    for _ in range(RACES):
        before = store.last_number()
        battle_id = await begun(api, models=PAIR)
        await told(api, battle_id)
        votes = [asyncio.ensure_future(voted(api, battle_id)) for _ in range(50)]
        await asyncio.wait(votes)
        assert {(vote.result().status, vote.result().body) for vote in votes} == {(200, votes[0].result().body)}
        assert len(list(store.votes(before))) == 1
    answer = await voted(api, battle_id, "tie")
    assert (answer.status, answer.json()["code"]) == (409, "voted")
    assert (await api.get(f"/api/battles/{battle_id}")).body == votes[0].result().body


async def test_different_votes_at_once_are_one_and_the_others_are_refused(api: Client, store: Store) -> None:
    battle_id = await begun(api, models=PAIR)
    await told(api, battle_id)
    votes = [asyncio.ensure_future(voted(api, battle_id, verdict)) for verdict in ("a", "b", "tie", "both_bad") * 3]
    await asyncio.wait(votes)
    assert Counter(vote.result().status for vote in votes) == {200: 3, 409: 9}
    assert store.last_number() == 1


async def test_four_sides_are_ranked_and_kept_as_six_pairs(api: Client, store: Store) -> None:
    names = list(DEFAULT_MODELS[:4])
    battle_id = await begun(api, models=names, sides=4)
    said = texts(await told(api, battle_id))
    assert set(said.values()) == {text_said_by(model) for model in names}
    answer = await ranked(api, battle_id, {"a": 3, "b": 1, "c": 3, "d": 2})
    shown = answer.json()
    assert answer.status == 200
    assert (shown["ranks"], "verdict" in shown, shown["rated"]) == ({"a": 3, "b": 1, "c": 3, "d": 2}, False, True)
    assert shown["sides"] == list(shown["revealed"]) == ["a", "b", "c", "d"]
    votes = [vote for _, vote in store.votes()]
    assert {vote.pair: vote.verdict for vote in votes} == {
        "ab": "b", "ac": "tie", "ad": "b", "bc": "a", "bd": "a", "cd": "b",
    }  # fmt: skip
    for vote in votes:
        assert (vote.sides, vote.battle_id) == (4, battle_id)
        assert [vote.model_a, vote.model_b] == [shown["revealed"][side]["model"] for side in vote.pair]
    for again in (shown["ranks"], {"a": 4, "b": 1, "c": 4, "d": 2}):
        assert (await ranked(api, battle_id, again)).body == answer.body
    for other in ({"a": 1, "b": 1, "c": 3, "d": 2}, {"a": 1, "b": 2, "c": 3, "d": 4}):
        refused = await ranked(api, battle_id, other)
        assert (refused.status, refused.json()["code"]) == (409, "voted")
    assert (await voted(api, battle_id, "both_bad")).status == 409
    assert store.last_number() == 6


@pytest.mark.parametrize("verdict", ["both_bad", "tie"])
async def test_all_of_three_may_be_bad_or_alike(api: Client, store: Store, verdict: str) -> None:
    battle_id = await begun(api, models=list(DEFAULT_MODELS[:3]), sides=3)
    await told(api, battle_id)
    shown = (await voted(api, battle_id, verdict)).json()
    assert shown.get("verdict") == (verdict if verdict == "both_bad" else None)
    assert shown.get("ranks") == (None if verdict == "both_bad" else {"a": 1, "b": 1, "c": 1})
    assert [(vote.pair, vote.verdict) for _, vote in store.votes()] == [(pair, verdict) for pair in ("ab", "ac", "bc")]


@pytest.mark.parametrize(
    ("ballot", "named"),
    [
        ({"ranks": {"a": 1, "b": 2}}, "a, b, c"),
        ({"ranks": {"a": 1, "b": 2, "c": 3, "d": 4}}, "a, b, c"),
        ({"ranks": {"a": 0, "b": 2, "c": 3}}, "ranks.a"),
        ({"ranks": {"a": 1, "b": 4, "c": 3}}, "ranks.b"),
        ({"ranks": {"a": 1, "b": 2, "c": 2.5}}, "ranks.c"),
        ({"ranks": {"a": True, "b": 2, "c": 3}}, "ranks.a"),
        ({"ranks": ["a", "b", "c"]}, "ranks must give"),
        ({"ranks": {"a": 1, "b": 2, "c": 3}, "verdict": "a"}, "either a verdict or ranks"),
        ({"verdict": "a"}, "takes ranks"),
        ({"verdict": ["a"]}, "verdict must be"),
        ({"winner": "a"}, "'winner' is no key of this request; the keys are verdict and ranks"),
        ({}, "verdict must be"),
    ],
)
async def test_what_cannot_be_a_ballot_on_three(api: Client, store: Store, ballot: Any, named: str) -> None:
    battle_id = await begun(api, models=list(DEFAULT_MODELS[:3]), sides=3)
    await told(api, battle_id)
    answer = await api.post(f"/api/battles/{battle_id}/vote", ballot)
    assert answer.status == 400
    assert named in answer.json()["error"]
    assert store.last_number() == 0


async def test_a_battle_can_be_sent_around_after_the_vote(api: Client) -> None:
    battle_id = await begun(api, models=PAIR)
    await told(api, battle_id)
    early = await api.get(f"/api/battles/{battle_id}/page")
    assert (early.status, early.json()["code"]) == (409, "battle_ready")
    await voted(api, battle_id)
    for query, named in (("", True), ("?masked=true", False)):
        page = await api.get(f"/api/battles/{battle_id}/page{query}")
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/html")
        assert "attachment" in page.headers["content-disposition"]
        assert [model in page.body.decode() for model in PAIR] == [named] * 2
        assert "Hello!" in page.body.decode()
    assert (await api.get(f"/api/battles/{battle_id}/page?mask=1")).status == 400
    assert (await api.get(f"/api/battles/{'0' * 32}/page")).status == 404


async def test_two_sides_may_be_ranked_too(api: Client, store: Store) -> None:
    for ranks, verdict in (({"a": 2, "b": 1}, "b"), ({"a": 1, "b": 1}, "tie")):
        battle_id = await begun(api, models=PAIR)
        await told(api, battle_id)
        assert (await ranked(api, battle_id, ranks)).json()["verdict"] == verdict
        assert (await voted(api, battle_id, verdict)).status == 200
    assert store.last_number() == 2


async def test_rankings_at_once_are_one_and_whole(api: Client, store: Store) -> None:
    battle_id = await begun(api, models=list(DEFAULT_MODELS[:3]), sides=3)
    await told(api, battle_id)
    orders = ({"a": 1, "b": 2, "c": 3}, {"a": 3, "b": 2, "c": 1}, {"a": 1, "b": 1, "c": 1})
    votes = [asyncio.ensure_future(ranked(api, battle_id, orders[i % 3])) for i in range(12)]
    await asyncio.wait(votes)
    assert Counter(vote.result().status for vote in votes) == {200: 4, 409: 8}
    shown = next(vote.result().json() for vote in votes if vote.result().status == 200)
    assert shown["ranks"] in orders
    assert [vote.pair for _, vote in store.votes()] == ["ab", "ac", "bc"]


async def test_a_side_of_three_that_fails_ends_all_alike(api: Client) -> None:
    battle_id = await begun(api, models=["fx-ok", "fx-status:c-500", "fx-ok:n-5"], sides=3)
    last = (await told(api, battle_id)).lines()[-3:]
    assert [line["instance_id"] for line in last] == ["a", "b", "c"]
    assert {(line["done"], line["error_code"]) for line in last} == {(True, "battle_failed")}


async def test_after_a_restart_the_vote_is_known_and_what_was_open_is_gone(fake: FakeOllama, tmp_path: Path) -> None:
    settings = settings_for(fake.url, data=tmp_path)
    async with started(create_api(settings)) as api:
        done, left = await begun(api, models=PAIR), await begun(api, models=PAIR)
        await told(api, done)
        first = await voted(api, done)
    async with started(create_api(settings)) as api:
        assert (await voted(api, done)).body == first.body
        assert (await voted(api, done, "both_bad")).status == 409
        for answer in (await voted(api, left), await told(api, left), await api.get(f"/api/battles/{left}")):
            assert (answer.status, answer.json()["code"]) == (404, "not_found")


async def test_the_battle_of_somebody_else_is_not_there(fake: FakeOllama, tmp_path: Path) -> None:
    from arena import keys

    secrets = {name: keys.add(tmp_path / keys.FILE, name, scopes=("chat",)) for name in ("ann", "ben")}
    other = keys.add(tmp_path / keys.FILE, "eve", scopes=("embed",))
    async with started(create_app(settings_for(fake.url, data=tmp_path), page=False)) as api:

        def headers(secret: str) -> list[tuple[bytes, bytes]]:
            return [JSON_TYPE, (b"authorization", f"Bearer {secret}".encode())]

        body = json.dumps({"models": PAIR}).encode()
        made = await api.call("POST", "/api/battles", body, headers(secrets["ann"]))
        path = f"/api/battles/{made.json()['id']}"
        for name, status in (("ann", 200), ("ben", 404)):
            for method, of, sent in (
                ("GET", path, b""),
                ("POST", f"{path}/stream", b'{"message": "Hello!"}'),
                ("POST", f"{path}/vote", b'{"verdict": "a"}'),
                ("GET", path, b""),
            ):
                assert (await api.call(method, of, sent, headers(secrets[name]))).status == status
        assert (await api.call("POST", "/api/battles", body, headers(other))).status == 403


async def test_a_key_is_drawn_for_only_from_its_own_models(fake: FakeOllama, tmp_path: Path) -> None:
    from arena import keys

    secret = keys.add(tmp_path / keys.FILE, "ann", scopes=("chat",), models=("llama3.2*",))
    headers = [JSON_TYPE, (b"authorization", f"Bearer {secret}".encode())]
    async with started(create_app(settings_for(fake.url, data=tmp_path), page=False)) as api:
        alone = await api.call("POST", "/api/battles", b"{}", headers)
        assert (alone.status, alone.json()["code"]) == (400, "too_few_contestants")
        named = await api.call("POST", "/api/battles", json.dumps({"models": PAIR}).encode(), headers)
        assert (named.status, named.json()["code"]) == (403, "model_not_allowed")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"models": ["llama3.2:3b"]}, "at least two"),
        ({"models": "not a name"}, "models"),
        ({"models": [f"m{i}" for i in range(17)]}, "at most 16"),
        ({"category": "x" * 41}, "category"),
        ({"category": 3}, "category"),
        ({"tags": "one"}, "tags"),
        ({"tags": ["<b>"]}, r"tags[0]"),
        ({"tags": ["t"] * 9}, "at most 8"),
        ({"sides": 5}, "sides must be"),
        ({"sides": 1}, "sides must be"),
        ({"sides": True}, "sides must be"),
        ({"sides": 3, "models": PAIR}, "at least three"),
        ({"mode": "best"}, "mode must be one of"),
        ({"mode": "chosen"}, "name the models"),
        ({"mode": "installed", "models": PAIR}, "name no models"),
        ({"side": 3}, "'side' is no key of this request; the keys are models, model_instances, category, tags, sides"),
    ],
)
async def test_what_cannot_be_a_battle(api: Client, body: dict[str, Any], said: str) -> None:
    answer = await api.post("/api/battles", body)
    assert answer.status == 400
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompt": "hi"}, "'prompt' is no key of this request; the only key is message"),
        ({"message": "hi", "models": PAIR}, "'models' is no key of this request"),
        ({}, "message is required"),
        ({"message": None}, "message is required"),
        ({"message": 3}, "message must be a string"),
        ({"message": " "}, "message must not be empty"),
    ],
)
async def test_what_cannot_be_a_turn(api: Client, body: dict[str, Any], said: str) -> None:
    answer = await api.post(f"/api/battles/{await begun(api)}/stream", body)
    assert answer.status == 400
    assert answer.json()["error"].startswith(said)


async def test_without_names_all_installed_models_are_drawn_from(api: Client) -> None:
    drawn: set[str] = set()
    while len(drawn) < 3:
        battle_id = await begun(api)
        await told(api, battle_id)
        drawn |= {side["model"] for side in (await voted(api, battle_id)).json()["revealed"].values()}
    assert drawn <= set(DEFAULT_MODELS)


@pytest.mark.parametrize(
    ("listening", "rated"),
    [
        ({"host": "127.0.0.1"}, True),
        ({"host": "0.0.0.0", "allow_open": True}, False),
        ({"host": "127.0.0.1", "trusted_proxies": "192.0.2.7"}, False),
    ],
)
async def test_who_names_the_pair_on_a_public_server_is_not_rated(
    fake: FakeOllama, tmp_path: Path, listening: dict[str, Any], rated: bool
) -> None:
    settings = settings_for(fake.url, data=tmp_path, **listening)
    async with started(create_api(settings)) as api:
        battle_id = await begun(api, models=PAIR)
        await told(api, battle_id)
        assert (await voted(api, battle_id)).json()["rated"] is rated


async def test_a_store_that_fails_costs_the_vote_only(api: Client, tmp_path: Path, store: Store) -> None:
    battle_id = await begun(api, models=PAIR)
    await told(api, battle_id)
    file = tmp_path / "arena.sqlite3"
    file.mkdir()
    refused = await voted(api, battle_id)
    assert (refused.status, refused.json()["code"]) == (503, "store_unavailable")
    assert "safe to try again" in refused.json()["error"]
    assert (await api.get("/api/models")).status == 200
    file.rmdir()
    assert (await voted(api, battle_id)).status == 200
    assert store.last_number() == 1


async def test_a_damaged_store_is_left_as_it_is_and_all_else_works(fake: FakeOllama, tmp_path: Path) -> None:
    file = tmp_path / "arena.sqlite3"
    file.write_bytes(b"not a database at all" * 100)
    arena = Arena(settings_for(fake.url, data=tmp_path))
    async with arena.running():
        await arena.started()
        assert await arena.fleet.models()
    assert file.read_bytes() == b"not a database at all" * 100


async def test_a_vote_does_not_wait_for_ratings_that_are_fitted(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where more people look at the leaderboard than there are threads for all else."""
    go, fitting = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(2))

    def fit(self: Leaderboard, view: View | None = None) -> Board:
        loop.call_soon_threadsafe(fitting.set)
        assert go.wait(30)
        return Board(view or View(), 0, 0, 0, 0.0, (), {})

    monkeypatch.setattr(Leaderboard, "board", fit)
    battle_id = await begun(api, models=PAIR)
    await told(api, battle_id)
    async with asyncio.TaskGroup() as looking:
        looks = [looking.create_task(api.get("/api/leaderboard")) for _ in range(4)]
        try:
            async with asyncio.timeout(20):
                await fitting.wait()
                assert (await voted(api, battle_id)).status == 200
            assert not any(look.done() for look in looks)
        finally:
            go.set()
    assert {look.result().status for look in looks} == {200}
