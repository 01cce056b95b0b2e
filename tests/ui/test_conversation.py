"""Conversations on a real arena and a fake Ollama: every column gets its own answer, its own error, its own end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arena.arena import Arena
from arena.errors import ShuttingDown, Unreachable
from arena.exchange import Caller
from arena.ollama import OllamaClient
from arena.settings import load
from arena.types import Manifest, Metrics, ModelInfo
from arena.ui import conversation
from arena.ui.callers import NOBODY
from arena.ui.conversation import Conversations, Views, first_lineup, with_defaults
from arena.ui.lineup import PRESETS, ColumnChoice, Lineup
from arena.ui.sessions import Asking, Session, Sessions
from tests.fake_ollama import FakeOllama, text_of

PATIENCE_S = 10.0


def session_of(*models: str) -> Session:
    session = Sessions("ABCDEF").of("s")
    session.set_columns([ColumnChoice(model) for model in models])
    return session


def asking(session: Session, text: str = "Why?", **changes: Any) -> Asking:
    values: dict[str, Any] = {"attachments": (), "choices": session.choices, "system": "", "order": "together"}
    return Asking(text, **(values | changes))


async def answered(conversations: Conversations, session: Session) -> dict[str, Any]:
    """Open what was taken, follow the answers, and tell what every column shows in the end."""
    views = await conversations.open(session)
    return await followed(conversations, session, views)


async def followed(
    conversations: Conversations, session: Session, opened: Views, letter: str | None = None, caller: Caller = NOBODY
) -> dict[str, Any]:
    """What every column shows in the end; None in a view leaves what was there."""
    async with asyncio.timeout(PATIENCE_S), aclosing(conversations.answer(session, caller, letter)) as frames:
        async for _ in frames:
            pass
    end: dict[str, Any] = {}
    for views in (opened, conversations.ended(session)):
        for name, view in views.items():
            told = {field: getattr(view, field) for field in view.__struct_fields__}
            end[name] = {**end.get(name, {}), **{field: value for field, value in told.items() if value is not None}}
    return end


@pytest.mark.anyio
async def test_all_columns_are_asked_and_answer(conversations: Conversations, fake: FakeOllama) -> None:
    session = session_of("tiny", "mistral:7b")
    assert conversations.take(session, asking(session)) is None
    end = await answered(conversations, session)
    assert [message["content"] for message in end["A"]["chat"]] == ["Why?", text_of(20)]
    assert 'data-state="done"' in end["A"]["status"]
    assert session.busy == []
    assert session.columns["A"].run is None
    assert {record.model for record in fake.log if record.path == "/api/chat"} == {"tiny", "mistral:7b"}


@pytest.mark.anyio
async def test_the_leaderboard_hears_what_whole_answers_cost(
    conversations: Conversations, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[Manifest, Metrics]] = []
    monkeypatch.setattr(arena.leaderboard, "ran", heard.extend)
    session = session_of("tiny", "fx-nodone:n-3", "mistral:7b")
    conversations.take(session, asking(session, order="one_after_another"))
    await answered(conversations, session)
    assert [manifest.model for manifest, _ in heard] == ["tiny", "mistral:7b"]
    assert not any(metrics.contended for _, metrics in heard)


@pytest.mark.anyio
async def test_a_column_with_a_model_that_the_key_may_not_use_says_so(
    conversations: Conversations, fake: FakeOllama
) -> None:
    session = session_of("fx-ok:n-2", "tiny")
    caller = Caller("127.0.0.1", "key:small", "r", key="small", models=("tin*",))
    conversations.take(session, asking(session))
    shown = await followed(conversations, session, await conversations.open(session), caller=caller)
    assert "This key may not use that model; it may use: tin*" in shown["A"]["notice"]
    assert 'data-state="done"' in shown["B"]["status"]
    assert [record.model for record in fake.log if record.path == "/api/chat"] == ["tiny"]


@pytest.mark.anyio
async def test_a_growing_answer_is_in_its_frames_until_it_has_ended(
    conversations: Conversations, fake: FakeOllama
) -> None:
    session = session_of("fx-gate:id-a_n-2", "fx-gate:id-b_n-2")
    conversations.take(session, asking(session))
    opened = await conversations.open(session)
    assert [message["content"] for message in opened["A"].chat or []] == ["Why?"]
    async with asyncio.timeout(PATIENCE_S), aclosing(conversations.answer(session, NOBODY)) as frames:
        first = await anext(frames)
        assert (set(first), first["A"].last) == ({"A", "B"}, "")
        fake.release("a")
        while text_of(1).strip() not in (frame := (await anext(frames))["A"]).last:
            pass
        assert 'data-state="writing"' in frame.status
        assert conversations.ended(session) == {}
        fake.release("a")
        while "A" in await anext(frames):
            pass
        assert [message["content"] for message in conversations.ended(session)["A"].chat or []][-1] == text_of(2)
        assert conversations.ended(session) == {}, "it is told once"
        fake.release("b", 2)
        async for rest in frames:
            assert set(rest) <= {"B"}
    assert set(conversations.ended(session)) == {"A", "B"}, "in the end the bars get their scale"


@pytest.mark.anyio
async def test_what_was_opened_and_stopped_is_not_asked(conversations: Conversations, fake: FakeOllama) -> None:
    session = session_of("tiny")
    conversations.take(session, asking(session))
    await conversations.open(session)
    session.stop()
    assert session.busy == []
    end = await followed(conversations, session, {})
    assert 'data-state="stopped"' in end["A"]["status"]
    assert not [record for record in fake.log if record.path == "/api/chat"]


@pytest.mark.anyio
async def test_an_error_is_its_columns_own(conversations: Conversations) -> None:
    session = session_of("tiny", "absent:1b", "")
    conversations.take(session, asking(session))
    end = await answered(conversations, session)
    assert 'data-state="done"' in end["A"]["status"]
    assert "model_not_found" in end["B"]["notice"]
    assert "no_model" in end["C"]["notice"]


@pytest.mark.anyio
async def test_the_bars_share_a_scale_in_the_end(conversations: Conversations) -> None:
    session = session_of("fx-ok:n-40", "fx-ok:n-20")
    conversations.take(session, asking(session))
    end = await answered(conversations, session)
    assert 'class="rest"' in end["B"]["status"]
    assert 'class="rest"' not in end["A"]["status"]


@pytest.mark.anyio
async def test_nothing_taken_nothing_asked(conversations: Conversations) -> None:
    assert await answered(conversations, session_of("tiny")) == {}


@pytest.mark.anyio
async def test_a_prompt_waits_for_the_columns_it_goes_to(conversations: Conversations, fake: FakeOllama) -> None:
    session = session_of("fx-gate:id-a_n-1", "fx-gate:id-b_n-1")
    conversations.take(session, asking(session))
    answering = asyncio.create_task(answered(conversations, session))
    await fake.arrived(2, path="/api/chat")
    assert conversations.take(session, asking(session)) == "A and B still answer. Wait, or stop with Esc."
    session.only = "A"
    assert conversations.take(session, asking(session)) == "A still answers. Wait, or stop with Esc."
    fake.release("a")
    fake.release("b")
    await answering


@pytest.mark.anyio
async def test_an_empty_prompt_is_refused_without_a_word(conversations: Conversations) -> None:
    session = session_of("tiny")
    assert conversations.take(session, asking(session, "  ")) == ""


@pytest.mark.anyio
async def test_files_are_read_when_the_prompt_is_taken(conversations: Conversations, tmp_path: Path) -> None:
    session = session_of("tiny")
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.bin").write_bytes(b"\0")
    assert "b.bin" in (conversations.take(session, asking(session, ""), [str(tmp_path / "b.bin")]) or "")
    assert conversations.take(session, asking(session, ""), [str(tmp_path / "a.txt")]) is None
    assert session.asking is not None
    assert session.asking.attachments[0].name == "a.txt"


@pytest.mark.anyio
async def test_one_column_is_asked_again(conversations: Conversations, fake: FakeOllama) -> None:
    session = session_of("tiny", "mistral:7b")
    assert set(conversations.reopen(session, "A", "")) == {"A"}, "nothing to repeat is no error"
    conversations.take(session, asking(session))
    await answered(conversations, session)
    session.choose("A", "qwen2.5:3b")
    end = await followed(conversations, session, conversations.reopen(session, "A", "Be brief."), "A")
    assert 'data-state="done"' in end["A"]["status"]
    assert fake.log[-1].model == "qwen2.5:3b"
    assert fake.log[-1].body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert len(session.columns["A"].turns) == 1


@pytest.mark.anyio
async def test_closing_the_stream_frees_the_models(conversations: Conversations, fake: FakeOllama) -> None:
    session = session_of("fx-stall:n-2", "fx-hang")
    conversations.take(session, asking(session))
    await conversations.open(session)
    frames = conversations.answer(session, NOBODY)
    async with asyncio.timeout(PATIENCE_S):
        await anext(frames)
        await fake.arrived(2, path="/api/chat")
        await frames.aclose()
    await fake.closed(2)
    assert session.busy == []


@pytest.mark.anyio
async def test_a_page_that_left_before_its_run_began_starts_nothing(conversations: Conversations) -> None:
    session = session_of("fx-hang")
    conversations.take(session, asking(session))
    session.left_s = 1.0
    end = await answered(conversations, session)
    assert 'data-state="stopped"' in end["A"]["status"]
    assert session.busy == []


@pytest.mark.anyio
async def test_an_arena_that_stops_says_so_in_the_columns(conversations: Conversations, arena: Arena) -> None:
    session = session_of("tiny")
    arena.compare.drain()
    conversations.take(session, asking(session))
    end = await answered(conversations, session)
    assert ShuttingDown.default_code in end["A"]["notice"]


@pytest.mark.anyio
async def test_a_missing_model_is_pulled(
    conversations: Conversations, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "POLL_S", 0)
    session = session_of("absent:1b")
    assert [notice async for notice in conversations.pull(session, "A")] == []
    conversations.take(session, asking(session))
    await answered(conversations, session)
    async with asyncio.timeout(PATIENCE_S):
        notices = [notice async for notice in conversations.pull(session, "A")]
    assert "Pulling absent:1b" in notices[0]
    assert "is installed" in notices[-1]
    assert "absent:1b" in fake.models


@pytest.mark.anyio
async def test_a_pull_that_is_not_allowed_says_so(fake: FakeOllama) -> None:
    arena = Arena(load(endpoints=(fake.url,), engine="off", management=False))
    async with arena.running():
        conversations, session = Conversations(arena), session_of("absent:1b")
        conversations.take(session, asking(session))
        end = await answered(conversations, session)
        assert "data-action" not in end["A"]["notice"]
        (notice,) = [notice async for notice in conversations.pull(session, "A")]
    assert "ARENA_MANAGEMENT" in notice


@pytest.mark.anyio
async def test_models_are_known_once_listed(conversations: Conversations) -> None:
    assert conversations.known("tiny") is None
    assert conversations.known("") is None
    await conversations.models()
    info = conversations.known("TINY")
    assert info is not None
    assert info.name == "tiny:latest"
    assert "Q4_K_M" in conversations.facts(ColumnChoice("tiny"))
    assert await conversations.loaded() == ()
    (status,) = await conversations.statuses()
    assert status.reachable


@pytest.mark.anyio
async def test_a_silent_server_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "LISTING_WAIT_S", 0.01)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    arena = Arena(load(endpoints=(f"http://127.0.0.1:{port}",), engine="off"))
    async with asyncio.timeout(PATIENCE_S), server, arena.running():
        conversations = Conversations(arena)
        assert await conversations.models() == ()
        assert await conversations.loaded() == ()
        (status,) = await conversations.statuses()
    assert (status.reachable, status.error) == (False, "has not answered yet")


@pytest.mark.anyio
async def test_a_server_that_is_not_there_is_said_to_be_not_there() -> None:
    arena = Arena(load(endpoints=("http://127.0.0.1:9",), engine="off"))
    async with arena.running():
        conversations = Conversations(arena)
        assert await conversations.models() == ()
        assert conversations.listing_error is not None
        assert await conversations.loaded() == ()


@pytest.mark.anyio
async def test_no_endpoint_no_status() -> None:
    assert await Conversations(Arena(load(engine="off"))).statuses() == ()


def test_a_first_visit_compares_the_two_smallest_that_can_chat() -> None:
    models = [
        ModelInfo("big", size_bytes=9), ModelInfo("embed", size_bytes=1, capabilities=("embedding",)),
        ModelInfo("small", size_bytes=2, capabilities=("completion",)), ModelInfo("middle", size_bytes=5),
    ]  # fmt: skip
    assert [choice.model for choice in first_lineup(models).columns] == ["small", "middle"]


def test_a_single_model_is_compared_with_itself() -> None:
    first, second = first_lineup([ModelInfo("one")]).columns
    assert first.model == second.model == "one"
    assert second.options == PRESETS["Precise"].options


def test_without_models_the_columns_are_empty() -> None:
    assert first_lineup([]).columns == (ColumnChoice(), ColumnChoice())


def test_a_lineup_keeps_what_it_names_and_spells_it_as_listed() -> None:
    lineup = with_defaults(Lineup((ColumnChoice("Tiny"), ColumnChoice("gone"))), [ModelInfo("tiny:latest")])
    assert [choice.model for choice in lineup.columns] == ["tiny:latest", "gone"]
    filled = with_defaults(Lineup(prompt="Why?"), [ModelInfo("a"), ModelInfo("b")])
    assert ([choice.model for choice in filled.columns], filled.prompt) == (["a", "b"], "Why?")


@pytest.fixture
async def old(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> Conversations:
    """Conversations with a server whose list does not tell what models can do."""
    tags = OllamaClient.tags

    async def tags_of_old(client: OllamaClient) -> tuple[ModelInfo, ...]:
        return tuple(msgspec.structs.replace(info, capabilities=None) for info in await tags(client))

    monkeypatch.setattr(OllamaClient, "tags", tags_of_old)
    arena.fleet.endpoints[0].forget()
    conversations = Conversations(arena)
    await conversations.models()
    return conversations


@pytest.mark.anyio
async def test_an_older_server_is_asked_whether_a_model_can_see(
    old: Conversations, fake: FakeOllama, tmp_path: Path
) -> None:
    picture = tmp_path / "p.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    session = session_of("tiny")
    assert old.take(session, asking(session), [str(picture)]) is None
    end = await answered(old, session)
    assert "no_vision" in end["A"]["notice"]
    assert not [record for record in fake.log if record.path == "/api/chat"]


@pytest.mark.anyio
async def test_what_a_server_does_not_tell_stays_unknown(old: Conversations, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(_: OllamaClient, model: str) -> ModelInfo:
        raise Unreachable("It is silent.")

    show = OllamaClient.show
    monkeypatch.setattr(OllamaClient, "show", silent)
    assert await old.described("absent:1b") is None
    told = await old.described("tiny")
    assert told is not None
    assert told.capabilities is None

    async def wordless(client: OllamaClient, model: str) -> ModelInfo:
        return msgspec.structs.replace(await show(client, model), capabilities=None)

    monkeypatch.setattr(OllamaClient, "show", wordless)
    assert await old.described("tiny") == told
