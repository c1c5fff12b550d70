import importlib

import pytest
import torch

from gatewise.gates import SoftmaxGate
from gatewise.gates.base import GateLogits
from gatewise.nn.known import CONTRACTS, REFUSALS, contract_of, refusal_of
from gatewise.nn.known.readers import KnownRouterReader
from gatewise.nn.readers import readers_of
from tests.nn.known.routers import OTHERS, D, E, call, every_class, random_router

pytest.importorskip("transformers")

CASES = [(path, contract, {}) for _, path, contract in every_class()]
CASES += [
    (next(iter(contract.routers.values())), contract, options)
    for contract in CONTRACTS
    for options in OTHERS
    if not (options.get("n_group", 0) is None and not any("topk_method" in o.words for o in contract.options.values()))
]


@pytest.mark.parametrize(("path", "contract", "options"), CASES)
def test_a_contract_does_what_its_class_does(path, contract, options):
    router, layer = random_router(path, contract, **options)
    x = torch.randn(48, D, generator=torch.Generator().manual_seed(5))
    if path.endswith("AfmoeTokenChoiceRouter"):
        # Its layer passes batches of sequences; the layers of all others pass, or may pass, one row of tokens.
        x = x.reshape(2, 24, D)
    arguments, outputs = call(router, layer, contract, x)
    reader = readers_of(layer)["gate"]
    assert reader.n_experts == E
    assert torch.equal(reader.tokens(arguments, {}), x.reshape(-1, D))
    assert torch.equal(reader.tokens((), {"hidden_states": x}), x.reshape(-1, D))
    read = reader.routing(arguments, {}, outputs)
    assert read.logits.dtype == read.weights.dtype == torch.float32

    # From the tokens: the weight as the contract has it, and the selection of the router itself.
    gate = SoftmaxGate(D, E)
    with torch.no_grad():
        gate.weight.copy_(router.get_parameter(contract.weight))
        gate.bias.copy_(router.get_parameter(contract.gate_bias) if contract.gate_bias else torch.zeros(E))
        logits = GateLogits(gate)(x.reshape(-1, D))
    torch.testing.assert_close(
        read.logits, contract.selection(router).capped(logits) if contract.capped else logits, rtol=0, atol=1e-5
    )
    if contract.skipped:
        return
    weights, indices = contract.selection(router)(logits, reader.correction_bias)
    # In float32, with both sorted by expert: the classes differ in the order of the chosen ones.
    order, own = indices.argsort(-1), read.indices.argsort(-1)
    assert torch.equal(indices.gather(-1, order), read.indices.gather(-1, own))
    torch.testing.assert_close(weights.gather(-1, order), read.weights.gather(-1, own), rtol=0, atol=1e-5)


@pytest.mark.parametrize("contract", [contract for contract in CONTRACTS if contract.bias])
def test_the_bias_that_is_read_is_the_one_that_acts(contract):
    path = next(iter(contract.routers.values()))
    router, layer = random_router(path, contract)
    bias = readers_of(layer)["gate"].correction_bias
    assert bias is not None
    bias.zero_()
    bias[4] = 100.0
    _, (_, _, indices) = call(router, layer, contract, torch.randn(*((1, 9) if "afmoe" in path else (9,)), D))
    assert bool((indices == 4).any(-1).all())


def test_a_bias_that_the_layer_keeps_is_out_of_reach_without_it():
    contract = next(contract for contract in CONTRACTS if contract.bias and contract.bias.place == "argument")
    router, _ = random_router(next(iter(contract.routers.values())), contract)
    assert KnownRouterReader(router, None, contract).correction_bias is None


def test_model_types_and_classes_are_those_of_transformers():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for row in (*CONTRACTS, *REFUSALS):
        for model_type, path in row.routers.items():
            module, _, name = path.partition(":")
            cls = getattr(importlib.import_module(module), name)
            assert model_type in CONFIG_MAPPING
            found = cls.__new__(cls)
            assert (contract_of(found) or refusal_of(found)) is row


def test_an_option_that_is_not_known_is_refused_with_its_name():
    contract, path = next(
        (contract, path) for _, path, contract in every_class() if path.endswith("DeepseekV2TopkRouter")
    )
    router, _ = random_router(path, contract)
    router.topk_method = "noaux_tc"
    with pytest.raises(ValueError, match="a DeepseekV2TopkRouter with topk_method = 'noaux_tc' is not known"):
        contract.selection(router)
