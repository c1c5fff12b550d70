import numpy as np

from gatewise.ops.separation import separating_direction


def design_of(x):
    return np.vstack([np.ones(len(x)), x.T])


def test_disjoint_needs_separate_and_the_direction_proves_it(generator):
    x = generator.normal(size=(200, 2))
    score = x @ [1.0, -2.0]
    x = x[np.abs(score) > 0.2]
    needed = np.stack([x @ [1.0, -2.0] > 0, x @ [1.0, -2.0] < 0]).astype(float)
    direction = separating_direction(design_of(x), needed)
    margin = (direction[0] - direction[1]) @ design_of(x) * np.where(needed[0] > 0, 1.0, -1.0)
    assert margin.min() >= -1e-6
    assert margin.max() > 0.1


def test_quasi_separation_with_ties_on_the_boundary():
    x = np.array([[-2.0], [-1.0], [0.0], [1.0], [2.0]])
    needed = np.array([[1.0, 1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 1.0, 1.0]])
    assert separating_direction(design_of(x), needed) is not None
    needed[:, 1] = 0.5
    assert separating_direction(design_of(x), needed) is None


def test_overlap_does_not_separate(generator):
    x = generator.normal(size=(300, 3))
    responsibilities = generator.dirichlet(np.ones(3), size=300).T
    assert separating_direction(design_of(x), responsibilities) is None
    hard = np.eye(3)[generator.integers(0, 3, size=300)].T
    assert separating_direction(design_of(x), hard) is None


def test_shared_rows_stop_the_alarm_that_hard_assignments_would_give():
    x = np.linspace(-1.0, 1.0, 21)[:, None]
    shared = np.vstack([1.0 / (1.0 + np.exp(-3.0 * x[:, 0])), 1.0 / (1.0 + np.exp(3.0 * x[:, 0]))])
    hard = (shared == shared.max(axis=0)).astype(float)
    assert separating_direction(design_of(x), hard) is not None
    assert separating_direction(design_of(x), shared) is None


def test_one_expert_that_no_row_needs_separates(generator):
    x = generator.normal(size=(50, 1))
    responsibilities = np.vstack([np.ones(50), np.zeros(50)])
    assert separating_direction(design_of(x), responsibilities) is not None


def test_large_tables_go_by_constraint_generation(generator):
    x = generator.normal(size=(20000, 2))
    x = x[np.abs(x[:, 0]) > 0.05]
    needed = np.stack([x[:, 0] > 0, x[:, 0] < 0]).astype(float)
    assert separating_direction(design_of(x), needed) is not None
    # One row on the wrong side, far from the rows of the first round, is enough to have a maximum.
    needed[:, np.argmax(x[:, 0])] = [0.0, 1.0]
    needed[:, np.argmin(x[:, 0])] = [1.0, 0.0]
    assert separating_direction(design_of(x), needed) is None
