"""A mixture that is given and said to be a copy of the truth, far from it: verified, not searched for."""

import time
from collections.abc import Sequence

import numpy as np

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.theory.global_copies import copies_of
from gatewise.theory.modulus.design import ModulusDesign
from gatewise.theory.modulus.problem import Problem
from gatewise.theory.modulus.result import CoordinateModulus, ModulusResult, Witness
from gatewise.theory.modulus.special import LONG
from gatewise.theory.splitting import fitted_at_truth

__all__ = ["verified_copy"]

_ROUNDING = 1e-14
"""Parameters are doubles, and their rounding is more than that of the distance."""


def verified_copy(
    truth: MixtureOfExperts,
    copy: MixtureOfExperts,
    cells: Sequence[int],
    parameters: Sequence[str],
    design: ModulusDesign,
    hold: Sequence[str] = (),
) -> ModulusResult:
    """Flat rows for parameters in which a copy differs from the truth, with the copy as their witness.

    Near the truth such a parameter may have an exponent. It is no rate: the data cannot tell the copy from the truth.

    Args:
        truth: the true mixture.
        copy: another one, said to have the same density, or mean in L2.
        cells: the true atom that each atom of the copy is compared with.
        parameters: full names, as "gate.weight[0,0]".
        design: distance and quadrature.
        hold: full names of parameters that are known, and have to be those of the truth.

    Raises:
        InputError: the two differ by more than rounding, a parameter does not differ, or a known one does.
    """
    begun = time.process_time()
    problem = Problem(truth, copy, cells, design)
    there = np.zeros(problem.coordinates.size, LONG)
    distance, finer = problem.distance.norm(there), problem.finer_distance.norm(there)
    if max(distance, finer) > _ROUNDING:
        raise InputError(f"this is no copy of the truth: their distance is {max(distance, finer):.3g}")
    moved = _displacement(fitted_at_truth(truth, cells), copy)
    for name in hold:
        apart = [own for own, by in moved.items() if by != 0.0 and name in (own, own.partition("[")[0])]
        if apart:
            raise InputError(f"{apart[0]} is known, and the copy has another value")
    rows = []
    for name in parameters:
        if not moved.get(name):
            raise InputError(f"the copy does not differ from the truth in {shown(name)}")
        kept = {own: by for own, by in moved.items() if by != 0.0}
        witness = Witness(abs(moved[name]), distance, finer, kept, (), (), is_given=True)
        nothing = np.nan
        rows.append(
            CoordinateModulus(
                name,
                tuple(cells),
                nothing,
                nothing,
                nothing,
                True,
                *((),) * 7,
                held=tuple(hold),
                minimisers=(),
                coordinates=(),
                witness=witness,
                is_exact=problem.distance.is_exact,
                seconds=time.process_time() - begun,
            )
        )
    copies = copies_of(truth, copy.n_experts, hold) if design.distance == "l2" else ()
    return ModulusResult(tuple(rows), (), copies)


def _displacement(base: MixtureOfExperts, copy: MixtureOfExperts) -> dict[str, float]:
    """By how much each number of the copy's parameters differs from that of the atom it is compared with."""
    found = {}
    for part, before, after in (("gate", base.gate, copy.gate), ("experts", base.experts, copy.experts)):
        for name, value in before.own_parameters().items():
            difference = (after.own_parameters()[name] - value).detach().numpy()
            for index in np.ndindex(*difference.shape):
                found[f"{part}.{name}[{','.join(map(str, index))}]"] = float(difference[index])
    return found
