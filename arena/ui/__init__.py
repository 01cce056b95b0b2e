"""The page: the only place that knows Gradio, which is imported when the page is mounted and not before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from arena.arena import Arena

GRADIO_ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",  # no look-ups elsewhere at start
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000",  # else every finished event costs a summary of the last 10,000
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
}
"""What Gradio reads from the environment, some of it while it is imported."""


def mount_page(app: FastAPI, arena: Arena) -> FastAPI:
    """Mount the page at `/` of `app`, behind every route that `app` has by now."""
    os.environ.update(GRADIO_ENVIRONMENT)
    from arena.ui.page import mount

    return mount(app, arena)
