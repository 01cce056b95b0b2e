"""The fake's state, log, waits and control plane; the routes besides chat; the three ways of running it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from arena.settings import load
from tests.fake_ollama import DEFAULT_MODELS, FakeOllama, Late, RunningFake, running_fake, text_of
from tests.fake_ollama.raw import Answer, ask, ask_chat, chat, connect, depart, exchange, request
from tests.outside import OutsideConnection, is_local

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


# facts and lists


async def test_liveness_version_and_plain_text_errors(fake: FakeOllama) -> None:
    root = await ask(fake, "GET", "/")
    assert (root.status, root.body) == (200, b"Ollama is running")
    head = await ask(fake, "HEAD", "/api/tags")
    assert (head.status, head.framed, int(head.headers["content-length"]) > 100) == (200, b"", True)
    assert (await ask(fake, "GET", "/api/version")).json == {"version": "0.32.15"}
    for method, path, status, text in (
        ("GET", "/api/nope", 404, b"404 page not found"),
        ("GET", "/api/chat", 405, b"405 method not allowed"),
        ("DELETE", "/api/blobs/sha256:aa", 405, b"405 method not allowed"),
    ):
        answer = await ask(fake, method, path)
        assert (answer.status, answer.body, answer.headers["content-type"][:10]) == (status, text, "text/plain")
    assert (await ask(fake, "POST", "/api/blobs/sha256:aa", b"GGUF")).status == 404
    assert fake.log[-1].body == b"GGUF"


async def test_tags_have_ollamas_shape(fake: FakeOllama) -> None:
    models = (await ask(fake, "GET", "/api/tags")).json["models"]
    assert [model["name"] for model in models] == list(DEFAULT_MODELS)
    item = models[2]
    assert set(item) == {"name", "model", "modified_at", "size", "digest", "details", "capabilities"}
    assert len(item["digest"]) == 64
    assert 1_500_000_000 < item["size"] < 2_500_000_000
    assert item["details"]["family"] == "llama"
    assert item["details"]["context_length"] == 8192
    openai = (await ask(fake, "GET", "/v1/models")).json
    assert [item["id"] for item in openai["data"]] == list(DEFAULT_MODELS)
    fake.state(models=[])
    assert (await ask(fake, "GET", "/api/tags")).json == {"models": []}
    assert (await ask(fake, "GET", "/v1/models")).json["data"] is None


async def test_show(fake: FakeOllama) -> None:
    for name in ("tiny", "TINY:latest", "fx-status:c-500", "fx-hang"):
        assert (await ask(fake, "POST", "/api/show", {"model": name})).status == 200
    shown = (await ask(fake, "POST", "/api/show", {"name": "fx-think"})).json
    assert shown["capabilities"] == ["completion", "thinking"]
    assert "/home/secret/" in shown["modelfile"]
    assert [value for key, value in shown["model_info"].items() if key.endswith(".context_length")] == [8192]
    for model, status, text in (
        ("nosuch", 404, "model 'nosuch:latest' not found"),
        ("", 400, "model is required"),
        ("a b", 400, "invalid model name"),
        ("fx-status:c-500_on-show", 500, "an error was encountered while running the model: unexpected EOF"),
    ):
        answer = await ask(fake, "POST", "/api/show", {"model": model})
        assert (answer.status, answer.json) == (status, {"error": text})
    assert (await ask_chat(fake, "fx-status:c-500_on-show")).status == 200


async def test_loading_unloading_and_ps(fake: FakeOllama) -> None:
    assert (await ask(fake, "GET", "/api/ps")).json == {"models": []}
    loaded = await ask(fake, "POST", "/api/chat", {"model": "tiny", "keep_alive": -1})
    assert (loaded.json["done_reason"], loaded.json["message"]["content"]) == ("load", "")
    await ask_chat(fake, "fx-ok:n-1", options={"num_ctx": 2048})
    tiny, ok = (await ask(fake, "GET", "/api/ps")).json["models"]
    assert (tiny["name"], tiny["context_length"], tiny["expires_at"] > "2300") == ("tiny:latest", 8192, True)
    assert (ok["name"], ok["context_length"]) == ("fx-ok:n-1", 2048)
    unloaded = await ask(fake, "POST", "/api/generate", {"model": "tiny:latest", "keep_alive": 0})
    assert (unloaded.json["done_reason"], unloaded.json["response"]) == ("unload", "")
    assert len((await ask(fake, "GET", "/api/ps")).json["models"]) == 1


async def test_a_model_that_still_loads_is_not_in_ps(fake: FakeOllama) -> None:
    _, writer = await connect(fake)
    writer.write(request("POST", "/api/chat", chat("fx-load:load-60000")))
    await fake.arrived()
    assert (await ask(fake, "GET", "/api/ps")).json == {"models": []}
    writer.close()
    await fake.closed(1)


async def test_delete_copy_create_push(fake: FakeOllama) -> None:
    deleted = await ask(fake, "DELETE", "/api/delete", {"model": "tiny"})
    assert (deleted.status, deleted.body) == (200, b"")
    assert "tiny:latest" not in fake.models
    for model, status, text in (
        ("tiny", 404, "model 'tiny' not found"),
        ("a b", 400, 'name "a b" is invalid'),
        ("fx-status:c-500", 500, "an error was encountered while running the model: unexpected EOF"),
    ):
        answer = await ask(fake, "DELETE", "/api/delete", {"name": model})
        assert (answer.status, answer.json) == (status, {"error": text})
    copied = await ask(fake, "POST", "/api/copy", {"source": "mistral:7b", "destination": "mine"})
    assert (copied.status, copied.body, fake.models[0]) == (200, b"", "mine:latest")
    for source, destination, status in (("nosuch", "b", 404), ("a b", "b", 400), ("tiny", "", 400)):
        answer = await ask(fake, "POST", "/api/copy", {"source": source, "destination": destination})
        assert (answer.status, "error" in answer.json) == (status, True)
    made = await ask(fake, "POST", "/api/create", {"model": "made", "from": "mistral:7b"})
    assert made.lines[-1] == {"status": "success"}
    assert (await ask(fake, "POST", "/api/create", {"model": "made"})).status == 400
    assert (await ask(fake, "POST", "/api/push", {"model": "made"})).lines[-1] == {"status": "success"}
    assert (await ask(fake, "POST", "/api/push", {"model": "nosuch", "stream": False})).status == 500


async def test_generate(fake: FakeOllama) -> None:
    lines = (await ask(fake, "POST", "/api/generate", {"model": "fx-think:n-2_think-1", "prompt": "hi"})).lines
    assert [line["response"] for line in lines] == [
        "",
        *(text_of(2).partition(" ")[0::2][:1]),
        lines[2]["response"],
        "",
    ]
    assert "".join(line["response"] for line in lines) == text_of(2)
    assert lines[0]["thinking"]
    assert lines[-1]["context"]
    missing = await ask(fake, "POST", "/api/generate", {"prompt": "hi"})
    assert (missing.status, missing.json) == (404, {"error": "model '' not found"})
    assert (await ask(fake, "POST", "/api/generate", {"model": "nosuch", "prompt": "hi"})).status == 404


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"options": {"num_predict": "5"}}, 500, 'option "num_predict" must be of type integer'),
        ({"options": {"temperature": True}}, 500, 'option "temperature" must be of type float32'),
        ({"options": {"stop": "x"}}, 500, 'option "stop" must be of type array'),
        ({"options": {"top_k": None, "unknown": "x", "stop": ["a"]}}, 200, ""),
        ({"think": True}, 400, '"tiny" does not support thinking'),
        ({"think": False}, 200, ""),
        ({"think": "LOW"}, 400, 'invalid think value: "LOW"'),
        ({"messages": [{"role": "user", "content": ["x"]}]}, 400, "json: cannot unmarshal array"),
        ({"messages": [{"role": "user", "content": "x", "images": ["data:x"]}]}, 400, "illegal base64 data"),
        ({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, 400, "does not support multimodal"),
        ({"keep_alive": "-1"}, 400, 'time: missing unit in duration "-1"'),
        ({"keep_alive": True}, 400, "json: cannot unmarshal bool"),
        ({"keep_alive": "5m", "unknown": {"x": 1}}, 200, ""),
    ],
)
async def test_what_ollama_rejects(fake: FakeOllama, fields: dict[str, Any], status: int, text: str) -> None:
    answer = await ask_chat(fake, "tiny", **fields)
    assert answer.status == status
    assert text in answer.json["error"] if status != 200 else answer.lines


async def test_more_that_ollama_rejects(fake: FakeOllama) -> None:
    for body, status in ((None, 400), (b"{", 400), ({"messages": []}, 400)):
        assert (await ask(fake, "POST", "/api/chat", body)).status == status
    assert (await ask_chat(fake, "fx-ok", tools=[{}])).status == 400
    seen = await ask_chat(fake, "fx-vision:n-1", messages=[{"role": "user", "content": "x", "images": ["aGk="]}])
    assert seen.text == text_of(1)


async def test_embeddings(fake: FakeOllama) -> None:
    many = (await ask(fake, "POST", "/api/embed", {"model": "tiny", "input": ["a", "b"]})).json
    assert len(many["embeddings"]) == 2
    assert many["embeddings"][0] != many["embeddings"][1]
    assert sum(x * x for x in many["embeddings"][0]) == pytest.approx(1)
    one = (await ask(fake, "POST", "/api/embeddings", {"model": "tiny", "prompt": "a"})).json
    assert one == {"embedding": many["embeddings"][0]}
    openai = (await ask(fake, "POST", "/v1/embeddings", {"model": "tiny", "input": "a"})).json
    assert openai["data"][0]["embedding"] == many["embeddings"][0]
    assert (await ask(fake, "POST", "/api/embed", {"model": "tiny"})).json["embeddings"] == []
    for path in ("/api/embed", "/api/embeddings", "/v1/embeddings"):
        answer = await ask(fake, "POST", path, {"model": "nosuch", "input": "a"})
        assert answer.status == 404
        assert 'model "nosuch" not found, try pulling it first' in answer.body.decode().replace("\\", "")


def events(answer: Answer) -> list[Any]:
    """The events of an event stream; its mark of the end is left as text."""
    parts = [part.removeprefix("data: ") for part in answer.body.decode().split("\n\n") if part]
    return [part if part == "[DONE]" else json.loads(part) for part in parts]


async def test_openai_chat(fake: FakeOllama) -> None:
    body = chat("fx-ok:n-2", stream=True, stream_options={"include_usage": True})
    answer = await ask(fake, "POST", "/v1/chat/completions", body)
    assert answer.headers["content-type"] == "text/event-stream"
    *chunks, finish, usage, end = events(answer)
    assert end == "[DONE]"
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == text_of(2)
    assert ["role" in chunk["choices"][0]["delta"] for chunk in chunks] == [True, False]
    assert (finish["choices"][0]["finish_reason"], usage["choices"]) == ("stop", [])
    assert usage["usage"]["completion_tokens"] == 2
    whole = (await ask(fake, "POST", "/v1/chat/completions", chat("fx-tools:n-3", max_tokens=2))).json
    assert whole["choices"][0]["message"]["content"] == text_of(2)
    assert json.loads(whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])["days"] == 2
    thought = (await ask(fake, "POST", "/v1/chat/completions", chat("fx-think:n-1_think-1"))).json
    assert thought["choices"][0]["message"]["reasoning"]


async def test_openai_completion_and_errors(fake: FakeOllama) -> None:
    body = {"model": "fx-ok:n-2", "prompt": "hi", "stream": True}
    *chunks, _finish, end = events(await ask(fake, "POST", "/v1/completions", body))
    assert ("".join(chunk["choices"][0]["text"] for chunk in chunks), end) == (text_of(2), "[DONE]")
    whole = (await ask(fake, "POST", "/v1/completions", {"model": "tiny", "prompt": "hi"})).json
    assert (whole["object"], whole["choices"][0]["text"]) == ("text_completion", text_of(20))
    for path, payload, status in (
        ("/v1/chat/completions", {"model": "nosuch", "messages": [{"role": "user", "content": "x"}]}, 404),
        ("/v1/chat/completions", {"model": "tiny", "messages": []}, 400),
        ("/v1/completions", {"model": "nosuch"}, 404),
    ):
        answer = await ask(fake, "POST", path, payload)
        assert (answer.status, set(answer.json["error"])) == (status, {"message", "type", "param", "code"})
    broken = events(await ask(fake, "POST", "/v1/chat/completions", chat("fx-errline:n-1", stream=True)))
    assert (broken[-1]["error"]["type"], "[DONE]" in broken) == ("api_error", False)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Host: 127.0.0.1:11434", 200),
        ("Host: [::1]:1", 200),
        ("Host: 192.168.1.5", 200),
        ("Host: box.local", 200),
        ("Host: evil.example", 403),
        ("Host: 127.evil.example", 403),
        ("Host: 8.8.8.8", 403),
        ("Host: localhost\r\nOrigin: http://localhost:3000", 200),
        ("Host: localhost\r\nOrigin: vscode-webview://x", 200),
        ("Host: localhost\r\nOrigin: http://evil.example", 403),
        ("Host: localhost\r\nOrigin: null", 403),
        ("Host: localhost\r\nHost: localhost", 400),
        ("X-No: host", 400),
    ],
)
async def test_foreign_hosts_and_origins_are_refused(fake: FakeOllama, header: str, status: int) -> None:
    data = f"GET /api/version HTTP/1.1\r\n{header}\r\nConnection: close\r\n\r\n".encode()
    answer = await exchange(fake.port, data)
    assert answer.status == status
    assert (answer.body == b"") == (status == 403)


# state


async def test_health_queue_delay_version_and_routes(fake: FakeOllama) -> None:
    fake.state(health="fail")
    assert [(await ask(fake, "GET", path)).status for path in ("/", "/api/tags", "/api/version")] == [500] * 3
    assert (await ask_chat(fake, "fx-ok:n-1")).status == 200
    fake.state(health="ok", queue_full=True, version="9.9.9")
    assert (await ask(fake, "GET", "/api/version")).json == {"version": "9.9.9"}
    assert (await ask_chat(fake, "fx-ok")).status == 503
    fake.state(queue_full=False, delay_ms=15, routes={"/api/tags": "fx-html"})
    assert (await ask(fake, "GET", "/api/tags")).headers["content-type"].startswith("text/html")
    record = fake.log[-1]
    assert record.first_byte_at is not None
    assert record.first_byte_at - record.requested_at >= 0.015
    fake.reset()
    assert (await ask(fake, "GET", "/api/tags")).status == 200
    assert len(fake.log) == 1
    with pytest.raises(TypeError):
        fake.state(nonsense=1)
    with pytest.raises(ValueError, match="accept must be one of"):
        fake.state(accept="sometimes")


async def test_refuse_keeps_the_port_and_drops_idle_connections(fake: FakeOllama) -> None:
    reader, writer = await connect(fake)
    writer.write(request("GET", "/", close=False))
    await reader.readuntil(b"running")
    fake.state(accept="refuse")
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await connect(fake)
    fake.state(accept="normal")
    assert (await ask(fake, "GET", "/")).status == 200


async def test_eof_and_rst_at_accept(fake: FakeOllama) -> None:
    fake.state(accept="eof")
    answer = await ask(fake, "GET", "/")
    assert (answer.wire, answer.reset) == (b"", False)
    fake.state(accept="rst")
    assert (await ask(fake, "GET", "/")).reset
    fake.state(accept="normal")
    assert (await ask(fake, "GET", "/")).status == 200
    assert len(fake.log) == 1


async def test_blackhole_answers_no_connect_at_all(fake: FakeOllama) -> None:
    for before in ("normal", "refuse"):
        fake.state(accept=before)
        fake.state(accept="blackhole")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connect(fake)
    fake.state(accept="normal")
    assert (await ask(fake, "GET", "/")).status == 200


async def test_loopback_only() -> None:
    for host in ("0.0.0.0", "192.168.1.5"):
        with pytest.raises(ValueError, match="loopback only"):
            FakeOllama(host=host)
    async with FakeOllama(host="::1") as fake:
        assert fake.url.startswith("http://[::1]:")


# log and waits


async def test_the_log_tells_what_came_and_how_it_ended(fake: FakeOllama) -> None:
    body = chat("fx-ok:n-2", extra="kept")
    await ask(fake, "POST", "/api/chat?x=1", body, "X-One: 1", "X-ONE: 2")
    await fake.until(lambda: fake.connections == 0, 1)
    record = fake.log[0]
    assert (record.method, record.path, record.body) == ("POST", "/api/chat?x=1", body)
    assert (record.scenario, record.model, record.tokens) == ("fx-ok", "fx-ok:n-2", 2)
    assert [value for name, value in record.raw_headers if name == "x-one"] == ["1", "2"]
    assert record.ended == "complete"
    times = [record.accepted_at, record.requested_at, record.first_byte_at, record.last_byte_at, record.ended_at]
    assert times == sorted(time for time in times if time is not None)
    assert record.bytes_in == len(json.dumps(body))


@pytest.mark.parametrize("leave", ["fin", "rst"])
async def test_departures_are_timed_to_two_milliseconds(fake: FakeOllama, leave: str) -> None:
    late: list[float] = []
    for _ in range(20):
        _, writer = await connect(fake)
        writer.write(request("POST", "/api/chat", chat("fx-hang")))
        await fake.arrived(len(late) + 1)
        left_at = time.monotonic()
        depart(writer, leave)
        await fake.closed(len(late) + 1)
        ended_at = fake.log[-1].ended_at
        assert ended_at is not None
        late.append(ended_at - left_at)
    assert {record.ended for record in fake.log} == {leave}
    assert sorted(late)[5] < 0.002  # the quickest quarter: the rest may have waited for the processor
    assert fake.log[-1].cut


async def test_a_kept_alive_connection_serves_many_and_notes_the_parting(fake: FakeOllama) -> None:
    reader, writer = await connect(fake)
    for _ in range(3):
        writer.write(request("POST", "/api/chat", chat("fx-ok:n-1"), close=False))
        assert Answer(await reader.readuntil(b"\r\n0\r\n\r\n")).text == text_of(1)
    assert (fake.connections, fake.accepted, fake.open) == (1, 1, 0)
    writer.close()
    await fake.until(lambda: fake.log[-1].parting == "fin", 1)
    assert {record.connection for record in fake.log} == {1}


async def test_waits_give_up_and_say_why(fake: FakeOllama) -> None:
    with pytest.raises(Late, match="1 requests cut"):
        await fake.closed(1, within_s=0.01)
    with pytest.raises(Late, match="2 requests to /api/chat"):
        await fake.arrived(2, within_s=0.01, path="/api/chat")
    _, writer = await connect(fake)
    writer.write(request("POST", "/api/chat", chat("fx-hang")))
    await fake.arrived()
    with pytest.raises(Late, match="fx-hang"):
        await fake.idle(within_s=0.01)
    writer.close()
    await fake.idle()


async def test_the_fakes_own_limits() -> None:
    async with FakeOllama(limit_s=0.05) as fake:
        assert (await ask_chat(fake, "fx-hang")).wire == b""
        assert b'"done":true' not in (await ask_chat(fake, "fx-endless")).wire
        assert {record.ended for record in fake.log} == {"capped"}
        huge = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n"
        assert (await exchange(fake.port, huge)).wire == b""


async def test_limits_of_bytes_and_connections() -> None:
    async with FakeOllama(limit_bytes=2000, max_connections=2) as fake:
        assert len((await ask_chat(fake, "fx-endless")).wire) < 2100
        head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await exchange(fake.port, head + b"400\r\n%b\r\n" % (b"x" * 1024) * 3)).wire == b""
        assert [record.ended for record in fake.log] == ["capped"]
        writers = [(await connect(fake))[1] for _ in range(2)]
        await fake.until(lambda: fake.connections == 2, 1)
        assert (await ask(fake, "GET", "/")).reset
        for writer in writers:
            writer.close()


async def test_closing_the_fake_ends_what_it_serves() -> None:
    async with FakeOllama() as fake:
        reader, writer = await connect(fake)
        writer.write(request("POST", "/api/chat", chat("fx-hang")))
        await fake.arrived()
    assert fake.log[0].ended == "capped"
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await connect(fake)


async def test_a_client_that_reads_late_gets_everything(fake: FakeOllama) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", fake.port, limit=1024)
    writer.write(request("POST", "/api/chat", chat("fx-bigline:mb-20_n-1")))
    await fake.arrived()
    with pytest.raises(Late):
        await fake.idle(within_s=0.1)
    received = 0
    while piece := await reader.read(2**20):
        received += len(piece)
    assert received > 20 * 1024 * 1024
    assert fake.log[0].ended == "complete"
    writer.close()


async def test_a_release_does_not_go_to_a_client_that_left(fake: FakeOllama) -> None:
    _, gone = await connect(fake)
    gone.write(request("POST", "/api/chat", chat("fx-gate:n-1")))
    await fake.arrived()
    gone.close()
    await fake.closed(1)
    asking = asyncio.create_task(ask_chat(fake, "fx-gate:n-1"))
    await fake.arrived(2)
    fake.release()
    assert (await asking).text == text_of(1)


async def test_chunked_bodies_and_expect(fake: FakeOllama) -> None:
    head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    body = json.dumps(chat("fx-ok:n-1")).encode()
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    assert (await exchange(fake.port, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked)).text == text_of(1)
    length = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = await exchange(fake.port, head + length + body)
    assert answer.wire.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    bad = head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
    assert (await exchange(fake.port, bad)).wire == b""


CHUNKED = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = request("POST", "/api/chat", chat("fx-ok"))


@pytest.mark.parametrize("sent", [WHOLE[:30], WHOLE[:-3], CHUNKED + b"5\r\nab", CHUNKED + b"5"])
async def test_a_client_that_leaves_before_its_request_is_complete_is_in_no_log(fake: FakeOllama, sent: bytes) -> None:
    _, writer = await connect(fake)
    writer.write(sent)
    await fake.until(lambda: fake.connections == 1, 1)
    writer.close()
    await fake.until(lambda: fake.connections == 0, 1)
    assert fake.log == []


async def test_a_never_reading_client_stops_the_firehose(fake: FakeOllama) -> None:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", fake.port))
    await asyncio.get_running_loop().sock_sendall(sock, request("POST", "/api/chat", chat("fx-bigline:mb-100")))
    await fake.arrived()
    with pytest.raises(Late):
        await fake.idle(within_s=0.2)
    assert fake.log[0].bytes_out < 20 * 1024 * 1024
    sock.close()
    await fake.closed(1)


async def test_a_thousand_connections_at_once(fake: FakeOllama) -> None:
    held = [await connect(fake) for _ in range(1000)]
    for _, writer in held:
        writer.write(request("POST", "/api/chat", chat("fx-gate:n-1_size-32")))
    await fake.arrived(1000)
    assert (fake.open, fake.connections) == (1000, 1000)
    fake.release(1000)
    for reader, writer in held:
        assert Answer(await reader.read()).text == text_of(1, size=32)
        writer.close()
    await fake.idle()
    await fake.until(lambda: fake.connections == 0, 2)


# control plane


async def control(fake: FakeOllama, method: str, path: str, body: object = None) -> Answer:
    """One request to the control plane, which keeps its connections alive."""
    reader, writer = await asyncio.open_connection("127.0.0.1", fake.control_port)
    writer.write(request(method, path, body))
    head = await reader.readuntil(b"\r\n\r\n")
    answer = Answer(head + await reader.readexactly(int(Answer(head).headers["content-length"])))
    writer.close()
    return answer


async def test_the_control_plane(fake: FakeOllama) -> None:
    assert (await control(fake, "POST", "/state", {"models": ["only"], "accept": "refuse"})).status == 200
    with pytest.raises(ConnectionRefusedError):
        await connect(fake)
    await control(fake, "POST", "/state", {"accept": "normal"})
    assert (await ask(fake, "GET", "/api/tags")).json["models"][0]["name"] == "only:latest"
    assert (await control(fake, "POST", "/state", {"accept": "maybe"})).status == 400
    assert (await control(fake, "POST", "/state", {"nonsense": 1})).status == 400
    assert (await control(fake, "GET", "/nowhere")).status == 404
    _, writer = await connect(fake)
    writer.write(request("POST", "/api/chat", chat("fx-gate:id-c")))
    assert (await control(fake, "POST", "/expect", {"arrived": 2})).status == 200
    assert (await control(fake, "GET", "/open")).json == {"count": 1, "scenarios": {"fx-gate": 1}}
    assert (await control(fake, "POST", "/expect", {"closed": 1, "ms": 5})).status == 409
    assert (await control(fake, "POST", "/release", {"key": "c", "n": 2})).status == 200
    await fake.until(lambda: fake.log[-1].tokens == 2, 1)
    writer.close()
    waited = await control(fake, "POST", "/expect", {"closed": 1, "idle": True})
    assert waited.json == {"open": 0, "cut": 1}
    log = [json.loads(line) for line in (await control(fake, "GET", "/log")).body.splitlines()]
    assert [(entry["path"], entry["ended"]) for entry in log] == [("/api/tags", "complete"), ("/api/chat", "fin")]
    assert log[1]["headers"]["host"] == "localhost"
    await control(fake, "POST", "/reset")
    assert (fake.log, fake.models) == ([], list(DEFAULT_MODELS))


async def test_the_canary_remembers_who_came(fake: FakeOllama) -> None:
    port = int(fake.canary_url.rpartition(":")[2])
    assert (await exchange(port, b"GET /?q=secret HTTP/1.1\r\nHost: x\r\n\r\n")).status == 204
    hits = (await control(fake, "GET", "/canary")).json["hits"]
    assert [(hit["method"], hit["path"]) for hit in hits] == [("GET", "/?q=secret")]
    fake.reset()
    assert fake.canary_hits == []


# other ways of running it


def test_in_a_thread(fake_thread: RunningFake) -> None:
    fake = fake_thread
    with socket.create_connection(("127.0.0.1", fake.port)) as sock:
        sock.sendall(request("POST", "/api/chat", chat("fx-gate:n-2")))
        fake.arrived(1)
        assert (fake.open, fake.connections, fake.accepted, fake.cut) == (1, 1, 1, 0)
        fake.release(1)
        fake.until(lambda: fake.fake.log[0].tokens == 1, 1)
    fake.closed(1)
    fake.idle()
    assert fake.log[0].cut
    fake.state(models=["one"], version="1.0.0")
    assert fake.models == ["one"]
    fake.reset()
    assert (fake.log, fake.canary_hits, fake.models) == ([], [], list(DEFAULT_MODELS))


def test_a_thread_that_cannot_start_says_so() -> None:
    with pytest.raises(ValueError, match="loopback only"), running_fake(host="0.0.0.0"):
        pass
    with running_fake() as first, pytest.raises(OSError, match="in use"), running_fake(port=first.port):
        pass


@pytest.fixture
async def process() -> AsyncIterator[asyncio.subprocess.Process]:
    """The fake as a process of its own."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "tests.fake_ollama", "--port", "0", "--max-seconds", "30", "--models", "a")
    started = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT)
    yield started
    assert started.stdin is not None
    started.stdin.close()
    await started.wait()


async def test_as_a_process_it_ends_with_its_parent(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    assert process.stdin is not None
    ready = json.loads(await process.stdout.readline())
    tags = await exchange(ready["port"], request("GET", "/api/tags"))
    assert [model["name"] for model in tags.json["models"]] == ["a:latest"]
    opened = await exchange(ready["control"], b"GET /open HTTP/1.1\r\nHost: x\r\n\r\nGET nonsense\r\n\r\n")
    assert opened.json == {"count": 0, "scenarios": {}}
    process.stdin.close()
    async with asyncio.timeout(5):
        assert await process.wait() == 0


# what conftest promises


def test_tests_know_nothing_of_their_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("ARENA_PORT=1234\n")
    monkeypatch.chdir(tmp_path)
    assert load().port == 7860
    assert not [name for name in os.environ if name.startswith(("OLLAMA_", "WEB_", "GRADIO_SERVER_", "SPACE_ID"))]


async def test_no_test_reaches_another_machine() -> None:
    with socket.socket() as sock, pytest.raises(OutsideConnection):
        sock.connect(("192.0.2.1", 80))
    with socket.socket() as sock, pytest.raises(OutsideConnection):
        sock.connect_ex(("8.8.8.8", 53))
    with pytest.raises(OutsideConnection):
        await asyncio.open_connection("192.0.2.1", 80)
    with pytest.raises(socket.gaierror):
        await asyncio.open_connection("models.example", 80)
    assert [is_local(name) for name in ("localhost", "::1", "a.localhost", "127.3.2.1", "10.0.0.1", "x")] == (
        [True] * 4 + [False] * 2
    )
