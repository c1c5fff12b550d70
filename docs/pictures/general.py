"""Draws the pictures of the pages on experts, families, least squares and identifiability.

`python docs/pictures/general.py` writes them beside this file. The picture of least squares rests on a simulation of
some minutes; `python docs/pictures/general.py experts families` draws only those that are named.
"""

import sys
import warnings
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import torch
from draw import save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from gatewise.datasets import load
from gatewise.estimators import GatedRegressor
from gatewise.exceptions import GatewiseWarning
from gatewise.experts import CallableExperts, Experts, build_experts
from gatewise.families import Family, build_family
from gatewise.fit import FitOptions, fit
from gatewise.inference import Names, parameter_table
from gatewise.model import MixtureOfExperts
from gatewise.report.palette import MUTED, blend, expert_colour

SIDE = 3.0
N_SIMULATIONS = 1000


def panels(rows: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(rows, columns, figsize=(7.2, height))
    return figure, list(np.ravel(axes))


def headed(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)


# --- experts


def location(experts: Experts, parameters: dict[str, list], x: np.ndarray) -> np.ndarray:
    """Locations (n, k) of a bank with these parameters."""
    experts = experts.double()
    given = {name: torch.tensor(value, dtype=torch.float64) for name, value in parameters.items()}
    experts.assign_parameters({**experts.own_parameters(), **given})
    with torch.no_grad():
        return experts.location(torch.from_numpy(x[:, None])).numpy()


def saturation(x, eta):
    return eta["top"] * x[..., 0] / (eta["log_half"].exp() + x[..., 0])


def experts() -> None:
    x = np.linspace(-SIDE, SIDE, 601)
    right = np.linspace(0.0, 2.0 * SIDE, 601)
    units = {"inner_weight": [[[2.0], [2.0]], [[1.5], [-3.0]]], "inner_bias": [[3.0, -3.0], [0.0, 4.0]]}
    network = {**units, "outer_weight": [[1.0, -1.0], [1.0, 0.6]]}
    own = CallableExperts(1, 2, function=saturation, shapes={"top": (), "log_half": ()})
    drawn = [
        ("constant  b", build_experts("constant", 1, 2), {"bias": [1.0, -0.5]}, x),
        ("linear  ax + b", build_experts("linear", 1, 2), {"weight": [[0.5], [-0.3]], "bias": [0.5, -0.5]}, x),
        (
            "polynomial  (ax + b)²",
            build_experts("polynomial", 1, 2, power=2),
            {"weight": [[0.5], [0.8]], "bias": [0.6, -1.2]},
            x,
        ),
        (
            "polynomial basis, degree 3",
            build_experts("polynomial_basis", 1, 2, degree=3),
            {"weight": [[-0.8, 0.0, 0.15], [0.2, -0.25, 0.0]], "bias": [0.3, 1.0]},
            x,
        ),
        ("feed forward, two tanh units", build_experts("feed_forward", 1, 2, hidden=2, activation="tanh"), network, x),
        ("callable  top · x/(half + x)", own, {"top": [2.0, 1.2], "log_half": [-0.7, 1.0]}, right),
    ]
    figure, axes = panels(2, 3, 4.2)
    for panel, (title, bank, parameters, at) in zip(axes, drawn, strict=True):
        for i, curve in enumerate(location(bank, parameters, at).T):
            panel.plot(at, curve, color=expert_colour(i), lw=2.2)
        headed(panel, title)
        panel.margins(x=0.0)
    figure.supxlabel("x", fontsize=10)
    figure.supylabel("location h(x, η)", fontsize=10)
    save(figure, "experts")


def ethanol() -> None:
    """Two lines and two parabolas on the same rows."""
    frame = load("ethanol").frame
    grid = np.linspace(frame["NO"].min() - 0.1, frame["NO"].max() + 0.1, 300)
    figure, axes = panels(1, 2, 3.3)
    for panel, (title, degree) in zip(axes, (("lines", 1), ("parabolas", 2)), strict=True):
        regressor = GatedRegressor(
            expert="polynomial_basis",
            expert_options={"degree": degree},
            gate_features=[],
            n_starts=4,
            random_state=0,
        )
        regressor.fit(frame[["NO"]], frame["Equivalence"])
        means = curves(regressor, grid)
        # The same colour for the same branch in both panels: the upper one first.
        order = np.argsort(-means.mean(axis=0))
        for i, expert in enumerate(order):
            colour, margin, line = expert_colour(i), 1.96 * regressor.scale_[expert], means[:, expert]
            panel.fill_between(grid, line - margin, line + margin, color=colour, alpha=0.13, lw=0)
            panel.plot(grid, line, color=colour, lw=2.2)
        shares = regressor.responsibilities(frame[["NO"]], frame["Equivalence"])[:, order]
        panel.scatter(frame["NO"], frame["Equivalence"], c=blend(shares), s=16, linewidths=0.4, edgecolors="white")
        headed(panel, f"{title}: log-likelihood {regressor.log_likelihood_:.1f}")
        panel.set_xlabel("NO")
        panel.set_ylim(0.45, 1.32)
    axes[0].set_ylabel("Equivalence")
    save(figure, "ethanol")


def curves(regressor: GatedRegressor, grid: np.ndarray) -> np.ndarray:
    """The experts' locations, (n, k)."""
    return regressor.model_.expert_parameters(torch.from_numpy(grid[:, None]))[0].numpy()


# --- families


def density(family: Family, y: np.ndarray, h: float | list[float], dispersion: list[float]) -> np.ndarray:
    """The density of one expert at targets y."""
    at = torch.tensor([h] if isinstance(h, float) else [[h]], dtype=torch.float64)
    s = family.n_dispersion
    scale = torch.tensor(dispersion, dtype=torch.float64).reshape((1,) if s == 1 else (1, s))
    return family.log_density(torch.from_numpy(y), at, scale).exp().numpy()[..., 0]


def families() -> None:
    figure, axes = panels(2, 3, 4.6)
    y = np.linspace(-6.0, 6.0, 601)
    bells = [("gaussian", {}, "σ = 1"), ("student_t", {"df": 2.0}, "ν = 2"), ("laplace", {}, "b = 1")]
    for i, (name, options, label) in enumerate(bells):
        values = density(build_family(name, **options), y, 0.0, [0.0])
        axes[0].plot(y, values, color=expert_colour(i), lw=2.0, label=f"{name}, {label}")
    axes[0].set_yscale("log")
    axes[0].set_ylim(1e-5, 100.0)
    headed(axes[0], "real numbers, log scale")

    y = np.linspace(0.01, 6.0, 400)
    for i, shape in enumerate((1.0, 4.0, 20.0)):
        values = density(build_family("gamma"), y, float(np.log(2.0)), [np.log(shape)])
        axes[1].plot(y, values, color=expert_colour(i), lw=2.0, label=f"a = {shape:g}")
    axes[1].set_ylim(0.0, 1.35)
    headed(axes[1], "gamma, mean 2")

    y = np.arange(0.0, 16.0)
    stems(axes[2], y, density(build_family("poisson"), y, float(np.log(4.0)), []), 0, "poisson")
    stems(
        axes[2], y, density(build_family("negative_binomial"), y, float(np.log(4.0)), [0.0]), 1, "neg. binomial, r = 1"
    )
    axes[2].set_ylim(0.0, 0.29)
    headed(axes[2], "counts, mean 4")

    y = np.arange(0.0, 11.0)
    for i, h in enumerate((0.0, -2.0)):
        stems(axes[3], y, density(build_family("binomial", trials=10), y, h, []), i, f"h = {h:g}".replace("-", "−"))
    axes[3].set_ylim(0.0, 0.47)
    headed(axes[3], "binomial, 10 trials")

    x = np.linspace(-SIDE, SIDE, 301)
    h = torch.from_numpy(np.stack([1.0 - 2.0 * x, 1.0 + 0.0 * x], axis=-1)[:, None])
    shares = build_family("categorical", n_classes=3).mean(h, torch.zeros(1, 0, dtype=torch.float64))[:, 0].numpy()
    edges = np.column_stack([np.zeros(len(x)), shares.cumsum(axis=1)])
    for j in range(3):
        axes[4].fill_between(x, edges[:, j], edges[:, j + 1], color=expert_colour(j), alpha=0.35, lw=0)
        row = int(np.clip(np.argmax(shares[:, j]), 40, len(x) - 41))
        axes[4].text(x[row], edges[row, j : j + 2].mean(), f"class {j}", ha="center", va="center", fontsize=9)
    axes[4].grid(visible=False)
    axes[4].margins(x=0.0, y=0.0)
    headed(axes[4], "categorical along x")

    family = build_family("multivariate_gaussian", n_targets=2)
    for i, (centre, dispersion) in enumerate((((-1.0, -0.5), [0.0, -0.4, 0.9]), ((1.5, 1.0), [-0.6, 0.0, 0.0]))):
        covariance = family.covariance_matrix(torch.tensor([dispersion]))[0].numpy()
        values, vectors = np.linalg.eigh(covariance)
        angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
        for radius in (1.0, 2.0):
            width, height = 2.0 * radius * np.sqrt(values[::-1])
            axes[5].add_patch(Ellipse(centre, width, height, angle=angle, fill=False, ec=expert_colour(i), lw=2.0))
        axes[5].plot(*centre, "+", color=expert_colour(i))
    axes[5].set_xlim(-4.0, 4.0)
    axes[5].set_ylim(-4.0, 4.0)
    headed(axes[5], "multivariate, two columns")
    for panel in axes[:4]:
        panel.legend(loc="upper right", fontsize=8, handlelength=1.2, borderaxespad=0.2)
    save(figure, "families")


def stems(axes: Axes, y: np.ndarray, values: np.ndarray, i: int, label: str) -> None:
    at = y + 0.16 * (2 * i - 1)
    axes.vlines(at, 0.0, values, color=expert_colour(i), lw=2.0)
    axes.plot(at, values, "o", color=expert_colour(i), ms=3.5, label=label)


def outlying() -> tuple[np.ndarray, np.ndarray]:
    """Two lines with errors of 0.3, and 15 of 300 targets moved away by 6 to 12: the rows of docs/families.md."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-2.0, 2.0, size=(300, 1))
    first = generator.uniform(size=300) < 1.0 / (1.0 + np.exp(-1.0 - x[:, 0]))
    y = np.where(first, 1.0 + 2.0 * x[:, 0], -1.0 - x[:, 0]) + 0.3 * generator.normal(size=300)
    moved = generator.choice(300, size=15, replace=False)
    y[moved] += generator.choice([-1.0, 1.0], size=15) * generator.uniform(6.0, 12.0, size=15)
    return x, y


def robust() -> None:
    x, y = outlying()
    grid = np.linspace(-2.0, 2.0, 200)
    figure, axes = panels(1, 2, 3.3)
    for panel, (name, options) in zip(axes, (("gaussian", None), ("student_t", {"df": 4})), strict=True):
        regressor = GatedRegressor(family=name, family_options=options, n_starts=5, random_state=0).fit(x, y)
        for i, line in enumerate(curves(regressor, grid).T):
            panel.plot(grid, line, color=expert_colour(i), lw=2.2, label=f"expert {i + 1}")
        panel.scatter(x[:, 0], y, c=blend(regressor.responsibilities(x, y)), s=12, linewidths=0.3, edgecolors="white")
        headed(panel, "gaussian" if options is None else "Student t, ν = 4")
        panel.set_xlabel("x")
    axes[0].legend(loc="upper left", handlelength=1.4)
    save(figure, "robust")


# --- least squares


def two_lines() -> MixtureOfExperts:
    """The regression function of docs/least-squares.md."""
    truth = MixtureOfExperts.build("softmax", "linear", "gaussian", n_features=1, n_experts=2).double()
    truth.gate.assign(torch.tensor([[2.0, 5.0], [0.0, 0.0]]))
    truth.experts.assign(torch.tensor([[1.0, 1.0], [-1.0, -2.0]]), torch.zeros(2))
    return truth.requires_grad_(False)


def draw_rows(truth: MixtureOfExperts, seed: int, n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.uniform(-2.0, 2.0, size=(n, 1))
    noise = 0.1 + 0.2 * x[:, 0] ** 2
    return x, truth.mean(torch.from_numpy(x)).numpy() + noise * generator.normal(size=n)


def covered(truth: MixtureOfExperts) -> dict[str, np.ndarray]:
    """Shares of 95 % intervals that hold the truth, by kind of covariance."""
    wanted = np.concatenate([part.identified(part.own_parameters()).numpy() for part in (truth.gate, truth.experts)])
    names = Names(["x"], ["x"], "y")
    hits = {kind: np.zeros(len(wanted)) for kind in ("observed", "sandwich")}
    statuses: Counter[str] = Counter()
    for seed in range(1, N_SIMULATIONS + 1):
        x, y = draw_rows(truth, seed)
        start = truth.log_weights(torch.from_numpy(x)).exp().numpy()
        options = FitOptions(objective="least_squares", n_starts=1, init=start)
        result = fit(truth, x, y, options=options)
        statuses[result.status.name] += 1
        for kind, count in hits.items():
            table = parameter_table(result, names, kind=kind)
            count += ((table["lower"] <= wanted) & (wanted <= table["upper"])).to_numpy()
    print(dict(statuses))
    return {kind: count / N_SIMULATIONS for kind, count in hits.items()}


def least_squares() -> None:
    truth = two_lines()
    x, y = draw_rows(truth, 0)
    grid = np.linspace(-2.0, 2.0, 300)
    regressor = GatedRegressor(objective="least_squares", n_starts=5, random_state=0).fit(x, y)
    figure, (left, right) = panels(1, 2, 3.4)
    left.scatter(x[:, 0], y, color=MUTED, s=9, alpha=0.55, linewidths=0)
    for i, line in enumerate(curves(regressor, grid).T):
        left.plot(grid, line, color=expert_colour(i), lw=1.6, ls=(0, (4, 2)))
    left.plot(grid, regressor.predict(grid[:, None]), color="black", lw=2.2)
    left.set_ylim(float(y.min()) - 0.2, float(y.max()) + 0.2)
    left.set_xlabel("x")
    headed(left, "the mean, and its experts dashed")

    shares = covered(truth)
    labels = [f"{q.component}\n{q.term}" for q in [*truth.gate.quantities(["x"]), *truth.experts.quantities(["x"])]]
    at = np.arange(len(labels))
    right.axvline(0.95, color=MUTED, lw=1.2)
    for i, (kind, label) in enumerate((("observed", "Gauss–Newton"), ("sandwich", "sandwich"))):
        right.plot(shares[kind], at, "o", color=expert_colour(i), ms=6, label=label)
        print(label, shares[kind])
    right.set_yticks(at, labels, fontsize=8)
    right.invert_yaxis()
    right.set_xlim(0.85, 0.96)
    right.set_xlabel("share of 95 % intervals that hold the truth")
    right.legend(loc="upper left", fontsize=9, handlelength=1.0)
    headed(right, f"{N_SIMULATIONS:,} data sets")
    save(figure, "least-squares")


# --- identifiability


def identifiability() -> None:
    """The log-likelihood along two directions of a cosine gate's β of expert 1: its length, and its angle."""
    truth = MixtureOfExperts.build(
        "cosine", "linear", "gaussian", n_features=2, n_experts=2, gate_options={"temperature": 0.3}
    ).double()
    truth.gate.assign_parameters({"weight": torch.tensor([[1.0, 0.5], [-0.5, 1.0]]), "bias": torch.tensor([0.2, 0.0])})
    truth.experts.assign(torch.tensor([[1.0, 0.5, 0.0], [-1.0, 0.0, 0.5]]), torch.full((2,), 0.5).log())
    truth.requires_grad_(False)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(500, 2)))
    y = truth.sample(x, generator=torch.Generator().manual_seed(0))
    own = truth.gate.own_parameters()
    highest = float(truth.log_prob(x, y).sum())

    def loss(first: torch.Tensor) -> float:
        truth.gate.assign_parameters({**own, "weight": torch.stack([first, own["weight"][1]])})
        return float(truth.log_prob(x, y).sum()) - highest

    amount = np.linspace(-1.2, 1.2, 121)
    beta = own["weight"][0].clone()
    lengths = [loss(beta * float(np.exp(t))) for t in amount]
    turned = []
    for t in amount:
        turn = torch.tensor([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
        turned.append(loss(turn @ beta))
    figure, axes = panels(1, 2, 2.7)
    axes[0].plot(amount, lengths, color=expert_colour(0), lw=2.2)
    axes[0].set_xlabel("t, β₁ multiplied by exp(t)")
    headed(axes[0], "a null direction: its length")
    axes[1].plot(amount, turned, color=expert_colour(1), lw=2.2)
    axes[1].set_xlabel("t, β₁ turned by t radians")
    headed(axes[1], "an identified one: its angle")
    for panel in axes:
        panel.set_ylim(min(turned) * 1.05, 6.0)
    axes[0].set_ylabel("log-likelihood")
    save(figure, "identifiability")


DRAWN = {
    "experts": experts,
    "ethanol": ethanol,
    "families": families,
    "robust": robust,
    "least-squares": least_squares,
    "identifiability": identifiability,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore", GatewiseWarning)
    for name in sys.argv[1:] or DRAWN:
        DRAWN[name]()
