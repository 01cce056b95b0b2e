"""The models that `pull` knows by a short name."""

from __future__ import annotations

import pytest

from arena.engine.library import LIBRARY, wanted
from arena.errors import NotFound
from arena.names import checked


def test_names_are_legal_and_sources_whole() -> None:
    for name, source in LIBRARY.items():
        assert checked(name) == name == name.lower()
        assert source.size_bytes > 10**7
        assert wanted(name.upper()).source is source


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("smollm2", "smollm2:135m"),
        ("qwen3:latest", "qwen3:0.6b"),
        ("hf.co/A/B", "hf.co/a/b:q4_k_m"),
        ("huggingface.co/A/B:Q8_0", "hf.co/a/b:q8_0"),
    ],
)
def test_short_names(name: str, listed: str) -> None:
    assert wanted(name).name == listed


@pytest.mark.parametrize("name", ["llama3", "hf.co/a", "example.com/a/b"])
def test_unknown(name: str) -> None:
    with pytest.raises(NotFound):
        wanted(name)
