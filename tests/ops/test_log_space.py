import pytest
import torch

from gatewise.ops.log_space import log_softmax, logsumexp

INF = float("inf")
CASES = {
    "ordinary": [0.3, -1.0, 2.0],
    "one minus infinity": [0.3, -INF, 2.0],
    "all minus infinity": [-INF, -INF, -INF],
    "one plus infinity": [0.3, INF, 2.0],
    "two plus infinities": [INF, INF, 0.0],
    "both infinities": [-INF, INF, 0.0],
    "huge": [1e300, -1e300, 0.0],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [logsumexp, log_softmax])
def test_gradients_are_finite_everywhere(case, dtype, function):
    x = torch.tensor(CASES[case], dtype=dtype, requires_grad=True)
    value = function(x)
    value[torch.isfinite(value)].sum().backward() if function is log_softmax else value.backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("case", CASES)
def test_values_equal_the_limits(case):
    x = torch.tensor(CASES[case], dtype=torch.float64)
    assert torch.equal(logsumexp(x), torch.logsumexp(x, -1))
    weights = log_softmax(x).exp()
    assert torch.isclose(weights.sum(), torch.tensor(1.0, dtype=torch.float64), rtol=1e-15)
    assert torch.equal(weights == 0.0, (x < x.max()) & ((x.max() == INF) | (x.max() - x > 700.0)))


def test_derivatives_agree_with_torch_where_torch_has_them():
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for ours, theirs in ((logsumexp, torch.logsumexp), (log_softmax, torch.log_softmax)):
        for order in (torch.func.jacrev, torch.func.hessian):
            torch.testing.assert_close(order(lambda z, f=ours: f(z, -1))(x), order(lambda z, f=theirs: f(z, -1))(x))
