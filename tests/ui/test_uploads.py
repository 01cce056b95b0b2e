"""An event may name uploaded files, and no other file of the machine or of the web."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.utils import get_upload_folder

from arena.arena import Arena
from arena.settings import load
from arena.ui.page import Page
from arena.ui.uploads import named_files

META = {"_type": "gradio.FileData"}


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of uploads."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("uploads")
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        assert get_upload_folder() == str(folder)
        yield folder


@pytest.fixture(scope="module")
async def demo(uploads: Path) -> gr.Blocks:
    """The page, drawn once; its components remember the folder."""
    return Page(Arena(load(engine="off"))).build()


@pytest.fixture
def cache(uploads: Path) -> Path:
    """The folder of uploads, empty."""
    shutil.rmtree(uploads)
    uploads.mkdir()
    return uploads


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the machine that is nobody's upload."""
    file = tmp_path / "secret.md"
    file.write_text("the password")
    return file


async def prepared(demo: gr.Blocks, file: dict[str, Any], kept: Any = None) -> list[Any]:
    """What the page's "send" is given when a browser names `file`."""
    send = next(fn for fn in demo.fns.values() if fn.api_name == "take")
    values = {"prompt": {"text": "Read it.", "files": [file]}, "order": "together", "system": ""}
    inputs = [values.get(getattr(block, "elem_id", None) or "", kept) for block in send.inputs]
    return list(await demo.preprocess_data(send, inputs, None))


def names_in(folder: Path) -> list[str]:
    """Everything that lies in a folder."""
    return [file.name for file in folder.rglob("*")]


@pytest.mark.anyio
async def test_an_upload_is_taken(demo: gr.Blocks, cache: Path) -> None:
    file = cache / "1" / "note.md"
    file.parent.mkdir()
    file.write_text("mine")
    taken = await prepared(demo, {"path": str(file), "meta": META})
    assert {"text": "Read it.", "files": [str(file)]} in taken


@pytest.mark.anyio
@pytest.mark.parametrize(
    "spelled",
    ["{secret}", "{cache}/../secret.md", "{cache}/link.md", "http://192.0.2.1/x.md", "\0", "x" * 5000, ""],
)
async def test_any_other_file_is_refused_and_not_copied(
    demo: gr.Blocks, cache: Path, secret: Path, spelled: str
) -> None:
    (cache / "link.md").symlink_to(secret)
    path = spelled.format(secret=secret, cache=cache)
    with pytest.raises(gr.Error, match="Only uploaded files"):
        await prepared(demo, {"path": path, "meta": META})
    assert names_in(cache) == ["link.md"]


@pytest.mark.anyio
async def test_a_file_is_found_wherever_it_is_named(demo: gr.Blocks, cache: Path, secret: Path) -> None:
    kept = {"deep": [{"down": {"path": str(secret), "meta": META}}]}
    mine = cache / "mine.md"
    mine.write_text("mine")
    with pytest.raises(gr.Error, match="Only uploaded files"):
        await prepared(demo, {"path": str(mine), "meta": META}, kept)
    assert names_in(cache) == ["mine.md"]


def test_a_path_of_ones_own_is_no_file() -> None:
    assert list(named_files([{"path": "a"}, {"path": "b", "url": None}, ({"path": 1, "meta": {}},)])) == [1, "b"]


@pytest.mark.anyio
@pytest.mark.parametrize("given", [1, 99], ids=["too few", "none that there is to choose"])
async def test_what_is_no_input_is_told_in_the_log_alone(
    demo: gr.Blocks, caplog: pytest.LogCaptureFixture, given: int
) -> None:
    send = next(fn for fn in demo.fns.values() if fn.api_name == "take")
    inputs = ["\x1b[2J" if getattr(block, "elem_id", None) == "order" else None for block in send.inputs][:given]
    with pytest.raises(gr.Error) as told:
        await demo.preprocess_data(send, inputs, None)
    assert not told.value.print_exception, "Gradio would print it as it came"
    assert [record.name for record in caplog.records] == ["arena.ui.uploads"]
