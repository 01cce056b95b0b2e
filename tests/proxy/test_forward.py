"""A request handed on: what reaches the host, what comes back, who gets it."""

from __future__ import annotations

import asyncio
import json

import pytest

from arena.exchange import Caller
from tests.fake_ollama import text_of
from tests.peer import Peer, answers, chunked, ok
from tests.proxy.front import HELLO, asked, front

pytestmark = pytest.mark.anyio

SEED_HEADERS = {"x-olla-request-id", "x-olla-endpoint", "x-olla-model", "x-olla-backend-type", "x-olla-response-time"}
ROUTING = {"x-olla-routing-strategy", "x-olla-routing-decision", "x-olla-routing-reason", "x-olla-sticky-session"}


def said(lines: list[dict[str, object]]) -> str:
    """The text of a native chat."""
    return "".join(line["message"]["content"] for line in lines)  # type: ignore[index]


async def test_a_stream_comes_back_as_it_was_with_what_it_cost() -> None:
    async with front("a", models=["fx-ok:n-5"]) as it:
        answer = await it.chat("fx-ok:n-5")
        assert (answer.status, answer.ended) == (200, True)
        assert said(answer.lines) == text_of(5)
        headers = answer.headers
        assert set(headers) >= SEED_HEADERS | ROUTING
        assert headers["x-olla-endpoint"] == "a"
        assert headers["x-olla-model"] == "fx-ok:n-5"
        assert headers["x-olla-backend-type"] == "ollama"
        assert headers["trailer"] == "X-Olla-Total-Time, Server-Timing"
        assert set(answer.trailers) == {"x-olla-total-time", "server-timing"}
        (entry,) = it.fleet.book.recent
        assert (entry.outcome, entry.prompt_tokens, entry.completion_tokens) == ("succeeded", 1, 5)
        assert entry.ttft_s is not None
        assert entry.route == "/olla/ollama/api/chat"
        totals = it.fleet.book.totals()
        sent = json.dumps({"model": "fx-ok:n-5", "messages": HELLO})
        assert (totals.sent_bytes, totals.received_bytes) == (len(sent), len(answer.body))


async def test_a_whole_answer_keeps_its_length_and_has_no_trailers() -> None:
    async with front("a") as it:
        answer = await it.chat("tiny", stream=False)
        assert answer.headers["content-length"] == str(len(answer.body))
        assert "trailer" not in answer.headers
        assert answer.trailers == {}
        (entry,) = it.fleet.book.recent
        assert entry.completion_tokens == 20
        assert (entry.ttft_s, it.fleet.book.totals().first.count) == (None, 0), "its first byte is no first token"


@pytest.mark.parametrize("usage", [True, False])
async def test_openai_streams_tell_their_usage_if_they_were_asked(usage: bool) -> None:
    async with front("a") as it:
        options = {"stream": True, "stream_options": {"include_usage": True}} if usage else {"stream": True}
        answer = await it.chat("tiny", "/olla/openai/v1/chat/completions", **options)
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert (b'"usage"' in answer.body) is usage
        assert it.fleet.book.recent[0].completion_tokens == 20
        assert it.fleet.book.recent[0].outcome == "succeeded"


async def test_every_completed_request_is_counted_with_its_tokens() -> None:
    async with front("a", "b", models=["tiny", "fx-slicer:k-1_n-3", "fx-keyorder:n-3", "fx-extra:n-3"]) as it:
        for model in ("fx-slicer:k-1_n-3", "fx-keyorder:n-3", "fx-extra:n-3"):
            for stream in (True, False):
                assert (await it.chat(model, stream=stream)).ended
        body = {"model": "tiny", "prompt": "Hello", "stream": True}
        assert (await it.ask("POST", "/olla/ollama/api/generate", body)).ended
        entries = it.fleet.book.recent
        assert [entry.outcome for entry in entries] == ["succeeded"] * 7
        assert [entry.completion_tokens for entry in entries] == [20, 3, 3, 3, 3, 3, 3]


# finding the host


async def test_names_are_found_as_ollama_finds_them() -> None:
    async with front(
        "a", "b", each={"a": ["tiny:latest"], "b": ["Other:1b"]}, aliases={"nice": ("gone", "Tiny")}
    ) as it:
        assert (await it.chat("tiny")).headers["x-olla-endpoint"] == "a"
        assert (await it.chat("OTHER:1B")).headers["x-olla-endpoint"] == "b"
        named = await it.chat("nice")
        assert named.headers["x-olla-endpoint"] == "a"
        assert named.headers["x-olla-model"] == "nice"
        assert named.headers["x-olla-resolved-model"] == "tiny:latest"
        sent = [record.body["model"] for server in (it["a"], it["b"]) for record in asked(server)]
        assert sent == ["tiny", "tiny:latest", "Other:1b"]


async def test_only_the_name_in_the_body_changes() -> None:
    async with front("a", each={"a": ["Big:1b"]}) as it:
        prompt = json.dumps('{"model": "x", "tools": [{"model":"keep"}]}')
        body = f'{{ "options":{{"model":"keep"}},\n "prompt":{prompt},  "model" : "big:1b" ,"stream":false}}'
        await it.ask("POST", "/olla/ollama/api/generate", body.encode())
        (record,) = asked(it["a"], "/api/generate")
        assert record.body == json.loads(body.replace("big:1b", "Big:1b"))
        assert record.headers["content-length"] == str(len(body))


async def test_embeddings_go_to_the_host_that_has_the_model() -> None:
    async with front("a", "b", each={"a": ["tiny"], "b": ["embedder"]}) as it:
        for _ in range(15):
            for path in ("/olla/ollama/api/embed", "/olla/proxy/api/embeddings", "/olla/openai/v1/embeddings"):
                answer = await it.ask("POST", path, {"model": "embedder", "input": "x", "prompt": "x"})
                assert (answer.status, answer.headers["x-olla-endpoint"]) == (200, "b")
        assert it["a"].log == []
        assert it.fleet.book.recent[-1].prompt_tokens == 1


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json"])
async def test_any_content_type_is_understood(kind: str) -> None:
    async with front("a", "b", each={"a": ["tiny"], "b": ["other"]}) as it:
        headers = [("Content-Type", kind)] if kind else []
        answer = await it.chat("other", headers=headers)
        assert answer.headers["x-olla-endpoint"] == "b"


async def test_a_form_is_understood_and_left_alone() -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--x\r\nrest\r\n--x--\r\n'
    script = answers(ok(b'{"text":"hi"}', "Content-Type: application/json"))
    async with Peer(script) as peer, front("a", urls={"p": peer.url}) as it:
        headers = [("Content-Type", "multipart/form-data; boundary=x"), ("X-Olla-Endpoint", "p")]
        answer = await it.ask("POST", "/olla/openai/v1/audio/transcriptions", form, headers=headers)
        assert (answer.status, answer.headers["x-olla-model"]) == (200, "whisper")
        assert peer.requests[-1].body == form


@pytest.mark.parametrize("path", ["images/generations", "audio/speech", "moderations"])
async def test_what_no_server_can_serve_is_final_what_one_could_is_not(path: str) -> None:
    """Clients of OpenAI's ask a 503 again and again, unless they are told that it is no use."""
    async with front("a") as it:
        answer = await it.ask("POST", f"/olla/openai/v1/{path}", {"model": "tiny", "prompt": "A cat"})
        assert (answer.status, answer.headers.get("x-should-retry")) == (503, "false")
        assert "retry-after" not in answer.headers
        assert answer.json["error"]["code"] == "no_endpoint"
        assert "Only an endpoint of type openai can serve this, and there is none" in answer.json["error"]["message"]
    async with Peer(answers(ok(b"{}"))) as peer:
        url = peer.url
    async with front("a", urls={"down": url}) as it:
        answer = await it.ask("POST", f"/olla/openai/v1/{path}", {"model": "tiny", "prompt": "A cat"})
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "x-should-retry" not in answer.headers


async def test_a_model_pulled_behind_our_back_is_found_after_one_question() -> None:
    async with front("a", "b") as it:
        it["b"].add_model("fresh")
        assert (await it.chat("fresh")).headers["x-olla-endpoint"] == "b"


async def test_nobody_has_the_model() -> None:
    async with front("a", "b") as it:
        for path in ("/olla/ollama/api/chat", "/olla/openai/v1/chat/completions", "/olla/anthropic/v1/messages"):
            answer = await it.chat("nobody", path)
            assert answer.status == 404
            error = answer.json["error"]
            assert "nobody" in (error["message"] if "/v1/" in path else error)
            assert set(answer.headers) >= SEED_HEADERS | ROUTING
            assert answer.headers["x-olla-routing-decision"] == "rejected"
            assert answer.headers["x-olla-routing-reason"] == "model_not_found"


@pytest.mark.parametrize(
    "odd",
    [
        b'"x":' + b"1" * 5000 + b"}",
        b'"x":%b%b}' % (b"[" * 990, b"]" * 990),
        b'"x":1,' * 1000 + b'"x":1}',
        b'\r\n--b\r\nname="model"\r\n\r\nbig:1b\r\n',
    ],
    ids=["a long number", "deep", "many keys", "half a form"],
)
async def test_a_body_that_cannot_be_respelled_is_refused_and_holds_nothing(odd: bytes) -> None:
    async with front("a", each={"a": ["Big:1b"]}) as it:
        form = [("Content-Type", "multipart/form-data; boundary=b")] if odd.endswith(b"\n") else []
        answer = await it.ask("POST", "/olla/ollama/api/generate", b'{"model":"big:1b",' + odd, headers=form)
        assert (answer.status, asked(it["a"])) == (400, [])


async def test_a_model_that_only_dead_hosts_have_is_unavailable() -> None:
    async with front("a", "b", each={"a": ["big"], "b": ["tiny"]}) as it:
        it["a"].state(accept="refuse")
        assert (await it.chat("big")).status == 502, "who would have thought it"
        for path in ("/olla/ollama/api/chat", "/olla/openai/v1/chat/completions"):
            answer = await it.chat("big", path)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.headers["x-olla-routing-decision"] == "rejected"
            assert answer.headers["x-olla-routing-reason"] == "model_unavailable"
            assert (answer.headers["x-olla-endpoint"], answer.headers["x-olla-tried"]) == ("none", "a")
            assert "down" in str(answer.json["error"])
        it["a"].state(accept="normal")
        assert (await it.chat("big")).status == 200, "the least bad one is tried all the same"


async def test_where_nobody_answers_nobody_can_say_what_there_is() -> None:
    async with front("a", "b") as it:
        for name in "ab":
            it[name].state(accept="refuse")
        for _ in range(2):
            answer = await it.chat("nobody")
            assert (answer.status, answer.json["code"]) == (503, "model_unavailable")
        for name in "ab":
            it[name].state(accept="normal")


async def test_a_host_is_pinned_by_name_and_a_key_sees_its_models_only() -> None:
    async with front("a", "b") as it:
        for name in ("b", "b", "a"):
            assert (await it.chat("tiny", headers=[("X-Olla-Endpoint", name)])).headers["x-olla-endpoint"] == name
        assert (await it.chat("tiny", headers=[("X-Olla-Endpoint", "c")])).status == 400
        caller = Caller("127.0.0.1", "k", "r-1", key="team", models=("other*",))
        refused = await it.ask("POST", "/olla/ollama/api/chat", {"model": "tiny", "messages": HELLO}, caller=caller)
        assert (refused.status, refused.json["code"]) == (403, "model_not_allowed")
        assert "it may use: other*" in refused.json["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model":"other","messages":[]}', 200),
        (b'{"model":"other","Model":"tiny","messages":[]}', 400),
        (b'{"name":"other","MODEL":"tiny","messages":[]}', 400),
        (b'{"model":"other","\\u004dodel":"tiny","messages":[]}', 400),
        (b'--b\r\nA: name="model"\r\n\r\nother\r\n--b\r\nA: name=model\r\n\r\ntiny\r\n--b--\r\n', 400),
        (b"--b\r\nA: name=\"model\"\r\n\r\nother\r\n--b\r\nA: name*=utf-8''mode%6c\r\n\r\ntiny\r\n--b--\r\n", 400),
        (b'--b\r\nA: name="model"\r\n\r\nother\r\n--b\r\nA: name*0=mo; name*1=del\r\n\r\ntiny\r\n--b--\r\n', 400),
        (b'--b\r\nA: filename="model"\r\n\r\nother\r\n--b\r\nA: name="model"\r\n\r\ntiny\r\n--b--\r\n', 403),
    ],
)
async def test_a_key_for_some_models_cannot_name_another_beside_one_of_them(body: bytes, status: int) -> None:
    async with front("a", models=["tiny", "other"]) as it:
        caller = Caller("127.0.0.1", "k", "r-1", key="team", models=("other*",))
        kind = [("Content-Type", "multipart/form-data; boundary=b")] if body.startswith(b"--") else []
        answer = await it.ask("POST", "/olla/ollama/api/chat", body, headers=kind, caller=caller)
        assert answer.status == status
        assert len(asked(it["a"])) == (status == 200)


async def test_at_the_very_start_a_request_waits_until_it_is_known_who_answers() -> None:
    async with front("a") as it:
        endpoints = it.fleet.endpoints
        it.fleet._endpoints = ()
        answer, listed = it.begin_chat("tiny", stream=False), it.begin("GET", "/olla/ollama/api/tags")
        assert (await it.ask("GET", "/olla/ollama/")).status == 503
        assert (answer.status, listed.status) == (0, 0)
        it.fleet._endpoints = endpoints
        it.settled.set()
        await answer.over.wait()
        assert answer.status == 200
        await listed.over.wait()
        assert [entry["name"] for entry in listed.json["models"]] == ["tiny:latest"]


# headers


async def test_what_a_host_gets_to_see_of_a_request() -> None:
    secret = [
        ("Authorization", "Bearer ours"), ("Cookie", "session=ours"), ("X-Api-Key", "ours"), ("X-Auth-Token", "ours"),
        ("Proxy-Authorization", "ours"), ("Origin", "http://arena.example"), ("Forwarded", "for=6.6.6.6"),
        ("X-Real-IP", "6.6.6.6"), ("X-Forwarded-Host", "evil"), ("X-Olla-Request-ID", "forged"), ("TE", "trailers"),
        ("X-Request-ID", "unsound; one"),
        ("Connection", "keep-alive, X-Hop"), ("X-Hop", "one hop only"), ("X-Olla-Endpoint", "a"),
    ]  # fmt: skip
    passed = [("User-Agent", "me/1"), ("X-Forwarded-For", "6.6.6.6"), ("Via", "1.0 old")]
    auth = {"a": {"headers": (("X-Site", "7"),)}}
    async with front("a", specs=auth) as it:
        caller = Caller("9.9.9.9", "9.9.9.9", "r-77", https=True)
        body = {"model": "tiny", "messages": HELLO, "stream": False}
        await it.ask("POST", "/olla/ollama/api/chat", body, headers=[*secret, *passed], caller=caller)
        (record,) = asked(it["a"])
        headers = dict(record.headers)
        assert len(headers) == len(record.raw_headers), "a header came twice"
        assert headers.pop("host") == it["a"].url.removeprefix("http://")
        assert headers == {
            "user-agent": "me/1",
            "x-request-id": "r-77",
            "x-site": "7",
            "accept-encoding": "identity",
            "content-length": str(len(json.dumps(body))),
            "x-forwarded-for": "6.6.6.6, 9.9.9.9",
            "x-forwarded-host": "arena.example:7860",
            "x-forwarded-proto": "https",
            "x-olla-request-id": "r-77",
            "via": "1.0 old, 1.1 ollama-arena",
        }


async def test_what_a_client_gets_to_see_of_an_answer() -> None:
    async with front("a", models=["fx-evil-headers:n-2"]) as it:
        answer = await it.chat("fx-evil-headers:n-2")
        headers = answer.headers
        assert headers["x-olla-endpoint"] == "a"
        assert headers["server"] == "fake"
        for name in ("set-cookie", "x-hop", "connection", "location", "clear-site-data", "proxy-authenticate"):
            assert name not in headers


async def test_a_content_coding_passes_untouched() -> None:
    packed = b"\x1f\x8b not really gzip"
    wire = ok(packed, "Content-Type: application/json", "Content-Encoding: gzip", "X-Fine: yes")
    async with Peer(answers(wire)) as peer, front(urls={"p": peer.url}) as it:
        sent = [("X-Olla-Endpoint", "p"), ("Accept-Encoding", "gzip")]
        answer = await it.chat("any", "/olla/proxy/v1/chat/completions", headers=sent)
        assert answer.body == packed
        assert (answer.headers["content-encoding"], answer.headers["x-fine"]) == ("gzip", "yes")
        assert b"Accept-Encoding: gzip\r\n" in peer.requests[-1].head
        assert answer.headers["x-olla-backend-type"] == "openai"


async def test_the_query_goes_along() -> None:
    async with front("a") as it:
        await it.ask("POST", "/olla/ollama/api/embed", {"model": "tiny", "input": "x"}, query=b"a=1&b=%20")
        assert it["a"].log[-1].path == "/api/embed?a=1&b=%20"


# refusals


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "missing"),
        (b"{", "JSON"),
        (b'{"model":"tiny"} x', "JSON"),
        (b"[1]", "object"),
        (b"{}", "required"),
        (b'{"model":7}', "string"),
        (b'{"model":"tin\\u0000y"}', "name"),
        (b'{"model":"' + b"x" * 2000 + b'"}', "name"),
        (b"[" * 100_000, "JSON"),
    ],
)
async def test_what_no_host_could_answer_is_refused(body: bytes, word: str) -> None:
    async with front("a") as it:
        answer = await it.ask("POST", "/olla/ollama/api/chat", body)
        assert answer.status == 400
        assert word in answer.json["error"]
        assert set(answer.headers) >= SEED_HEADERS | ROUTING
        assert it["a"].log == []


async def test_keys_in_another_case_and_the_old_name_are_understood() -> None:
    async with front("a", "b", each={"a": ["tiny"], "b": ["other"]}) as it:
        for key in ("Model", "name", "NAME"):
            answer = await it.ask("POST", "/olla/ollama/api/embed", {key: "other", "input": "x"})
            assert answer.headers["x-olla-endpoint"] == "b"


# pace


async def test_a_slow_client_slows_the_host_and_nothing_piles_up() -> None:
    async with front("a", models=["fx-endless:size-2000"]) as it:
        answer = it.begin_chat("fx-endless:size-2000")
        await answer.until(b"\n")
        assert answer.session is not None
        answer.session.pause()
        await it["a"].until(lambda: asked(it["a"])[0].bytes_out > 100_000, 5, "the host has run into the wall")
        await asyncio.sleep(0)
        held = len(answer.body)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(answer.body) == held
        answer.session.resume()
        answer.news.clear()
        await answer.news.wait()
        answer.session.left()
        await it["a"].closed(1)


async def test_a_client_that_leaves_frees_the_host_at_once_and_counts_for_nothing() -> None:
    async with front("a", "b", models=["tiny", "fx-hang", "fx-stall:n-2"]) as it:
        for number in range(1, 6):
            for name, model in (("a", "fx-hang"), ("b", "fx-stall:n-2")):
                answer = it.begin_chat(model, headers=[("X-Olla-Endpoint", name)])
                await it[name].arrived(number)
                assert answer.session is not None
                answer.session.left()
                await it[name].closed(number)
        assert [endpoint.breaker.failures for endpoint in it.fleet.endpoints] == [0, 0]
        assert [endpoint.health.state for endpoint in it.fleet.endpoints] == ["healthy", "healthy"]
        assert {entry.outcome for entry in it.fleet.book.recent} == {"left"}
        assert (await it.chat("tiny")).status == 200


async def test_a_client_that_leaves_while_it_waits_for_a_place() -> None:
    async with front("a", models=["tiny", "fx-hang"], specs={"a": {"max_in_flight": 1}}) as it:
        first, second = it.begin_chat("fx-hang"), it.begin_chat("tiny")
        await it["a"].arrived(1)
        assert it.fleet.queue.waiting == 1
        assert second.session is not None
        second.session.left()
        await asyncio.sleep(0)
        assert it.fleet.queue.waiting == 0
        third = it.begin_chat("tiny", stream=False)
        await asyncio.sleep(0)
        assert first.session is not None
        first.session.left()
        await third.over.wait()
        assert third.status == 200
        assert third.headers["x-olla-queue-position"] == "1"
        assert third.headers["server-timing"].startswith("queue;dur=")


async def test_when_the_server_stops_every_answer_ends_in_words() -> None:
    async with front("a", models=["fx-hang", "fx-stall:n-2"]) as it:
        waiting, streaming = it.begin_chat("fx-hang"), it.begin_chat("fx-stall:n-2")
        await streaming.until(b"\n")
        listing = it.begin("GET", "/olla/ollama/api/tags")
        it.proxy.drain()
        assert (waiting.status, waiting.json["code"]) == (503, "server_shutting_down")
        last = streaming.lines[-1]
        assert (last["code"], last["done"], streaming.cut) == ("server_shutting_down", True, True)
        assert listing.status == 503
        await asyncio.sleep(0)


async def test_a_fault_of_ours_holds_no_place_and_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    async with front("a", "b") as it:
        with monkeypatch.context() as patched:
            patched.setattr("arena.wire.Pool.forward", bug)
            with pytest.raises(ZeroDivisionError):
                it.begin_chat("tiny")
        assert it.clean
        monkeypatch.setattr(it.fleet, "lease", bug)
        answer = await it.chat("nobody")
        assert (answer.status, answer.json["code"]) == (500, "internal")

        async def cancelled(*_: object) -> None:
            raise asyncio.CancelledError

        monkeypatch.setattr(it.fleet, "lease", cancelled)
        answer = await it.chat("nobody")
        assert (answer.status, answer.json["code"]) == (503, "server_shutting_down")
    assert "ZeroDivisionError" in caplog.text


async def test_one_connection_serves_many_requests() -> None:
    async with front("a") as it:
        for _ in range(10):
            assert (await it.chat("tiny")).ended
        assert len({record.connection for record in asked(it["a"])}) == 1


async def test_anthropic_messages_pass_through() -> None:
    events = (
        b'event: message_start\ndata: {"message":{"usage":{"input_tokens":11,"output_tokens":1}}}\n\n',
        b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":7}}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    )
    wire = chunked(*events).replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n", 1)
    async with Peer(answers(wire)) as peer, front(urls={"p": peer.url}) as it:
        answer = await it.chat("any", "/olla/anthropic/v1/messages", headers=[("anthropic-version", "2023-06-01")])
        assert answer.body == b"".join(events)
        assert answer.headers["x-olla-mode"] == "passthrough"
        assert peer.requests[-1].line == "POST /v1/messages HTTP/1.1"
        assert b"anthropic-version: 2023-06-01" in peer.requests[-1].head
        entry = it.fleet.book.recent[0]
        assert (entry.prompt_tokens, entry.completion_tokens) == (11, 7)


async def test_a_host_with_neither_messages_nor_chat_is_told_of_in_anthropics_form() -> None:
    async with front("a") as it:
        it["a"].state(routes={"/v1/chat/completions": "fx-status:c-404_kind-text"})
        answer = await it.chat("tiny", "/olla/anthropic/v1/messages", max_tokens=9)
        assert answer.status == 404
        assert answer.json["type"] == "error"
        assert answer.json["error"]["type"] == "not_found_error"


async def test_a_host_that_says_nothing_of_a_body_is_not_taken_for_an_end() -> None:
    async with Peer(answers(b"HTTP/1.1 204 No Content\r\n\r\n")) as peer, front(urls={"p": peer.url}) as it:
        answer = await it.chat("any", "/olla/proxy/v1/chat/completions", headers=[("X-Olla-Endpoint", "p")])
        assert (answer.status, answer.body, answer.ended) == (204, b"", True)


async def test_how_a_host_was_found_is_told_in_ollas_words() -> None:
    each = {"a": ["tiny", "fx-status:c-503"], "b": ["tiny"]}
    async with front("a", "b", each=each, aliases={"nice": ("tiny",)}, strategy="round-robin") as it:

        async def told(model: str, **headers: str) -> tuple[str, ...]:
            answer = await it.chat(model, headers=headers.items())
            return tuple(answer.headers[f"x-olla-routing-{word}"] for word in ("strategy", "decision", "reason"))

        assert await told("tiny") == ("strict", "routed", "model_found")
        assert await told("nice") == ("alias", "routed", "model_found")
        assert await told("tiny", **{"X-Olla-Endpoint": "b"}) == ("strict", "routed", "endpoint_named")
        assert await told("nobody-has-it") == ("strict", "rejected", "model_not_found")
        it.fleet.endpoint("a").health.refused()
        assert await told("fx-status:c-503") == ("optimistic", "fallback", "all_unhealthy_fallback")
    async with front("a") as it:
        answer = await it.chat("unlisted")
        assert answer.headers["x-olla-routing-strategy"] == "optimistic"  # the only host says itself that it has it not


@pytest.mark.parametrize(
    "path",
    [
        "/olla/ollama/api/chat",
        "/olla/proxy/api/generate",
        "/olla/openai/v1/chat/completions",
        "/olla/anthropic/v1/messages",
    ],
)
async def test_a_host_that_is_none_is_the_clients_mistake(path: str) -> None:
    async with front("a", "b") as it:
        answer = await it.chat("tiny", path, headers=[("X-Olla-Endpoint", "nope")])
        assert answer.status == 400
        assert b"there are a, b" in answer.body
        assert it["a"].log == it["b"].log == []


async def test_a_host_is_told_what_a_trusted_proxy_was_asked_for() -> None:
    async with front("a") as it:
        for host in (b"ai.example.org", b""):
            caller = Caller("9.9.9.9", "9.9.9.9", "r-7", peer="10.0.0.1", forwarded_host=host)
            headers = [("X-Forwarded-Host", "ai.example.org")]
            await it.ask("POST", "/olla/ollama/api/chat", {"model": "tiny"}, headers=headers, caller=caller)
        told = [dict(record.headers)["x-forwarded-host"] for record in asked(it["a"])]
        assert told == ["ai.example.org", "arena.example:7860"]
