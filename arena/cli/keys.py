"""The commands about named keys: add, list, show, remove. They change the file; a running server notices by itself."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arena.cli.usage import typed

if TYPE_CHECKING:
    from rich.table import Table

    from arena.keys import Key, Use

app = typer.Typer(
    name="keys",
    help="""Named keys: who may use the arena for what, and how much. A server that has keys asks everybody for one.

A key goes where the token goes: `Authorization: Bearer KEY`, or `x-api-key: KEY`.""",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Data = Annotated[Path | None, typer.Option(help="Folder that holds keys.json (ARENA_DATA).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.", show_default=False)]


@app.command(
    epilog="""Examples:

`python -m arena keys add alice`

`python -m arena keys add notebook --scope chat --scope embed --model 'llama*' --per-minute 60`

`python -m arena keys add batch --tokens-per-day 100000 --concurrent 4`"""
)
def add(
    name: Name,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="chat, embed, manage or admin; may be given several times. Default: chat."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model, or a pattern such as 'llama*'; may be given several times. Default: all."),
    ] = None,
    per_minute: Annotated[int | None, typer.Option(min=1, help="Requests a minute.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Tokens a minute, prompts included.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="Tokens a day (UTC), prompts included.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Answers at a time.")] = None,
    data: Data = None,
) -> None:
    """Make a key and print it, once: only its digest is kept."""
    from arena import keys

    wanted = dict.fromkeys(scope or ["chat"])
    scopes = tuple(known for known in keys.SCOPES if known in wanted)
    if unknown := [word for word in wanted if word not in keys.SCOPES]:
        raise typer.BadParameter(f"{unknown[0]} is no scope; known are {', '.join(keys.SCOPES)}", param_hint="--scope")
    with typed():
        secret = keys.add(
            _path(data),
            name,
            scopes=scopes,
            models=tuple(model) if model else None,
            per_minute=per_minute,
            tokens_per_minute=tokens_per_minute,
            tokens_per_day=tokens_per_day,
            concurrent=concurrent,
        )
    print(secret)
    typer.echo(f"This is the key of {name}. It is shown this once: keep it now.", err=True)


@app.command(
    "list",
    epilog="Examples:\n\n`python -m arena keys list`\n\n`python -m arena keys list --json --data /var/lib/arena`",
)
def list_keys(as_json: Json = False, data: Data = None) -> None:
    """List the keys: what each may do, and what it has used."""
    from arena import keys

    path = _path(data)
    found, use = keys.read(path), keys.read_use(path)
    if as_json:
        _print_json([_described(key, use.get(key.digest)) for key in found])
    elif not found:
        print("There are no keys. Make one: keys add NAME")
    else:
        from rich.console import Console

        Console().print(_table(found, use))


@app.command(epilog="Examples:\n\n`python -m arena keys show alice`\n\n`python -m arena keys show alice --json`")
def show(name: Name, as_json: Json = False, data: Data = None) -> None:
    """Show one key: what it may do, and what it has used, by model."""
    from arena import keys
    from arena.errors import NotFound

    path = _path(data)
    key = next((key for key in keys.read(path) if key.name == name), None)
    if key is None:
        raise NotFound(f"No key is called {name}.")
    described = _described(key, keys.read_use(path).get(key.digest))
    if as_json:
        _print_json(described)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for field, value in described.items():
        if isinstance(value, dict):
            value = ", ".join(
                f"{model} (answers: {of['answers']}, tokens: {of['tokens']})" for model, of in value.items()
            )
        elif isinstance(value, list | tuple):
            value = ", ".join(value)
        table.add_row(field.replace("_", " "), Text("-" if value in (None, "") else str(value)))
    Console().print(table)


@app.command(epilog="Examples:\n\n`python -m arena keys remove alice`")
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="One or more keys.", show_default=False)],
    data: Data = None,
) -> None:
    """Remove keys. A running server refuses them within a second; answers under way are let end."""
    from arena import keys

    for name in names:
        keys.remove(_path(data), name)
        print(f"Removed {name}.")


def _path(data: Path | None) -> Path:
    """The file of keys in the folder that was named, or that the settings name."""
    from arena.keys import FILE
    from arena.settings import load

    return (load().data if data is None else data) / FILE


def _described(key: Key, use: Use | None) -> dict[str, object]:
    """All there is to tell of a key, but for its digest."""
    from arena.keys import Use, tokens_of_day

    use = use or Use()
    return {
        "name": key.name,
        "scopes": key.scopes,
        "models": key.models,
        "per_minute": key.per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "tokens_per_day": key.tokens_per_day,
        "concurrent": key.concurrent,
        "created": key.created,
        "last_used": _moment(use.last_s),
        "requests": use.requests,
        "refused": use.refused,
        "tokens": use.tokens,
        "tokens_today": tokens_of_day(use, time.time()),
        "used_models": {model: {"answers": of.answers, "tokens": of.tokens} for model, of in use.models.items()},
        "used_hosts": {host: {"answers": of.answers, "tokens": of.tokens} for host, of in use.hosts.items()},
    }


def _table(found: tuple[Key, ...], use: dict[str, Use]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("name", "scopes", "models", "limits", "requests", "tokens today", "last used")
    for key in found:
        told = _described(key, use.get(key.digest))
        limits = [
            f"{limit} {words}"
            for limit, words in (
                (key.per_minute, "requests/min"),
                (key.tokens_per_minute, "tokens/min"),
                (key.tokens_per_day, "tokens/day"),
                (key.concurrent, "at a time"),
            )
            if limit is not None
        ]
        table.add_row(
            key.name,
            ", ".join(key.scopes),
            Text("all" if key.models is None else "\n".join(key.models)),
            "\n".join(limits) or "none",
            str(told["requests"]),
            str(told["tokens_today"]),
            str(told["last_used"] or "never"),
        )
    return table


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _print_json(value: object) -> None:
    import msgspec

    print(msgspec.json.encode(value).decode())
