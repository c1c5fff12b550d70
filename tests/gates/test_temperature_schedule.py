import json
import math

import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.gates import ActivationDenseToSparseGate, DenseToSparseGate, SoftmaxGate, TemperatureSchedule

SHAPES = {
    "exponential": lambda s: 2.0 * (0.1 / 2.0) ** s,
    "linear": lambda s: 2.0 + (0.1 - 2.0) * s,
    "cosine": lambda s: 0.1 + (2.0 - 0.1) * (1.0 + math.cos(math.pi * s)) / 2.0,
}


def fixed():
    return DenseToSparseGate(2, 3, free_temperature=False).double()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_step_sets_the_formulas_temperature(shape):
    gate = fixed()
    schedule = TemperatureSchedule(gate, 2.0, 0.1, 10, shape)
    assert gate.temperature().item() == pytest.approx(2.0, rel=1e-14)
    for t in range(1, 14):
        schedule.step()
        assert gate.temperature().item() == pytest.approx(SHAPES[shape](min(t, 10) / 10), rel=1e-13)
    assert schedule.n_steps == 13


@pytest.mark.parametrize("shape", SHAPES)
def test_a_schedule_continues_from_its_state(shape):
    gate = fixed()
    schedule = TemperatureSchedule(gate, 2.0, 0.1, 10, shape)
    for _ in range(4):
        schedule.step()
    other = fixed()
    continued = TemperatureSchedule(other, 1.0, 1.0, 1)
    continued.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    for _ in range(3):
        assert torch.equal(other.temperature(), gate.temperature())
        schedule.step()
        continued.step()
    with pytest.raises(InputError, match="a schedule's state has"):
        continued.load_state_dict({"start": 1.0})


def test_training_moves_the_parameters_and_leaves_the_temperature_to_the_schedule():
    gate = ActivationDenseToSparseGate(2, 3, free_temperature=False)
    schedule = TemperatureSchedule(gate, 4.0, 1.0, 3, "linear")
    optimiser = torch.optim.SGD(gate.parameters(), lr=0.5)
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    for expected in (3.0, 2.0, 1.0):
        loss = -gate(x)[:, 0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        assert gate.temperature().item() == pytest.approx(expected)
    assert gate(x)[:, 0].exp().mean() > 1.0 / 3.0 + 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gate": DenseToSparseGate(1, 2)}, "free_temperature=False"),
        ({"gate": SoftmaxGate(1, 2)}, "SoftmaxGate has no temperature"),
        ({"start": 0.0}, "positive and finite"),
        ({"end": math.inf}, "positive and finite"),
        ({"steps": 0}, "at least one step"),
        ({"shape": "step"}, "choose one of exponential, linear, cosine"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        TemperatureSchedule(**{"gate": fixed(), "start": 1.0, "end": 0.5, "steps": 5, **arguments})
