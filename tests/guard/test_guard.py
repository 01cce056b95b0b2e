"""The guard's door: host, framing, origin, and the headers every answer leaves with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from arena.errors import SettingsError
from arena.guard.asgi import Message, Receive, Scope
from tests.guarded import BEARER, TOKEN, House

# Host


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/config", "/api/models", "/olla/ollama/api/tags", "/", "/signin", "/api/health"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost.",
        "[::1].evil",
        "[::1]evil",
        "[::1",
        "[localhost]",
        "2130706433",
        "127.1",
        "0x7f.0.0.1",
        "0127.0.0.1",
        "10.0.0.1",
        "x/api/health?",
        "localhost/x",
        "user@localhost",
        "localhost:",
        "localhost:x",
        "localhost:123456",
        "localhost:+1",
        "::1",
        "",
        "\xfc",
    ],
)
async def test_foreign_host_is_refused_on_every_route(locked: House, path: str, host: str) -> None:
    answer = await locked.ask("GET", path, BEARER, host=host)
    if not answer.error[0].startswith("A request"):
        assert (answer.status, answer.error[1]) == (403, "forbidden")
    assert not locked.inside.seen


@pytest.mark.anyio
async def test_an_ipv6_address_is_known_in_its_shortest_form() -> None:
    house = House(host="2001:DB8:0::5", token=TOKEN)
    assert (await house.ask(headers=BEARER, host="[2001:db8::5]:7860")).status == 200
    assert (await house.ask(headers=BEARER, host="[2001:db8::6]:7860")).status == 403


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["localhost:7860", "LocalHost", "127.0.0.1:7860", "127.8.9.1", "[::1]:7860", "[::1]"])
async def test_loopback_names_are_welcome_on_any_port(locked: House, host: str) -> None:
    for _ in range(2):  # the second time from memory
        assert (await locked.ask(headers=BEARER, host=host)).status == 200


@pytest.mark.anyio
async def test_configured_hosts_are_welcome() -> None:
    house = House(host="192.168.1.5", token=TOKEN, allowed_hosts=("Arena.example", "other.example:8443"))
    for host in ("192.168.1.5:7860", "arena.example", "arena.example:443", "other.example:8443", "localhost"):
        assert (await house.ask(headers=BEARER, host=host)).status == 200, host
    for host in ("other.example", "192.168.1.6", "0.0.0.0"):
        assert (await house.ask(headers=BEARER, host=host)).status == 403, host


@pytest.mark.anyio
@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
async def test_wildcard_address_is_reached_under_any_ip_but_no_foreign_name(bound: str) -> None:
    house = House(host=bound, token=TOKEN)
    assert (await house.ask(headers=BEARER, host="192.168.1.5:7860")).status == 200
    assert (await house.ask(headers=BEARER, host="[fd00::5]:7860")).status == 200
    assert (await house.ask(headers=BEARER, host="[fe80::1%eth0]:7860")).status == 403
    assert (await house.ask(headers=BEARER, host="rebound.example:7860")).status == 403


@pytest.mark.anyio
@pytest.mark.parametrize("second", ["127.0.0.1:7860", "evil.example"])
async def test_two_hosts_or_none_are_refused(locked: House, second: str) -> None:
    assert (await locked.ask(headers=[*BEARER.items(), ("Host", second)])).status == 400
    assert (await locked.ask(headers=BEARER, host=None)).status == 400
    assert not locked.inside.seen


@pytest.mark.anyio
async def test_memory_for_hosts_is_bounded(locked: House) -> None:
    for port in range(1000, 1600):
        assert (await locked.ask(headers=BEARER, host=f"localhost:{port}")).status == 200
    assert len(locked.guard._hosts._known) <= 256


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["//evil/", "//api/models", "api/models", "*", ""])
async def test_strange_paths_are_refused(locked: House, path: str) -> None:
    assert (await locked.ask(path=path, headers=BEARER)).status == 400


# framing


@pytest.mark.anyio
@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Length", "1"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "chunked, identity")],
        [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "gzip")],
        [("Content-Length", "1"), ("Content-Length", "2")],
        [("Content-Length", "-1")],
        [("Content-Length", "1e3")],
        [("Content-Length", "\xb2")],
        [("Content-Length", "9" * 5000)],
    ],
)
async def test_doubtful_framing_is_refused(locked: House, headers: list[tuple[str, str]]) -> None:
    answer = await locked.ask("POST", "/api/chat", [*BEARER.items(), *headers], body=[b"x"])
    assert (answer.status, answer.error[1]) == (400, "bad_request")
    assert not locked.inside.seen


@pytest.mark.anyio
async def test_compressed_bodies_are_refused(locked: House) -> None:
    headers = {**BEARER, "Content-Length": "1", "Content-Encoding": "gzip"}
    assert (await locked.ask("POST", "/api/chat", headers, body=[b"x"])).error[1] == "unsupported_media_type"
    headers["Content-Encoding"] = "identity"
    assert (await locked.ask("POST", "/api/chat", headers, body=[b"x"])).status == 200


# Origin


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "BREW"])
@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind-a-proxy.example"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:7860"}, False),
        ({"Origin": "http://127.0.0.1:7860"}, True),
        ({"Origin": "http://127.0.0.1:7861"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://evil.example", "Content-Type": "text/plain"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "127.0.0.1:7860"}, False),
        ({"Origin": ""}, False),
    ],
)
async def test_other_sites_cannot_change_anything(
    locked: House, method: str, headers: dict[str, str], allowed: bool
) -> None:
    answer = await locked.ask(method, "/olla/ollama/api/pull", {**BEARER, **headers})
    assert answer.status == (200 if allowed else 403)
    assert bool(locked.inside.seen) is allowed


@pytest.mark.anyio
async def test_other_sites_may_link_to_the_page_but_not_sign_it_out(unlocked: House) -> None:
    assert (await unlocked.ask("GET", "/", {"Sec-Fetch-Site": "cross-site"})).status == 200
    assert (await unlocked.ask("GET", "/signout", {"Sec-Fetch-Site": "cross-site"})).status == 403


# CORS


@pytest.mark.anyio
@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
async def test_no_other_page_may_read_answers(origin: str) -> None:
    house = House(host="0.0.0.0", token=TOKEN)
    house.inside.headers += [
        (b"access-control-allow-origin", origin.encode()),
        (b"access-control-allow-credentials", b"true"),
    ]
    for method, path in (("GET", "/"), ("GET", "/config"), ("GET", "/api/models"), ("OPTIONS", "/api/chat")):
        asked = {**BEARER, "Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = await house.ask(method, path, asked, host="192.168.1.5:7860")
        assert not [name for name, _ in answer.headers if name.startswith("access-control-")]
    assert (
        await house.ask("OPTIONS", headers={"Origin": origin, "Access-Control-Request-Method": "GET"})
    ).status == 401


@pytest.mark.anyio
async def test_configured_origins_may_call_the_api_but_not_the_page() -> None:
    house = House(token=TOKEN, cors_origins=("https://App.example/",))
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    before = await house.ask("OPTIONS", "/api/chat", asked)
    assert before.status == 204
    assert before.header("access-control-allow-origin") == "https://app.example"
    assert before.header("access-control-allow-headers") == "authorization, content-type, x-api-key"
    assert before.header("access-control-allow-credentials") is None
    assert not house.inside.seen
    for wanted, allowed in (
        ("x-olla-session-id,anthropic-version, x-stainless-os", "x-olla-session-id,anthropic-version, x-stainless-os"),
        ("x-a, evil header", "authorization, content-type, x-api-key"),
        ("x-a\r\nset-cookie", "authorization, content-type, x-api-key"),
        ("", "authorization, content-type, x-api-key"),
        ("x" * 3000, "authorization, content-type, x-api-key"),
    ):
        more = await house.ask("OPTIONS", "/api/chat", {**asked, "Access-Control-Request-Headers": wanted})
        assert more.header("access-control-allow-headers") == allowed

    posted = {**BEARER, "Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    answer = await house.ask("POST", "/api/chat", posted)
    assert (answer.status, answer.header("access-control-allow-origin")) == (200, "https://app.example")
    assert answer.header("vary") == "origin"
    exposed = (answer.header("access-control-expose-headers") or "").split(", ")
    assert {"x-olla-endpoint", "x-olla-total-time", "server-timing", "request-id"} <= set(exposed)
    refused = await house.ask("POST", "/api/chat", {"Origin": "https://app.example"})
    assert (refused.status, refused.header("access-control-allow-origin")) == (401, "https://app.example")
    assert (await house.ask("POST", "/gradio_api/queue/join", posted)).status == 403
    assert (await house.ask("OPTIONS", "/", asked)).status == 401


@pytest.mark.parametrize(
    "value", ["*", "app.example", "ftp://app.example", "https://app.example/x", "https://u@a.example"]
)
def test_wrong_origin_in_settings_is_named(value: str) -> None:
    with pytest.raises(SettingsError, match="ARENA_CORS_ORIGINS"):
        House(cors_origins=(value,))


# how answers leave


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path", ["/", "/api/models", "/api/health", "/olla/ollama/api/tags", "/nowhere", "/robots.txt"]
)
@pytest.mark.parametrize("headers", [BEARER, {}], ids=["admitted", "refused"])
async def test_every_answer_leaves_with_the_headers_of_safety(
    locked: House, path: str, headers: dict[str, str]
) -> None:
    locked.inside.headers += [
        (b"x-frame-options", b"ALLOWALL"),
        (b"content-security-policy", b"default-src *"),
        (b"x-request-id", b"upstream"),
        (b"cache-control", b"public"),
    ]
    answer = await locked.ask(path=path, headers=headers)
    policy = answer.header("content-security-policy") or ""
    for part in ("default-src 'self';", "img-src 'self' data: blob:;", "connect-src 'self';", "form-action 'self';",
                 "base-uri 'self';", "object-src 'none';", "frame-ancestors 'self'"):  # fmt: skip
        assert part in policy
    assert answer.header("x-frame-options") == "SAMEORIGIN"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("referrer-policy") == "no-referrer"
    assert answer.header("cross-origin-opener-policy") == "same-origin"
    assert answer.header("cross-origin-resource-policy") == "same-origin"
    assert len(answer.header("x-request-id") or "") == 16
    inside_page = path in ("/", "/nowhere") and answer.status == 200
    assert answer.header("cache-control") == ("public" if inside_page else "no-store")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["text/event-stream; charset=utf-8", "application/x-ndjson", "application/json"])
async def test_streams_ask_not_to_be_buffered(unlocked: House, kind: str) -> None:
    unlocked.inside.headers = [(b"x-accel-buffering", b"yes"), (b"content-type", kind.encode())]
    assert (await unlocked.ask()).header("x-accel-buffering") == (None if kind == "application/json" else "no")


@pytest.mark.anyio
async def test_request_ids_differ(unlocked: House) -> None:
    ids = {(await unlocked.ask(headers={"X-Olla-Request-ID": "mine"})).header("x-request-id") for _ in range(50)}
    assert len(ids) == 50
    assert "mine" not in ids


@pytest.mark.anyio
async def test_refusals_are_logged_without_what_was_sent(locked: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    await locked.ask(headers={"Authorization": "Bearer canary"})
    await locked.sign_in(token="canary")
    assert "refused GET /api/models from 127.0.0.1: unauthorized" in caplog.text
    assert "refused sign-in from 127.0.0.1: unauthorized" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_refusal_of_a_foreign_host_names_the_caller(caplog: pytest.LogCaptureFixture, kind: str) -> None:
    house = House(token=TOKEN, trusted_proxies="10.0.0.0/8")

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        assert message["type"] != "websocket.accept"

    hop = {"X-Forwarded-For": "198.51.100.7"}
    for peer in ("192.0.2.7", "10.0.0.1"):
        await house.guard(house.scope("GET", "/x", hop, host="evil.example", peer=peer, kind=kind), receive, send)
    for address in ("192.0.2.7", "198.51.100.7"):
        assert f" /x from {address}: forbidden" in caplog.text


@pytest.mark.anyio
async def test_a_stream_costs_one_plain_call_a_message(locked: House) -> None:
    """The server's own send runs as it is: what the guard hands back is that very awaitable."""
    awaited: list[object] = []
    returned: list[object] = []

    class Sent:
        def __await__(self) -> Any:
            awaited.append(self)
            return iter(())

    async def app(scope: Scope, receive: Receive, send: Callable[[Message], Any]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        returned.append(send({"type": "http.response.body", "body": b"x", "more_body": True}))

    async def receive() -> Message:
        return {}

    sent = [Sent(), Sent()]
    locked.guard.app = app
    results: Any = iter(sent)
    await locked.guard(locked.scope("GET", "/api/models", BEARER), receive, lambda message: next(results))
    assert awaited == [sent[0]]
    assert returned == [sent[1]]


# other scopes, and the end


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "host", "code"),
    [
        ({}, "127.0.0.1", "unauthorized"),
        ({"Authorization": "Bearer wrong"}, "127.0.0.1", "unauthorized"),
        ({**BEARER, "Origin": "http://evil.example"}, "127.0.0.1", "forbidden"),
        (BEARER, "evil.example", "forbidden"),
    ],
)
async def test_websockets_are_judged_before_they_are_accepted(
    locked: House, headers: dict[str, str], host: str, code: str
) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("not read before it is judged")

    async def send(message: Message) -> None:
        sent.append(message)

    for path in ("/", "/gradio_api/queue/data", "/api/chat"):
        await locked.guard(locked.scope("", path, headers, host=host, kind="websocket", scheme="ws"), receive, send)
    assert [(m["type"], m["code"], m["reason"]) for m in sent] == [("websocket.close", 1008, code)] * 3
    assert not locked.inside.seen
    await locked.guard(locked.scope("", "/", BEARER, kind="websocket", scheme="ws"), receive, send)
    assert len(locked.inside.seen) == 1


@pytest.mark.anyio
async def test_websocket_behind_a_proxy_is_told_its_scheme() -> None:
    house = House(trusted_proxies=("10.0.0.1",))
    scope = house.scope("", "/", {"X-Forwarded-Proto": "https"}, peer="10.0.0.1", kind="websocket", scheme="ws")
    await house.guard(scope, None, None)  # type: ignore[arg-type]
    assert house.inside.seen[0]["scheme"] == "wss"


@pytest.mark.anyio
async def test_lifespan_passes_and_the_unknown_does_not(locked: House) -> None:
    await locked.guard({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    await locked.guard({"type": "unheard-of"}, None, None)  # type: ignore[arg-type]
    assert [scope["type"] for scope in locked.inside.seen] == ["lifespan"]


@pytest.mark.anyio
async def test_a_server_without_peer_address_works(locked: House) -> None:
    scope = locked.scope("GET", "/api/health")
    scope["client"] = None
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    await locked.guard(scope, receive, send)
    assert sent[0]["status"] == 200


@pytest.mark.anyio
async def test_draining_refuses_new_work_and_tells_once(locked: House) -> None:
    locked.guard.drain()
    locked.guard.drain()
    assert locked.drained == 1
    answer = await locked.ask(headers=BEARER)
    assert (answer.status, answer.error[1]) == (503, "server_shutting_down")
    assert answer.header("connection") == "close"
    assert not locked.inside.seen


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("server", "settings", "inside"),
    [
        (("127.0.0.1", 8000), {}, True),
        (("::ffff:127.0.0.1", 8000), {}, True),
        (("/run/arena.sock", None), {}, True),
        (("192.0.2.1", 8000), {}, False),
        (("fe80::1%eth0", 8000), {}, False),
        (("192.0.2.1", 8000), {"allow_open": True}, True),
        (("192.0.2.1", 8000), {"token": TOKEN}, True),
    ],
    ids=["loopback", "mapped", "a file", "public", "link-local", "open on purpose", "with a token"],
)
async def test_without_a_token_another_server_serves_its_own_machine_only(
    kind: str, server: tuple[str, int | None], settings: dict[str, Any], inside: bool
) -> None:
    house = House(**settings)
    scope = {**house.scope("GET", "/x", BEARER, host="localhost", peer="192.0.2.7", kind=kind), "server": server}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    await house.guard(scope, receive, send)
    assert bool(house.inside.seen) is inside
    assert inside or sent[0].get("status", 1008) in (403, 1008)
