"""Gates: modules that turn inputs into log-weights log π (…, k)."""

from gatewise.gates.base import GATES, Gate
from gatewise.gates.softmax import SoftmaxGate

__all__ = ["GATES", "Gate", "SoftmaxGate"]
