"""All models of the fleet in one list, and one of them, as Olla tells of them."""

from __future__ import annotations

import pytest

from arena.api import internal, unified
from arena.errors import BadRequest, ModelNotFound
from arena.exchange import Refusals
from arena.fleet import Wanted
from arena.proxy.table import Table
from tests.api.test_internal import TWO, got, told
from tests.fake_ollama import catalogue
from tests.proxy.ground import grounds

pytestmark = pytest.mark.anyio


@pytest.fixture
def other_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name written with a capital has another digest."""
    digest = catalogue.digest
    monkeypatch.setattr(catalogue, "digest", lambda name: digest(f"other-{name}" if name[0].isupper() else name))


async def test_all_models_in_one_list_with_live_states() -> None:
    async with grounds(TWO, aliases={"best": ("mistral:7b",)}) as ground:
        ground["b"].load("tiny", {})
        await ground.fleet.endpoint("b").models(0.0)
        listed = await told(ground, unified.listed)
        assert listed["object"] == "list"
        by_id = {entry["id"]: entry for entry in listed["data"]}
        assert list(by_id) == ["llama3.2:3b", "mistral:7b", "tiny:latest"]
        tiny = by_id["tiny:latest"]
        assert (tiny["object"], tiny["owned_by"], tiny["created"]) == ("model", "olla", 1767265200)
        digest = tiny["olla"]["digest"]
        assert tiny["olla"]["availability"] == [
            {"endpoint": "a", "state": "available", "digest": digest},
            {"endpoint": "b", "state": "loaded", "digest": digest},
        ]
        assert not tiny["olla"]["drift"]
        assert tiny["olla"]["max_context_length"] == 8192
        assert by_id["mistral:7b"]["olla"]["aliases"] == ["best"]
        ground.fleet.endpoint("b").health.refused()
        assert "mistral:7b" not in str(await told(ground, unified.listed))
        everything = await told(ground, unified.listed, "include_unavailable=true")
        assert by_id.keys() == {entry["id"] for entry in everything["data"]}
        gone = await told(ground, unified.listed, "available=false")
        assert [entry["id"] for entry in gone["data"]] == ["mistral:7b"]
        assert gone["data"][0]["olla"]["availability"][0]["state"] == "unavailable"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("endpoint=b", ["mistral:7b", "tiny:latest"]),
        ("family=mistral", ["mistral:7b"]),
        ("capability=tools", ["llama3.2:3b", "mistral:7b", "tiny:latest"]),
        ("capability=vision", []),
        ("type=ollama", ["llama3.2:3b", "mistral:7b", "tiny:latest"]),
        ("type=llm&endpoint=a", ["llama3.2:3b", "tiny:latest"]),
        ("type=embedding", []),
        ("available=true&family=tiny", ["tiny:latest"]),
        ("format=openai&family=tiny", ["tiny:latest"]),
        ("format=vllm", []),
        ("format=llamacpp", []),
    ],
)
async def test_the_list_can_be_narrowed(query: str, expected: list[str]) -> None:
    async with grounds(TWO) as ground:
        listed = await told(ground, unified.listed, query)
        assert [entry["id"] for entry in listed["data"]] == expected


async def test_other_forms_of_the_list() -> None:
    async with grounds(TWO) as ground:
        models = (await told(ground, unified.listed, "format=ollama"))["models"]
        assert [entry["name"] for entry in models] == ["llama3.2:3b", "mistral:7b", "tiny:latest"]
        assert models[0]["details"]["quantization_level"] == "Q4_K_M"
        ground["a"].add_model("fx-vision:1b")
        await ground.fleet.models(0.0)
        seeing = (await told(ground, unified.listed, "type=vlm"))["data"]
        assert [entry["id"] for entry in seeing] == ["fx-vision:1b"]
        with pytest.raises(BadRequest, match="format must be one of: unified, openai, ollama"):
            await told(ground, unified.listed, "format=xml")


@pytest.mark.usefixtures("other_digests")
async def test_one_model_by_id_or_alias() -> None:
    held = {"a": ["hf.co/org/name:q4_0", "tiny:latest"], "b": ["Tiny:latest"]}
    async with grounds(held, aliases={"best": ("hf.co/org/name:Q4_0",)}) as ground:
        for name in ("hf.co/org/name:Q4_0", "BEST"):
            one = (await got(ground, unified.one, path=f"/olla/models/{name}")).json
            assert (one["id"], one["endpoints"], one["aliases"]) == ("hf.co/org/name:q4_0", ["a"], ["best"])
            assert one["parameter_count"] > 0
            assert one["loaded_endpoints"] == []
        with pytest.raises(ModelNotFound, match="Model not found"):
            await got(ground, unified.one, path="/olla/models/nowhere")


@pytest.mark.usefixtures("other_digests")
async def test_what_is_listed_can_be_asked_for_where_hosts_differ_too() -> None:
    async with grounds({"a": ["tiny:latest"], "b": ["Tiny:latest"]}) as ground:
        (entry,) = (await told(ground, unified.listed))["data"]
        assert entry["olla"]["drift"]
        assert len({host["digest"] for host in entry["olla"]["availability"]}) == 2
        assert ground.fleet.try_lease(Wanted(model=entry["id"])) is not None
        one = (await got(ground, unified.one, path=f"/olla/models/{entry['id']}")).json
        assert (one["endpoints"], one["drift"]) == (["a", "b"], True)
        sizes = [info.size_bytes for host in ground.fleet.endpoints for info in host.holds.values()]
        assert one["total_disk_size"] == sum(sizes)


async def test_a_key_sees_only_its_models() -> None:
    async with grounds(TWO) as ground:
        ground.models = ("tiny",)
        assert [entry["id"] for entry in (await told(ground, unified.listed))["data"]] == ["tiny:latest"]
        with pytest.raises(ModelNotFound):
            await got(ground, unified.one, path="/olla/models/mistral:7b")


@pytest.mark.parametrize("path", ["/olla/models", "/olla/models/tiny"])
async def test_models_are_told_at_once_but_not_before_it_is_clear_who_is_in_the_fleet(path: str) -> None:
    route = Table(internal.rows(Refusals())).find("GET", path)
    assert route.known is not None
    assert route.action is not None
    async with grounds({}) as ground:
        assert route.known(ground, ground.inbound("GET", path)) is None
    async with grounds(TWO) as ground:
        for answer in (await got(ground, route.known, path=path), await ground.ask(route.action, "GET", path)):
            assert b"tiny:latest" in answer.body
