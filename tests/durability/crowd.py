"""People who vote, vote again and look, all at once, and remember every word of it."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from arena.errors import StoreUnavailable
from arena.store import Store
from tests.durability.history import Deed, Key, Listing, Outcome, Row
from tests.durability.site import NotSent, Person, Reply, Site, Unanswered

ADDRESSES = ("127.0.1.1", "127.0.1.2")
TOGETHER = 4
"""How many act at once; more than there are voters, so that one voter also races with itself."""

RECENT = 6
PATIENCE_S = 90.0


class Crowd:
    """What the people at `site` do and see; `url` is the store, which some of them read past the server."""

    def __init__(self, site: Site, url: str, *, seed: int, timeout_s: float) -> None:
        self.deeds: list[Deed] = []
        self.listings: list[Listing] = []
        self.outcomes: Counter[str] = Counter()
        self._site, self._seed, self._timeout_s = site, seed, timeout_s
        self._store = Store(url)
        self._store.open()
        self._kept: set[Key] = set()
        self._battles: list[tuple[str, str]] = []
        self._ticks = itertools.count()
        self._enough, self._unhindered = threading.Event(), threading.Event()
        self._unhindered.set()
        self._news = threading.Condition()

    @contextmanager
    def acting(self) -> Iterator[None]:
        """They act for the length of the block."""
        threads = [threading.Thread(target=self._act, args=(number,)) for number in range(TOGETHER)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._enough.set()
            self._unhindered.set()
            for thread in threads:
                thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in threads)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """They begin nothing new for the length of the block, in which refusals would only cost time."""
        self._unhindered.clear()
        try:
            yield
        finally:
            self._unhindered.set()

    def until(self, condition: Callable[[Counter[str]], bool]) -> None:
        """Wait until `condition` holds of the outcomes so far."""
        with self._news:
            assert self._news.wait_for(lambda: condition(self.outcomes), PATIENCE_S), self.outcomes

    def rows(self) -> list[Row]:
        """What the store holds now."""
        return [(number, vote.battle_id, vote.voter, vote.verdict) for number, vote in self._store.votes()]

    def close(self) -> None:
        """Nobody reads any more."""
        self._store.close()

    def _act(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        people = [Person(self._site, address, timeout_s=self._timeout_s) for address in ADDRESSES]
        try:
            while not self._enough.is_set():
                self._site.up.wait(PATIENCE_S)
                self._unhindered.wait(PATIENCE_S)
                self._do_something(chance, people)
        finally:
            for person in people:
                person.leave()

    def _do_something(self, chance: random.Random, people: list[Person]) -> None:
        what = chance.choices(("begin", "vote", "view", "list"), (3, 5, 2, 1))[0]
        if what == "begin" or not self._battles:
            self._begin(chance.choice(people))
            return
        if what == "list":
            self._list()
            return
        battle, address = chance.choice(self._battles[-RECENT:])
        person = next(each for each in people if each.address == address)
        if what == "vote":
            verdict = chance.choice("aab")
            self._note("vote", person, battle, verdict, lambda: person.vote(battle, verdict))
        else:
            self._note("view", person, battle, "", lambda: person.view(battle))

    def _begin(self, person: Person) -> None:
        try:
            self._battles.append((person.begin(), person.address))
        except (NotSent, Unanswered):
            self._count("not begun")

    def _note(self, kind: str, person: Person, battle: str, verdict: str, ask: Callable[[], Reply]) -> None:
        key = (battle, self._store.pseudonym(person.address))
        began = next(self._ticks)
        outcome: Outcome
        try:
            outcome, verdict = outcome_of(ask(), verdict)
        except NotSent:
            outcome = "never"
        except Unanswered:
            outcome = "unknown"
        deed = Deed("vote" if kind == "vote" else "view", key, verdict, outcome, began, next(self._ticks))
        self.deeds.append(deed)
        self._count(f"{kind} {outcome}")
        if outcome == "kept" and key not in self._kept:
            self._kept.add(key)
            self._count("new")

    def _list(self) -> None:
        began = next(self._ticks)
        try:
            rows = tuple(self.rows())
        except StoreUnavailable:
            return
        self.listings.append(Listing(rows, began, next(self._ticks)))
        self._count("listed")

    def _count(self, what: str) -> None:
        with self._news:
            self.outcomes[what] += 1
            self._news.notify_all()


def outcome_of(reply: Reply, verdict: str) -> tuple[Outcome, str]:
    """What an answer says about the vote, and which verdict it is about."""
    told = reply.json()
    if reply.status == 200:
        if told["state"] != "voted":
            return "absent", ""
        assert verdict in ("", told["verdict"]), "a vote is acknowledged as what it was"
        return "kept", told["verdict"]
    if reply.status == 503 and "not known whether" in told["error"]:
        return "unknown", verdict
    known: dict[tuple[int, str], Outcome] = {
        (404, "not_found"): "absent",
        (409, "voted"): "other",
        (503, "store_unavailable"): "refused",
    }
    return known[reply.status, told["code"]], verdict
