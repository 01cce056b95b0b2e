"""What the arena keeps: votes, battles, configurations, kept documents and snapshots, in SQLite or PostgreSQL."""

from arena.store.backup import backup, check_apart, readable, restore
from arena.store.battles import Side, StoredBattle
from arena.store.caps import Caps
from arena.store.cells import CellFilter
from arena.store.database import same_file
from arena.store.documents import Document, Kind, Snapshot
from arena.store.files import own_descriptor, replacing
from arena.store.rows import Damaged
from arena.store.store import PART_ROWS, Store, url_of

__all__ = [
    "PART_ROWS",
    "Caps",
    "CellFilter",
    "Damaged",
    "Document",
    "Kind",
    "Side",
    "Snapshot",
    "Store",
    "StoredBattle",
    "backup",
    "check_apart",
    "own_descriptor",
    "readable",
    "replacing",
    "restore",
    "same_file",
    "url_of",
]
