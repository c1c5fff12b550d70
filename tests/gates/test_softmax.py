"""The plain softmax gate under the checks that all gates share."""

import pytest

from gatewise.gates import SoftmaxGate
from tests.gates.helpers import check_all, inputs, randomise


@pytest.mark.parametrize("d", [0, 1, 3, 8])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_contract(d, k):
    gate = randomise(SoftmaxGate(d, k))
    check_all(gate, inputs(gate), exempt=("weight",) if d == 0 else ())
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == 1 + d
