"""Houses with a token and without one."""

from __future__ import annotations

import pytest

from tests.guarded import TOKEN, House


@pytest.fixture
def locked() -> House:
    """A house with a token."""
    return House(token=TOKEN)


@pytest.fixture
def unlocked() -> House:
    """A house without a token, on loopback."""
    return House()
