"""OllamaClient: what it sends, what it makes of the lines, the counters and the lists."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arena.errors import ArenaError, BadRequest, Busy, ModelNotFound, UpstreamBroken, UpstreamError
from arena.ollama import OllamaClient
from arena.ollama.answer import Budget, ChatAnswer, Stopwatch, counted
from arena.ollama.failures import error_text
from arena.ollama.lines import MAX_LINE_BYTES, Lines, clean
from arena.streaming import Mailbox, Outlet
from arena.types import (
    Batch,
    ChatMessage,
    ChatRequest,
    Delta,
    Finished,
    LoadedModel,
    Metrics,
    ModelInfo,
    ModelInstance,
    Options,
    PullProgress,
)
from arena.wire import Call, Timeouts
from tests.fake_ollama import FakeOllama, text_of
from tests.peer import Guest, Peer, Script, answers, chunked, ok

pytestmark = pytest.mark.anyio

HELLO = (ChatMessage("user", "Hello"),)


@asynccontextmanager
async def client_of(url: str, **settings: Any) -> AsyncIterator[OllamaClient]:
    client = OllamaClient(url, name="fake", **settings)
    try:
        async with asyncio.timeout(20):
            yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def said(script: Script, **settings: Any) -> AsyncIterator[OllamaClient]:
    """A client of a peer that says exactly what the test wants."""
    async with Peer(script) as peer, client_of(peer.url, **settings) as client:
        yield client


def status(code: int, body: bytes, *fields: str) -> bytes:
    return ok(body, *fields).replace(b"200 OK", b"%d Status" % code)


async def answered(client: OllamaClient, request: ChatRequest, contended: Callable[[], bool] | None = None) -> Batch:
    """All events of one chat."""
    mailbox = Mailbox(1)
    await client.chat(request, Outlet(request.instance.id, mailbox), contended=contended)
    return await mailbox.get() or []


# requests


async def test_what_a_chat_sends(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        instance = ModelInstance(
            "a", "fx-vision", Options(temperature=0, seed=7, stop=("END",)), system="Be brief.", think=False
        )
        history = (
            ChatMessage("user", "Look", images=("aGk=",)),
            ChatMessage("assistant", "", thinking="hm", extra={"tool_calls": [{"id": "1"}], "role": "forged"}),
            ChatMessage("tool", "42", extra={"tool_name": "sum"}),
        )
        await answered(client, ChatRequest(instance, history))
        assert fake.log[0].body == {
            "model": "fx-vision",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Look", "images": ["aGk="]},
                {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [{"id": "1"}]},
                {"role": "tool", "content": "42", "tool_name": "sum"},
            ],
            "stream": True,
            "truncate": False,
            "options": {"temperature": 0, "seed": 7, "stop": ["END"]},
            "think": False,
        }


async def test_what_is_not_set_is_not_sent(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        own = (ChatMessage("system", "Mine."), *HELLO)
        await answered(client, ChatRequest(ModelInstance("a", "fx-ok", system="Yours."), own))
        assert fake.log[0].body == {
            "model": "fx-ok",
            "messages": [{"role": "system", "content": "Mine."}, {"role": "user", "content": "Hello"}],
            "stream": True,
            "truncate": False,
        }


async def test_half_a_character_is_refused_before_anything_is_sent(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        with pytest.raises(BadRequest, match="lone surrogate"):
            await answered(client, ChatRequest(ModelInstance("a", "fx-ok"), (ChatMessage("user", "\ud800"),)))
        assert fake.log == []


async def test_our_own_credentials_for_an_endpoint_are_sent(fake: FakeOllama) -> None:
    async with client_of(fake.url, headers=[("Authorization", "Bearer upstream")]) as client:
        await client.version()
        assert fake.log[0].headers["authorization"] == "Bearer upstream"


async def test_a_model_that_cannot_think_says_so() -> None:
    text = b'{"error":"\\"plain\\" does not support thinking"}'
    async with said(answers(status(400, text))) as client:
        with pytest.raises(UpstreamError) as error:
            await answered(client, ChatRequest(ModelInstance("a", "plain", think=True), HELLO))
        assert (error.value.message, error.value.upstream_status) == ('"plain" does not support thinking', 400)


# the stream


async def test_one_delta_a_line_and_then_the_end(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        *deltas, end = await answered(client, ChatRequest(ModelInstance("a", "fx-ok:n-3"), HELLO))
        assert [type(event) for event in deltas] == [Delta] * 3
        assert "".join(cast(Delta, event).text for event in deltas) == text_of(3)
        assert isinstance(end, Finished)


async def test_figures_of_an_answer(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        request = ChatRequest(ModelInstance("a", "fx-ok:n-20_prompt-10_queue-300_load-100"), HELLO)
        end = (await answered(client, request))[-1]
        assert isinstance(end, Finished)
        figures = end.metrics
        assert (figures.tokens, figures.duration_s, figures.tokens_per_sec) == (20, 0.4, 50)
        assert (figures.load_s, figures.prompt_s) == (0.1, 0.01)
        assert figures.queue_s == pytest.approx(0.3)
        assert (figures.prompt_tokens, figures.prompt_cached, figures.done_reason) == (10, None, "stop")
        assert (figures.rate_reliable, figures.cut_by_limit, figures.contended) == (True, False, False)
        assert figures.ttft_s is not None
        assert figures.ttft_s == figures.first_visible_s
        assert figures.total_s is not None
        assert figures.total_s >= figures.ttft_s
        assert figures.server_total_s == pytest.approx(0.81)


async def test_contention_makes_the_rate_unreliable(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        end = (await answered(client, ChatRequest(ModelInstance("a", "fx-ok"), HELLO), lambda: True))[-1]
        assert isinstance(end, Finished)
        assert (end.metrics.contended, end.metrics.rate_reliable) == (True, False)
        assert end.metrics.tokens_per_sec == pytest.approx(50)


async def test_thoughts_count_for_the_first_token_but_not_for_the_first_visible_one() -> None:
    now_s = 0.0
    go = asyncio.Event()

    async def script(guest: Guest) -> None:
        await guest.request()
        await guest.say(chunked(line(thinking="hm"), end=False))
        await go.wait()
        await guest.say(chunked(line("yes"), line(done=True)).partition(b"\r\n\r\n")[2])

    async with said(script, clock=lambda: now_s) as client:
        mailbox = Mailbox(1)
        outlet = Outlet("a", mailbox)
        now_s = 10.0
        task = asyncio.ensure_future(client.chat(ChatRequest(ModelInstance("a", "m"), HELLO), outlet))
        now_s = 10.0
        await asyncio.sleep(0)
        now_s = 12.0
        assert await mailbox.get() == [Delta("a", "", "hm")]
        assert outlet.metrics_so_far() == Metrics(ttft_s=2.0, first_visible_s=None, total_s=2.0)
        now_s = 15.0
        go.set()
        await task
        events = await mailbox.get()
        assert events is not None
        assert events[0] == Delta("a", "yes")
        end = events[-1]
        assert isinstance(end, Finished)
        assert (end.metrics.ttft_s, end.metrics.first_visible_s, end.metrics.total_s) == (2.0, 5.0, 5.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_deltas": 100}, "cut at 100 pieces of text"),
        ({"max_bytes": 5000}, "cut at 5000 bytes"),
        ({"timeouts": Timeouts(total_s=0.05)}, "took longer than 0.05 s"),
    ],
)
async def test_an_endless_answer_is_cut_at_its_budget(fake: FakeOllama, settings: dict[str, Any], words: str) -> None:
    async with client_of(fake.url, **settings) as client:
        mailbox = Mailbox(1)
        with pytest.raises(ArenaError) as error:
            await client.chat(ChatRequest(ModelInstance("a", "fx-endless"), HELLO), Outlet("a", mailbox))
        assert (error.value.code, words in error.value.message) == ("budget_exceeded", True)
        await fake.closed(1)
        if "max_deltas" in settings:
            assert len(await mailbox.get() or []) == 100


async def test_the_lane_does_not_wake_for_tokens(fake: FakeOllama) -> None:
    """One sleep for the whole stream: however many reads there were."""
    async with client_of(fake.url) as client:
        awaited = 0

        class Lane:
            def __await__(self) -> Any:
                nonlocal awaited
                steps = client.chat(request, Outlet("a", Mailbox(1))).__await__()
                for step in steps:
                    awaited += 1
                    yield step

        request = ChatRequest(ModelInstance("a", "fx-slicer:n-100_k-5"), HELLO)
        await Lane()
        assert awaited == 1


# lines to events


def line(text: str | None = None, *, done: bool = False, **more: Any) -> bytes:
    """One line as Ollama writes it."""
    thinking = {key: more.pop(key) for key in ("thinking",) if key in more}
    message = {"role": "assistant", "content": text or "", **thinking}
    return json.dumps({"model": "m", "message": message, "done": done, **more}, ensure_ascii=False).encode() + b"\n"


class Stub:
    """The part of a call that an answer needs."""

    def __init__(self, code: int = 200) -> None:
        self.status = code
        self.headers = ()
        self.released = False

    def release(self) -> None:
        self.released = True


def told(*reads: bytes, deltas: int = 1000) -> tuple[Batch, tuple[str, str] | None]:
    """The events of an answer that comes in these reads and then ends, and the error (code, message) it ends with."""
    mailbox = Mailbox(1)
    answer = ChatAnswer("e", Outlet("a", mailbox), Stopwatch(lambda: 0.0), Budget(deltas, 10**9), None)
    stub = Stub()
    answer.call = cast(Call, stub)
    error = None
    try:
        for data in reads:
            answer.on_data(data)
            if stub.released:
                break
        answer.ended()
    except ArenaError as raised:
        error = (raised.code, raised.message)
    return mailbox._batch, error


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["\u0085", "\u2028", "🙂", '"\\']
)
PIECES = st.one_of(
    TEXTS.map(line),
    TEXTS.map(lambda text: line(thinking=text)),
    st.just(line("x", done=True, eval_count=3)),
    st.sampled_from([
        b"\n", b" \r\n", line("x").replace(b"x", b"\xff\xfe"), line("x").replace(b"x", b"\\ud800"),
        line("x").replace(b"\n", b"\r\n"),
        b'{"error":"boom"}\n', line("x", error="boom"), b'{"message":null,"done":false}\n',
        b'{"done":true}\n', b'{"message":{"content":7},"done":false}\n', b"not json\n", b"<html>\n", b"[]\n",
        line("x", extra=[1, {"a": None}]), line("x", tool_calls=[]), b'{"message":{"content":null},"done":false}\n',
        b'{"message":{"content":"a"},"x":NaN}\n', b'{"message":{"content":"a"},"done":"yes"}\n',
    ]),
)  # fmt: skip


@given(st.lists(PIECES, max_size=12), st.lists(st.integers(1, 60), max_size=40), st.booleans(), st.integers(1, 6))
@example([line("a"), line("b", done=True)], [1] * 40, True, 5)
def test_any_split_of_the_stream_gives_the_same_events(
    pieces: list[bytes], sizes: list[int], cut_end: bool, deltas: int
) -> None:
    whole = b"".join(pieces)
    if cut_end:
        whole = whole[:-1]
    reads, rest = [], whole
    for size in sizes:
        reads.append(rest[:size])
        rest = rest[size:]
    split = [read for read in [*reads, rest] if read]
    assert told(*split, deltas=deltas) == told(whole, deltas=deltas) if whole else told()


def texts(*reads: bytes) -> tuple[str, str | None]:
    """The text of an answer, and the code of the error it ends with."""
    events, error = told(*reads)
    return "".join(event.text for event in events if isinstance(event, Delta)), error[0] if error else None


@pytest.mark.parametrize(
    ("reads", "expected"),
    [
        ((), ("", "upstream_eof")),
        ((line("a"), line("b")), ("ab", "upstream_eof")),
        ((line("a"), line("b", done=True)), ("ab", None)),
        ((line("a") + line("b", done=True) + line("c") + line("d", done=True),), ("ab", None)),
        ((line("a"), line("b", done=True)[:-1]), ("ab", None)),
        ((line("a"), line("b")[:-1]), ("ab", "upstream_truncated")),
        ((line("a"), line("b", done=True)[:-2]), ("a", "upstream_truncated")),
        ((line("a\u0085b\u2028c\x00"), line(done=True)), ("a\u0085b\u2028c\x00", None)),
        ((line("a") + b'{"error":"boom"}\n',), ("a", "upstream_error")),
        ((line("a") + line("b", error="boom"),), ("a", "upstream_error")),
        ((line("a", error=None), line(done=True)), ("a", None)),
        ((b'{"error":"boom"}',), ("", "upstream_error")),
        ((line("a") + b"[]\n",), ("a", "malformed")),
        ((b'{"foo":1}\n',), ("", "malformed")),
        ((b'{"message":[],"done":false}\n',), ("", None)),
        ((b'{"message":[1],"done":false}\n',), ("", "malformed")),
        ((b'{"message":{"content":"a","thinking":1},"done":false}\n',), ("", "malformed")),
        ((b"<html>",), ("", "not_ollama")),
        ((b"9" * 5000 + b"\n",), ("", "malformed")),
        ((b'{"message":{"content":"a"},"n":' + b"9" * 5000 + b"}\n",), ("a", "upstream_eof")),
        ((b'{"message":{"content":"a"},"n":' + b"[" * 200_000 + b"\n",), ("", "malformed")),
    ],
)
def test_what_becomes_of_lines(reads: tuple[bytes, ...], expected: tuple[str, str | None]) -> None:
    text, code = expected
    assert texts(*reads) == (text, code if code or b"[]" not in b"".join(reads) else "upstream_eof")


def test_empty_lines_of_text_are_no_events() -> None:
    events, _ = told(line(""), line("a"), line(""), line(done=True))
    assert [type(event) for event in events] == [Delta, Finished]


def test_a_line_may_be_long_but_not_endless() -> None:
    assert texts(line("x" * 600_000), line(done=True)) == ("x" * 600_000, None)
    lines = Lines("e")
    block = b"x" * 65536
    for _ in range(MAX_LINE_BYTES // 65536):
        assert lines.feed(block) == b""
    with pytest.raises(UpstreamBroken) as error:
        lines.feed(b"x")
    assert (error.value.code, lines.rest()) == ("line_too_long", b"")
    lines = Lines("e")
    for _ in range(MAX_LINE_BYTES // 65536):
        lines.feed(block)
    assert len(lines.feed(b"\nnext")) == MAX_LINE_BYTES + 1
    assert lines.rest() == b"next"
    for _ in range(MAX_LINE_BYTES // 65536 - 1):
        lines.feed(block)
    with pytest.raises(UpstreamBroken):
        lines.feed(block + b"\n")


def test_half_characters_become_marks() -> None:
    assert clean("a\ud800b") == "a\ufffdb"
    assert clean("\ud83d\ude00") == "😀"


# counters


FULL = {
    "total_duration": 1_000_000_000, "load_duration": 100_000_000, "prompt_eval_count": 9,
    "prompt_eval_duration": 200_000_000, "eval_count": 32, "eval_duration": 640_000_000, "done_reason": "stop",
}  # fmt: skip


def without(*names: str, **changes: Any) -> Metrics:
    return counted({key: value for key, value in {**FULL, **changes}.items() if key not in names}, Metrics())


def test_counters_become_seconds() -> None:
    figures = counted({**FULL, "total_duration": 1_003_000_000}, Metrics(ttft_s=0.3, first_visible_s=0.4, total_s=1.1))
    assert round(figures.queue_s or 0, 9) == 0.063
    assert msgspec.structs.replace(figures, queue_s=None) == Metrics(
        tokens=32,
        duration_s=0.64,
        tokens_per_sec=50.0,
        rate_reliable=True,
        ttft_s=0.3,
        first_visible_s=0.4,
        total_s=1.1,
        server_total_s=1.003,
        load_s=0.1,
        prompt_tokens=9,
        prompt_s=0.2,
        done_reason="stop",
    )


@pytest.mark.parametrize(
    ("figures", "rate", "reliable"),
    [
        (without(), 50.0, True),
        (without(eval_count=15, eval_duration=300_000_000), 50.0, False),
        (without(eval_count=16, eval_duration=320_000_000), 50.0, True),
        (without(eval_count=1, eval_duration=1000), None, False),
        (without(eval_duration=999_999), None, False),
        (without("eval_duration"), None, False),
        (without("eval_count"), None, False),
        (without(eval_count=0), None, False),
        (without(eval_count=float("nan"), eval_duration=float("inf")), None, False),
        (without(eval_count=True), None, False),
        (without(eval_count=-3), None, False),
        (without(eval_duration=2**63), None, False),
        (without(eval_count="32"), None, False),
    ],
)
def test_a_rate_is_given_only_where_it_was_measured(figures: Metrics, rate: float | None, reliable: bool) -> None:
    assert (figures.tokens_per_sec, figures.rate_reliable) == (pytest.approx(rate) if rate else None, reliable)


def test_what_is_missing_stays_unknown() -> None:
    assert counted({}, Metrics()) == Metrics()
    assert without("load_duration").queue_s is None
    assert without("total_duration").queue_s is None
    assert without("prompt_eval_duration").queue_s == pytest.approx(0.26)
    assert without(total_duration=5).queue_s == 0.0
    assert without(done_reason=7).done_reason is None


def test_cache_and_limit_are_flagged() -> None:
    assert without().prompt_cached is None
    assert without(prompt_eval_cached_count=0).prompt_cached is False
    assert without(prompt_eval_cached_count=8).prompt_cached is True
    assert without(done_reason="length").cut_by_limit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"error": "plain"}, "plain"),
        ({"error": '{"error":{"code":400,"message":"too long","type":"x"}}'}, "too long"),
        ({"error": {"message": "as OpenAI"}}, "as OpenAI"),
        ({"error": '{"foo":1}'}, '{"foo":1}'),
        ({"error": "{broken"}, "{broken"),
        ({"error": ""}, None),
        ({"error": 7}, None),
        ({"foo": 1}, None),
        ([], None),
        (None, None),
        ({"error": "a\ud800"}, "a\ufffd"),
    ],
)
def test_errors_in_the_endpoints_own_words(value: Any, text: str | None) -> None:
    assert error_text(value) == text


async def test_an_error_line_without_words() -> None:
    async with said(answers(ok(b'{"error":{}}\n'))) as client:
        with pytest.raises(UpstreamError, match="fake failed without saying why"):
            await answered(client, ChatRequest(ModelInstance("a", "m"), HELLO))


async def test_an_error_that_never_ends_is_cut_short() -> None:
    async def script(guest: Guest) -> None:
        await guest.request()
        await guest.say(b"HTTP/1.1 500 Oh\r\n\r\n")
        while True:
            await guest.say(b"x" * 10_000)

    async with said(script) as client:
        with pytest.raises(UpstreamError, match="status 500: xxx") as error:
            await answered(client, ChatRequest(ModelInstance("a", "m"), HELLO))
        assert len(error.value.message) < 300
        with pytest.raises(UpstreamError, match="status 500: xxx"):
            await pulled(client, "m")


# lists


async def test_version_and_lists_of_the_fake(fake: FakeOllama) -> None:
    async with client_of(fake.url + "/") as client:
        assert client.url == fake.url + "/"
        assert (await client.version())[0].isdigit()
        models = await client.tags()
        assert [model.name for model in models] == fake.models
        assert all(model.endpoints == ("fake",) and model.size_bytes > 0 for model in models)
        assert all(len(model.digest) == 64 for model in models)
        assert await client.ps() == ()
        await client.load(models[0].name, num_ctx=1024)
        (loaded,) = await client.ps()
        assert (loaded.name, loaded.endpoint, loaded.context_length) == (models[0].name, "fake", 1024)
        await client.unload(models[0].name)
        assert await client.ps() == ()
        shown = await client.show(models[0].name)
        assert shown.name == models[0].name
        assert shown.capabilities is not None
        assert "completion" in shown.capabilities
        await client.delete(models[0].name)
        assert models[0].name not in {model.name for model in await client.tags()}
        with pytest.raises(ModelNotFound, match="not found"):
            await client.delete(models[0].name)
        with pytest.raises(ModelNotFound, match="not found"):
            await client.load("nobody:1b")


async def test_a_full_list_entry() -> None:
    entry = {
        "name": "m:1b", "model": "m:1b", "modified_at": "2026-11-22T03:07:40.1+00:00",
        "size": 98, "digest": "sha256:ab",
        "details": {"family": "llama", "families": None, "parameter_size": "1B", "quantization_level": "Q4_1",
                    "context_length": 8192},
        "capabilities": ["completion", "vision"],
    }  # fmt: skip
    async with said(answers(ok(json.dumps({"models": [entry]}).encode()))) as client:
        assert await client.tags() == (
            ModelInfo(
                name="m:1b",
                endpoints=("fake",),
                size_bytes=98,
                digest="ab",
                family="llama",
                parameter_size="1B",
                quantization="Q4_1",
                context_length=8192,
                capabilities=("completion", "vision"),
                modified_at="2026-11-22T03:07:40.1+00:00",
            ),
        )
    entry = {"model": "m:1b", "size": 98, "size_vram": 49, "context_length": 4096, "expires_at": "2319-01-01T00:00:00Z"}
    async with said(answers(ok(json.dumps({"models": [entry]}).encode()))) as client:
        assert await client.ps() == (LoadedModel("m:1b", "fake", 98, 49, 4096, "2319-01-01T00:00:00Z"),)


@pytest.mark.parametrize(
    "body",
    [b'{"models":null}', b'{"models":[]}', b'{"models":[{"name":"m","details":null}]}', b'{"models":[{"name":"m"}]}'],
)
async def test_sparse_lists(body: bytes) -> None:
    async with said(answers(ok(body))) as client:
        assert [model.name for model in await client.tags()] in ([], ["m"])


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (ok(b"Ollama is running"), "malformed"),
        (ok(b"<html>"), "not_ollama"),
        (ok(b"{}"), "malformed"),
        (ok(b""), "malformed"),
        (ok(b'{"models":[{"name":7}]}'), "malformed"),
        (status(404, b"404 page not found"), "not_ollama"),
        (status(503, b""), "busy"),
        (status(500, b""), "upstream_error"),
    ],
)
async def test_a_list_that_is_none(wire: bytes, code: str) -> None:
    async with said(answers(wire)) as client:
        for ask in (client.tags, client.ps):
            with pytest.raises(ArenaError) as error:
                await ask()
            assert error.value.code == code


@pytest.mark.parametrize(
    ("body", "context"),
    [
        ({"model_info": {"general.architecture": "llama", "llama.context_length": 8192}}, 8192),
        ({"model_info": {"llama.context_length": None}}, None),
        ({"model_info": None, "details": {"family": None}}, None),
        ({}, None),
    ],
)
async def test_the_training_context_is_found(body: dict[str, Any], context: int | None) -> None:
    async with said(answers(ok(json.dumps({"capabilities": ["completion"], **body}).encode()))) as client:
        shown = await client.show("m")
        assert (shown.name, shown.context_length, shown.capabilities) == ("m", context, ("completion",))


async def test_a_failure_under_status_200_is_a_failure() -> None:
    async with said(answers(ok(b'{"error":"out of memory"}'))) as client:
        with pytest.raises(UpstreamError, match="out of memory"):
            await client.load("m")


async def test_busy_tells_what_ollama_said() -> None:
    async with said(answers(status(503, b'{"error":"server busy, please try again"}'))) as client:
        with pytest.raises(Busy) as error:
            await client.load("m")
        assert (error.value.message, error.value.details) == ("fake: server busy", "server busy, please try again")


# pull


async def pulled(client: OllamaClient, model: str, got: list[PullProgress] | None = None) -> list[PullProgress]:
    """All progress; in `got` also if it ends badly."""
    got = [] if got is None else got
    async for progress in client.pull(model):
        got.append(progress)
    return got


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
