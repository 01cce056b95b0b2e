"""Every test of the push client runs on both event loops."""

from __future__ import annotations

from typing import Any

import pytest

from tests.peer import LOOPS


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Both event loops: their transports differ where it hurts."""
    return request.param
