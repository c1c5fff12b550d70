"""What a family is: f(y | location, dispersion), without any state of its own."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from gatewise.ops.registry import Registry


class Family(ABC):
    """A family scores a target under k distributions: (y, location, log_scale) ↦ log f(y | location, scale).

    `location` has shape (…, k) and `log_scale` broadcasts against it; both belong to the experts. A target has the
    shape of the batch, (…), and every method answers with (…, k).
    """

    name: ClassVar[str]
    has_scale: ClassVar[bool]

    @abstractmethod
    def log_density(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log density (…, k) of the target (…) under each expert."""

    @abstractmethod
    def mean(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Mean of each expert, (…, k)."""

    @abstractmethod
    def variance(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Variance of each expert, (…, k)."""

    @abstractmethod
    def distribution_function(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """P(Y ≤ y) under each expert, (…, k)."""

    @abstractmethod
    def quantile(self, probability: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """The quantile of each expert, (…, k), at probabilities of shape (…)."""

    @abstractmethod
    def sample(self, location: Tensor, log_scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw from each expert, (…, k)."""


FAMILIES: Registry[type[Family]] = Registry("family")
