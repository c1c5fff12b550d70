"""Functions of which the exponent is known, hidden in random coordinates."""

from dataclasses import dataclass

import numpy as np

LONG = np.longdouble


@dataclass
class Control:
    """Residuals of v = M t + c t₀², with t₀ displaced and v₀ = t₀, mixed by a rotation.

    The chain (v₁ − v₀², v₂ − v₀v₁, …, v_m − v₀v_(m−1), v_m) has its least norm of the order v₀^(m+1) on a curve along
    which v_j ~ v₀^(j+1): every residual but the last can vanish. Without the last it is zero on the whole curve. The
    other coordinates are seen at first order.
    """

    exponent: float
    seed: int
    size: int = 8
    floor: float = 1e-18

    def __post_init__(self):
        generator = np.random.default_rng(self.seed)
        matrix = np.eye(self.size) + 0.4 * generator.normal(size=(self.size, self.size)) / np.sqrt(self.size)
        matrix[0] = np.eye(self.size)[0]
        self.matrix = matrix.astype(LONG)
        self.curve = generator.normal(size=self.size).astype(LONG)
        self.curve[0] = 0
        rows = len(self._inner(np.ones(self.size, LONG)))
        self.rotation = np.linalg.qr(generator.normal(size=(rows, rows)))[0].astype(LONG)

    @property
    def links(self):
        return 4 if np.isinf(self.exponent) else int(self.exponent) - 1

    def _inner(self, v):
        chain = [v[j] - v[0] * v[j - 1] for j in range(1, self.links + 1)]
        last = {np.inf: [], 1.0: [v[0] * (1 + v[1])], 1.5: [np.abs(v[0]) * np.sqrt(np.abs(v[0]))]}.get(
            self.exponent, [v[self.links]]
        )
        return np.array([*chain, *last, *(v[j] + v[0] * v[j] for j in range(self.links + 1, self.size))])

    def _inner_slope(self, v):
        rows = []
        unit = np.eye(self.size)
        for j in range(1, self.links + 1):
            rows.append(unit[j] - v[0] * unit[j - 1] - v[j - 1] * unit[0])
        if self.exponent == 1.0:
            rows.append(unit[0] * (1 + v[1]) + v[0] * unit[1])
        elif self.exponent == 1.5:
            rows.append(1.5 * np.sqrt(np.abs(v[0])) * np.sign(v[0]) * unit[0])
        elif np.isfinite(self.exponent):
            rows.append(unit[self.links])
        rows += [unit[j] * (1 + v[0]) + v[j] * unit[0] for j in range(self.links + 1, self.size)]
        return np.array(rows)

    def residual(self, point):
        return self.rotation @ self._inner(self.matrix @ point + self.curve * point[0] ** 2)

    def jacobian(self, point):
        t = point.astype(float)
        v = self.matrix.astype(float) @ t + self.curve.astype(float) * t[0] ** 2
        change = self.matrix.astype(float) + np.outer(2 * self.curve.astype(float) * t[0], np.eye(self.size)[0])
        return self.rotation.astype(float) @ self._inner_slope(v) @ change
