"""Voronoi losses between mixing measures: every loss of the papers by name, exact up to the gate's symmetries."""

from gatewise.theory.voronoi import flat, nested
from gatewise.theory.voronoi.kinds import LossKind, loss_kinds
from gatewise.theory.voronoi.loss import voronoi_loss
from gatewise.theory.voronoi.result import Term, VoronoiLoss

__all__ = ["LossKind", "Term", "VoronoiLoss", "flat", "loss_kinds", "nested", "voronoi_loss"]
