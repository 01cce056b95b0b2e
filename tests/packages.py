"""The large packages of others come first, out of sight of coverage, which doubles their time.

So it is where the whole suite runs, in several processes; a few tests alone do not need most of them.
"""

from __future__ import annotations

import importlib
import os
import sys

LARGE = (
    *("anthropic", "fastapi", "gradio", "langchain_ollama", "numpy"),
    *("ollama", "openai", "playwright.sync_api", "sqlalchemy", "typer"),
)

if "PYTEST_XDIST_WORKER" in os.environ:
    _trace = sys.gettrace()
    sys.settrace(None)
    try:
        for _name in LARGE:
            importlib.import_module(_name)
    finally:
        sys.settrace(_trace)
