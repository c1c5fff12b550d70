"""A fixed affine change of the inputs, kept with the model whose parts need it."""

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError

__all__ = ["Standardiser"]


class Standardiser(nn.Module):
    """X ↦ (x − mean)/scale, column by column; nothing in it is fitted.

    A gate or a bank that is affine equivariant can be fitted on standardised inputs and reported in the user's units.
    One that is not, a cosine or a sigmoid of inner products, is another model on other units: what was done to its
    inputs before the fit then belongs to the model, as this layer.

    Args:
        mean: what is subtracted (d,), in the units of x.
        scale: what is divided by (d,), positive, in the units of x.

    Raises:
        InputError: the two are not vectors of one length, or a number is not finite, or a scale is not positive.

    Example:
        >>> import torch
        >>> Standardiser(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0]))(torch.tensor([[5.0, 3.0]]))
        tensor([[2., 3.]])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        if mean.ndim != 1 or mean.shape != scale.shape:
            raise InputError(
                f"a standardiser takes a mean and a scale for each column, not {tuple(mean.shape)} and "
                f"{tuple(scale.shape)} numbers"
            )
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("scale", scale.detach().clone())
        if not mean.is_meta:
            self.check()

    @property
    def n_features(self) -> int:
        """D, the number of columns."""
        return len(self.mean)

    def check(self) -> None:
        """Refuse values that do not standardise.

        Raises:
            InputError: a number is not finite, or a scale is not positive; the message names the column.
        """
        usable = torch.isfinite(self.mean) & torch.isfinite(self.scale) & (self.scale > 0.0)
        if not usable.all():
            column = int(torch.nonzero(~usable)[0])
            raise InputError(
                f"a standardiser needs finite means and positive scales; column {column} has the mean "
                f"{self.mean[column].item():g} and the scale {self.scale[column].item():g}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """(x − mean)/scale, (…, d) ↦ (…, d), in the precision of x."""
        return ((x - self.mean) / self.scale).to(x.dtype)

    def log_volume(self) -> Tensor:
        """Σ log scale, (): a density of the standardised inputs is one of x times exp of this."""
        return self.scale.log().sum()

    def extra_repr(self) -> str:
        """The number of columns, for printing."""
        return f"n_features={self.n_features}"
