"""Losses by brute force, written from the papers' formulas and from nothing else.

Every assignment of atoms to cells is tried; for each the translation of the slopes is found by a general optimiser,
within the polyhedron of translations that make these cells, and by a pattern search down to the last digits.
"""

from itertools import product

import numpy as np
from scipy.optimize import linprog, minimize

R_BAR = np.array([np.nan, np.nan, 4.0, 6.0, 8.0, 10.0])


def d1(slope, expert, intercept, variance, size):
    return np.sqrt((slope**2).sum(1) + (expert**2).sum(1) + intercept**2 + variance**2)


def d2(slope, expert, intercept, variance, size):
    first, second = np.sqrt((slope**2).sum(1) + intercept**2), np.sqrt((expert**2).sum(1) + variance**2)
    alone = d1(slope, expert, intercept, variance, size)
    return np.where(size == 1, alone, first ** R_BAR[size] + second ** (R_BAR[size] / 2))


def d2_separate(slope, expert, intercept, variance, size):
    r = np.where(size == 1, 1.0, R_BAR[size])
    half = np.where(size == 1, 1.0, R_BAR[size] / 2)
    terms = np.linalg.norm(slope, axis=1) ** r + np.linalg.norm(expert, axis=1) ** half
    return terms + np.abs(intercept) ** r + np.abs(variance) ** half


def d2_sharp(slope, expert, intercept, variance, size):
    r = np.where(size == 1, 1.0, R_BAR[size])
    half = np.where(size == 1, 1.0, R_BAR[size] / 2)
    two = np.where(size == 1, 1.0, 2.0)
    terms = np.linalg.norm(slope, axis=1) ** two + np.linalg.norm(expert, axis=1) ** two
    return terms + np.abs(intercept) ** r + np.abs(variance) ** half


class Pair:
    """An estimate and a truth, a loss's norms, which side the scale of the weights is free on, and K."""

    def __init__(self, estimate, truth, norm, move="truth", top=None):
        self.weights, self.masses = estimate.weights, truth.weights
        names = ("gate_slope", "expert_slope", "expert_intercept", "variance")
        mine, true = ([m.parameters[n].reshape(m.n_atoms, -1) for n in names] for m in (estimate, truth))
        self.gaps = [one[:, None, :] - other[None, :, :] for one, other in zip(mine, true, strict=True)]
        self.norm, self.move, self.top = norm, move, top
        self.k, self.true_k, self.d = *self.gaps[0].shape[:2], self.gaps[0].shape[2]

    def terms(self, labels, t):
        """Parameter terms of the cells."""
        rows = np.arange(self.k)
        slope, expert, intercept, variance = (gap[rows, labels] for gap in self.gaps)
        size = np.bincount(labels, minlength=self.true_k)[labels]
        each = self.norm(slope - t, expert, intercept[:, 0], variance[:, 0], size)
        return np.bincount(labels, self.weights * each, self.true_k)

    def scaled(self, tau, terms, mass):
        """The loss with the truth's or the estimate's weights multiplied by τ, () or (n, 1)."""
        own, other = {"truth": (1.0, tau), "estimate": (tau, 1.0), "none": (1.0, 1.0)}[self.move]
        cells = own * terms + np.abs(own * mass - other * self.masses)
        return np.sort(cells, axis=-1)[..., -(self.top or self.true_k) :].sum(-1)

    def at_best_scale(self, labels, terms):
        mass = np.bincount(labels, self.weights, self.true_k)
        if self.move == "none":
            return self.scaled(1.0, terms, mass)
        ratios = mass[mass > 0] / self.masses[mass > 0]
        kinks = np.array([0.0, *(ratios if self.move == "truth" else 1.0 / ratios)])
        # Piecewise linear in the scale, and growing with it at last: one of the corners is best.
        corners = np.append(kinks, self.crossings(terms, mass)) if self.top else kinks
        return self.scaled(corners[:, None], terms, mass).min()

    def crossings(self, terms, mass):
        """The scales at which two cells may be equal, so that another one may be among the largest."""
        signs = np.array([1.0, -1.0])[:, None]
        if self.move == "truth":
            constant, rate = (terms + signs * mass).ravel(), (-signs * self.masses).ravel()
        else:
            constant, rate = (-signs * self.masses).ravel(), (terms + signs * mass).ravel()
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (constant[:, None] - constant) / (rate - rate[:, None])
        return found[np.isfinite(found) & (found > 0.0)]

    def cells(self, t):
        distance = sum((gap**2).sum(2) for gap in self.gaps[1:]) + ((self.gaps[0] - t) ** 2).sum(2)
        return distance.argmin(1)

    def at(self, t):
        """The loss at one translation, with its cells."""
        labels = self.cells(t)
        return self.at_best_scale(labels, self.terms(labels, t))

    def polyhedron(self, labels):
        """Normals and levels of the translations with these cells."""
        distance = sum((gap**2).sum(2) for gap in self.gaps)
        pairs = [(i, j, m) for i, j in enumerate(labels) for m in range(self.true_k) if m != j]
        normals = np.array([-2.0 * (self.gaps[0][i, j] - self.gaps[0][i, m]) for i, j, m in pairs])
        return normals.reshape(-1, self.d), np.array([distance[i, m] - distance[i, j] for i, j, m in pairs])

    def infimum(self, starts=1, seed=0):
        """The least over all assignments that some translation makes."""
        generator = np.random.default_rng(seed)
        best = np.inf
        for labels in map(np.array, product(range(self.true_k), repeat=self.k)):
            normals, levels = self.polyhedron(labels)
            inside = self._inside(normals, levels)
            if inside is None:
                continue

            def value(t, labels=labels):
                return self.at_best_scale(labels, self.terms(labels, t))

            def objective(t, labels=labels):
                return value(t) if self.top else self.terms(labels, t).sum()

            constraints = [{"type": "ineq", "fun": lambda t, n=normals, c=levels: c - n @ t}] if len(levels) else []
            # Kinks, where an optimiser for smooth functions stops early, are tried themselves.
            candidates = list(self.gaps[0][np.arange(self.k), labels])
            for start in [inside, *(inside + 0.1 * generator.normal(size=(starts, self.d)))]:
                found = minimize(objective, start, method="SLSQP", constraints=constraints, options={"ftol": 1e-14}).x
                candidates.append(_pattern_search(objective, found, normals, levels))
            allowed = [t for t in candidates if (levels - normals @ t >= -1e-9).all()]
            best = min([best, *map(value, allowed)])
        return best

    def _inside(self, normals, levels):
        if not len(levels):
            return np.zeros(self.d)
        found = linprog(
            np.r_[np.zeros(self.d), -1.0],
            A_ub=np.c_[normals, np.linalg.norm(normals, axis=1)],
            b_ub=levels,
            bounds=[*[(-20, 20)] * self.d, (None, 1)],
        )
        return found.x[: self.d] if found.status == 0 and found.x[-1] > 1e-9 else None


def _pattern_search(function, t, normals, levels):
    """Down to the last digits, where gradients by differences are too coarse."""
    step, value = 1.0, function(t)
    directions = [np.array(one, float) for one in product((-1, 0, 1), repeat=len(t)) if any(one)]
    while step > 1e-12:
        for direction in directions:
            trial = t + step * direction
            if (levels - normals @ trial >= 0.0).all() and (lower := function(trial)) < value:
                t, value = trial, lower
                break
        else:
            step *= 0.5
    return t
