"""Values come back as they were, from JSON and arrays alone; what is of no kind is refused on either side."""

import json
import math
from datetime import date

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.experts import LinearExperts
from gatewise.families import Gaussian
from gatewise.fit.status import Finding, FitStatus
from gatewise.gates import SoftmaxGate
from gatewise.io import fit_kinds  # noqa: F401 (enters the kinds of a fit)
from gatewise.io.pack import Packer, Unpacker
from gatewise.model import MixtureOfExperts


def returned(value):
    """The value after a way through JSON."""
    packer = Packer()
    packed = json.loads(json.dumps(packer.pack(value), allow_nan=False))
    return Unpacker(packer.arrays, json.loads(json.dumps(packer.shared))).unpack(packed)


VALUES = {
    "plain": [None, True, False, 0, -3, 2**130, "x", "$", 0.1, -0.0, 5e-324],
    "tuples in lists in dictionaries": {"a": [(1, ("b",)), ()], "c": {}},
    "keys of other kinds": {1: "a", ("b", 2): [None]},
    "a key that names kinds": {"$": "tuple", "items": [1]},
    "findings": (Finding(FitStatus.ON_FLOOR, "so it is", {"experts": (0, 1), "floor": 0.5}),),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_values_are_equal_and_of_the_same_types(value):
    assert repr(returned(value)) == repr(value)


def test_what_is_not_finite():
    found = returned([math.nan, math.inf, -math.inf, np.float64("nan")])
    assert math.isnan(found[0])
    assert found[1:3] == [math.inf, -math.inf]
    assert math.isnan(found[3])


ARRAYS = {
    "float64": np.array([[1.0, np.nan], [-0.0, np.inf]]),
    "float32": np.float32([1.5]),
    "no axis": np.array(2.5),
    "empty": np.empty((0, 3)),
    "whole numbers": np.arange(4, dtype=np.uint64),
    "booleans": np.array([True, False]),
    "big-endian": np.arange(3.0).astype(">f8"),
    "every second": np.arange(6.0)[::2],
    "Fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "text": np.array([["a", "längst"], ["", "b"]]),
    "objects": np.array(["a", 1, None], dtype=object),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays(array):
    found = returned({"deep": (array,)})["deep"][0]
    assert found.shape == array.shape
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.tolist() == array.tolist() or np.array_equal(found, array, equal_nan=True)


def test_tensors_and_numbers_of_numpy():
    tensor = torch.tensor([[1.0, 2.0]], dtype=torch.float32)
    assert torch.equal(returned(tensor), tensor)
    assert returned([np.int64(3), np.bool_(True), np.float32(0.5)]) == [3, True, 0.5]


@pytest.mark.parametrize("name", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_generators_go_on_where_they_were(name):
    generator = np.random.Generator(getattr(np.random, name)(4))
    generator.normal(size=3)
    found = returned(generator)
    assert found.normal(size=5).tolist() == generator.normal(size=5).tolist()


def test_the_old_generator_goes_on_too():
    generator = np.random.RandomState(4)
    generator.normal(size=3)
    assert returned(generator).normal(size=4).tolist() == generator.normal(size=4).tolist()


def test_one_model_stays_one_model():
    model = MixtureOfExperts(SoftmaxGate(1, 2), LinearExperts(1, 2), Gaussian()).double()
    one, other, gate = returned([model, (model,), model.gate])
    assert other[0] is one
    assert gate is not one.gate
    assert torch.equal(one.gate.weight, model.gate.weight)
    assert not any(parameter.requires_grad for parameter in one.parameters())
    packer = Packer([model])
    packed = packer.pack([model])
    assert Unpacker(packer.arrays, packer.shared, [model]).unpack(packed)[0] is model
    assert packer.arrays == {}


class OtherGate(SoftmaxGate):
    """Takes the registered name of another class."""


@pytest.mark.parametrize(
    "value", [date(2026, 1, 1), {1, 2}, b"x", len, np.array(["2026-01-01"], dtype="datetime64[D]"), OtherGate(1, 2)]
)
def test_what_is_of_no_kind(value):
    with pytest.raises(InputError, match=r"cannot be saved"):
        Packer().pack({"a": [value]})


@pytest.mark.parametrize(
    ("packed", "pattern"),
    [
        ({"$": "os.system"}, r"no kind of value 'os\.system'"),
        ({"$": ["tuple"]}, "no kind of value"),
        ({"$": "tuple"}, "no tuple can be made"),
        ({"$": "array", "name": "7"}, "there is no array '7'"),
        ({"$": "array", "width": 10**9, "items": ["a"], "shape": [1]}, "no text has 1000000000 characters"),
        ({"$": "array", "width": 0, "items": ["a"], "shape": [2]}, "no array can be made"),
        ({"$": "float", "value": "huge"}, "no float can be made"),
        ({"$": "mapping", "items": [[[1], 2]]}, "no mapping can be made"),
        ({"$": "shared"}, "no shared can be made"),
        ({"$": "shared", "place": 0}, "there is no object 0"),
        ({"$": "FitStatus", "name": "FINE"}, "no FitStatus can be made"),
        ({"$": "Finding", "fields": {"code": "x", "message": "y"}}, "the field 'code' of a Finding cannot be a str"),
        ({"$": "Finding", "fields": {"more": 1}}, "the field 'more' of a Finding"),
        ({"$": "Finding", "fields": {}}, "no Finding can be made"),
        ({"$": "generator", "state": {"bit_generator": "os"}}, "no generator can be made"),
        ({"$": "family", "config": {"name": "cauchy"}}, "unknown family 'cauchy'"),
        ({"$": "family", "config": 3}, "FamilyConfig"),
        (
            {
                "$": "gate",
                "config": {"name": "softmax", "n_features": 10**6, "n_experts": 99},
                "dtype": "float64",
                "arrays": {},
            },
            r"holds 'bias' as None, and float64 \(99,\) is needed",
        ),
    ],
)
def test_what_no_value_is_made_of(packed, pattern):
    with pytest.raises(InputError, match=pattern):
        Unpacker({}, []).unpack(packed)
