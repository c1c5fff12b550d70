"""Recorded functions give in NumPy what they give in PyTorch, and more digits where there are some to give."""

import mpmath
import numpy as np
import pytest
import torch
from torch.func import functional_call, jacfwd

from gatewise.exceptions import InputError
from gatewise.experts import build_experts
from gatewise.gates import GATES, build_gate
from gatewise.theory.modulus import program as program_module
from gatewise.theory.modulus.program import derivative_program, value_program
from gatewise.theory.modulus.special import LONG, error_function

EXPERTS = [
    ("linear", {}),
    ("constant", {}),
    ("polynomial", {}),
    ("feed_forward", {"hidden": 1, "activation": "tanh"}),
    ("feed_forward", {"hidden": 1, "activation": "gelu"}),
    ("feed_forward", {"hidden": 1, "activation": "sigmoid"}),
    ("feed_forward", {"hidden": 2, "activation": "relu"}),
    ("linear", {"n_outputs": 2}),
]


def check(module, x):
    own = module.own_parameters()
    generator = np.random.default_rng(0)
    start = np.concatenate([value.numpy().reshape(-1) for value in own.values()])
    theta = start + 0.3 * generator.normal(size=len(start))

    def call(point, inputs):
        parts, at = {}, 0
        for name, value in own.items():
            parts[name] = point[at : at + value.numel()].reshape(value.shape)
            at += value.numel()
        result = functional_call(module, parts, (inputs,))
        return result[0] if isinstance(result, tuple) else result

    program, slopes = value_program(call, theta, x), derivative_program(call, theta, x)
    tensors = torch.from_numpy(theta), torch.from_numpy(x)
    found, expected = program(theta.astype(LONG), x.astype(LONG)), call(*tensors).numpy()
    assert found.dtype == LONG
    finite = np.isfinite(expected)
    assert (np.isfinite(found) == finite).all()
    assert np.abs(found[finite] - expected[finite]).max() < 1e-13
    assert np.abs(slopes(theta, x) - jacfwd(call)(*tensors).numpy())[finite].max() < 1e-13


@pytest.mark.parametrize("name", sorted(GATES))
def test_every_gate(name):
    check(build_gate(name, 2, 4).double(), np.random.default_rng(1).normal(size=(5, 2)))


@pytest.mark.parametrize(("name", "options"), EXPERTS)
def test_experts(name, options):
    check(build_experts(name, 2, 3, **options).double(), np.random.default_rng(1).normal(size=(5, 2)))


def test_error_function():
    z = np.linspace(-8.0, 8.0, 33)
    with mpmath.workdps(30):
        for place, value in zip(z, error_function(z.astype(LONG)), strict=True):
            exact = mpmath.erf(float(place))
            assert abs(mpmath.mpf(str(value)) - exact) <= mpmath.mpf("1e-18")


def test_differences_have_80_bits():
    program = value_program(torch.tanh, np.zeros(1))
    step = LONG(2) ** -60
    with mpmath.workdps(40):
        exact = mpmath.tanh(1 + mpmath.mpf(2) ** -60) - mpmath.tanh(1)
    difference = program(np.array([1 + step], LONG)) - program(np.array([1], LONG))
    assert abs(float(difference[0]) / float(exact) - 1) < 0.2


def test_writes_into_parts_are_recorded_as_values():
    def function(t):
        found = t.clone()
        found[1] = found[0] * 2
        found[0] += 5
        return found

    assert value_program(function, np.zeros(3))(np.array([1.0, 7.0, 3.0])).tolist() == [6.0, 2.0, 3.0]


def test_an_unknown_operation_is_named():
    with pytest.raises(InputError, match="bessel_j0"):
        value_program(torch.special.bessel_j0, np.ones(1))


def test_nothing_is_exact_where_the_platform_has_no_80_bit_floats(monkeypatch):
    theta, x = np.ones(2), np.ones((3, 2))

    def call(point, inputs):
        return inputs @ point

    assert value_program(call, theta, x).is_exact
    monkeypatch.setattr(program_module, "IS_EXTENDED", False)
    assert not value_program(call, theta, x).is_exact
    assert not derivative_program(call, theta, x).is_exact
