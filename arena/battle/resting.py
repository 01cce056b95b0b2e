"""Models that have just failed are left out of the draw for a while: one that always fails must not end all battles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from arena.names import canonical
from arena.types import ModelInstance

REST_S: Final = 300.0
"""So long a model rests after a failure, unless it answers before."""


class Resting:
    """Knows who has failed lately, on a monotonic clock in seconds.

    Only failures with a model's own defaults count, since settings may be what fails, and whoever chose them must not
    keep a model out of the battles of others; nor may strangers who choose the model, of whom it does not hear.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until_s: dict[str, float] = {}

    def heard(self, instance: ModelInstance, *, well: bool) -> None:
        """The instance has answered, or failed."""
        model = canonical(instance.model)
        if well:
            self._until_s.pop(model, None)
        elif instance == ModelInstance(instance.id, instance.model):
            self._until_s[model] = self._clock() + REST_S

    def fit(self, contestants: Sequence[ModelInstance], sides: int) -> Sequence[ModelInstance]:
        """The contestants that do not rest; all of them where these are too few for so many sides."""
        now_s = self._clock()
        self._until_s = {model: until_s for model, until_s in self._until_s.items() if until_s > now_s}
        fit = [each for each in contestants if canonical(each.model) not in self._until_s]
        return fit if len(fit) >= sides else contestants
