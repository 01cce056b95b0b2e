"""Votes on one battle that reach a server at the same moment: one of them is the vote, and every answer agrees."""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from http.client import HTTPResponse

import pytest

from arena.store import Store
from tests.durability.serving import PATIENCE
from tests.durability.site import Person, Reply, Site

RACES = int(os.environ.get("ARENA_TEST_RACES", "1"))
AT_ONCE = 50
VERDICTS = ("a", "b", "tie", "both_bad")
ADDRESS = "127.0.1.1"


@pytest.fixture
def settings(settings: dict[str, str]) -> dict[str, str]:
    """A slow machine is no reason to refuse any of so many writers."""
    return {**settings, PATIENCE: "60"}


@pytest.fixture
def doors(site: Site) -> Iterator[list[socket.socket]]:
    """Many connections of one voter."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(socket.create_connection(("127.0.0.1", site.port), 60, (ADDRESS, 0)))
            for _ in range(AT_ONCE)
        ]


@pytest.fixture
def voter(site: Site) -> Iterator[Person]:
    person = Person(site, ADDRESS)
    yield person
    person.leave()


def at_once(doors: Sequence[socket.socket], battle: str, verdicts: Sequence[str]) -> list[Reply]:
    """The answers to a vote through each door. All are sent but for their last byte, which then follows everywhere."""
    requests = []
    for verdict in verdicts:
        body = json.dumps({"verdict": verdict})
        head = f"POST /api/battles/{battle}/vote HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        requests.append(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    for door, request in zip(doors, requests, strict=True):
        door.sendall(request[:-1])
    for door, request in zip(doors, requests, strict=True):
        door.sendall(request[-1:])
    return [answer_from(door) for door in doors]


def answer_from(door: socket.socket) -> Reply:
    answer = HTTPResponse(door)
    with closing(answer):
        answer.begin()
        return Reply(answer.status, answer.read())


def kept_since(url: str, number: int) -> list[tuple[int, str, str]]:
    store = Store(url)
    with closing(store):
        return [(number, vote.battle_id, vote.verdict) for number, vote in store.votes(number)]


@pytest.mark.timeout(300 + RACES * 5)
@pytest.mark.parametrize("url", ["sqlite", "postgresql"] if RACES > 1 else ["sqlite"], indirect=True)
def test_the_same_vote_fifty_times_is_one(doors: list[socket.socket], voter: Person, url: str) -> None:
    number = 0
    for _ in range(RACES):
        battle = voter.begin()
        answers = at_once(doors, battle, ["b"] * AT_ONCE)
        assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
        ((number, *kept),) = kept_since(url, number)
        assert kept == [battle, "b"]


@pytest.mark.timeout(300 + RACES * 5)
def test_one_of_many_verdicts_wins_and_every_answer_agrees(doors: list[socket.socket], voter: Person, url: str) -> None:
    number, winners, race = 0, Counter[str](), itertools.cycle(range(4))
    for _ in range(RACES):
        battle, first = voter.begin(), next(race)
        verdicts = [VERDICTS[(first + place) % 4] for place in range(AT_ONCE)]
        answers = at_once(doors, battle, verdicts)
        ((number, *kept),) = kept_since(url, number)
        assert kept[0] == battle
        winner = kept[1]
        for verdict, answer in zip(verdicts, answers, strict=True):
            if verdict == winner:
                assert (answer.status, answer.json()["verdict"]) == (200, winner)
            else:
                assert (answer.status, answer.json()["code"]) == (409, "voted")
        assert voter.view(battle).json()["verdict"] == winner
        winners[winner] += 1
    assert winners.total() == RACES
