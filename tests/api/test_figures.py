"""Figures as people read them."""

from __future__ import annotations

import pytest

from arena.api import figures


@pytest.mark.parametrize(
    ("size", "count"), [("3.2B", 3_200_000_000), ("134.52M", 134_520_000), ("", 0), ("big", 0), ("xB", 0)]
)
def test_a_models_size_as_a_number(size: str, count: int) -> None:
    assert figures.quantity(size) == count


def test_a_moment_that_is_none() -> None:
    assert figures.unix_seconds("") == 0


def test_words_for_figures() -> None:
    assert [figures.size(count) for count in (0, 1023, 25_334, 3 * 2**40)] == ["0 B", "1023 B", "24.74 KB", "3.00 TB"]
    assert (figures.share(0.695), figures.share(None)) == ("69.5%", "N/A")
    assert (figures.latency(0.0142), figures.latency(None)) == ("14ms", "N/A")
    assert [figures.span(seconds) for seconds in (0, 65, 3600, 90061)] == ["0s", "1m 5s", "1h", "1d 1h"]
    assert (figures.ago(6.2), figures.ago(None)) == ("6s ago", "never")
    assert figures.seen_at([None]) == ""
