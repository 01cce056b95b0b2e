"""Downloads: progress over all layers, and success only where it is said."""

from __future__ import annotations

import asyncio

import pytest

from arena.errors import ArenaError, UpstreamBroken
from arena.types import (
    PullProgress,
)
from arena.wire import Timeouts
from tests.fake_ollama import FakeOllama
from tests.ollama.test_client import client_of, pulled, said
from tests.peer import Guest, answers, chunked, ok

pytestmark = pytest.mark.anyio


async def test_progress_is_summed_over_layers(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        progress = await pulled(client, "fx-pull:n-4_size-1000")
        assert progress[0] == PullProgress("pulling manifest")
        sums = [(item.completed_bytes, item.total_bytes) for item in progress[1:]]
        assert sums[:6] == [(0, 1000), (250, 1000), (500, 1000), (750, 1000), (1000, 1000), (1512, 1512)]
        assert progress[-1] == PullProgress("success", 1512, 1512)
        assert fake.log[0].body == {"model": "fx-pull:n-4_size-1000", "stream": True}


@pytest.mark.parametrize(
    ("model", "code", "words", "progress"),
    [
        ("fx-pull-err:k-0", "upstream_error", "pull model manifest: file does not exist", 1),
        ("fx-pull-err:k-1", "upstream_error", "412: this model requires a newer version of Ollama", 1),
        ("fx-pull-disk:n-4", "upstream_error", "no space left on device", 3),
        ("fx-pull-stall:n-4", "timeout", "fell silent for 0.5 s", 4),
        ("fx-pull:cut-40", "upstream_reset", "broke off", None),
        ("fx-status:c-500", "upstream_error", "unexpected EOF", 0),
        ("fx-eof0", "upstream_eof", "closed the connection", 0),
        ("fx-empty200", "upstream_eof", "ended the download without success", 0),
    ],
)
async def test_a_failed_download(fake: FakeOllama, model: str, code: str, words: str, progress: int | None) -> None:
    async with client_of(fake.url, timeouts=Timeouts(idle_s=0.5)) as client:
        await client.version()
        got: list[PullProgress] = []
        with pytest.raises(ArenaError) as error:
            await pulled(client, model, got)
        assert (error.value.code, words in error.value.message) == (code, True)
        assert progress is None or len(got) == progress
        assert [record.path for record in fake.log].count("/api/pull") == 1, "sent again"


async def test_leaving_a_download_hangs_up(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        pull = client.pull("fx-gate:id-p")
        async for item in pull:
            if item.total_bytes:
                break
        await pull.aclose()
        await fake.closed(1)
        task = asyncio.ensure_future(pulled(client, "fx-gate:id-q"))
        await fake.arrived(2)
        task.cancel()
        await fake.closed(2)


@pytest.mark.parametrize(
    "body",
    [
        b'{"status":"a"}\n{"status":"success"}',
        b'{"status":"a"}\n\n{"status":"success"}\n{"status":"more"}\n',
        b'{"status":"a","digest":"x","total":-1,"completed":"y"}\n{"status":"success"}\n',
    ],
)
async def test_odd_but_sound_downloads(body: bytes) -> None:
    async with said(answers(ok(body))) as client:
        assert await pulled(client, "m") == [PullProgress("a"), PullProgress("success")]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"status":"a"}\n', "upstream_eof"),
        (b'{"status":7}\n', "malformed"),
        (b'{"foo":1}\n', "malformed"),
        (b"<html>\n", "not_ollama"),
        (b"".join(b'{"status":"a","digest":"%d"}\n' % n for n in range(5000)), "malformed"),
    ],
    ids=["no success", "no text", "no status", "html", "too many layers"],
)
async def test_unsound_downloads(body: bytes, code: str) -> None:
    async with said(answers(ok(body))) as client:
        with pytest.raises(UpstreamBroken) as error:
            await pulled(client, "m")
        assert error.value.code == code


async def test_progress_of_a_layer_may_go_back() -> None:
    sizes = [(10, 100), (60, 100), (20, 100), (100, 100)]
    told = b"".join(b'{"status":"a","digest":"x","completed":%d,"total":%d}\n' % size for size in sizes)
    async with said(answers(ok(told + b'{"status":"success"}\n'))) as client:
        got = await pulled(client, "m")
        assert [(item.completed_bytes, item.total_bytes) for item in got[:-1]] == sizes


async def test_half_a_line_of_progress_is_no_progress() -> None:
    half, rest, end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def script(guest: Guest) -> None:
        if (await guest.request()).line.startswith("GET"):
            await guest.say(ok(b'{"version":"1"}'))
            return
        await guest.say(b'HTTP/1.1 200 OK\r\n\r\n{"status":"a"}\n{"sta')
        for gate, more in ((half, b"tus"), (rest, b'":"b"}\n'), (end, b'{"status":"success"}\n')):
            await gate.wait()
            await guest.say(more)

    async with said(script) as client:
        pull = client.pull("m")
        assert (await anext(pull)).status == "a"
        waiting = asyncio.ensure_future(anext(pull))
        half.set()
        await client.version()
        rest.set()
        assert (await waiting).status == "b"
        end.set()
        assert [item.status async for item in pull] == ["success"]


async def test_a_download_told_faster_than_it_is_heard_is_held_back() -> None:
    many = b"".join(b'{"status":"%d"}\n' % number for number in range(2000))
    async with said(answers(chunked(many, many, b'{"status":"success"}\n'))) as client:
        progress = await pulled(client, "m")
        assert len(progress) == 4001
