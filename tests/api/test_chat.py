"""POST /api/chat: both generations, row by row of the contract."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.api.asgi import Client, started
from tests.api.conftest import HELLO, create_api, settings_for
from tests.fake_ollama import FakeOllama, text_said_by

pytestmark = pytest.mark.anyio

FLAT = {"model", "instance_id", "response", "assistant", "metrics", "error", "errors", "history_truncated"}
ENTRY = {"model", "instance_id", "response", "assistant", "metrics", "error"}


def instances(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"history": HELLO, "model_instances": list(items), **more}


def legacy(*names: str, **more: Any) -> dict[str, Any]:
    return {"history": HELLO, "models": list(names), **more}


# shape


async def test_one_legacy_name_gives_a_flat_answer(api: Client) -> None:
    answer = await api.post("/api/chat", legacy("llama3.2:3b"))
    body = answer.json()
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert set(body) >= FLAT
    assert body["model"] == body["instance_id"] == "llama3.2:3b"
    assert body["response"] == body["assistant"] == text_said_by("llama3.2:3b")
    assert body["error"] is None
    assert body["errors"] == {}
    assert body["history_truncated"] is False


async def test_one_instance_gives_a_flat_answer_with_its_id(api: Client) -> None:
    body = (await api.post("/api/chat", instances({"id": "left", "model": "llama3.2:3b"}))).json()
    assert set(body) >= FLAT
    assert (body["instance_id"], body["model"]) == ("left", "llama3.2:3b")


async def test_two_legacy_names_give_results_keyed_by_name(api: Client) -> None:
    body = (await api.post("/api/chat", legacy("llama3.2:3b", "qwen2.5:3b"))).json()
    assert list(body["results"]) == ["llama3.2:3b", "qwen2.5:3b"]
    for name, entry in body["results"].items():
        assert set(entry) >= ENTRY
        assert entry["model"] == entry["instance_id"] == name
        assert entry["error"] is None
        assert entry["response"] == text_said_by(name)
    assert body["errors"] == {}


async def test_two_instances_of_one_model_give_two_entries_keyed_by_id(api: Client) -> None:
    cold, warm = ({"id": i, "model": "llama3.2:3b", "temperature": t} for i, t in (("cold", 0.1), ("warm", 1.5)))
    body = (await api.post("/api/chat", instances(cold, warm))).json()
    assert list(body["results"]) == ["cold", "warm"]
    assert [entry["options_sent"]["temperature"] for entry in body["results"].values()] == [0.1, 1.5]


async def test_a_failure_of_several_stands_in_its_entry_and_in_errors(api: Client) -> None:
    answer = await api.post("/api/chat", legacy("llama3.2:3b", "no-such-model"))
    body = answer.json()
    assert answer.status == 200
    failed = body["results"]["no-such-model"]
    assert body["errors"] == {"no-such-model": failed["error"]}
    assert "not found" in failed["error"]
    assert failed["error_code"] == "model_not_found"
    assert failed["response"] == ""
    assert failed["metrics"]["tokens"] == 0
    assert body["results"]["llama3.2:3b"]["error"] is None


async def test_several_failures_are_still_200(api: Client) -> None:
    answer = await api.post("/api/chat", legacy("missing-a", "missing-b"))
    assert answer.status == 200
    assert set(answer.json()["errors"]) == {"missing-a", "missing-b"}


async def test_what_was_said_before_a_failure_is_kept(api: Client) -> None:
    body = (await api.post("/api/chat", legacy("fx-errline:at-2", "tiny"))).json()
    said = body["results"]["fx-errline:at-2"]["response"]
    assert said
    assert text_said_by("fx-errline:at-2").startswith(said)


async def test_a_single_failure_is_the_documented_500(api: Client) -> None:
    answer = await api.post("/api/chat", legacy("no-such-model"))
    body = answer.json()
    assert answer.status == 500
    assert body["error"] == "An unexpected error occurred"
    assert "no-such-model" in body["details"]
    assert body["code"] == "model_not_found"


async def test_ollama_down_is_the_documented_500() -> None:
    async with FakeOllama() as fake:
        url = fake.url
    async with started(create_api(settings_for(url))) as api:
        answer = await api.post("/api/chat", legacy("llama3.2:3b"))
    assert answer.status == 500
    assert answer.json()["error"] == "An unexpected error occurred"
    assert answer.json()["code"] == "backend_unreachable"
    assert "is not reachable: connection refused" in answer.json()["details"]


async def test_stream_true_is_ignored(api: Client) -> None:
    answer = await api.post("/api/chat", legacy("llama3.2:3b", stream=True))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["response"]


async def test_instances_win_over_models(api: Client) -> None:
    body = (await api.post("/api/chat", instances({"id": "a", "model": "qwen2.5:3b"}, models=["llama3.2:3b"]))).json()
    assert body["model"] == "qwen2.5:3b"


async def test_an_empty_list_of_instances_falls_back_to_models(api: Client) -> None:
    body = (await api.post("/api/chat", {"history": HELLO, "model_instances": [], "models": ["llama3.2:3b"]})).json()
    assert body["model"] == "llama3.2:3b"


async def test_repeated_legacy_names_run_once_and_keep_their_shape(api: Client, fake: FakeOllama) -> None:
    answer = await api.post("/api/chat", legacy("tiny", "llama3.2:3b", "tiny:latest", "tiny"))
    assert answer.status == 200
    assert list(answer.json()["results"]) == ["tiny", "llama3.2:3b"]
    assert len(chats(fake)) == 2


async def test_one_name_twice_is_a_map_of_one(api: Client) -> None:
    body = (await api.post("/api/chat", legacy("llama3.2:3b", "llama3.2:3b"))).json()
    assert list(body["results"]) == ["llama3.2:3b"]


async def test_equal_settings_under_different_ids_are_allowed(api: Client, fake: FakeOllama) -> None:
    same = {"model": "llama3.2:3b", "seed": 7}
    body = (await api.post("/api/chat", instances({"id": "a", **same}, {"id": "b", **same}))).json()
    assert list(body["results"]) == ["a", "b"]
    assert len(chats(fake)) == 2


# ids


@pytest.mark.parametrize("name", ["x", "llama3_2_3b__0.7_0.9_40_1.1_-1_0", "模型 🙂", '"quoted" <b>', "x" * 256])
async def test_ids_are_echoed_unchanged(api: Client, name: str) -> None:
    body = (
        await api.post("/api/chat", instances({"id": name, "model": "tiny"}, {"id": "other", "model": "tiny"}))
    ).json()
    assert body["results"][name]["instance_id"] == name


async def test_missing_ids_are_made_in_the_documented_form(api: Client) -> None:
    given = (
        {"model": "llama3.2:3b"},
        {
            "model": "llama3.2:3b",
            "temperature": 1.0,
            "top_p": 1,
            "seed": 42,
            "num_predict": 500,
            "repeat_penalty": None,
        },
    )
    body = (await api.post("/api/chat", instances(*given))).json()
    assert list(body["results"]) == [
        "llama3_2_3b__0.7_0.9_40_1.1_-1_0",
        "llama3_2_3b__1_1_40_default_500_42",
    ]


async def test_made_ids_that_collide_are_numbered_and_never_refused(api: Client) -> None:
    taken = "a_b__0.7_0.9_40_1.1_-1_0"
    items = ({"model": "a.b"}, {"model": "a-b"}, {"id": taken, "model": "tiny"}, {"model": "a-b"})
    answer = await api.post("/api/chat", instances(*items))
    assert answer.status == 200
    assert list(answer.json()["results"]) == [f"{taken}-2", f"{taken}-3", taken, f"{taken}-4"]


async def test_an_instance_without_a_model_takes_its_id_for_one(api: Client) -> None:
    body = (await api.post("/api/chat", instances({"id": "llama3.2:3b"}))).json()
    assert body["model"] == "llama3.2:3b"


# options


def chats(fake: FakeOllama) -> list[dict[str, Any]]:
    return [record.body for record in fake.log if record.path == "/api/chat"]


async def test_legacy_models_send_no_options(api: Client, fake: FakeOllama) -> None:
    await api.post("/api/chat", legacy("llama3.2:3b", temperature=1.5))
    assert "options" not in chats(fake)[0]


async def test_missing_fields_get_the_documented_defaults_and_seed_0_is_not_sent(api: Client, fake: FakeOllama) -> None:
    await api.post("/api/chat", instances({"id": "a", "model": "tiny", "seed": 0}))
    assert chats(fake)[0]["options"] == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "repeat_penalty": 1.1,
        "num_predict": -1,
    }


async def test_seed_42_and_the_additive_fields_are_sent(api: Client, fake: FakeOllama) -> None:
    given = {"id": "a", "model": "fx-think", "seed": 42, "num_ctx": 2048, "stop": ["END", "."], "think": True}
    await api.post("/api/chat", instances(given))
    sent = chats(fake)[0]
    assert sent["options"]["seed"] == 42
    assert sent["options"]["num_ctx"] == 2048
    assert sent["options"]["stop"] == ["END", "."]
    assert sent["think"] is True


async def test_null_means_the_models_own_default(api: Client, fake: FakeOllama) -> None:
    names = ("temperature", "top_p", "top_k", "repeat_penalty", "num_predict", "seed", "num_ctx", "stop", "think")
    await api.post("/api/chat", instances({"id": "a", "model": "tiny", **dict.fromkeys(names)}))
    assert "options" not in chats(fake)[0]
    assert "think" not in chats(fake)[0]


@pytest.mark.parametrize(
    ("field", "given", "sent"),
    [
        ("temperature", "0.5", 0.5),
        ("temperature", " 1e-1 ", 0.1),
        ("temperature", 2, 2),
        ("temperature", 0.01, 0.01),
        ("top_p", 0, 0),
        ("top_p", 1, 1),
        ("top_k", 0, 0),
        ("top_k", 30.0, 30),
        ("top_k", "30", 30),
        ("top_k", "3e1", 30),
        ("repeat_penalty", 1, 1),
        ("num_predict", "4096", 4096),
        ("seed", 2**63 - 1, 2**63 - 1),
        ("seed", str(2**53 + 1), 2**53 + 1),
        ("stop", "END", ["END"]),
    ],
)
async def test_numbers_are_taken_as_clients_spell_them(
    api: Client, fake: FakeOllama, field: str, given: object, sent: object
) -> None:
    answer = await api.post("/api/chat", instances({"id": "a", "model": "tiny", field: given}))
    assert answer.status == 200
    assert chats(fake)[0]["options"][field] == sent
    assert not isinstance(sent, int) or isinstance(chats(fake)[0]["options"][field], int | float)


# history


async def test_one_user_message_is_enough(api: Client) -> None:
    assert (await api.post("/api/chat", legacy("tiny"))).status == 200


async def test_message_system_model_and_a_plain_string_are_taken(api: Client, fake: FakeOllama) -> None:
    for names in ({"model": "tiny"}, {"models": "tiny"}):
        body = (await api.post("/api/chat", {"message": "Hi", "system": "Be brief.", **names})).json()
        assert body["model"] == "tiny"
    for sent in chats(fake):
        assert sent["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ]


async def test_a_message_that_is_the_last_turn_already_is_not_doubled(api: Client, fake: FakeOllama) -> None:
    await api.post("/api/chat", {"history": HELLO, "message": "Hello!", "model": "tiny"})
    assert chats(fake)[0]["messages"] == HELLO


async def test_the_historys_own_system_message_stays_the_only_one(api: Client, fake: FakeOllama) -> None:
    history = [{"role": "system", "content": "First."}, *HELLO]
    await api.post("/api/chat", {"history": history, "system": "Second.", "message": "", "model": "tiny"})
    assert chats(fake)[0]["messages"] == history


async def test_an_instances_own_system_prompt_takes_the_place_of_the_shared_one(api: Client, fake: FakeOllama) -> None:
    history = [{"role": "system", "content": "Shared."}, *HELLO]
    items = [{"id": "a", "model": "tiny", "system": "Own."}, {"id": "b", "model": "llama3.2:3b"}]
    await api.post("/api/chat", {"history": history, "model_instances": items})
    first = {sent["model"]: sent["messages"][0]["content"] for sent in chats(fake)}
    assert first == {"tiny": "Own.", "llama3.2:3b": "Shared."}


async def test_unknown_keys_of_messages_pass_through(api: Client, fake: FakeOllama) -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    history = [
        {"role": "user", "content": "2+2?", "images": ["aGk="]},
        {"role": "assistant", "content": None, "tool_calls": [call], "thinking": "hm"},
        {"role": "tool", "content": "4", "tool_name": "add"},
    ]
    await api.post("/api/chat", {"history": history, "models": ["tiny"]})
    sent = chats(fake)[0]["messages"]
    assert sent[0]["images"] == ["aGk="]
    assert sent[1] == {"role": "assistant", "content": "", "tool_calls": [call], "thinking": "hm"}
    assert sent[2]["tool_name"] == "add"


async def test_a_long_history_keeps_its_system_messages_and_its_end(fake: FakeOllama) -> None:
    history = [{"role": "system", "content": "Stay."}]
    history += [{"role": "user" if i % 2 == 0 else "assistant", "content": str(i)} for i in range(7)]
    async with started(create_api(settings_for(fake.url, history_limit=3))) as api:
        body = (await api.post("/api/chat", {"history": history, "models": ["tiny"]})).json()
    assert body["history_truncated"] is True
    assert [message["content"] for message in chats(fake)[0]["messages"]] == ["Stay.", "4", "5", "6"]


# figures and the manifest


async def test_metrics_come_from_ollamas_counters(api: Client) -> None:
    metrics = (await api.post("/api/chat", legacy("fx-ok:n-20"))).json()["metrics"]
    assert metrics["tokens"] == 20
    assert metrics["tokens_per_sec"] == round(metrics["tokens"] / metrics["duration_s"], 2)
    assert metrics["rate_reliable"] is True
    assert metrics["contended"] is False
    assert metrics["done_reason"] == "stop"
    assert {"ttft_s", "total_s", "load_s", "queue_s", "prompt_tokens", "prompt_s"} <= set(metrics)
    assert "wall_clock" not in metrics


async def test_without_counters_the_clock_is_the_arenas_and_says_so(api: Client) -> None:
    metrics = (await api.post("/api/chat", legacy("fx-nometrics:n-3"))).json()["metrics"]
    assert metrics["wall_clock"] is True
    assert metrics["duration_s"] == metrics["total_s"] > 0
    assert metrics["tokens_per_sec"] == 0
    assert metrics["rate_reliable"] is False


async def test_the_seeds_three_figures_are_numbers_even_without_counters(api: Client) -> None:
    body = (await api.post("/api/chat", legacy("fx-nodone:n-3", "tiny"))).json()
    metrics = body["results"]["fx-nodone:n-3"]["metrics"]
    for name in ("tokens", "duration_s", "tokens_per_sec"):
        assert isinstance(metrics[name], int | float)
    assert metrics["rate_reliable"] is False


async def test_thoughts_stay_out_of_the_response(api: Client) -> None:
    body = (await api.post("/api/chat", legacy("fx-think:think-3_n-4"))).json()
    assert body["thinking"]
    assert body["response"] == text_said_by("fx-think:think-3_n-4")


async def test_every_answer_carries_its_manifest(api: Client) -> None:
    await api.get("/api/models")
    body = (await api.post("/api/chat", instances({"id": "a", "model": "llama3.2:3b", "seed": 7}))).json()
    manifest = body["manifest"]
    assert manifest["digest"] == body["model_digest"]
    assert manifest["endpoint"] == body["server"]
    assert manifest["options_sent"] == body["options_sent"]
    assert manifest["seed"] == 7
    assert manifest["options_left_default"] == ["num_ctx", "stop"]
    assert len(manifest["prompt_sha256"]) == 64
    assert {"quantization", "endpoint_version", "app_version", "started_at"} <= set(manifest)


# order, endpoints, leaving


async def test_one_after_another_never_overlaps(api: Client, fake: FakeOllama) -> None:
    await api.post("/api/chat", legacy("fx-ok", "tiny", "llama3.2:3b", order="one_after_another"))
    spans = sorted((r.requested_at, r.ended_at or 0.0) for r in fake.log if r.path == "/api/chat")
    assert len(spans) == 3
    assert all(later[0] >= earlier[1] for earlier, later in pairwise(spans))


async def test_an_instance_may_name_its_endpoint(fake: FakeOllama) -> None:
    async with FakeOllama() as second:
        settings = settings_for(f"first={fake.url}", f"second={second.url}")
        async with started(create_api(settings)) as api:
            body = (await api.post("/api/chat", instances({"id": "a", "model": "tiny", "endpoint": "second"}))).json()
        assert body["server"] == "second"
        assert chats(second)
        assert not chats(fake)


async def test_hanging_up_frees_every_endpoint(api: Client, fake: FakeOllama) -> None:
    async with api.open("/api/chat", legacy("fx-hang", "fx-stall:at-2", "fx-gate:id-x")) as exchange:
        await fake.arrived(3, path="/api/chat")
        exchange.leave()
        await fake.closed(3)
        assert (await exchange.answer()).status == 499


async def test_leaving_before_the_body_is_complete_starts_nothing(api: Client, fake: FakeOllama) -> None:
    async with api.request("POST", "/api/chat", b'{"history": [', complete=False) as exchange:
        exchange.leave()
        assert (await exchange.answer()).status == 499
    assert not chats(fake)
