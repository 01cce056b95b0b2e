"""The routes that we answer ourselves, on their way to the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from arena.errors import ArenaError, ModelNotFound, ShuttingDown
from arena.exchange import Caller, Inbound
from arena.proxy.answering import Answering, turned_away
from arena.proxy.dialect import Dialect
from arena.proxy.reply import Reply
from tests.proxy.front import CALLER, DEADLINE_S, Taken, asked, front

pytestmark = pytest.mark.anyio

LINES = [(b"content-type", b"application/x-ndjson")]


class Work:
    """A reply in pieces that the test lets go, and one session over it."""

    def __init__(
        self, *, fault: BaseException | None = None, dialect: Dialect = "native", method: str = "POST"
    ) -> None:
        self.gate = asyncio.Event()
        self.closed = False
        self.asked = 0
        self.fault = fault
        self.taken = Taken()
        self.ended = asyncio.Event()
        inbound = Inbound(method, "/olla/ollama/api/pull", b"", [], CALLER)
        self.session = Answering(inbound, dialect, self.taken, lambda _: self.ended.set())

    async def pieces(self) -> AsyncIterator[bytes]:
        """Two lines, the second behind the gate."""
        try:
            self.asked += 1
            yield b'{"status":"a"}\n'
            self.asked += 1
            await self.gate.wait()
            if self.fault is not None:
                raise self.fault
            yield b'{"status":"success"}\n'
        finally:
            self.closed = True

    async def streamed(self) -> Reply:
        """The reply in pieces."""
        return Reply(200, LINES, self.pieces())

    async def failed(self) -> Reply:
        """No reply at all."""
        assert self.fault is not None
        raise self.fault

    async def over(self) -> None:
        """Wait until the session has ended."""
        async with asyncio.timeout(5):
            await self.ended.wait()


async def turns(count: int = 5) -> None:
    """Let everybody run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_pieces_go_out_as_they_come() -> None:
    work = Work()
    work.session.begin(work.streamed)
    await work.taken.until(b"a")
    assert not work.taken.over.is_set()
    work.gate.set()
    await work.over()
    assert (work.taken.ended, len(work.taken.lines), work.closed) == (True, 2, True)
    assert {"x-olla-request-id", "x-olla-endpoint", "x-olla-model", "x-olla-backend-type"} <= set(work.taken.headers)
    assert "content-length" not in work.taken.headers


async def test_a_slow_client_is_asked_for_nothing_more() -> None:
    work = Work()
    work.session.begin(work.streamed)
    work.session.pause()
    work.session.pause()
    await work.taken.until(b"a")
    await turns()
    assert work.asked == 1
    work.session.resume()
    work.session.resume()
    await turns()
    assert work.asked == 2
    work.session.left()
    await work.over()
    assert work.closed


@pytest.mark.parametrize("started", [True, False])
async def test_a_client_that_leaves_ends_the_work(started: bool) -> None:
    work = Work()
    work.session.begin(work.streamed)
    if started:
        await work.taken.until(b"a")
    work.session.left()
    await work.over()
    assert not work.taken.over.is_set()
    assert work.closed is started


async def test_a_stream_that_fails_is_cut_after_a_word_of_why() -> None:
    work = Work(fault=ArenaError("no luck"))
    work.session.begin(work.streamed)
    work.gate.set()
    await work.over()
    assert (work.taken.cut, work.taken.ended) == (True, False)
    assert [line.get("error") for line in work.taken.lines] == [None, "no luck"]


async def test_an_error_is_told_in_the_dialect() -> None:
    work = Work(fault=ModelNotFound("no such model"), dialect="openai")
    work.session.begin(work.failed)
    await work.over()
    assert (work.taken.status, work.taken.json["error"]["code"]) == (404, "model_not_found")


async def test_anthropics_clients_are_told_the_request_under_their_own_name() -> None:
    work = Work(fault=ModelNotFound("no such model"), dialect="anthropic")
    work.session.begin(work.failed)
    await work.over()
    assert work.taken.headers["request-id"] == work.taken.headers["x-olla-request-id"] == CALLER.request_id


@pytest.mark.parametrize("started", [True, False])
async def test_a_fault_of_ours_leaves_nobody_waiting(started: bool, caplog: pytest.LogCaptureFixture) -> None:
    work = Work(fault=RuntimeError("a bug"))
    work.session.begin(work.streamed if started else work.failed)
    work.gate.set()
    await work.over()
    if started:
        assert work.taken.cut
    else:
        assert (work.taken.status, work.taken.json["error"]) == (500, "An unexpected error occurred")
        assert "bug" not in work.taken.body.decode()
    assert "a fault in an answer" in caplog.text


@pytest.mark.parametrize("started", [True, False])
async def test_when_the_server_stops(started: bool) -> None:
    work = Work()
    work.session.begin(work.streamed)
    if started:
        await work.taken.until(b"a")
    work.session.stop(ShuttingDown("The server is stopping"))
    await work.over()
    assert work.taken.cut is started
    assert started or work.taken.json["code"] == "server_shutting_down"


async def test_head_has_no_body() -> None:
    work = Work(method="HEAD")

    async def reply() -> Reply:
        return Reply(200, [(b"x-olla-endpoint", b"a")], b"four")

    work.session.begin(reply)
    await work.over()
    assert (work.taken.body, work.taken.headers["content-length"]) == (b"", "4")
    assert work.taken.headers["x-olla-endpoint"] == "a"


# what is known


@pytest.mark.parametrize(("method", "body"), [("GET", b"Ollama is running"), ("HEAD", b"")])
async def test_what_is_known_is_told_at_once_and_by_nobody_who_could_be_stopped(method: str, body: bytes) -> None:
    async with front("a") as it:
        taken = it.begin(method, "/olla/ollama/", headers=[("X-Olla-Request-Id", "mine")])
        assert (taken.ended, taken.session, it.proxy.running) == (True, None, 0)
        assert (taken.status, taken.body, taken.headers["content-length"]) == (200, body, "17")
        told = {name: value for name, value in taken.headers.items() if name.startswith("x-olla-")}
        assert told.pop("x-olla-response-time").endswith("ms")
        assert told == {
            "x-olla-request-id": CALLER.request_id,
            "x-olla-endpoint": "a",
            "x-olla-endpoints-up": "1/1",
            "x-olla-fleet": "a=healthy",
            "x-olla-model": "none",
            "x-olla-backend-type": "ollama",
        }


async def test_the_version_is_asked_for_once_and_then_known() -> None:
    async with front("a", "b") as it:
        first = await it.ask("GET", "/olla/ollama/api/version")
        again = it.begin("GET", "/olla/proxy/api/version", caller=Caller("127.0.0.2", "127.0.0.2", "r-2"))
        assert (again.ended, again.session) == (True, None)
        assert again.body == first.body
        time = again.headers["x-olla-response-time"]
        assert again.headers == {**first.headers, "x-olla-request-id": "r-2", "x-olla-response-time": time}
        assert {name: len(asked(it[name], "/api/version")) for name in "ab"} == {"a": 1, "b": 1}


async def test_a_refusal_of_what_is_known_is_told_as_every_other() -> None:
    async with front("a") as it:
        taken = it.begin("GET", "/olla/ollama/", headers=[("X-Olla-Endpoint", "nobody")])
        assert (taken.ended, taken.status, taken.json["code"]) == (True, 400, "unknown_endpoint")
        assert taken.headers["x-olla-routing-reason"] == "unknown_endpoint"


async def test_at_the_start_the_version_waits_for_hosts_and_health_does_not() -> None:
    async with front("a") as it:
        endpoints, it.fleet._endpoints = it.fleet.endpoints, ()
        assert it.begin("GET", "/olla/ollama/").status == 503
        taken = it.begin("GET", "/olla/ollama/api/version")
        await turns()
        assert not taken.status
        it.fleet._endpoints = endpoints
        it.settled.set()
        async with asyncio.timeout(DEADLINE_S):
            await taken.over.wait()
        assert set(taken.json["hosts"]) == {"a"}


@pytest.mark.parametrize(
    ("path", "body", "backend"),
    [
        ("/olla/ollama/v1/chat/completions", b"{", "ollama"),
        ("/olla/ollama/v1/messages", b"{", "ollama"),
        ("/olla/ollama/v1/messages/count_tokens", b"{", "ollama"),
        ("/olla/ollama/v1/chat/completions", b'{"model":"nobodys"}', "ollama"),
        ("/olla/openai/v1/chat/completions", b"{", "openai"),
        ("/olla/openai/v1/chat/completions", b'{"model":"nobodys"}', "openai"),
        ("/olla/proxy/api/chat", b"{", "ollama"),
    ],
)
async def test_a_refusal_names_the_type_of_servers_behind_its_path(path: str, body: bytes, backend: str) -> None:
    async with front("a", "b") as it:
        answer = await it.ask("POST", path, body)
        assert answer.status in (400, 404)
        assert answer.headers["x-olla-backend-type"] == backend


@pytest.mark.parametrize(
    ("method", "path", "body", "model"),
    [
        ("POST", "/olla/ollama/api/show", {"model": "nobodys"}, "nobodys"),
        ("GET", "/olla/ollama/v1/models/hf.co/some/body:q4", None, "hf.co/some/body:q4"),
        ("POST", "/olla/ollama/api/pull", {"name": "tiny"}, "tiny"),
        ("POST", "/olla/ollama/api/chat", {"model": "\u00e9", "messages": 7}, "?"),
        ("POST", "/olla/ollama/api/chat", {"messages": 7}, "none"),
        ("POST", "/olla/ollama/api/show", {"model": "m" * 2000}, "none"),
    ],
)
async def test_a_refusal_names_the_model_it_is_about(method: str, path: str, body: object, model: str) -> None:
    async with front("a") as it:
        headers = [("x-olla-endpoint", "nobody")] if path.endswith(("pull", "chat")) else []
        answer = await it.ask(method, path, body, headers=headers)
        assert answer.status in (400, 404)
        assert answer.headers["x-olla-model"] == model


async def test_a_model_that_a_key_may_not_use_is_named_in_the_refusal() -> None:
    async with front("a") as it:
        caller = Caller("127.0.0.1", "key k", "r-1", key="k", models=("other*",))
        answer = await it.ask("POST", "/olla/ollama/api/chat", {"model": "tiny"}, caller=caller)
        assert (answer.status, answer.headers["x-olla-model"]) == (403, "tiny")


@pytest.mark.parametrize("path", ["/olla", "/olla/x", "/internal/metrics", "/internal/ui/", "/version"])
def test_what_is_turned_away_from_our_own_paths_has_our_headers(path: str) -> None:
    told = turned_away(path, "r-1", ModelNotFound("no"))
    assert told is not None
    headers, _ = told
    assert dict(headers)[b"x-olla-request-id"] == b"r-1"
    assert turned_away("/api/chat", "r-1", ModelNotFound("no")) is None
    assert turned_away("/ollama", "r-1", ModelNotFound("no")) is None
