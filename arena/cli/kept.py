"""The commands about presets and conversations that visitors keep: who keeps how much, and away with single ones."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from arena.cli.store import Data, chosen, existing
from arena.cli.usage import WrongUsage

app = typer.Typer(
    name="kept",
    help="""Presets and conversations that visitors keep: list them, without what is in them, and delete them.

Whoever keeps them is named by a pseudonym, as voters are; so is the network of browsers without a key.""",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

PIPE_CHARACTERS: Final = 400
"""How wide the list may be where no terminal wraps it: each thing has a line of its own."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command(
    "list",
    epilog="Examples:\n\n`python -m arena kept list`\n\n`python -m arena kept list 4f0c6a1be29d4c0c --json`",
)
def list_kept(
    whose: Annotated[str, typer.Argument(metavar="[OWNER]", help="Only of this owner, or of this network.")] = "",
    as_json: Json = False,
    data: Data = None,
) -> None:
    """List what is kept, the latest first: whose it is, when it was saved, its size and title."""
    from arena.store.shelf import listed

    with existing(chosen(data)) as store:
        found = listed(store, whose)
    if as_json:
        import msgspec

        print(msgspec.json.encode(found).decode())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in ("owner", "network", "kind", "saved", "characters", "id", "title"):
        table.add_column(heading, overflow="fold")  # whole names: they are what `delete` takes
    for each in found:
        told = (each.owner, each.network, each.kind, each.at[:16], f"{each.characters:,}", each.id, each.title)
        table.add_row(*(Text(str(cell)) for cell in told))  # what is damaged may be no text
    terminal = Console()
    (terminal if terminal.is_terminal else Console(width=PIPE_CHARACTERS)).print(table)


@app.command(
    epilog="Examples:\n\n`python -m arena kept delete 4f0c6a1be29d4c0c 'My columns'`\n\n"
    "`python -m arena kept delete 4f0c6a1be29d4c0c --all`"
)
def delete(
    whose: Annotated[
        str, typer.Argument(metavar="OWNER", help="An owner or a network, as the list names it.", show_default=False)
    ],
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="What to delete.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that the owner keeps, or the network.")] = False,
    data: Data = None,
) -> None:
    """Delete some of what an owner or a network keeps, or all of it, also while the server runs."""
    from arena.errors import NotFound
    from arena.store.shelf import remove

    if bool(ids) == everything or not whose:
        raise WrongUsage("Give the ids of what to delete, or --all, after the owner")
    with existing(chosen(data)) as store:
        count = remove(store, whose, ids or ())
    if not count:
        raise NotFound(f"Nothing like that is kept by {whose}: see `kept list`")
    print(f"Deleted {count} of what {whose} kept.")
