"""A look at every host: what it is, what it has, and the remedy for what is wrong."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from arena.fleet import Auth, EndpointSpec, FleetSpec
from arena.fleet.check import Looked, look, missed
from arena.wire import Timeouts
from tests.fake_ollama import FakeOllama
from tests.peer import Guest, Peer, Request, Script

SERVED = {"object": "list", "data": [{"id": "me/qwen3", "object": "model", "owned_by": "vllm"}]}


def serving(answers: dict[str, Any], seen: list[Request] | None = None, otherwise: int = 404) -> Script:
    """A server that has JSON for some paths, and refuses all others."""

    async def script(guest: Guest) -> None:
        while True:
            request = await guest.request()
            if seen is not None:
                seen.append(request)
            path = request.line.split()[1]
            status = b"200 OK" if path in answers else b"%d No" % otherwise
            body = json.dumps(answers.get(path, {"detail": "Not Found"})).encode()
            head = b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            await guest.say(head % len(body) + body)

    return script


async def one(url: str, **spec: Any) -> Looked:
    (looked,) = await look([EndpointSpec(name="there", url=url, **spec)])
    return looked


@pytest.mark.anyio
async def test_an_ollama_tells_its_version_and_models(fake: FakeOllama) -> None:
    looked = await one(fake.url, exclude=("*vision*",))
    assert (looked.ok, looked.error, looked.remedy) == (True, "", "")
    assert looked.version
    assert looked.models
    assert looked.round_trip_ms is not None
    assert looked.round_trip_ms > 0
    assert not [name for name in looked.models if "vision" in name]


@pytest.mark.anyio
async def test_filters_that_hide_everything_are_told(fake: FakeOllama) -> None:
    looked = await one(fake.url, include=("nobody*",))
    assert (looked.ok, looked.models) == (True, ())
    assert looked.remedy.startswith("include and exclude hide all of its ")


@pytest.mark.anyio
async def test_an_openai_server_is_taken_as_declared() -> None:
    seen: list[Request] = []
    async with Peer(serving({"/v1/models": SERVED, "/version": {"version": "0.9.1"}}, seen)) as peer:
        for url in (peer.url, f"{peer.url}/v1"):
            looked = await one(
                url,
                type="openai",
                headers=(("X-Team", "a"),),
                auth=Auth.bearer("hush-hush"),
                include=("me/qwen3:latest",),
            )
            assert (looked.ok, looked.version, looked.models) == (True, "0.9.1", ("me/qwen3",))
            assert looked.remedy == ""
            assert "hush" not in repr(looked)
    for request in seen:
        assert b"authorization: bearer hush-hush" in request.head.lower()
        assert b"x-team: a" in request.head.lower()
        assert b"/v1/v1" not in request.head


@pytest.mark.anyio
async def test_an_openai_server_declared_ollama_is_told_with_the_remedy() -> None:
    async with Peer(serving({"/v1/models": SERVED})) as peer:
        looked = await one(peer.url)
    assert (looked.ok, looked.remedy) == (False, "it speaks OpenAI's API: set type: openai")
    assert looked.error


@pytest.mark.anyio
async def test_an_ollama_declared_openai_works_and_is_told(fake: FakeOllama) -> None:
    tags = {"object": "list", "data": [{"id": "llama3", "owned_by": "library"}]}
    async with Peer(serving({"/v1/models": tags, "/api/version": {"version": "0.30.1"}})) as peer:
        looked = await one(peer.url, type="openai")
    assert (looked.ok, looked.version) == (True, "0.30.1")
    assert looked.remedy.startswith("it is an Ollama server: set type: ollama")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_a_server_of_neither_kind_has_failed(kind: str) -> None:
    async with Peer(serving({})) as peer:
        looked = await one(peer.url, type=kind)
    assert not looked.ok
    assert looked.error
    assert looked.remedy == ""


@pytest.mark.anyio
@pytest.mark.parametrize(("auth", "remedy"), [(None, "give it auth"), (Auth.bearer("x"), "check its auth")])
async def test_a_server_that_wants_credentials_says_what_to_do(auth: Auth | None, remedy: str) -> None:
    async with Peer(serving({}, otherwise=401)) as peer:
        looked = await one(peer.url, auth=auth)
    assert (looked.ok, looked.remedy) == (False, remedy)


@pytest.mark.anyio
@pytest.mark.parametrize("state", ["refuse", "blackhole"])
async def test_one_silent_host_keeps_nothing_from_the_others(fake: FakeOllama, state: str) -> None:
    fake.state(accept=state)
    async with Peer(serving({"/v1/models": SERVED})) as peer:
        silent, well = await look(
            [
                EndpointSpec(name="a", url=fake.url, timeouts=Timeouts(connect_s=0.3, first_byte_s=0.3)),
                EndpointSpec(name="b", url=peer.url, type="openai"),
            ]
        )
    assert (silent.ok, silent.remedy, silent.name) == (False, "", "a")
    assert silent.error
    assert well.ok


@pytest.mark.anyio
async def test_a_server_too_old_to_tell_what_is_loaded_is_well() -> None:
    tags = {"models": [{"name": "llama3:latest"}]}
    async with Peer(serving({"/api/tags": tags, "/api/version": {"version": "0.1.20"}})) as peer:
        looked = await one(peer.url)
    assert (looked.ok, looked.models, looked.loaded) == (True, ("llama3:latest",), ())


def test_aliases_without_a_model_are_found() -> None:
    looked = [Looked("a", "http://a", "ollama", True, models=("llama3:latest", "Qwen3:4b"))]
    spec = FleetSpec(aliases={"one": ("nothing", "LLAMA3"), "two": ("qwen3",), "three": ("qwen3:4b",)})
    assert missed(spec, looked) == ("two",)
    assert missed(msgspec.structs.replace(spec, aliases={}), looked) == ()
