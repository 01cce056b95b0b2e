"""Comparisons, battles and the leaderboard as one HTML file each, to send around: no script, nothing from outside."""

from arena.share.answers import Answer, Round, answers_page
from arena.share.battle import battle_page
from arena.share.board import board_page

__all__ = ["Answer", "Round", "answers_page", "battle_page", "board_page"]
