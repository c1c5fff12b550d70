"""What chooses experts in a layer whose gate is given by its name, as a gate, or in a router."""

import pytest
import torch

from gatewise.exceptions import EqualLogitsWarning, InputError
from gatewise.gates import SoftmaxGate, build_gate
from gatewise.nn import Router, Selection, SparseMoE, initialise_router

D, E = 16, 8
ROUTER = Router(SoftmaxGate(D, E))


def test_a_selection_goes_with_a_gate_and_not_with_a_router():
    chosen = Selection(top_k=4, score="sigmoid")
    assert SparseMoE(D, "softmax", n_experts=E, hidden=8, selection=chosen).router.selection == chosen
    gate = build_gate("laplace", D, E)
    initialise_router(gate)
    assert SparseMoE(D, gate, hidden=8, selection=chosen).router.selection == chosen
    assert SparseMoE(D, gate, hidden=8).router.selection == Selection()
    with pytest.raises(InputError, match="a router has its own"):
        SparseMoE(D, Router(gate), hidden=8, selection=chosen)
    with pytest.raises(InputError, match="pass a selection, as"):
        SparseMoE(D, "softmax", n_experts=E, selection=4)
    with pytest.raises(InputError, match="gate_options must be a dictionary"):
        SparseMoE(D, "softmax", n_experts=E, gate_options="abc")


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "laplace", "top_k", "hierarchical", "dense_to_sparse"])
def test_a_router_as_a_fit_begins_is_warned_of(name):
    """All of these begin with logits that are the same for all tokens, or for all experts."""
    with pytest.warns(EqualLogitsWarning, match="has not been initialised"):
        SparseMoE(D, build_gate(name, D, E), hidden=8)
    with torch.device("meta"), pytest.warns(EqualLogitsWarning):
        SparseMoE(D, ROUTER, hidden=8)
    # Where all experts are chosen, or equal ones in turn, there is nothing to warn of.
    SparseMoE(D, SoftmaxGate(D, E), hidden=8, selection=Selection(top_k=E))
    SparseMoE(D, SoftmaxGate(D, E), hidden=8, selection=Selection(ties="spread"))
