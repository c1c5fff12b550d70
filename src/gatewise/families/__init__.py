"""Families: stateless distributions that score a target under each of k experts."""

from gatewise.families.base import FAMILIES, Family, build_family
from gatewise.families.gaussian import Gaussian

__all__ = ["FAMILIES", "Family", "Gaussian", "build_family"]
