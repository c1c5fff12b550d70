"""Fixtures that every folder of tests may use."""

import gc

import numpy as np
import pytest
import torch
from hypothesis import settings

# A shared, noisy machine must not turn a slow moment into a failure.
settings.register_profile("gatewise", deadline=None, derandomize=True)
settings.load_profile("gatewise")


def pytest_collection_finish():
    """What is loaded by now stays until the end: the collector of garbage need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def generator():
    return np.random.default_rng(20261122)


@pytest.fixture(autouse=True)
def torch_settings():
    """A test that changes torch for the whole process must put it back."""
    yield
    assert torch.get_default_dtype() is torch.float32
