"""The values that cross borders. All are frozen; sequences are tuples; seconds end in `_s`, sizes in `_bytes`.

Moments end in `_at` and are texts as ISO 8601 has them; a context is counted in tokens.

One stream type serves every door: batches of `StreamEvent`, folded by `streaming.Transcript`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import Struct, to_builtins

Order = Literal["together", "one_after_another"]
EndpointKind = Literal["ollama", "engine", "openai"]
NATIVE: Final = frozenset[EndpointKind]({"ollama", "engine"})
"""The kinds of endpoints that speak Ollama's own API."""


class ChatMessage(Struct, frozen=True, omit_defaults=True):
    """One message. `images` are bare base64; `extra` carries keys we do not know (tool calls) unchanged."""

    role: str
    content: str
    thinking: str = ""
    images: tuple[str, ...] = ()
    extra: dict[str, Any] = {}


class Options(Struct, frozen=True, omit_defaults=True):
    """Ollama's generation options. None means "the model's own default" and is not sent; every other value is."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repeat_penalty: float | None = None
    num_predict: int | None = None
    seed: int | None = None
    num_ctx: int | None = None
    stop: tuple[str, ...] | None = None

    def sent(self) -> dict[str, Any]:
        """What goes to Ollama: only the values that are set."""
        sent: dict[str, Any] = to_builtins(self)  # leaves out what is at its default
        return sent


class ModelInstance(Struct, frozen=True, omit_defaults=True):
    """A model with its settings: one contestant, one column. `endpoint` pins it to an endpoint by name."""

    id: str
    model: str
    options: Options = Options()
    system: str | None = None
    think: bool | str | None = None
    endpoint: str | None = None


class ChatRequest(Struct, frozen=True):
    """What one instance is asked: its own history, ending with the message to answer."""

    instance: ModelInstance
    messages: tuple[ChatMessage, ...]


class Metrics(Struct, frozen=True, omit_defaults=True):
    """What an answer cost. None means unknown: a figure is absent rather than invented.

    From Ollama's own counters: `tokens`, `duration_s` (generation), `tokens_per_sec`, `load_s`, `prompt_tokens`,
    `prompt_s`, `server_total_s` and `queue_s` (= total - load - prompt - generation). From our clock:
    `ttft_s` (first token of any kind), `first_visible_s` (first token of the answer itself), `total_s`.
    `rate_reliable` is False below 16 tokens, under 1 ms, without counters, or under contention.
    `contended`: another generation ran on the same endpoint meanwhile. `prompt_cached`: the prompt's cost was
    (partly) saved by the server's cache. `cut_by_limit`: the answer ended at num_predict or the context's end.
    """

    tokens: int | None = None
    duration_s: float | None = None
    tokens_per_sec: float | None = None
    rate_reliable: bool = False
    ttft_s: float | None = None
    first_visible_s: float | None = None
    total_s: float | None = None
    server_total_s: float | None = None
    load_s: float | None = None
    queue_s: float | None = None
    prompt_tokens: int | None = None
    prompt_s: float | None = None
    prompt_cached: bool | None = None
    done_reason: str | None = None
    cut_by_limit: bool = False
    contended: bool = False


class Manifest(Struct, frozen=True, omit_defaults=True):
    """What is needed to run an answer again, and to defend its figures. Unknown fields are None."""

    model: str
    endpoint: str
    endpoint_kind: EndpointKind = "ollama"
    endpoint_version: str | None = None
    digest: str | None = None
    quantization: str | None = None
    parameter_size: str | None = None
    family: str | None = None
    options_sent: dict[str, Any] = {}
    options_left_default: tuple[str, ...] = ()
    think: bool | str | None = None
    seed: int | None = None
    context_length: int | None = None
    prompt_sha256: str = ""
    app_version: str = ""
    started_at: str = ""


class Started(Struct, frozen=True, tag="started"):
    """The request is on its way to `endpoint`."""

    instance_id: str
    manifest: Manifest


class Delta(Struct, frozen=True, tag="delta", gc=False):
    """A piece of output: `text` of the answer, or `thinking`. A delta may hold several tokens; never count deltas."""

    instance_id: str
    text: str
    thinking: str = ""


class Finished(Struct, frozen=True, tag="finished"):
    """The answer is complete: the endpoint said `done:true`."""

    instance_id: str
    metrics: Metrics


class Failed(Struct, frozen=True, tag="failed"):
    """The answer ended without `done:true`. `code` "stopped" means the user's wish; partial text is kept.

    `retry_after_s` is how long to wait before asking again, where waiting is said to help.
    """

    instance_id: str
    code: str
    message: str
    metrics: Metrics = Metrics()
    details: str | None = None
    retry_after_s: float | None = None


StreamEvent = Started | Delta | Finished | Failed
Batch = list[StreamEvent]


class ModelInfo(Struct, frozen=True, omit_defaults=True):
    """One installed model on one or more endpoints. `loaded_on` names the endpoints that hold it in memory now."""

    name: str
    endpoints: tuple[str, ...] = ()
    size_bytes: int = 0
    digest: str = ""
    family: str = ""
    parameter_size: str = ""
    quantization: str = ""
    context_length: int | None = None
    capabilities: tuple[str, ...] | None = None
    modified_at: str = ""
    loaded_on: tuple[str, ...] = ()


class LoadedModel(Struct, frozen=True, omit_defaults=True):
    """One model in an endpoint's memory (`/api/ps`). `context_length` is what it really runs with."""

    name: str
    endpoint: str = ""
    size_bytes: int = 0
    vram_bytes: int = 0
    context_length: int | None = None
    expires_at: str = ""
    digest: str = ""


class EndpointStatus(Struct, frozen=True, omit_defaults=True):
    """Does an endpoint answer, and as what. `url` never carries credentials."""

    name: str
    url: str
    kind: EndpointKind
    reachable: bool
    version: str | None = None
    models: int = 0
    error: str | None = None


class PullProgress(Struct, frozen=True, omit_defaults=True):
    """One line of a pull. `completed_bytes` / `total_bytes` are sums over all layers seen so far."""

    status: str
    completed_bytes: int = 0
    total_bytes: int = 0


class PullJob(Struct, frozen=True, omit_defaults=True):
    """A download that the server carries on by itself. `state`: downloading, done, failed, cancelled."""

    id: str
    model: str
    endpoint: str
    state: Literal["downloading", "done", "failed", "cancelled"]
    status: str = ""
    completed_bytes: int = 0
    total_bytes: int = 0
    error: str | None = None
    started_at: str = ""


Verdict = Literal["a", "b", "tie", "both_bad"]


class Style(Struct, frozen=True):
    """What `style.counted` finds in one answer; of several turns, the sum."""

    tokens: int = 0
    headers: int = 0
    lists: int = 0
    bold: int = 0


class Configuration(Struct, frozen=True):
    """A contestant of the ratings. `id` is a hash of the model's digest (else its name), options and system prompt."""

    id: str
    model: str
    digest: str | None = None
    options: dict[str, Any] = {}
    endpoint: str = ""
    label: str = ""


class Vote(Struct, frozen=True):
    """One verdict on two answers. `at` is ISO 8601 in UTC; `voter` and `address` are pseudonyms, "" where unknown.

    `blind`: the models were not known before the vote. `rated`: it may count for the ratings. A ballot on more than two
    `sides` is one vote for each `pair` of them, whose letters stand for a and b here. `prompt` is a pseudonym of what
    was asked, and `repeats` (set by the store) how often the voter had compared the two models on it before. `dwell_s`
    is the time from the last answer to the vote. `source` tells where an imported vote comes from.
    """

    battle_id: str
    at: str
    configuration_a: str
    configuration_b: str
    model_a: str
    model_b: str
    verdict: Verdict
    blind: bool = True
    rated: bool = True
    voter: str = ""
    address: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()
    turns: int = 1
    style_a: Style | None = None
    style_b: Style | None = None
    pair: str = "ab"
    sides: int = 2
    prompt: str = ""
    repeats: int = 0
    dwell_s: float | None = None
    source: str = ""


class VotePage(Struct, frozen=True):
    """Many votes at once: each field is a JSON list with something of every vote.

    `whats` holds lists of a, b, verdict, sides and repeats. No white space parts the values of a field.
    """

    whats: str
    voters: str
    addresses: str
    moments: str
