"""What callers keep, over HTTP: presets and conversations, each for its owner alone."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from arena import kept, keys
from arena.errors import StoreUnavailable
from arena.exchange import Caller
from arena.kept import FORMAT, Conversation, KeptColumn, KeptTurn, Preset
from arena.store import Store
from arena.types import ModelInstance
from tests.api.asgi import JSON_TYPE, Answer, Client, Headers, started
from tests.api.conftest import HELLO, create_api, settings_for
from tests.fake_ollama import FakeOllama

pytestmark = pytest.mark.anyio

OWN = {"id": "a", "model": "llama3.2:3b", "temperature": 0.3, "top_k": None, "stop": ["END"], "system": "Rhyme."}
COLUMNS = {
    "model_instances": [OWN, {"model": "qwen2.5:3b", "think": "low", "endpoint": "host"}],
    "system": "Be brief.",
    "order": "one_after_another",
}
TURN = {
    "prompt": "Why is the sky blue?",
    "sent_prompt": "Why is the sky blue?",
    "attachments": [{"name": "p.png", "kind": "image", "size_bytes": 3, "sha256": "00"}],
    "instance": {"id": "A", "model": "llama3.2:3b", "options": {"temperature": 0.3}, "system": "Rhyme."},
    "answer": "Because.",
    "thinking": "hm",
    "complete": True,
    "error": None,
    "metrics": {"tokens": 2, "tokens_per_sec": 20},
    "manifest": {"model": "llama3.2:3b", "endpoint": "host"},
}
FAILED = TURN | {
    "complete": False,
    "error": {"code": "timeout", "error": "Silence."},
    "metrics": None,
    "manifest": None,
}
TALK = {"format": FORMAT, "columns": [{"id": "A", "turns": [TURN, FAILED]}, {"id": "B", "turns": []}]}


@pytest.fixture(autouse=True)
def moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two saves are at the same moment, however fast the disk is."""
    ticks = count()
    monkeypatch.setattr(kept, "now", lambda: f"2026-01-02T03:04:05.{next(ticks):03}+00:00")


@pytest.fixture
async def api(fake: FakeOllama, tmp_path: Path) -> AsyncIterator[Client]:
    async with started(create_api(settings_for(f"host={fake.url}", data=tmp_path))) as client:
        yield client


async def put(api: Client, name: str, value: Any = COLUMNS, headers: Headers = ()) -> Answer:
    return await api.call("PUT", f"/api/presets/{name}", json.dumps(value).encode(), [JSON_TYPE, *headers])


async def presets(api: Client) -> dict[str, Any]:
    return {each["name"]: each for each in (await api.get("/api/presets")).json()["presets"]}


def refused(answer: Answer, status: int, code: str, named: str) -> None:
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert named in answer.json()["error"] + answer.json().get("details", "")


async def test_a_preset_is_kept_replaced_and_deleted(api: Client) -> None:
    assert await presets(api) == {}
    saved = await put(api, "Kurz & gut")
    assert saved.status == 200
    assert (await put(api, "Other", {"models": ["tiny"]})).status == 200
    found = await presets(api)
    assert list(found) == ["Other", "Kurz & gut"], "the latest first"
    assert found["Kurz & gut"] == saved.json()
    first, second = saved.json()["model_instances"]
    assert (first["temperature"], first["top_k"], first["top_p"], first["seed"]) == (0.3, None, 0.9, None)
    assert (first["stop"], first["system"]) == (["END"], "Rhyme.")
    assert (second["think"], second["endpoint"]) == ("low", "host")
    assert (saved.json()["system"], saved.json()["order"]) == ("Be brief.", "one_after_another")
    assert (await put(api, "Other", {"models": ["tiny"], "system": None})).json()["system"] == ""
    assert len(await presets(api)) == 2
    gone = await api.call("DELETE", "/api/presets/Kurz & gut")
    assert (gone.status, gone.json()) == (200, {"deleted": "Kurz & gut"})
    assert list(await presets(api)) == ["Other"]
    refused(await api.call("DELETE", "/api/presets/Kurz & gut"), 404, "not_found", "No such preset")


async def test_a_preset_with_a_history_is_a_chat(api: Client) -> None:
    await put(api, "p")
    preset = (await presets(api))["p"]
    told = (await api.post("/api/chat", preset | {"history": HELLO})).json()
    assert {each["instance_id"] for each in told["results"].values()} == {
        instance["id"] for instance in preset["model_instances"]
    }
    assert (await put(api, "p", preset)).json() == preset, "and comes back as it was"


NO_PRESETS: list[tuple[str, Any, str]] = [
    ("p", {}, "No models selected"),
    ("p", {"model_instances": [{"model": "m", "temperature": 9}]}, "model_instances[0]"),
    ("p", {"model_instances": [{"model": "m", "endpoint": "elsewhere"}]}, "/api/endpoints"),
    ("p", {"models": ["m"] * 3, "model_instances": [{"model": "m"}] * 40}, "Too many model instances"),
    ("p", {"models": ["m"], "system": 3}, "system must be a string"),
    ("p", {"models": ["m"], "order": "backwards"}, "order must be"),
    ("x" * 81, {"models": ["m"]}, "name must be 1 to 80"),
    (" p", {"models": ["m"]}, "without blanks"),
    ("a\tb", {"models": ["m"]}, "printable"),
    ("..", {"models": ["m"]}, "nor be . or .."),
]


async def test_what_is_no_preset(api: Client) -> None:
    for name, value, named in NO_PRESETS:
        refused(await put(api, name, value), 400, "bad_request", named)
    assert await presets(api) == {}


async def test_a_conversation_is_kept_read_and_deleted(api: Client) -> None:
    assert (await api.get("/api/conversations")).json() == {"conversations": []}
    first = await api.post("/api/conversations", TALK)
    assert first.status == 200
    assert first.json()["title"] == "Why is the sky blue?"
    second = await api.post("/api/conversations", TALK | {"title": "Sky"})
    assert (await api.get("/api/conversations")).json() == {"conversations": [second.json(), first.json()]}
    path = f"/api/conversations/{first.json()['id']}"
    whole = (await api.get(path)).json()
    assert whole == first.json() | TALK
    assert (await api.post("/api/conversations", whole)).status == 200, "what was read can be kept again"
    assert (await api.call("DELETE", path)).json() == {"deleted": first.json()["id"]}
    for answer in (await api.get(path), await api.call("DELETE", path), await api.get("/api/conversations/a%00b")):
        refused(answer, 404, "not_found", "No such conversation")


NO_CONVERSATIONS: list[tuple[dict[str, Any], str]] = [
    ({"format": "other"}, f"format must be {FORMAT}"),
    ({"title": 3}, "title must be a string"),
    ({"title": "x" * 81}, "title must be 1 to 80"),
    ({"columns": "A"}, "columns must be a list"),
    ({"columns": []}, "columns must be a list of 1 to"),
    ({"columns": [{"id": "A", "turns": []}]}, "at least one turn"),
    ({"columns": [{"id": "A", "turns": [TURN]}, {"id": "A", "turns": []}]}, "different ids"),
    ({"columns": [{"id": "A\n", "turns": [TURN]}]}, "columns.id"),
    ({"columns": [{"id": "A", "turns": [TURN | {"answer": 3}]}]}, "turns[0].answer"),
    ({"columns": [{"id": "A", "turns": [TURN | {"instance": {"id": "A", "model": "a b"}}]}]}, "turns[0].instance"),
    (
        {"columns": [{"id": "A", "turns": [TURN | {"instance": {"id": "A", "model": "m", "options": {"top_p": 2}}}]}]},
        "turns[0].instance",
    ),
]


async def test_what_is_no_conversation(api: Client) -> None:
    for changes, named in NO_CONVERSATIONS:
        refused(await api.post("/api/conversations", TALK | changes), 400, "bad_request", named)


async def test_what_is_nested_too_deep_is_refused(api: Client) -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    turn = TURN | {"manifest": {"model": "m", "endpoint": "", "options_sent": {"x": deep}}}
    answer = await api.post("/api/conversations", {"columns": [{"id": "A", "turns": [turn]}]})
    refused(answer, 400, "bad_request", "levels deep")


async def test_there_is_an_end_to_what_one_may_keep(
    fake: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST", 2)
    monkeypatch.setattr(kept, "MAX_PRESET_BYTES", 500)
    async with started(create_api(settings_for(fake.url, data=tmp_path, kept_in_all=3))) as api:
        for name in ("a", "b", "b"):
            assert (await put(api, name, {"models": ["m"]})).status == 200
        refused(await put(api, "c", {"models": ["m"]}), 409, "too_many_kept", "you have 2 presets")
        refused(await put(api, "a", {"models": ["m"], "system": "x" * 500}), 413, "too_large", "at most 500")
        kept_one = await api.post("/api/conversations", TALK)
        assert kept_one.status == 200
        refused(await api.post("/api/conversations", TALK), 409, "too_many_kept", "ARENA_KEPT_IN_ALL")
        assert len(await presets(api)) == 2


async def cookie_of(api: Client) -> tuple[bytes, bytes]:
    """The name that the page gives to a new browser."""
    welcome = await api.call("GET", "/", b"", [(b"accept", b"text/html")])
    return b"cookie", welcome.headers["set-cookie"].partition(";")[0].encode()


async def test_one_visitor_cannot_take_everybodys_room_by_forgetting_its_name(fake: FakeOllama, tmp_path: Path) -> None:
    settings = settings_for(fake.url, data=tmp_path, kept_per_address=2, kept_in_all=4, trusted_proxies=("127.0.0.1",))
    async with started(create_api(settings)) as api:

        def at(address: bytes) -> list[tuple[bytes, bytes]]:
            return [(b"x-forwarded-for", address), (b"x-forwarded-host", b"127.0.0.1")]

        for name in ("a", "b"):
            saved = await put(api, name, {"models": ["m"]}, [await cookie_of(api), *at(b"203.0.113.1")])
            assert saved.status == 200
        third = await put(api, "c", {"models": ["m"]}, [await cookie_of(api), *at(b"203.0.113.1")])
        refused(third, 409, "too_many_kept", "ARENA_KEPT_PER_ADDRESS")
        assert (await put(api, "c", {"models": ["m"]}, [await cookie_of(api), *at(b"203.0.113.2")])).status == 200


async def test_what_a_browser_kept_goes_after_its_days_and_what_a_key_kept_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"sqlite:///{tmp_path / 'arena.sqlite3'}")
    shelves = kept.Kept(store, shared=True, days=30), kept.Kept(store, shared=True)
    browser = Caller("203.0.113.1", "203.0.113.1", "", visitor="0a")
    key = Caller("203.0.113.1", "key ann 00", "", key="ann")
    for who in (browser, key):
        await shelves[0].save_preset(who, "p", Preset((ModelInstance("a", "m"),)))
    for day, shelf, left in (("2026-02-01", 0, 1), ("2026-02-03", 1, 1), ("2026-02-03", 0, 0)):
        monkeypatch.setattr(kept, "now", lambda day=day: f"{day}T03:04:04.000+00:00")
        assert [len(await shelves[shelf].presets(who)) for who in (browser, key)] == [left, 1]
    store.close()


async def test_what_is_kept_is_read_where_nothing_can_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> int:
        raise StoreUnavailable("The disk is full")

    store, browser = Store(f"sqlite:///{tmp_path / 'arena.sqlite3'}"), Caller("203.0.113.1", "203.0.113.1", "")
    shelf = kept.Kept(store, shared=False, days=30)
    await shelf.save_preset(browser, "p", Preset((ModelInstance("a", "m"),)))
    monkeypatch.setattr(kept, "now", lambda: "2026-03-03T03:04:04.000+00:00")
    monkeypatch.setattr(kept, "expire", full)
    for _ in range(2):
        assert list(await shelf.presets(browser)) == ["p"]
    assert caplog.messages == ["what was kept too long is not deleted today: The disk is full"]
    store.close()


async def test_a_path_with_several_methods_tells_them_all(api: Client) -> None:
    answer = await api.call("PATCH", "/api/conversations/1", b"{}")
    assert answer.status == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE"}
    assert (await api.call("HEAD", "/api/presets", headers=())).status == 200


async def test_nobody_sees_what_another_keeps(fake: FakeOllama, tmp_path: Path) -> None:
    secrets = {name: keys.add(tmp_path / keys.FILE, name, scopes=("chat",)) for name in ("ann", "ben")}
    other = keys.add(tmp_path / keys.FILE, "eve", scopes=("embed",))
    async with started(create_api(settings_for(fake.url, data=tmp_path))) as api:

        async def ask(who: str, method: str, path: str, value: Any = None) -> Answer:
            headers = [JSON_TYPE, (b"authorization", f"Bearer {who}".encode())]
            return await api.call(method, path, b"" if value is None else json.dumps(value).encode(), headers)

        ann, ben = secrets["ann"], secrets["ben"]
        assert (await ask(ann, "PUT", "/api/presets/p", {"models": ["m"]})).status == 200
        mine = (await ask(ann, "POST", "/api/conversations", TALK)).json()["id"]
        assert (await ask(ben, "GET", "/api/presets")).json() == {"presets": []}
        assert (await ask(ben, "GET", "/api/conversations")).json() == {"conversations": []}
        for method, path in (
            ("GET", f"/api/conversations/{mine}"),
            ("DELETE", f"/api/conversations/{mine}"),
            ("DELETE", "/api/presets/p"),
        ):
            assert (await ask(ben, method, path)).status == 404
            assert (await ask(other, method, path)).status == 403
            assert (await ask(ann, method, path)).status == 200


async def test_on_a_server_for_others_a_browser_has_its_own_and_a_nobody_nothing(
    fake: FakeOllama, tmp_path: Path
) -> None:
    settings = settings_for(fake.url, data=tmp_path, trusted_proxies=("127.0.0.1",))
    async with started(create_api(settings)) as api:
        refused(await put(api, "p", {"models": ["m"]}), 403, "nobody", "reload the page")
        refused(await api.get("/api/conversations"), 403, "nobody", "named key")
        cookies = [await cookie_of(api) for _ in range(2)]
        assert (await put(api, "p", {"models": ["m"]}, [cookies[0]])).status == 200
        for cookie, count in zip(cookies, (1, 0), strict=True):
            answer = await api.call("GET", "/api/presets", headers=[cookie])
            assert len(answer.json()["presets"]) == count


async def test_a_store_that_is_gone_says_so_and_what_was_kept_is_there_again(fake: FakeOllama, tmp_path: Path) -> None:
    async with started(create_api(settings_for(f"host={fake.url}", data=tmp_path))) as api:
        assert (await put(api, "p")).status == 200
        os.rename(tmp_path / "arena.sqlite3", tmp_path / "elsewhere")
        lost = await put(api, "q")
        assert (lost.status, lost.json()["code"]) == (503, "store_unavailable")
        assert lost.headers["retry-after"]
        os.rename(tmp_path / "elsewhere", tmp_path / "arena.sqlite3")
        assert (await put(api, "q")).status == 200


async def test_a_damaged_one_is_named_and_can_be_deleted(api: Client, tmp_path: Path) -> None:
    await put(api, "sound")
    await put(api, "torn")
    kept_id = (await api.post("/api/conversations", TALK)).json()["id"]
    with closing(sqlite3.connect(tmp_path / "arena.sqlite3")) as store:
        store.execute("UPDATE documents SET content = '[]' WHERE id <> 'sound'")
        store.commit()
    path = f"/api/conversations/{kept_id}"
    refused(await api.get("/api/presets"), 503, "store_unavailable", "The preset torn is damaged")
    refused(await api.get(path), 503, "store_unavailable", f"The conversation {kept_id} is damaged")
    assert (await api.call("DELETE", "/api/presets/torn")).status == 200
    assert (await api.call("DELETE", path)).status == 200
    assert list(await presets(api)) == ["sound"]


async def test_reading_makes_no_store(api: Client, tmp_path: Path) -> None:
    for path in ("/api/presets", "/api/conversations", "/api/conversations/1"):
        await api.get(path)
    await api.call("DELETE", "/api/presets/p")
    assert not (tmp_path / "arena.sqlite3").exists()


async def test_what_is_kept_names_its_owner_by_a_pseudonym(api: Client, tmp_path: Path) -> None:
    await put(api, "p")
    store = Store(f"sqlite:///{tmp_path / 'arena.sqlite3'}")
    assert [each.title for each in store.documents("preset", store.pseudonym(kept.THIS_MACHINE))] == ["p"]
    assert store.documents("preset", kept.THIS_MACHINE) == []
    store.close()


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("Why?", "Why?"),
        ("  two\n\nlines\t", "two lines"),
        ("\n", "Without words"),
        ("word " * 30, ("word " * 15).strip() + "…"),
        ("x" * 200, "x" * 79 + "…"),
    ],
)
def test_the_first_words_are_the_title(prompt: str, title: str) -> None:
    turn = KeptTurn(prompt, prompt, (), ModelInstance("A", "m"), "", "", True, None, None, None)
    talk = Conversation((KeptColumn("A", ()), KeptColumn("B", (turn,))))
    assert talk.first_words == title
    assert len(title) <= kept.MAX_NAME
