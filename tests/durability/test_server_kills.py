"""kill -9 of a server that takes votes: what it has answered is there after the next start, and nothing twice."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections import Counter

import pytest
import sqlalchemy

from arena.store import Store
from tests.durability.site import NotSent, Person, Site, Unanswered

log = logging.getLogger(__name__)

KILLS = int(os.environ.get("ARENA_TEST_SERVER_KILLS", "1"))
PEOPLE = 4
VERDICTS = ("a", "b", "tie", "both_bad")
PATIENCE_S = 120.0

Ballot = tuple[str, str, str]
"""Who, on which battle, which verdict."""


class Crowd:
    """People who vote until the server is gone. At the step number `kill_at` of them all, `kill` is called."""

    def __init__(self, site: Site, kill_at: int, seed: int) -> None:
        self.acknowledged: list[Ballot] = []
        self.unknown: list[Ballot] = []
        self.over = threading.Event()
        self._site, self._left, self._seed = site, kill_at, seed
        self._counting = threading.Lock()

    def vote_until_the_end(self) -> None:
        """Everybody at once; the server is dead afterwards."""
        threads = [threading.Thread(target=self._votes, args=(f"127.0.1.{i}",)) for i in range(1, PEOPLE + 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _votes(self, address: str) -> None:
        chance, person = random.Random(f"{self._seed} {address}"), Person(self._site, address)
        try:
            while not self.over.is_set():
                battle, verdict = person.begin(), chance.choice(VERDICTS)
                self._step()
                self.unknown.append((address, battle, verdict))
                answer = person.vote(battle, verdict)
                assert answer.status == 200, answer.body
                assert answer.json()["verdict"] == verdict
                self.unknown.remove((address, battle, verdict))
                self.acknowledged.append((address, battle, verdict))
                self._step()
        except (NotSent, Unanswered):
            self.over.set()
        finally:
            person.leave()

    def _step(self) -> None:
        with self._counting:
            self._left -= 1
            if self._left == 0:
                self.over.set()
                self._site.strike()


def kept_in(url: str, since: int) -> tuple[int, Counter[tuple[str, str]]]:
    """What lies in the store after the vote `since`, seen past the server: battles with their verdicts."""
    store = Store(url)
    found = list(store.votes(since))
    if store.database.file is not None:
        with store.database.reading() as connection:
            assert connection.execute(sqlalchemy.text("PRAGMA integrity_check")).scalar() == "ok"
    store.close()
    return (found[-1][0] if found else since), Counter((vote.battle_id, vote.verdict) for _, vote in found)


def asked(site: Site, ballot: Ballot) -> int:
    """The status of the same vote, sent again."""
    address, battle, verdict = ballot
    person = Person(site, address)
    try:
        return person.vote(battle, verdict).status
    finally:
        person.leave()


@pytest.mark.timeout(300 + KILLS * 90)
def test_a_killed_server_has_every_vote_it_acknowledged_once(site: Site, url: str) -> None:
    chance, since, total = random.Random(11), 0, Counter[str]()
    for seed in range(KILLS):
        crowd = Crowd(site, chance.randint(10, 40), seed)
        crowd.vote_until_the_end()
        site.kill()
        since, kept = kept_in(url, since)
        told = Counter((battle, verdict) for _, battle, verdict in crowd.acknowledged)
        perhaps = Counter((battle, verdict) for _, battle, verdict in crowd.unknown)
        assert max(kept.values()) == 1, "none is doubled"
        assert told <= kept, "none is lost"
        assert kept <= told + perhaps, "none is invented"
        site.start()
        for ballot in crowd.acknowledged + crowd.unknown:
            here = ballot[1:] in kept
            assert asked(site, ballot) == (200 if here else 404), "sent again it is answered as before"
        again_since, more = kept_in(url, since)
        assert (again_since, more) == (since, Counter()), "and kept once"
        total.update(acknowledged=told.total(), unknown=perhaps.total(), found=(kept - told).total())
    assert total["acknowledged"] >= KILLS
    log.info("%d kills: %s", KILLS, dict(total))
