import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.parts.standardiser import Standardiser


def test_columns_are_shifted_and_divided():
    standardiser = Standardiser(torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.5]))
    x = torch.tensor([[[3.0, -1.0]], [[1.0, -2.0]]])
    assert torch.equal(standardiser(x), torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]))
    assert standardiser.log_volume().item() == pytest.approx(0.0)
    assert standardiser.n_features == 2
    assert dict(standardiser.named_parameters()) == {}


def test_the_precision_is_that_of_the_inputs():
    standardiser = Standardiser(torch.zeros(1, dtype=torch.float64), torch.full((1,), 3.0, dtype=torch.float64))
    assert standardiser(torch.ones(1, 1)).dtype == torch.float32
    assert standardiser(torch.ones(1, 1, dtype=torch.float64)).item() == 1.0 / 3.0
    assert standardiser.float()(torch.ones(1, 1, dtype=torch.float64)).dtype == torch.float64


def test_its_values_are_its_own():
    mean = torch.zeros(1)
    standardiser = Standardiser(mean, torch.ones(1))
    mean += 1.0
    assert standardiser.mean.item() == 0.0


@pytest.mark.parametrize(
    ("mean", "scale", "pattern"),
    [
        ([0.0], [1.0, 1.0], r"not \(1,\) and \(2,\) numbers"),
        ([[0.0]], [[1.0]], r"not \(1, 1\) and \(1, 1\) numbers"),
        ([0.0, 0.0], [1.0, 0.0], "column 1 has the mean 0 and the scale 0"),
        ([0.0, 0.0], [-1.0, 1.0], "column 0 has the mean 0 and the scale -1"),
        ([0.0, float("nan")], [1.0, 1.0], "column 1 has the mean nan"),
        ([0.0, 0.0], [1.0, float("inf")], "column 1 has the mean 0 and the scale inf"),
    ],
)
def test_what_does_not_standardise_is_refused(mean, scale, pattern):
    with pytest.raises(InputError, match=pattern):
        Standardiser(torch.tensor(mean), torch.tensor(scale))
