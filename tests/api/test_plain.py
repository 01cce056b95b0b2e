"""The short way of reading a request gives what the careful way gives, or leaves it to the careful way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arena.api.body import decoded
from arena.api.plain import plain_requests
from arena.api.requests import Limits, asked, asked_in
from arena.errors import BadRequest

LIMITS = Limits(instances=3, history=4)
NUMBERS = st.one_of(
    st.none(),
    st.sampled_from(
        [0, 1, -1, 0.0, 0.01, 0.7, 2, 2.0, 2.01, 40, 40.0, 100, 101, 4096, 4097, 2**63 - 1, 2**63, "1", True, []]
    ),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**65), 2**65),
)
NAMES = st.sampled_from(
    ["a", "llama3.2:3b", "hf.co/x/y:Q4", "a b", "", ":x", "a\n", "é", "x" * 300, "a/b/c/d", "h:1/n/m:t"]
)
IDS = st.sampled_from(["a", "b", "c", "", "x" * 257, "tab\t", "日本"])
SETTINGS = ("temperature", "top_p", "top_k", "repeat_penalty", "num_predict", "seed", "num_ctx")
MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool", "x"]),
        "content": st.sampled_from(["", "hi", "日本"]),
    },
    optional={"thinking": st.just("hm"), "name": st.just("n")},
)
INSTANCES = st.fixed_dictionaries(
    {"id": IDS, "model": NAMES}, optional={**dict.fromkeys(SETTINGS, NUMBERS), "think": st.booleans(), "x": NUMBERS}
)
BODIES = st.fixed_dictionaries(
    {"history": st.lists(MESSAGES, max_size=5), "model_instances": st.lists(INSTANCES, max_size=4)},
    optional={"message": st.just("hi"), "order": st.just("together"), "stream": st.booleans()},
)


@given(BODIES)
@example({"history": [{"role": "user", "content": "hi"}], "model_instances": [{"id": "a", "model": "m", "seed": 0}]})
@example({"history": [{"role": "user", "content": "hi"}], "model_instances": [{"id": "a", "model": "m", "seed": 7}]})
@example(
    {"history": [{"role": "user", "content": "hi"}], "model_instances": [{"id": "a", "model": "m", "num_predict": 0}]}
)
@example(
    {"history": [{"role": "user", "content": "hi"}], "model_instances": [{"id": "a", "model": "m", "top_k": None}]}
)
def test_both_ways_agree(body: dict[str, Any]) -> None:
    text = json.dumps(body).encode()
    plain = plain_requests(text, LIMITS.instances, LIMITS.history)
    if plain is None:
        return
    careful = asked(decoded(text), LIMITS, [])
    assert careful == asked_in(text, LIMITS, list)
    assert careful.requests == plain


def test_the_documented_request_takes_the_short_way() -> None:
    settings = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "repeat_penalty": 1.1, "num_predict": -1, "seed": 42}
    body = {
        "history": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}],
        "model_instances": [{"id": "a", "model": "llama3.2:3b", **settings}],
    }
    assert plain_requests(json.dumps(body).encode(), 3, 4) is not None


def test_what_is_wrong_is_said_by_the_careful_way() -> None:
    for body in (b"{", b"[]", b'{"history":[],"model_instances":[]}', b"\xff"):
        assert plain_requests(body, 3, 4) is None
        with pytest.raises(BadRequest):
            asked_in(body, LIMITS, list)
