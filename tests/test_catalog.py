"""The catalogue: downloads that nobody has to watch, and models that come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from arena.catalog import MAX_DOWNLOADS, MAX_JOBS, Catalog
from arena.errors import BadRequest, Busy, Forbidden, ModelNotFound, NoEndpoint, NotFound, Unreachable
from arena.fleet import Endpoint, Fleet
from arena.ollama import OllamaClient
from arena.settings import Settings
from arena.types import PullJob
from tests.api.conftest import settings_for
from tests.fake_ollama import FakeOllama

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def catalog_of(*fakes: FakeOllama, settings: Settings | None = None) -> AsyncIterator[Catalog]:
    """A catalogue of endpoints called 0, 1, 2..."""
    fleet = Fleet([Endpoint(str(i), OllamaClient(fake.url, name=str(i))) for i, fake in enumerate(fakes)])
    catalog = Catalog(fleet, settings or settings_for())
    try:
        yield catalog
    finally:
        await catalog.aclose()
        await fleet.aclose()


@pytest.fixture
async def catalog(fake: FakeOllama) -> AsyncIterator[Catalog]:
    async with catalog_of(fake) as one:
        yield one


async def ended(catalog: Catalog, job: PullJob, fake: FakeOllama) -> PullJob:
    """`job` once it has ended."""
    await catalog.wait(job.id)
    await fake.idle()
    return catalog.job(job.id)


async def test_a_download_tells_its_progress_and_its_end(catalog: Catalog, fake: FakeOllama) -> None:
    job = catalog.pull("fx-pull:n-4_size-1000")
    assert (job.state, job.endpoint, job.completed_bytes) == ("downloading", "0", 0)
    assert job.started_at
    done = await ended(catalog, job, fake)
    assert (done.state, done.status, done.error) == ("done", "success", None)
    assert done.completed_bytes == done.total_bytes == 1512


async def test_the_list_is_asked_anew_after_a_download(catalog: Catalog, fake: FakeOllama) -> None:
    assert "new:latest" not in [info.name for info in await catalog.models()]
    await ended(catalog, catalog.pull("new"), fake)
    assert "new:latest" in [info.name for info in await catalog.models()]


async def test_one_download_for_each_model_and_endpoint() -> None:
    async with FakeOllama() as one, FakeOllama() as two, catalog_of(one, two) as catalog:
        first = catalog.pull("fx-gate")
        assert catalog.pull("FX-gate:latest").id == first.id
        assert catalog.pull("fx-gate", "1").id != first.id
        assert [job.endpoint for job in catalog.jobs()] == ["1", "0"]


async def test_an_ended_download_is_not_joined(catalog: Catalog, fake: FakeOllama) -> None:
    first = await ended(catalog, catalog.pull("fx-pull-err"), fake)
    assert first.state == "failed"
    assert catalog.pull("fx-pull-err").id != first.id


async def test_an_endpoint_that_is_down_fails_the_download() -> None:
    async with FakeOllama() as fake:
        pass
    async with catalog_of(fake) as catalog:
        job = catalog.pull("tiny")
        await catalog.wait(job.id)
        assert catalog.job(job.id).state == "failed"
        assert catalog.job(job.id).error == "0 is not reachable: connection refused"


async def test_a_bug_in_a_download_is_logged_and_told_plainly(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(OllamaClient, "pull", broken)
    job = catalog.pull("tiny")
    await catalog.wait(job.id)
    assert catalog.job(job.id).error == "The download ended without a result."
    assert "pull failed" in caplog.text


async def test_cancel_hangs_up_and_is_final(catalog: Catalog, fake: FakeOllama) -> None:
    job = catalog.pull("fx-pull-stall")
    await fake.arrived(1, path="/api/pull")
    assert catalog.cancel(job.id).state == "cancelled"
    await fake.closed(1)
    await catalog.wait(job.id)
    assert catalog.cancel(job.id).state == "cancelled"


async def test_cancel_before_the_first_step_is_told_too(catalog: Catalog, fake: FakeOllama) -> None:
    job = catalog.pull("tiny")
    catalog.cancel(job.id)
    await catalog.wait(job.id)
    assert catalog.job(job.id).state == "cancelled"
    assert not fake.log


async def test_stopping_ends_every_download(fake: FakeOllama) -> None:
    async with catalog_of(fake) as catalog:
        catalog.pull("fx-pull-stall")
        catalog.pull("fx-hang")
        await fake.arrived(2, path="/api/pull")
    await fake.closed(2)
    assert {job.state for job in catalog.jobs()} == {"cancelled"}


async def test_the_oldest_ended_downloads_are_forgotten(catalog: Catalog, fake: FakeOllama) -> None:
    kept = catalog.pull("fx-pull-stall")
    jobs = []
    for i in range(MAX_JOBS):
        jobs.append(catalog.pull(f"m{i}"))
        catalog.cancel(jobs[-1].id)
    assert len(catalog.jobs()) == MAX_JOBS
    assert catalog.job(kept.id).state == "downloading"
    with pytest.raises(NotFound):
        catalog.job(jobs[0].id)
    with pytest.raises(NotFound):
        catalog.cancel("none")


async def test_only_so_many_downloads_at_a_time(catalog: Catalog) -> None:
    for i in range(MAX_DOWNLOADS):
        catalog.pull(f"fx-hang:id-{i}")
    assert catalog.pull("fx-hang:id-0").state == "downloading"
    with pytest.raises(Busy):
        catalog.pull("one-more")


async def test_names_and_registries_are_checked(catalog: Catalog, fake: FakeOllama) -> None:
    for name in ("../x", "", "10.0.0.1:9/x/y", "localhost/x"):
        with pytest.raises(BadRequest):
            catalog.pull(name)
    with pytest.raises(BadRequest, match="No endpoint is called"):
        catalog.pull("tiny", "nowhere")
    assert not fake.log


async def test_without_endpoints_nothing_can_be_pulled() -> None:
    async with catalog_of() as catalog:
        with pytest.raises(NoEndpoint):
            catalog.pull("tiny")


async def test_delete_asks_every_holder() -> None:
    async with (
        FakeOllama() as one,
        FakeOllama(["other:1b"]) as two,
        FakeOllama() as three,
        catalog_of(one, two, three) as catalog,
    ):
        await catalog.delete("tiny")
        assert "tiny:latest" not in one.models + three.models
        assert not [record for record in two.log if record.path == "/api/delete"]
        with pytest.raises(ModelNotFound):
            await catalog.delete("tiny")
        with pytest.raises(ModelNotFound):
            await catalog.delete("tiny", "0")


async def test_the_only_endpoint_says_itself_what_it_holds(catalog: Catalog, fake: FakeOllama) -> None:
    fake.state(routes={"/api/tags": "fx-status:c-500"})
    await catalog.delete("tiny")
    assert "tiny:latest" not in fake.models
    assert [record.path for record in fake.log] == ["/api/delete"]


async def test_delete_goes_on_after_an_endpoint_that_fails() -> None:
    async with FakeOllama() as one, FakeOllama() as two, catalog_of(one, two) as catalog:
        one.state(routes={"/api/delete": "fx-eof0"})
        await catalog.models()
        with pytest.raises(Exception, match="0"):
            await catalog.delete("tiny")
        assert "tiny:latest" not in two.models


async def test_a_holder_that_lost_the_model_meanwhile_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeOllama() as one, FakeOllama() as two, catalog_of(one, two) as catalog:
        told = OllamaClient.delete

        async def raced(client: OllamaClient, model: str) -> None:
            if client.name == "0":
                raise ModelNotFound("model 'tiny' not found")
            await told(client, model)

        monkeypatch.setattr(OllamaClient, "delete", raced)
        await catalog.delete("tiny")
        assert "tiny:latest" not in two.models


async def test_load_unload_and_what_is_in_memory(catalog: Catalog, fake: FakeOllama) -> None:
    await catalog.load("tiny")
    assert [item.name for item in await catalog.loaded()] == ["tiny:latest"]
    await catalog.unload("tiny")
    assert await catalog.loaded() == ()
    with pytest.raises(ModelNotFound):
        await catalog.load("nothing")


async def test_a_description_tells_capabilities(catalog: Catalog) -> None:
    assert "completion" in ((await catalog.describe("tiny")).capabilities or ())


async def test_no_endpoint_answers() -> None:
    async with FakeOllama() as fake:
        pass
    async with catalog_of(fake) as catalog:
        with pytest.raises(Unreachable):
            await catalog.models()
        with pytest.raises(Unreachable):
            await catalog.delete("tiny")


async def test_management_can_be_turned_off(fake: FakeOllama) -> None:
    async with catalog_of(fake, settings=settings_for(management=False)) as catalog:
        with pytest.raises(Forbidden):
            catalog.check_management()
    async with catalog_of(fake, settings=settings_for()) as catalog:
        catalog.check_management()
