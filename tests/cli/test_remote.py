"""A running arena that is none, or breaks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from arena.cli.remote import RemoteArena
from arena.errors import ArenaError, BadRequest, Unreachable, UpstreamBroken
from arena.types import (
    Batch,
    ChatMessage,
    ChatRequest,
    Delta,
    Failed,
    Finished,
    Metrics,
    ModelInfo,
    ModelInstance,
)
from tests.fake_ollama import RunningFake


@contextmanager
def scripted(
    body: bytes, *, status: int = 200, broken: bool = False, seen: list[str | None] | None = None
) -> Iterator[str]:
    """An address that answers everything with `body` in chunks of 7 bytes, without the last empty one if `broken`.

    `seen` gets the Authorization header of every request.
    """

    class Script(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if seen is not None:
                seen.append(self.headers.get("Authorization"))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "close")
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()
            for piece in (body[start : start + 7] for start in range(0, len(body), 7)):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"" if broken else b"0\r\n\r\n")

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Script) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


ASKED = [ChatRequest(ModelInstance(name, "tiny"), (ChatMessage("user", "Hi"),)) for name in ("a", "b")]
LAST_LINE = b'{"instance_id":"a","token":"","done":true,"metrics":{"tokens":3,"rate_reliable":true}}\n'


def collected(url: str) -> Batch:
    events: Batch = []
    RemoteArena(url, None).chat(ASKED, "together", events.extend)
    return events


def test_remote_stream_that_ends_early_fails_only_the_answers_it_left_open() -> None:
    with scripted(b'{"instance_id":"b","token":"so f"}\n' + LAST_LINE) as url:
        events = collected(url)
    assert events[0] == Delta("b", "so f")
    assert events[1] == Finished("a", Metrics(tokens=3, rate_reliable=True))
    assert [(e.instance_id, e.code) for e in events if isinstance(e, Failed)] == [("b", "upstream_eof")]


def test_remote_connection_that_breaks_fails_the_open_answers() -> None:
    with scripted(LAST_LINE, broken=True) as url:
        events = collected(url)
    assert [(e.instance_id, e.code) for e in events if isinstance(e, Failed)] == [("b", "upstream_broken")]


def test_remote_lines_end_at_byte_0x0a_only() -> None:
    text = "one\u0085two\u2028three\rfour"
    lines = json.dumps({"instance_id": "a", "token": text}, ensure_ascii=False).encode() + b"\n\n" + LAST_LINE
    with scripted(lines) as url:
        assert collected(url)[0] == Delta("a", text)


@pytest.mark.parametrize(
    "line", [b"[]", b"{}", b"not json", b'{"instance_id":"a","done":true,"metrics":{"tokens":"x"}}', b'"text"']
)
def test_remote_line_of_another_format_is_refused(line: bytes) -> None:
    with scripted(line + b"\n") as url, pytest.raises(UpstreamBroken, match="not its own format"):
        collected(url)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"\xff", b'{"details": [{"size_bytes": 1}]}'])
def test_remote_answer_of_another_program_is_refused(body: bytes) -> None:
    with scripted(body) as url, pytest.raises(UpstreamBroken):
        RemoteArena(url, None).models()


def test_remote_names_without_details_are_models_too() -> None:
    with scripted(b'{"models": ["a", "b"]}') as url:
        assert RemoteArena(url, None).models() == (ModelInfo("a"), ModelInfo("b"))


def test_remote_ignores_proxies_and_keeps_passwords_of_netrc_to_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    seen: list[str | None] = []
    with scripted(b'{"models": []}', seen=seen) as url:
        assert RemoteArena(url, None).models() == ()
        assert RemoteArena(url, "token").models() == ()
    assert seen == [None, "Bearer token"]


def test_remote_token_of_any_letters_goes_as_the_arena_reads_it() -> None:
    seen: list[str | None] = []
    with scripted(b'{"models": []}', seen=seen) as url:
        RemoteArena(url, "тайна").models()
    assert [value and value.encode("latin-1").decode() for value in seen] == ["Bearer тайна"]


def test_remote_redirect_is_not_followed() -> None:
    moved = b'{"error": "elsewhere", "code": "moved"}'
    with scripted(moved, status=307) as url, pytest.raises(ArenaError, match="elsewhere") as caught:
        RemoteArena(url, "secret").models()
    assert caught.value.code == "moved"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "127.0.0.1:9"])
def test_remote_silence_is_unreachable(url: str) -> None:
    with pytest.raises(Unreachable, match=r"No arena answers at http://127\.0\.0\.1:9\."):
        RemoteArena(url, None).models()


def test_remote_answer_that_is_not_http_is_broken(fake_thread: RunningFake) -> None:
    with pytest.raises(ArenaError):
        RemoteArena(fake_thread.url, None).pull("fx-ok", None, lambda _: None)


@pytest.mark.parametrize("url", ["ftp://host", "http://", "://", "h:x", "h:65536", "h:0", "http://[::1"])
def test_remote_wrong_address_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="--url"):
        RemoteArena(url, None)
