"""Sessions: columns that come and go, prompts that open turns, pages that leave and come back."""

from __future__ import annotations

from typing import Any, cast

import pytest

from arena.streaming import Reply
from arena.types import ChatMessage, Failed, Metrics, ModelInfo, ModelInstance
from arena.ui.attachments import Attachment
from arena.ui.lineup import ColumnChoice
from arena.ui.sessions import KEPT_S, KEPT_SESSIONS, MOST_SESSIONS, Asking, Session, Sessions, Turn, again, begin


class StoppableRun:
    """Stands for a run: remembers what was stopped."""

    def __init__(self) -> None:
        self.stopped: list[str | None] = []

    def stop(self, instance_id: str | None = None) -> None:
        self.stopped.append(instance_id)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def nothing_known(model: str) -> ModelInfo | None:
    return None


def session_of(*models: str) -> Session:
    session = Sessions("ABCDEF").of("s")
    session.set_columns([ColumnChoice(model) for model in models])
    return session


def asking(text: str = "Why?", session: Session | None = None, **changes: Any) -> Asking:
    values: dict[str, Any] = {"attachments": (), "choices": session.choices if session else {}, "system": ""}
    return Asking(text, **(values | {"order": "together"} | changes))


def turn(letter: str, text: str = "", *, ended: bool = True, error: str | None = None) -> Turn:
    reply = Reply(letter, text)
    if error:
        reply.error = Failed(letter, error, "no")
    elif ended:
        reply.metrics = Metrics()
    return Turn(ChatMessage("user", "q"), "q", (), ModelInstance(letter, "m"), reply, 0.0)


def test_a_column_is_added_at_the_first_free_letter_and_empty() -> None:
    session = session_of("a", "b", "c")
    session.columns["B"].turns.append(turn("B", "old"))
    session.close("B")
    assert session.visible == ["A", "C"]
    assert session.add() == "B"
    assert session.columns["B"].turns == []
    assert session.visible == ["A", "B", "C"]
    assert [session.add() for _ in range(4)] == ["D", "E", "F", None]


def test_the_last_column_stays_and_an_unknown_one_is_nothing() -> None:
    session = session_of("a")
    session.close("A")
    session.close("E")
    assert session.visible == ["A"]


def test_closing_stops_the_column_and_ends_its_solo() -> None:
    session, run = session_of("a", "b"), StoppableRun()
    session.columns["A"].turns.append(turn("A", ended=False))
    session.columns["A"].run = cast(Any, run)
    session.only = "A"
    session.close("A")
    assert run.stopped == ["A"]
    assert session.taking_part == ["B"]


def test_begin_opens_a_turn_in_every_column_and_asks_with_its_own_history() -> None:
    session = session_of("a", "b")
    session.columns["A"].turns.append(turn("A", "yes"))
    requests = begin(session, asking(session=session, system="S"), nothing_known, 1.0)
    assert [request.instance.id for request in requests] == ["A", "B"]
    assert [message.content for message in requests[0].messages] == ["q", "yes", "Why?"]
    assert [message.content for message in requests[1].messages] == ["Why?"]
    assert requests[0].instance.system == "S"
    assert session.busy == ["A", "B"]


def test_a_turn_that_said_nothing_is_not_history() -> None:
    session = session_of("a")
    session.columns["A"].turns += [turn("A", error="timeout"), turn("A", "part", error="stopped")]
    (request,) = begin(session, asking(session=session), nothing_known, 1.0)
    assert [message.content for message in request.messages] == ["q", "part", "Why?"]


def test_editing_replaces_the_last_turn_once() -> None:
    session = session_of("a")
    session.columns["A"].turns.append(turn("A", "yes"))
    session.editing = True
    begin(session, asking(session=session), nothing_known, 1.0)
    assert len(session.columns["A"].turns) == 1
    assert not session.editing


def test_solo_asks_one_and_leaves_the_rest() -> None:
    session = session_of("a", "b")
    session.only = "B"
    assert [request.instance.id for request in begin(session, asking(session=session), nothing_known, 1.0)] == ["B"]
    assert session.columns["A"].turns == []


def test_a_column_without_a_model_fails_by_itself() -> None:
    session = session_of("", "b")
    requests = begin(session, asking(session=session), nothing_known, 1.0)
    assert [request.instance.id for request in requests] == ["B"]
    last = session.columns["A"].last
    assert last is not None
    assert last.reply.error is not None
    assert last.reply.error.code == "no_model"


@pytest.mark.parametrize(
    ("abilities", "asked"), [(("completion",), False), (("completion", "vision"), True), (None, True)]
)
def test_a_picture_goes_only_to_models_that_may_see(abilities: tuple[str, ...] | None, asked: bool) -> None:
    session = session_of("a")
    picture = Attachment("p.png", "image", 3, "aGk=")
    info = ModelInfo("a", capabilities=abilities, loaded_on=("x",))
    requests = begin(session, asking(session=session, attachments=(picture,)), lambda model: info, 1.0)
    assert bool(requests) is asked
    last = session.columns["A"].last
    assert last is not None
    assert last.in_memory is True
    assert (last.reply.error is None) is asked
    if asked:
        assert requests[0].messages[-1].images == ("aGk=",)


def test_one_after_another_knows_whom_a_column_waits_for() -> None:
    session = session_of("a", "b", "c")
    begin(session, asking(session=session, order="one_after_another"), nothing_known, 1.0)
    assert [session.columns[letter].turns[-1].waits_for for letter in "ABC"] == ["", "A", "B"]


def test_again_repeats_the_prompt_with_the_settings_of_now() -> None:
    session = session_of("a")
    column = session.columns["A"]
    assert again(column, ColumnChoice("x"), "", nothing_known, 2.0) is None
    column.turns += [turn("A", "one"), turn("A", "two")]
    request = again(column, ColumnChoice("x"), "S", nothing_known, 2.0)
    assert request is not None
    assert request.instance.model == "x"
    assert [message.content for message in request.messages] == ["q", "one", "q"]
    assert len(column.turns) == 2
    assert again(column, ColumnChoice("x"), "", nothing_known, 2.0) is None, "it is busy"


def test_the_last_prompt_is_the_latest_of_those_who_take_part() -> None:
    session = session_of("a", "b")
    assert session.last_prompt() is None
    early, late = turn("A"), turn("B")
    late.asked_s = 5.0
    session.columns["A"].turns.append(early)
    session.columns["B"].turns.append(late)
    assert session.last_prompt() is late
    session.only = "A"
    assert session.last_prompt() is early


def test_clear_forgets_words_and_keeps_columns() -> None:
    session = session_of("a", "b", "c")
    begin(session, asking(session=session), nothing_known, 1.0)
    session.only, session.editing = "A", True
    session.clear()
    assert session.visible == ["A", "B", "C"]
    assert not session.editing
    assert session.only is None
    assert all(not column.turns for column in session.columns.values())


def test_a_page_that_leaves_stops_its_answers_and_may_come_back() -> None:
    clock = Clock()
    sessions = Sessions("AB", clock)
    session, run = sessions.of("s"), StoppableRun()
    session.set_columns([ColumnChoice("a")])
    session.columns["A"].turns.append(turn("A", ended=False))
    session.columns["A"].run = cast(Any, run)
    assert (len(sessions), sessions.running) == (1, 1)
    sessions.leave("s")
    assert run.stopped == ["A"]
    assert len(sessions) == 0
    assert sessions.of("s") is session
    assert len(sessions) == 1


def test_words_of_pages_long_gone_are_forgotten() -> None:
    clock = Clock()
    sessions = Sessions("AB", clock)
    first, here = sessions.of("gone"), sessions.of("here")
    sessions.leave("gone")
    sessions.leave("unknown")
    clock.now_s = KEPT_S + 1
    sessions.of("other")
    sessions.leave("other")
    assert sessions.of("gone") is not first
    assert sessions.of("here") is here


def test_only_so_many_gone_pages_are_kept() -> None:
    sessions = Sessions("AB", Clock())
    oldest = sessions.of("0")
    for number in range(KEPT_SESSIONS + 1):
        sessions.of(str(number))
        sessions.leave(str(number))
    assert sessions.of("0") is not oldest


def test_sessions_that_never_leave_do_not_pile_up() -> None:
    sessions = Sessions("A")
    first, second = sessions.of("first"), sessions.of("second")
    for number in range(MOST_SESSIONS - 2):
        sessions.of(f"made up {number}")
    assert sessions.of("first") is first, "in use: the others are older now"
    sessions.of("one more")
    assert len(sessions) == MOST_SESSIONS
    assert sessions.of("first") is first
    assert sessions.of("second") is not second


def test_a_forgotten_session_is_not_set_up() -> None:
    session = Sessions("AB").of(None)
    assert not session.set_up
    session.set_columns([])
    assert session.visible == ["A"]
    session.choose("A", "m")
    assert session.choices["A"].model == "m"
