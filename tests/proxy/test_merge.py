"""The fleet told as one server: alive, tags, ps, version, lists of models, show."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from arena.errors import BadRequest, ModelNotFound, NoEndpoint, Unreachable
from arena.fleet import Wanted
from arena.proxy import merge
from arena.proxy.reply import Action
from arena.types import EndpointKind
from tests.fake_ollama import catalogue
from tests.proxy.ground import Ground, asked, grounds

pytestmark = pytest.mark.anyio

TWO = {"a": ["llama3.2:3b", "tiny:latest"], "b": ["mistral:7b", "Tiny:latest"]}
ENGINE: EndpointKind = "engine"


@pytest.fixture
def other_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name written with a capital has another digest: as if another model lay there under the same name."""
    digest = catalogue.digest
    monkeypatch.setattr(catalogue, "digest", lambda name: digest(f"other-{name}" if name[0].isupper() else name))


async def test_tags_are_the_union_with_every_field_and_the_hosts_in_a_stable_order() -> None:
    async with grounds(TWO) as ground:
        first = await ground.ask(merge.tags, "GET", "/api/tags")
        again = await ground.ask(merge.tags, "GET", "/api/tags")
    assert first.status == 200
    assert first.body == again.body
    assert first.headers["content-type"] == "application/json; charset=utf-8"
    assert first.headers["x-olla-endpoint"] == "a,b"
    assert first.headers["x-olla-backend-type"] == "ollama"
    listed = {entry["name"]: entry.pop("olla") for entry in first.json["models"]}
    assert list(listed) == ["llama3.2:3b", "mistral:7b", "tiny:latest"]
    assert listed["tiny:latest"] == {"hosts": ["a", "b"], "drift": False}
    assert listed["mistral:7b"] == {"hosts": ["b"], "drift": False}
    entry = next(entry for entry in first.json["models"] if entry["name"] == "mistral:7b")
    entry.pop("olla")
    assert entry == catalogue.tags_entry("mistral:7b")


async def test_tags_keep_what_nobody_knows_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = catalogue.tags_entry
    monkeypatch.setattr(catalogue, "tags_entry", lambda name: {**plain(name), "new_field": {"deep": [1, 2.5, None]}})
    async with grounds({"a": ["tiny"]}) as ground:
        (entry,) = (await ground.ask(merge.tags, "GET", "/api/tags")).json["models"]
    assert entry["new_field"] == {"deep": [1, 2.5, None]}


@pytest.mark.usefixtures("other_digests")
async def test_one_name_with_two_digests_is_two_entries_that_say_so() -> None:
    async with grounds(TWO) as ground:
        models = (await ground.ask(merge.tags, "GET", "/api/tags")).json["models"]
        shown = await ground.ask(merge.show, "POST", "/api/show", {"model": "tiny"})
        listed = (await ground.ask(merge.v1_models, "GET", "/v1/models")).json["data"]
    tiny = [entry for entry in models if entry["name"].lower() == "tiny:latest"]
    assert sorted(entry["olla"]["hosts"][0] for entry in tiny) == ["a", "b"]
    assert all(entry["olla"]["drift"] for entry in tiny)
    assert sum(entry["olla"]["drift"] for entry in models) == 2
    drift = dict(part.split("=") for part in shown.headers["x-olla-digest-drift"].split(", "))
    assert drift == {name: entry["digest"][:12] for name, entry in zip("ab", sorted_by_host(tiny), strict=True)}
    (one,) = [entry for entry in listed if entry["id"].lower() == "tiny:latest"]
    assert one["olla"] == {"hosts": ["a", "b"], "drift": True}


def sorted_by_host(entries: list[Any]) -> list[Any]:
    return sorted(entries, key=lambda entry: entry["olla"]["hosts"])


async def test_a_host_that_is_silent_or_talks_nonsense_is_named_and_the_others_are_told() -> None:
    async with grounds({**TWO, "c": ["big:70b"]}) as ground:
        ground["b"].state(accept="refuse")
        ground["c"].state(routes={"/api/tags": "fx-html"})
        answer = await ground.ask(merge.tags, "GET", "/api/tags")
    assert [entry["name"] for entry in answer.json["models"]] == ["llama3.2:3b", "tiny:latest"]
    assert answer.headers["x-olla-endpoint"] == "a"
    assert answer.headers["x-olla-unavailable"] == "b,c"


async def test_an_empty_list_means_that_there_is_nothing_and_silence_is_an_error() -> None:
    async with grounds({"a": []}) as ground:
        assert (await ground.ask(merge.tags, "GET", "/api/tags")).json == {"models": []}
        assert (await ground.ask(merge.v1_models, "GET", "/v1/models")).json == {"object": "list", "data": []}
        ground["a"].state(accept="refuse")
        with pytest.raises(NoEndpoint, match="No host answers"):
            await ground.ask(merge.tags, "GET", "/api/tags")
    async with grounds({}) as ground:
        assert (await ground.ask(merge.tags, "GET", "/api/tags")).json == {"models": []}
        assert ground.told(merge.no_models, "/olla/vllm/v1/models").json == {"object": "list", "data": []}


async def test_a_host_that_is_known_to_be_down_is_not_asked() -> None:
    async with grounds(TWO) as ground:
        ground.fleet.endpoint("b").health.refused()
        answer = await ground.ask(merge.tags, "GET", "/api/tags")
        assert answer.headers["x-olla-endpoint"] == "a"
        assert len(asked(ground["b"], "/api/tags")) == 1  # when the fleet was built


async def test_leaving_frees_the_hosts() -> None:
    async with grounds({"a": ["tiny"]}) as ground:
        ground["a"].state(routes={"/api/tags": "fx-hang"})
        asking = asyncio.create_task(ground.ask(merge.tags, "GET", "/api/tags"))
        await ground["a"].arrived(2, path="/api/tags")
        asking.cancel()
        await ground["a"].closed(1)
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_hidden_models_and_those_outside_the_key_are_not_listed() -> None:
    async with grounds(TWO, specs={"a": {"exclude": ("llama*",)}}) as ground:
        assert await names_of(ground) == ["mistral:7b", "tiny:latest"]
        ground.models = ("mistral*",)
        assert await names_of(ground) == ["mistral:7b"]
        data = (await ground.ask(merge.v1_models, "GET", "/v1/models")).json["data"]
        assert [entry["id"] for entry in data] == ["mistral:7b"]
        with pytest.raises(ModelNotFound):
            await ground.ask(merge.show, "POST", "/api/show", {"model": "tiny"})
        ground["a"].load("tiny", {})
        assert (await ground.ask(merge.ps, "GET", "/api/ps")).json == {"models": []}


async def names_of(ground: Ground) -> list[str]:
    return [entry["name"] for entry in (await ground.ask(merge.tags, "GET", "/api/tags")).json["models"]]


async def test_aliases_are_listed_beside_what_they_mean_now() -> None:
    aliases = {"Best": ("gone:1b", "mistral:7b"), "nothing": ("gone:1b",)}
    async with grounds(TWO, aliases=aliases) as ground:
        models = {entry["name"]: entry for entry in (await ground.ask(merge.tags, "GET", "/api/tags")).json["models"]}
        assert "nothing" not in models
        best, meant = models["Best"], models["mistral:7b"]
        assert best["model"] == "Best"
        assert best["olla"] == {"hosts": ["b"], "drift": False, "alias_of": "mistral:7b"}
        assert best["digest"] == meant["digest"]
        shown = await ground.ask(merge.show, "POST", "/api/show", {"model": "BEST"})
        assert shown.headers["x-olla-endpoint"] == "b"
        assert shown.headers["x-olla-model"] == "BEST"
        assert asked(ground["b"], "/api/show") == [{"model": "mistral:7b"}]
        assert (await ground.ask(merge.v1_model, "GET", "/v1/models/best")).json["id"] == "Best"


async def test_ps_tells_of_every_host_what_it_holds_with_memory_and_expiry() -> None:
    async with grounds(TWO) as ground:
        ground["a"].load("tiny", {})
        ground["b"].load("tiny", {})
        models = (await ground.ask(merge.ps, "GET", "/api/ps")).json["models"]
    assert [(entry["name"], entry["host"]) for entry in models] == [("tiny:latest", "a"), ("tiny:latest", "b")]
    assert all(entry["size"] > entry["size_vram"] > 0 and entry["expires_at"] for entry in models)


async def test_version_is_the_oldest_one_with_a_map() -> None:
    async with grounds({"a": [], "b": [], "c": []}) as ground:
        for name, version in (("a", "0.12.6"), ("b", "0.9.10-rc1"), ("c", "0.9.10")):
            ground[name].state(version=version)
        answer = (await ground.ask(merge.version, "GET", "/api/version")).json
    assert answer == {"version": "0.9.10-rc1", "hosts": {"a": "0.12.6", "b": "0.9.10-rc1", "c": "0.9.10"}}
    async with grounds({}) as ground:
        assert (await ground.ask(merge.version, "GET", "/api/version")).json == {"version": "0.0.0", "hosts": {}}


@pytest.mark.parametrize("odd", ["9" * 5000, "0.9." + "0" * 5000 + "11", "v0.12", "²", "", "...", "1.\n2"])
async def test_an_odd_version_of_one_host_hides_no_other(odd: str) -> None:
    async with grounds({"a": [], "b": []}) as ground:
        ground["a"].state(version="0.9.10")
        ground["b"].state(version=odd)
        answer = (await ground.ask(merge.version, "GET", "/api/version")).json
    assert answer == {"version": "0.9.10", "hosts": {"a": "0.9.10", "b": odd}}


async def test_openai_lists_and_single_models_with_slashes_in_their_ids() -> None:
    async with grounds({"a": ["hf.co/org/name:Q4_0"], "b": ["tiny", "hf.co/org/name:Q4_0"]}) as ground:
        listed = (await ground.ask(merge.v1_models, "GET", "/v1/models")).json
        assert [entry["id"] for entry in listed["data"]] == ["hf.co/org/name:Q4_0", "tiny:latest"]
        assert listed["data"][0]["olla"] == {"hosts": ["a", "b"], "drift": False}
        assert listed["data"][1]["owned_by"] == "library"
        one = await ground.ask(merge.v1_model, "GET", "/v1/models/hf.co/org/name:q4_0")
        assert one.json == listed["data"][0]
        assert (await ground.ask(merge.v1_model, "GET", "/v1/models/TINY")).json["id"] == "tiny:latest"
        with pytest.raises(ModelNotFound, match="'nowhere' not found"):
            await ground.ask(merge.v1_model, "GET", "/v1/models/nowhere")


async def test_anthropic_lists_the_same_models() -> None:
    async with grounds({"a": ["tiny", "mistral:7b"]}) as ground:
        answer = (await ground.ask(merge.anthropic_models, "GET", "/olla/anthropic/v1/models")).json
        one = await ground.ask(merge.anthropic_model, "GET", "/olla/anthropic/v1/models/Mistral:7b")
        assert (one.json, one.headers["x-olla-model"]) == (answer["data"][0], "Mistral:7b")
        with pytest.raises(ModelNotFound, match="'nowhere' not found"):
            await ground.ask(merge.anthropic_model, "GET", "/olla/anthropic/v1/models/nowhere")
    assert (answer["first_id"], answer["last_id"], answer["has_more"]) == ("mistral:7b", "tiny:latest", False)
    assert answer["data"][0] == {
        "type": "model",
        "id": "mistral:7b",
        "display_name": "mistral:7b",
        "created_at": "2026-01-01T00:00:00Z",
    }
    async with grounds({"a": []}) as ground:
        answer = (await ground.ask(merge.anthropic_models, "GET", "/olla/anthropic/v1/models")).json
    assert answer == {"data": [], "has_more": False, "first_id": None, "last_id": None}


async def test_ollamas_own_prefix_lists_only_hosts_that_speak_it() -> None:
    async with grounds({"a": ["tiny"], "v": ["qwen"], "e": ["own"]}, kinds={"v": "openai", "e": "engine"}) as ground:
        native = (await ground.ask(merge.v1_models, "GET", "/v1/models")).json["data"]
        everything = (await ground.ask(merge.v1_models, "GET", "/olla/openai/v1/models")).json["data"]
    assert [entry["id"] for entry in native] == ["own:latest", "tiny:latest"]
    assert [entry["id"] for entry in everything] == ["own:latest", "qwen:latest", "tiny:latest"]


@pytest.mark.parametrize("name", ["tiny", "TINY:latest", "tiny:latest"])
async def test_show_comes_from_a_host_that_has_the_model_and_leaks_no_path(name: str) -> None:
    async with grounds({"a": ["mistral:7b"], "b": ["tiny"]}) as ground:
        answer = await ground.ask(merge.show, "POST", "/api/show", {"name": name, "verbose": True})
        assert asked(ground["a"], "/api/show") == []
        assert asked(ground["b"], "/api/show") == [{"name": name, "verbose": True, "model": "tiny:latest"}]
    assert answer.headers["x-olla-endpoint"] == "b"
    assert answer.headers["x-olla-backend-type"] == "ollama"
    assert "x-olla-digest-drift" not in answer.headers
    assert answer.json.pop("modelfile") == "# Modelfile\nFROM tiny:latest\n"
    assert b"secret" not in answer.body
    rest = {key: value for key, value in catalogue.show("tiny").items() if key != "modelfile"}
    assert {key: value for key, value in answer.json.items() if key != "modelfile"} == rest


async def test_show_asks_the_next_host_when_one_fails_and_a_healthy_one_first() -> None:
    async with grounds({"a": ["tiny"], "b": ["tiny"], "c": ["tiny"]}) as ground:
        ground["b"].state(accept="refuse")
        ground.fleet.endpoint("a").health.refused()
        answer = await ground.ask(merge.show, "POST", "/api/show", {"model": "tiny"})
        assert answer.headers["x-olla-endpoint"] == "c"
        ground["c"].state(accept="refuse")
        ground["a"].state(accept="refuse")
        with pytest.raises(Unreachable):
            await ground.ask(merge.show, "POST", "/api/show", {"model": "tiny"})


async def test_show_finds_what_was_pulled_elsewhere_a_moment_ago() -> None:
    async with grounds({"a": ["tiny"], "b": []}) as ground:
        ground["b"].add_model("new:1b")
        answer = await ground.ask(merge.show, "POST", "/api/show", {"model": "new:1b"})
        assert answer.headers["x-olla-endpoint"] == "b"
        with pytest.raises(ModelNotFound, match="model 'nowhere' not found"):
            await ground.ask(merge.show, "POST", "/api/show", {"model": "nowhere"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "missing request body"),
        (b"{", "must be a JSON object"),
        (b"[]", "must be a JSON object"),
        ({}, "model is required"),
        ({"model": 3}, "must be a model name"),
        ({"model": "../x"}, "not a valid model name"),
    ],
)
async def test_what_show_refuses(body: Any, words: str) -> None:
    async with grounds({"a": ["tiny"]}) as ground:
        with pytest.raises(BadRequest, match=words):
            await ground.ask(merge.show, "POST", "/api/show", body)


async def test_alive_while_any_host_is() -> None:
    async with grounds(TWO) as ground:
        answer = ground.told(merge.alive, "/")
        assert (answer.status, answer.body) == (200, b"Ollama is running")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-olla-endpoints-up"] == "2/2"
    async with grounds({**TWO, "v": []}, kinds={"v": "openai"}) as ground:
        for path, hosts in (("/olla/ollama/", "a,b"), ("/olla/ollama", "a,b"), ("/olla/proxy", "a,b,v")):
            assert ground.told(merge.alive, path).headers["x-olla-endpoint"] == hosts
    async with grounds(TWO) as ground:
        answer = ground.told(merge.alive, "/")
        assert answer.headers["x-olla-endpoint"] == "a,b"
        ground.fleet.endpoint("a").health.refused()
        answer = ground.told(merge.alive, "/")
        assert (answer.status, answer.headers["x-olla-endpoints-up"]) == (200, "1/2")
        assert answer.headers["x-olla-fleet"] == "a=offline, b=healthy"
        ground.fleet.endpoint("b").health.refused()
        answer = ground.told(merge.alive, "/")
        assert answer.status == 503
        assert answer.json == {"error": "No host can be used now", "code": "no_endpoint"}


async def test_hosts_that_get_no_work_do_not_make_it_alive() -> None:
    async with grounds(TWO) as ground:
        ground.fleet.drain("a", on=True)
        answer = ground.told(merge.alive, "/")
        assert (answer.status, answer.headers["x-olla-endpoint"]) == (200, "b")
        assert answer.headers["x-olla-fleet"] == "a=draining, b=healthy"
        lease = await ground.fleet.lease(Wanted(None, endpoint="b"))
        lease.failed(status=503, retry_after_s=60)
        lease.close()
        answer = ground.told(merge.alive, "/")
        assert (answer.status, answer.headers["x-olla-endpoints-up"]) == (503, "0/2")
        ground.fleet.drain("a", on=False)
        assert ground.told(merge.alive, "/").status == 200


@pytest.mark.parametrize(
    ("action", "method", "path", "body"),
    [
        (merge.tags, "GET", "/api/tags", None),
        (merge.ps, "GET", "/api/ps", None),
        (merge.version, "GET", "/api/version", None),
        (merge.show, "POST", "/api/show", {"model": "tiny"}),
        (merge.v1_models, "GET", "/v1/models", None),
        (merge.v1_model, "GET", "/v1/models/tiny", None),
    ],
)
async def test_a_request_may_be_about_one_host(action: Action, method: str, path: str, body: Any) -> None:
    async with grounds({"a": ["tiny"], "b": ["tiny"], "v": ["tiny"]}, kinds={"v": "openai"}) as ground:
        for ways in ({"headers": [("X-Olla-Endpoint", "b")]}, {"query": "endpoint=b"}):
            answer = await ground.ask(action, method, path, body, **ways)
            assert (answer.status, answer.headers["x-olla-endpoint"]) == (200, "b")
        everybody = await ground.ask(action, method, path, body, headers=[("X-Olla-Endpoint", "all")])
        assert everybody.headers["x-olla-endpoint"].startswith("a")
        for name in ("nobody", "v"):
            with pytest.raises(BadRequest, match=f"called {name}; there are a, b$"):
                await ground.ask(action, method, path, body, headers=[("X-Olla-Endpoint", name)])


async def test_whether_one_host_is_alive() -> None:
    async with grounds({"a": [], "b": [], "v": []}, kinds={"v": "openai"}) as ground:
        for ways in ({"headers": [("X-Olla-Endpoint", "b")]}, {"query": "endpoint=b"}):
            answer = ground.told(merge.alive, "/", **ways)
            assert (answer.status, answer.headers["x-olla-endpoint"]) == (200, "b")
        assert ground.told(merge.alive, "/", query="x=1").headers["x-olla-endpoint"] == "a,b"
        with pytest.raises(BadRequest, match=r"called v; there are a, b$"):
            ground.told(merge.alive, "/", query="endpoint=v")


async def test_hosts_without_ollamas_api_do_not_make_it_alive() -> None:
    async with grounds({"v": ["qwen"]}, kinds={"v": "openai"}) as ground:
        assert ground.told(merge.alive, "/").status == 503
        assert (await ground.ask(merge.tags, "GET", "/api/tags")).json == {"models": []}
