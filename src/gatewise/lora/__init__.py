"""Routing among LoRA adapters that were trained apart: PHATGOOSE and its rivals, on models of transformers and peft."""

from gatewise.exceptions import MissingExtraError

try:
    import peft as _peft
    import transformers as _transformers
except ImportError as error:
    raise MissingExtraError(
        f"gatewise.lora needs peft and transformers, and {error.name} is not installed: pip install 'gatewise[lora]'"
    ) from error

from gatewise.lora.attach import RoutedModel, attach_router
from gatewise.lora.evaluation import Evaluation, evaluate, paired_interval
from gatewise.lora.gate_set import GateSet
from gatewise.lora.reading import AdapterReading, read
from gatewise.lora.retrieval import Retrieval
from gatewise.lora.routers import ROUTERS, AdapterRouting, Oracle, Setting, Single
from gatewise.lora.storage import load_and_route, load_routed, save_routed
from gatewise.lora.training import train_gates

del _peft, _transformers

__all__ = [
    "ROUTERS",
    "AdapterReading",
    "AdapterRouting",
    "Evaluation",
    "GateSet",
    "Oracle",
    "Retrieval",
    "RoutedModel",
    "Setting",
    "Single",
    "attach_router",
    "evaluate",
    "load_and_route",
    "load_routed",
    "paired_interval",
    "read",
    "save_routed",
    "train_gates",
]
