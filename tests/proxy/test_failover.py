"""A host that fails before its answer begins, and who answers instead."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest

from arena.fleet import QueueSpec, Wanted
from arena.wire import Pool, Timeouts
from arena.wire.connection import Connection
from tests.peer import DEADLINE_S, Guest, Peer, answers, ok
from tests.proxy.front import CHAT, HELLO, asked, front

pytestmark = pytest.mark.anyio

SHORT = Timeouts(connect_s=1, first_byte_s=0.2, idle_s=0.2)
IMPATIENT = {"a": {"timeouts": SHORT}}
"""Only of the host that fails, lest a busy machine makes a sound one late."""
BEFORE = {
    "status 503": "fx-status:c-503",
    "status 502": "fx-status:c-502",
    "status 504": "fx-status:c-504",
    "status 429": "fx-status:c-429_ra-7",
    "gone meanwhile": "fx-status:c-404",
    "too old": "fx-status:c-404_kind-text",
    "closed before the head": "fx-eof0",
    "reset before the head": "fx-rst0",
    "reset in the head": "fx-rst-head",
    "closed after the head": "fx-empty200",
    "silent": "fx-hang",
    "silent in the head": "fx-halfhead",
    "no http": "fx-http09",
    "a head without end": "fx-bighead",
    "a sign-in page": "fx-html",
    "a redirect": "fx-redirect",
}


@pytest.mark.parametrize("model", BEFORE.values(), ids=BEFORE.keys())
@pytest.mark.parametrize("path", [CHAT, "/olla/openai/v1/chat/completions"])
async def test_a_peer_answers_instead(model: str, path: str) -> None:
    async with front("a", "b", models=["tiny"], specs=IMPATIENT, strategy="round-robin") as it:
        it["a"].state(routes={"/api/chat": model, "/v1/chat/completions": model})
        answer = await it.chat("tiny", path, stream=True)
        assert (answer.status, answer.ended) == (200, True)
        assert answer.headers["x-olla-endpoint"] == "b"
        assert answer.headers["x-olla-tried"] == "a"
        entries = it.fleet.book.recent
        assert [(entry.endpoint, entry.outcome) for entry in entries] == [("b", "succeeded"), ("a", "failed")]
        assert it["a"].canary_hits == []


@pytest.mark.parametrize("accept", ["refuse", "eof", "rst", "blackhole"])
async def test_a_peer_answers_for_a_host_that_is_gone(accept: str) -> None:
    async with front("a", "b", specs=IMPATIENT, strategy="round-robin") as it:
        it["a"].state(accept="refuse")
        it["a"].state(accept=accept)
        for _ in range(4):
            answer = await it.chat("tiny")
            assert (answer.status, answer.headers["x-olla-endpoint"]) == (200, "b")
        it["a"].state(accept="normal")


async def test_one_of_two_hosts_answers_503_at_once() -> None:
    """The measure of a proxy: of 200 requests, 16 at a time, at least 199 succeed."""
    async with front("a", "b") as it:
        it["a"].state(queue_full=True)
        gate = asyncio.Semaphore(16)

        async def one() -> int:
            async with gate:
                return (await it.chat("tiny", stream=False)).status

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one()) for _ in range(200)]
        statuses = [task.result() for task in tasks]
        assert statuses.count(200) >= 199


async def test_every_host_is_tried_once_and_the_last_answer_passes_as_it_is() -> None:
    async with front("a", "b", "c", strategy="round-robin") as it:
        for name in "abc":
            it[name].state(routes={"/api/chat": f"fx-status:c-503_ra-{ord(name)}"})
        answer = await it.chat("tiny")
        assert (answer.status, answer.json) == (
            503,
            {"error": "server busy, please try again.  maximum pending requests exceeded"},
        )
        assert answer.headers["x-olla-tried"] == "a, b"
        assert answer.headers["x-olla-endpoint"] == "c"
        assert answer.headers["retry-after"] == str(ord("c"))
        assert [len(asked(it[name])) for name in "abc"] == [1, 1, 1]


async def test_nobody_is_asked_any_more_when_the_time_for_all_of_it_is_over() -> None:
    limits = Timeouts(connect_s=1, first_byte_s=0.2, idle_s=0.2, total_s=0.3)
    async with front(*"abcd", limits=limits, strategy="priority") as it:
        for name in "abcd":
            it[name].state(routes={"/api/chat": "fx-hang"})
        answer = await it.chat("tiny")
        assert answer.status == 504
        assert 1 <= len(answer.headers["x-olla-tried"].split(", ")) <= 2


async def test_a_host_that_asks_for_a_rest_gets_it() -> None:
    async with front("a", "b", strategy="round-robin") as it:
        it["a"].state(routes={"/api/chat": "fx-status:c-429_ra-60"})
        for _ in range(6):
            assert (await it.chat("tiny")).status == 200
        assert len(asked(it["a"])) == 1


@pytest.mark.parametrize(("said", "told"), [("86400", "300"), ("-5", None), ("Wed, 21 Oct 2015 07:28:00 GMT", None)])
async def test_an_absurd_retry_after_reaches_nobody(said: str, told: str | None) -> None:
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: %b\r\nContent-Length: 2\r\n\r\nno" % said.encode()
    async with Peer(answers(busy)) as peer, front(urls={"a": peer.url}) as it:
        answer = await it.chat("any", "/olla/openai/v1/chat/completions")
        assert (answer.status, answer.headers.get("retry-after")) == (503, told)
        rests = it.fleet.endpoint("a").rests
        assert rests == {} if told is None else 0 < rests[""] <= 300


async def test_a_machine_without_connections_to_give_holds_it_against_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with front("a", "b") as it:
        with monkeypatch.context() as patch:
            patch.setattr(Pool, "_open", none)
            patch.setattr(Connection, "usable", False)  # those that are open already
            answer = await it.chat("tiny")
        assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, "no_more_connections", "1")
        assert [(host.state, host.breaker.failures) for host in it.fleet.endpoints] == [("healthy", 0)] * 2
        assert (await it.chat("tiny")).status == 200


async def test_when_all_fail_the_client_learns_who_was_tried() -> None:
    async with front("a", "b", strategy="round-robin") as it:
        for name in "ab":
            it[name].state(accept="refuse")
        answer = await it.chat("tiny")
        assert (answer.status, answer.json["code"]) == (502, "backend_unreachable")
        assert answer.json["tried"] == ["a", "b"]
        assert answer.headers["x-olla-tried"] == "a, b"
        assert answer.headers["x-olla-endpoint"] == "b"
        for name in "ab":
            it[name].state(accept="normal")


async def test_a_request_for_one_host_goes_to_no_other() -> None:
    async with front("a", "b") as it:
        it["a"].state(routes={"/api/chat": "fx-status:c-503"})
        answer = await it.chat("tiny", headers=[("X-Olla-Endpoint", "a")])
        assert (answer.status, asked(it["b"])) == (503, [])


@pytest.mark.parametrize("status", [400, 401, 403, 500])
async def test_other_refusals_pass_as_they_are(status: int) -> None:
    async with front("a", "b", strategy="round-robin") as it:
        it["a"].state(routes={"/api/chat": f"fx-status:c-{status}"})
        answer = await it.chat("tiny")
        assert (answer.status, answer.headers["x-olla-endpoint"]) == (status, "a")
        assert "error" in answer.json
        assert it.fleet.endpoint("a").breaker.failures == 0


async def test_while_the_peer_is_full_the_request_waits_for_its_place() -> None:
    held = {"a": ["tiny"], "b": ["tiny", "fx-gate:n-1"]}
    async with front("a", "b", each=held, strategy="round-robin", specs={"b": {"max_in_flight": 1}}) as it:
        busy = it.begin_chat("fx-gate:n-1")
        await it["b"].arrived(1)
        it["a"].state(routes={"/api/chat": "fx-status:c-503"})
        answer = it.begin_chat("tiny", stream=False)
        await it["a"].arrived(1)
        while not it.fleet.queue.waiting:  # noqa: ASYNC110 - the refusal is on its way through this loop
            await asyncio.sleep(0)
        it["b"].release(1)
        await busy.over.wait()
        await answer.over.wait()
        assert (answer.status, answer.headers["x-olla-endpoint"]) == (200, "b")
        assert answer.headers["x-olla-tried"] == "a"


async def test_a_queue_without_end_has_one() -> None:
    specs = {"a": {"max_in_flight": 1}}
    async with front("a", models=["tiny", "fx-hang"], specs=specs, queue=QueueSpec(max_waiting=0)) as it:
        busy = it.begin_chat("fx-hang")
        await it["a"].arrived(1)
        answer = await it.chat("tiny", "/olla/ollama/v1/chat/completions")
        assert (answer.status, answer.json["error"]["code"]) == (503, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
        assert busy.session is not None
        busy.session.left()


async def test_the_name_is_spelled_for_each_host_anew() -> None:
    held = {"a": ["Tiny:latest"], "b": ["other:1b"]}
    async with front("a", "b", each=held, strategy="round-robin", aliases={"nice": ("tiny", "other:1b")}) as it:
        it["a"].state(queue_full=True)
        answer = await it.chat("nice")
        assert (answer.status, answer.headers["x-olla-endpoint"]) == (200, "b")
        assert asked(it["b"])[0].body == {"model": "other:1b", "messages": HELLO}
        assert asked(it["a"])[0].body["model"] == "Tiny:latest"


async def test_an_openai_server_gets_its_own_spelling() -> None:
    listing = b'{"object":"list","data":[{"id":"Org/Model","object":"model"}]}'

    async def script(guest: Guest) -> None:
        while True:
            request = await guest.request()
            listed = request.line.startswith("GET")
            await guest.say(ok(listing if listed else b"{}", "Content-Type: application/json"))

    async with Peer(script) as peer, front("a", urls={"p": peer.url}) as it:
        answer = await it.chat("org/model", "/olla/openai/v1/chat/completions")
        assert answer.headers["x-olla-endpoint"] == "p"
        assert b'"Org/Model"' in peer.requests[-1].body


async def test_a_connection_that_died_between_two_requests_is_no_failure() -> None:
    async with front("a", models=["fx-staleka"]) as it:
        for _ in range(3):
            assert (await it.chat("fx-staleka", stream=False)).status == 200
        assert {entry.outcome for entry in it.fleet.book.recent} == {"succeeded"}


async def test_a_refusal_leaves_the_connection_for_others() -> None:
    busy = answers(ok(b"{}").replace(b"200 OK", b"503 Busy"))
    async with Peer(busy) as peer, front("a", urls={"p": peer.url}, strategy="round-robin") as it:
        for _ in range(3):
            await it.chat("tiny", "/olla/proxy/v1/chat/completions", headers=[("X-Olla-Endpoint", "p")])
        assert it.fleet.endpoint("p").pool.open_connections == 1


async def test_a_fault_of_ours_on_the_way_to_another_host_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with front("a", "b", models=["fx-status:c-503"], strategy="round-robin") as it:

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(it.fleet.endpoint("b").pool, "forward", broken)
        faults = heard(monkeypatch)
        answer = await it.chat("fx-status:c-503")
        assert (answer.status, answer.ended) == (500, True)
        assert b"bug" not in answer.body
        assert [str(fault["exception"]) for fault in faults] == ["a bug"]


def heard(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the loop is told of callbacks that fail, from now on."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_exception_handler", told.append)
    return told


WHOLE: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HELLO, "stream": False},
    "/olla/ollama/api/generate": {"prompt": "Hello!", "stream": False},
    "/olla/ollama/api/embed": {"input": "Hello!"},
    "/olla/proxy/v1/chat/completions": {"messages": HELLO},
    "/olla/openai/v1/completions": {"prompt": "Hello!", "stream": None},
}


@pytest.mark.parametrize("path", WHOLE)
async def test_an_answer_that_comes_as_a_whole_may_take_long(path: str) -> None:
    """Its head comes when all is generated: nobody else begins it anew, and it is nobody's failure."""
    limits = Timeouts(connect_s=2, first_byte_s=0.05, idle_s=5)
    target = path[path.index("/", len("/olla/")) :]
    async with front("a", "b", models=["tiny"], limits=limits) as it:
        for name in "ab":
            it[name].state(routes={target: "fx-load:load-300"})
        answer = await it.ask("POST", path, {"model": "tiny", **WHOLE[path]})
        assert (answer.status, answer.ended) == (200, True)
        assert "x-olla-tried" not in answer.headers
        assert [entry.outcome for entry in it.fleet.book.recent] == ["succeeded"]
        assert sum(len(asked(it[name], target)) for name in "ab") == 1


async def test_a_host_that_is_known_to_be_down_is_not_waited_for() -> None:
    async with front("a", "b", models=["tiny"], limits=SHORT, strategy="round-robin") as it:
        it["a"].state(routes={"/api/chat": "fx-hang"})
        it.fleet.endpoint("a").health.refused()
        it.fleet.endpoint("b").draining = True
        answer = await it.chat("tiny", stream=False)
        assert (answer.status, answer.json["code"]) == (504, "timeout")


BRIEFLY: dict[str, Any] = {"check_timeout_s": 0.05, "down_after": 1}


@pytest.mark.parametrize("streamed", [True, False], ids=["a stream", "a whole answer"])
async def test_a_peer_answers_for_a_host_that_froze_meanwhile(streamed: bool) -> None:
    """Its system still takes connections: only the checks know, long before a model's time to load is over."""
    async with front("a", "b", strategy="priority", specs={"a": {**BRIEFLY, "priority": 200}}) as it:
        it["a"].state(routes={"/api/chat": "fx-hang"})
        answer = it.begin_chat("tiny", stream=streamed)
        await it["a"].arrived(1)
        it["a"].state(delay_ms=60_000)
        await it.fleet.endpoint("a").probe()
        async with asyncio.timeout(DEADLINE_S):
            await answer.over.wait()
        assert (answer.status, answer.headers["x-olla-endpoint"], answer.headers["x-olla-tried"]) == (200, "b", "a")
        assert it.fleet.endpoint("a").breaker.failures == 1


@pytest.mark.parametrize("others", ["", "no model", "no place", "not asked"])
async def test_a_frozen_host_is_waited_for_where_nobody_else_can_answer(others: str) -> None:
    """It may but swap while it loads: it answers when it is back."""
    have = {"b": ("other",)} if others == "no model" else {}
    limit = {"max_in_flight": 1 if others == "no place" else None}
    specs = {"a": {**BRIEFLY, "priority": 200}, "b": limit}
    async with front(*("ab" if others else "a"), each=have, strategy="priority", specs=specs) as it:
        other = it.fleet.try_lease(Wanted("tiny", endpoint="b")) if others == "no place" else None
        it["a"].state(routes={"/api/chat": "fx-gate"})
        headers = [("X-Olla-Endpoint", "a")] if others == "not asked" else []
        answer = it.begin_chat("tiny", stream=False, headers=headers)
        await it["a"].arrived(1)
        it["a"].state(delay_ms=60_000)
        await it.fleet.endpoint("a").probe()
        assert it.fleet.endpoint("a").state == "unhealthy"
        it["a"].release(n=99)
        async with asyncio.timeout(DEADLINE_S):
            await answer.over.wait()
        assert (answer.status, answer.headers["x-olla-endpoint"]) == (200, "a")
        if other is not None:
            other.close()


async def test_a_host_that_loads_a_model_and_tells_its_version_has_its_whole_time() -> None:
    spec = {"priority": 200, "check_timeout_s": 0.5, "down_after": 1}
    async with front("a", "b", strategy="priority", specs={"a": spec}) as it:
        it["a"].state(routes={"/api/chat": "fx-gate", "/api/ps": "fx-hang", "/api/tags": "fx-hang"})
        answer = it.begin_chat("tiny", stream=False)
        await it["a"].arrived(1)
        await it.fleet.endpoint("a").probe()
        assert (it.fleet.endpoint("a").state, answer.status) == ("unhealthy", 0)
        it["a"].release(n=99)
        async with asyncio.timeout(DEADLINE_S):
            await answer.over.wait()
        assert (answer.status, answer.headers["x-olla-endpoint"]) == (200, "a")


async def test_a_whole_answer_ends_with_the_limit_of_all_of_it() -> None:
    limits = Timeouts(connect_s=2, first_byte_s=0.05, idle_s=5, total_s=0.2)
    async with front("a", "b", models=["tiny"], limits=limits) as it:
        for name in "ab":
            it[name].state(routes={"/api/chat": "fx-hang"})
        answer = await it.chat("tiny", stream=False)
        assert (answer.status, answer.json["code"]) == (504, "total_timeout")
        (entry,) = it.fleet.book.recent
        assert entry.error == "total_timeout"
        assert it.fleet.endpoint(entry.endpoint).breaker.calm
