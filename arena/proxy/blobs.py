"""Files on their way to the hosts: is one there, and its upload to one host or several, of which nothing is kept."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from arena.errors import ArenaError, BadRequest
from arena.exchange import Inbound
from arena.fleet import Endpoint
from arena.ollama.failures import refusal
from arena.proxy.ask import each
from arena.proxy.passing import OUR_CREDENTIALS, api_path, headed, noted, patient
from arena.proxy.progress import Results
from arena.proxy.reply import JSON, Reply, Surroundings, json_reply
from arena.proxy.targets import check_open, targets
from arena.wire.upload import Upload

_BLOB = re.compile(r"/api/blobs/sha256[:-][0-9a-fA-F]{64}")
_BINARY = ("Content-Type", "application/octet-stream")


async def has_blob(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """HEAD /api/blobs/sha256:...: 200 if every host that is meant has it, else 404."""
    check_open(proxy)
    path = _path(inbound)
    where = await targets(proxy, inbound)
    answers, errors = await each(where, lambda endpoint: endpoint.pool.fetch("HEAD", path))
    if errors:
        raise errors[0][1]
    return headed(Reply(max((fetched.status for _, fetched in answers), default=200), []), where)


async def put_blob(proxy: Surroundings, inbound: Inbound, pieces: AsyncIterator[bytes]) -> Reply:
    """POST /api/blobs/sha256:...: hand on a file to every host that is meant, at the pace of the slowest.

    A client that leaves in the middle leaves no host with half of it taken for whole.
    """
    check_open(proxy)
    path = _path(inbound)
    where = await targets(proxy, inbound)
    noted(inbound, path.rpartition("/")[2], where)
    length = next((int(value) for name, value in inbound.headers if name == b"content-length"), None)
    async with AsyncExitStack() as stack:
        copies = []
        for endpoint in where:
            opened = endpoint.pool.upload(path, length, headers=[_BINARY], timeouts=patient(endpoint))
            copies.append(_Copy(endpoint, await stack.enter_async_context(opened)))
        async for piece in pieces:
            for copy in copies:
                await copy.write(piece)
            if not any(copy.wanted for copy in copies):
                break
        for copy in copies:
            await copy.end()
    return headed(_summed(copies, where), where)


class _Copy:
    """The upload to one host, and what came of it."""

    def __init__(self, endpoint: Endpoint, upload: Upload) -> None:
        self.endpoint = endpoint
        self.wanted = True
        self.status = 0
        self.body = b""
        self.error: ArenaError | None = None
        self._upload = upload

    async def write(self, piece: bytes) -> None:
        """Hand on a piece, for as long as the host wants it."""
        if self.wanted:
            try:
                self.wanted = await self._upload.write(piece)
            except ArenaError as error:
                self.error, self.wanted = error, False

    async def end(self) -> None:
        """The file is whole: what does the host say?"""
        if self.error is not None:
            return
        try:
            self.status, self.body = await self._upload.end()
        except ArenaError as error:
            self.error = error

    @property
    def failure(self) -> ArenaError | None:
        """What went wrong, be it the host's own word."""
        if self.error is None and self.status not in (200, 201):
            return refusal(self.status, (), self.body, self.endpoint.name)
        return self.error


def _summed(copies: list[_Copy], where: tuple[Endpoint, ...]) -> Reply:
    """The host's own answer, or one with a result for each of several."""
    if len(copies) == 1:
        (only,) = copies
        failure = only.failure
        if failure is not None and (not only.status or only.status in OUR_CREDENTIALS):
            raise failure
        kind = [(b"content-type", JSON)] if only.body else []
        return Reply(only.status, kind, only.body)
    results = Results(where)
    for copy in copies:
        results.note(copy.endpoint, copy.failure)
    return json_reply(results.told(), results.status if results.failures else 201)


def _path(inbound: Inbound) -> str:
    """The host's path of the blob. Raises BadRequest for a digest that is none."""
    path = api_path(inbound)
    if not _BLOB.fullmatch(path):
        raise BadRequest("The digest must look like sha256:<64 hex digits>")
    return path
