"""Blind battles: a pair drawn and sealed on the server, two answers at one pace, one vote, then the reveal."""

from arena.battle.battle import BattleState, Mode
from arena.battle.battles import Battles, Contest, Turn, Voter
from arena.battle.direct import Column
from arena.battle.draw import Pairing, drawn
from arena.battle.pace import Shown
from arena.battle.reveal import BattleView, RevealedSide

__all__ = [
    "BattleState",
    "BattleView",
    "Battles",
    "Column",
    "Contest",
    "Mode",
    "Pairing",
    "RevealedSide",
    "Shown",
    "Turn",
    "Voter",
    "drawn",
]
