"""Every selection does what plain loops over tokens and experts do."""

import itertools

import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.nn import Selection
from tests.nn.plain_selection import select

N_TOKENS, N_EXPERTS = 1000, 12

PLAIN = [
    {"score": score, "renormalise": renormalise, "top_k": top_k}
    for score, renormalise, top_k in itertools.product(
        ("gate", "softmax", "sigmoid", "sqrt_softplus"), ("sum", "floored_sum", "none"), (1, 3, 12)
    )
]
OTHERS = [
    {"score": "sigmoid", "n_groups": 4, "top_groups": 2, "top_k": 4, "factor": 2.5},
    {"score": "softmax", "n_groups": 3, "top_groups": 1, "top_k": 4, "group_score": "largest", "renormalise": "none"},
    {"weights": "softmax", "top_k": 4},
    {"weights": "softmax", "top_k": 4, "n_groups": 4, "top_groups": 3},
    {"weights": "sigmoid", "top_k": 3, "renormalise": "none"},
    {"weights": "sigmoid", "top_k": 3},
    {"score": "softmax", "cap": 1.5, "factor": 0.5},
    {"score": "sigmoid", "renormalise": "floored_sum", "floor": 1.7},
    {"method": "sparse_mixer", "renormalise": "none", "mixer_epsilon": 0.2},
    {"method": "sparse_mixer", "renormalise": "none", "top_k": 3},
]


def name_of(options):
    return " ".join(map(str, options.values()))


@pytest.fixture
def logits():
    return 3.0 * torch.randn(N_TOKENS, N_EXPERTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("options", PLAIN + OTHERS, ids=name_of)
def test_a_selection_does_what_plain_loops_do(logits, options):
    selection = Selection(**options)
    # The sparse mixer has no bias.
    for biased in (False,) if selection.method == "sparse_mixer" else (False, True):
        _compare(selection, logits, biased)


def _compare(selection, logits, biased):
    bias = 0.3 * torch.randn(N_EXPERTS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights, indices = selection(logits, bias if biased else None)
    plain_bias = bias.tolist() if biased else [0.0] * N_EXPERTS
    plain = []
    for z, row_indices in zip(logits.tolist(), indices.tolist(), strict=True):
        expected = select(selection, z, plain_bias)
        assert set(row_indices) == set(expected)
        assert len(row_indices) == selection.top_k
        plain.append([expected[expert] for expert in row_indices])
    torch.testing.assert_close(weights, torch.tensor(plain, dtype=torch.float64), rtol=1e-12, atol=1e-300)


def test_an_unnormalised_gate_keeps_its_own_weights(logits):
    weights, indices = Selection(renormalise="none")(logits, normalised=False)
    torch.testing.assert_close(weights, logits.topk(2, -1).values.exp(), rtol=1e-14, atol=0.0)
    assert torch.equal(indices, logits.topk(2, -1).indices)


def test_scores_that_underflow_share_one():
    """At z = −200 a sigmoid is 0 in float32, and 0/0 no weight."""
    for score in ("sigmoid", "sqrt_softplus"):
        weights, _ = Selection(score=score)(torch.tensor([[-200.0, -201.0, -300.0]]))
        ratio = 1.0 if score == "sigmoid" else 0.5
        torch.testing.assert_close(weights, torch.softmax(torch.tensor([[0.0, -ratio]]), -1))


def test_equal_logits_are_spread_over_the_experts():
    for top_k in (1, 2, 3):
        _, indices = Selection(top_k=top_k, ties="spread")(torch.zeros(24, 8))
        assert torch.bincount(indices.reshape(-1), minlength=8).tolist() == [3 * top_k] * 8
    for top_groups, group_score in itertools.product((1, 2, 3, 4), ("two_largest", "largest")):
        selection = Selection(n_groups=4, top_groups=top_groups, group_score=group_score, ties="spread")
        assert torch.bincount(selection(torch.zeros(24, 8))[1].reshape(-1), minlength=8).tolist() == [6] * 8
    # Where nothing ties it changes nothing.
    logits = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Selection(ties="spread")(logits)[1], Selection()(logits)[1])


def test_expert_choice_fills_every_expert_with_its_best_tokens(logits):
    selection = Selection(top_k=2, method="expert_choice", renormalise="none")
    weights, indices = selection(logits)
    score = torch.softmax(logits, -1)
    capacity = -(-2 * N_TOKENS // N_EXPERTS)
    for expert in range(N_EXPERTS):
        taken = ((indices == expert) & (weights > 0.0)).any(-1)
        assert set(taken.nonzero().squeeze(-1).tolist()) == set(score[:, expert].topk(capacity).indices.tolist())
    used = weights > 0.0
    torch.testing.assert_close(weights[used], score.gather(-1, indices)[used], rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("options", [{}, {"score": "sigmoid", "n_groups": 4, "top_groups": 2, "top_k": 3}], ids=name_of)
def test_gradients_are_those_of_finite_differences(options):
    logits = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    bias = torch.linspace(-0.1, 0.1, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: Selection(**options)(z, bias)[0], logits)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"top_k": 0}, "top_k must be a whole number from 1 on"),
        ({"top_k": True}, "top_k must be a whole number from 1 on"),
        ({"score": "softmin"}, "score must be one of 'gate', 'softmax'"),
        ({"factor": 0.0}, "factor must be a positive number"),
        ({"cap": float("nan")}, "cap must be a positive number"),
        ({"top_groups": 2}, "top_groups is 2, and there are 1 groups"),
        ({"method": "sparse_mixer"}, "pass renormalise='none'"),
        ({"method": "expert_choice", "ties": "spread"}, "has no groups"),
    ],
)
def test_options_that_cannot_be(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Selection(**options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"top_k": 9}, "top_k is 9, and there are only 8 experts"),
        ({"n_groups": 3, "top_groups": 2}, "8 experts cannot be divided into 3 groups"),
        ({"n_groups": 4, "top_k": 3}, "1 groups of 2 experts hold fewer than the top_k = 3"),
        ({"n_groups": 8, "top_groups": 4}, "groups of one expert have no two largest"),
    ],
)
def test_experts_that_do_not_fit(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Selection(**options)(torch.zeros(2, 8))


def test_a_logit_that_is_no_number_is_found():
    logits = torch.zeros(4, 8)
    logits[2, 5] = float("nan")
    with pytest.raises(InputError, match="the logits of token 2 hold NaN"):
        Selection()(logits)


def test_a_sparse_mixer_of_equal_logits():
    """0/0 is near, as in phimoe's formula: an expert that was taken is out, and nobody else is."""
    selection = Selection(method="sparse_mixer", renormalise="none")
    for value in (0.0, -torch.inf, -3.0, 1e-44):
        weights, indices = selection(torch.full((1, 4), value))
        assert indices.tolist() == [[0, 1]]
        if value != -torch.inf:
            torch.testing.assert_close(weights, torch.tensor([[1 / 4, 1 / 3]]))


EVERY = [
    *({"score": score} for score in ("gate", "sigmoid", "sqrt_softplus")),
    {"score": "softmax", "renormalise": "none"},
    {"score": "sigmoid", "renormalise": "floored_sum"},
    {"weights": "softmax"},
    {"weights": "sigmoid", "renormalise": "none"},
    {"score": "sigmoid", "n_groups": 2},
    {"score": "softmax", "n_groups": 2, "group_score": "largest"},
    {"cap": 2.0},
    {"ties": "spread"},
    {"method": "sparse_mixer", "renormalise": "none"},
    {"method": "expert_choice"},
]
every = pytest.mark.parametrize("options", EVERY, ids=name_of)
ROWS = {
    "one infinite": [torch.inf, 0.0, 0.0, 0.0],
    "three left out": [-torch.inf, -torch.inf, -torch.inf, 1.0],
    "all left out": [-torch.inf] * 4,
    "both infinities": [torch.inf, torch.inf, -torch.inf, 0.0],
    "huge": [1e30, -1e30, 1e38, 3e38],
    "lowest": [-3e38] * 4,
    "subnormal": [1e-44, 2e-44, 0.0, 0.0],
}


@every
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_extreme_logits_have_finite_weights_and_gradients(options, row):
    logits = torch.tensor([row], requires_grad=True)
    weights, indices = Selection(**options)(logits)
    (weights * torch.arange(1.0, weights.shape[-1] + 1.0)).sum().backward()
    assert torch.isfinite(weights).all()
    assert torch.isfinite(logits.grad).all()
    assert len(set(indices[0].tolist())) == indices.shape[-1]


@every
def test_a_number_that_is_none_is_found_by_every_method(options):
    logits = torch.zeros(4, 8)
    logits[2, 5] = float("nan")
    with pytest.raises(InputError, match="the logits of token 2 hold NaN"):
        Selection(**options)(logits)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_it_computes_in_float32_at_least(options, dtype):
    logits = (3.0 * torch.randn(6, 8, generator=torch.Generator().manual_seed(0))).to(dtype)
    weights, indices = Selection(**options)(logits)
    expected = Selection(**options)(logits.float())
    assert weights.dtype == torch.float32
    assert torch.equal(weights, expected[0])
    assert torch.equal(indices, expected[1])


def test_a_bias_does_not_bring_back_what_the_gate_leaves_out():
    logits, bias = torch.tensor([[-torch.inf, -torch.inf, -1.0, 2.0]]), torch.tensor([5.0, 5.0, 0.0, 0.0])
    for options in ({"score": "sigmoid"}, {"weights": "softmax"}, {"cap": 1e-3}):
        weights, indices = Selection(**options)(logits, bias)
        assert set(indices[0].tolist()) == {2, 3}
        assert weights.min() > 0.0
    # No expert of another group fills the place of one that is left out.
    weights, indices = Selection(score="sigmoid", n_groups=2, top_k=2)(
        torch.tensor([[-torch.inf, 3.0, 0.1, 0.1]]), torch.tensor([0.0, 1.0, 0.0, 0.0])
    )
    assert dict(zip(indices[0].tolist(), weights[0].tolist(), strict=True)) == {0: 0.0, 1: 1.0}


def test_a_bias_that_cannot_be():
    logits, bias = torch.zeros(3, 4), torch.tensor([0.0, 0.0, float("nan"), 0.0])
    with pytest.raises(InputError, match="the bias of expert 2 is NaN"):
        Selection()(logits, bias)
    for wrong in (bias[:3], torch.zeros(3, 4)):
        with pytest.raises(InputError, match="one number for each of 4 experts"):
            Selection()(logits, wrong)
    for options in ({"method": "sparse_mixer", "renormalise": "none"}, {"method": "expert_choice"}):
        with pytest.raises(InputError, match="has no use for a correction bias"):
            Selection(**options)(logits, torch.zeros(4))
    with pytest.raises(InputError, match="an axis of experts"):
        Selection()(torch.tensor(1.0))


@pytest.mark.parametrize("options", EVERY[:-1], ids=name_of)
def test_tokens_one_by_one_under_vmap(options):
    logits = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        torch.func.vmap(lambda z: Selection(**options)(z)[0])(logits), Selection(**options)(logits)[0]
    )
