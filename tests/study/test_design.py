"""Designs: what they may say, what identifies them, what is refused."""

import re

import numpy as np
import pytest

from gatewise.exceptions import InputError
from gatewise.study import Laboratory, StudyDesign, Task, all_tasks, catalogue, read_design
from gatewise.study.tables import SizeGrid


def changed(text, old, new):
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 7", "sede = 7", r"small: sede: Extra inputs are not permitted"),
        ("seed = 7", "seed = -1", r"small: seed: Input should be greater than or equal to 0"),
        ("replicates = 4", "replicates = 0", r"replicates: Input should be greater than or equal to 1"),
        ("sizes = [40, 60, 90]", "sizes = []", r"sizes: List should have at least 1 item"),
        ("sizes = [40, 60, 90]", "sizes = [{ low = 90, high = 40, count = 3 }]", "low = 90 must not lie above high"),
        ('name = "over"', 'name = "exact"', "two methods are called 'exact'"),
        ('name = "D2"', 'name = "D1"', "two losses are called 'D1'"),
        ('name = "over"', 'name = "a/b"', "String should match pattern"),
        ("near = 1", "near = 0", "near and data are both 0"),
        ("max_iter = 60", "seed = 3", r"options\.seed is not for a study to set"),
        (
            'kind = "D2"',
            'kind = "D2"\n[[expected]]\nmeasure = "loss.D1"\nmethod = "none"',
            "speaks of the method 'none'",
        ),
        ("n_features = 1", 'n_features = 2\ncovariates = { law = "grid" }', 'the law "grid" is for one input'),
        ("seed = 7", "seed = ", "is no TOML"),
    ],
)
def test_what_a_design_may_not_say(small_text, old, new, message):
    with pytest.raises(InputError, match=message):
        StudyDesign.parse(changed(small_text, old, new), "small")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weight = [[3.0], [0.0]]", "wight = [[3.0], [0.0]]", "the gate has no parameter 'wight'"),
        ("weight = [[3.0], [0.0]]", "weight = [3.0, 0.0]", r"weight has the shape \(2, 1\), not \(2,\)"),
        ('name = "softmax"', 'name = "softmix"', "unknown gate 'softmix'"),
        ('kind = "D2"', 'kind = "D9"', "unknown loss 'D9'"),
        ('kind = "D2"', 'kind = "laplace_D2"', "does not fit this truth"),
        ("n_experts = 3", "n_experts = 1", "1 fitted experts cannot start near 2 true ones"),
        ("max_iter = 60", "max_itr = 60", "method over: options: .*max_itr"),
        ("max_iter = 60", "max_iter = -1", "max_iter must be a whole number"),
        ("n_experts = 3", 'n_experts = 3\nhold = ["gate.nothing"]', "holds 'gate.nothing': there are gate.weight"),
        ("n_experts = 3", 'n_experts = 3\nhold = ["gate.weight[3]"]', "gate.weight has 3 rows"),
        ("n_experts = 3", 'n_experts = 3\ngate = { name = "laplace" }', "give the gate' parameters, or start from"),
        ("seed = 7", 'seed = 7\nbox = { "gate.wight" = [0, 1] }', "box speaks of 'gate.wight'"),
        ("bias = [-1.5, 0.0]", 'bias = { draw = "cauchy", scale = 1.0 }', "gate.bias must be numbers, or"),
        ("bias = [-1.5, 0.0]", 'bias = { draw = "normal", scale = 1.0, rows = 5 }', "rows must be a whole number"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_runs(small_text, old, new, message):
    design = StudyDesign.parse(changed(small_text, old, new), "small")
    with pytest.raises(InputError, match=message):
        Laboratory(design)


def test_files_that_are_no_designs(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.toml is no file that can be read .* and no study of the catalogue"):
        read_design("nowhere.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_design(str(tmp_path / "bytes.toml"))


def test_sizes_are_grids_and_numbers_each_once():
    assert SizeGrid(low=100, high=10_000, count=3).values() == [100, 1000, 10_000]
    assert SizeGrid(low=100, high=300, count=3, spacing="linear").values() == [100, 200, 300]
    published = read_design("softmax-gaussian-exact").all_sizes()
    assert published[:6] == [100, 300, 500, 700, 900, 1000]
    assert (len(published), published[-1]) == (200, 100_000)


def test_the_digest_is_of_what_decides_on_rows(design):
    described = design.model_copy(update={"title": "another", "notes": "more", "slopes": design.slopes})
    assert described.digest() == design.digest()
    grid = StudyDesign.model_validate({**design.model_dump(), "sizes": [90, 40, 60, 60]})
    assert grid.digest() == design.digest()
    for change in ({"seed": 8}, {"replicates": 5}, {"sizes": [40, 60]}):
        assert design.with_plan(**change).digest() != design.digest()
    with pytest.raises(InputError, match="replicates: Input should be greater"):
        design.with_plan(replicates=0)


def test_tasks_go_replicate_by_replicate(design):
    tasks = all_tasks(design)
    assert len(tasks) == len({task.key for task in tasks}) == 3 * 4 * 2
    assert [task.key for task in tasks[:3]] == ["exact/40/0", "over/40/0", "exact/60/0"]
    assert Task.parse("over/90/3", design) == Task("over", 90, 3)


@pytest.mark.parametrize("key", ["over/90/4", "over/91/0", "none/90/0", "over/90", "", "over/9 0/1", "over/-90/1"])
def test_keys_of_no_task(design, key):
    with pytest.raises(InputError, match=r"is no key of this study|there is no method"):
        Task.parse(key, design)


def test_truths_that_are_drawn_are_drawn_once(small_text):
    drawn = changed(small_text, "weight = [[-2.0], [2.0]]", 'weight = { draw = "normal", scale = 2.0, rows = 1 }')
    one, other = (Laboratory(StudyDesign.parse(drawn, "drawn")).truth.experts.weight for _ in range(2))
    assert one.tolist() == other.tolist()
    assert one[0].abs().item() > 0.0
    assert one[1].item() == 0.0
    again = Laboratory(StudyDesign.parse(changed(drawn, "seed = 7", "seed = 8"), "drawn")).truth.experts.weight
    assert again[0].item() != one[0].item()


def test_names_in_the_catalogue_can_be_typed():
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in catalogue())


def test_half_normal_draws(small_text):
    text = changed(small_text, "log_scale = [-1.5, -1.2]", 'log_scale = { draw = "log_half_normal_root", scale = 0.5 }')
    scale = np.exp(Laboratory(StudyDesign.parse(text, "drawn")).truth.experts.log_scale.numpy())
    assert (scale > 0.0).all()
    assert np.isfinite(scale).all()
