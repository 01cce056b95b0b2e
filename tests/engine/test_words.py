"""Durations, options and bodies: small rules, each as Ollama has it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from types import SimpleNamespace as Given
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.engine import options
from arena.engine.__main__ import main
from arena.engine.calls import Call, ChatBody, GenerateBody, Message, chat_call, check_images, generate_call
from arena.engine.config import check_host
from arena.engine.durations import FOREVER_S, from_now, parse_duration, rfc3339
from arena.engine.runner import Orders, serve
from arena.errors import ArenaError, BadRequest


class TestDurations:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (0, 0), (30, 30), (0.5, 0.5), ("0", 0), ("10s", 10), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400),
            ("100ms", 0.1), ("2us", 2e-6), ("3µs", 3e-6), ("7ns", 7e-9), ("+2s", 2), ("-0", 0),
            (-1, FOREVER_S), ("-1m", FOREVER_S), (-0.1, FOREVER_S), (10**30, FOREVER_S), ("99999999999h", FOREVER_S),
        ],
    )  # fmt: skip
    def test_value(self, value: Any, seconds: float) -> None:
        assert parse_duration(value) == pytest.approx(seconds)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("-1", "missing unit"), ("5", "missing unit"), ("", "invalid duration"), ("5 m", "invalid duration"),
            ("m", "invalid duration"), ("--5m", "invalid duration"), ("5m" * 40, "invalid duration"),
            (True, "keep_alive"), ([], "keep_alive"), (float("inf"), "finite"), (float("nan"), "finite"),
        ],
    )  # fmt: skip
    def test_refused(self, value: Any, text: str) -> None:
        with pytest.raises(BadRequest, match=text):
            parse_duration(value)

    def test_moments(self) -> None:
        assert rfc3339(datetime(2026, 1, 2, 3, 4, 5, 6, UTC)) == "2026-01-02T03:04:05.000006Z"
        assert datetime.fromisoformat(from_now(10**7)) > datetime.now(UTC)


class TestOptions:
    def test_nothing_unknown_reaches_llama(self) -> None:
        sent = options.sampling(options.checked({"n_discard": -1, "grammar": "root ::= x", "lora": []}), 512)
        assert set(sent) == set(options.sampling({}, 512))

    def test_floats_are_cut_for_whole_numbers_and_null_is_nothing(self) -> None:
        assert options.checked({"num_predict": 2.7, "top_k": None}) == {"num_predict": 2}

    def test_lists_and_truths_pass_as_they_are(self) -> None:
        assert options.checked({"stop": ["x"], "use_mmap": False}) == {"stop": ["x"], "use_mmap": False}

    @pytest.mark.parametrize(
        ("seed", "sent"),
        [
            (0, 0),
            (42, 42),
            (-1, 0xFFFFFFFF),
            (-7, 0xFFFFFFF9),
            (2**32 - 1, 0xFFFFFFFF),
            (2**63 - 2, 0xFFFFFFFE),
            (3.9, 3),
        ],
    )
    def test_seed(self, seed: float, sent: int) -> None:
        assert options.sampling(options.checked({"seed": seed}), 512)["seed"] == sent

    @pytest.mark.parametrize(("asked", "sent"), [(5, 5), (-1, 5120), (-2, 5120), (0, 5120), (10**6, 5120)])
    def test_num_predict_is_bounded_by_ten_contexts(self, asked: int, sent: int) -> None:
        assert options.sampling({"num_predict": asked}, 512)["n_predict"] == sent

    def test_values_llama_could_stumble_on_are_bent(self) -> None:
        sent = options.sampling({"temperature": -3.0, "top_k": -1, "num_keep": 10**6, "repeat_last_n": -1}, 512)
        assert (sent["temperature"], sent["top_k"], sent["n_keep"], sent["repeat_last_n"]) == (0, 0, 512, 512)
        assert options.sampling({"repeat_last_n": 10**6}, 512)["repeat_last_n"] == 512

    @pytest.mark.parametrize(
        "bad",
        [{"stop": ["x"] * 65}, {"stop": ["x" * 1025]}, {"temperature": 1e9}, {"num_ctx": -1}, {"min_p": -1}],
    )
    def test_out_of_range(self, bad: dict[str, Any]) -> None:
        with pytest.raises(BadRequest):
            options.checked(bad)

    @pytest.mark.parametrize("bad", [{"use_mmap": 1}, {"top_k": "x"}, {"seed": True}, {"stop": {}}, {"stop": [None]}])
    def test_wrong_type_is_ollamas_500(self, bad: dict[str, Any]) -> None:
        with pytest.raises(ArenaError, match="must be of") as caught:
            options.checked(bad)
        assert caught.value.status == 500

    @given(st.dictionaries(st.sampled_from(sorted(options.RULES)), st.none() | st.integers() | st.floats() | st.text()))
    def test_whatever_passes_is_in_range(self, given_options: dict[str, Any]) -> None:
        try:
            checked = options.checked(given_options)
        except ArenaError:
            return
        for name, value in checked.items():
            rule = options.RULES[name]
            if rule.kind in ("integer", "float32"):
                assert rule.low <= value <= rule.high

    def test_loading(self) -> None:
        def load(asked: dict[str, Any], trained: int | None = 2048) -> options.Loading:
            return options.loading(asked, default_context=4096, trained_context=trained, threads=2, shift=True)

        assert load({}).context == 2048
        assert load({}, None).context == 4096
        assert load({"num_ctx": 100}).context == 100
        assert load({"num_ctx": 1, "num_batch": 1}) == load({"num_ctx": 4, "num_batch": 4})
        assert load({}, 1).context == 4, "a model may claim anything"
        assert [load({"num_thread": n}).threads for n in (0, 1, 64)] == [2, 1, 2]
        assert (load({"num_batch": 9000}).batch, load({"num_gpu": 0}).gpu_layers) == (2048, 0)


class TestCalls:
    def test_generate_becomes_a_chat(self) -> None:
        call = generate_call(GenerateBody(model="m", prompt="p", system="s"))
        assert [(message.role, message.content) for message in call.messages] == [("system", "s"), ("user", "p")]

    def test_picture_alone_is_a_question(self) -> None:
        assert generate_call(GenerateBody(model="m", images=["AAAA"])).has_images

    def test_raw_without_prompt_is_a_load(self) -> None:
        assert generate_call(GenerateBody(model="m", raw=True)).empty

    def test_too_many_messages(self) -> None:
        with pytest.raises(BadRequest, match="at most"):
            chat_call(ChatBody(model="m", messages=[Message("user", "x")] * 10_001))

    @pytest.mark.parametrize("level", [True, False, "low", "medium", "high", "max"])
    def test_think(self, level: Any) -> None:
        assert chat_call(ChatBody(model="m", think=level)).think == level

    def test_empty_format_is_none(self) -> None:
        assert chat_call(ChatBody(model="m", format="")).format is None

    def test_top_logprobs_need_logprobs(self) -> None:
        assert chat_call(ChatBody(model="m", top_logprobs=3)).top_logprobs is None
        assert chat_call(ChatBody(model="m", logprobs=True)).top_logprobs == 0

    def test_bad_base64_names_the_place(self) -> None:
        with pytest.raises(BadRequest, match="at input byte 4"):
            check_images(["AAAA,"])
        with pytest.raises(BadRequest, match="illegal base64"):
            check_images(["data:image/png;base64,AAAA"])

    def test_nothing_asked(self) -> None:
        assert Call(model="m").empty
        assert not Call(model="m", prompt="x").empty


class TestOrders:
    @pytest.mark.parametrize(
        ("more", "pooling", "projector"),
        [
            ({}, "pooling 1", None),
            ({"pooling": 2}, None, None),
            ({"embedding_only": True}, None, None),
            ({"projector": "eye.gguf"}, "pooling 1", "eye.gguf"),
        ],
    )
    def test_what_llama_is_told(
        self, more: dict[str, Any], pooling: str | None, projector: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def params() -> Given:
            parts = {name: Given() for name in ("model", "cpuparams", "cpuparams_batch")}
            return Given(**parts, mmproj=Given(path=None), pooling_type=None)

        llama = Given(CommonParams=params, llama_pooling_type="pooling {}".format, Server=lambda params: params)
        monkeypatch.setitem(sys.modules, "xllamacpp", llama)
        told = serve(Orders("m.gguf", "m", "key", context=100, slots=3, **more))
        assert (told.model.path, told.n_ctx, told.n_threads_http, told.api_keys) == ("m.gguf", 300, 7, ["key"])
        assert (told.pooling_type, told.mmproj.path) == (pooling, projector)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "::ffff:127.0.0.1", "example.org"])
def test_an_address_that_others_reach_is_refused(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever is asked by name only would believe anybody who says that name."""
    assert main(["--host", host, "--port", "0"]) == 2
    assert f"cannot listen on {host!r} (--host)" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_an_address_of_this_machine_alone_is_taken(host: str) -> None:
    check_host(host)
