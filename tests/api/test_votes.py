"""Votes that are no battle's, over HTTP: the best of some answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from arena import keys
from arena.app import create_app
from arena.store import Store
from tests.api.asgi import JSON_TYPE, Answer, Client, started
from tests.api.conftest import HELLO, create_api, settings_for
from tests.fake_ollama import FakeOllama
from tests.store.votes import battle as fought
from tests.store.votes import vote as cast_vote

MODELS = ["llama3.2:3b", "qwen2.5:3b", "fx-errline:at-2"]


@pytest.fixture
async def api(fake: FakeOllama, tmp_path: Path) -> AsyncIterator[Client]:
    async with started(create_api(settings_for(f"host={fake.url}", data=tmp_path))) as client:
        yield client


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path / 'arena.sqlite3'}")


async def answers(api: Client) -> list[dict[str, Any]]:
    """Answers as /api/chat gives them, the last one failed."""
    told = (await api.post("/api/chat", {"history": HELLO, "models": MODELS})).json()["results"]
    return [told[name] for name in told]


async def judged(api: Client, answers: Any, best: Any, prompt: Any = "Hello!") -> Answer:
    return await api.post("/api/votes/direct", {"prompt": prompt, "answers": answers, "best": best})


async def test_the_best_of_what_chat_gave_is_kept_once(api: Client, store: Store) -> None:
    given = await answers(api)
    for _ in range(2):
        kept = await judged(api, given, given[1]["instance_id"])
        assert (kept.status, kept.json()) == (200, {"votes": 1}), "who failed is not compared"
    ((_, vote),) = store.votes()
    assert (vote.model_a, vote.model_b, vote.verdict) == ("llama3.2:3b", "qwen2.5:3b", "b")
    assert (vote.blind, vote.rated, vote.sides) == (False, True, 2)
    battle = store.battle(vote.battle_id)
    assert battle is not None
    assert battle.sides["a"].manifests[0]["endpoint"] == "host"
    assert battle.sides["b"].metrics[0]["tokens"] == given[1]["metrics"]["tokens"]
    other = await judged(api, given, given[0]["instance_id"])
    assert (other.status, other.json()["code"]) == (409, "voted")
    failed = await judged(api, given, given[2]["instance_id"])
    assert (failed.status, failed.json()["code"]) == (409, "not_comparable")
    assert (await api.get("/api/leaderboard")).json()["votes"] == 0
    assert (await api.get("/api/leaderboard?blind=false")).json()["votes"] == 1


async def test_answers_from_elsewhere_need_little(api: Client, store: Store) -> None:
    told = [
        {"model": "m1", "response": "1", "system": "Be brief."},
        {"model": "m1", "instance_id": "x", "response": "2"},
    ]
    assert (await judged(api, told, "x")).json() == {"votes": 1}
    ((_, vote),) = store.votes()
    labels = {each.label for each in store.configurations().values()}
    assert labels == {"m1", "m1, own system prompt"}
    assert vote.configuration_a != vote.configuration_b


async def test_nobody_gives_the_weights_of_a_model_another_name(api: Client, store: Store) -> None:
    await api.get("/api/models")  # from now on the weights are known
    given = await answers(api)
    digest = given[0]["manifest"]["digest"]
    forged = {"model": "evil", "response": "1", "manifest": given[0]["manifest"] | {"model": "evil"}}
    assert (await judged(api, [forged, given[1]], "evil")).json() == {"votes": 1}
    assert {each.model: each.digest for each in store.configurations().values()}["evil"] is None
    assert (await judged(api, given, given[0]["instance_id"])).json() == {"votes": 1}
    assert {each.model: each.digest for each in store.configurations().values()}["llama3.2:3b"] == digest


async def test_a_model_is_called_as_its_host_lists_it(api: Client, store: Store) -> None:
    await api.get("/api/models")
    given = [{"model": "LLAMA3.2:3B", "response": "1"}, {"model": "m9", "response": "2"}]
    assert (await judged(api, given, "m9")).json() == {"votes": 1}
    assert {each.model for each in store.configurations().values()} == {"llama3.2:3b", "m9"}


HUGE = {"model": "m", "endpoint": "", "options_sent": {"stop": ["x" * 1000] * 17}}
GOOD = [{"model": "m1", "response": "1"}, {"model": "m2", "response": "2"}]


@pytest.mark.parametrize(
    ("answers", "best", "prompt", "named"),
    [
        (GOOD, "m3", "Hi", "best must be"),
        (GOOD, 1, "Hi", "best"),
        (GOOD, "m1", " ", "prompt"),
        (GOOD, "m1", None, "prompt"),
        (GOOD[:1], "m1", "Hi", "answers"),
        (GOOD * 7, "m1", "Hi", "2 to 12"),
        ([*GOOD, GOOD[0]], "m1", "Hi", "exactly one"),
        ([*GOOD, "m3"], "m1", "Hi", "answers[2]"),
        ([*GOOD, {"model": 3}], "m1", "Hi", "answers[2].model"),
        ([*GOOD, {"model": "m", "instance_id": ""}], "m1", "Hi", "answers[2].instance_id must be 1 to 256 printable"),
        ([*GOOD, {"model": "m", "response": 3}], "m1", "Hi", "answers[2].response"),
        ([*GOOD, {"model": "m", "response": "", "system": 3}], "m1", "Hi", "answers[2].system"),
        ([*GOOD, {"model": "m", "response": "", "metrics": {"tokens": "x"}}], "m1", "Hi", "answers[2].metrics"),
        ([*GOOD, {"model": "m", "response": "", "manifest": {}}], "m1", "Hi", "answers[2].manifest"),
        ([*GOOD, {"model": "m", "response": "", "manifest": HUGE}], "m1", "Hi", "answers[2].manifest is larger"),
        ([*GOOD, {"model": "m", "response": "", "metrics": {"done_reason": "x" * 20_000}}], "m1", "Hi", "is larger"),
        (
            [*GOOD, {"model": "m", "response": "", "manifest": {"model": "\n", "endpoint": ""}}],
            "m1",
            "Hi",
            "answers[2].manifest.model",
        ),
        *(
            (
                [*GOOD, {"model": "m", "response": "", "manifest": {"model": "m", "endpoint": "e"} | wrong}],
                "m1",
                "Hi",
                named,
            )
            for wrong, named in (
                ({"endpoint": "e\0"}, "answers[2].manifest.endpoint must hold printable"),
                ({"digest": "\0"}, "answers[2].manifest.digest must hold printable"),
                ({"options_sent": {"\0": 1}}, "answers[2].manifest.options_sent must hold printable"),
            )
        ),
    ],
)
async def test_what_cannot_be_judged(api: Client, answers: Any, best: Any, prompt: Any, named: str) -> None:
    refused = await judged(api, answers, best, prompt)
    assert refused.status == 400
    assert named in refused.json()["error"]


async def test_a_key_that_may_chat_may_vote(fake: FakeOllama, tmp_path: Path) -> None:
    secrets = {scope: keys.add(tmp_path / keys.FILE, scope, scopes=(scope,)) for scope in ("chat", "embed")}
    body = json.dumps({"prompt": "Hi", "answers": GOOD, "best": "m1"}).encode()
    async with started(create_app(settings_for(fake.url, data=tmp_path), page=False)) as api:
        for scope, status in (("chat", 200), ("embed", 403)):
            headers = [JSON_TYPE, (b"authorization", f"Bearer {secrets[scope]}".encode())]
            assert (await api.call("POST", "/api/votes/direct", body, headers)).status == status


# ---- votes from elsewhere

LMARENA = {"question_id": "q", "model_a": "m", "model_b": "n", "winner": "model_a", "tstamp": 1}


async def sent(api: Client, body: bytes, query: str = "", kind: bytes = b"application/jsonl") -> Answer:
    return await api.call("POST", f"/api/votes/import{query}", body, [(b"content-type", kind)])


async def test_a_file_comes_in_once(api: Client, store: Store) -> None:
    body = b"\n".join(json.dumps(LMARENA | {"question_id": f"q{n}"}).encode() for n in range(3))
    assert (await sent(api, body)).json() == {"format": "lmarena", "new": 3, "known": 0}
    assert (await sent(api, body, "?format=lmarena&rated=false")).json() == {"format": "lmarena", "new": 0, "known": 3}
    assert store.last_number() == 3
    exported = await api.get("/api/votes")
    assert (await sent(api, exported.body)).json() == {"format": "arena", "new": 0, "known": 3}
    assert (await api.get("/api/leaderboard")).json()["votes"] == 3


@pytest.mark.parametrize(
    ("body", "query", "kind", "status", "said"),
    [
        (b"{}", "", b"text/plain", 415, "application/jsonl"),
        (b"{}", "", b"application/json", 400, "none of the formats"),
        (json.dumps(LMARENA).encode(), "?format=csv", b"application/jsonl", 400, "format must be one of auto, arena"),
        (json.dumps(LMARENA).encode(), "?fromat=lmarena", b"application/jsonl", 400, "there is no parameter"),
        (json.dumps(LMARENA).encode(), "?format=llm-comparator", b"application/jsonl", 400, "not llm-comparator"),
        (json.dumps(LMARENA | {"winner": 3}).encode(), "", b"application/jsonl", 400, "line 1: winner"),
    ],
)
async def test_a_file_that_cannot_be_read(
    api: Client, store: Store, body: bytes, query: str, kind: bytes, status: int, said: str
) -> None:
    refused = await sent(api, body, query, kind)
    assert (refused.status, said in refused.json()["error"]) == (status, True), refused.body
    assert store.last_number() == 0


async def test_only_an_administrator_imports(fake: FakeOllama, tmp_path: Path) -> None:
    secrets = {scope: keys.add(tmp_path / keys.FILE, scope, scopes=(scope,)) for scope in ("chat", "admin")}
    async with started(create_app(settings_for(fake.url, data=tmp_path), page=False)) as api:
        for scope, status in (("chat", 403), ("admin", 200)):
            headers = [(b"content-type", b"application/jsonl"), (b"authorization", f"Bearer {secrets[scope]}".encode())]
            body = json.dumps(LMARENA).encode()
            assert (await api.call("POST", "/api/votes/import", body, headers)).status == status


OPEN: list[dict[str, Any]] = [
    {"host": "0.0.0.0", "allow_open": True},
    {"management": False},
    {"trusted_proxies": "192.0.2.7"},
]


@pytest.mark.parametrize("settings", OPEN)
async def test_where_nobody_is_known_nobody_has_what_others_said(
    fake: FakeOllama, store: Store, tmp_path: Path, settings: dict[str, Any]
) -> None:
    store.add_vote(cast_vote("b1"), fought("b1"))
    store.close()
    async with started(create_api(settings_for(fake.url, data=tmp_path, **settings))) as api:
        for path, remedy in (
            ("votes", "format=csv"),
            ("votes?format=jsonl", "arena votes export`"),
            ("votes/preferences?blind=false", "arena votes export --format preferences`"),
        ):
            refused = await api.get(f"/api/{path}")
            assert (refused.status, refused.json()["code"]) == (403, "forbidden"), path
            assert remedy in refused.json()["error"]
        for path in ("votes?format=csv", "leaderboard", "leaderboard/timeline", "leaderboard?format=html"):
            given = await api.get(f"/api/{path}")
            assert given.status == 200, path
            assert b"Bye" not in given.body


async def test_who_is_known_on_a_server_for_others_has_all(fake: FakeOllama, store: Store, tmp_path: Path) -> None:
    store.add_vote(cast_vote("b1"), fought("b1"))
    store.close()
    secrets = {scope: keys.add(tmp_path / keys.FILE, scope, scopes=(scope,)) for scope in ("chat", "admin")}
    settings = settings_for(fake.url, data=tmp_path, trusted_proxies="192.0.2.7")
    async with started(create_app(settings, page=False)) as api:
        for scope, status in (("chat", 403), ("admin", 200)):
            headers = [(b"authorization", f"Bearer {secrets[scope]}".encode())]
            for path in ("/api/votes", "/api/votes/preferences"):
                given = await api.call("GET", path, headers=headers)
                assert (given.status, b"Bye" in given.body) == (status, scope == "admin")


@pytest.mark.parametrize("settings", OPEN)
async def test_where_nobody_is_known_nobody_imports(fake: FakeOllama, tmp_path: Path, settings: dict[str, Any]) -> None:
    async with started(create_api(settings_for(fake.url, data=tmp_path, **settings))) as api:
        refused = await sent(api, json.dumps(LMARENA).encode())
        assert (refused.status, refused.json()["code"]) == (403, "forbidden")


async def test_a_file_may_be_larger_than_other_bodies(fake: FakeOllama, tmp_path: Path) -> None:
    settings = settings_for(fake.url, data=tmp_path, max_body_bytes=1024, max_upload_bytes=4096)
    async with started(create_app(settings, page=False)) as api:
        for size, status in ((2000, 200), (5000, 413)):
            body = json.dumps(LMARENA | {"more": "x" * size}).encode()
            headers = [(b"content-type", b"application/jsonl"), (b"content-length", str(len(body)).encode())]
            assert (await api.call("POST", "/api/votes/import", body, headers)).status == status
