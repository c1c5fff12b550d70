"""The gates in neural networks: routers, sparse layers, and what keeps their experts in balance."""

from gatewise.nn.dispatch import dispatch
from gatewise.nn.experts import GLUBank, MLPBank, NetworkBank
from gatewise.nn.initialise import initialise_router
from gatewise.nn.known.readers import reads_known
from gatewise.nn.layer import SparseMoE
from gatewise.nn.monitor import RouterMonitor
from gatewise.nn.readers import add_reader
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

add_reader(reads_known)
