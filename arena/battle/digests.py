"""Digests of the models that answered, where none were known yet: a host tells them some time after the start."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from arena.fleet import Endpoint, Fleet
from arena.fleet.catalogue import settled
from arena.types import NATIVE, Manifest

WAIT_S: Final = 2.0
"""So long a vote waits at most for what hosts have not told yet; afterwards the model's name stands for its digest."""


class Digests:
    """What the endpoints of a fleet know of their models' digests."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def told(self, manifests: Iterable[Manifest]) -> None:
        """Have the endpoints tell what these lack, all at once; one that does not within WAIT_S is left alone."""
        missing = {manifest.endpoint for manifest in manifests if self._missing(manifest)}
        await settled((endpoint.models() for endpoint in filter(None, map(self._endpoint, missing))), WAIT_S)

    def completed(self, manifest: Manifest) -> Manifest:
        """`manifest` with the digest, and what goes with it, as far as its endpoint has told."""
        endpoint = self._endpoint(manifest.endpoint)
        info = endpoint.known(manifest.model) if endpoint is not None and manifest.digest is None else None
        if info is None or not info.digest:
            return manifest
        return msgspec.structs.replace(
            manifest,
            digest=info.digest,
            quantization=manifest.quantization or info.quantization or None,
            parameter_size=manifest.parameter_size or info.parameter_size or None,
            family=manifest.family or info.family or None,
        )

    def _missing(self, manifest: Manifest) -> bool:
        """Could its endpoint tell more? Servers of OpenAI's kind tell no digests."""
        return manifest.digest is None and manifest.endpoint_kind in NATIVE and self.completed(manifest) is manifest

    def _endpoint(self, name: str) -> Endpoint | None:
        return next((endpoint for endpoint in self._fleet.endpoints if endpoint.name == name), None)
