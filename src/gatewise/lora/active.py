"""Which adapters are active, and which parameters want gradients: changed for a while, and put back."""

from collections.abc import Sequence
from typing import Any

from peft import PeftModel

__all__ = ["Active"]


class Active:
    """Which adapters were active, and which parameters wanted gradients, when this was made.

    Args:
        model: of peft.
    """

    def __init__(self, model: PeftModel) -> None:
        self._model = model
        tuner: Any = model.base_model
        self._names = [str(name) for name in tuner.active_adapters]
        self._wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}

    def activate(self, adapters: Sequence[str]) -> None:
        """Make these active, without setting their parameters free for training, as peft would."""
        self._set(list(adapters))

    def restore(self) -> None:
        """As it was; where none of the adapters is left, the first one is active."""
        known = [name for name in self._names if name in self._model.peft_config]
        self._set(known or list(self._model.peft_config)[:1])

    def _set(self, names: list[str]) -> None:
        wanted = {name: parameter.requires_grad for name, parameter in self._model.named_parameters()}
        # Of parameters that came later, what holds now.
        wanted |= {name: flag for name, flag in self._wanted.items() if name in wanted}
        tuner: Any = self._model.base_model
        tuner.set_adapter(names if len(names) > 1 else names[0])
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(wanted[name])
