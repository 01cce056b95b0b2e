"""Named keys beside the one token: what each may do, with which models, how often, and what it has used so far.

`keys.json` holds the keys and is written by the command line only; `keys-usage.json` beside it holds the counters and
is written by the server only, so neither can undo the other's work.
"""

from arena.keys.file import FILE, add, read, read_use, remove
from arena.keys.key import SCOPES, Key, Scope, Use, allows, check_model, check_scope, tokens_of_day
from arena.keys.live import Keys

__all__ = [
    "FILE",
    "SCOPES",
    "Key",
    "Keys",
    "Scope",
    "Use",
    "add",
    "allows",
    "check_model",
    "check_scope",
    "read",
    "read_use",
    "remove",
    "tokens_of_day",
]
