import copy
import math

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.experts import CallableExperts, LinearExperts, build_experts, function_names, register_function
from gatewise.families import Gaussian
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts
from gatewise.parts.parameters import Quantity, Symmetry
from tests.experts.helpers import CHECKS, check_identified, check_null_space, check_symmetries, inputs, randomise


def linear(x, eta):
    return x @ eta["slope"] + eta["intercept"]


def saturation(x, eta):
    """a·c x/(b·c + x): a, b and c are known up to one factor only, and (a, b, c) ↦ (−a, −b, −c) changes nothing."""
    a, b, c = eta["abc"]
    return a * c * x[..., 0] / (b * c + x[..., 0].abs() + 10.0)


def saturation_act(eta, t):
    factor = torch.stack([t[0].exp(), t[0].exp(), (-t[0]).exp()])
    return {"abc": eta["abc"] * factor}


SCALE = Symmetry("scale", "a and b are multiplied by s, c is divided by it", 1, saturation_act)
SIGN = Symmetry("sign", "all three change signs", 0, lambda eta, t: {"abc": -eta["abc"]})
PRODUCTS = {
    "top": lambda eta: eta["abc"][0] * eta["abc"][2],
    "half": lambda eta: eta["abc"][1] * eta["abc"][2],
}

register_function("callable test linear", linear, {"slope": (3,), "intercept": ()}, {"intercept": 2.0})
register_function(
    "callable test saturation",
    saturation,
    {"abc": (3,)},
    {"abc": [1.0, 2.0, 3.0]},
    symmetries=(SCALE, SIGN),
    identified=PRODUCTS,
)


def test_a_linear_function_gives_linear_experts():
    bank = randomise(build_experts("callable", 3, 4, function="callable test linear"))
    same = LinearExperts(3, 4).double()
    same.assign_parameters(
        {"weight": bank.slope.detach(), "bias": bank.intercept.detach(), "log_scale": bank.log_scale.detach()}
    )
    x = inputs(bank, 6)
    torch.testing.assert_close(bank.location(x), same.location(x), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(bank.location(x[0]), same.location(x[0]), rtol=1e-14, atol=1e-14)


def test_initial_values_are_those_of_the_registration_and_zero_elsewhere():
    bank = CallableExperts.of(3, 2, function="callable test linear")
    assert bank.intercept.tolist() == [2.0, 2.0]
    assert bank.slope.tolist() == [[0.0] * 3] * 2
    assert bank.per_expert == ("slope", "intercept")


def test_quantities_have_the_parameters_names():
    bank = CallableExperts(1, 2, function=lambda x, eta: x[..., 0], shapes={"one": (), "row": (2,), "table": (2, 2)})
    terms = ["one", "row[0]", "row[1]", "table[0, 0]", "table[0, 1]", "table[1, 0]", "table[1, 1]"]
    assert bank.quantities(["x"]) == [Quantity(f"expert {i}", term) for i in (1, 2) for term in terms]
    own = bank.own_parameters()
    own["table"] = torch.arange(8.0).reshape(2, 2, 2)
    own["one"] = torch.tensor([10.0, 20.0])
    assert bank.identified(own).tolist() == [10, 0, 0, 0, 1, 2, 3, 20, 0, 0, 4, 5, 6, 7]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_function_with_symmetries_keeps_the_contract(check):
    bank = randomise(build_experts("callable", 1, 2, function="callable test saturation"), seed=2, scale=0.8)
    check(bank)


def test_symmetries_act_on_each_expert():
    bank = randomise(CallableExperts(1, 3, function="callable test saturation"), scale=0.8)
    scale, *signs = bank.symmetries()
    assert scale.dimension == 3
    own = bank.own_parameters()
    moved = scale.act(own, torch.tensor([0.0, math.log(2.0), 0.0]).double())
    torch.testing.assert_close(moved["abc"][1], own["abc"][1] * torch.tensor([2.0, 2.0, 0.5]).double())
    assert torch.equal(moved["abc"][[0, 2]], own["abc"][[0, 2]])
    assert [symmetry.dimension for symmetry in signs] == [0, 0, 0]
    assert torch.equal(signs[2].act(own, torch.empty(0))["abc"], own["abc"] * torch.tensor([[1.0], [1.0], [-1.0]]))
    assert [quantity.term for quantity in bank.quantities(["x"])] == ["top", "half"] * 3


def test_an_undeclared_symmetry_would_be_found():
    """The checks themselves: without the declaration they fail."""
    bank = randomise(CallableExperts(1, 2, function=saturation, shapes={"abc": (3,)}), scale=0.8)
    for check in (check_null_space, check_identified):
        with pytest.raises(AssertionError):
            check(bank)
    wrong = Symmetry("sign", "one changes its sign", 0, lambda eta, t: {"abc": eta["abc"] * torch.tensor([1.0, 1, -1])})
    bank = CallableExperts(1, 2, function=saturation, shapes={"abc": (3,)}, symmetries=(wrong,))
    with pytest.raises(AssertionError):
        check_symmetries(randomise(bank, scale=0.8))


def test_an_unregistered_function_works_but_cannot_be_saved():
    bank = CallableExperts(1, 2, function=linear, shapes={"slope": (1,), "intercept": ()})
    model = MixtureOfExperts(SoftmaxGate(1, 2), bank, Gaussian())
    assert torch.isfinite(model.log_prob(torch.ones(4, 1), torch.zeros(4))).all()
    assert "function=<linear, not registered>" in repr(model)
    assert "not registered" in repr(CallableExperts(1, 1, function=np.sin, shapes={"a": ()}))
    with pytest.raises(InputError, match="not saved, for their function has no registered name"):
        bank.options()
    again = copy.deepcopy(bank)
    assert torch.equal(again.location(torch.ones(1, 1)), bank.location(torch.ones(1, 1)))


def test_the_model_reaches_every_parameter_of_the_function():
    bank = randomise(build_experts("callable", 3, 2, function="callable test linear"))
    model = MixtureOfExperts(SoftmaxGate(3, 2).double(), bank, Gaussian())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, dtype=torch.float64, generator=generator)
    model.log_prob(x, x[:, 0]).sum().backward()
    for name, parameter in bank.named_parameters():
        assert bool((parameter.grad != 0.0).all()), name


@pytest.mark.parametrize(
    ("function", "shape"),
    [(lambda x, eta: eta["a"], r"\(\)"), (lambda x, eta: x * eta["a"], r"\(5, 1\)"), (lambda x, eta: 1.0, "float")],
    ids=["no batch axis", "an axis too many", "no tensor"],
)
def test_a_function_of_another_shape_is_refused(function, shape):
    bank = CallableExperts(1, 2, function=function, shapes={"a": ()})
    with pytest.raises(InputError, match=rf"inputs of shape \(5, 1\) .* tensor of shape \(5,\), not .*{shape}"):
        bank.location(torch.ones(5, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"function": "no such function"}, "unknown function 'no such function': register it by"),
        ({"function": 3}, "function must be a function or the name of one, not 3"),
        ({"function": linear}, "name at least one in shapes"),
        ({"function": "callable test linear", "shapes": {"slope": (3,)}}, "leave them out"),
        ({"function": linear, "shapes": {"log_scale": ()}}, "cannot be called 'log_scale'"),
        ({"function": linear, "shapes": {"shapes": ()}}, "cannot be called 'shapes'"),
        ({"function": linear, "shapes": {"forward": ()}}, "cannot be called 'forward'"),
        ({"function": linear, "shapes": {"a.b": ()}}, "cannot be called 'a.b'"),
        ({"function": linear, "shapes": {"_function": ()}}, "cannot be called '_function'"),
        ({"function": linear, "shapes": {"a": (0,)}}, "shape of 'a' must be a tuple of positive whole numbers"),
        ({"function": linear, "shapes": {"a": 3}}, "shape of 'a' must be a tuple of positive whole numbers, not 3"),
        ({"function": linear, "shapes": {"a": (2,)}, "initial": {"b": 1.0}}, r"given for \['b'\]"),
        ({"function": linear, "shapes": {"a": (2,)}, "initial": {"a": 1.0}}, r"'a' must be \(2,\) finite numbers"),
        ({"function": linear, "shapes": {"a": ()}, "initial": {"a": math.nan}}, "finite numbers, not nan"),
        ({"function": linear, "shapes": {"a": ()}, "symmetries": (SCALE,)}, "give in `identified` the functions"),
        ({}, "cannot take the options {}"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        CallableExperts.of(1, 2, **options)


def test_names_are_given_once():
    assert "callable test linear" in function_names()
    with pytest.raises(InputError, match="'callable test linear' is registered already"):
        register_function("callable test linear", linear, {"slope": (1,)})
    with pytest.raises(InputError, match="non-empty string"):
        register_function("", linear, {"slope": (1,)})
    with pytest.raises(InputError, match="cannot be called 'location'"):
        register_function("callable test broken", linear, {"location": ()})
    assert "callable test broken" not in function_names()


def test_a_registration_is_not_changed_from_outside():
    shapes, initial = {"a": (1,)}, {"a": [3.0]}
    register_function("callable test frozen", lambda x, eta: x @ eta["a"], shapes, initial)
    shapes["b"], initial["a"] = (), [4.0]
    bank = CallableExperts(1, 1, function="callable test frozen")
    assert set(bank.shapes) == {"a"}
    assert bank.a.tolist() == [[3.0]]
