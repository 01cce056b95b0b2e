"""What runs out of sight of coverage, which doubles its time: the packages of others, and tests of measured lines.

So it is where the whole suite runs, in several processes; a few tests alone are measured as they are asked to be.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LARGE = (
    *("anthropic", "fastapi", "gradio", "langchain_ollama", "numpy"),
    *("ollama", "openai", "playwright.sync_api", "sqlalchemy", "typer"),
)
UNMEASURED = (
    *("tests/e2e", "tests/clients", "tests/durability", "tests/faults", "tests/store/test_durability.py"),
    *("tests/engine/test_smollm2.py", "tests/engine/test_as_openai.py", "tests/engine/test_words.py"),
    *("tests/engine/test_in_arena.py", "tests/proxy/test_with_engine.py", "tests/proxy/test_failover.py"),
    *("tests/api/test_faults.py", "tests/api/test_mutations.py", "tests/api/test_stream_chat.py"),
    *("tests/api/test_samples.py", "tests/test_routes.py", "tests/battle/test_leaks.py"),
    *("tests/store/test_caps.py", "tests/store/test_steps.py", "tests/test_simulate.py"),
    *("tests/ratings/test_style.py", "tests/ratings/test_tally.py"),
    *("tests/fake_ollama", "tests/test_fake_ollama.py", "tests/test_exchange.py", "tests/test_names.py"),
    *("tests/test_architecture.py", "tests/test_bench_counts.py", "tests/test_docs.py"),
)
"""What drives the arena as a whole, or the same lines again and again, which other tests measure; or none of it."""
_CHILDREN = "COVERAGE_PROCESS_CONFIG"  # by it, coverage begins in processes that we start
_WHOLE = "PYTEST_XDIST_WORKER" in os.environ


def measured(nodeid: str) -> bool:
    """Does the test count for coverage?"""
    return not (_WHOLE and nodeid.startswith(UNMEASURED))


@contextmanager
def untraced() -> Iterator[None]:
    """Nothing that runs or begins in the block is measured: not this thread, nor its threads and processes."""
    trace, of_threads, of_children = sys.gettrace(), threading.gettrace(), os.environ.pop(_CHILDREN, None)
    sys.settrace(None)
    threading.settrace(None)
    try:
        yield
    finally:
        if of_children is not None:
            os.environ[_CHILDREN] = of_children
        threading.settrace(of_threads)
        sys.settrace(trace)


if _WHOLE:
    with untraced():
        for _name in LARGE:
            importlib.import_module(_name)
