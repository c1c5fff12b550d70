"""Banks of experts: modules that own all expert parameters and turn inputs into k distributions' parameters."""

from gatewise.experts.base import EXPERTS, Experts, build_experts
from gatewise.experts.constant import ConstantExperts
from gatewise.experts.linear import LinearExperts

__all__ = ["EXPERTS", "ConstantExperts", "Experts", "LinearExperts", "build_experts"]
