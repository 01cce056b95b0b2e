"""Where coverage is measured, the large packages of others come first, out of its sight: it doubles their time."""

from __future__ import annotations

import importlib
import sys

LARGE = (
    *("anthropic", "fastapi", "gradio", "langchain_ollama", "numpy"),
    *("ollama", "openai", "playwright.sync_api", "sqlalchemy", "typer"),
)

if (_trace := sys.gettrace()) is not None:
    sys.settrace(None)
    try:
        for _name in LARGE:
            importlib.import_module(_name)
    finally:
        sys.settrace(_trace)
