"""The words of the about tab, the page's head and its banner: what is so, with its remedy, and no secret."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from arena.engine.library import LIBRARY
from arena.errors import Unreachable
from arena.settings import Settings, load
from arena.types import EndpointStatus, LoadedModel, ModelInfo, PullJob
from arena.ui.about import AboutPanel, access, endpoints_table
from arena.ui.catalog import SUGGESTIONS, jobs_list, memory_list, models_table
from arena.ui.readiness import KEYS, banner, pill_text, settled, tools
from tests.ui.pieces import EVIL

UP = EndpointStatus("gpu1", "http://gpu1:11434", "ollama", True, "0.33", 3)
ENGINE = EndpointStatus("engine", "http://127.0.0.1:5", "engine", True, None, 1)
DOWN = EndpointStatus("b", "http://b:1", "ollama", False, error="refused the connection")


def text(settings: Settings, *statuses: EndpointStatus, engine: str = "off", error: str | None = None) -> str:
    arena = SimpleNamespace(settings=settings, engine_state=engine, engine_error=error)
    return AboutPanel(cast(Any, arena)).text(statuses)


def test_the_sheet_tells_servers_limits_versions_and_keys() -> None:
    sheet = text(load(), UP, DOWN)
    for says in ("gpu1", "0.33", "refused the connection", "32,768", "gradio", "Shift + Enter", 'href="docs"'):
        assert says in sheet
    assert "None is configured" in endpoints_table(())


@pytest.mark.parametrize(
    ("state", "says"), [("off", "Off"), ("starting", "Starting"), ("running", "Running"), ("failed", "no disk")]
)
def test_the_engines_state(state: str, says: str) -> None:
    assert says in text(load(), engine=state, error="no disk" if state == "failed" else None)


def test_where_the_token_comes_from_but_never_its_value() -> None:
    sheet = text(load(token="sesame-4711"))
    assert "WEB_CHAT_TOKEN" in sheet
    assert "sesame-4711" not in sheet
    assert "only this machine" in access(load())
    assert "anyone who reaches this server" in access(load(host="0.0.0.0", allow_open=True))
    assert "turned off" in access(load(management=False))


@pytest.mark.parametrize(
    ("statuses", "engine", "state", "says"),
    [
        ((UP,), "off", "running", "gpu1 0.33 · 3 models"),
        ((ENGINE,), "running", "running", "engine · 1 model<"),
        ((UP, DOWN), "off", "partly", "3 models"),
        ((UP, ENGINE, UP), "off", "running", "+1 ·"),
        ((DOWN,), "off", "failed", "no model server"),
        ((), "starting", "starting", "engine starting"),
    ],
)
def test_the_word_in_the_head(statuses: tuple[EndpointStatus, ...], engine: str, state: str, says: str) -> None:
    pill = pill_text(statuses, engine, 1 if statuses == (ENGINE,) else 3)
    assert f'data-state="{state}"' in pill
    assert says in pill


def test_the_banner_says_what_is_missing_and_what_to_do() -> None:
    job = PullJob("1", "smollm2:135m", "engine", "downloading", "", 50, 100)
    assert banner((UP,), True, "off", None, ()) == ""
    assert "Getting a first model: smollm2:135m" in banner((ENGINE,), False, "running", None, (job,))
    assert "engine is starting" in banner((), False, "starting", None, ())
    assert "No models are installed yet" in banner((UP,), False, "off", None, ())
    failed = PullJob("2", "smollm2:135m", "engine", "failed", error="<the index> cannot be reached")
    for status, own in ((ENGINE, True), (UP, False)):
        why = banner((status,), False, "running", None, (failed,))
        for says in ("smollm2:135m could not be fetched", "&lt;the index&gt; cannot be reached", "in the Models tab"):
            assert says in why
        assert ("GGUF" in why) == own
    assert "Getting a first model" in banner((ENGINE,), False, "running", None, (failed, job))
    assert "No models are installed yet" in banner(
        (ENGINE,), False, "running", None, (replace(failed, state="cancelled"), failed)
    )
    nobody = banner((DOWN,), False, "failed", "The embedded engine did not start: no disk", ())
    assert nobody.count("did not start") == 1
    for says in ("No model server answers", "http://b:1", "refused", "no disk", "ollama serve", "ARENA_ENGINE=on"):
        assert says in nobody
    assert "did not start" not in banner((DOWN,), False, "off", None, ())


def test_the_page_looks_again_until_there_is_something_to_ask() -> None:
    assert settled(True, "off")
    assert not settled(True, "starting")
    assert not settled(False, "running")


def test_the_table_of_models() -> None:
    models = (
        ModelInfo("a:1b", ("gpu1",), 2_000_000_000, quantization="Q4", context_length=8192, capabilities=("tools",)),
        ModelInfo("b", loaded_on=("gpu1",), parameter_size="1B"),
    )
    table = models_table(models, None, None, may_manage=True)
    for says in ("2.0 GB", "Q4", "8,192", "tools", "Load a:1b", "Unload b", "Delete b", "chip hot"):
        assert says in table
    assert "data-action" not in models_table(models, None, None, may_manage=False)
    asked = models_table(models, "a:1b", None, may_manage=True)
    assert "Delete a:1b?" in asked
    assert 'data-action="delete" data-model="a:1b"' in asked
    assert "No models yet" in models_table((), None, None, may_manage=True)
    assert "is silent" in models_table((), None, Unreachable("It is silent."), may_manage=True)


def test_the_list_of_downloads() -> None:
    states: tuple[Any, ...] = ("downloading", "done", "failed", "cancelled")
    jobs = [PullJob(str(number), f"m{number}", "f", states[number]) for number in range(4)]
    rows = jobs_list(jobs)
    assert 'data-action="cancel" data-job="0"' in rows
    assert rows.count('data-action="pull"') == 2
    assert jobs_list([]) == ""


def test_the_memory() -> None:
    items = [LoadedModel("a", "gpu1", 2_000_000_000, 1_000_000_000, 4096), LoadedModel("b", "gpu1", 5_000_000)]
    shown = memory_list(items, may_manage=True)
    for says in ("2.0 GB", "50% on GPU", "on CPU", "4,096 tokens of context", "Unload a"):
        assert says in shown
    assert "data-action" not in memory_list(items, may_manage=False)
    assert "Nothing." in memory_list([], may_manage=True)


def test_nothing_from_outside_is_html() -> None:
    status = EndpointStatus(EVIL, EVIL, "ollama", False, EVIL, error=EVIL)
    up = EndpointStatus(EVIL, EVIL, "ollama", True, EVIL)
    job = PullJob(EVIL, EVIL, EVIL, "failed", error=EVIL)
    info = ModelInfo(EVIL, (EVIL,), quantization=EVIL, parameter_size=EVIL, capabilities=(EVIL,))
    pieces = [
        endpoints_table((status, up)), pill_text((up,), "off", 3), banner((status,), False, "failed", EVIL, ()),
        banner((), False, "off", None, (job,)), jobs_list([job]),
        memory_list([LoadedModel(EVIL, EVIL)], may_manage=True),
        models_table((info,), EVIL, None, may_manage=True), models_table((), None, Unreachable(EVIL), may_manage=True),
        text(load(), engine="failed", error=EVIL),
    ]  # fmt: skip
    assert not [piece for piece in pieces if "<img" in piece or "x\"'" in piece]


def test_every_suggested_model_can_be_fetched_by_the_embedded_engine() -> None:
    assert set(SUGGESTIONS) <= set(LIBRARY)


def test_the_head_offers_to_sign_out_where_one_signs_in() -> None:
    assert 'href="signout"' in tools(signed_in=True)
    assert "signout" not in tools(signed_in=False)


def test_the_keys_stand_in_the_dialog_and_on_the_sheet() -> None:
    dialog, sheet = tools(signed_in=False), text(load())
    for _, does in KEYS:
        assert does in dialog
        assert does in sheet
