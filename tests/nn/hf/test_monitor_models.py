"""The monitor on every type of transformers' models: silent on a healthy one, and right about one that is not."""

import pytest
import torch

from gatewise.nn import RouterMonitor
from gatewise.nn.readers import readers_of
from tests.nn.hf.planted import plant_collapse
from tests.nn.hf.tiny_models import MORE_TYPES, TYPES, tiny_model, tiny_tokens

pytest.importorskip("transformers")

# Two groups of two, as the groups of some types ask for.
PLANTED = (2, 5)


@pytest.fixture(scope="module", params=(*TYPES, *MORE_TYPES))
def model(request):
    """Logits of sd 1, correction biases 0, tables of token ids at random."""
    return tiny_model(request.param, bias=0.0)


def counted_by_loops(model, ids, mask):
    """Slots of each expert by plain loops over what the routers gave."""
    seen = {}
    handles = [
        reader.module.register_forward_hook(lambda module, inputs, outputs, name=name: seen.update({name: outputs}))
        for name, reader in readers_of(model).items()
    ]
    with torch.no_grad():
        model(ids, attention_mask=mask)
    for handle in handles:
        handle.remove()
    found = {}
    for name, outputs in seen.items():
        counts = [0] * readers_of(model)[name].n_experts
        rows = outputs[2].reshape(-1, outputs[2].shape[-1]).tolist()
        for row, counts_token in zip(rows, mask.reshape(-1).tolist(), strict=True):
            for expert in row:
                counts[expert] += counts_token
        found[name] = counts
    return found


def test_a_healthy_model_gets_no_warning_and_a_collapse_is_named(model):
    ids = tiny_tokens(8, 48)
    mask = torch.ones_like(ids)
    mask[0, 30:] = 0
    with RouterMonitor(model) as monitor, torch.no_grad():
        model(ids, attention_mask=mask)
    assert [finding.sentence for finding in monitor.findings()] == []
    assert monitor.summary()["tokens"].tolist() == [int(mask.sum())] * len(monitor.layers)
    loads = {layer: monitor.loads().loc[layer].tolist() for layer in monitor.layers}
    assert loads == counted_by_loops(model, ids, mask)

    layer = monitor.layers[-1]
    plant_collapse(model, layer, PLANTED)
    with RouterMonitor(model) as monitor, torch.no_grad():
        model(ids, attention_mask=mask)
    assert [(finding.kind, finding.layer, finding.experts) for finding in monitor.findings()] == [
        ("collapse", layer, PLANTED)
    ]


def test_a_collapse_of_hash_routers_is_named():
    """The first router of deepseek_v4 chooses by a table of token ids."""
    model = tiny_model("deepseek_v4", bias=0.0)
    ids = tiny_tokens(8, 48)
    monitor = RouterMonitor(model)
    layer = monitor.layers[0]
    plant_collapse(model, layer, PLANTED)
    with monitor, torch.no_grad():
        model(ids)
    (finding,) = monitor.findings()
    assert (finding.kind, finding.layer, finding.experts) == ("collapse", layer, PLANTED)
    assert monitor.measures(layer)["margin"] != monitor.measures(layer)["margin"]
