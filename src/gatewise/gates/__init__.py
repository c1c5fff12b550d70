"""Gates: modules that turn inputs into log-weights log π (…, k)."""

from gatewise.gates.base import GATES, Gate, build_gate
from gatewise.gates.softmax import SoftmaxGate

__all__ = ["GATES", "Gate", "SoftmaxGate", "build_gate"]
