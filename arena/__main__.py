"""`python -m arena`: the command line."""

from __future__ import annotations

import sys
from typing import NoReturn


def start(program: str) -> NoReturn:
    """Run the command line; a Python that lacks its packages is told where they are."""
    try:
        from arena.cli import main
    except ModuleNotFoundError as missing:
        sys.exit(
            f"error: this Python has no {missing.name}: use the one that `make run` sets up (.venv/bin/python), "
            "or install requirements.txt"
        )
    main(program=program)


if __name__ == "__main__":
    start("python -m arena")
