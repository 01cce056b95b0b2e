"""The books count what has ended in batches: nobody who asks may notice."""

from __future__ import annotations

from threading import Event, Thread

import pytest

from arena.fleet import Usage
from arena.fleet.book import BATCH, RECENT, Book
from tests.fake_ollama.clock import Clock
from tests.fleet.hosts import taken, three


def test_however_many_end_at_once_each_is_counted() -> None:
    clock = Clock()
    book, fleet = Book(), three(clock)
    for number in range(2 * BATCH + 7):
        lease = taken(fleet, endpoint="abc"[number % 3], key="bot" if number % 2 else "", route=f"/{number % 5}")
        lease.streamed = number % 7 == 0
        clock.advance(0.01)
        if number % 4:
            lease.first_byte()
            lease.succeeded(Usage(1, 2, load_s=0.5, gap_s=0.25, received_bytes=3, estimated=number % 8 == 1))
        elif number % 3:
            lease.failed(status=500)
        book.enter(lease, clock())
        lease.close()
        if number == 5:
            assert book.totals().attempts == 6, "who asks is told of all"
    for sums in (book.totals(), fleet.book.totals()):
        assert (sums.attempts, sums.queue.count) == (519, 519)
        assert (sums.successes, sums.failures, sums.left) == (389, 86, 44)
        assert (sums.prompt_tokens, sums.completion_tokens, sums.received_bytes) == (389, 778, 1167)
        assert (sums.estimated_tokens, sums.load_s, sums.gap.count, sums.gap.mean) == (130, 194.5, 389, 0.25)
        assert sums.total.total == pytest.approx(3.89)
    routes = book.by_route()
    assert [routes[f"/{number}"].requests for number in range(5)] == [104, 104, 104, 104, 103]
    assert sum(route.streams for route in routes.values()) == 75
    assert len(book.recent) == RECENT


def test_asking_from_another_thread_loses_nothing() -> None:
    fleet, stop, asked = three(), Event(), []

    def ask() -> None:
        while not stop.is_set():
            asked.append(fleet.book.totals().attempts)

    asking = Thread(target=ask)
    asking.start()
    for _ in range(4 * BATCH):
        taken(fleet).close()
    stop.set()
    asking.join()
    assert fleet.book.totals().attempts == 4 * BATCH
    assert asked == sorted(asked)
