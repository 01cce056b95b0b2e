"""Both doors on the fake: the same words, the same answers; and Ctrl-C, which frees every endpoint."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from arena.cli import doors
from arena.errors import ArenaError
from arena.types import (
    Delta,
    Finished,
    ModelInfo,
    PullJob,
    Started,
    StreamEvent,
)
from tests.cli.running import Run, serving
from tests.fake_ollama import RunningFake, text_said_by

ROOT = Path(__file__).resolve().parents[2]


def test_models_are_listed_as_a_table(run: Run, door: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    outcome = run("models", *door)
    assert outcome.status == 0
    heading, *rows = outcome.out.splitlines()
    assert heading.split()[:2] == ["model", "size"]
    assert any(row.startswith("llama3.2:3b") and "Q4_K_M" in row and "fake" in row for row in rows)


def test_models_are_listed_as_json(run: Run, door: list[str]) -> None:
    outcome = run("models", "--json", *door)
    found = msgspec.json.decode(outcome.out, type=list[ModelInfo])
    assert {info.name for info in found} >= {"fx-ok:latest", "llama3.2:3b"}
    assert all(info.size_bytes > 0 and info.endpoints == ("fake",) for info in found)


def test_models_none_says_how_to_get_one(run: Run, own: RunningFake) -> None:
    own.state(models=[])
    assert "pull" in run("models").out


def test_chat_one_model_in_a_pipe_is_its_text_alone(run: Run, door: list[str]) -> None:
    outcome = run("chat", "fx-ok:n-20", "Say something.", *door)
    assert (outcome.status, outcome.out) == (0, text_said_by("fx-ok:n-20") + "\n")
    assert outcome.err.startswith("fx-ok:n-20: done · 20 tokens")


def test_chat_several_models_in_a_pipe_are_told_apart(run: Run, door: list[str]) -> None:
    outcome = run("chat", "fx-ok:n-3", "fx-ok:n-4", "fx-ok:n-4", "--prompt", "Say.", *door, piped="From a pipe.")
    assert outcome.status == 0
    for name, model in [("fx-ok:n-3",) * 2, ("fx-ok:n-4",) * 2, ("fx-ok:n-4 #2", "fx-ok:n-4")]:
        assert f"## {name}\n\n{text_said_by(model).strip()}\n\n" in outcome.out


def test_chat_sends_options_system_and_prompt(run: Run, own: RunningFake, door: list[str]) -> None:
    words = ["--system", "Be brief.", "--temperature", "0.5", "--seed", "0", "--stop", "a", "--stop", "b", "--no-think"]
    assert run("chat", "tiny", "Sum up.", *words, *door, piped="a letter").status == 0
    body = next(record.body for record in own.log if record.path == "/api/chat")
    assert isinstance(body, dict)
    assert body["options"] == {"temperature": 0.5, "stop": ["a", "b"]}
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Sum up.\n\na letter"},
    ]
    assert body["think"] is False


def test_chat_json_is_one_event_a_line(run: Run, door: list[str]) -> None:
    outcome = run("chat", "fx-think:n-20", "fx-ok:n-2", "Go on.", "--json", "--one-after-another", *door)
    events = [msgspec.json.decode(line, type=StreamEvent) for line in outcome.out.splitlines()]
    assert sum(isinstance(event, Finished) for event in events) == 2
    assert {event.instance_id for event in events} == {"fx-think:n-20", "fx-ok:n-2"}
    assert "".join(e.text for e in events if isinstance(e, Delta) and e.instance_id == "fx-ok:n-2") == text_said_by(
        "fx-ok:n-2"
    )
    assert any(isinstance(event, Delta) and event.thinking for event in events)
    manifests = [event.manifest for event in events if isinstance(event, Started)]
    assert [manifest.endpoint for manifest in manifests] == ["fake", "fake"]


def test_chat_failed_answer_keeps_its_text_and_is_status_1(run: Run, door: list[str]) -> None:
    outcome = run("chat", "fx-eof:at-3", "fx-ok:n-2", "Go on.", *door)
    assert outcome.status == 1
    assert text_said_by("fx-ok:n-2").strip() in outcome.out
    assert "## fx-eof:at-3\n\n日本" in outcome.out
    assert "fx-eof:at-3: upstream_" in outcome.err


def test_chat_with_a_model_that_is_not_there_says_where_models_come_from(run: Run, door: list[str]) -> None:
    outcome = run("chat", "nowhere", "Go on.", *door)
    assert outcome.status == 1
    assert outcome.err.startswith("nowhere: model_not_found: ")
    assert outcome.err.endswith(" not found; the command models lists what is installed, pull fetches more\n")


def test_chat_figures_without_counters_are_absent(run: Run, door: list[str]) -> None:
    outcome = run("chat", "fx-nometrics:n-20", "Go on.", "--json", *door)
    finished = msgspec.json.decode(outcome.out.splitlines()[-1], type=Finished)
    assert (finished.metrics.tokens_per_sec, finished.metrics.duration_s) == (None, None)


def test_pull_shows_progress_and_ends_with_the_model(run: Run, own: RunningFake, door: list[str]) -> None:
    outcome = run("pull", "fx-pull:n-3", *door)
    assert outcome.status == 0
    assert "fx-pull:n-3" in outcome.err
    assert "fx-pull:n-3" in own.models


def test_pull_named_endpoint_is_the_one_that_downloads(run: Run, own: RunningFake, door: list[str]) -> None:
    assert run("pull", "fx-pull:n-1", "--endpoint", "fake", *door).status == 0
    assert run("pull", "fx-pull:n-1", "--endpoint", "elsewhere", *door).status == 1


def test_pull_failed_is_status_1_with_ollamas_own_words(run: Run, door: list[str]) -> None:
    outcome = run("pull", "fx-pull-err:k-0", *door)
    assert outcome.status == 1
    assert "file does not exist" in outcome.err.splitlines()[-1]
    assert outcome.err.count("file does not exist") == 1


def test_pull_illegal_name_is_refused_before_anything_starts(run: Run) -> None:
    outcome = run("pull", "no such!")
    assert outcome.status == 2
    assert outcome.err.startswith("error: model is not a valid model name")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chat", "no such!", "Say hi!", "--url", "127.0.0.1:9"], "model is not a valid model name"),
        (["chat", "tiny", "--url", "127.0.0.1:9"], "There is no prompt: give it as the last argument"),
        (["models", "--url", "http://127.0.0.1:70000"], "--url must look like http://127.0.0.1:7860"),
        (["pull", "tiny", "--url", "ftp://127.0.0.1"], "--url must look like http://127.0.0.1:7860"),
    ],
)
def test_what_was_mistyped_is_one_line_and_status_2(run: Run, words: list[str], said: str) -> None:
    outcome = run(*words)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith(f"error: {said}")


def test_an_arena_that_is_not_there_is_told_with_the_reason_and_the_remedy(run: Run) -> None:
    outcome = run("models", "--url", "127.0.0.1:9")
    assert outcome.status == 1
    assert outcome.err.splitlines() == [
        "error: No arena answers at http://127.0.0.1:9. Start one (python -m arena), or leave --url out",
        "       Connection refused",
    ]


def test_endpoint_down_is_said_plainly(run: Run, own: RunningFake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARENA_ENDPOINTS", "http://127.0.0.1:9")
    outcome = run("models")
    assert outcome.status == 1
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.err


def test_remote_arena_asks_for_its_token(run: Run, own: RunningFake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CHAT_TOKEN", "a-token-of-some-length")
    with serving() as url:
        assert run("models", "--url", url).status == 0
        monkeypatch.delenv("WEB_CHAT_TOKEN")
        outcome = run("models", "--url", url)
    assert outcome.status == 1
    assert outcome.err == "error: Missing or invalid Authorization header. Set WEB_CHAT_TOKEN to the arena's token.\n"


@contextmanager
def command(*words: str) -> Iterator[subprocess.Popen[str]]:
    """The command line in a process of its own, in its own group as a shell would start it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what is ignored here, it would ignore too
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "arena", *words],
            cwd=os.environ["ARENA_DATA"],  # where no .env lies
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as a POSIX shell sends them")
def test_ctrl_c_stops_every_answer_and_frees_the_endpoint(own: RunningFake, door: list[str]) -> None:
    with command("chat", "fx-stall:n-2", "fx-stall:n-3", "Go on.", "--json", *door) as process:
        assert process.stdout is not None
        seen: set[str] = set()
        while len(seen) < 2:
            event = json.loads(process.stdout.readline())
            if event["type"] == "delta":
                seen.add(event["instance_id"])
        process.send_signal(signal.SIGINT)
        own.closed(2, within_s=60)
        out, err = process.communicate(timeout=60)
    ends = [event for event in map(json.loads, out.splitlines()) if event["type"] == "failed"]
    assert {event["code"] for event in ends} == {"stopped"}
    assert {event["instance_id"] for event in ends} == seen
    assert process.returncode == 130, err


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as a POSIX shell sends them")
def test_ctrl_c_cancels_a_download(own: RunningFake, door: list[str]) -> None:
    with command("pull", "fx-pull-stall", *door) as process:
        own.arrived(1, within_s=60, path="/api/pull")
        assert process.stderr is not None
        assert process.stderr.readline().startswith("fx-pull-stall: ")
        process.send_signal(signal.SIGINT)
        own.closed(1, within_s=60)
        process.communicate(timeout=60)
    assert process.returncode == 130


class StubArena:
    """An arena that has only what a door looks at."""

    def __init__(self, jobs: Sequence[PullJob] = (), engine_error: str | None = None) -> None:
        self.engine_error = engine_error
        self.fleet = self
        self.catalog = self
        self.endpoints = () if engine_error else (SimpleNamespace(error=None),)
        self._jobs = list(jobs)

    async def started(self) -> None: ...

    def jobs(self) -> list[PullJob]:
        return self._jobs

    def job(self, job_id: str) -> PullJob:
        return msgspec.structs.replace(self._jobs[0], state="done")


def test_own_arena_waits_for_the_first_model(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = PullJob("0", "big", "engine", "done")
    stub: Any = StubArena([PullJob("1", "tiny", "engine", "downloading"), ended])
    monkeypatch.setattr(doors, "POLL_S", 0)
    shown: list[PullJob] = []
    with asyncio.Runner() as runner:
        doors.OwnArena(stub, runner).settle(shown.append)
    assert [(job.id, job.state) for job in shown] == [("1", "downloading"), ("1", "done")]


def test_own_arena_says_why_the_engine_did_not_start() -> None:
    stub: Any = StubArena(engine_error="The embedded engine did not start: no such instruction")
    with asyncio.Runner() as runner, pytest.raises(ArenaError) as caught:
        doors.OwnArena(stub, runner).settle(lambda _: None)
    assert caught.value.message == "The embedded engine did not start: no such instruction"
