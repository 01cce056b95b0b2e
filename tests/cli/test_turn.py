"""Which words are models, what the prompt is, and how a send ends."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest

from arena.cli import doors, screen, turn
from arena.errors import BadRequest, Unreachable
from arena.types import (
    ChatMessage,
    ChatRequest,
    Delta,
    Finished,
    Metrics,
    ModelInfo,
    ModelInstance,
    Options,
    Order,
    PullJob,
)


def no_models() -> Sequence[ModelInfo]:
    raise AssertionError("the list of models was not needed")


@pytest.mark.parametrize(
    ("words", "models", "prompt"),
    [
        (["tiny"], ["tiny"], None),
        (["tiny", "Why so?"], ["tiny"], "Why so?"),
        (["tiny", "big", "Name three rivers."], ["tiny", "big"], "Name three rivers."),
    ],
)
def test_split_prompt_takes_what_cannot_be_a_model(words: list[str], models: list[str], prompt: str | None) -> None:
    assert turn.split_prompt(words, no_models) == (models, prompt)


def test_split_prompt_last_word_is_a_model_only_if_it_is_installed() -> None:
    installed = [ModelInfo("tiny:latest"), ModelInfo("big:7b")]
    assert turn.split_prompt(["tiny", "Big:7b"], lambda: installed) == (["tiny", "Big:7b"], None)
    assert turn.split_prompt(["tiny", "hello"], lambda: installed) == (["tiny"], "hello")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_complete_prompt_adds_what_is_piped() -> None:
    assert turn.complete_prompt("Sum up.", io.StringIO("a letter\n")) == "Sum up.\n\na letter"
    assert turn.complete_prompt(None, io.StringIO("a letter\n")) == "a letter"
    assert turn.complete_prompt("Sum up.", io.StringIO("\n")) == "Sum up."


def test_complete_prompt_asks_at_a_terminal_only_without_a_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert turn.complete_prompt("Hi", Terminal("not read")) == "Hi"
    assert capsys.readouterr().err == ""
    assert turn.complete_prompt(None, Terminal("typed\n")) == "typed"
    assert capsys.readouterr().err == "prompt: "


@pytest.mark.parametrize("stdin", [io.StringIO(""), Terminal("\n")])
def test_complete_prompt_empty_is_refused(stdin: io.StringIO) -> None:
    with pytest.raises(BadRequest, match="no prompt"):
        turn.complete_prompt(None, stdin)


def test_requests_for_the_same_model_twice_get_their_own_columns() -> None:
    options = Options(seed=1)
    asked = turn.requests_for(["tiny", "tiny"], "Hi", system="Be brief.", options=options, think=True)
    assert [request.instance for request in asked] == [
        ModelInstance("tiny", "tiny", options, system="Be brief.", think=True),
        ModelInstance("tiny #2", "tiny", options, system="Be brief.", think=True),
    ]
    assert [request.messages for request in asked] == [(ChatMessage("user", "Hi"),)] * 2


def test_requests_for_an_illegal_name_is_refused() -> None:
    with pytest.raises(BadRequest, match="valid model name"):
        turn.requests_for(["no such!"], "Hi", system=None, options=Options(), think=None)


class StubDoor:
    """A door behind which the first answer comes to its end, and then `problem` happens."""

    def __init__(self, problem: BaseException) -> None:
        self._problem = problem

    def models(self) -> tuple[ModelInfo, ...]:
        return ()

    def chat(self, asked: Sequence[ChatRequest], order: Order, sink: doors.EventSink) -> None:
        first, second = (request.instance.id for request in asked)
        sink([Finished(first, Metrics()), Delta(second, "so f")])
        raise self._problem

    def pull(self, model: str, endpoint: str | None, sink: doors.PullSink) -> PullJob:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("problem", "code"), [(KeyboardInterrupt(), "stopped"), (Unreachable("Gone."), "backend_unreachable")]
)
def test_run_that_is_cut_short_closes_the_open_columns_and_keeps_their_text(problem: BaseException, code: str) -> None:
    asked = turn.requests_for(["a", "b"], "Hi", system=None, options=Options(), think=None)
    view = screen.JsonLines(["a", "b"], io.StringIO())
    with pytest.raises(type(problem)):
        turn.run(StubDoor(problem), asked, "together", view)
    first, second = view.transcript.replies.values()
    assert first.error is None
    assert (second.text, second.error and second.error.code) == ("so f", code)
