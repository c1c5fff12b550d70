"""Options are read from the signatures, so that no second list can disagree with them."""

import numpy as np
import pytest

from gatewise.estimators.parts import REQUIRED, linear_coefficients, named_family, part_options
from gatewise.exceptions import InputError
from gatewise.experts import EXPERTS, ConstantExperts, LinearExperts, PolynomialExperts
from gatewise.families import FAMILIES
from gatewise.gates import GATES, HierarchicalGate, LaplaceGate, SoftmaxGate, TopKGate

SIZES = {"n_features", "n_experts", "shared_scale", "n_outputs", "n_dispersion"}
NEEDED = {"function": "none", "n_classes": 3, "n_targets": 2}


def test_options_and_their_defaults():
    assert part_options(SoftmaxGate) == {}
    assert part_options(TopKGate) == {"inner": "softmax", "n_active": 1, "select_on": "slope", "inner_options": None}
    assert list(part_options(HierarchicalGate)) == ["groups", "outer", "inner", "outer_options", "inner_options"]
    assert part_options(LinearExperts) == {}
    assert part_options(FAMILIES["categorical"]) == {"n_classes": REQUIRED}
    assert part_options(FAMILIES["student_t"]) == {"df": None}


@pytest.mark.parametrize(
    "cls", [registry[name] for registry in (GATES, EXPERTS, FAMILIES) for name in registry], ids=lambda cls: cls.name
)
def test_the_options_are_those_that_a_part_tells_of_itself(cls):
    """What `options()` gives back is what may be given; a callable expert needs a function to say so."""
    known = part_options(cls)
    assert not SIZES & set(known)
    if cls.name == "callable":
        return
    given = {name: NEEDED[name] for name, default in known.items() if default is REQUIRED}
    part = cls.of(**given) if cls in [FAMILIES[name] for name in FAMILIES] else cls.of(2, 2, **given)
    assert set(part.options()) <= set(known)


class Anything:
    name = "anything"

    def __init__(self, **options):
        self.options = options

    @classmethod
    def of(cls, **options):
        return cls(**options)


def test_a_part_that_takes_any_names():
    assert part_options(Anything) is None


def test_coefficients_of_linear_parts():
    np.testing.assert_array_equal(linear_coefficients(SoftmaxGate(2, 3)), np.zeros((3, 3)))
    np.testing.assert_array_equal(linear_coefficients(ConstantExperts(2, 3)), np.zeros((3, 1)))
    assert linear_coefficients(LinearExperts(2, 3, n_outputs=2)).shape == (3, 2, 3)
    assert linear_coefficients(LaplaceGate(2, 3)) is None
    assert linear_coefficients(PolynomialExperts(2, 3)) is None


def test_families_by_name():
    assert named_family("binomial", {"trials": 3}).trials == 3
    with pytest.raises(InputError, match="the family 'categorical' needs the option 'n_classes'"):
        named_family("categorical", None)
