"""Everything a client can get wrong: the text, the order of the checks, and that nothing of the input comes back."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from arena.api.errors import of_arena_error
from arena.errors import Busy
from tests.api.asgi import JSON_TYPE, Answer, Client, started
from tests.api.conftest import HELLO, create_api, settings_for
from tests.fake_ollama import FakeOllama

pytestmark = pytest.mark.anyio

ROUTES = ("/api/chat", "/api/stream_chat")
CANARY = "canary-5ecret"
BASE: dict[str, Any] = {"id": "a", "model": "tiny"}


@pytest.fixture(scope="module")
async def stage() -> AsyncIterator[tuple[FakeOllama, Client]]:
    """One API and its fake Ollama for all that is refused, and therefore changes nothing."""
    async with FakeOllama() as fake, started(create_api(settings_for(fake.url))) as api:
        yield fake, api


@pytest.fixture
def fake(stage: tuple[FakeOllama, Client]) -> FakeOllama:
    """The fake Ollama, begun anew."""
    stage[0].reset()
    return stage[0]


@pytest.fixture
def api(stage: tuple[FakeOllama, Client], fake: FakeOllama) -> Client:
    """The API on it."""
    return stage[1]


def instance(**fields: Any) -> dict[str, Any]:
    return {"history": HELLO, "model_instances": [{**BASE, **fields}]}


def check_error(answer: Answer, status: int, text: str | None = None) -> dict[str, Any]:
    """The one form of every error."""
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert set(body) <= {"error", "code", "details"}
    assert "detail" not in body
    assert len(answer.body) <= 1024
    assert text is None or body["error"] == text
    return body


RANGES: dict[str, tuple[str, list[Any]]] = {
    "temperature": ("temperature must be between 0.01 and 2.0", [0, 0.009, 2.01, -1, 1e300]),
    "top_p": ("top_p must be between 0 and 1", [-0.01, 1.01, "2"]),
    "top_k": ("top_k must be between 0 and 100", [-1, 101, 10**30]),
    "repeat_penalty": ("repeat_penalty must be between 1.0 and 2.0", [0.99, 2.1, 0]),
    "num_predict": ("num_predict must be between -1 and 4096", [-2, 0, 4097, 10**9]),
    "seed": ("seed must be 0 (random) or greater", [-1, 2**63]),
    "num_ctx": ("num_ctx must be between 16 and 1048576", [0, 15, 2**20 + 1]),
}
WRONG_TYPES: tuple[Any, ...] = (
    True,
    False,
    "",
    "abc",
    "NaN",
    "inf",
    "1_0",
    "٣",
    "0x10",
    "9" * 400,
    [],
    [1],
    {},
    {"a": 1},
)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("field", "value"), [(f, v) for f, (_, values) in RANGES.items() for v in values])
async def test_out_of_range_names_the_field_and_the_range(api: Client, route: str, field: str, value: object) -> None:
    body = check_error(await api.post(route, instance(**{field: value})), 400)
    assert body["error"].startswith(RANGES[field][0])
    assert body["details"] == "model_instances[0]"


@pytest.mark.parametrize("field", RANGES)
async def test_wrong_types_are_refused_with_the_range(api: Client, field: str) -> None:
    for value in WRONG_TYPES:
        body = check_error(await api.post("/api/chat", instance(**{field: value})), 400)
        assert body["error"].startswith(f"{field} must be a number: {RANGES[field][0]}")


@pytest.mark.parametrize("field", ["top_k", "num_predict", "seed", "num_ctx"])
async def test_whole_numbers_only(api: Client, field: str) -> None:
    body = check_error(await api.post("/api/chat", instance(**{field: 16.5})), 400)
    assert body["error"].startswith(f"{field} must be a whole number")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "No messages provided"),
        ({"history": [], "models": ["tiny"]}, "No messages provided"),
        ({"history": None, "models": ["tiny"]}, "No messages provided"),
        ({"history": [{"role": "system", "content": "x"}], "models": ["tiny"]}, "No messages provided"),
        ({"history": HELLO}, "No models selected"),
        ({"history": HELLO, "models": []}, "No models selected"),
        ({"history": HELLO, "models": ""}, "No models selected"),
        ({"history": HELLO, "models": None, "model_instances": []}, "No models selected"),
        ({"history": HELLO, "models": {}}, "models must be a list of model names"),
        ({"history": HELLO, "model": 5}, "models must be a list of model names"),
        ({"history": HELLO, "model_instances": {}}, "model_instances must be a list of objects"),
        ({"history": HELLO, "model_instances": ["tiny"]}, "model_instances[0] must be an object with a model"),
        ({"history": "hi", "models": ["tiny"]}, "history must be a list of messages"),
        ({"history": ["hi"], "models": ["tiny"]}, "history[0] must be an object with role and content"),
        ({"history": [{"role": "x", "content": ""}]}, "history[0].role must be one of system, user, assistant, tool"),
        ({"history": [{"role": ["user"]}]}, "history[0].role must be one of system, user, assistant, tool"),
        ({"history": [*HELLO, {"role": "user"}]}, "history[1].content must be a string"),
        ({"history": [{"role": "user", "content": [{"type": "text"}]}]}, "history[0].content must be a string"),
        (
            {"history": [{"role": "user", "content": "", "images": "x"}]},
            "history[0].images must be a list of base64 strings",
        ),
        ({"history": [{"role": "user", "content": "", "thinking": 5}]}, "history[0].thinking must be a string"),
        ({"message": 5}, "message must be a string"),
        ({"message": "x", "system": []}, "system must be a string"),
        (
            {"history": HELLO, "models": ["tiny"], "order": "backwards"},
            'order must be "together" or "one_after_another"',
        ),
        (instance(id=""), "id must be 1 to 256 printable characters, or left out"),
        (instance(id=5), "id must be 1 to 256 printable characters, or left out"),
        (instance(id="x" * 257), "id must be 1 to 256 printable characters, or left out"),
        (instance(id="a\nb"), "id must be 1 to 256 printable characters, or left out"),
        (instance(think="LOW"), 'think must be true, false, "low", "medium", "high" or "max"'),
        (instance(think=[]), 'think must be true, false, "low", "medium", "high" or "max"'),
        (instance(system=5), "system must be a string"),
        (instance(endpoint="http://127.0.0.1:9"), "endpoint must be one of the names that GET /api/endpoints lists"),
        (instance(endpoint=["x"]), "endpoint must be one of the names that GET /api/endpoints lists"),
        (
            instance(stop=["x"] * 17),
            "stop must be a list of 1 to 16 strings of 1 to 256 characters",
        ),
        (instance(stop=[5]), "stop must be a list of 1 to 16 strings of 1 to 256 characters"),
    ],
)
async def test_every_mistake_has_its_text(api: Client, fake: FakeOllama, route: str, value: Any, text: str) -> None:
    check_error(await api.post(route, value), 400, text)
    assert not [record for record in fake.log if record.path == "/api/chat"]


@pytest.mark.parametrize("route", ROUTES)
async def test_the_first_repeated_id_is_named_before_anything_runs(api: Client, fake: FakeOllama, route: str) -> None:
    items = [{**BASE, "id": name} for name in ("a", "b", "c", "b", "a")]
    answer = await api.post(route, {"history": HELLO, "model_instances": items})
    check_error(answer, 400, "Duplicate model instance detected: b")
    assert not [record for record in fake.log if record.path == "/api/chat"]


async def test_a_long_repeated_id_still_fits_the_error(api: Client) -> None:
    items = [{**BASE, "id": "🙂" * 256}] * 2
    body = check_error(await api.post("/api/chat", {"history": HELLO, "model_instances": items}), 400)
    assert body["error"].startswith("Duplicate model instance detected: 🙂🙂🙂")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a b",
        "-x",
        "a//b",
        "a" * 81,
        "x\0",
        "x\u202e",
        "a:b:c",
        "",
        "a/b/c/d",
        "模型",
        "x\r\nSet-Cookie: a=1",
        5,
        None,
    ],
)
async def test_illegal_model_names_are_refused_everywhere(api: Client, fake: FakeOllama, name: object) -> None:
    for route, body in (
        ("/api/chat", {"history": HELLO, "models": [name, "tiny"]}),
        ("/api/stream_chat", {"history": HELLO, "model_instances": [{"model": name}]}),
        ("/api/pull_model", {"model": name}),
        ("/api/delete_model", {"model": name}),
        ("/api/unload_model", {"model": name}),
    ):
        check_error(await api.post(route, body), 400)
    assert not [record for record in fake.log if record.method == "POST" or record.method == "DELETE"]


async def test_too_many_instances_are_refused_and_repeats_do_not_count(api: Client) -> None:
    items = [{**BASE, "id": str(i)} for i in range(17)]
    text = "Too many model instances: at most 16 in one request"
    check_error(await api.post("/api/chat", {"history": HELLO, "model_instances": items}), 400, text)
    check_error(await api.post("/api/chat", {"history": HELLO, "models": [f"m{i}" for i in range(17)]}), 400, text)
    assert (await api.post("/api/chat", {"history": HELLO, "models": ["tiny"] * 17})).status == 200


async def test_thousands_of_equal_instances_are_refused_without_a_standstill(api: Client) -> None:
    body = {"history": HELLO, "model_instances": [{"model": "tiny"}] * 20_000}
    began = time.process_time()
    check_error(await api.post("/api/chat", body), 400, "Too many model instances: at most 16 in one request")
    # names found anew from 1 for every entry would take a minute, in which nobody else is served
    assert time.process_time() - began < 5


async def test_the_checks_come_in_the_documented_order(api: Client) -> None:
    bad = {**BASE, "temperature": 9}
    everything: dict[str, Any] = {"history": [], "model_instances": [bad] * 17}
    check_error(await api.post("/api/chat", everything), 400, "No messages provided")
    check_error(await api.post("/api/chat", {"history": HELLO, "order": "x"}), 400, "No models selected")
    everything["history"] = HELLO
    check_error(await api.post("/api/chat", everything), 400, "temperature must be between 0.01 and 2.0")
    everything["model_instances"] = [BASE] * 17
    check_error(await api.post("/api/chat", everything), 400, "Duplicate model instance detected: a")


NOT_JSON = [
    b"",
    b"{",
    b"nope",
    b'{"history": NaN}',
    b'{"history": Infinity}',
    b'{"temperature": 1e999}',
    b'{"history": "\\ud800"}',
    b'{"history": "\\udc00x"}',
    b'{"history": "\xed\xa0\x80"}',
    b'{"history": "\xff"}',
    b'{"history": "\x00"}',
    b"\xef\xbb\xbf{}",
    b"{} {}",
    b"[" * 100_000,
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b'{"seed": ' + b"9" * 5000 + b"}",
    '{"history": []}'.encode("utf-16"),
]


@pytest.mark.parametrize("route", [*ROUTES, "/api/pull_model", "/api/delete_model", "/api/unload_model"])
async def test_what_is_not_json_is_a_400(api: Client, route: str) -> None:
    for body in NOT_JSON:
        told = check_error(await api.call("POST", route, body), 400)
        assert told["error"].startswith("The request body is not valid JSON"), body[:40]
    for body in (b"[]", b'"x"', b"null", b"5"):
        told = check_error(await api.call("POST", route, body), 400)
        assert told["error"].startswith("The request body must be a JSON object")


async def test_deep_nesting_in_a_message_is_refused(api: Client) -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    answer = await api.post("/api/chat", {"history": [{"role": "user", "content": "", "x": deep}], "models": ["tiny"]})
    check_error(answer, 400, "history[0] is nested more than 64 levels deep")


@pytest.mark.parametrize("route", [*ROUTES, "/api/pull_model", "/api/delete_model"])
async def test_only_json_is_taken(api: Client, route: str) -> None:
    body = json.dumps({"history": HELLO, "models": ["tiny"]}).encode()
    for kind in (b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b""):
        told = check_error(await api.call("POST", route, body, [(b"content-type", kind)]), 415)
        assert told["error"] == "Content-Type must be application/json"
    check_error(await api.call("POST", route, body, []), 415)
    check_error(await api.call("POST", route, body, [JSON_TYPE, (b"content-encoding", b"gzip")]), 415)


async def test_a_charset_is_taken(api: Client) -> None:
    body = json.dumps({"history": HELLO, "models": ["tiny"]}).encode()
    for kind in (b"application/json; charset=utf-8", b"Application/JSON ;charset=UTF-8"):
        assert (await api.call("POST", "/api/chat", body, [(b"content-type", kind)])).status == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_a_413(api: Client, declared: bool) -> None:
    body = b'{"history": "' + b"x" * 2**20 + b'"}'
    how = (b"content-length", str(len(body)).encode()) if declared else (b"transfer-encoding", b"chunked")
    check_error(await api.call("POST", "/api/chat", body, [JSON_TYPE, how]), 413)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/chat", 405),
        ("POST", "/api/models", 405),
        ("DELETE", "/api/health", 405),
        ("PUT", "/api/pull_model", 405),
        ("GET", "/api/", 404),
        ("GET", "/api/nothing", 404),
        ("POST", "/api/chat/", 404),
        ("GET", "/api/pulls/none", 404),
        ("POST", "/api/pulls/none/cancel", 404),
        ("GET", "/nothing", 404),
    ],
)
async def test_unknown_paths_and_methods_are_json(api: Client, method: str, path: str, status: int) -> None:
    answer = await api.call(method, path)
    body = check_error(answer, status)
    if status == 405:
        assert answer.headers["allow"]
        assert body["error"] == "Method not allowed"
    elif "pulls" not in path:
        assert body["error"] == "Resource not found"


async def test_errors_never_repeat_the_input(api: Client) -> None:
    big = CANARY + "x" * 500_000
    for body in (
        {"history": big},
        {"history": [{"role": big, "content": big}]},
        {"history": [{"role": "user", "content": 5, big: big}]},
        {"history": HELLO, "models": [big]},
        {"history": HELLO, "models": big},
        {"history": HELLO, "model_instances": [{"model": big}]},
        instance(temperature=big),
        instance(id=big),
        instance(stop=big),
        instance(think=big),
        instance(endpoint=big),
        {"history": HELLO, "models": ["tiny"], "order": big},
    ):
        answer = await api.post("/api/chat", body)
        check_error(answer, 400)
        assert CANARY.encode() not in answer.body


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("key", "value"), [("messages", HELLO), ("prompt", "Hi")])
async def test_messages_under_the_name_of_another_api_are_told_their_place(
    api: Client, route: str, key: str, value: object
) -> None:
    body = check_error(await api.post(route, {"models": ["tiny"], key: value}), 400, "No messages provided")
    assert body["details"].startswith(f"{key} is not read: put it into history")
    assert "details" not in check_error(await api.post(route, {"models": ["tiny"]}), 400, "No messages provided")


async def test_the_token_wins_over_every_other_error(fake: FakeOllama) -> None:
    token = "a-long-and-secret-token"
    async with started(create_api(settings_for(fake.url, token=token))) as api:
        for value, text in (
            (None, "Missing or invalid Authorization header"),
            (f"Basic {token}", "Missing or invalid Authorization header"),
            ("Bearer wrong", "Invalid authorization token"),
        ):
            headers = [] if value is None else [(b"authorization", value.encode())]
            for method, path in (("POST", "/api/chat"), ("GET", "/api/models"), ("POST", "/api/pull_model")):
                answer = await api.call(method, path, b"not json", headers)
                check_error(answer, 401, text)
                assert answer.headers["www-authenticate"]
        assert (await api.get("/api/health")).status == 200
        good = await api.call("GET", "/api/models", headers=[(b"authorization", f"Bearer {token}".encode())])
        assert good.status == 200


async def test_a_bug_is_a_500_without_its_story(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr("arena.api.compare.asked_in", broken)
    with pytest.raises(RuntimeError, match=CANARY):
        async with api.open("/api/chat", {}) as exchange:
            told = await exchange.answer()
    assert told.status == 500
    assert told.json() == {"error": "An unexpected error occurred", "code": "internal"}
    assert told.headers["connection"] == "close"


def test_an_error_that_says_when_to_come_back_has_the_header() -> None:
    assert of_arena_error(Busy("full", retry_after_s=1.2)).headers["retry-after"] == "2"
    assert of_arena_error(Busy("full", retry_after_s=0.0)).headers["retry-after"] == "1"
    assert "retry-after" not in of_arena_error(Busy("full")).headers
