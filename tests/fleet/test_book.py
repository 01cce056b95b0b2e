"""The books: what is counted, under which names, and how the histograms read."""

from __future__ import annotations

import gc
import weakref

import pytest

from arena.errors import BudgetExceeded, Busy, ModelNotFound, UpstreamBroken
from arena.fleet import Usage, Wanted
from arena.fleet.book import MAX_ROUTES, MAX_ROWS, OTHER, RECENT, SECONDS, Book, Counts, Histogram
from tests.fake_ollama.clock import Clock
from tests.fleet.hosts import M, taken, three


def test_every_lease_is_entered_under_endpoint_model_and_key() -> None:
    clock = Clock()
    fleet = three(clock)
    usage = Usage(10, 20, load_s=1, prompt_s=2, eval_s=4, gap_s=0.2, sent_bytes=100, received_bytes=1000)
    with taken(fleet, endpoint="a", key="bot") as lease:
        clock.advance(0.5)
        lease.first_byte()
        clock.advance(4)
        lease.succeeded(usage)
    with taken(fleet, endpoint="b") as lease:
        lease.failed(UpstreamBroken("early end", code="upstream_eof"), status=None)
    taken(fleet, endpoint="b").close()
    a, b = (fleet.book.by_endpoint()[name] for name in "ab")
    assert (a.successes, a.failures, a.left, a.success_rate) == (1, 0, 0, 1.0)
    assert (b.successes, b.failures, b.left, b.success_rate) == (0, 1, 1, 0.0)
    assert fleet.book.by_key().keys() == {"bot", ""}
    assert fleet.book.by_model()[M].attempts == 3
    sums = fleet.book.totals()
    assert (sums.prompt_tokens, sums.completion_tokens, sums.sent_bytes, sums.received_bytes) == (10, 20, 100, 1000)
    assert (sums.load_s, sums.prompt_s, sums.eval_s) == (1, 2, 4)
    assert (sums.first.count, sums.first.mean, sums.total.mean, sums.gap.mean) == (1, 0.5, 4.5, 0.2)
    assert sums.last_at >= fleet.book.started_at
    assert [entry.error for entry in fleet.book.recent] == [None, "upstream_eof", None]
    assert Counts().success_rate is None
    assert len(fleet.book.rows) == 2


def test_a_failure_that_a_retry_hid_is_no_failed_request() -> None:
    fleet = three()
    with taken(fleet) as lease:
        lease.failed(status=503)
    again = fleet.try_lease(Wanted(model=M), frozenset({lease.endpoint.name}))
    assert again is not None
    again.succeeded()
    again.close()
    sums = fleet.book.totals()
    assert (sums.requests, sums.attempts, sums.retries, sums.failures, sums.failed_requests) == (1, 2, 1, 1, 0)
    assert fleet.book.recent[0].tried == (lease.endpoint.name,)


def test_what_came_of_a_route_counts_each_request_once() -> None:
    fleet = three()
    with taken(fleet, route="/x") as lease:
        lease.failed(status=503)
    again = fleet.try_lease(Wanted(model=M, route="/x"), frozenset({lease.endpoint.name}))
    assert again is not None
    again.streamed = True
    again.succeeded()
    again.close()
    taken(fleet, route="/x").close()
    fleet.book.refuse(Wanted(model=M, route="/x"), Busy("full"))
    served = fleet.book.by_route()["/x"]
    assert (served.requests, served.successes, served.failures, served.streams) == (3, 1, 1, 1)


def test_an_answer_over_our_own_limits_is_nobodys_failure() -> None:
    fleet = three()
    with taken(fleet) as lease:
        lease.failed(BudgetExceeded("cut at 5 pieces of text", endpoint="a"))
    counts = fleet.book.by_endpoint()["a"]
    assert (counts.failures, counts.left, counts.success_rate) == (0, 1, None)
    assert (fleet.book.recent[0].outcome, fleet.book.recent[0].error) == ("left", "budget_exceeded")


def test_routes_are_bounded() -> None:
    book = Book()
    for number in range(MAX_ROUTES + 10):
        book.refuse(Wanted(model=M, route=str(number)), Busy("full"))
    assert len(book.by_route()) == MAX_ROUTES + 1
    assert book.by_route()[OTHER].requests == 10


def test_refused_requests_are_counted_and_made_up_names_make_no_rows() -> None:
    book = Book(wall=lambda: 1.0)
    for number in range(10):
        book.refuse(Wanted(model=f"made-up-{number}"), ModelNotFound("no"))
    book.refuse(Wanted(model=M), Busy("full"), queued_s=3.0)
    assert book.by_model().keys() == {OTHER, M}
    assert (book.totals().refused, book.totals().failed_requests, book.totals().queue.total) == (11, 11, 3.0)
    assert (book.recent[0].outcome, book.recent[0].status, book.recent[0].at) == ("refused", 503, 1.0)


def test_rows_and_recent_requests_are_bounded() -> None:
    book = Book()
    for number in range(MAX_ROWS + 100):
        book.refuse(Wanted(model=str(number)), Busy("full"))
    assert len(book.rows) == MAX_ROWS + 1
    assert book.by_model()[OTHER].refused == 100
    assert len(book.recent) == RECENT


def test_the_last_requests_need_their_endpoints_no_longer_once_they_are_settled() -> None:
    fleet = three(Clock())
    book = fleet.book
    with taken(fleet, endpoint="a") as lease:
        lease.succeeded(Usage(1, 2))
    recent, endpoint = book.recent, weakref.ref(lease.endpoint)
    book.settle()
    del fleet, lease
    gc.collect()
    assert endpoint() is None
    assert book.recent == recent


def test_histograms_count_by_upper_bound() -> None:
    histogram = Histogram((1.0, 2.0, 4.0))
    assert (histogram.mean, histogram.quantile(0.5)) == (None, None)
    for value in (0.5, 1.0, 1.5, 3.0, 100.0):
        histogram.observe(value)
    assert histogram.counts == [2, 1, 1, 1]
    assert (histogram.count, histogram.total) == (5, 106.0)
    assert (histogram.least, histogram.most) == (0.5, 100.0)
    assert histogram.quantile(0.2) == pytest.approx(0.75)
    assert histogram.quantile(0.6) == pytest.approx(2.0)
    assert histogram.quantile(1.0) == 100.0
    other = Histogram((1.0, 2.0, 4.0))
    other.add(histogram)
    other.add(histogram)
    assert other.counts == [4, 2, 2, 2]
    assert (other.least, other.most) == (0.5, 100.0)


def test_no_quantile_lies_outside_of_what_was_measured() -> None:
    histogram = Histogram(SECONDS)
    histogram.observe_all([0.001, 0.004, 0.006, 0.009])
    found = [histogram.quantile(share) or 0.0 for share in (0.01, 0.5, 0.95, 0.99, 1.0)]
    assert found == sorted(found)
    assert (found[0] >= 0.001, found[1], found[-1]) == (True, 0.005, 0.009)
    same = Histogram(SECONDS)
    same.observe_all([0.03] * 7)
    assert {same.quantile(share) for share in (0.5, 0.95, 0.99)} == {0.03}
    same.observe_all([])
    assert (same.least, same.most) == (0.03, 0.03)


def test_bounds_are_in_order() -> None:
    assert tuple(sorted(SECONDS)) == SECONDS
