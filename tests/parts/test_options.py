"""Options are read from the signatures, so that no second list can disagree with them."""

import pytest

from gatewise.exceptions import InputError
from gatewise.experts import EXPERTS, LinearExperts, build_experts
from gatewise.families import FAMILIES, Family, Gaussian, build_family
from gatewise.gates import GATES, HierarchicalGate, SoftmaxGate, TopKGate, build_gate
from gatewise.parts.options import REQUIRED, given_or_named, part_options

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


def test_families_by_name():
    assert given_or_named("family", "binomial", Family, {"trials": 3}, build_family).trials == 3
    family = Gaussian()
    assert given_or_named("family", family, Family, None, build_family) is family
    with pytest.raises(InputError, match="family_options go with a name, and the family is Gaussian"):
        given_or_named("family", family, Family, {"df": 3}, build_family)
    with pytest.raises(InputError, match="family_options must be a dictionary from names to values, not 3"):
        given_or_named("family", "binomial", Family, 3, build_family)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: build_gate("cosine", 2, 2, temp=1),
            "the gate 'cosine' has no option 'temp': it has temperature",
        ),
        (
            lambda: build_gate("gaussian", 2, 2, joint="no"),
            "the option 'joint' of the gate 'gaussian' is true or false",
        ),
        (lambda: build_experts("linear", 2, 2, slope=1), "'linear' has no option 'slope': it takes no options"),
        (lambda: build_family("categorical"), "the family 'categorical' needs the option 'n_classes'"),
        (lambda: build_family("student_t", df="three"), "the family 'student_t' cannot take the options|df"),
    ],
)
def test_one_sentence_for_what_is_no_option(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_sizes_are_no_options_but_may_be_given():
    assert build_experts("linear", 2, 3, n_outputs=2).n_outputs == 2
