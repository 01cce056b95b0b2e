"""Words, options and exit statuses of the commands."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import socket
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from arena import __version__, cli
from arena.api.fields import PARAMETERS, Parameter
from arena.settings import Settings
from tests.cli.running import Outcome, Run


@pytest.mark.parametrize("words", [[], ["serve"], ["--port", "0"], ["serve", "--port=0"]])
def test_serve_is_the_default_command(run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    served: list[Settings] = []
    monkeypatch.setattr("arena.server.serve", lambda build, settings: served.append(settings))
    assert run(*words).status == 0
    assert served[0].port == (0 if len(words) and "port" in words[-1] + words[0] else 7860)


def test_serve_options_win_over_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Settings] = []
    monkeypatch.setattr("arena.server.serve", lambda build, settings: served.append(settings))
    monkeypatch.setenv("ARENA_ENGINE", "off")
    monkeypatch.setenv("ARENA_HOST", "127.0.0.2")
    assert run("--engine", "on", "--endpoints", "a=http://gpu1,b=http://gpu2", "--data", "here").status == 0
    assert (served[0].engine, served[0].host, served[0].data) == ("on", "127.0.0.2", Path("here"))
    assert served[0].endpoints == ("a=http://gpu1", "b=http://gpu2")


def test_serve_builds_the_whole_application(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []
    monkeypatch.setattr("arena.app.create_app", lambda settings: built.append(settings))
    monkeypatch.setattr("arena.server.serve", lambda build, settings: build(settings))
    outcome = run("serve")
    assert outcome.status == 0
    assert f"Ollama Arena {__version__} is starting" in outcome.err
    assert isinstance(built[0], Settings)


@pytest.mark.parametrize(("given", "threads"), [(None, "1"), ("4", "4")])
def test_ratings_take_one_core_unless_somebody_says_otherwise(
    run: Run, monkeypatch: pytest.MonkeyPatch, given: str | None, threads: str
) -> None:
    monkeypatch.setattr("arena.server.serve", lambda build, settings: None)
    monkeypatch.delenv(cli.BLAS_THREADS, raising=False)
    if given is not None:
        monkeypatch.setenv(cli.BLAS_THREADS, given)
    assert run("serve").status == 0
    assert os.environ[cli.BLAS_THREADS] == threads


def test_wrong_setting_is_one_line_and_status_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARENA_PORT", "70000")
    outcome = run()
    assert outcome.status == 2
    assert outcome.err.startswith("error: ARENA_PORT: ")
    assert outcome.err.count("\n") == 1


def test_unreadable_line_of_the_env_file_is_one_line_and_status_2(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    (tmp_path / ".env").write_text("WEB_CHAT_TOKEN='abcdefghijklmnopqrstu\n", encoding="utf-8")
    outcome = run("--port", "0")
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: {tmp_path / '.env'}, line 1: ")
    assert outcome.err.count("\n") == 1


def test_misspelt_setting_is_a_line_of_the_log(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.server.serve", lambda build, settings: None)
    monkeypatch.setenv("ARENA_PROT", "8000")
    outcome = run()
    assert outcome.status == 0
    assert "ARENA_PROT is no setting and is not used; did you mean ARENA_PORT?" in outcome.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--temperature", value) for value in ("nan", "inf", "-inf", "0", "2.1", "warm")),
        *((option, "nan") for option in ("--top-p", "--repeat-penalty", "--num-ctx")),
        *((option, "-2") for option in ("--top-k", "--num-predict", "--seed")),
    ],
)
def test_chat_number_out_of_range_is_told_by_its_option_before_anything_is_sent(
    run: Run, option: str, value: str
) -> None:
    outcome = run("chat", "tiny", "Hi.", option, value, "--url", "http://127.0.0.1:9")
    assert outcome.status == 2
    assert f"Invalid value for '{option}': " in outcome.err


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
def test_chat_takes_the_numbers_that_the_api_takes(parameter: Parameter) -> None:
    annotation = inspect.signature(cli.chat, eval_str=True).parameters[parameter.name].annotation
    (option,) = annotation.__metadata__
    assert (option.min, option.max) == (parameter.low, parameter.high)


def test_public_address_without_a_token_is_refused(run: Run) -> None:
    outcome = run("--host", "0.0.0.0", "--port", "0")
    assert outcome.status == 2
    assert "WEB_CHAT_TOKEN" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["serve", "--nonsense"],
        ["--port", "x"],
        ["--port", "65536"],
        ["engine", "--port", "-1"],
        ["pull"],
        ["chat"],
    ],
)
def test_wrong_usage_is_status_2(run: Run, words: list[str]) -> None:
    assert run(*words).status == 2


@pytest.mark.parametrize("words", [["version"], ["--version"]])
def test_version_is_printed(run: Run, words: list[str]) -> None:
    assert run(*words) == Outcome(0, f"{__version__}\n", "")


@pytest.mark.parametrize("command", [c.name or c.callback.__name__ for c in cli.app.registered_commands if c.callback])
def test_help_teaches_every_command(run: Run, command: str) -> None:
    outcome = run(command, "--help")
    assert outcome.status == 0
    assert f"arena {command}" in outcome.out
    if command != "version":
        assert "Examples" in outcome.out


def test_engine_on_a_port_that_is_taken_is_one_line_and_status_2(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = run("engine", "--port", str(port))
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use; give another --host" in outcome.err


def test_engine_listens_where_no_other_machine_can_ask(run: Run) -> None:
    outcome = run("engine", "--host", "0.0.0.0", "--port", "0")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "cannot listen on '0.0.0.0' (--host): it asks for no key" in outcome.err
    assert "WEB_CHAT_TOKEN" in outcome.err


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_engine_tries_the_port_in_the_family_of_its_address(
    run: Run, monkeypatch: pytest.MonkeyPatch, host: str, family: socket.AddressFamily
) -> None:
    tried: list[tuple[object, object]] = []

    def refuse(address: object, *, family: object) -> None:
        tried.append((address, family))
        raise OSError(13, "Permission denied")

    monkeypatch.setattr("socket.create_server", refuse)
    assert f"cannot listen on {host}, port 80: Permission denied" in run("engine", "--host", host, "--port", "80").err
    assert tried == [((host, 80), family)]


def test_engine_and_setup_hand_their_words_to_the_engine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run_engine(words: list[str]) -> int:
        asked.append(words)
        return 3

    monkeypatch.setattr("arena.engine.__main__.main", run_engine)
    monkeypatch.setenv("ARENA_DATA", "kept")
    outcome = run("engine", "--port", "0")
    assert (outcome.status, outcome.out) == (3, "")
    assert outcome.err.startswith("The embedded engine starts on 127.0.0.1, a free port: ")
    assert run("setup", "--data", "other").status == 3
    assert asked == [
        ["serve", "--data", "kept", "--host", "127.0.0.1", "--port", "0"],
        ["setup", "--data", "other"],
    ]


def test_entry_file_builds_its_application_once_and_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import arena_app

    monkeypatch.setattr("arena.app.create_app", lambda settings: object())
    assert "app" not in vars(arena_app)
    assert arena_app.app is arena_app.app
    with pytest.raises(AttributeError, match="nothing"):
        _ = arena_app.nothing


def examples(command: TyperGroup | TyperCommand) -> Iterator[tuple[TyperCommand, str]]:
    """Every command from `command` down, with each call of it that its help shows."""
    if isinstance(command, TyperGroup):
        for below in command.commands.values():
            assert isinstance(below, TyperGroup | TyperCommand)
            yield from examples(below)
        return
    for example in re.findall(rf"`.*?\bpython -m arena .*?\b{command.name}\b ?(.*?)`", command.epilog or ""):
        yield command, example


COMMANDS = get_command(cli.app)
assert isinstance(COMMANDS, TyperGroup)


@pytest.mark.parametrize(("command", "example"), [*examples(COMMANDS)])
def test_examples_of_the_help_are_what_the_commands_take(command: TyperCommand, example: str) -> None:
    words = takewhile(lambda word: word not in ("|", ">"), shlex.split(example))
    command.make_context(command.name, [*words])
