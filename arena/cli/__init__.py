"""The command line: serve, models, chat, pull, engine, setup, version. Commands import what they need when they run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from arena import __version__
from arena.errors import ArenaError, SettingsError

HELP = f"""Ollama Arena {__version__}: compare language models side by side.

Without a command the arena is served on http://127.0.0.1:7860: `serve` is the default, and takes its options too.
Every setting is an environment variable as well (see .env.example); an option wins over the variable."""

NOT_FOR_SERVE = ("--help", "-h", "--version", "--install-completion", "--show-completion")
EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = 1, 2, 130

app = typer.Typer(
    help=HELP,
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None, *, program: str = "python -m arena") -> NoReturn:
    """Run the command line; exits with 0, 1 (failed), 2 (wrong usage or setting) or 130 (Ctrl-C)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in NOT_FOR_SERVE):
        words = ["serve", *words]
    try:
        app(words, prog_name=program)
    except ArenaError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.details:
            print(f"       {error.details}", file=sys.stderr)
        sys.exit(EXIT_USAGE if isinstance(error, SettingsError) else EXIT_FAILED)
    sys.exit(0)


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if show_version:
        print(__version__)
        raise typer.Exit


@app.command(
    epilog="""Examples:

`serve` &nbsp; on this machine only, port 7860

`serve --port 8000 --endpoints http://gpu1:11434,http://gpu2:11434`

`WEB_CHAT_TOKEN=secret serve --host 0.0.0.0` &nbsp; for your network"""
)
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (ARENA_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one (ARENA_PORT).")] = None,
    endpoints: Annotated[
        str | None, typer.Option(help="Ollama servers, separated by commas: url or name=url (ARENA_ENDPOINTS).")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="The embedded engine: auto, on or off (ARENA_ENGINE).")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder for downloaded models (ARENA_DATA).")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error (ARENA_LOG_LEVEL).")] = None,
) -> None:
    """Serve the page and the API (the default command). Ctrl-C stops it and every answer under way."""
    from arena.settings import load

    chosen = {
        "host": host,
        "port": port,
        "endpoints": endpoints,
        "engine": engine,
        "data": data,
        "log_level": log_level,
    }
    settings = load(**_given(chosen))
    settings.check_bind()

    from arena.server import serve as serve_arena

    serve_arena(settings)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Only the options that were typed: the others are left to the environment and the defaults."""
    return {name: value for name, value in options.items() if value is not None}
