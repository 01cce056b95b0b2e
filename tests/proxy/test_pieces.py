"""The table, the reading of a body, the headers and the counters, each by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.errors import BadRequest, Busy, MethodNotAllowed, NoEndpoint, NotFound, TooManyRequests
from arena.exchange import Caller, Inbound
from arena.fleet import Usage
from arena.proxy import manage
from arena.proxy.counters import HELD_BYTES, Tail
from arena.proxy.dialect import last_words
from arena.proxy.failures import believed, retry_after_s, retry_headers
from arena.proxy.headers import MAX_CALLERS, RequestHead, header_value, passed_on
from arena.proxy.paths import shortened
from arena.proxy.routing import asked_in, respelled
from arena.proxy.table import ABSENT, NotThisMethod, Table
from tests.proxy.front import CALLER, front

NDJSON = b"application/x-ndjson"
EVENTS = b"text/event-stream"


# the table


@pytest.fixture(scope="module")
def table() -> Table:
    """The whole table."""
    return Table()


DATA = [
    ("/olla/ollama/api/generate", "/api/generate", "chat", {"ollama", "engine"}),
    ("/olla/ollama/api/chat", "/api/chat", "chat", {"ollama", "engine"}),
    ("/olla/ollama/api/embed", "/api/embed", "embed", {"ollama", "engine"}),
    ("/olla/ollama/api/embeddings", "/api/embeddings", "embed", {"ollama", "engine"}),
    ("/olla/ollama/v1/chat/completions", "/v1/chat/completions", "chat", {"ollama", "engine"}),
    ("/olla/ollama/v1/responses", "/v1/responses", "chat", {"ollama", "engine"}),
    ("/olla/ollama/v1/messages", "/v1/messages", "chat", {"ollama", "engine"}),
    ("/olla/openai/v1/completions", "/v1/completions", "chat", None),
    ("/olla/openai/v1/embeddings", "/v1/embeddings", "embed", None),
    ("/olla/openai/v1/rerank", "/v1/rerank", "embed", {"openai"}),
    ("/olla/proxy/api/chat", "/api/chat", "chat", {"ollama", "engine"}),
    ("/olla/proxy/v1/messages", "/v1/messages", "chat", None),
    ("/olla/anthropic/v1/messages", "/v1/messages", "chat", None),
]


@pytest.mark.parametrize(("path", "target", "scope", "kinds"), DATA)
def test_what_is_handed_on(table: Table, path: str, target: str, scope: str, kinds: set[str] | None) -> None:
    route = table.find("POST", path)
    assert (route.target.decode(), route.scope, route.kinds) == (target, scope, kinds)
    assert route.action is None
    assert route.known is None
    assert table.get("POST", path) is route


@pytest.mark.parametrize("prefix", ["/olla/ollama", "/olla/proxy"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/pull"), ("POST", "/api/push"), ("POST", "/api/create"), ("POST", "/api/copy"),
        ("DELETE", "/api/delete"), ("POST", "/api/delete"),
        ("HEAD", "/api/blobs/sha256:00"), ("POST", "/api/blobs/sha256:00"),
    ],
)  # fmt: skip
def test_management_needs_its_scope_under_every_prefix(table: Table, prefix: str, method: str, path: str) -> None:
    route = table.find(method, prefix + path)
    assert route.scope == "manage"
    assert not route.target


@pytest.mark.parametrize(
    "path",
    [
        "/olla/ollama", "/olla/ollama/", "/olla/ollama/api/tags", "/olla/ollama/api/ps", "/olla/ollama/api/version",
        "/olla/ollama/v1/models", "/olla/openai/v1/models", "/olla/proxy/v1/models/hf.co/org/model:Q4",
        "/olla/anthropic/v1/models", "/olla/proxy/", "/olla/vllm/v1/models", "/olla/lm-studio/api/v0/models",
        "/olla/dmr/engines/v1/models",
    ],
)  # fmt: skip
def test_what_we_answer_ourselves_also_to_head(table: Table, path: str) -> None:
    route = table.find("GET", path)
    assert (route.known or route.action) is not None
    assert (table.find("HEAD", path).known, table.find("HEAD", path).action) == (route.known, route.action)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/olla/ollama/api/tags", ("GET", "HEAD")),
        ("GET", "/olla/ollama/api/pull", ("POST",)),
        ("GET", "/olla/ollama/api/delete", ("DELETE", "POST")),
        ("OPTIONS", "/olla/openai/v1/chat/completions", ("POST",)),
        ("PUT", "/olla/ollama/api/blobs/sha256:0", ("HEAD", "POST")),
        ("DELETE", "/olla/openai/v1/models/x", ("GET", "HEAD")),
    ],
)
def test_a_wrong_method_learns_the_right_ones(table: Table, method: str, path: str, allow: tuple[str, ...]) -> None:
    with pytest.raises(NotThisMethod) as wrong:
        table.find(method, path)
    assert wrong.value.allow == allow
    assert isinstance(wrong.value, MethodNotAllowed)


@pytest.mark.parametrize(
    "path",
    [
        "/olla/ollama/../../etc", "/olla/ollama/api//pull", "/olla//proxy/api/chat", "/olla/ollama/./api/chat",
        "/olla/ollama/api/%2e%2e", "/olla/ollama/api\\pull", "/olla/ollama/api/pull\x00", "/olla/ollama/api/ü",
        "/olla/" + "x" * 2000, "/olla/ollama/v1/models/../../api/pull", "/olla/ollama/..", "/olla/ollama/api/chat/..",
    ],
)  # fmt: skip
@pytest.mark.anyio
async def test_paths_that_could_be_read_in_two_ways_are_refused(path: str) -> None:
    async with front("a") as it:
        for method in ("GET", "POST", "DELETE"):
            answer = await it.ask(method, path, {"model": "tiny"})
            assert answer.status == 400
            assert answer.headers["x-olla-request-id"] == "r-1"
        assert it["a"].log == []


@pytest.mark.parametrize("path", ["/olla/ollama/api/pull/", "/olla/ollama/api/nowhere", "/olla/what/api/chat"])
def test_unknown_paths_reach_nobody(table: Table, path: str) -> None:
    with pytest.raises(NotFound):
        table.find("POST", path)


@pytest.mark.parametrize("query", [b"x" * 3000, b"a=\x01", b"a=\xff", b"a b"])
@pytest.mark.anyio
async def test_absurd_queries_are_refused(query: bytes) -> None:
    async with front("a") as it:
        answer = await it.ask("POST", "/olla/ollama/api/chat", {"model": "tiny"}, query=query)
        assert (answer.status, it["a"].log) == (400, [])


@pytest.mark.parametrize("provider", ABSENT)
def test_absent_kinds_of_servers_say_so(table: Table, provider: str) -> None:
    with pytest.raises(NoEndpoint, match=provider):
        table.find("POST", f"/olla/{provider}/v1/chat/completions")


# the body


def inbound(*headers: tuple[bytes, bytes]) -> Inbound:
    """A request with these headers."""
    return Inbound("POST", "/olla/ollama/api/chat", b"", list(headers), CALLER)


def talk(*messages: tuple[str, str], model: str = "m", **more: Any) -> bytes:
    """A chat's body."""
    return json.dumps({"model": model, "messages": [{"role": r, "content": c} for r, c in messages], **more}).encode()


def test_a_conversation_is_known_by_how_it_began() -> None:
    def key(*messages: tuple[str, str], **more: Any) -> str | None:
        return asked_in(inbound(), talk(*messages, **more), sticks=True).conversation

    first = key(("user", "a"))
    assert first
    assert first == key(("user", "a"), ("assistant", "x"), ("user", "b"))
    assert first == key(("user", "a"), tools=[{"x": "y" * 5000}])
    different = {first, key(("user", "b")), key(("system", "s"), ("user", "a")), key(("user", "a"), model="n")}
    assert len(different | {key(("user", "a"), system="s")}) == 5
    assert key(("system", "s")) is None
    assert asked_in(inbound(), b'{"model":"m","messages":7}', sticks=True).conversation is None
    assert asked_in(inbound(), talk(("user", "a")), sticks=False).conversation is None


def test_a_conversation_may_name_itself() -> None:
    asked = asked_in(inbound(), b'{"model":"m","prompt":"x"}', b"s 1", sticks=True)
    assert (asked.conversation, asked.source) == ("s:s 1", "session_header")


@given(
    st.dictionaries(
        st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=10), max_size=5
    ),
    st.text(min_size=1),
)
def test_respelling_changes_the_model_and_nothing_else(body: dict[str, Any], model: str) -> None:
    before = {**{key: value for key, value in body.items() if key.lower() not in ("model", "name")}, "model": "old"}
    for text in (json.dumps(before), json.dumps(before, indent=2, ensure_ascii=False)):
        if not any("\ud800" <= c <= "\udfff" for c in text + model):
            assert json.loads(respelled(text.encode(), model)) == {**before, "model": model}


def test_respelling_knows_every_spelling_of_the_key() -> None:
    assert respelled(b'{"Model":"a"}', "b") == b'{"Model":"b"}'
    assert respelled(b'{"name":"a"}', "b") == b'{"name":"b"}'
    assert respelled(b'{"model":"a","x":1,"model":"c"}', "b") == b'{"model":"b","x":1,"model":"b"}'
    assert respelled(b'{"mo\\u0064el":"a"}', "b") == b'{"mo\\u0064el":"b"}'
    assert respelled(b'{"x":"\xff","model":"a"}', "b") == b'{"x":"\xff","model":"b"}'
    assert respelled(b"--form", "b") == b"--form"


# the headers


@pytest.mark.parametrize(
    ("caller", "told"),
    [
        (Caller("9.9.9.9", "9.9.9.9", "r"), b"1.1.1.1, 9.9.9.9"),
        (Caller("1.1.1.1", "1.1.1.1", "r", peer="10.0.0.1"), b"1.1.1.1, 10.0.0.1"),
        (Caller("2001:db8::/64", "2001:db8::/64", "r", peer="2001:db8::7"), b"1.1.1.1, 2001:db8::7"),
    ],
    ids=["a stranger's word", "behind a trusted proxy", "one of a network"],
)
def test_who_is_at_the_other_end_comes_last(caller: Caller, told: bytes) -> None:
    fields = RequestHead([(b"x-forwarded-for", b"1.1.1.1")]).fields(caller, frozenset(), 0)
    assert b"X-Forwarded-For: %b\r\n" % told in fields


def test_the_endpoints_own_headers_win() -> None:
    known = RequestHead([(b"x-site", b"forged"), (b"x-fine", b"1")])
    fields = known.fields(CALLER, frozenset({b"x-site"}), 7)
    assert b"forged" not in fields
    assert b"x-fine: 1\r\n" in fields
    assert b"Content-Length: 7\r\n" in fields
    assert b"forged" in known.fields(CALLER, frozenset(), 7)
    for _ in range(2):
        passed = passed_on([(b"x-site", b"echo"), (b"x-fine", b"1")], frozenset({b"x-site"}))
        assert passed == [(b"x-fine", b"1")]
        passed.append((b"x-of", b"this answer alone"))


def test_requests_with_one_head_share_nothing_of_their_callers() -> None:
    known = RequestHead([(b"host", b"arena")])
    for number in range(3 * MAX_CALLERS):
        for https in (False, True):
            address = f"10.0.0.{number}"
            fields = known.fields(Caller(address, "counted", f"r-{number}", https), frozenset(), number)
            proto = "https" if https else "http"
            assert f"X-Forwarded-For: {address}\r\n".encode() in fields
            assert f"X-Forwarded-Proto: {proto}\r\n".encode() in fields
            ids = f"X-Request-ID: r-{number}\r\nX-Olla-Request-ID: r-{number}\r\n"
            assert fields.endswith(f"Content-Length: {number}\r\n{ids}".encode())
            assert fields == RequestHead([(b"host", b"arena")]).fields(
                Caller(address, "counted", f"r-{number}", https), frozenset(), number
            )


def form(*parts: tuple[str, bytes], boundary: str = "x") -> bytes:
    """A form as browsers and curl write it."""
    head = f"--{boundary}\r\nContent-Disposition: form-data; name=".encode()
    return b"".join(head + f'"{name}"'.encode() + b"\r\nA: b\r\n\r\n" + value + b"\r\n" for name, value in parts)


def asked_by_form(body: bytes, content_type: bytes = b"multipart/form-data; boundary=x") -> str:
    """The model that a form asks for."""
    inbound = Inbound("POST", "/olla/openai/v1/audio/transcriptions", b"", [(b"content-type", content_type)], CALLER)
    return asked_in(inbound, body, sticks=False).model


def test_the_model_of_a_form_may_stand_behind_its_file() -> None:
    file = ("file", b'name="model"\r\n\r\nnot this\r\n' + bytes(range(256)) * 100)
    named = ('file"; filename="model', b"not this either")  # as a file may be called
    assert asked_by_form(form(file, named, ("model", b" whisper "))) == "whisper"
    quoted = b'Multipart/form-data; charset=utf-8; Boundary="a b"'
    assert asked_by_form(form(("model", b"m"), boundary="a"), b"multipart/form-data;boundary=a") == "m"
    with pytest.raises(BadRequest, match="model is required"):
        asked_by_form(form(("model", b"m"), boundary="c"), quoted)
    for body in (form(*[("f", b"")] * 64, ("model", b"m")), form(file), b"", b"--x", b'--xname="model"'):
        with pytest.raises(BadRequest, match="model is required"):
            asked_by_form(body)
    with pytest.raises(BadRequest, match="model is required"):
        asked_by_form(form(("model", b"m")), b"multipart/form-data")


MANY: int = 30_000
TEXTS: dict[str, Callable[[], object]] = {
    "lines of a form": lambda: asked_by_form(form(("f", b'name="model"\r\n' * MANY), ("model", b"m"))),
    "a line of a form": lambda: asked_by_form(form(("f", b'name="model"' * MANY), ("model", b"m"))),
    "blanks in a modelfile": lambda: shortened({"modelfile": "FROM /" + " " * MANY + "x"}),
    "blanks before it": lambda: shortened({"modelfile": " " * MANY + "x"}),
    "turns of a conversation": lambda: asked_in(inbound(), talk(*[("system", "a" * 8)] * 5 * MANY), sticks=True),
    "blanks in one that is sent": lambda: manage.sources({"modelfile": "FROM x" + " " * MANY + "\v"}),
}


@pytest.mark.parametrize("read", TEXTS.values(), ids=TEXTS.keys())
def test_no_text_takes_longer_to_read_than_it_is_long(read: Callable[[], object]) -> None:
    """Read over and over from each of its places, any of these would take minutes, and nobody would be served."""
    began_s = time.process_time()
    read()
    assert time.process_time() - began_s < 2


@given(st.text())
def test_a_header_value_is_always_one(text: str) -> None:
    value = header_value(text)
    assert all(0x20 <= byte < 0x7F for byte in value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"7", 7.0),
        (b"0", 0.0),
        (b" 9 ", 9.0),
        (b"86400", 300.0),
        (b"9" * 9, None),
        (b"9" * 5000, None),
        (b"x", None),
        (b"", None),
        (b"-1", None),
        (b"1.5", None),
        (b"1e3", None),
        ("²".encode("latin-1"), None),
        (b"Wed, 21 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_read_with_care_and_handed_on_as_it_was_read(value: bytes, seconds: float | None) -> None:
    odd = [(b"x-odd", b"1"), (b"retry-after", value)]
    assert retry_after_s(odd) == seconds
    assert believed(odd) == [(b"x-odd", b"1"), *([] if seconds is None else [(b"retry-after", b"%d" % seconds)])]


def test_when_to_try_again() -> None:
    assert retry_headers(Busy("x", retry_after_s=6.6)) == [(b"retry-after", b"7")]
    assert retry_headers(TooManyRequests("x")) == [(b"retry-after", b"1")]
    assert retry_headers(NotFound("x")) == []


# the counters

LAST = (
    b'{"model":"m","done":true,"prompt_eval_count":3,"eval_count":5,"load_duration":2000000000,'
    b'"prompt_eval_duration":500000000,"eval_duration":1000000000}\n'
)


@pytest.mark.parametrize("size", [1, 7, 100, 5000, 100_000])
@pytest.mark.parametrize("before", [b"", b'{"done":false,"message":{"content":"\\"eval_count\\":9"}}\n' * 500])
def test_lines_in_pieces_of_any_size(size: int, before: bytes) -> None:
    tail, body = Tail(), before + LAST
    for at in range(0, len(body), size):
        tail.feed(body[at : at + size])
    end = tail.read("native", NDJSON)
    assert end.whole
    assert not end.error
    usage = end.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 5)
    assert (usage.load_s, usage.prompt_s, usage.eval_s) == (2.0, 0.5, 1.0)
    assert tail.received_bytes == len(body)
    assert len(tail.end) <= max(HELD_BYTES, size)


def test_a_last_line_longer_than_what_is_kept() -> None:
    tail = Tail()
    line = b'{"done":true,"context":[' + b"1," * 20_000 + b'1],"prompt_eval_count":3,"eval_count":5}\n'
    for at in range(0, len(line), 1000):
        tail.feed(line[at : at + 1000])
    end = tail.read("native", NDJSON)
    assert (end.whole, end.usage.completion_tokens) == (True, 5)


@pytest.mark.parametrize(
    ("body", "whole", "error"),
    [
        (b'{"done":false}\n', False, False),
        (b'{"done":false}\n{"done":fal', False, False),
        (b'{"done":false}\n{"error":"x"}\n', True, True),
        (b'{"done":true,"done_reason":"load"}\n', True, False),
        (LAST + b'{"done":false}\n', True, False),
        (LAST.replace(b"5", b'"5"', 1), True, False),
        (b"\n\n", False, False),
    ],
)
def test_what_is_an_end_of_lines(body: bytes, whole: bool, error: bool) -> None:
    tail = Tail()
    tail.feed(body)
    end = tail.read("native", NDJSON)
    assert (end.whole, end.error) == (whole, error)


@pytest.mark.parametrize(
    ("dialect", "body", "whole", "tokens"),
    [
        ("openai", b'data: {"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\ndata: [DONE]\n\n', True, (3, 5)),
        ("openai", b'data: {"timings":{"prompt_n":3,"predicted_n":5}}\n\ndata: [DONE]\n\n', True, (3, 5)),
        ("openai", b'data: {"usage":{"prompt_tokens":0}}\n\ndata: [DONE]\n\n', True, (0, 0)),
        ("openai", b'data: {"choices":[]}\n\n', False, (0, 0)),
        ("openai", b'data: {"error":{"message":"x"}}\n\n', True, (0, 0)),
        (
            "responses",
            b'event: response.completed\ndata: {"usage":{"input_tokens":3,"output_tokens":5}}\n',
            True,
            (3, 5),
        ),
        ("responses", b"event: response.created\n\n", False, (0, 0)),
        ("responses", b'data: {"type":"response.incomplete"}\n\n', True, (0, 0)),
        ("responses", b'data: {"type":"response.failed"}\n\n', True, (0, 0)),
        ("anthropic", b'data: {"type":"message_delta","usage":{"output_tokens":5}}\n\n', False, (0, 5)),
    ],
)
def test_what_is_an_end_of_events(dialect: Any, body: bytes, whole: bool, tokens: tuple[int, int]) -> None:
    tail = Tail()
    tail.feed(body)
    end = tail.read(dialect, EVENTS)
    assert end.whole is whole
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == tokens


def test_whole_answers_tell_their_usage_wherever_it_stands() -> None:
    for body, dialect in (
        (LAST, "native"),
        (b'{"prompt_eval_count":3,"eval_count":5,"embeddings":[' + b"0.1," * 9000 + b"0]}", "native"),
        (b'{"data":[' + b"0.1," * 9000 + b'0],"usage":{"prompt_tokens":3,"completion_tokens":5}}', "openai"),
        (b'{"usage":{"input_tokens":3,"output_tokens":5}}', "anthropic"),
        (b"no json at all, prompt_eval_count", "native"),
    ):
        tail = Tail()
        for at in range(0, len(body), 3000):
            tail.feed(body[at : at + 3000])
        usage = tail.read(dialect, b"application/json").usage  # type: ignore[arg-type]
        assert (usage.prompt_tokens, usage.completion_tokens) in ((3, 5), (0, 0))
        assert bool(usage.prompt_tokens) is body.startswith(b"{")


@pytest.mark.parametrize(
    "figure", ["-5", "1e308", "1e400", "1.5", "NaN", "Infinity", "true", "null", '"7"', "[]", "9" * 16, "9" * 400]
)
@pytest.mark.parametrize("media_type", [b"application/json", NDJSON, EVENTS])
def test_absurd_counters_are_not_believed_and_the_others_are(figure: str, media_type: bytes) -> None:
    tail = Tail()
    counters = f'"eval_duration":{figure},"eval_count":{figure},"load_duration":{figure},"prompt_eval_count":3'
    start, rest = ("data: ", "\n\ndata: [DONE]\n\n") if media_type == EVENTS else ("", "\n")
    tail.feed(f'{start}{{"done":true,{counters}}}{rest}'.encode())
    end = tail.read("native", media_type)
    assert (end.whole, end.error) == (True, False)
    assert end.usage == Usage(prompt_tokens=3)


@pytest.mark.parametrize("told", [b"", b'{"a":1}\n', b'{"a":'])
def test_last_words_stand_on_a_line_of_their_own(told: bytes) -> None:
    words = last_words("native", NDJSON, Busy("x"), told)
    lines = (told + words).split(b"\n")
    assert json.loads(lines[-2]) == {"error": "x", "code": "busy", "done": True, "done_reason": "error"}
    assert lines[-1] == b""
