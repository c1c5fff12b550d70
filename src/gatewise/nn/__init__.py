"""The gates in neural networks: routers, sparse layers, and what keeps their experts in balance."""

from gatewise.nn.dispatch import dispatch
from gatewise.nn.experts import GLUBank, MLPBank, NetworkBank
from gatewise.nn.initialise import initialise_router
from gatewise.nn.known import readers as _known_readers  # noqa: F401 - it makes known routers readable
from gatewise.nn.layer import SparseMoE
from gatewise.nn.monitor import RouterMonitor
from gatewise.nn.router import Router
from gatewise.nn.schedules import TopKSchedule
from gatewise.nn.selection import Selection

__all__ = [
    "GLUBank",
    "MLPBank",
    "NetworkBank",
    "Router",
    "RouterMonitor",
    "Selection",
    "SparseMoE",
    "TopKSchedule",
    "dispatch",
    "initialise_router",
]
