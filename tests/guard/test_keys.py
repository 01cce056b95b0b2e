"""Named keys at the door: what lets in, where to, how often, and what those who answer are told."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from arena.api.scopes import ANY_KEY, CHAT, MANAGE, needs
from arena.exchange import SHARED, Caller, Headers, Inbound, Session, Sink
from arena.guard import Guard
from arena.keys import Keys, add, remove
from arena.proxy.table import Route, Table
from arena.settings import load
from tests.guarded import BEARER, PAGE, TOKEN, Answer, House, session_of

pytestmark = pytest.mark.anyio

CHAT_PATH = "/olla/ollama/api/chat"
TABLE = Table(
    {
        ("GET", "/internal/health"): Route("native"),
        ("GET", "/internal/status"): Route("native", scope="admin"),
        ("GET", "/version"): Route("native"),
        ("GET", "/olla/models"): Route("native"),
    }
)


class KeyHouse(House):
    """A house with keys; `token` None: with keys alone."""

    def __init__(self, folder: Path, token: str | None = TOKEN, **settings: Any) -> None:
        super().__init__(token=token, **settings)
        self.path = folder / "keys.json"
        self.due: list[Callable[[], None]] = []
        self.keys = Keys(self.path, self.clock, lambda _delay_s, call: self.due.append(call))
        self.direct: list[Inbound] = []
        self.guard = Guard(
            self.inside,
            load(token=token, **settings),
            direct=lambda method, path: self._begin if path == CHAT_PATH else None,
            keys=self.keys,
            needs=needs(TABLE),
            clock=self.clock,
        )

    def _begin(self, inbound: Inbound, body: bytes, sink: Sink) -> Session | None:
        self.direct.append(inbound)
        return None

    def key(self, name: str = "alice", **limits: Any) -> dict[str, str]:
        """The header that brings a new key."""
        secret = add(self.path, name, **{"scopes": ("chat",), **limits})
        self.clock.now += 1
        return {"Authorization": f"Bearer {secret}"}

    async def chat(self, headers: dict[str, str], **options: Any) -> Answer:
        return await self.ask("POST", CHAT_PATH, headers, **options)

    @property
    def caller(self) -> Caller:
        """Whom the application saw last."""
        caller = self.inside.seen[-1]["arena.caller"]
        assert isinstance(caller, Caller)
        return caller


def counted_as(key: dict[str, str]) -> str:
    """Under which name alice is counted with the key in this header."""
    secret = key["Authorization"].removeprefix("Bearer ")
    return f"key alice {sha256(secret.encode()).hexdigest()[:16]}"


@pytest.fixture
def house(tmp_path: Path) -> KeyHouse:
    return KeyHouse(tmp_path)


class Wire:
    """A connection that keeps what is written to it."""

    def __init__(self) -> None:
        self.dress: Callable[[Headers], bytes] | None = None
        self.over: Callable[[], object] | None = None
        self.request_id = ""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.ended = False

    def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        self.status, self.headers = status, dict(headers)

    def write(self, data: bytes) -> None:
        self.body += data

    def end(self, trailers: object = ()) -> None:
        self.ended = True

    def abort(self) -> None:
        raise AssertionError


# Who gets in


async def test_a_key_lets_in_beside_the_token(house: KeyHouse) -> None:
    key = house.key(models=("llama*",))
    assert (await house.chat(key)).status == 200
    caller = house.caller
    assert (caller.key, caller.models, caller.counted_as) == ("alice", ("llama*",), counted_as(key))
    remove(house.path, "alice")
    again = house.key(models=("llama*",))
    assert (await house.chat(again)).status == 200
    assert house.caller.counted_as == counted_as(again) != caller.counted_as, "made anew it is somebody else's"
    assert (await house.chat(BEARER)).status == 200
    assert (house.caller.key, house.caller.models) == ("", None)


async def test_a_key_may_come_as_anthropics_clients_send_it(house: KeyHouse) -> None:
    secret = house.key()["Authorization"].removeprefix("Bearer ")
    assert (await house.chat({"x-api-key": secret})).status == 200
    assert (await house.chat({"x-api-key": TOKEN})).status == 200
    assert (await house.chat({"x-api-key": secret, **BEARER})).status == 200
    assert house.caller.key == ""
    refused: list[Any] = [
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
        {"x-api-key": secret, "Authorization": "Bearer wrong"},
        {"x-api-key": secret, "Authorization": "Basic wrong"},
        [("x-api-key", secret), ("x-api-key", secret)],
        {"Authorization": secret},
    ]
    for headers in refused:
        assert (await house.chat(headers)).status == 401, headers


async def test_without_a_token_the_first_key_closes_the_door_for_good(tmp_path: Path) -> None:
    house = KeyHouse(tmp_path, token=None)
    assert (await house.chat({})).status == 200
    key = house.key()
    assert (await house.chat({})).status == 401
    assert (await house.chat(key)).status == 200
    assert (await house.ask("GET", "/api/health")).status == 200
    assert (await house.chat({"Authorization": "Bearer "})).status == 401
    assert (await house.sign_in("")).status == 401
    remove(house.path, "alice")
    house.clock.now += 1
    assert (await house.chat(key)).status == 401
    assert (await house.chat({})).status == 401


async def test_a_removed_key_is_refused_within_a_second(house: KeyHouse) -> None:
    key = house.key()
    assert (await house.chat(key)).status == 200
    remove(house.path, "alice")
    house.clock.now += 1
    assert (await house.chat(key)).error[1] == "unauthorized"


async def test_wrong_keys_are_counted_like_wrong_tokens(house: KeyHouse) -> None:
    key = house.key()
    for _ in range(10):
        assert (await house.chat({"x-api-key": "wrong"})).status == 401
    assert (await house.chat(key)).status == 429


# Where to


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        *(("GET", path, None) for path in sorted(ANY_KEY)),
        *(("POST", path, "chat") for path in sorted(CHAT)),
        *(("POST", path, "manage") for path in sorted(MANAGE)),
        ("GET", "/api/pulls", "manage"),
        ("GET", "/api/pulls/1", "manage"),
        ("POST", "/api/pulls/1/cancel", "manage"),
        ("GET", "/api/endpoints", "manage"),
        ("GET", "/olla/ollama/", None),
        ("GET", "/olla/ollama/api/tags", None),
        ("HEAD", "/olla/ollama/api/version", None),
        ("GET", "/olla/ollama/api/ps", None),
        ("POST", "/olla/ollama/api/show", None),
        ("GET", "/olla/openai/v1/models", None),
        ("GET", "/olla/openai/v1/models/llama3", None),
        ("GET", "/olla/models", None),
        ("GET", "/version", None),
        ("HEAD", "/internal/health", None),
        ("GET", "/olla/nowhere", None),
        ("PUT", "/olla/ollama/api/chat", None),
        ("POST", "/olla/ollama/api/generate", "chat"),
        ("POST", "/olla/proxy/api/chat", "chat"),
        ("POST", "/olla/ollama/v1/chat/completions", "chat"),
        ("POST", "/olla/openai/v1/completions", "chat"),
        ("POST", "/olla/openai/v1/responses", "chat"),
        ("POST", "/olla/anthropic/v1/messages", "chat"),
        ("POST", "/olla/ollama/api/embed", "embed"),
        ("POST", "/olla/ollama/api/embeddings", "embed"),
        ("POST", "/olla/openai/v1/embeddings", "embed"),
        ("POST", "/olla/ollama/api/pull", "manage"),
        ("POST", "/olla/ollama/api/push", "manage"),
        ("POST", "/olla/ollama/api/create", "manage"),
        ("POST", "/olla/ollama/api/copy", "manage"),
        ("DELETE", "/olla/ollama/api/delete", "manage"),
        ("POST", "/olla/ollama/api/delete", "manage"),
        ("HEAD", "/olla/ollama/api/blobs/sha256:" + "0" * 64, "manage"),
        ("POST", "/olla/proxy/api/blobs/sha256:" + "0" * 64, "manage"),
        ("GET", "/", "admin"),
        ("GET", "/config", "admin"),
        ("POST", "/gradio_api/queue/join", "admin"),
        ("GET", "/internal/status", "admin"),
        ("POST", "/internal/status", "admin"),
        ("POST", "/internal/reload", "admin"),
        ("GET", "/api/nowhere", "admin"),
        ("POST", "/api/models", "admin"),
        ("GET", "/api/chat", "admin"),
        ("GET", "/api/chat/", "admin"),
        ("POST", "/olla", "admin"),
    ],
)
async def test_a_key_goes_where_its_scope_allows(house: KeyHouse, method: str, path: str, scope: str | None) -> None:
    for has in ("chat", "embed", "manage", "admin"):
        answer = await house.ask(method, path, house.key(f"with-{has}", scopes=(has,)))
        if scope in (None, has) or has == "admin":
            assert answer.status == 200, has
        else:
            assert answer.status == 403, has
            assert f"needs {scope}" in answer.error[0]
    assert (await house.ask(method, path, BEARER)).status == 200


async def test_every_route_of_the_api_has_been_given_a_scope() -> None:
    from fastapi import FastAPI

    from arena.api import include_api
    from arena.arena import Arena

    app = FastAPI()
    include_api(app, Arena(load(data=Path("unused"))))
    needed = needs(TABLE)
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            if path != "/api/health" and not path.startswith(("/api/fleet/", "/api/votes")):
                assert needed(method.upper(), path.replace("{id}", "1")) != "admin", path


async def test_a_key_opens_no_page_and_a_websocket_needs_an_admin(house: KeyHouse) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    scope = house.scope("GET", "/olla/ollama/api/tags", house.key(), kind="websocket")
    await house.guard(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "forbidden"}]


# The page


async def test_an_admins_key_signs_in_and_its_session_ends_with_it(house: KeyHouse) -> None:
    key = house.key("boss", scopes=("admin",))["Authorization"].removeprefix("Bearer ")
    session = session_of(await house.sign_in(key))
    other = session_of(await house.sign_in(TOKEN))
    for cookie in (session, other):
        assert (await house.ask("GET", "/", {"Cookie": cookie, **PAGE})).status == 200
    assert house.caller.key == ""
    remove(house.path, "boss")
    house.clock.now += 1
    assert (await house.ask("GET", "/", {"Cookie": session, **PAGE})).status == 303
    assert (await house.ask("GET", "/", {"Cookie": other, **PAGE})).status == 200


async def test_another_key_does_not_sign_in(house: KeyHouse) -> None:
    answer = await house.sign_in(house.key()["Authorization"].removeprefix("Bearer "))
    assert answer.status == 403
    assert b"scope admin" in answer.body
    assert answer.header("set-cookie") is None


# How often


async def test_requests_a_minute(house: KeyHouse) -> None:
    key = house.key(per_minute=2)
    for _ in range(2):
        assert (await house.chat(key)).status == 200
    over = await house.chat(key)
    assert (over.status, over.error[1], over.header("retry-after")) == (429, "too_many_requests", "60")
    assert "2 requests a minute" in over.error[0]
    assert (await house.chat(BEARER)).status == 200
    house.clock.now += 60
    assert (await house.chat(key)).status == 200


async def test_tokens_a_day(house: KeyHouse) -> None:
    key = house.key(tokens_per_day=10)
    assert (await house.chat(key)).status == 200
    house.keys.spent("alice", "llama3", "gpu1", 10)
    over = await house.chat(key)
    assert over.status == 429
    assert int(over.header("retry-after") or 0) > 60


async def test_answers_at_a_time(house: KeyHouse) -> None:
    key = house.key(concurrent=1)
    found = house.keys.named("alice")
    assert found is not None
    house.keys.begin(found)
    over = await house.chat(key)
    assert (over.status, over.header("retry-after")) == (429, "5")
    assert (await house.ask("GET", "/olla/ollama/api/tags", key)).status == 200
    house.keys.end(found)
    for _ in range(3):
        assert (await house.chat(key)).status == 200
    assert house.keys.in_flight(found) == 0


async def test_a_refused_body_counts_no_answer(tmp_path: Path) -> None:
    house = KeyHouse(tmp_path)
    key = house.key(concurrent=1)
    too_large = {**key, "Content-Length": str(2**40)}
    for _ in range(3):
        assert (await house.chat(too_large)).status == 413
    assert (await house.chat(key)).status == 200


async def test_on_a_public_address_own_limits_take_the_place_of_the_common_ones(tmp_path: Path) -> None:
    house = KeyHouse(tmp_path, host="0.0.0.0")
    limited, unlimited = house.key("limited", per_minute=100), house.key("unlimited")
    answers = [(await house.chat(limited)).status for _ in range(101)]
    assert answers == [200] * 100 + [429]
    answers = [(await house.chat(unlimited)).status for _ in range(31)]
    assert answers == [200] * 30 + [429]
    admin, held = house.key("admin", scopes=("admin",)), house.key("held", scopes=("admin",), per_minute=3)
    assert {(await house.chat(admin)).status for _ in range(31)} == {200}
    assert [(await house.chat(held)).status for _ in range(4)] == [200] * 3 + [429], "its own limit holds"


async def test_a_public_address_limits_the_answers_of_a_key_without_a_limit(tmp_path: Path) -> None:
    house = KeyHouse(tmp_path, host="0.0.0.0")
    key = house.key()
    for _ in range(8):
        house.guard._answers.begin(counted_as(key))
    assert (await house.chat(key)).error[0].startswith("You have 8 answers")
    assert (await house.chat(house.key("bob", concurrent=1))).status == 200


# Straight on a connection


async def test_a_request_past_asgi_is_judged_alike(house: KeyHouse) -> None:
    key = house.key(models=("llama*",), concurrent=1)
    found = house.keys.named("alice")
    assert found is not None
    first, second, third = Wire(), Wire(), Wire()
    house.guard.carry(house._begin, dict(house.scope("POST", CHAT_PATH, key)), b"{}", first)
    assert (house.direct[0].caller.key, house.direct[0].caller.models) == ("alice", ("llama*",))
    assert house.keys.in_flight(found) == 1
    house.guard.carry(house._begin, dict(house.scope("POST", CHAT_PATH, key)), b"{}", second)
    assert (second.status, second.headers[b"retry-after"], second.ended) == (429, b"5", True)
    assert first.over is not None
    first.over()
    assert house.keys.in_flight(found) == 0
    other = house.key("bob", scopes=("embed",))
    house.guard.carry(house._begin, dict(house.scope("POST", CHAT_PATH, other)), b"{}", third)
    assert (third.status, len(house.direct)) == (403, 1)


async def test_a_head_that_was_judged_before_permits_nothing(tmp_path: Path) -> None:
    """The scopes of equal heads share a dict; who calls, from where and how often is found out anew each time."""
    house = KeyHouse(tmp_path, cors_origins=("https://app.example",))
    shared: dict[str, object] = {}

    def carried(headers: dict[str, str], peer: str = "127.0.0.1") -> Wire:
        wire = Wire()
        scope = {**house.scope("POST", CHAT_PATH, headers, peer=peer), SHARED: shared}
        house.guard.carry(house._begin, scope, b"{}", wire)
        return wire

    page = {"Origin": "https://app.example"}
    own = page | house.key()
    assert [carried(own).status, carried(own, peer="127.0.0.9").status] == [0, 0]
    assert [inbound.caller.address for inbound in house.direct] == ["127.0.0.1", "127.0.0.9"]
    assert len({inbound.caller.request_id for inbound in house.direct}) == 2
    last = carried(own)
    assert last.dress is not None
    assert b"access-control-allow-origin: https://app.example\r\n" in last.dress([])
    remove(house.path, "alice")
    house.clock.now += 2
    assert carried(own).status == 401
    shared.clear()
    limited = page | house.key("bob", per_minute=1)
    assert [carried(limited).status, carried(limited).status] == [0, 429]
    shared.clear()
    assert [carried({"Origin": "https://evil.example"}).status for _ in range(2)] == [403, 403]
    assert not shared  # what is refused is not remembered
    other = page | house.key("carol")
    assert carried(other).status == 0
    house.guard.drain()
    assert carried(other).status == 503


# No copies of the key


async def test_neither_log_nor_answer_tells_a_key(house: KeyHouse, caplog: pytest.LogCaptureFixture) -> None:
    key = house.key(per_minute=1)
    secret = key["Authorization"].removeprefix("Bearer ")
    with caplog.at_level("DEBUG"):
        for path in (CHAT_PATH, "/internal/status", CHAT_PATH):
            answer = await house.ask("POST", path, key)
            assert secret.encode() not in answer.body
    assert secret not in caplog.text
    assert secret[-10:] not in caplog.text


async def test_a_page_of_a_configured_origin_is_served_past_asgi_too(tmp_path: Path) -> None:
    house = KeyHouse(tmp_path, cors_origins=("https://app.example",))
    key = house.key()
    for origin, status in (("https://app.example", 200), ("https://evil.example", 403)):
        wire = Wire()
        house.guard.carry(house._begin, dict(house.scope("POST", CHAT_PATH, {**key, "Origin": origin})), b"{}", wire)
        assert (wire.status or 200) == status
        if status == 200:
            assert wire.dress is not None
            assert b"access-control-allow-origin: %b\r\n" % origin.encode() in wire.dress([])


async def test_the_peer_is_told_where_it_is_not_who_calls(tmp_path: Path) -> None:
    house = KeyHouse(tmp_path, trusted_proxies="10.0.0.0/8")
    key = house.key()
    hop = key | {"X-Forwarded-For": "198.51.100.7, 10.9.9.9", "X-Forwarded-Host": "ai.example.org", "X-Request-ID": "7"}
    for headers, peer, address, told in (
        (hop, "10.0.0.1", "198.51.100.7", "10.0.0.1"),
        (hop, "192.0.2.7", "192.0.2.7", ""),
        (key, "2001:db8::7", "2001:db8::/64", "2001:db8::7"),
    ):
        scope = {**house.scope("POST", CHAT_PATH, headers, peer=peer), SHARED: {}}
        for _ in range(2):  # seen first, and seen again
            wire = Wire()
            house.guard.carry(house._begin, scope, b"{}", wire)
            caller = house.direct[-1].caller
            assert (caller.address, caller.peer, wire.request_id) == (address, told, caller.request_id)
            assert caller.forwarded_host == (b"ai.example.org" if peer == "10.0.0.1" else b"")
            assert (caller.request_id == "7") == (headers is hop)
            scope["client"] = (peer, 1)
