"""The fake's state, log, waits and control plane, and the three ways of running it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arena.settings import load
from tests.fake_ollama import DEFAULT_MODELS, FakeOllama, Late, RunningFake, running_fake, text_of
from tests.fake_ollama.raw import Answer, ask, ask_chat, chat, connect, depart, exchange, request
from tests.fake_ollama.stopwatch import Stopwatch
from tests.outside import OutsideConnection, is_local

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


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
        watch = Stopwatch()
        depart(writer, leave)
        await fake.closed(len(late) + 1)
        ended_at = fake.log[-1].ended_at
        assert ended_at is not None
        late.append(watch.own_s(ended_at))
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
    command = (sys.executable, "-m", "tests.fake_ollama", "--port", "0", "--max-seconds", "200", "--models", "a")
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
    async with asyncio.timeout(60):
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
