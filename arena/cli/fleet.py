"""The commands about the fleet file: check looks at every host, import translates an Olla configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from arena.fleet.check import Looked

app = typer.Typer(
    name="fleet",
    help="The fleet of servers: check its file and its hosts, or import it from Olla (docs/fleet.md).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

EXIT_FAILED = 1


@app.command(
    epilog="""Examples:

`python -m arena fleet check fleet.yaml`

`python -m arena fleet check --json` &nbsp; what ARENA_FLEET, ARENA_DATA or ARENA_ENDPOINTS name"""
)
def check(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="The fleet file. Default: the fleet that `serve` would use.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Load the fleet and ask every host: is it there, what is it, which models has it, what is in memory.

    Exits with 1 if a host is down or of another type, with 2 if the file is wrong.
    """
    import msgspec

    from arena.fleet.check import look, missed
    from arena.fleet.config import fleet_spec
    from arena.fleet.spec import EndpointSpec
    from arena.settings import OLLAMA_DEFAULT, load

    settings = load(fleet=file) if file is not None else load()
    spec = fleet_spec(settings)
    looked = asyncio.run(look(spec.endpoints or (EndpointSpec(name="ollama", url=OLLAMA_DEFAULT),)))
    aliases = missed(spec, looked)
    if as_json:
        print(msgspec.json.encode({"endpoints": looked, "aliases_without_model": aliases}).decode())
    else:
        from rich.console import Console

        from arena.cli.screen import printable

        console = Console()
        console.print(_table(looked))
        notes = _notes(looked, aliases)
        if not spec.endpoints and settings.engine != "off" and not looked[0].ok:
            notes.append("No server is named and no Ollama answers: `serve` starts the embedded engine.")
        for note in notes:
            console.print(printable(note), markup=False, highlight=False, soft_wrap=True)
    if not all(host.ok for host in looked):
        raise typer.Exit(EXIT_FAILED)


@app.command("import", epilog="Examples:\n\n`python -m arena fleet import olla.yaml > fleet.yaml`")
def import_olla(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A configuration of Olla (olla.yaml).", show_default=False)
    ],
) -> None:
    """Print the fleet file that does what an Olla configuration did; what has no place in it is told in comments.

    Secrets that are written in the Olla file are not printed: each becomes a variable, and a comment says which.
    """
    from arena.fleet.document import read
    from arena.fleet.olla import fleet_file

    print(fleet_file(read(file)), end="")


def _table(looked: Iterable[Looked]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from arena.cli.screen import printable

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("endpoint", "type", "state", "version", "models", "in memory", "round trip"):
        table.add_column(heading, justify="right" if heading in ("models", "round trip") else "left")
    for host in looked:
        cells = (
            host.name,
            host.type,
            "ok" if host.ok else "failed",
            host.version or "-",
            str(len(host.models)) if host.ok else "-",
            ", ".join(host.loaded) or "-",
            "-" if host.round_trip_ms is None else f"{host.round_trip_ms:.1f} ms",
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _notes(looked: Iterable[Looked], aliases: Iterable[str]) -> list[str]:
    """What there is to say beside the table."""
    notes = [
        f"{host.name}: {'; '.join(filter(None, (host.error, host.remedy)))}"
        for host in looked
        if host.error or host.remedy
    ]
    return notes + [f"alias {alias}: no host has any of its models" for alias in aliases]
