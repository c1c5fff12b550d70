"""Options that are checked where a part is built."""

import pytest

from gatewise.exceptions import InputError
from gatewise.experts import build_experts
from gatewise.gates import build_gate


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("gaussian", "joint"),
        ("quadratic", "monomial"),
        ("sigmoid", "normalised"),
        ("dense_to_sparse", "free_temperature"),
        ("activation_dense_to_sparse", "free_temperature"),
    ],
)
@pytest.mark.parametrize("value", ["no", 0, 1, None])
def test_a_gate_takes_no_text_for_a_boolean(name, option, value):
    with pytest.raises(InputError, match=f"the option '{option}' of the gate '{name}' is true or false, not {value!r}"):
        build_gate(name, 2, 2, **{option: value})


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("linear", "shared_scale", "shared_scale must be true or false, not 'false'"),
        ("feed_forward", "output_bias", "the option 'output_bias' of the expert 'feed_forward' is true or false"),
    ],
)
def test_experts_take_no_text_for_a_boolean(name, option, message):
    with pytest.raises(InputError, match=message):
        build_experts(name, 2, 2, **{option: "false"})
