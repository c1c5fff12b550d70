"""Gates in the models of Hugging Face's transformers: swap routers, train them, keep them; make dense models sparse."""

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
from gatewise.nn.hf.upcycle import Upcycled, upcycle
from gatewise.nn.hf.upcycle_storage import load_upcycled, save_upcycled

__all__ = [
    "EXPERTS_IMPLEMENTATION",
    "AuxiliaryLoss",
    "BalanceCallback",
    "MonitorCallback",
    "Swapped",
    "Upcycled",
    "load_model",
    "load_routers",
    "load_upcycled",
    "load_with_routers",
    "restore_routers",
    "save_routers",
    "save_upcycled",
    "swap_routers",
    "train_routers_only",
    "upcycle",
]
