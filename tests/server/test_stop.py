"""Starting and stopping: ports, descriptors, signals, and what running answers get to say at the end."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from arena import keys
from arena.errors import SettingsError
from arena.server import Limits, Server, bind, serve
from arena.server.serve import address_of, descriptors, raise_descriptor_limit, tell
from arena.settings import load
from tests.fake_ollama.stopwatch import Stopwatch
from tests.served import PATIENCE_S, SHORT, STOPPING, TinyApp, Wire, running

ROOT = Path(__file__).resolve().parents[2]
FIRST = b'{"token":"a"}\n'


class Child:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def terminate(self) -> float:
        """Ask it to end and wait for that, with status 0; the seconds it took, but for those without a core."""
        watch = Stopwatch(self.process.pid)
        self.process.terminate()
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)  # it can be asked still what it waited
        took_s = watch.own_s()
        assert self.process.wait() == 0
        return took_s

    def ends(self, within_s: float) -> int:
        """Its exit status, which must come in time."""
        return self.process.wait(within_s)


@contextmanager
def child(**environment: str) -> Iterator[Child]:
    """Run `python -m tests.served` with these settings; it is killed at the end if it still lives."""
    settings = {"ARENA_PORT": "0", "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}
    limit = settings.pop("DESCRIPTORS", "")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.served"],
        cwd=ROOT,
        env=settings,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit),) * 2)) if limit else None,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("Ollama Arena is running on http://127.0.0.1:"), line
            yield Child(process, int(line.rstrip().rpartition(":")[2]))
        finally:
            process.kill()


def streams(stack: ExitStack, port: int, path: str, count: int) -> list[Wire]:
    """Open `count` streams and wait for the first line of each."""
    wires = [stack.enter_context(Wire(port)).ask(path) for _ in range(count)]
    for wire in wires:
        wire.until(FIRST)
    return wires


# signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_every_stream_end_well(number: signal.Signals) -> None:
    with child(ARENA_DRAIN="5") as server, ExitStack() as stack:
        wires = streams(stack, server.port, "/stream", 100)
        server.process.send_signal(number)
        for wire in wires:
            assert STOPPING in wire.rest()
        assert server.ends(PATIENCE_S) == 0


def test_streams_that_do_not_listen_are_cut_when_time_is_up() -> None:
    with child(ARENA_DRAIN="0.5") as server, ExitStack() as stack:
        streams(stack, server.port, "/stubborn", 1)
        started = time.monotonic()
        assert server.terminate() < 1.5
        assert time.monotonic() - started >= 0.5


def test_a_second_signal_ends_at_once() -> None:
    with child(ARENA_DRAIN="60") as server, ExitStack() as stack:
        listening, *_ = streams(stack, server.port, "/stream", 1)
        streams(stack, server.port, "/stubborn", 1)
        server.process.terminate()
        assert STOPPING in listening.until(STOPPING)
        assert server.terminate() < 1


def test_an_idle_server_ends_at_once() -> None:
    with child(ARENA_DRAIN="60") as server, Wire(server.port) as idle, Wire(server.port) as silent:
        idle.ask(body=b"x").reply()
        assert server.terminate() < 1
        assert idle.rest() == silent.rest() == b""


def test_a_hang_up_asks_to_read_the_configuration_again() -> None:
    with child(ARENA_DRAIN="5") as server, Wire(server.port) as wire:
        for count in (b"1", b"2"):
            server.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + PATIENCE_S
            while wire.ask("/reloads").reply().body != count:  # a signal takes its time to another process
                assert time.monotonic() < deadline
        server.process.terminate()
        assert server.ends(PATIENCE_S) == 0


def test_a_terminal_that_is_gone_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(SHORT, drain_s=1.0) as served:
        served.server._in_terminal = True
        monkeypatch.setattr("os.isatty", lambda descriptor: False)
        stopping_already = []

        class Watchdog(threading.Timer):
            def start(self) -> None:
                stopping_already.append(served.server.should_exit)
                super().start()

        monkeypatch.setattr("threading.Timer", Watchdog)
        served.server._hang_up(signal.SIGHUP, None)
        assert stopping_already == [False], "nobody would call the watchdog off"
        served.thread.join(PATIENCE_S)
        assert not served.thread.is_alive()
        assert served.app.reloads == 0


# the same in a thread, where the inside can be seen


def test_new_work_reaches_the_draining_application_then_nobody() -> None:
    with running(SHORT, drain_s=1.0) as served, Wire(served.port) as stubborn:
        stubborn.ask("/stubborn").until(FIRST)
        served.server.should_exit = True
        assert served.app.draining.wait(PATIENCE_S)
        with Wire(served.port) as wire:
            reply = wire.ask(body=b"new").reply()
            assert reply.status == 200  # the guard says 503 here; this application does not
        served.stop()
        assert served.app.gone.get(timeout=PATIENCE_S) == "/stubborn cancelled"
        assert served.app.drained == 1
        with pytest.raises(ConnectionRefusedError):
            Wire(served.port)


def test_a_head_on_its_way_is_answered_when_draining() -> None:
    with running(SHORT, drain_s=30) as served, Wire(served.port) as late, Wire(served.port) as stubborn:
        late.send(b"GET /echo HTTP/1.1\r\n")
        stubborn.ask("/stubborn").until(FIRST)
        served.server.handle_exit(signal.SIGTERM, None)
        assert served.app.draining.wait(PATIENCE_S)
        assert late.send(b"Host: h\r\n\r\n").reply().status == 200
        watch = Stopwatch()
        served.server.handle_exit(signal.SIGTERM, None)
        served.stop()
        assert watch.own_s() < 1


def test_serve_returns_after_a_signal_and_a_late_one_does_not_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os._exit", lambda status: None)  # the watchdog of the late signal
    app = TinyApp()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        serve(lambda settings: app, load(port=0), on_ready=lambda url: os.kill(os.getpid(), signal.SIGTERM))
        assert app.drained == 1
        signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_endless_streams_of_the_page_do_not_hold_up_the_end() -> None:
    with running(SHORT, drain_s=30) as served, Wire(served.port) as page, Wire(served.port) as stream:
        page.ask("/gradio_api/heartbeat/1").until(FIRST)
        stream.ask("/stream").until(FIRST)
        watch = Stopwatch()
        served.stop()
        assert watch.own_s() < 2
        assert STOPPING in stream.rest()
        assert served.app.gone.get(timeout=PATIENCE_S) == "/gradio_api/heartbeat/1"


def test_a_failed_start_is_no_start() -> None:
    settings = load(port=0)
    app = TinyApp()
    app.fails_to_start = True
    sockets = bind(settings)
    ready = threading.Event()
    with pytest.raises(SystemExit):
        Server(app, settings, sockets, on_ready=lambda url: ready.set()).run()
    for listener in sockets:
        listener.close()
    assert not ready.is_set()


# the address


def test_a_taken_port_is_named_with_the_remedy() -> None:
    built: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"Port {port} on 127.0.0.1 is already in use.*ARENA_PORT"):
            serve(lambda settings: built.append(settings) or TinyApp(), load(port=port))  # type: ignore[func-returns-value]
    assert not built


def test_a_public_address_needs_a_token_before_anything_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)
    with pytest.raises(SettingsError, match="WEB_CHAT_TOKEN"):
        serve(lambda settings: TinyApp(), load(host="0.0.0.0", port=0))


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EACCES, "administrator"), (errno.EADDRNOTAVAIL, "ARENA_HOST=127.0.0.1: cannot")]
)
def test_other_reasons_not_to_listen(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(SettingsError, match=words):
        bind(load(port=80))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is up to the system what is inherited")
def test_the_system_asks_after_every_client() -> None:
    (listener,) = bind(load(port=0))
    with listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            assert [connection.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [30, 10, 3, 60_000]


def test_an_address_this_machine_does_not_have_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def two_addresses(_host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, 0, 0, "", (address, port)) for address in ("192.0.2.1", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    (listener,) = bind(load(host="localhost", port=0))
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_one_address_that_is_taken_closes_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[socket.socket] = []

    def once(listener: socket.socket, _address: object) -> None:
        opened.append(listener)
        if len(opened) > 1:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    monkeypatch.setattr(socket.socket, "bind", once)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 0, 0, "", ("127.0.0.1", 0))] * 2)
    with pytest.raises(SettingsError, match="already in use"):
        bind(load(port=7860))
    assert [listener.fileno() for listener in opened] == [-1, -1]


@pytest.mark.parametrize(
    ("host", "root_path", "expected"),
    [
        ("127.0.0.1", "", "http://127.0.0.1:{}"),
        ("0.0.0.0", "", "http://127.0.0.1:{}"),
        ("127.0.0.1", "/arena", "http://127.0.0.1:{}/arena"),
        ("127.0.0.1", "arena/", "http://127.0.0.1:{}/arena"),
        ("127.0.0.1", "/", "http://127.0.0.1:{}"),
        ("[::1]", "", "http://[::1]:{}"),
        ("localhost", "", "http://localhost:{}"),
    ],
)
def test_the_address_to_open(host: str, root_path: str, expected: str) -> None:
    settings = load(host=host, port=0, root_path=root_path)
    sockets = bind(settings)
    ports = {listener.getsockname()[1] for listener in sockets}
    assert len(ports) == 1
    assert address_of(settings, sockets) == expected.format(*ports)
    for listener in sockets:
        listener.close()


def test_the_address_in_ipv6() -> None:
    try:
        sockets = bind(load(host="::1", port=0))
    except SettingsError:
        pytest.skip("no IPv6 here")
    with sockets[0] as listener:
        port = listener.getsockname()[1]
        assert address_of(load(host="::1"), sockets) == f"http://[::1]:{port}"
        assert address_of(load(host="::"), sockets) == f"http://[::1]:{port}"


def test_what_is_said_when_ready(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tell(load(data=tmp_path))("http://127.0.0.1:7860")
    assert capsys.readouterr().out == "Ollama Arena is running on http://127.0.0.1:7860\n"
    tell(load(data=tmp_path, token="secret"))("http://127.0.0.1:7860")
    said = capsys.readouterr().out
    assert said.endswith("\nIt asks for the token in WEB_CHAT_TOKEN.\n")
    assert "secret" not in said
    keys.add(tmp_path / keys.FILE, "lab", scopes=("chat",))
    tell(load(data=tmp_path))("http://127.0.0.1:7860")
    assert capsys.readouterr().out.endswith("\nIt asks for a named key.\n")
    tell(load(data=tmp_path, token="secret"))("http://127.0.0.1:7860")
    assert capsys.readouterr().out.endswith("\nIt asks for the token in WEB_CHAT_TOKEN or a named key.\n")


# descriptors


def test_as_many_files_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 1_048_576)
        raise_descriptor_limit()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limit, used = descriptors()
    assert limit == soft
    assert 3 <= used < soft


def test_a_system_without_such_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    raise_descriptor_limit()
    assert descriptors() == (None, 0)
    with running(SHORT) as served, Wire(served.port) as wire:
        assert wire.ask(body=b"x").reply().status == 200


def test_a_crowd_is_told_that_there_is_no_room() -> None:
    with running(Limits(sweep_s=1000, linger_s=0.3)) as served, ExitStack() as stack:
        kept = streams(stack, served.port, "/stream", 3)
        served.server.server_state.max_connections = 3
        with Wire(served.port) as wire:
            reply = wire.ask(body=b"x").reply()
            assert (reply.status, reply.code) == (503, "busy")
            assert reply.headers["retry-after"] == "1"
            assert wire.rest() == b""
        served.stop()
        for wire in kept:
            assert STOPPING in wire.rest()


def test_one_that_has_no_room_and_says_nothing_is_closed_soon() -> None:
    with running(Limits(sweep_s=0.1, linger_s=0.3, descriptor_share=0)) as served, Wire(served.port) as wire:
        watch = Stopwatch()
        assert wire.rest() == b""
        assert watch.own_s() < 1.3
        assert time.monotonic() - wire.opened_at >= 0.3


def test_more_clients_than_descriptors() -> None:
    with child(DESCRIPTORS="256") as server:
        with ExitStack() as stack:
            wires = [stack.enter_context(Wire(server.port)).ask("/stream") for _ in range(400)]
            served_count = refused = 0
            for wire in wires:
                first = wire.until(b"\r\n") if not wire.quiet(PATIENCE_S) else b""
                served_count += b"200" in first
                refused += b"503" in first
            assert served_count >= 150
            assert served_count + refused == 400
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with Wire(server.port) as wire:
                if wire.ask(body=b"x").reply().status == 200:
                    break
            assert time.monotonic() < deadline
        server.process.terminate()
        assert server.ends(PATIENCE_S) == 0
