"""Pulls over real HTTP from this machine: progress, resuming, checking, sharing, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from arena.engine import library
from arena.engine.digests import Digests
from arena.engine.download import DownloadFailed, download, get
from arena.engine.hub import resolve
from arena.engine.library import LIBRARY, HubFile
from arena.engine.models import Models
from arena.engine.pull import Pulls, path_of
from arena.errors import ArenaError
from tests.engine.conftest import config_for, serving
from tests.engine.files import gguf_bytes

pytestmark = pytest.mark.anyio

MODEL = gguf_bytes({"general.architecture": "llama"}, {"a": (512, 512)})
EYE = gguf_bytes({"general.architecture": "clip"})


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Hub:
    """A hub on loopback. `cut_after` ends a download early; `gate` holds it back after its first block."""

    def __init__(self) -> None:
        self.files = {"m-Q4_K_M.gguf": MODEL, "m-Q8_0.gguf": MODEL[::-1], "README.md": b"x"}
        self.lie = ""
        self.cut_after: int | None = None
        self.ignore_range = False
        self.listing: bytes | None = None
        self.gate: threading.Event | None = None
        self.ranges: list[str | None] = []

    def tree(self) -> bytes:
        if self.listing is not None:
            return self.listing
        entries: list[dict[str, Any]] = [{"path": "folder"}]
        for name, data in self.files.items():
            entries.append({"path": name, "size": len(data), "lfs": {"oid": self.lie or sha(data), "size": len(data)}})
        return json.dumps(entries).encode()


class Server(ThreadingHTTPServer):
    """Carries a Hub."""

    daemon_threads = True
    hub: Hub


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does."""

    server: Server

    def do_GET(self) -> None:
        hub = self.server.hub
        if self.path.startswith("/api/models/org/repo/tree/main"):
            self.reply(200, hub.tree())
        elif self.path.startswith("/org/repo/resolve/main/"):
            self.file(hub, hub.files[self.path.rsplit("/", 1)[1]])
        else:
            self.reply(404, b"")

    def file(self, hub: Hub, data: bytes) -> None:
        wanted_range = self.headers["Range"]
        hub.ranges.append(wanted_range)
        begin = int(wanted_range.removeprefix("bytes=")[:-1]) if wanted_range and not hub.ignore_range else 0
        if begin >= len(data):
            self.reply(416, b"")
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        rest = data[begin:]
        self.wfile.write(rest[: min(1000, hub.cut_after or 1000)])
        if hub.gate is not None:
            self.wfile.flush()
            hub.gate.wait(30)
        if hub.cut_after is None:
            with contextlib.suppress(OSError):  # the client has left
                self.wfile.write(rest[1000:])

    def reply(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[Hub, str]]:
    server = Server(("127.0.0.1", 0), Handler)
    server.hub = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.hub, f"http://127.0.0.1:{server.server_address[1]}"
    if server.hub.gate is not None:
        server.hub.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
async def engine(hub: tuple[Hub, str], tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(config_for(tmp_path, hub_url=hub[1])) as client:
        yield client


NAME = "hf.co/org/repo:Q4_K_M"


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def models_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.gguf"))


async def pulled(engine: httpx.AsyncClient, name: str = NAME) -> list[dict[str, Any]]:
    response = await engine.post("/api/pull", json={"model": name})
    assert response.status_code == 200
    return [json.loads(line) for line in response.content.split(b"\n") if line]


class TestThroughTheApi:
    async def test_pull_use_copy_delete(self, engine: httpx.AsyncClient, tmp_path: Path) -> None:
        lines = await pulled(engine)
        assert lines[0] == {"status": "pulling manifest"}
        digest = sha(MODEL)
        full = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}"}
        assert {**full, "total": len(MODEL), "completed": len(MODEL)} in lines
        assert [line["status"] for line in lines[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]
        (model,) = (await engine.get("/api/tags")).json()["models"]
        assert (model["name"], model["digest"]) == (NAME.lower(), digest)

        copied = await engine.post("/api/copy", json={"source": NAME, "destination": "mine"})
        assert (copied.status_code, copied.content) == (200, b"")
        again = await engine.post("/api/copy", json={"source": NAME, "destination": "mine"})
        assert again.status_code == 200
        async with asyncio.timeout(10):
            while {item["digest"] for item in (await engine.get("/api/tags")).json()["models"]} != {digest}:
                pass  # worked out in the background
        names = {item["name"] for item in (await engine.get("/api/tags")).json()["models"]}
        assert names == {NAME.lower(), "mine:latest"}

        for name in (NAME, "mine"):
            deleted = await engine.request("DELETE", "/api/delete", json={"model": name})
            assert (deleted.status_code, deleted.content) == (200, b"")
        assert (await engine.get("/api/tags")).json() == {"models": []}
        assert models_in(tmp_path) == []

    async def test_a_file_of_another_size_is_fetched_anew(self, engine: httpx.AsyncClient, tmp_path: Path) -> None:
        target = path_of(tmp_path / "models", NAME.lower())
        target.parent.mkdir(parents=True)
        target.write_bytes(MODEL[:-1])
        assert (await pulled(engine))[-1] == {"status": "success"}
        assert target.read_bytes() == MODEL

    async def test_second_pull_fetches_nothing(self, engine: httpx.AsyncClient, hub: tuple[Hub, str]) -> None:
        await pulled(engine)
        assert (await pulled(engine))[-1] == {"status": "success"}
        assert len(hub[0].ranges) == 1

    async def test_whole_answer(self, engine: httpx.AsyncClient) -> None:
        response = await engine.post("/api/pull", json={"name": NAME, "stream": False})
        assert response.json() == {"status": "success"}
        missing = await engine.post("/api/pull", json={"model": "no-such-model", "stream": False})
        assert (missing.status_code, missing.json()) == (500, {"error": library.UNKNOWN})

    @pytest.mark.parametrize("name", ["hf.co/no/such", "hf.co/org/repo:Q2_K"])
    async def test_unknown_file_is_an_error_line(self, engine: httpx.AsyncClient, name: str) -> None:
        assert (await pulled(engine, name))[-1] == {"error": "pull model manifest: file does not exist"}

    async def test_unknown_name_is_told_with_those_that_are_known(self, engine: httpx.AsyncClient) -> None:
        error = (await pulled(engine, "no-such-model"))[-1]["error"]
        assert error.startswith("pull model manifest: file does not exist")
        assert all(name in error for name in (*LIBRARY, "hf.co/"))

    async def test_bad_names(self, engine: httpx.AsyncClient) -> None:
        for method, path, body, text in (
            ("POST", "/api/pull", {"model": "a b"}, "invalid model name"),
            ("POST", "/api/pull", {"model": ""}, "model is required"),
            ("POST", "/api/pull", {"model": "../../etc/passwd"}, "invalid model name"),
            ("DELETE", "/api/delete", {"model": "a b"}, 'name "a b" is invalid'),
            ("POST", "/api/copy", {"source": "a b"}, 'source "a b" is invalid'),
            ("POST", "/api/copy", {"source": "a", "destination": "../x"}, 'destination "../x" is invalid'),
        ):
            response = await engine.request(method, path, json=body)
            assert (response.status_code, response.json()) == (400, {"error": text})
        response = await engine.request("DELETE", "/api/delete", json={"model": "no"})
        assert (response.status_code, response.json()) == (404, {"error": "model 'no' not found"})
        response = await engine.post("/api/copy", json={"source": "no", "destination": "x"})
        assert (response.status_code, response.json()) == (404, {"error": 'model "no" not found'})

    async def test_others_files_are_not_deleted(self, tmp_path: Path) -> None:
        file = tmp_path / "mine" / "theirs.gguf"
        file.parent.mkdir()
        file.write_bytes(MODEL)
        async with serving(config_for(tmp_path / "data", extra_models=(file,))) as client:
            refused = await client.request("DELETE", "/api/delete", json={"model": "theirs"})
            assert refused.status_code == 400
            assert file.exists()

    async def test_copy_where_the_disk_cannot_link_or_write(
        self, engine: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await pulled(engine)

        def refuse(*_: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr("arena.engine.shelf.os.link", refuse)
        assert (await engine.post("/api/copy", json={"source": NAME, "destination": "b"})).status_code == 200
        monkeypatch.setattr("arena.engine.shelf.shutil.copyfile", refuse)
        response = await engine.post("/api/copy", json={"source": NAME, "destination": "c"})
        assert (response.status_code, response.json()["error"][:32]) == (500, "the model cannot be copied: Inva")

    async def test_projector_comes_and_goes_with_its_model(
        self, engine: httpx.AsyncClient, hub: tuple[Hub, str], tmp_path: Path
    ) -> None:
        hub[0].files["mmproj-m-f16.gguf"] = EYE
        await pulled(engine)
        assert (await engine.post("/api/show", json={"model": NAME})).json()["capabilities"] == ["completion", "vision"]
        await engine.post("/api/copy", json={"source": NAME, "destination": "see"})
        await engine.request("DELETE", "/api/delete", json={"model": NAME})
        assert (await engine.post("/api/show", json={"model": "see"})).json()["capabilities"] == [
            "completion",
            "vision",
        ]
        await engine.request("DELETE", "/api/delete", json={"model": "see"})
        assert models_in(tmp_path) == []


class TestDownloads:
    async def fetch(self, url: str, target: Path, digest: str = "") -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []
        await download(url, target, digest, lambda have, total: seen.append((have, total)))
        return seen

    async def test_goes_on_where_it_stopped(self, hub: tuple[Hub, str], tmp_path: Path) -> None:
        state, url = hub
        state.cut_after = 700
        target = tmp_path / "m.gguf"
        with pytest.raises(DownloadFailed, match=r"700 of|broke"):
            await self.fetch(f"{url}/org/repo/resolve/main/m-Q4_K_M.gguf", target)
        assert not target.exists()
        state.cut_after = None
        seen = await self.fetch(f"{url}/org/repo/resolve/main/m-Q4_K_M.gguf", target, sha(MODEL))
        assert state.ranges == [None, "bytes=700-"]
        assert seen[-1] == (len(MODEL), len(MODEL))
        assert target.read_bytes() == MODEL

    async def test_begins_anew_when_the_server_cannot_resume(self, hub: tuple[Hub, str], tmp_path: Path) -> None:
        state, url = hub
        state.ignore_range = True
        (tmp_path / "m.gguf.part").write_bytes(b"old")
        await self.fetch(f"{url}/org/repo/resolve/main/m-Q4_K_M.gguf", tmp_path / "m.gguf", sha(MODEL).upper())
        assert (tmp_path / "m.gguf").read_bytes() == MODEL

    async def test_part_that_is_the_whole(self, hub: tuple[Hub, str], tmp_path: Path) -> None:
        (tmp_path / "m.gguf.part").write_bytes(MODEL)
        await self.fetch(f"{hub[1]}/org/repo/resolve/main/m-Q4_K_M.gguf", tmp_path / "m.gguf", sha(MODEL))
        assert (tmp_path / "m.gguf").exists()

    async def test_a_part_stays_where_the_server_refuses_the_rest(self, hub: tuple[Hub, str], tmp_path: Path) -> None:
        (tmp_path / "m.gguf.part").write_bytes(b"old")
        with pytest.raises(DownloadFailed, match=r"^404: "):
            await self.fetch(f"{hub[1]}/nowhere", tmp_path / "m.gguf")
        assert (tmp_path / "m.gguf.part").read_bytes() == b"old"

    async def test_an_answer_that_breaks_off(self, tmp_path: Path) -> None:
        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n5\r\nc")
            writer.close()

        async with await asyncio.start_server(half, "127.0.0.1", 0) as server:
            url = "http://{}:{}/x".format(*server.sockets[0].getsockname())
            with pytest.raises(DownloadFailed, match=r"^the connection broke: IncompleteRead"):
                await get(url)
            with pytest.raises(DownloadFailed, match=r"^the connection broke: IncompleteRead"):
                await self.fetch(url, tmp_path / "m.gguf")
        assert (tmp_path / "m.gguf.part").read_bytes() == b"abc", "what has arrived is kept"

    async def test_wrong_bytes_are_thrown_away(self, hub: tuple[Hub, str], tmp_path: Path) -> None:
        with pytest.raises(DownloadFailed, match="digest mismatch"):
            await self.fetch(f"{hub[1]}/org/repo/resolve/main/m-Q4_K_M.gguf", tmp_path / "m.gguf", "00" * 32)
        assert files_in(tmp_path) == []

    async def test_cancel_stops_and_keeps_the_part(self, hub: tuple[Hub, str], tmp_path: Path) -> None:
        state, url = hub
        state.gate = threading.Event()
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def progress(_: int, __: int) -> None:
            loop.call_soon_threadsafe(begun.set)

        address = f"{url}/org/repo/resolve/main/m-Q4_K_M.gguf"
        task = asyncio.create_task(download(address, tmp_path / "m.gguf", "", progress))
        await asyncio.wait_for(begun.wait(), 10)
        task.cancel()
        loop.call_later(0.05, state.gate.set)
        await asyncio.wait({task})
        assert task.cancelled()
        assert (tmp_path / "m.gguf.part").stat().st_size >= 1000
        assert not (tmp_path / "m.gguf").exists()

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1:1/x"])
    async def test_other_addresses(self, url: str) -> None:
        with pytest.raises(DownloadFailed):
            await get(url)

    async def test_disk_that_cannot_be_written(self, hub: tuple[Hub, str], tmp_path: Path) -> None:
        (tmp_path / "m.gguf.part").mkdir()
        with pytest.raises(DownloadFailed, match="cannot be written"):
            await self.fetch(f"{hub[1]}/org/repo/resolve/main/m-Q4_K_M.gguf", tmp_path / "m.gguf")


class TestHub:
    @pytest.mark.parametrize("listing", [b"<html>", b'[{"path": "m-Q4_K_M.gguf", "size": 5}]'])
    async def test_listing_that_cannot_be_trusted(self, hub: tuple[Hub, str], listing: bytes) -> None:
        hub[0].listing = listing
        with pytest.raises(DownloadFailed):
            await resolve(hub[1], HubFile("org/repo", quantization="Q4_K_M"))

    async def test_named_file(self, hub: tuple[Hub, str]) -> None:
        (blob,) = await resolve(hub[1], HubFile("org/repo", "m-Q8_0.gguf"))
        assert blob.sha256 == sha(MODEL[::-1])

    async def test_hub_that_is_not_there(self) -> None:
        with pytest.raises(DownloadFailed, match=r"^127\.0\.0\.1 cannot be reached: Connection refused$"):
            await resolve("http://127.0.0.1:1", HubFile("org/repo", "x"))


class TestJobs:
    def pulls(self, tmp_path: Path, url: str) -> Pulls:
        config = config_for(tmp_path, hub_url=url)
        return Pulls(config, Models(config), Digests(tmp_path / "digests.json"))

    async def watch(self, pulls: Pulls, begun: asyncio.Event) -> list[str]:
        seen = []
        async with aclosing(pulls.pull(NAME)) as lines:
            async for line in lines:
                seen.append(line["status"])
                if line["status"].startswith("pulling ") and "digest" in line:
                    begun.set()
        return seen

    async def test_two_watchers_share_one_download(self, hub: tuple[Hub, str], tmp_path: Path) -> None:
        state, url = hub
        state.gate = threading.Event()
        pulls = self.pulls(tmp_path, url)
        begun = [asyncio.Event(), asyncio.Event(), asyncio.Event()]
        first = asyncio.create_task(self.watch(pulls, begun[0]))
        await asyncio.wait_for(begun[0].wait(), 10)
        second = asyncio.create_task(self.watch(pulls, begun[1]))
        await asyncio.wait_for(begun[1].wait(), 10)
        first.cancel()  # the other still watches: it goes on
        await asyncio.wait({first})
        state.gate.set()
        assert (await second)[-1] == "success"
        assert len(state.ranges) == 1

    async def test_last_watcher_leaving_stops_it(self, hub: tuple[Hub, str], tmp_path: Path) -> None:
        state, url = hub
        state.gate = threading.Event()
        pulls = self.pulls(tmp_path, url)
        begun = asyncio.Event()
        watching = asyncio.create_task(self.watch(pulls, begun))
        await asyncio.wait_for(begun.wait(), 10)
        watching.cancel()
        asyncio.get_running_loop().call_later(0.05, state.gate.set)
        await asyncio.wait({watching})
        assert not path_of(tmp_path / "models", NAME.lower()).exists()
        assert (await self.watch(pulls, asyncio.Event()))[-1] == "success"  # another one: that one has ended
        assert len(state.ranges) == 2

    async def test_closing_tells_the_watchers(self, hub: tuple[Hub, str], tmp_path: Path) -> None:
        state, url = hub
        state.gate = threading.Event()
        pulls = self.pulls(tmp_path, url)
        begun = asyncio.Event()
        watching = asyncio.create_task(self.watch(pulls, begun))
        await asyncio.wait_for(begun.wait(), 10)
        asyncio.get_running_loop().call_later(0.05, state.gate.set)
        await pulls.close()
        with pytest.raises(ArenaError, match="stopped"):
            await watching

    async def test_folder_that_cannot_be_written(self, hub: tuple[Hub, str], tmp_path: Path) -> None:
        (tmp_path / "models").write_bytes(b"a file where the folder should be")
        with pytest.raises(ArenaError, match="cannot be written"):
            await self.watch(self.pulls(tmp_path, hub[1]), asyncio.Event())
