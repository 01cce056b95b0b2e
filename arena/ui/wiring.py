"""How the page's listeners are wired: the same few properties for each of them."""

from __future__ import annotations

from typing import Any

QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "show_progress_on": [],
    "api_visibility": "private",
    "concurrency_limit": None,
}
"""For a handler that answers at once."""

TALK: dict[str, Any] = {**QUICK, "queue": True}
"""For a handler that may have a word for the user: Gradio's messages reach the page through its queue only."""

STREAM: dict[str, Any] = {
    "show_progress": "hidden",
    "show_progress_on": [],  # else the browser works through every output at each frame: a third of its time
    "api_visibility": "private",
    "concurrency_limit": None,
}
"""For a handler that streams. The fleet limits the models; the page's queue limits nothing."""
