"""F31: the real page, through Gradio's own queue. Its stream of events is closed, and upstream is free."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest

from tests.fake_ollama import running_fake, text_of
from tests.fake_ollama.badclient import BadClient, Parting
from tests.fake_ollama.invariants import seven_nevers
from tests.fake_ollama.stopwatch import Stopwatch
from tests.faults.conftest import Pair
from tests.faults.serving import LogLines, ServedArena, served
from tests.faults.test_leaving import HANGS_S, chats

FREED_S = 0.5
"""Longest time from closing the page's stream until upstream is free, whether it speaks or not."""
OVER = b'"close_stream"'
"""What a stream ends with. Whoever closes it before that gives up what is asked next, if the server sees it late."""


@pytest.fixture(scope="module")
def paged(log_lines: LogLines, pairs: tuple[Pair, Pair]) -> Iterator[ServedArena]:
    """An arena with its page."""
    others = (*pairs[0], *pairs[1])
    with running_fake() as fake, served(fake, lines=log_lines, beside=others, page=True) as arena:
        yield arena


@pytest.fixture
def arena(paged: ServedArena) -> ServedArena:
    """The same, its endpoint as after the start."""
    paged.fake.reset()
    return paged


class Tab:
    """One open page, as its script talks to the server."""

    def __init__(self, arena: ServedArena, name: str, *models: str) -> None:
        self.arena, self.name = arena, name
        self.config = arena.ask("GET", "/config").json()
        query = quote(",".join(models))
        self._post(f"/gradio_api/run/predict?models={query}", "open", [None, None])

    def event(self, name: str) -> dict[str, Any]:
        """The description of a handler of the Compare tab; equal names of tabs are numbered, so its first one helps."""
        events = self.config["dependencies"]
        first = next(place for place, each in enumerate(events) if each["api_name"] == "take")
        return next(each for each in events[first:] if re.fullmatch(rf"{name}(_\d+)?", each["api_name"]))

    def send(self, text: str) -> None:
        """Send a prompt to all columns; its answers are followed by `stream`, their end by `settled`."""
        values = [self._value(each, text) for each in self.event("take")["inputs"]]
        self._post("/gradio_api/queue/join", "take", values)
        with self.stream() as client:
            client.read_until(OVER)
        self._post("/gradio_api/queue/join", "answer", [])

    def settled(self) -> str:
        """What the chats and notices get when the answers have ended."""
        self._post("/gradio_api/queue/join", "settle", [])
        with self.stream() as client:
            return client.read_until(OVER).decode()

    @contextmanager
    def stream(self) -> Iterator[BadClient]:
        """The page's stream of events, open."""
        with BadClient(self.arena.url, timeout_s=HANGS_S) as client:
            client.send(client.request("GET", f"/gradio_api/queue/data?session_hash={self.name}"))
            yield client

    def _value(self, component: int, text: str) -> Any:
        found = next(each for each in self.config["components"] if each["id"] == component)
        if found["props"].get("elem_id") == "prompt":
            return {"text": text, "files": []}
        return found["props"].get("value")

    def _post(self, path: str, name: str, data: list[Any]) -> None:
        body = {"data": data, "fn_index": self.event(name)["id"], "session_hash": self.name}
        answer = self.arena.ask("POST", path, body)
        assert answer.status == 200, answer.body[:500]


def test_a_send_comes_back_whole(arena: ServedArena) -> None:
    tab = Tab(arena, "whole", "fx-ok:n-5_seed-2", "fx-status:c-500")
    with seven_nevers(arena, within_s=HANGS_S) as case:
        tab.send("Hello!")
        with tab.stream() as client:
            followed = client.read_until(OVER).decode()
        settled = tab.settled()
        case.failed("fake", "upstream_error")
    assert '"msg":"process_generating"' in followed
    assert '"success":false' not in followed + settled
    assert text_of(5, 2).strip() in settled
    assert "unexpected EOF" in settled, "the endpoint's own words are shown"


@pytest.mark.parametrize("parting", ["fin", "rst"])
@pytest.mark.parametrize("model", ["fx-stall:n-3", "fx-hang", "fx-slow:n-1000_ms-20"])
def test_closing_the_page_frees_upstream(arena: ServedArena, model: str, parting: Parting) -> None:
    tab = Tab(arena, f"{model}{parting}".replace(":", "-"), model, model)
    with seven_nevers(arena, within_s=HANGS_S):
        tab.send("Hello!")
        with tab.stream() as client:
            client.read_until(b'"process_generating"')
            arena.fake.arrived(2, within_s=HANGS_S, path="/api/chat")
            watch = Stopwatch()
            client.leave(parting)
            arena.fake.closed(2, within_s=HANGS_S)
    parted = [record.parted_at for record in chats(arena)]
    assert len(parted) == 2
    assert watch.own_s(max(at or 0.0 for at in parted)) < FREED_S
