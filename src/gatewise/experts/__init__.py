"""Banks of experts: modules that own all expert parameters and turn inputs into k distributions' parameters."""

from gatewise.experts.base import EXPERTS, Experts, build_experts
from gatewise.experts.callable import CallableExperts, function_names, register_function
from gatewise.experts.constant import ConstantExperts
from gatewise.experts.feed_forward import FeedForwardExperts
from gatewise.experts.linear import LinearExperts
from gatewise.experts.polynomial import PolynomialExperts
from gatewise.experts.polynomial_basis import PolynomialBasisExperts

__all__ = [
    "EXPERTS",
    "CallableExperts",
    "ConstantExperts",
    "Experts",
    "FeedForwardExperts",
    "LinearExperts",
    "PolynomialBasisExperts",
    "PolynomialExperts",
    "build_experts",
    "function_names",
    "register_function",
]
