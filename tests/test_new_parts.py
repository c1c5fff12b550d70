"""A new gate, a new bank of experts and a new family are one file each, and all of the library knows what to do."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from gatewise import GatedRegressor, MixtureOfExperts, load_model
from gatewise.experts import EXPERTS, build_experts
from gatewise.families import FAMILIES
from gatewise.gates import GATES, build_gate
from gatewise.nn import Router, Selection
from gatewise.theory import MixingMeasure, identify, voronoi_loss
from gatewise.theory.modulus import BoxInputs, ModulusDesign, Search, TargetGrid, Window, modulus

GATE = '''
"""The single-index gate: slopes that are multiples of one direction, aᵢ b."""

import torch
from torch import nn

from gatewise.gates import GATES, Gate
from gatewise.gates.contrasts import contrast_quantities, contrasts, translation
from gatewise.parts.parameters import Quantity, Symmetry


@GATES.register
class SingleIndexGate(Gate):
    name = "single_index"
    formula = "a bᵀx + β"
    source = "the tests"
    per_expert = ("height", "bias")

    def __init__(self, n_features, n_experts):
        super().__init__(n_features, n_experts)
        self.height = nn.Parameter(torch.linspace(1.0, -1.0, n_experts))
        self.direction = nn.Parameter(torch.ones(n_features))
        self.bias = nn.Parameter(torch.zeros(n_experts))

    def logits(self, x):
        return (x @ self.direction).unsqueeze(-1) * self.height + self.bias

    def slope_score(self, x):
        return (x @ self.direction).unsqueeze(-1) * self.height

    def place(self, direction, point):
        own = self.own_parameters()
        self.assign_parameters({**own, "height": direction[:, 0].to(own["height"])})

    def start(self, x, shares, draws):
        own = self.own_parameters()
        return {**own, "height": draws.normal(own["height"]), "direction": draws.normal(own["direction"])}

    def symmetries(self):
        def stretched(parameters, amount):
            factor = amount.exp()
            height, direction = factor * parameters["height"], parameters["direction"] / factor
            return {**parameters, "height": height, "direction": direction}

        def turned(parameters, amount):
            return {**parameters, "height": -parameters["height"], "direction": -parameters["direction"]}

        return (
            translation("bias", 1),
            translation("height", 1),
            Symmetry("stretch", "(c a, b/c) for c > 0: c cancels in a bᵀx", 1, stretched),
            Symmetry("turn", "(−a, −b): the sign cancels in a bᵀx", 0, turned, kind="discrete"),
        )

    def identified(self, parameters):
        slopes = parameters["height"].unsqueeze(-1) * parameters["direction"]
        return contrasts(torch.cat([parameters["bias"].unsqueeze(-1), slopes], dim=-1))

    def quantities(self, features):
        return contrast_quantities(self.n_experts, ["(intercept)", *features])

    def atoms(self):
        direction = self.direction.detach().repeat(self.n_experts, 1)
        return {"gate_bias": self.bias.detach().clone(), "gate_height": self.height.detach().clone(),
                "gate_direction": direction}
'''

BANK = '''
"""Experts u v x₁ + c: only the product of u and v counts."""

import torch
from torch import nn

from gatewise.experts import EXPERTS, Experts
from gatewise.experts.base import expert_quantities
from gatewise.parts.component import Coordinates
from gatewise.parts.parameters import Symmetry


@EXPERTS.register
class ProductExperts(Experts):
    name = "product"
    formula = "u v x₁ + c"
    source = "the tests"
    per_expert = ("first", "second", "constant")

    def __init__(self, n_features, n_experts, shared_scale=False, *, n_outputs=1, n_dispersion=1):
        super().__init__(n_features, n_experts, shared_scale, n_outputs=n_outputs, n_dispersion=n_dispersion)
        self.first = nn.Parameter(torch.ones(n_experts))
        self.second = nn.Parameter(torch.linspace(-1.0, 1.0, n_experts))
        self.constant = nn.Parameter(torch.zeros(n_experts))

    def location(self, x):
        return x[..., :1] * (self.first * self.second) + self.constant

    def start(self, x, shares, coefficients, draws):
        own = {name: value for name, value in self.own_parameters().items() if name != "log_scale"}
        return draws.around(self, own)

    def symmetries(self):
        def act(parameters, amount):
            factor = amount.exp()
            return {**parameters, "first": factor * parameters["first"], "second": parameters["second"] / factor}

        return (Symmetry("stretch", "(c u, v/c): c cancels", self.n_experts, act, kind="scale"),)

    def coordinates(self, atoms):
        product = atoms["expert_first"] * atoms["expert_second"]
        return Coordinates({"expert_product": product[:, None], "expert_constant": atoms["expert_constant"][:, None]})

    def identified(self, parameters):
        product = parameters["first"] * parameters["second"]
        return torch.stack([parameters["constant"], product], dim=-1).reshape(-1)

    def quantities(self, features, outputs=("",)):
        return expert_quantities(self.n_experts, outputs, ["(intercept)", features[0]])

    def atoms(self):
        own = self.own_parameters()
        return {f"expert_{name}": own[name].clone() for name in ("first", "second", "constant")}
'''

FAMILY = '''
"""The logistic family: a location and a scale, tails like those of an exponential."""

import math

import torch

from gatewise.families import FAMILIES, Family
from gatewise.families.targets import check_finite


@FAMILIES.register
class Logistic(Family):
    name = "logistic"
    formula = "σ(z) σ(−z)/s with z = (y − h)/s"
    source = "the tests"
    is_location_scale = True
    has_scale = True

    @property
    def n_dispersion(self):
        return 1

    def check_target(self, y):
        check_finite(y, self.name)

    def log_density(self, y, location, log_scale):
        z = (y.unsqueeze(-1) - location) * torch.exp(-log_scale)
        return torch.nn.functional.logsigmoid(z) + torch.nn.functional.logsigmoid(-z) - log_scale

    def mean(self, location, log_scale):
        return location

    def variance(self, location, log_scale):
        return (math.pi**2 / 3.0 * torch.exp(2.0 * log_scale)).expand_as(location)

    def distribution_function(self, y, location, log_scale):
        return torch.sigmoid((y.unsqueeze(-1) - location) * torch.exp(-log_scale))

    def quantile(self, probability, location, log_scale):
        return location + torch.exp(log_scale) * torch.logit(probability.unsqueeze(-1))

    def sample(self, location, log_scale, generator=None):
        uniform = torch.rand(location.shape, generator=generator, dtype=location.dtype)
        return location + torch.exp(log_scale) * torch.logit(uniform)

    def information(self, location, log_scale):
        return (torch.exp(-2.0 * log_scale) / 3.0).expand_as(location)

    def rescale_dispersion(self, log_scale, scale):
        return log_scale + torch.log(scale)

    def moment_start(self, y, weight):
        share = weight / weight.sum()
        mean = share @ y
        spread = (share @ (y - mean) ** 2).clamp_min(1e-12).sqrt() * math.sqrt(3.0) / math.pi
        return mean, torch.log(spread)

    def dispersion_terms(self):
        return [("scale", True)]
'''

X = np.random.default_rng(0).uniform(-2.0, 2.0, size=(80, 2))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """What writes a part into a module of its own and imports that; what it registers is forgotten after the test."""
    for registry in (GATES, EXPERTS, FAMILIES):
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))

    def write(name, text):
        path = tmp_path / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return write


def truth_of(gate="softmax", experts="linear", family="gaussian", d=2):
    model = MixtureOfExperts.build(gate, experts, family, d, 2).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.4 * torch.randn(value.shape, generator=generator, dtype=torch.float64))
        model.experts.log_scale.fill_(-1.5)
    return model


def fitted(model, tmp_path, **names):
    """A fit to a table with standard errors, saved and loaded again."""
    y = model.sample(torch.from_numpy(X), generator=torch.Generator().manual_seed(1)).numpy()
    regressor = GatedRegressor(n_experts=2, n_starts=1, random_state=0, **names).fit(X, y)
    table = regressor.parameters_
    assert np.isfinite(table["standard_error"]).all()
    regressor.save(tmp_path / "saved")
    again = GatedRegressor.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict(X), regressor.predict(X))
    assert load_model(tmp_path / "saved").model.n_experts == 2
    return regressor


def exponent(model, name, distance="l2"):
    design = ModulusDesign(
        distance=distance,
        inputs=BoxInputs(nodes=8),
        targets=TargetGrid(nodes=21),
        window=Window(largest=0.1, smallest=1e-2, per_decade=2),
        search=Search(starts=1, polish=1),
    )
    return modulus(model, parameters=[name], design=design)[name]


def moved(model, part, *amounts):
    """The mixing measure of the model with one of its parts at another place of all its symmetries' orbits."""
    for symmetry, amount in zip(part.symmetries(), amounts, strict=True):
        own = part.own_parameters()
        part.assign_parameters({**own, **symmetry.act(own, torch.tensor(amount, dtype=torch.float64))})
    return MixingMeasure.of(model)


def test_a_gate_in_one_file(written, tmp_path):
    written("single_index_gate", GATE)
    model = truth_of(gate="single_index")
    regressor = fitted(model, tmp_path, gate="single_index")
    assert type(regressor.model_.gate).__name__ == "SingleIndexGate"

    truth = MixingMeasure.of(model)
    assert truth.translations == ("bias", "gate_height")
    # By all four at once: the loss must know each of them.
    copy = moved(model, model.gate, [0.3], [0.5], [0.7], [])
    assert voronoi_loss(copy, truth, "D1").value < 1e-9
    assert voronoi_loss(copy, truth, "D1", symmetry="none").value > 0.1
    found = identify("single_index", "linear", n_features=1)
    assert any("height" in row.text and "direction" in row.text for row in found.identities)
    assert (found.weights.further, found.weights.broken) == (0, 0)

    row = exponent(truth_of(gate="single_index", d=1), "gate.direction[0]")
    assert row.verdict()

    router = Router(build_gate("single_index", 3, 4), Selection(top_k=2))
    logits, weights, chosen = router(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    assert (logits.shape, weights.shape, chosen.shape) == ((5, 4), (5, 2), (5, 2))


def test_a_bank_in_one_file(written, tmp_path):
    written("product_experts", BANK)
    model = truth_of(experts="product")
    fitted(model, tmp_path, expert="product")
    truth = MixingMeasure.of(model)
    copy = moved(model, model.experts, [0.4, -0.3])
    assert not np.allclose(copy.parameters["expert_first"], truth.parameters["expert_first"])
    assert voronoi_loss(copy, truth, "D1").value < 1e-12
    found = identify("softmax", build_experts("product", 1, 1))
    assert any("first" in row.text and "second" in row.text for row in found.identities)
    assert exponent(truth_of(experts="product", d=1), "experts.first[0]").verdict()


def test_a_family_in_one_file(written, tmp_path):
    written("logistic_family", FAMILY)
    model = truth_of(family="logistic")
    fitted(model, tmp_path, family="logistic")
    truth = MixingMeasure.of(model)
    assert set(truth.parameters) >= {"variance"}
    copy = moved(model, model.gate, [0.4], [0.2, -0.1])
    assert voronoi_loss(copy, truth, "D1").value < 1e-12
    assert identify("softmax", "linear", "logistic", n_features=1).identities
    assert exponent(truth_of(family="logistic", d=1), "experts.bias[0]", "hellinger").verdict()
