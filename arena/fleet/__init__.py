"""The fleet: which endpoint answers, which models it holds, and who gets which request.

`Fleet.try_lease()` (or `lease()`, which may wait) chooses an endpoint and counts the request in; whoever holds the
lease tells how it went and closes it. Everything else here serves that choice.
"""

from arena.fleet.connect import connect
from arena.fleet.endpoint import DESCRIBED_S, FRESH_S, Endpoint
from arena.fleet.fleet import Fleet
from arena.fleet.lease import Lease, Usage, Wanted
from arena.fleet.spec import Auth, EndpointSpec, FleetSpec, QueueSpec, Secret, StickySpec

__all__ = [
    "DESCRIBED_S",
    "FRESH_S",
    "Auth",
    "Endpoint",
    "EndpointSpec",
    "Fleet",
    "FleetSpec",
    "Lease",
    "QueueSpec",
    "Secret",
    "StickySpec",
    "Usage",
    "Wanted",
    "connect",
]
