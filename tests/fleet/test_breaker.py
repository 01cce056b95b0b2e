"""The breaker on a clock moved by hand, alone and in the choice."""

from __future__ import annotations

from collections import Counter

import pytest

from arena.errors import (
    ArenaError,
    BadRequest,
    BudgetExceeded,
    Busy,
    ModelNotFound,
    Unreachable,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
)
from arena.fleet import Fleet
from arena.fleet.breaker import FAILURES, MAX_OPEN_S, OPEN_S, TRIAL_S, Breaker, is_failure
from tests.fake_ollama.clock import Clock
from tests.fleet.hosts import M, quiet_fleet, served_by, taken, three


def breaker(clock: Clock) -> Breaker:
    return Breaker(clock, jitter=lambda: 0.5)


def state(subject: Breaker) -> str:
    return subject.state


def opened(clock: Clock) -> Breaker:
    subject = breaker(clock)
    for _ in range(FAILURES):
        subject.bad(subject.enter(clock()))
    assert state(subject) == "open"
    return subject


def fail(fleet: Fleet, name: str, times: int = FAILURES, status: int = 503) -> None:
    for _ in range(times):
        with taken(fleet, endpoint=name) as lease:
            lease.failed(status=status)


@pytest.mark.parametrize(
    ("error", "status", "counts"),
    [
        (None, 502, True),
        (None, 503, True),
        (None, 504, True),
        (None, 500, False),
        (None, 429, False),
        (None, 404, False),
        (Unreachable("no"), None, True),
        (UpstreamTimeout("late"), None, True),
        (UpstreamTimeout("cut", code="total_timeout"), None, False),
        (UpstreamBroken("reset", code="upstream_reset"), None, True),
        (UpstreamBroken("huge", code="answer_too_large"), None, False),
        (UpstreamBroken("redirect", upstream_status=302), None, False),
        (UpstreamError("bad gateway", upstream_status=502), None, True),
        (UpstreamError("credentials", upstream_status=401), None, False),
        (BudgetExceeded("ours"), None, False),
        (Busy("server busy"), None, True),
        (Busy("limits requests"), 429, False),
        (ModelNotFound("no"), None, False),
        (BadRequest("no"), None, False),
    ],
)
def test_what_counts(error: ArenaError | None, status: int | None, counts: bool) -> None:
    assert is_failure(error, status) is counts


def test_five_in_a_row_open_it_and_a_success_between_begins_anew() -> None:
    clock = Clock()
    subject = breaker(clock)
    for _ in range(FAILURES - 1):
        subject.bad(subject.enter(clock()))
    subject.good(subject.enter(clock()))
    for _ in range(FAILURES - 1):
        subject.bad(subject.enter(clock()))
    assert state(subject) == "closed"
    subject.bad(subject.enter(clock()))
    assert state(subject) == "open"
    assert not subject.admits(clock())
    clock.advance(OPEN_S - 0.01)
    assert not subject.admits(clock())
    clock.advance(0.02)
    assert subject.admits(clock())


def test_half_open_lets_exactly_one_through_and_its_outcome_decides() -> None:
    clock = Clock()
    subject = opened(clock)
    clock.advance(OPEN_S)
    trial = subject.enter(clock())
    assert state(subject) == "half-open"
    assert [subject.admits(clock()) for _ in range(1000)] == [False] * 1000
    subject.bad(trial)
    assert state(subject) == "open"
    clock.advance(OPEN_S)
    assert not subject.admits(clock()), "twice as long this time"
    clock.advance(OPEN_S)
    subject.good(subject.enter(clock()))
    assert state(subject) == "closed"
    assert subject.failures == 0


def test_it_stays_open_a_minute_at_most() -> None:
    clock = Clock()
    subject = opened(clock)
    for _ in range(10):
        clock.advance(MAX_OPEN_S)
        assert subject.admits(clock())
        subject.bad(subject.enter(clock()))
    assert subject.open_until_s - clock() == pytest.approx(MAX_OPEN_S)


def test_a_trial_that_begins_to_answer_closes_it_on_probation() -> None:
    clock = Clock()
    subject = opened(clock)
    clock.advance(OPEN_S)
    trial = subject.enter(clock())
    subject.began(trial)
    assert state(subject) == "closed"
    assert subject.failures == FAILURES - 1
    subject.good(trial)
    assert subject.failures == 0


def test_after_probation_one_failure_opens_it_again() -> None:
    clock = Clock()
    subject = opened(clock)
    clock.advance(OPEN_S)
    subject.began(subject.enter(clock()))
    subject.bad(subject.enter(clock()))
    assert state(subject) == "open"


def test_stragglers_from_before_change_nothing() -> None:
    clock = Clock()
    subject = breaker(clock)
    stragglers = [subject.enter(clock()) for _ in range(3)]
    for _ in range(FAILURES):
        subject.bad(subject.enter(clock()))
    subject.good(stragglers[0])
    assert state(subject) == "open"
    clock.advance(OPEN_S)
    trial = subject.enter(clock())
    subject.bad(stragglers[1])
    subject.left(stragglers[2])
    assert state(subject) == "half-open"
    clock.advance(TRIAL_S)
    second = subject.enter(clock())
    subject.bad(trial)
    assert state(subject) == "half-open", "the first trial was given up"
    subject.good(second)
    assert state(subject) == "closed"


def test_a_client_that_leaves_its_trial_makes_room_for_another() -> None:
    clock = Clock()
    subject = opened(clock)
    clock.advance(OPEN_S)
    subject.left(subject.enter(clock()))
    assert subject.admits(clock())


def test_a_request_in_panic_tries_nothing() -> None:
    clock = Clock()
    subject = opened(clock)
    ticket = subject.enter(clock())
    subject.bad(ticket)
    subject.left(ticket)
    assert state(subject) == "open"
    subject.good(ticket)
    subject.reset()
    assert state(subject) == "closed"


def test_an_open_one_is_skipped_while_a_peer_exists() -> None:
    clock = Clock()
    fleet = three(clock)
    fail(fleet, "a")
    assert Counter(served_by(fleet, 30, conversation="c")).keys() <= {"b", "c"}


def test_cancelled_requests_change_nothing_for_others() -> None:
    fleet = three(strategy="round-robin")
    for _ in range(FAILURES):
        taken(fleet, endpoint="a").close()
    a = fleet.endpoint("a")
    assert (a.breaker.state, a.breaker.failures, a.health.state) == ("closed", 0, "unknown")
    assert Counter(served_by(fleet, 30)) == {"a": 10, "b": 10, "c": 10}
    assert fleet.book.by_endpoint()["a"].left == FAILURES


def test_when_all_are_open_the_least_bad_is_tried() -> None:
    clock = Clock()
    fleet = three(clock)
    for name in "cba":
        fail(fleet, name)
        clock.advance(1.5)
    with taken(fleet) as lease:
        assert (lease.endpoint.name, lease.decision, lease.reason) == ("c", "fallback", "all_unhealthy_fallback")
        lease.succeeded()
    fleet.endpoint("c").health.refused()
    assert taken(fleet).endpoint.name == "b", "one that takes no connections comes last"


def test_a_failing_endpoint_gets_hardly_any_traffic() -> None:
    clock = Clock()
    fleet = quiet_fleet({"bad": (M,), "good": (M,)}, clock, strategy="least-outstanding")
    asked = 0
    for _ in range(60 * 50):
        clock.advance(0.02)
        with taken(fleet) as lease:
            if lease.endpoint.name == "good":
                lease.succeeded()
                continue
            asked += 1
            lease.failed(status=503)
        with taken(fleet, endpoint="good") as again:
            again.succeeded()
    assert asked <= FAILURES + 5


@pytest.mark.parametrize(("status", "after"), [(400, "closed"), (500, "open")])
def test_a_trial_that_is_answered_with_a_4xx_is_an_answer_and_a_500_is_none(status: int, after: str) -> None:
    clock = Clock()
    fleet = three(clock)
    fail(fleet, "a")
    clock.advance(2 * OPEN_S)
    fail(fleet, "a", times=1, status=status)
    assert fleet.endpoint("a").breaker.state == after
    assert fleet.endpoint("a").ready(clock()), "either way the next one may try"
