"""Scenarios of volume and malice, and the one that fails now and then."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from tests.fake_ollama import FakeOllama, text_of, tokens_of
from tests.fake_ollama.bending import EVIL_HEADERS
from tests.fake_ollama.payloads import EXFIL, XSS
from tests.fake_ollama.raw import ask_chat, chat, connect, request

pytestmark = pytest.mark.anyio


async def test_endless_goes_on_until_the_client_leaves(fake: FakeOllama) -> None:
    reader, writer = await connect(fake)
    writer.write(request("POST", "/api/chat", chat("fx-endless")))
    await fake.until(lambda: fake.log[:1] != [] and fake.log[0].tokens > 500, 5)
    writer.transport.abort()
    await fake.closed(1)
    assert b'"done":true' not in reader._buffer  # type: ignore[attr-defined]


async def test_big_deep_and_many(fake: FakeOllama) -> None:
    big = await ask_chat(fake, "fx-bigline:mb-2_n-1")
    assert len(big.body.split(b"\n")[0]) > 2 * 1024 * 1024
    assert big.lines[-1]["done"] is True
    deep = await ask_chat(fake, "fx-deep:depth-5000_n-1")
    assert b"[" * 5000 + b"]" * 5000 in deep.body
    many = await ask_chat(fake, "fx-manytokens:n-2000")
    assert many.text == text_of(2000)


async def test_gzip_and_its_bomb(fake: FakeOllama) -> None:
    packed = await ask_chat(fake, "fx-gzip:n-2")
    assert packed.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.body).split(b"\n")[0])["message"]["content"] == tokens_of(2)[0]
    bomb = await ask_chat(fake, "fx-gzip-bomb:mb-16")
    assert len(bomb.body) < 64 * 1024
    assert len(zlib.decompressobj(31).decompress(bomb.body)) > 16 * 1024 * 1024


# hostile and flaky


async def test_evil_headers(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-evil-headers:n-1")
    assert all(f"{name}: {value}" in answer.head for name, value in EVIL_HEADERS)
    assert answer.text == text_of(1)


async def test_payloads(fake: FakeOllama) -> None:
    assert (len(XSS) >= 60, len(EXFIL) >= 12) == (True, True)
    assert XSS[59] in (await ask_chat(fake, "fx-xss:k-59")).text
    assert f"![x]({fake.canary_url}/?q=secret)" in (await ask_chat(fake, "fx-exfil:k-0")).text
    assert "fx-ident" in (await ask_chat(fake, "fx-ident")).text
    assert "\x1b[2J" in (await ask_chat(fake, "fx-ansi")).text


async def test_flaky_fails_the_same_way_each_time(fake: FakeOllama) -> None:
    async def run() -> list[int]:
        fake.reset()
        return [(await ask_chat(fake, "fx-flaky:p-30_n-1")).status for _ in range(40)]

    first = await run()
    assert set(first) == {200, 503}
    assert 4 <= first.count(503) <= 20
    assert await run() == first
