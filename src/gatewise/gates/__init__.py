"""Gates: modules that turn inputs into log-weights log π (…, k)."""

from gatewise.gates.activation_dense_to_sparse import ActivationDenseToSparseGate
from gatewise.gates.base import GATES, Gate, build_gate
from gatewise.gates.cosine import CosineGate
from gatewise.gates.dense_to_sparse import DenseToSparseGate
from gatewise.gates.gaussian import GaussianGate
from gatewise.gates.hierarchical import HierarchicalGate
from gatewise.gates.laplace import LaplaceGate
from gatewise.gates.modified_softmax import ModifiedSoftmaxGate
from gatewise.gates.perturbed_cosine import PerturbedCosineGate
from gatewise.gates.quadratic import QuadraticGate
from gatewise.gates.sigmoid import SigmoidGate
from gatewise.gates.softmax import SoftmaxGate
from gatewise.gates.temperature_schedule import TemperatureSchedule
from gatewise.gates.top_k import TopKGate

__all__ = [
    "GATES",
    "ActivationDenseToSparseGate",
    "CosineGate",
    "DenseToSparseGate",
    "Gate",
    "GaussianGate",
    "HierarchicalGate",
    "LaplaceGate",
    "ModifiedSoftmaxGate",
    "PerturbedCosineGate",
    "QuadraticGate",
    "SigmoidGate",
    "SoftmaxGate",
    "TemperatureSchedule",
    "TopKGate",
    "build_gate",
]
