"""Pull, push, create, copy and delete: on one host the host's own answer, on several one answer with all results."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from arena.errors import BadRequest, Forbidden, NoEndpoint, Unreachable, UpstreamBroken, UpstreamError
from arena.proxy import manage
from arena.proxy.progress import Merged, Results
from arena.proxy.reply import Action
from arena.settings import Settings
from arena.types import EndpointKind
from tests.fake_ollama import FakeOllama
from tests.proxy.ground import Answer, Ground, asked, grounds, whole

pytestmark = pytest.mark.anyio

TWO = {"a": ["tiny:latest"], "b": ["mistral:7b"]}
THREE = {**TWO, "c": ["tiny:latest"]}


async def pull(ground: Ground, model: str = "new:1b", endpoint: str = "", **more: Any) -> Answer:
    query = f"endpoint={endpoint}" if endpoint else ""
    return await ground.ask(manage.pull, "POST", "/api/pull", {"model": model, **more}, query=query)


async def direct(fake: FakeOllama, path: str, body: Any) -> bytes:
    """What the host itself answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
    sent = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(sent)}\r\n\r\n"
    writer.write(head.encode() + sent)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_with_one_host_the_bytes_are_its_own() -> None:
    async with grounds({"a": []}) as ground:
        answer = await pull(ground, "fx-pull:n-3", stream=True)
        own = await direct(ground["a"], "/api/pull", {"model": "fx-pull:n-3", "stream": True})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["x-olla-endpoint"] == "a"
    assert answer.lines[-1] == {"status": "success"}
    assert all(line in own for line in answer.body.split(b"\n"))
    assert answer.headers["x-olla-model"] == "fx-pull:n-3"
    assert b"host" not in answer.body


@pytest.mark.parametrize("name", ["model", "name"])
async def test_the_default_host_is_the_first_or_the_one_that_the_fleet_names(name: str) -> None:
    async with grounds(TWO) as ground:
        answer = await ground.ask(manage.pull, "POST", "/api/pull", {name: "new:1b", "stream": False})
        assert (answer.status, answer.json) == (200, {"status": "success"})
        assert (ground["a"].models[0], ground["b"].models) == ("new:1b", ["mistral:7b"])
    async with grounds(TWO, default_endpoint="b") as ground:
        assert (await pull(ground, stream=False)).headers["x-olla-endpoint"] == "b"


async def test_a_header_or_the_query_names_the_hosts_and_the_query_wins() -> None:
    async with grounds(THREE) as ground:
        answer = await ground.ask(
            manage.pull, "POST", "/api/pull", {"model": "new:1b"}, headers=[("X-Olla-Endpoint", "c, b ,c")]
        )
        assert answer.headers["x-olla-endpoint"] == "c,b"
        assert [result["host"] for result in answer.lines[-1]["results"]] == ["c", "b"]
        assert "new:1b" not in ground["a"].models
        answer = await ground.ask(
            manage.pull,
            "POST",
            "/api/pull",
            {"model": "new:1b"},
            query="x=1&endpoint=a",
            headers=[("X-Olla-Endpoint", "b")],
        )
        assert answer.headers["x-olla-endpoint"] == "a"


async def test_progress_of_several_hosts_is_merged_with_sums_and_a_result_for_each() -> None:
    async with grounds(TWO) as ground:
        answer = await pull(ground, "fx-pull:n-4_size-1000", "all")
    lines = answer.lines
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert lines[-1] == {
        "status": "success",
        "results": [{"host": "a", "status": "success"}, {"host": "b", "status": "success"}],
    }
    assert {line["host"] for line in lines[:-1]} == {"a", "b"}
    assert sum(line["status"] == "success" for line in lines) == 1, "a client that waits for success would leave"
    assert {"status": "success on a", "host": "a"} in lines
    layer = [line for line in lines if line.get("digest") and line["total"] in (1000, 2000)]
    assert layer[-1]["completed"] == layer[-1]["total"] == 2000
    assert all(line.get("completed", 0) <= line["total"] for line in layer)


async def test_one_hosts_failure_does_not_hide_the_others_success() -> None:
    async with grounds(TWO) as ground:
        ground["b"].state(routes={"/api/pull": "fx-pull-err"})
        answer = await pull(ground, endpoint="all")
        assert "new:1b" in ground["a"].models
        assert answer.status == 200
        last = answer.lines[-1]
        assert last["code"] == "partial_failure"
        assert last["error"] == "failed on b: pull model manifest: file does not exist (done on a)"
        assert last["results"] == [
            {"host": "a", "status": "success"},
            {
                "host": "b",
                "status": "error",
                "error": "pull model manifest: file does not exist",
                "code": "upstream_error",
            },
        ]
        quiet = await pull(ground, endpoint="all", stream=False)
        assert (quiet.status, quiet.json) == (502, last)


async def test_hosts_that_all_refuse_before_their_first_line_give_the_true_status() -> None:
    async with grounds(TWO) as ground:
        for fake in ground.fakes.values():
            fake.state(queue_full=True, routes={"/api/pull": "fx-status:c-503"})
        answer = await pull(ground, endpoint="all")
        assert answer.status == 503
        assert answer.json["code"] == "busy"
        assert [result["status"] for result in answer.json["results"]] == ["error", "error"]
        ground["a"].state(accept="refuse")
        assert (await pull(ground, endpoint="all")).status == 502


@pytest.mark.parametrize("scenario", ["fx-pull:cut-50", "fx-pull-disk", "fx-html:on-pull", "fx-eof0:on-pull"])
async def test_a_host_that_ends_badly_is_told_as_failed(scenario: str) -> None:
    async with grounds(TWO) as ground:
        ground["b"].state(routes={"/api/pull": scenario})
        last = (await pull(ground, endpoint="all")).lines[-1]
        assert [result["status"] for result in last["results"]] == ["success", "error"]
        assert "done on a" in last["error"]


async def test_a_download_without_success_at_its_end_has_failed() -> None:
    async with grounds(TWO) as ground:
        ground["b"].state(routes={"/api/pull": "fx-empty200"})
        last = (await pull(ground, endpoint="all")).lines[-1]
        assert last["results"][1]["code"] == "upstream_eof"


async def test_missing_means_those_that_lack_it_and_doing_it_again_does_nothing() -> None:
    async with grounds(THREE) as ground:
        answer = await pull(ground, "tiny", "missing")
        assert answer.headers["x-olla-endpoint"] == "b"
        assert answer.lines[-1] == {"status": "success"}
        again = await pull(ground, "tiny", "missing")
        assert again.status == 200
        assert again.json == {"status": "success", "results": []}
        assert len(asked(ground["b"], "/api/pull")) == 1
        assert asked(ground["a"], "/api/pull") == []
        with pytest.raises(BadRequest, match="a meaning only where a model is made"):
            await remove(ground, "tiny", "missing")


ENGINE: EndpointKind = "engine"


async def test_all_and_missing_mean_the_ollama_servers_and_the_engine_by_name() -> None:
    hosts = {**TWO, "e": ["tiny:latest"]}
    async with grounds(hosts, kinds={"e": ENGINE}) as ground:
        for word, meant in (("all", "a,b"), ("missing", "a,b"), ("e", "e")):
            assert (await pull(ground, f"new-{word}", word)).headers["x-olla-endpoint"] == meant
        for source, meant in (("tiny", "a,b,e"), ("mistral:7b", "a,b")):
            body = {"source": source, "destination": "other"}
            copied = await ground.ask(manage.copy, "POST", "/api/copy", body, query="endpoint=all")
            assert copied.headers["x-olla-endpoint"] == meant, "it can copy what it has"
    async with grounds({"e": []}, kinds={"e": ENGINE}) as ground:
        assert (await pull(ground, "new:1b", "all")).headers["x-olla-endpoint"] == "e"


@pytest.mark.parametrize("stream", [True, False])
async def test_push_from_all_skips_the_engine_which_publishes_nothing(stream: bool) -> None:
    body = {"model": "tiny", "stream": stream}
    hosts = {"a": ["tiny:latest"], "e": ["tiny:latest"]}
    async with grounds(hosts, kinds={"e": ENGINE}) as ground:
        answer = await ground.ask(manage.push, "POST", "/api/push", body, query="endpoint=all")
        assert (answer.status, answer.headers["x-olla-endpoint"]) == (200, "a")
        last = answer.lines[-1] if stream else answer.json
        assert last == {
            "status": "success",
            "results": [{"host": "a", "status": "success"}, {"host": "e", "status": "skipped"}],
        }
        assert asked(ground["e"], "/api/push") == []
        for named in ("e", "a,e"):
            await ground.ask(manage.push, "POST", "/api/push", body, query=f"endpoint={named}")
        assert len(asked(ground["e"], "/api/push")) == 2, "who is named says itself why not"
    async with grounds({"e": ["tiny:latest"]}, kinds={"e": ENGINE}) as ground:
        await ground.ask(manage.push, "POST", "/api/push", body, query="endpoint=all")
        assert len(asked(ground["e"], "/api/push")) == 1


async def remove(ground: Ground, model: str, endpoint: str = "", method: str = "DELETE") -> Answer:
    query = f"endpoint={endpoint}" if endpoint else ""
    return await ground.ask(manage.delete, method, "/api/delete", {"model": model}, query=query)


@pytest.mark.parametrize("method", ["DELETE", "POST"])
async def test_delete_on_one_host_is_the_hosts_own_empty_answer(method: str) -> None:
    async with grounds(THREE) as ground:
        answer = await remove(ground, "tiny", method=method)
        assert (answer.status, answer.body) == (200, b"")
        assert "content-type" not in answer.headers
        assert (ground["a"].models, ground["c"].models) == ([], ["tiny:latest"])
        (record,) = [record for record in ground["a"].log if record.path == "/api/delete"]
        assert record.method == "DELETE"


async def test_delete_goes_where_the_model_is_when_the_default_host_lacks_it() -> None:
    async with grounds(TWO) as ground:
        assert (await remove(ground, "mistral:7b")).headers["x-olla-endpoint"] == "b"
        assert ground["b"].models == []
        answer = await remove(ground, "nowhere")
        assert (answer.status, answer.json) == (404, {"error": "model 'nowhere' not found"})


async def test_delete_everywhere_takes_absence_as_done_unless_nobody_had_it() -> None:
    async with grounds(THREE) as ground:
        answer = await remove(ground, "tiny", "all")
        assert answer.status == 200
        assert [result["status"] for result in answer.json["results"]] == ["success", "absent", "success"]
        answer = await remove(ground, "tiny", "all")
        assert answer.status == 404
        assert answer.json["code"] == "model_not_found"
        ground["b"].state(accept="refuse")
        ground["a"].add_model("tiny")
        answer = await remove(ground, "tiny", "all")
        assert answer.status == 502
        assert [result["status"] for result in answer.json["results"]] == ["success", "error", "absent"]


async def test_copy_and_push_and_create_go_where_their_source_is() -> None:
    async with grounds(TWO) as ground:
        copied = await ground.ask(manage.copy, "POST", "/api/copy", {"source": "mistral:7b", "destination": "mine"})
        assert (copied.status, copied.body, copied.headers["x-olla-endpoint"]) == (200, b"", "b")
        assert "mine:latest" in ground["b"].models
        pushed = await ground.ask(manage.push, "POST", "/api/push", {"model": "mistral:7b"})
        assert pushed.headers["x-olla-endpoint"] == "b"
        assert pushed.lines[-1] == {"status": "success"}
        made = await ground.ask(manage.create, "POST", "/api/create", {"model": "made", "from": "mistral:7b"})
        assert made.headers["x-olla-endpoint"] == "b"
        old = {"model": "old", "modelfile": "FROM ./m.gguf\nFROM mistral:7b"}
        assert (await ground.ask(manage.create, "POST", "/api/create", old)).headers["x-olla-endpoint"] == "b"
        files = {"model": "filed", "files": {"m.gguf": "sha256:" + "0" * 64}, "stream": False}
        made = await ground.ask(manage.create, "POST", "/api/create", files)
        assert (made.headers["x-olla-endpoint"], made.json) == ("a", {"status": "success"})
        both = await ground.ask(manage.create, "POST", "/api/create", files, query="endpoint=missing")
        assert both.headers["x-olla-endpoint"] == "b"


async def test_copy_on_several_hosts_has_a_result_for_each() -> None:
    async with grounds(THREE) as ground:
        body = {"source": "tiny", "destination": "twin"}
        answer = await ground.ask(manage.copy, "POST", "/api/copy", body, query="endpoint=all")
        assert answer.status == 502
        assert [result["status"] for result in answer.json["results"]] == ["success", "error", "success"]
        assert answer.json["error"] == 'failed on b: model "tiny" not found (done on a, c)'


async def test_what_was_changed_is_known_at_once() -> None:
    async with grounds(TWO) as ground:
        await pull(ground, "new:1b", "a", stream=False)
        assert "new:1b" in [info.name for info in await ground.fleet.models()]
        await pull(ground, "newer:1b", "all")
        await ground["b"].until(lambda: len(asked(ground["b"], "/api/tags")) >= 2, 2, "the list is asked for again")
        await ground.fleet.models()
        assert ground.fleet.endpoint("b").known("newer:1b") is not None
        await remove(ground, "newer:1b", "all")
        assert "newer:1b" not in [info.name for info in await ground.fleet.models()]


@pytest.mark.parametrize("endpoint", ["a", "all"])
async def test_leaving_frees_every_host_and_what_came_before_it_is_not_success(endpoint: str) -> None:
    async with grounds(TWO) as ground:
        body = {"model": "fx-gate:id-x"}
        reply = await manage.pull(ground, ground.inbound("POST", "/api/pull", f"endpoint={endpoint}"), encoded(body))
        assert not isinstance(reply.body, bytes)
        await anext(reply.body)
        await reply.body.aclose()  # type: ignore[attr-defined]
        for name in "ab" if endpoint == "all" else "a":
            await ground[name].closed(1)


async def test_leaving_before_the_first_line_was_taken_frees_the_hosts_too() -> None:
    async with grounds(TWO) as ground:
        for endpoint in ("a", "all"):
            inbound = ground.inbound("POST", "/api/pull", f"endpoint={endpoint}")
            reply = await manage.pull(ground, inbound, encoded({"model": "fx-gate:id-x"}))
            await reply.body.aclose()  # type: ignore[union-attr]
        await ground["a"].closed(2)


async def test_leaving_while_nothing_has_come_yet_frees_the_hosts() -> None:
    async with grounds(TWO) as ground:
        for fake in ground.fakes.values():
            fake.state(routes={"/api/pull": "fx-hang:on-pull"})
        ways = ("a", True), ("a", False), ("all", True), ("all", False)
        for count, (endpoint, stream) in enumerate(ways, 1):
            asking = asyncio.create_task(pull(ground, endpoint=endpoint, stream=stream))
            await ground["a"].arrived(count, path="/api/pull")
            asking.cancel()
            await ground["a"].closed(count)
            with pytest.raises(asyncio.CancelledError):
                await asking


def encoded(body: Any) -> bytes:
    return json.dumps(body).encode()


async def test_a_stream_that_breaks_off_is_not_told_as_whole() -> None:
    async with grounds({"a": []}) as ground:
        inbound = ground.inbound("POST", "/api/pull")
        reply = await manage.pull(ground, inbound, encoded({"model": "fx-pull:cut-40"}))
        with pytest.raises(UpstreamBroken):
            await whole(reply)


async def test_the_hosts_own_refusals_are_handed_on_but_not_those_of_our_credentials() -> None:
    async with grounds({"a": ["tiny"]}) as ground:
        answer = await pull(ground, "fx-status:c-418")
        assert answer.status == 418
        assert answer.headers["content-type"].startswith("application/json")
        for stream in (True, False):
            busy = await pull(ground, "fx-status:c-503_ra-7", stream=stream)
            assert (busy.status, busy.headers["retry-after"]) == (503, "7")
            with pytest.raises(UpstreamError, match="refuses our credentials"):
                await pull(ground, "fx-status:c-401", stream=stream)
        ground["a"].state(accept="refuse")
        with pytest.raises(Unreachable):
            await pull(ground)


@pytest.mark.parametrize(
    ("action", "body", "words"),
    [
        (manage.pull, {}, "model is required"),
        (manage.pull, {"model": "../etc"}, "not a valid model name"),
        (manage.pull, {"model": "evil.example/ns/model"}, "names a registry that is not allowed"),
        (manage.push, {"model": "evil.example:5000/ns/model"}, "names a registry that is not allowed"),
        (manage.create, {"model": "x", "from": "evil.example/ns/model"}, "names a registry that is not allowed"),
        (manage.create, {"model": "x", "from": ["tiny"]}, "from and modelfile must be text"),
        (manage.create, {"model": "x", "From": "evil.example/ns/model"}, "From is no key of this request"),
        (
            manage.create,
            {"model": "x", "modelfile": "# a\n from  'evil.example/ns/model' \nSYSTEM x"},
            "names a registry that is not allowed",
        ),
        (manage.pull, {"model": "x", "Model": "evil.example/ns/model"}, "Model is no key of this request"),
        (manage.copy, {"source": "tiny"}, "destination must be a model name"),
        (manage.copy, {"destination": "tiny"}, "source must be a model name"),
        (manage.delete, {"model": 7}, "model must be a model name"),
    ],
)
async def test_what_is_refused_before_any_host_is_asked(action: Action, body: Any, words: str) -> None:
    async with grounds(TWO) as ground:
        with pytest.raises(BadRequest, match=words):
            await ground.ask(action, "POST", "/api/x", body)
        assert all(len(fake.log) == 3 for fake in ground.fakes.values())  # what the fleet asked when it was built


async def test_hosts_that_are_none() -> None:
    async with grounds({**TWO, "v": []}, kinds={"v": "openai"}) as ground:
        with pytest.raises(BadRequest, match=r"endpoint names v, x, but the hosts are a, b \(or: all, missing\)"):
            await pull(ground, endpoint="v,a,x")
        answer = await pull(ground, endpoint="all")
        assert answer.headers["x-olla-endpoint"] == "a,b"
    async with grounds({"v": []}, kinds={"v": "openai"}) as ground:
        with pytest.raises(NoEndpoint):
            await pull(ground)


async def test_a_key_with_a_list_of_models_changes_no_others() -> None:
    async with grounds(TWO) as ground:
        ground.models = ("mistral*",)
        for source in ({"from": "tiny"}, {"modelfile": "FROM tiny"}):
            with pytest.raises(Forbidden, match="made from") as refused:
                await ground.ask(manage.create, "POST", "/api/create", {"model": "mistral-mine", **source})
            assert refused.value.code == "model_not_allowed"
        with pytest.raises(Forbidden, match=r"may not use that model; it may use: mistral\*") as refused:
            await remove(ground, "tiny")
        assert refused.value.code == "model_not_allowed"
        assert (await remove(ground, "mistral:7b")).status == 200


OPEN = {"management": "open"}
CLOSED = {"management": "closed"}
PUBLIC = {"host": "0.0.0.0", "token": "a-token-of-more-than-16-characters"}


@pytest.mark.parametrize(
    ("settings", "fleet", "is_open"),
    [
        ({}, {}, True),
        (PUBLIC, {}, False),
        (PUBLIC, OPEN, True),
        ({**PUBLIC, "management": True}, {}, True),
        ({"management": False}, OPEN, False),
        ({}, CLOSED, False),
        ({"management": True}, CLOSED, False),
        ({"space_id": "me/space", "host": "127.0.0.1"}, {}, False),
    ],
)
async def test_when_changing_models_is_open(settings: dict[str, Any], fleet: dict[str, Any], is_open: bool) -> None:
    async with grounds(TWO, settings=settings, **fleet) as ground:
        assert isinstance(ground.settings, Settings)
        if is_open:
            assert (await pull(ground, stream=False)).status == 200
            return
        for action in (manage.pull, manage.push, manage.create, manage.copy, manage.delete):
            with pytest.raises(Forbidden) as caught:
                await ground.ask(action, "POST", "/api/x", {"model": "tiny"})
            assert caught.value.code == "management_closed"
        if settings.get("host") == "0.0.0.0":
            assert "ARENA_MANAGEMENT=1" in caught.value.message


async def test_a_change_leaves_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "arena.proxy")
    async with grounds(TWO) as ground:
        await remove(ground, "tiny", "all")
    (record,) = [record for record in caplog.records if record.name == "arena.proxy.passing"]
    assert record.message == "DELETE /api/delete, asked by 127.0.0.1"
    assert (record.__dict__["model"], record.__dict__["endpoint"]) == ("tiny", "a,b")


async def test_a_bug_in_the_work_is_a_failure_and_no_endless_wait(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    async with grounds(TWO) as ground:
        merged = Merged(ground.fleet.endpoints, broken, Results(ground.fleet.endpoints))
        assert not await merged.begun()
        assert merged.results.status == 500
        await merged.aclose()
    assert "changing models failed" in caplog.text


async def test_a_name_that_no_host_has_is_told_by_the_host() -> None:
    async with grounds(TWO) as ground:
        answer = await ground.ask(manage.push, "POST", "/api/push", {"model": "nowhere", "stream": False})
        assert answer.status == 500
        assert answer.json == {"error": "file does not exist"}
