"""The command line, whose help lists the commands; those of one thing stand in a module each. Imports come late."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from arena import __version__
from arena.cli import fleet, kept, keys, store, votes
from arena.cli.usage import WrongUsage, typed
from arena.errors import ArenaError, SettingsError

if TYPE_CHECKING:
    from arena.cli.doors import Door
    from arena.cli.screen import DownloadBar, DownloadLines
    from arena.guard import Guard
    from arena.settings import Settings

HELP = f"""Ollama Arena {__version__}: compare language models side by side.

Without a command the arena is served on http://127.0.0.1:7860: `serve` is the default and takes its options.
Every setting is an environment variable as well (see .env.example); an option wins over the variable."""

NOT_FOR_SERVE = ("--help", "-h", "--version", "--install-completion", "--show-completion")
BLAS_THREADS = "OPENBLAS_NUM_THREADS"
"""Read when numpy is imported. More of them wait for each other, spinning, on cores that answers are made on: ratings
of 400 models then take four times as long."""
EXIT_FAILED, EXIT_USAGE = 1, 2

app = typer.Typer(
    help=HELP,
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(fleet.app)
app.add_typer(keys.app)
app.add_typer(kept.app)
app.add_typer(store.app)
app.add_typer(votes.app)


def main(arguments: Sequence[str] | None = None, *, program: str = "python -m arena") -> NoReturn:
    """Run the command line; exits with 0, 1 (failed), 2 (wrong usage or setting) or 130 (Ctrl-C)."""
    os.environ.setdefault(BLAS_THREADS, "1")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in NOT_FOR_SERVE):
        words = ["serve", *words]
    try:
        app(words, prog_name=program)
    except ArenaError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.details:
            print(f"       {error.details}", file=sys.stderr)
        sys.exit(EXIT_USAGE if isinstance(error, SettingsError | WrongUsage) else EXIT_FAILED)
    sys.exit(0)


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if show_version:
        print(__version__)
        raise typer.Exit


@app.command(
    epilog="""Examples:

`python -m arena serve` &nbsp; on this machine only, port 7860

`python -m arena serve --port 8000 --endpoints http://gpu1:11434,http://gpu2:11434`

`WEB_CHAT_TOKEN=secret python -m arena serve --host 0.0.0.0` &nbsp; for your network"""
)
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (ARENA_HOST).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one (ARENA_PORT).")
    ] = None,
    endpoints: Annotated[
        str | None, typer.Option(help="Ollama servers, separated by commas: url or name=url (ARENA_ENDPOINTS).")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="The embedded engine: auto, on or off (ARENA_ENGINE).")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder for votes, keys and downloaded models (ARENA_DATA).")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error (ARENA_LOG_LEVEL).")] = None,
) -> None:
    """Serve the page and the API (the default command). Ctrl-C stops it and every answer under way."""
    from arena.settings import load, warn_of_unknown

    chosen = {
        "host": host,
        "port": port,
        "endpoints": endpoints,
        "engine": engine,
        "data": data,
        "log_level": log_level,
    }
    settings = load(**_given(chosen))

    from arena import log
    from arena.server import serve as serve_arena

    log.configure(settings)
    warn_of_unknown()
    serve_arena(_built, settings)


Url = Annotated[
    str | None,
    typer.Option(help="Ask a running arena, for example http://127.0.0.1:7860, with WEB_CHAT_TOKEN if it needs one."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command(
    epilog="Examples:\n\n`python -m arena models`\n\n`python -m arena models --json --url http://127.0.0.1:7860`"
)
def models(as_json: Json = False, url: Url = None) -> None:
    """List the installed models: size, quantisation, where they are, and whether they are in memory."""
    import msgspec

    with _door(url) as door:
        found = door.models()
    if as_json:
        print(msgspec.json.encode(found).decode())
    elif not found:
        print("No models are installed. Fetch a small one: pull smollm2:135m")
    else:
        from rich.console import Console

        from arena.cli.screen import models_table

        Console().print(models_table(found))


Words = Annotated[
    list[str],
    typer.Argument(metavar="MODEL", help="One or more models, then the prompt in quotes.", show_default=False),
]
OneAfterAnother = Annotated[
    bool, typer.Option("--one-after-another", help="One model at a time, so that figures do not disturb each other.")
]
# What may be asked of every model, by Ollama's names and within the ranges of the API.
Temperature = Annotated[float | None, typer.Option(min=0.01, max=2, help="Higher varies more.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="1 is off.")]
TopK = Annotated[int | None, typer.Option(min=0, max=100, help="0 is off.")]
RepeatPenalty = Annotated[float | None, typer.Option(min=1, max=2, help="1 is off.")]
NumPredict = Annotated[int | None, typer.Option(min=-1, max=4096, help="Most tokens of an answer; -1 is no limit.")]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same answer; 0 picks one.")
]
NumCtx = Annotated[int | None, typer.Option(min=16, max=2**20, help="Context in tokens.")]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends an answer; may be given several times.")]
Think = Annotated[bool | None, typer.Option("--think/--no-think", help="For models that can think.")]


@app.command(
    epilog="""Examples:

`python -m arena chat smollm2:135m "Why is the sky blue?"`

`python -m arena chat smollm2:135m smollm2:135m-q8_0 "Name three rivers." --temperature 0.1 --seed 1`

`cat letter.txt | python -m arena chat llama3.2:3b qwen3:4b "Answer this letter."`

`python -m arena chat llama3.2:3b "Hello" --url http://127.0.0.1:7860 --json`"""
)
def chat(
    words: Words,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="The prompt; all words are then models.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt for all models.")] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repeat_penalty: RepeatPenalty = None,
    num_predict: NumPredict = None,
    seed: Seed = None,
    num_ctx: NumCtx = None,
    stop: Stop = None,
    think: Think = None,
    one_after_another: OneAfterAnother = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as one JSON line.")] = False,
    url: Url = None,
) -> None:
    """Send one prompt to several models and watch the answers side by side.

    The prompt is the last argument, --prompt, or standard input (added after the prompt if there is one).
    An option that is not given is left to the model. Ctrl-C stops all answers at once, upstream too.
    """
    from arena.cli import turn
    from arena.cli.screen import view_for
    from arena.types import Options

    options = Options(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repeat_penalty=repeat_penalty,
        num_predict=num_predict,
        seed=seed or None,
        num_ctx=num_ctx,
        stop=tuple(stop) if stop else None,
    )
    with _door(url) as door:
        names = words
        if prompt is None:
            names, prompt = turn.split_prompt(words, door.models)
        with typed():
            text = turn.complete_prompt(prompt, sys.stdin)
            asked = turn.requests_for(names, text, system=system, options=options, think=think)
        view = view_for([request.instance.id for request in asked], as_json=as_json)
        finished = turn.run(door, asked, "one_after_another" if one_after_another else "together", view)
    if not finished:
        raise typer.Exit(EXIT_FAILED)


@app.command(
    epilog="Examples:\n\n`python -m arena pull smollm2:135m`\n\n`python -m arena pull llama3.2:3b --url http://127.0.0.1:7860`"
)
def pull(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The model to fetch, for example llama3.2:3b.", show_default=False)
    ],
    endpoint: Annotated[str | None, typer.Option(help="The endpoint to fetch it to, by name.")] = None,
    url: Url = None,
) -> None:
    """Fetch a model, with its progress. Ctrl-C cancels; what has arrived is kept for the next try."""
    from arena.names import checked

    with typed():
        checked(model)
    with _door(url) as door, _bar() as show:
        job = door.pull(model, endpoint, lambda job: None if job.error else show(job))  # that is told below
    if job.state != "done":
        raise ArenaError(job.error or f"The download of {model} was {job.state}.")


@app.command(
    epilog="Examples:\n\n`python -m arena engine`\n\n`OLLAMA_KEEP_ALIVE=1h python -m arena engine --port 8080`"
)
def engine(
    host: Annotated[str, typer.Option(help="Address to listen on; loopback alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 11434,
    data: Annotated[Path | None, typer.Option(help="Folder for downloaded models (ARENA_DATA).")] = None,
) -> None:
    """Serve the embedded engine alone: an Ollama server in small, for any Ollama client."""
    from arena.engine.config import check_host

    check_host(host)
    _check_free(host, port)
    where = f"{host}, port {port}" if port else f"{host}, a free port"
    print(f"The embedded engine starts on {where}: an Ollama server in small. Ctrl-C stops it.", file=sys.stderr)
    _engine("serve", data, "--host", host, "--port", str(port))


@app.command(epilog="Examples:\n\n`python -m arena setup`\n\n`python -m arena setup --data /var/lib/arena`")
def setup(
    data: Annotated[Path | None, typer.Option(help="Folder for downloaded models (ARENA_DATA).")] = None,
) -> None:
    """Fetch the first models now: SmolLM2-135M, and the same weights stored in 8 bits. What is there is kept."""
    _engine("setup", data)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _check_free(host: str, port: int) -> None:
    """Raises SettingsError, with a remedy, where the engine could only fail later, with none."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        remedy = "give another --host or --port (0 picks a free one)"
        raise SettingsError(f"The engine cannot listen on {host}, port {port}: {reason}; {remedy}") from None


def _engine(command: str, data: Path | None, *options: str) -> NoReturn:
    """Run the engine's own command line in this process."""
    from arena.engine.__main__ import main as run_engine
    from arena.engine.process import orders
    from arena.settings import load

    raise typer.Exit(run_engine([command, *orders(load(**_given({"data": data}))), *options]))


def _built(settings: Settings) -> Guard:
    """The whole application. Gradio takes seconds to import, so this comes after the port is known to be free."""
    logging.getLogger(__name__).info("Ollama Arena %s is starting", __version__)
    from arena.app import create_app

    return create_app(settings)


@contextmanager
def _door(url: str | None) -> Iterator[Door]:
    """The arena to ask: the running one at `url`, or one in this process that lives as long as the command."""
    from arena.settings import load

    settings = load()
    if url is not None:
        from arena.cli.remote import RemoteArena

        yield RemoteArena(url, settings.token.get_secret_value() if settings.token else None)
        return
    from arena import log
    from arena.cli.doors import own_arena

    if "log_level" not in settings.model_fields_set:  # a terminal shows answers; what went wrong is told by errors
        settings = settings.model_copy(update={"log_level": "error"})
    log.configure(settings)
    with _bar() as show, own_arena(settings, show) as door:
        yield door


def _bar() -> DownloadBar | DownloadLines:
    from arena.cli.screen import download_view

    return download_view()


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Only the options that were typed: the others are left to the environment and the defaults."""
    return {name: value for name, value in options.items() if value is not None}
