"""From all experts to a few, step by step."""

import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.gates import SoftmaxGate, build_gate
from gatewise.nn import Router, Selection, TopKSchedule


def router_of(n_experts=16, **options):
    return Router(SoftmaxGate(4, n_experts), Selection(**options))


def test_the_number_falls_by_equal_factors_and_stays():
    router = router_of()
    schedule = TopKSchedule(router, end=1, steps=4)
    seen = [router.selection.top_k]
    for _ in range(6):
        schedule.step()
        seen.append(router(torch.zeros(3, 4))[1].shape[-1])
    assert seen == [16, 8, 4, 2, 1, 1, 1]


def test_it_goes_on_where_it_was_saved():
    first = TopKSchedule(router_of(score="sigmoid"), end=2, steps=10)
    for _ in range(4):
        first.step()
    router = router_of(score="sigmoid")
    second = TopKSchedule(router, end=3, steps=7)
    second.load_state_dict(first.state_dict())
    assert router.selection == first.router.selection
    first.step()
    second.step()
    assert router.selection == first.router.selection
    with pytest.raises(InputError, match="a schedule's state has"):
        second.load_state_dict({"start": 1})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"end": 0, "steps": 3}, "top_k must be a whole number from 1 on"),
        ({"end": 2, "steps": 0}, "steps must be a whole number from 1 on"),
        ({"end": 2, "steps": 3, "start": 17}, "top_k is 17, and there are only 16 experts"),
    ],
)
def test_what_cannot_be(options, sentence):
    with pytest.raises(InputError, match=sentence):
        TopKSchedule(router_of(), **options)


def test_a_sparse_gate_starts_at_its_own_k():
    router = Router(build_gate("top_k", 4, 8, n_active=4))
    schedule = TopKSchedule(router, end=1, steps=2)
    assert router.selection.top_k == 4
    assert (router(torch.randn(5, 4))[1] > 0.0).all()
    schedule.step()
    assert router.selection.top_k == 2
    with pytest.raises(InputError, match="gives weight to 4 of its experts, not to 5"):
        TopKSchedule(router, end=1, steps=2, start=5)


@pytest.mark.parametrize("change", [{"start": 17}, {"steps": 0}, {"n_steps": "four"}, {"n_steps": -1}, {"end": 0}])
def test_a_state_that_cannot_be_changes_nothing(change):
    schedule = TopKSchedule(router_of(), end=2, steps=10)
    before = schedule.state_dict()
    with pytest.raises(InputError, match=r"must be a whole number|there are only 16 experts"):
        schedule.load_state_dict({**before, **change})
    assert schedule.state_dict() == before


def test_a_layer_is_not_a_router():
    with pytest.raises(InputError, match=r"pass a router, of a layer layer\.router, not a Linear"):
        TopKSchedule(torch.nn.Linear(2, 2), end=1, steps=1)
