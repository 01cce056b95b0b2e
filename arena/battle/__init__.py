"""Blind battles: models drawn and sealed on the server, their answers at one pace, one vote, then the reveal."""

from arena.battle.ballot import Ballot, ranks
from arena.battle.battle import BattleState, Mode
from arena.battle.battles import Battles, Contest, Turn, Voter
from arena.battle.direct import Column
from arena.battle.draw import Drawing, Standing, drawn, joined, newcomer
from arena.battle.leaks import without_names
from arena.battle.pace import Shown
from arena.battle.reveal import BattleView, RevealedSide

__all__ = [
    "Ballot",
    "BattleState",
    "BattleView",
    "Battles",
    "Column",
    "Contest",
    "Drawing",
    "Mode",
    "RevealedSide",
    "Shown",
    "Standing",
    "Turn",
    "Voter",
    "drawn",
    "joined",
    "newcomer",
    "ranks",
    "without_names",
]
