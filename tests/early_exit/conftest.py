"""A small network on digits with fitted exits, and an encoder without training, shared by the tests."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from gatewise.early_exit import EarlyExitModel

LAMBDAS = [0.0, 0.05, 0.3, 1.0, 3.0, 1e9]


def block(into, out, pool=False):
    parts = [nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*([nn.MaxPool2d(2)] if pool else []), *parts)


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        block(1, 4),
        block(4, 8),
        block(8, 16, pool=True),
        block(16, 16),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    )


@pytest.fixture(scope="session")
def digits():
    """Images (n, 1, 8, 8) and classes of training, validation, calibration and test data."""
    data = load_digits()
    x = torch.tensor(data.data, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16.0
    y = torch.tensor(data.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    edges = [0, 800, 1150, 1450, len(y)]
    names = ("train", "val", "cal", "test")
    return {name: (x[order[a:b]], y[order[a:b]]) for name, a, b in zip(names, edges, edges[1:], strict=False)}


@pytest.fixture(scope="session")
def network(digits):
    """Trained for a few epochs, so that exits differ."""
    net = small_network()
    x, y = digits["train"]
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(8):
        for index in torch.randperm(len(y)).split(64):
            loss = nn.functional.cross_entropy(net(x[index]), y[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net.eval()


@pytest.fixture(scope="session")
def frozen(network, digits):
    """Heads of the warm-up and gates for several λ."""
    model = EarlyExitModel(network, exits=[0, 1, 2, 3], n_classes=10, example=digits["train"][0][:4])
    return model.fit(*digits["train"], *digits["val"], lam=LAMBDAS, joint=False, warmup_epochs=6)


@pytest.fixture(scope="session")
def joint(network, digits):
    """Heads and gates in turn."""
    model = EarlyExitModel(network, exits=[0, 1, 2, 3], n_classes=10, example=digits["train"][0][:4])
    return model.fit(
        *digits["train"], *digits["val"], lam=[0.05, 0.5, 1e9], joint_epochs=1, switch_every=3, warmup_epochs=4
    )


@pytest.fixture(scope="session")
def encoder():
    """A tiny encoder of random weights with token inputs of different lengths."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32
    )
    return transformers.BertModel(config).eval()


@pytest.fixture(scope="session")
def texts():
    """Token ids (n, 12) with padding at the end, and classes."""
    generator = torch.Generator().manual_seed(2)
    n = 240
    ids = torch.randint(1, 50, (n, 12), generator=generator)
    lengths = torch.randint(3, 13, (n,), generator=generator)
    mask = (torch.arange(12) < lengths[:, None]).long()
    y = ((ids * mask).sum(1) / lengths > 25).long() + (ids[:, 0] > 40).long()
    return {"input_ids": ids * mask, "attention_mask": mask}, y


@pytest.fixture(scope="session")
def reader(encoder, texts):
    """The encoder with exits after all layers, fitted."""
    inputs, y = texts
    example = {name: value[:4] for name, value in inputs.items()}
    model = EarlyExitModel(encoder, exits="encoder.layer.*", n_classes=3, example=example)
    first = {name: value[:120] for name, value in inputs.items()}
    second = {name: value[120:] for name, value in inputs.items()}
    return model.fit(first, y[:120], second, y[120:], lam=[0.1, 0.5], joint=False, warmup_epochs=4)
