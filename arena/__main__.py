"""`python -m arena`: the command line."""

from __future__ import annotations

from arena.cli import main

if __name__ == "__main__":
    main(program="python -m arena")
