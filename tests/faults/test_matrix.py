"""Every fault through every door that leads to an endpoint, over real sockets, with the seven nevers around each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fake_ollama import text_of
from tests.fake_ollama.invariants import seven_nevers
from tests.faults.conftest import SHORT_S
from tests.faults.doors import DOORS, FAULTY, HELLO, Outcome, neighbours
from tests.faults.serving import Answer, ServedArena
from tests.faults.table import ANSWERS, PULLS, REFUSALS, Fault

LIMIT_S = 3 * SHORT_S + 1
"""The sum of the time-outs, and one second."""
PROBE_S = 2
"""What a probe of an endpoint that failed may take at the same silent route; nobody waits for it."""
FOLLOWING = 10
GOOD = {
    "history": HELLO,
    "model_instances": [
        {"id": str(seed), "model": f"fx-ok:n-3_seed-{seed}", "endpoint": "fake"} for seed in range(FOLLOWING)
    ],
}


def cases(*tables: dict[str, Fault], doors: list[str]) -> list[Any]:
    """One parameter for each fault at each door: F04-chat."""
    return [
        pytest.param(door, fault, id=f"{name}-{door}")
        for table in tables
        for name, fault in table.items()
        for door in doors
    ]


def arrange(arena: ServedArena, fault: Fault) -> None:
    """Let the endpoint fail as a whole, if that is the fault."""
    if fault.accept != "normal":
        arena.other.fall(fault.accept)


def documented(arena: ServedArena, method: str, path: str, answer: Answer) -> bool:
    """Does the API's description list this status for this route?"""
    operation = arena.ask("GET", "/openapi.json").json()["paths"][path][method.lower()]
    return str(answer.status) in operation["responses"]


def sent(arena: ServedArena, path: str, model: str) -> int:
    """How often the endpoint was asked this."""
    return sum(record.path == path and record.model == model for record in arena.fake.log)


def check(fault: Fault, outcome: Outcome) -> None:
    """The faulty column says what is known of it and no more; nothing is invented."""
    told = outcome.columns[FAULTY]
    assert told.code in (fault.code, fault.or_code or fault.code), told
    assert bool(told.error) == bool(fault.code)
    if fault.text is not None:
        assert told.text == fault.text
    elif fault.code == "budget_exceeded":
        assert told.text.startswith(text_of(5))
    else:
        assert told.text in [text_of(n) for n in range(6)]


@pytest.mark.parametrize(("door", "fault"), cases(ANSWERS, doors=list(DOORS)))
def test_answers(arena: ServedArena, door: str, fault: Fault) -> None:
    ask, letters = DOORS[door]
    if fault.primed:
        ask(arena, fault)
    arrange(arena, fault)
    before = sent(arena, "/api/chat", fault.model)
    with seven_nevers(arena, within_s=LIMIT_S) as case:
        outcome = ask(arena, fault)
        case.request_id = outcome.request_id
        if code := outcome.columns[FAULTY].code:
            case.failed(fault.endpoint, code)
        arena.other.state(accept="normal")  # what it holds open itself is no leak of ours
    check(fault, outcome)
    others = {name: told for name, told in outcome.columns.items() if name != FAULTY}
    assert others == neighbours(letters), "a neighbour was harmed"
    times = sent(arena, "/api/chat", fault.model) - before
    assert times - (fault.accept == "normal") in ((0, 1) if fault.resent else (0,)), "sent again"
    for _ in range(2):
        results = arena.ask("POST", "/api/chat", GOOD).json()["results"]
        texts = {name: entry["response"] for name, entry in results.items()}
        assert texts == {str(seed): text_of(3, seed) for seed in range(FOLLOWING)}, "an answer is not its own"


@pytest.mark.parametrize(("door", "fault"), cases(REFUSALS, doors=["models"]))
def test_lists(arena: ServedArena, door: str, fault: Fault) -> None:
    for fake in arena.fakes:
        fake.state(routes={"/api/tags": fault.model})
    arena.forget()
    with seven_nevers(arena, within_s=LIMIT_S, settle_s=1 + PROBE_S):
        answer = arena.ask("GET", "/api/models")
        for fake in arena.fakes:
            fake.state(routes={})  # a probe every other second would find the route silent again
    assert answer.status == 500
    assert documented(arena, "GET", "/api/models", answer)
    body = answer.json()
    assert (body["error"], body["code"]) == ("An unexpected error occurred", fault.code)
    assert body["details"]


def test_one_endpoint_that_fails_leaves_the_lists_of_the_others(arena: ServedArena) -> None:
    arena.fake.state(routes={"/api/tags": "fx-status:c-500"})
    arena.forget()
    answer = arena.ask("GET", "/api/models")
    assert (answer.status, answer.json()["models"]) == (200, arena.other.models)


@pytest.mark.parametrize(("door", "fault"), cases(REFUSALS, doors=["delete"]))
def test_deletes(arena: ServedArena, door: str, fault: Fault) -> None:
    arena.fake.state(routes={"/api/delete": fault.model})
    with seven_nevers(arena, within_s=LIMIT_S) as case:
        answer = arena.ask("POST", "/api/delete_model", {"model": "tiny", "endpoint": "fake"})
        case.request_id = answer.request_id
        case.failed("fake", fault.code)
    assert answer.status == 500
    assert documented(arena, "POST", "/api/delete_model", answer)
    body = answer.json()
    assert (body["error"], body["code"]) == ("Failed to delete model", fault.code)
    assert body["details"]
    assert sent(arena, "/api/delete", "tiny") == 1, "sent again"


@pytest.mark.parametrize(("door", "fault"), cases(REFUSALS, PULLS, doors=["pull"]))
def test_pulls(arena: ServedArena, door: str, fault: Fault) -> None:
    with seven_nevers(arena, within_s=LIMIT_S) as case:
        answer = arena.ask("POST", "/api/pull_model", {"model": fault.model, "endpoint": "fake"})
        job = answer.json()["job"]
        arena.run(arena.arena.catalog.wait(job["id"]))
        case.request_id = answer.request_id
        case.failed("fake", fault.code)
    assert answer.status == 200
    assert documented(arena, "POST", "/api/pull_model", answer)
    told = arena.ask("GET", f"/api/pulls/{job['id']}").json()
    assert told["state"] == "failed"
    assert told["error"]
    assert sent(arena, "/api/pull", fault.model) == 1, "sent again"


def test_management_on_a_connection_that_dies_is_never_sent_twice(arena: ServedArena) -> None:
    """F28: what may be asked again without harm is; a delete gets a connection of its own instead."""
    request = {"history": HELLO, "model_instances": [{"id": "a", "model": "fx-staleka", "endpoint": "fake"}]}
    assert arena.ask("POST", "/api/chat", request).status == 200
    assert arena.ask("POST", "/api/delete_model", {"model": "tiny", "endpoint": "fake"}).status == 200
    assert sent(arena, "/api/delete", "tiny") == 1
