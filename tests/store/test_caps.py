"""Votes beyond the caps of a day are refused, on both databases, and no race gets past them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from arena.errors import Conflict, TooManyRequests
from arena.store import Caps, Store
from tests.store.votes import battle, vote

NIGHT, NOON = "2026-03-01T23:59:58.500+00:00", "2026-03-01T12:00:00.000+00:00"


@pytest.fixture
def capped(url: str) -> Iterator[Store]:
    """A store that takes two votes a day of a voter, and three from an address."""
    store = Store(url, daily=Caps(voter=2, address=3))
    yield store
    store.close()


def test_a_voter_has_to_wait_for_the_next_day(capped: Store, caplog: pytest.LogCaptureFixture) -> None:
    for number, at in ((1, NOON), (2, NIGHT)):
        capped.add_vote(vote(f"b{number}", at=at))
    refused = r"^This vote was not saved. You have cast 2 votes today, .* \(ARENA_VOTES_PER_VOTER\)\.$"
    with caplog.at_level(logging.WARNING), pytest.raises(TooManyRequests, match=refused) as caught:
        capped.add_vote(vote("b3", at=NIGHT), battle("b3"))
    assert (caught.value.code, caught.value.retry_after_s) == ("too_many_votes", 1.5)
    assert "voter ann" in caplog.text
    assert capped.battle("b3") is None
    assert capped.add_vote(vote("b1", at=NIGHT)).at == NOON, "the same vote again is answered as before"
    with pytest.raises(Conflict):
        capped.add_vote(vote("b1", at=NIGHT, verdict="b"))
    capped.add_vote(vote("b3", at=NIGHT, voter="ben"))
    for day in ("2026-02-28", "2026-03-02"):
        capped.add_vote(vote(f"b {day}", at=f"{day}T23:00:00.000+00:00"))
    assert capped.last_number() == 5


def test_many_voters_at_one_address_share_its_cap(capped: Store) -> None:
    for voter in ("ann", "ben", "eve"):
        capped.add_vote(vote("b1", voter=voter, address="net"))
    with pytest.raises(TooManyRequests, match=r"Your network has cast 3 votes .*\(ARENA_VOTES_PER_ADDRESS\)"):
        capped.add_vote(vote("b2", voter="joe", address="net"))
    capped.add_vote(vote("b2", voter="joe", address="other"))
    assert capped.add_votes(vote(f"c{i}", voter="ann", address="net") for i in range(9)) == 9, "imports are not capped"


def test_a_ballot_on_many_sides_is_one(capped: Store) -> None:
    for number in (1, 2):
        capped.add_ballot([vote(f"b{number}", pair=pair, sides=3) for pair in ("ab", "ac", "bc")])
    with pytest.raises(TooManyRequests):
        capped.add_vote(vote("b3"))


def test_how_many_are_left_is_told_and_asking_is_nothing_for_the_log(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arena.store.store.now", lambda: NOON)
    asked = Store(url, daily=Caps(voter=2, address=3))
    assert asked.votes_left("", "") is None
    assert (asked.votes_left("ann", ""), asked.votes_left("", "net"), asked.votes_left("ann", "net")) == (2, 3, 2)
    asked.close()
    full = Store(url, daily=Caps(voter=1))
    full.add_vote(vote("b1", at=NOON))
    with caplog.at_level(logging.WARNING), pytest.raises(TooManyRequests, match=r"^You have cast 1 votes today"):
        full.votes_left("ann", "net")
    assert not caplog.messages
    full.close()


def test_nobody_gets_past_by_being_quick(capped: Store) -> None:
    capped.open()
    outcomes: SimpleQueue[str] = SimpleQueue()

    def cast(number: int) -> None:
        try:
            capped.add_vote(vote(f"b{number}"))
            outcomes.put("kept")
        except TooManyRequests:
            outcomes.put("refused")

    threads = [threading.Thread(target=cast, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes.get_nowait() for _ in threads) == ["kept"] * 2 + ["refused"] * 6
    assert capped.last_number() == 2
