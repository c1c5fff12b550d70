import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate
from scipy.stats import multivariate_normal, norm

from gatewise.exceptions import InputError
from gatewise.experts import EXPERTS, ConstantExperts, LinearExperts
from gatewise.families import FAMILIES, Categorical, Gaussian
from gatewise.gates import GATES, SoftmaxGate
from gatewise.model import MixtureOfExperts
from gatewise.parts.parameters import prefixed
from gatewise.parts.standardiser import Standardiser
from tests.helpers import brute_force_log_likelihood, mixture
from tests.mixture_reference import FAMILY_CASES, ORDERED, expert_distributions, inputs, random_mixture, targets


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


def test_build_fills_in_what_the_family_needs():
    model = MixtureOfExperts.build(
        "top_k",
        "feed_forward",
        "categorical",
        n_features=3,
        n_experts=4,
        n_gate_features=2,
        gate_options={"n_active": 2},
        expert_options={"hidden": 5},
        family_options={"n_classes": 4},
    )
    assert (model.gate.n_features, model.experts.n_features, model.n_experts) == (2, 3, 4)
    assert (model.experts.n_outputs, model.experts.n_dispersion, model.gate.own_top_k) == (3, 0, 2)
    assert model.experts.hidden == 5
    assert MixtureOfExperts.build("softmax", "constant", "student_t", 1, 2, shared_scale=True).experts.shared_scale
    gate, experts, family = SoftmaxGate(1, 2), LinearExperts(2, 2), Gaussian()
    built = MixtureOfExperts.build(gate, experts, family, n_features=2, n_experts=2, n_gate_features=1)
    assert (built.gate, built.experts, built.family) == (gate, experts, family)
    shared = LinearExperts(1, 2, shared_scale=True)
    assert MixtureOfExperts.build("softmax", shared, "gaussian", 1, 2).experts is shared


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"gate": "nothing"}, "unknown gate 'nothing'"),
        ({"gate_options": {"depth": 2}}, "the gate 'softmax' has no option 'depth': it takes no options"),
        ({"gate": SoftmaxGate(1, 2), "gate_options": {"a": 1}}, "options go with a name"),
        ({"gate": SoftmaxGate(1, 3)}, "has 1 features and 3 experts, and 1 and 2 are asked for"),
        ({"gate": SoftmaxGate(2, 2)}, "has 2 features and 2 experts, and 1 and 2 are asked for"),
        ({"experts": LinearExperts(4, 2)}, "has 4 features and 2 experts, and 1 and 2 are asked for"),
        ({"experts": LinearExperts(1, 2), "shared_scale": True}, "shared_scale=True is asked for"),
        ({"experts": LinearExperts(1, 2), "family": "poisson"}, "n_outputs=1, n_dispersion=0"),
        ({"family": "gaussian", "family_options": {"df": 3}}, "'gaussian' has no option 'df': it takes no options"),
        ({"expert_options": {"n_outputs": 7}}, "the expert 'linear' has no option 'n_outputs': it takes no options"),
    ],
)
def test_build_refuses_what_does_not_fit(changes, pattern):
    arguments = {"gate": "softmax", "experts": "linear", "family": "gaussian", **changes}
    with pytest.raises(InputError, match=pattern):
        MixtureOfExperts.build(**arguments, n_features=1, n_experts=2)


def test_parts_of_other_sizes_are_refused():
    with pytest.raises(InputError, match=r"build the experts with n_outputs=2, n_dispersion=0"):
        MixtureOfExperts(SoftmaxGate(1, 2), LinearExperts(1, 2), Categorical(3))
    scaler = Standardiser(torch.zeros(3), torch.ones(3))
    with pytest.raises(InputError, match="the standardiser of the gate has 3 columns, for 1 features"):
        MixtureOfExperts(SoftmaxGate(1, 2), LinearExperts(3, 2), Gaussian(), gate_scaler=scaler)
    with pytest.raises(InputError, match="the standardiser of the experts has 3 columns, for 1 features"):
        MixtureOfExperts(SoftmaxGate(3, 2), LinearExperts(1, 2), Gaussian(), expert_scaler=scaler)


def test_stored_standardisation_is_what_the_parts_see():
    plain = random_mixture(case="poisson")
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    scale = torch.tensor([0.5, 3.0], dtype=torch.float64)
    x, y = inputs(plain), targets("poisson")
    original = x * scale + mean
    for gate, expert in ((True, True), (True, False), (False, True)):
        model = MixtureOfExperts(
            plain.gate,
            plain.experts,
            plain.family,
            gate_scaler=Standardiser(mean, scale) if gate else None,
            expert_scaler=Standardiser(mean, scale) if expert else None,
        )
        expected = plain.log_prob(x if expert else original, y, gate_x=x if gate else original)
        torch.testing.assert_close(model.log_prob(original, y), expected)
        torch.testing.assert_close(model.log_weights(original), plain.log_weights(x if gate else original))
        only_gate = model.log_prob(x if expert else original, y, gate_x=original)
        assert (only_gate - expected).isfinite().all()
    # What is stored moves with the model and is no parameter.
    assert {"gate_scaler.mean", "gate_scaler.scale"} & set(dict(model.named_parameters())) == set()


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_joint_gate_gives_the_density_of_inputs_and_target(covariance):
    model = random_mixture(gate="gaussian", gate_options={"covariance": covariance})
    x, y = inputs(model, n=5), torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    atoms = model.atoms().gate
    experts = expert_distributions(model, "gaussian", x)
    for row in range(5):
        terms = [
            np.exp(atoms["gate_log_weight"][i])
            * multivariate_normal(atoms["gate_centre"][i], atoms["gate_covariance"][i]).pdf(x[row].numpy())
            * np.array([1.0, experts[row][i].pdf(y[row].item())])
            for i in range(3)
        ]
        marginal, joint = np.sum(terms, axis=0)
        assert model.log_joint_density(x[row], y[row]).item() == pytest.approx(np.log(joint), rel=1e-11)
        assert model.log_prob(x[row], y[row]).item() == pytest.approx(np.log(joint / marginal), rel=1e-11)
    torch.testing.assert_close(model.log_joint_density(x, y)[0], model.log_joint_density(x[0], y[0]))


def test_a_joint_density_counts_the_volume_of_a_stored_standardisation():
    model = random_mixture(gate="gaussian", d=1)
    scaler = Standardiser(torch.tensor([1.0], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64))
    scaled = MixtureOfExperts(model.gate, model.experts, model.family, gate_scaler=scaler)
    y = torch.tensor(0.2, dtype=torch.float64)

    def marginal(value):
        # ∫ p(x, y) dx at this y; experts that do not see x make it a plain mixture density of y.
        return scaled.log_joint_density(torch.tensor([value], dtype=torch.float64), y).exp().item()

    model.experts.weight.zero_()
    expected = sum(
        np.exp(log_weight) * experts.pdf(0.2)
        for log_weight, experts in zip(
            model.atoms().gate["gate_log_weight"],
            expert_distributions(model, "gaussian", torch.zeros(1, 1, dtype=torch.float64))[0],
            strict=True,
        )
    )
    assert integrate.quad(marginal, -20.0, 20.0, limit=200)[0] == pytest.approx(expected, rel=1e-8)


def test_other_gates_have_no_joint_density():
    model = random_mixture()
    with pytest.raises(InputError, match="is no density of x"):
        model.log_joint_density(inputs(model), targets("gaussian"))
    conditional = random_mixture(gate="gaussian", gate_options={"joint": False})
    with pytest.raises(InputError, match="joint=False"):
        conditional.log_joint_density(inputs(model), targets("gaussian"))


def test_weights_that_are_no_probabilities_make_a_regression_function_only():
    model = random_mixture(gate="sigmoid", gate_options={"normalised": False})
    x, y = inputs(model), targets("gaussian")
    logits = x @ model.gate.weight.T + model.gate.bias
    weights = 1.0 / (1.0 + np.exp(-logits.numpy()))
    locations = x.numpy() @ model.experts.weight.numpy().T + model.experts.bias.numpy()
    np.testing.assert_allclose(model.mean(x).numpy(), (weights * locations).sum(1), rtol=1e-12)
    assert not model.is_normalised
    assert not model.has_quantiles
    for call in (
        lambda: model.log_prob(x, y),
        lambda: model.log_joint(x, y),
        lambda: model.responsibilities(x, y),
        lambda: model.variance(x),
        lambda: model.distribution_function(x, y),
        lambda: model.quantile(x, 0.5),
        lambda: model.sample(x),
    ):
        with pytest.raises(InputError, match=r"the sigmoid gate is not normalised: .* fitted by least squares"):
            call()


def sparse_mixture(case, n_active=1):
    """A top-K mixture whose first expert, never selected for x > 0, has parameters without a finite density."""
    options = {"inner": "softmax", "n_active": n_active, "select_on": "logit"}
    model = random_mixture(gate="top_k", case=case, d=1, gate_options=options)
    model.gate.inner.weight.copy_(torch.tensor([[-5.0], [1.0], [0.9]]))
    model.gate.inner.bias.zero_()
    model.experts.bias[0] = torch.inf
    return model


@pytest.mark.parametrize("case", [name for name in FAMILY_CASES if name != "proportion"])
@pytest.mark.parametrize("n_active", [1, 2])
def test_experts_without_weight_have_no_part_in_anything(case, n_active):
    model = sparse_mixture(case, n_active)
    x = torch.tensor([[0.5], [1.5], [2.0]], dtype=torch.float64)
    y = targets(case)
    assert torch.isfinite(model.sample(x, generator=torch.Generator().manual_seed(0))).all()
    if model.family.n_dispersion:
        model.experts.log_scale[0] = torch.nan
    active = [1] if n_active == 1 else [1, 2]
    weights = torch.softmax((x @ model.gate.inner.weight.T)[:, active], -1)
    location, dispersion = model.experts(x)
    means = model.family.mean(location[:, active], dispersion[active])
    densities = model.family.log_density(y, location[:, active], dispersion[active])
    spread = weights.reshape(*weights.shape, *(1 for _ in means.shape[2:]))
    torch.testing.assert_close(model.mean(x), (spread * means).sum(1))
    torch.testing.assert_close(model.log_prob(x, y), (weights.log() + densities).logsumexp(-1))
    shares = model.responsibilities(x, y)
    assert (shares[:, 0] == 0.0).all()
    torch.testing.assert_close(shares[:, active], torch.softmax(weights.log() + densities, -1))
    assert torch.isfinite(model.variance(x)).all()
    if case in ORDERED:
        middle = model.quantile(x, 0.5)
        assert torch.isfinite(middle).all()
        assert torch.isfinite(model.distribution_function(x, middle)).all()


@pytest.mark.parametrize("case", list(FAMILY_CASES))
@pytest.mark.parametrize("output", ["log_prob", "mean", "variance", "responsibilities"])
def test_no_gradient_comes_from_experts_without_weight(case, output):
    model = sparse_mixture(case, n_active=2).requires_grad_(True)
    x = torch.tensor([[0.5], [1.5], [2.0]], dtype=torch.float64)
    arguments = (x, targets(case)) if output in ("log_prob", "responsibilities") else (x,)
    (getattr(model, output)(*arguments) ** 2).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name
            if name.startswith("experts."):
                assert (parameter.grad[0] == 0.0).all(), name


def test_a_mean_that_does_not_exist_does_not_matter_where_it_has_no_weight():
    model = sparse_mixture("student t", n_active=2)
    model.experts.bias[0] = 0.0
    model.experts.log_scale[0, 1] = -1.0
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert model.mean(x).isnan().tolist() == [False, True]
    assert model.variance(x).isnan().tolist() == [False, True]


def test_an_expert_without_weight_is_never_drawn_even_if_the_uniform_number_is_zero(monkeypatch):
    model = sparse_mixture("gaussian")
    model.experts.bias[1] = 50.0
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.zeros(shape, dtype=torch.float64))
    draws = model.sample(torch.ones(50, 1, dtype=torch.float64), generator=torch.Generator().manual_seed(1))
    assert draws.min() > 30.0


@pytest.mark.parametrize("name", list(GATES))
@pytest.mark.parametrize("experts", ["linear", "constant", "feed_forward", "polynomial", "polynomial_basis"])
def test_every_gate_and_bank_give_the_brute_force_sum(name, experts):
    model = random_mixture(gate=name, experts=experts, case="gamma")
    x, y = inputs(model), targets("gamma")
    rows = zip(expert_distributions(model, "gamma", x), y.numpy(), strict=True)
    densities = np.array([[d.pdf(value) for d in row] for row, value in rows])
    weights = model.gate(x).exp().numpy()
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(model.log_prob(x, y).numpy(), np.log((weights * densities).sum(1)), rtol=1e-11)


@pytest.mark.parametrize("name", ["softmax", "dense_to_sparse", "laplace"])
def test_gates_without_features_give_constant_weights(name):
    model = random_mixture(gate=name, n_gate_features=0)
    x, y = inputs(model), targets("gaussian")
    assert model.log_weights(x).shape == (3, 3)
    assert np.ptp(model.log_weights(x).numpy(), axis=0).max() == 0.0
    assert torch.isfinite(model.log_prob(x, y)).all()


def test_derivatives_by_torch_func_row_by_row():
    model = random_mixture(case="poisson")
    x, y = inputs(model), targets("poisson")
    offset = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def score(parameters, x, y):
        return torch.func.functional_call(Scored(model), prefixed("model", parameters), (x, y))

    rows = torch.func.vmap(torch.func.grad(score), in_dims=(None, 0, 0))(parameters, x, y)
    for row in range(3):
        one = torch.func.grad(score)(parameters, x[row], y[row])
        for name, value in one.items():
            torch.testing.assert_close(rows[name][row], value)
    assert torch.isfinite(model.log_prob(x, y, offset=offset)).all()


class Scored(torch.nn.Module):
    """A module whose forward is the log density."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        return self.model.log_prob(x, y)


@pytest.mark.parametrize(
    ("x", "pattern"),
    [
        (pd.DataFrame({"a": [1.0], "b": [2.0]}), r"x must be a torch tensor \(…, 2\) .*, not a DataFrame: give torch"),
        (np.ones((1, 2)), r"not a ndarray: .*load the folder as an estimator, whose `predict` takes tables"),
        (torch.ones(1, 3), r"x has the shape \(1, 3\), and the model takes \(…, 2\)"),
        (torch.tensor(1.0), r"x has the shape \(\)"),
    ],
)
def test_inputs_that_are_no_tensor_of_the_features(x, pattern):
    model = random_model()
    y = torch.zeros(1, dtype=torch.float64)
    for ask in (model.mean, model.log_weights, model.expert_parameters, model.variance, model.sample):
        with pytest.raises(InputError, match=pattern):
            ask(x)
    for ask in (model.log_prob, model.responsibilities):
        with pytest.raises(InputError, match=pattern):
            ask(x, y)
    with pytest.raises(InputError, match="gate_x "):
        model.mean(torch.ones(1, 2, dtype=torch.float64), x)
