"""The outermost layer: who may reach the arena, from where, how much, and with which headers the answer leaves."""

from arena.guard.guard import PUBLIC_PATHS, Guard
from arena.guard.visitors import Visitors

__all__ = ["PUBLIC_PATHS", "Guard", "Visitors"]
