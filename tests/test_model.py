import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import norm

from gatewise.exceptions import InputError
from gatewise.experts import EXPERTS, ConstantExperts, LinearExperts
from gatewise.families import FAMILIES, Gaussian
from gatewise.gates import GATES, SoftmaxGate
from gatewise.model import MixtureOfExperts
from tests.helpers import brute_force_log_likelihood, mixture


def random_model(n_features=2, n_gate_features=2, k=3, seed=0, **options):
    model = mixture(n_features, n_gate_features, k, **options).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
        model.experts.log_scale.mul_(0.3).sub_(1.0)
    return model.requires_grad_(False)


def data(model, n=11, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, model.experts.n_features, dtype=torch.float64, generator=generator)
    return x, torch.randn(n, dtype=torch.float64, generator=generator)


def design(x):
    return np.vstack([np.ones(len(x)), x.numpy().T])


def test_log_prob_equals_the_brute_force_sum():
    model = random_model()
    x, y = data(model)
    gate = np.column_stack([model.gate.bias, model.gate.weight])
    coefficients = np.column_stack([model.experts.bias, model.experts.weight])
    for row in range(len(x)):
        one = slice(row, row + 1)
        expected = brute_force_log_likelihood(
            gate,
            coefficients,
            model.experts.log_scale.numpy(),
            design(x[one]),
            design(x[one]),
            y[one].numpy(),
            [1.0],
        )
        assert model.log_prob(x[one], y[one]).item() == pytest.approx(expected, rel=1e-13)


def test_leading_axes_are_kept():
    model = random_model()
    x, y = data(model, n=12)
    grid_x, grid_y = x.reshape(3, 4, 2), y.reshape(3, 4)
    for name, arguments, flat in (
        ("log_prob", (grid_x, grid_y), (x, y)),
        ("mean", (grid_x,), (x,)),
        ("variance", (grid_x,), (x,)),
        ("quantile", (grid_x, 0.3), (x, 0.3)),
        ("responsibilities", (grid_x, grid_y), (x, y)),
        ("log_weights", (grid_x,), (x,)),
    ):
        shaped = getattr(model, name)(*arguments)
        assert shaped.shape[:2] == (3, 4)
        torch.testing.assert_close(shaped.flatten(0, 1), getattr(model, name)(*flat))
    assert model.sample(grid_x).shape == (3, 4)


def test_moments_equal_numerical_integration_of_the_density():
    model = random_model()
    x, _ = data(model, n=3)
    for row in range(3):

        def density(value, row=row):
            return model.log_prob(x[row], torch.tensor(value, dtype=torch.float64)).exp().item()

        mass, mean, square = (integrate.quad(lambda v, j=j: v**j * density(v), -40, 40, limit=400)[0] for j in range(3))
        assert mass == pytest.approx(1.0, abs=1e-9)
        assert model.mean(x[row]).item() == pytest.approx(mean, abs=1e-8)
        assert model.variance(x[row]).item() == pytest.approx(square - mean**2, abs=1e-7)


@pytest.mark.parametrize("probability", [1e-6, 0.05, 0.5, 0.975])
def test_quantile_inverts_the_distribution_function(probability):
    model = random_model()
    x, _ = data(model, n=40)
    y = model.quantile(x, probability)
    weights, (location, log_scale) = model.log_weights(x).exp(), model.experts(x)
    below = (weights.numpy() * norm.cdf(y[:, None].numpy(), location.numpy(), log_scale.exp().numpy())).sum(1)
    np.testing.assert_allclose(below, probability, rtol=1e-9)
    torch.testing.assert_close(model.distribution_function(x, y), torch.from_numpy(below))


def test_quantile_of_equal_experts_and_of_one_expert_is_the_familys():
    for k in (1, 2):
        model = mixture(1, 0, k).double()
        x = torch.zeros(4, 1, dtype=torch.float64)
        np.testing.assert_allclose(model.quantile(x, 0.9).numpy(), norm.ppf(0.9), rtol=1e-12)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, float("nan")])
def test_quantile_refuses_impossible_probabilities(probability):
    with pytest.raises(InputError, match="strictly between 0 and 1"):
        mixture(1, 1, 2).quantile(torch.zeros(1, 1), probability)


def test_samples_follow_the_model():
    model = random_model()
    x, _ = data(model, n=1)
    many = x.expand(40000, 2)
    draws = model.sample(many, generator=torch.Generator().manual_seed(7))
    # Kolmogorov's distance of 40,000 draws exceeds 0.01 with probability 7e-4 under the model; the seed is fixed.
    grid = torch.linspace(-4, 4, 81, dtype=torch.float64)
    empirical = (draws[:, None] <= grid).double().mean(0)
    assert (empirical - model.distribution_function(x.expand(81, 2), grid)).abs().max() < 0.01
    again = model.sample(many, generator=torch.Generator().manual_seed(7))
    assert torch.equal(draws, again)


def test_gate_inputs_may_differ_from_expert_inputs():
    model = random_model(n_features=2, n_gate_features=1)
    x, y = data(model)
    expected = model.gate(x[:, :1]) + model.family.log_density(y, *model.experts(x))
    torch.testing.assert_close(model.log_prob(x, y, gate_x=x[:, :1]), torch.logsumexp(expected, -1))
    constant = random_model(n_features=2, n_gate_features=0)
    assert constant.log_weights(x).std(0).max() == 0.0


def test_responsibilities_are_bayes_rule():
    model = random_model(shared_scale=True, constant=True)
    x, y = data(model)
    joint = model.log_weights(x).exp() * model.family.log_density(y, *model.experts(x)).exp()
    torch.testing.assert_close(model.responsibilities(x, y), joint / joint.sum(-1, keepdim=True))


def test_atoms_are_the_mixing_measure_with_variances():
    model = random_model()
    atoms = model.atoms()
    np.testing.assert_array_equal(atoms.gate["gate_slope"], model.gate.weight)
    np.testing.assert_array_equal(atoms.expert["expert_intercept"], model.experts.bias)
    np.testing.assert_allclose(atoms.variance, np.exp(model.experts.log_scale.numpy()) ** 2)
    shared = random_model(shared_scale=True).atoms()
    assert shared.variance.shape == (3,)
    assert np.ptp(shared.variance) == 0.0


def test_translating_the_gate_changes_nothing():
    model = random_model()
    x, y = data(model)
    before = model.log_prob(x, y)
    model.gate.weight += torch.tensor([3.0, -2.0])
    model.gate.bias += 5.0
    torch.testing.assert_close(model.log_prob(x, y), before, rtol=1e-12, atol=1e-12)


def test_every_derivative_reaches_every_parameter():
    model = random_model().requires_grad_(True)
    x, y = data(model)
    model.log_prob(x, y).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad != 0.0).all(), name


def test_wrong_sizes_are_refused():
    with pytest.raises(InputError, match="the gate has 2 experts and the bank 3"):
        MixtureOfExperts(SoftmaxGate(1, 2), LinearExperts(1, 3), Gaussian())


@pytest.mark.parametrize(
    ("registry", "name", "cls"),
    [(GATES, "softmax", SoftmaxGate), (EXPERTS, "constant", ConstantExperts), (FAMILIES, "gaussian", Gaussian)],
)
def test_registries_know_their_classes_and_refuse_others(registry, name, cls):
    assert registry[name] is cls
    assert name in list(registry)
    with pytest.raises(InputError, match=f"unknown {registry.kind} 'os.system': choose one of"):
        registry["os.system"]
