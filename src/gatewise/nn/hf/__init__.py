"""Gates in the models of Hugging Face's transformers: swap routers, train them, keep them, put the old ones back."""

from importlib import import_module

from gatewise.exceptions import MissingExtraError

try:
    for _name in ("transformers", "accelerate"):
        import_module(_name)
except ImportError as error:
    raise MissingExtraError(
        f"gatewise.nn.hf needs transformers and accelerate, and {error.name} is not installed: "
        "pip install 'gatewise[hf]'"
    ) from error

from gatewise.nn.hf.auxiliary import AuxiliaryLoss
from gatewise.nn.hf.callbacks import BalanceCallback, MonitorCallback
from gatewise.nn.hf.experts import EXPERTS_IMPLEMENTATION
from gatewise.nn.hf.loading import load_model
from gatewise.nn.hf.storage import load_routers, load_with_routers, save_routers
from gatewise.nn.hf.swap import Swapped, restore_routers, swap_routers
from gatewise.nn.hf.train import train_routers_only

__all__ = [
    "EXPERTS_IMPLEMENTATION",
    "AuxiliaryLoss",
    "BalanceCallback",
    "MonitorCallback",
    "Swapped",
    "load_model",
    "load_routers",
    "load_with_routers",
    "restore_routers",
    "save_routers",
    "swap_routers",
    "train_routers_only",
]
