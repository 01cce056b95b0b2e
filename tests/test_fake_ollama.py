"""The fake is the judge of all other tests, so each of its scenarios is checked here byte by byte."""

from __future__ import annotations

import asyncio
import json
import re
import time

import pytest

from tests.fake_ollama import SCENARIOS, FakeOllama, checksum, text_of, text_said_by, tokens_of
from tests.fake_ollama.raw import Answer, ask_chat, chat, connect, depart, exchange, request
from tests.fake_ollama.stopwatch import Stopwatch
from tests.fake_ollama.texts import UNICODE

pytestmark = pytest.mark.anyio

COUNTERS = {
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
}


async def test_a_good_stream_has_ollamas_fields_and_types(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-ok:n-3")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    *lines, last = answer.lines
    assert [line["message"] for line in lines] == [{"role": "assistant", "content": t} for t in tokens_of(3)]
    assert all(set(line) == {"model", "created_at", "message", "done"} and line["done"] is False for line in lines)
    assert last["done"] is True
    assert last["done_reason"] == "stop"
    assert last["message"] == {"role": "assistant", "content": ""}
    assert all(isinstance(last[name], int) for name in COUNTERS)
    assert last["eval_count"] == 3
    assert last["eval_duration"] == 60_000_000
    assert last["prompt_eval_count"] == 2
    assert (last["fx_count"], last["fx_sha256"]) == (3, checksum(text_of(3)))
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*[1-9])?Z", line["created_at"]) for line in answer.lines
    )


async def test_each_line_is_a_chunk_and_the_last_write_ends_the_body(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-ok:n-4")
    assert len(answer.chunks) == 5
    assert all(chunk.endswith(b"\n") and chunk.count(b"\n") == 1 for chunk in answer.chunks)
    assert answer.wire.endswith(b"\r\n0\r\n\r\n")


async def test_a_model_listed_by_name_answers_like_ok_and_echoes_the_name_as_sent(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "LLAMA3.2:3B")
    assert answer.text == text_of(20)
    assert answer.lines[0]["model"] == "LLAMA3.2:3B"


async def test_one_object_without_a_stream(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-ok:n-3", stream=False)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json["message"]["content"] == text_of(3)
    assert answer.json["done"] is True
    assert set(answer.json) >= COUNTERS


@pytest.mark.parametrize(
    ("limit", "count", "reason"), [(2, 2, "length"), (3, 3, "stop"), (-1, 3, "stop"), (9, 3, "stop")]
)
async def test_num_predict_limits(fake: FakeOllama, limit: int, count: int, reason: str) -> None:
    last = (await ask_chat(fake, "fx-ok:n-3", options={"num_predict": limit})).lines[-1]
    assert (last["eval_count"], last["done_reason"]) == (count, reason)


async def test_the_text_depends_on_seed_and_index_alone() -> None:
    assert text_of(5) == text_of(9)[: len(text_of(5))]
    assert text_of(5) != text_of(5, seed=2)
    assert len(text_of(40).encode()) > len(text_of(40))
    assert all(len(token.encode()) == 11 for token in tokens_of(30, size=11))


# bent, but right


async def test_sizes_and_seeds_from_the_name(fake: FakeOllama) -> None:
    assert (await ask_chat(fake, "fx-ok:n-3_seed-7_size-100")).text == text_of(3, 7, 100)


async def test_thoughts_come_first_in_lines_of_their_own_and_count(fake: FakeOllama) -> None:
    lines = (await ask_chat(fake, "fx-think:n-2_think-3")).lines
    assert [("thinking" in line["message"], line["message"]["content"] == "") for line in lines] == (
        [(True, True)] * 3 + [(False, False)] * 2 + [(False, True)]
    )
    assert lines[-1]["eval_count"] == 5
    silent = await ask_chat(fake, "fx-think:n-2", think=False)
    assert len(silent.lines) == 3
    cut = await ask_chat(fake, "fx-think:n-2_think-3", options={"num_predict": 2})
    assert [cut.text, cut.lines[-1]["done_reason"], len(cut.lines)] == ["", "length", 3]


async def test_a_tool_call_comes_whole_in_one_line(fake: FakeOllama) -> None:
    lines = (await ask_chat(fake, "fx-tools:n-1")).lines
    assert lines[1]["message"]["tool_calls"][0]["function"]["arguments"] == {"city": "Zürich", "days": 2}
    assert lines[2]["done_reason"] == "stop"
    whole = await ask_chat(fake, "fx-tools:n-1", stream=False)
    assert whole.json["message"]["tool_calls"] == lines[1]["message"]["tool_calls"]


async def test_unicode_keeps_line_separators_raw_where_go_does(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-unicode")
    assert answer.text == "".join(UNICODE) == text_said_by("fx-unicode")
    assert "\u0085".encode() in answer.body
    assert not [mark for mark in ("\u2028", "\u2029", "<", ">", "&") if mark.encode() in answer.body]
    assert b"\\u003cb\\u003e" in answer.body


async def test_split_sends_each_byte_as_a_chunk(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-split:n-2")
    assert all(len(chunk) == 1 for chunk in answer.chunks)
    assert answer.text == text_of(2)


async def test_slicer_sends_small_segments(fake: FakeOllama) -> None:
    reader, writer = await connect(fake)
    writer.write(request("POST", "/api/chat", chat("fx-slicer:n-2_k-3")))
    sizes = []
    received = b""
    while piece := await reader.read(2**16):
        sizes.append(len(piece))
        received += piece
    writer.close()
    assert min(sizes) <= 3
    assert len(sizes) > 20
    assert Answer(received).text == text_of(2)


async def test_longline(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-longline:kb-600")
    assert max(map(len, answer.body.split(b"\n"))) > 600 * 1024
    assert answer.text == text_said_by("fx-longline:kb-600")


@pytest.mark.parametrize("scenario", ["crlf", "blank", "keyorder", "extra", "nocl"])
async def test_bent_streams_still_say_the_same(fake: FakeOllama, scenario: str) -> None:
    answer = await ask_chat(fake, f"fx-{scenario}:n-3")
    assert answer.text == text_of(3)
    shapes = {
        "crlf": answer.body.count(b"}\r\n") == 4,
        "blank": answer.body.count(b"\n \n") == 4,
        "keyorder": list(answer.lines[0]) == ["done", "message", "created_at", "model"],
        "extra": {"x_unknown", "zz"} <= set(answer.lines[0]) and "unknown" in answer.lines[0]["message"],
        "nocl": not {"content-length", "transfer-encoding"} & set(answer.headers),
    }
    assert shapes[scenario]


@pytest.mark.parametrize(
    ("scenario", "gone"),
    [
        ("nometrics", COUNTERS),
        ("noeval", {"eval_duration"}),
        ("noprompt", {"prompt_eval_count", "prompt_eval_duration"}),
        ("cached", set()),
    ],
)
async def test_odd_counters(fake: FakeOllama, scenario: str, gone: set[str]) -> None:
    last = (await ask_chat(fake, f"fx-{scenario}")).lines[-1]
    assert COUNTERS - set(last) == gone
    assert ("prompt_eval_cached_count" in last) == (scenario == "cached")


async def test_nan_counters_are_no_json(fake: FakeOllama) -> None:
    assert b'"eval_count":NaN' in (await ask_chat(fake, "fx-nan")).body


async def test_empty_answer(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-empty")
    assert [answer.text, len(answer.lines)] == ["", 1]
    assert COUNTERS - set(answer.lines[0]) == {"eval_count", "eval_duration"}


async def test_counters_follow_the_name(fake: FakeOllama) -> None:
    last = (await ask_chat(fake, "fx-ok:queue-300_prompt-40_load-1")).lines[-1]
    assert last["prompt_eval_count"] == 40
    parts = last["load_duration"] + last["prompt_eval_duration"] + last["eval_duration"]
    assert last["load_duration"] == 1_000_000
    assert last["total_duration"] - parts == 300_000_000


@pytest.mark.parametrize(("model", "least_s"), [("fx-slow:n-3_ms-10", 0.03), ("fx-load:n-1_load-30", 0.03)])
async def test_slow_ones_take_their_time(fake: FakeOllama, model: str, least_s: float) -> None:
    await ask_chat(fake, model)
    record = fake.log[0]
    assert record.last_byte_at is not None
    assert record.first_byte_at is not None
    assert record.last_byte_at - record.requested_at >= least_s
    assert (record.first_byte_at - record.requested_at >= least_s) == model.startswith("fx-load")


async def test_jitter_and_ttft_and_bandwidth(fake: FakeOllama) -> None:
    assert (await ask_chat(fake, "fx-jitter:n-3_ms-2")).text == text_of(3)
    assert (await ask_chat(fake, "fx-ok:n-1_ttft-5")).text == text_of(1)
    began = time.monotonic()
    assert (await ask_chat(fake, "fx-bandwidth:n-4_size-1024_kbs-100")).text == text_of(4, size=1024)
    assert time.monotonic() - began >= 0.04


# statuses


@pytest.mark.parametrize(
    ("model", "status", "error"),
    [
        ("fx-status:c-500", 500, "an error was encountered while running the model: unexpected EOF"),
        ("fx-status:c-503", 503, "server busy, please try again.  maximum pending requests exceeded"),
        ("fx-status:c-404", 404, "model 'fx-status:c-404' not found"),
        ("fx-status:c-401", 401, "unauthorized"),
        ("fx-status:c-418", 418, "the fake answers 418"),
        ("nosuch:1b", 404, "model 'nosuch:1b' not found"),
        ("fx-nosuch", 400, "the fake has no scenario fx-nosuch"),
        ("fx-ok:zz-1", 400, "the fake has no key 'zz'"),
        ("fx-ok:n-x", 400, "the fake wants a number after n-"),
        ("a b", 400, "invalid model name"),
    ],
)
async def test_errors_before_any_output(fake: FakeOllama, model: str, status: int, error: str) -> None:
    answer = await ask_chat(fake, model)
    assert (answer.status, answer.json) == (status, {"error": error})


async def test_retry_after_nested_and_plain_text_errors(fake: FakeOllama) -> None:
    assert (await ask_chat(fake, "fx-status:c-429_ra-2")).headers["retry-after"] == "2"
    nested = json.loads((await ask_chat(fake, "fx-status:c-400_kind-nested")).json["error"])
    assert nested["error"]["type"] == "exceed_context_size_error"
    plain = await ask_chat(fake, "fx-status:c-404_kind-text")
    assert (plain.body, plain.headers["content-type"]) == (b"404 page not found", "text/plain; charset=utf-8")


async def test_redirect_leads_to_the_canary(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-redirect")
    assert (answer.status, answer.headers["location"]) == (302, f"{fake.canary_url}/redirected")
    assert fake.canary_hits == []


async def test_html_and_nothing_and_a_lot(fake: FakeOllama) -> None:
    html = await ask_chat(fake, "fx-html")
    assert (html.status, html.body[:15]) == (200, b"<!doctype html>")
    empty = await ask_chat(fake, "fx-empty200")
    assert (empty.status, empty.body) == (200, b"")
    big = await ask_chat(fake, "fx-bigerr:mb-2")
    assert (big.status, len(big.json["error"])) == (500, 2 * 1024 * 1024)


# before any byte


@pytest.mark.parametrize("leave", ["fin", "rst"])
@pytest.mark.parametrize(
    ("model", "before"), [("fx-hang", b""), ("fx-halfhead", b"HTTP/1.1 200 OK\r\nContent-Type: applicat")]
)
async def test_silence_lasts_until_the_client_leaves(fake: FakeOllama, model: str, before: bytes, leave: str) -> None:
    reader, writer = await connect(fake)
    writer.write(request("POST", "/api/chat", chat(model)))
    assert await reader.readexactly(len(before)) == before
    await fake.arrived()
    assert (fake.open, fake.log[0].ended) == (1, None)
    watch = Stopwatch()
    depart(writer, leave)
    await fake.closed(1)
    record = fake.log[0]
    assert record.ended == leave
    assert record.ended_at is not None
    assert record.ended_at >= watch.began_s
    assert watch.own_s(record.ended_at) < 0.5
    assert fake.open == 0


@pytest.mark.parametrize(
    ("model", "wire", "reset"),
    [
        ("fx-eof0", b"", False),
        ("fx-rst0", b"", True),
        ("fx-rst-head", b"HTTP/1.1 200 OK\r\n", True),
        ("fx-http09", b"\x16\x03\x01 this is no HTTP at all\n\xff\xfe", False),
    ],
)
async def test_connections_cut_early(fake: FakeOllama, model: str, wire: bytes, reset: bool) -> None:
    answer = await ask_chat(fake, model)
    assert (answer.wire, answer.reset) == (wire, reset)
    assert fake.log[0].ended == "complete"


async def test_heads_that_try_patience(fake: FakeOllama) -> None:
    slow = await ask_chat(fake, "fx-slowhead:n-1_ms-1")
    assert slow.text == text_of(1)
    assert fake.log[0].bytes_out == len(slow.wire)
    big = await ask_chat(fake, "fx-bighead:n-1_mb-1")
    assert (len(big.headers["x-big"]), big.text) == (1024 * 1024, text_of(1))
    storm = await ask_chat(fake, "fx-100:n-1_k-50")
    before = b"HTTP/1.1 100 Continue\r\n\r\n" * 50
    assert storm.wire.startswith(before + b"HTTP/1.1 200 OK\r\n")
    assert Answer(storm.wire.removeprefix(before)).text == text_of(1)


# in mid-stream


async def test_stall(fake: FakeOllama) -> None:
    reader, writer = await connect(fake)
    writer.write(request("POST", "/api/chat", chat("fx-stall:n-5")))
    received = b""
    while received.count(b"\n\r\n") < 5:
        received += await reader.read(2**16)
    await fake.until(lambda: fake.log[0].tokens == 5, 1)
    assert fake.open == 1
    writer.close()
    await fake.closed(1)
    assert received.count(b'"done":false') == 5


async def test_cutline_ends_in_half_a_line(fake: FakeOllama) -> None:
    clean = await ask_chat(fake, "fx-cutline:n-2")
    *whole, half = clean.body.split(b"\n")
    assert "".join(json.loads(line)["message"]["content"] for line in whole) == text_of(2)
    assert half.startswith(b'{"model":"fx-cutline:n-2"')
    assert not half.endswith(b"}")
    abrupt = await ask_chat(fake, "fx-cutline:n-2_clean-0")
    assert not abrupt.wire.endswith(b"0\r\n\r\n")
    with pytest.raises(ValueError, match="invalid literal"):
        _ = abrupt.chunks
    unstreamed = await ask_chat(fake, "fx-cutline:n-2", stream=False)
    with pytest.raises(ValueError, match=r"Unterminated|delimiter|Expecting"):
        _ = unstreamed.json


async def test_nodone_ends_cleanly_without_a_last_line(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-nodone:n-4")
    assert [line["done"] for line in answer.lines] == [False] * 4
    assert answer.wire.endswith(b"0\r\n\r\n")
    assert (await ask_chat(fake, "fx-nodone:n-4", stream=False)).json["done"] is False


async def test_errline(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-errline:n-2")
    assert answer.lines[-1] == {"error": "an error was encountered while running the model: unexpected EOF"}
    assert len(answer.lines) == 3
    whole = await ask_chat(fake, "fx-errline:n-2", stream=False)
    assert (whole.status, set(whole.json)) == (500, {"error"})


async def test_bad_lines_are_followed_by_good_ones(fake: FakeOllama) -> None:
    for model, bad in (("fx-badjson:at-2_n-4", b'"content":}'), ("fx-badutf8:at-2_n-4", b"\xc3\x28")):
        lines = (await ask_chat(fake, model)).body.split(b"\n")
        assert bad in lines[2]
        good = [json.loads(line) for line in lines[:2] + lines[3:] if line]
        assert "".join(line["message"]["content"] for line in good) == text_of(4)
        assert good[-1]["done"] is True
        assert bad in (await ask_chat(fake, model, stream=False)).body


@pytest.mark.parametrize(("k", "field", "value"), [(0, "done", "yes"), (1, "message", None), (2, "message", 7)])
async def test_wrong_types(fake: FakeOllama, k: int, field: str, value: object) -> None:
    line = (await ask_chat(fake, f"fx-wrongtype:at-1_n-2_k-{k}")).lines[1]
    assert (line[field]["content"] if value == 7 else line[field]) == value


async def test_more_after_the_end(fake: FakeOllama) -> None:
    after = (await ask_chat(fake, "fx-afterdone:n-2")).lines
    assert [line["done"] for line in after] == [False, False, True, False, False, False]
    twice = (await ask_chat(fake, "fx-twodone:n-2")).lines
    assert [line["done"] for line in twice] == [False, False, True, True]


async def test_eof_and_rst(fake: FakeOllama) -> None:
    eof = await ask_chat(fake, "fx-eof:n-2")
    assert (eof.wire.count(b'"done":false'), eof.reset) == (2, False)
    assert not eof.wire.endswith(b"0\r\n\r\n")
    rst = await ask_chat(fake, "fx-rst:n-2")
    assert rst.reset
    assert fake.log[1].tokens == 2


async def test_slowclose_holds_the_end_back(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-slowclose:n-1_ms-20")
    assert answer.text == text_of(1)
    record = fake.log[0]
    assert record.last_byte_at is not None
    assert record.first_byte_at is not None
    assert record.last_byte_at - record.first_byte_at >= 0.02


# framing


async def test_bad_chunk_size(fake: FakeOllama) -> None:
    answer = await ask_chat(fake, "fx-badchunk:n-2")
    assert b"\r\nzz\r\n" in answer.framed
    with pytest.raises(ValueError, match="zz"):
        _ = answer.chunks


@pytest.mark.parametrize(("scenario", "lengths"), [("badframe", (0, -10)), ("shortcl", (100,)), ("longcl", (-20,))])
async def test_wrong_lengths(fake: FakeOllama, scenario: str, lengths: tuple[int, ...]) -> None:
    for stream in (True, False):
        answer = await ask_chat(fake, f"fx-{scenario}:n-2", stream=stream)
        declared = [int(value) for value in re.findall(r"Content-Length: (\d+)", answer.head)]
        assert declared == [len(answer.framed) + extra for extra in lengths]


async def before_the_end(reader: asyncio.StreamReader) -> str:
    """Is the connection still open a while later?"""
    try:
        async with asyncio.timeout(0.05):
            return "closed" if await reader.read() == b"" else "more"
    except TimeoutError:
        return "open"


async def test_staleka_closes_on_reuse_and_after_a_time(fake: FakeOllama) -> None:
    for model in ("fx-staleka:n-1", "fx-staleka:n-1_ms-10"):
        reader, writer = await connect(fake)
        writer.write(request("POST", "/api/chat", chat(model), close=False))
        first = await reader.readuntil(b"\r\n0\r\n\r\n")
        assert Answer(first).text == text_of(1)
        if "ms" not in model:
            assert await before_the_end(reader) == "open"
            writer.write(request("GET", "/api/tags", close=False))
        assert await reader.read() == b""
        writer.close()
    assert [record.path for record in fake.log] == ["/api/chat"] * 2


async def test_pipeline_pushes_an_answer_nobody_asked_for(fake: FakeOllama) -> None:
    reader, writer = await connect(fake)
    writer.write(request("POST", "/api/chat", chat("fx-pipeline:n-1"), close=False))
    await reader.readuntil(b"\r\n0\r\n\r\n")
    assert b"PUSHED" in await reader.readuntil(b"PUSHED")
    writer.write(request("GET", "/api/version"))
    assert (await reader.read()).endswith(b'{"version":"0.32.15"}')
    writer.close()


# every scenario ends or is ended


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/completions", "/api/pull"])
async def test_no_scenario_outlives_its_client(fake: FakeOllama, path: str) -> None:
    quick = {"manytokens": ":n-50", "bigline": ":mb-1", "gzip-bomb": ":mb-1", "bigerr": ":mb-1", "slowhead": ":ms-1"}
    for stream in (True, False):
        writers = []
        for scenario in sorted(SCENARIOS):
            model = f"fx-{scenario}{quick.get(scenario, '')}"
            _, writer = await connect(fake)
            writers.append(writer)
            writer.write(request("POST", path, {**chat(model), "prompt": "hello", "stream": stream}))
        await fake.arrived(len(SCENARIOS) * (1 if stream else 2), path=path)
        for writer in writers:
            writer.transport.abort()
        await fake.idle(2)
    await fake.until(lambda: fake.connections == 0, 2)


async def test_a_broken_request_gets_no_answer(fake: FakeOllama) -> None:
    for data in (b"NONSENSE\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"A" * 2**21):
        assert (await exchange(fake.port, data)).wire == b""
    assert fake.log == []
