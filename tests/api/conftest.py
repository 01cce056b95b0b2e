"""The API over a fake Ollama, called in the test's own loop; without the page, which takes seconds to import."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from arena.app import create_app
from arena.settings import Settings
from tests.api.asgi import App, Client, started
from tests.fake_ollama import FakeOllama
from tests.tracing import untraced

HELLO = [{"role": "user", "content": "Hello!"}]


def settings_for(*urls: str, **changes: Any) -> Settings:
    """Settings with these endpoints and no engine."""
    values: dict[str, Any] = {"endpoints": urls, "engine": "off", "connect_timeout_s": 2, **changes}
    with untraced():
        return Settings(**values)


def create_api(settings: Settings) -> App:
    """The whole application but the page, put together unmeasured, which is half of a small test."""
    with untraced():
        return create_app(settings, page=False)


@pytest.fixture
async def api(fake: FakeOllama) -> AsyncIterator[Client]:
    """A started API on one fake Ollama."""
    async with started(create_api(settings_for(fake.url))) as client:
        yield client
