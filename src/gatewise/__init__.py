"""Gatewise: mixtures of experts, p(y | x) = Σᵢ πᵢ(x) f(y | h(x, ηᵢ)), fitted at the maximum."""

__version__ = "0.1.0"
