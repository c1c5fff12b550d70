"""The studies of routers in networks in miniature: cells repeat, go on where they stopped, fill their pages."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from gatewise.parts import activations

ROOT = Path(__file__).parents[2]
NAMES = ("network_text", "network_pictures", "network_theory")


@pytest.fixture(scope="module")
def benchmarks():
    """The scripts as modules; what they register is forgotten afterwards."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        patch.setattr(activations, "_ACTIVATIONS", dict(activations._ACTIVATIONS))
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            patch.setenv(variable, "1")
        names = (*NAMES, "network_models", "network_study", "network_teacher")
        yield {name: importlib.import_module(name) for name in names}
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == ROOT / "benchmarks":
            del sys.modules[name]


CELLS = [
    ("network_text", "Laplace"),
    ("network_text", "dense, equal total"),
    ("network_pictures", "perturbed cosine"),
    ("network_theory", "cosine, SGD"),
    ("network_theory", "temperature scheduled"),
    ("network_theory", "teacher: tanh unit"),
]


@pytest.mark.parametrize(("script", "name"), CELLS)
def test_a_cell_repeats(benchmarks, script, name):
    study = benchmarks[script].study(small=True)
    assert name in study.names
    found = study.cell(name, 3)
    assert study.cell(name, 3) == found
    assert json.dumps(found, allow_nan=False)
    assert study.cell(name, 4) != found


def test_a_study_goes_on_where_it_was_stopped(benchmarks, tmp_path, monkeypatch):
    kept = benchmarks["network_study"]
    monkeypatch.setattr(kept, "OUTPUT", tmp_path)
    study = replace(benchmarks["network_text"].study(small=True), names=("softmax", "sigmoid", "dense, equal active"))
    study.run(range(2), (0, 2))
    study.run(range(2), (1, 2))
    before = study.collected(2)
    assert [len(cells) for cells in before["cells"].values()] == [2, 2, 2]
    gone = study.path(study.names[1], 1)
    times = {path: path.stat().st_mtime_ns for path in study.folder.iterdir() if path != gone}
    assert len(times) == 2 * len(study.names) - 1
    gone.unlink()
    # What is compared are the seeds that all have.
    cells, seeds = kept.paired(study.collected(2)["cells"])
    assert seeds == 1
    assert cells == {name: found[:1] for name, found in before["cells"].items()}
    study.run(range(2))
    assert study.collected(2)["cells"] == before["cells"]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert "2 seeds" in study.tables(before)["network_text.py"]
    # Cells of another plan lie elsewhere.
    assert study.folder != benchmarks["network_text"].study().folder


@pytest.mark.parametrize("script", NAMES)
def test_the_page_has_the_tables_of_the_kept_numbers(benchmarks, script):
    study, kept = benchmarks[script].study(), benchmarks["network_study"]
    numbers = json.loads(study.kept.read_text(encoding="utf-8"))
    page = study.page.read_text(encoding="utf-8")
    assert set(numbers["cells"]) == set(study.names)
    for mark, table in study.tables(numbers).items():
        begin, end = kept.marks(mark)
        assert f"{begin}\n\n{table}\n\n{end}" in page, f"run benchmarks/{script}.py --write"


@pytest.mark.parametrize("script", NAMES)
def test_kept_numbers_are_of_the_present_plan(benchmarks, script):
    study = benchmarks[script].study()
    numbers = json.loads(study.kept.read_text(encoding="utf-8"))
    plan = json.loads(json.dumps(study.plan))
    if plan.get("text") != numbers["plan"].get("text"):
        # Another version of Python has another help.
        plan["text"] = numbers["plan"]["text"]
    assert numbers["plan"] == plan


def in_prose(one, digits=3, unit=""):
    """A difference as sentences have it: .036 bits (.011 to .062), or 4.4 points (1.8 to 7.0) with one digit."""
    numbers = [f"{value:.{digits}f}".replace("-", "−") for value in (one.mean, one.low, one.high)]
    if digits > 1:
        numbers = [number.replace("0.", ".", 1) for number in numbers]
    mean, low, high = numbers
    return f"{mean}{unit} ({low} to {high})"


def read(benchmarks, script):
    """The kept cells of a study, and its page in one line."""
    study = benchmarks[script].study()
    page = " ".join(study.page.read_text(encoding="utf-8").split())
    return json.loads(study.kept.read_text(encoding="utf-8")), page


def test_sentences_on_text_are_those_of_the_numbers(benchmarks):
    kept, page = read(benchmarks, "network_text")
    bits = {name: [cell["bits"] for cell in cells] for name, cells in kept["cells"].items()}
    routers = list(benchmarks["network_models"].ROUTERS)

    def less(first, second):
        return benchmarks["network_study"].difference(bits[first], bits[second])

    active, total = "dense, equal active", "dense, equal total"
    assert f"gains {in_prose(less(active, 'softmax'))} over a dense layer of equal arithmetic" in page
    assert f"Laplace by {in_prose(less(active, 'Laplace'))}" in page
    assert all(less(name, active).high < 0.0 for name in routers)
    assert not any(less(name, "softmax").high < 0.0 for name in routers if name != "softmax")
    furthest = max(routers, key=lambda name: less(name, "softmax").mean)
    assert f"the furthest by .{1000 * less(furthest, 'softmax').mean:03.0f} bits" in page
    behind = {name: less(name, total) for name in routers}
    names = [name for name in routers if behind[name].low > 0.0]
    assert set(routers) - set(names) == {
        "softmax",
        "dense-to-sparse, scheduled",
        "cosine, temperature .1",
        "hierarchical",
    }
    assert all(one.mean > 0.0 for one in behind.values())
    least, most = (end(behind[name].mean for name in names) for end in (min, max))
    assert f"equal total size by .{1000 * least:03.0f} to .{1000 * most:03.0f} bits" in page
    stays = [name for name, one in benchmarks["network_study"].corrected(behind).items() if one.holm < 0.05]
    assert stays == ["sigmoid", "activation dense-to-sparse"]
    largest = max((less(a, b) for a in routers for b in routers if a != b), key=lambda one: one.mean)
    assert f"the largest difference is {in_prose(largest, unit=' bits')}" in page


def test_sentences_on_pictures_are_those_of_the_numbers(benchmarks):
    kept, page = read(benchmarks, "network_pictures")
    routers = list(benchmarks["network_models"].ROUTERS)

    def less(first, second, what="held"):
        return benchmarks["network_study"].difference(
            *([cell[what] for cell in kept["cells"][name]] for name in (first, second))
        )

    every = [less(name, dense) for name in routers for dense in benchmarks["network_models"].DENSE]
    assert not any(one.is_clear for one in every)
    assert {round(end((one.high - one.low) / 2.0 for one in every)) for end in (min, max)} == {3, 6}
    nearest = less("cosine, temperature .1", "dense, equal total")
    assert nearest.low == max(one.low for one in every)
    assert f"+{nearest.mean:.1f} points (−{-nearest.low:.1f} to +{nearest.high:.1f}) against equal total" in page
    seen = {name: less(name, "dense, equal active", "seen") for name in routers}
    assert [name for name, one in seen.items() if not one.is_clear] == ["Laplace"]
    assert all(one.holm >= 0.05 for one in benchmarks["network_study"].corrected(seen).values())
    assert f"by {in_prose(seen['softmax'], 1, ' points')}" in page
    losses = {
        name: 100.0 * (1.0 - sum(cell["held"] for cell in cells) / sum(cell["seen"] for cell in cells))
        for name, cells in kept["cells"].items()
    }
    assert min(losses, key=losses.__getitem__) == "dense, equal active"
    assert f"lose {min(losses.values()):.0f} to {max(losses.values()):.1f} %" in page


def test_sentences_on_theory_are_those_of_the_numbers(benchmarks):
    kept, page = read(benchmarks, "network_theory")
    script, cells = benchmarks["network_theory"], kept["cells"]
    difference = benchmarks["network_study"].difference

    def bits(name):
        return [cell["bits"][-1] for cell in cells[name]]

    worse = difference(bits("eight active"), bits("four active"))
    assert f"eight are worse than four, by {in_prose(worse, unit=' bits')}" in page
    for name, unit, words in (("cosine", " points", "a cosine router"), ("perturbed cosine", "", "a perturbed one")):
        late = (script.changes(cells[f"{name}, {optimiser}"], script.LAST) for optimiser in ("SGD", "Adam"))
        assert f"by {in_prose(difference(*late), 1, unit)} with {words}" in page
    free = [cell["temperature"] for cell in cells["temperature free"]]
    ended = difference(free, [0.0] * len(free))
    least, most = (f"{end(free):.2f}".removeprefix("0") for end in (min, max))
    assert f"between {least} and {most}, {in_prose(ended, 2, ' on average')}" in page
    assert ended.low < 1.0 < ended.high
    sizes = kept["plan"]["experts"]["sizes"]
    slopes = {name: script.slopes(cells[name], "excess", sizes) for name in script.TEACHERS}
    found = {name: difference(values, [0.0] * len(values)) for name, values in slopes.items()}
    assert [name for name, one in found.items() if not one.low < -1.0 < one.high] == ["teacher: two-layer GELU"]
    assert f"two-layer GELU, {in_prose(found['teacher: two-layer GELU'], 2)}, does not" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("network_text", "cosine"),
        ("network_pictures", "softmax"),
        ("network_theory", "temperature free"),
        ("network_theory", "teacher: tanh unit"),
    ],
)
def test_a_kept_cell_comes_out_again(benchmarks, script, name):
    study = benchmarks[script].study()
    numbers = json.loads(study.kept.read_text(encoding="utf-8"))
    if study.plan.get("text") != numbers["plan"].get("text"):
        pytest.skip("this version of Python has another help on topics, and so another text")
    found, kept = study.cell(name, 0), numbers["cells"][name][0]
    # Another processor rounds otherwise, and hundreds of steps make more of it: bits, points and logarithms of errors.
    if script == "network_text":
        assert found["bits"] == pytest.approx(kept["bits"], abs=0.03)
    elif script == "network_pictures":
        assert found["held"] == pytest.approx(kept["held"], abs=3.0)
    elif "bits" in kept:
        assert found["bits"] == pytest.approx(kept["bits"], abs=0.05)
    else:
        assert np.log(found["excess"]) == pytest.approx(np.log(kept["excess"]), abs=0.3)


def test_one_cell_beside_the_kept_one(benchmarks, tmp_path):
    kept = benchmarks["network_study"]
    study = replace(benchmarks["network_theory"].study(small=True), kept=tmp_path / "kept.json")
    found = study.cell("base", 1)
    study.kept.write_text(json.dumps({"cells": {"base": [{"bits": "first"}, {"bits": "second"}]}}), encoding="utf-8")
    lines = kept.beside(study, "base", 1).splitlines()
    assert lines[0] == f"bits: {found['bits']}, kept: second"
    assert f"length: {found['length']}, kept: nothing" in lines
    assert kept.beside(study, "base", 7).splitlines()[0].endswith("kept: nothing")


def test_models_of_a_seed_share_weights_and_batches(benchmarks):
    models = benchmarks["network_models"]

    def parameters(name):
        def layer(place):
            bank = models.MLPBank(models.N_EXPERTS, models.D, models.HIDDEN)
            return models.sparse(models.ROUTERS[name], models.D, 7, bank, place)

        torch.manual_seed(len(name))
        model = models.Transformer(models.text().alphabet, layer)
        models.initialise(model, 7)
        return {key: value for key, value in model.named_parameters() if ".router." not in key}

    first, second = parameters("softmax"), parameters("hierarchical")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(value.std() > 0.0 for value in first.values() if value.ndim > 1)
    batches = [models.text().batch(4, models.seeded(7, "batches")) for _ in range(2)]
    assert torch.equal(*batches)


def test_dense_models_have_as_many_weights_as_they_say(benchmarks):
    models = benchmarks["network_models"]

    def weights(name):
        return sum(weight.numel() for weight in models.OneNetwork(models.D, models.DENSE[name]).parameters())

    bank = models.MLPBank(models.N_EXPERTS, models.D, models.HIDDEN)
    total = sum(weight.numel() for weight in bank.parameters())
    assert weights("dense, equal total") == total
    assert weights("dense, equal active") == total * models.TOP_K // models.N_EXPERTS
    for kind in benchmarks["network_teacher"].EXPERTS.values():
        assert sum(values[0].numel() for values in kind.draw(models.seeded(0), (1,)).values()) == 16


def test_little_of_the_held_out_text_stands_in_the_training_text(benchmarks):
    text = benchmarks["network_models"].text()
    windows = text.held_windows()
    assert windows.shape[1] == benchmarks["network_models"].CONTEXT + 1
    train = "".join(map(chr, text.train.flatten().tolist()))
    # Each paragraph is there once; some are nearly alike. The page says how many.
    assert sum("".join(map(chr, row)) in train for row in windows.tolist()) <= 0.05 * len(windows)


def test_a_mixture_is_its_definition_and_a_perfect_student_has_no_error(benchmarks):
    teacher = benchmarks["network_teacher"]
    kind = teacher.EXPERTS["two-layer tanh"]
    parameters = teacher.truth(kind, 3, seed=1)
    parameters["bias"] = torch.tensor([[0.1, -0.2, 0.3]])
    x = torch.randn(1, 5, teacher.D, generator=torch.Generator().manual_seed(0))
    found = teacher.mixture(kind, parameters, x, torch.tensor([2]))
    for row in range(5):
        logits = parameters["slope"][0] @ x[0, row] + parameters["bias"][0]
        best = logits.argsort(descending=True)[:2]
        weights = logits[best].softmax(0)
        outputs = [parameters["outer"][0, i] @ torch.tanh(parameters["inner"][0, i] @ x[0, row]) for i in best]
        torch.testing.assert_close(found[0, row], sum(w * h for w, h in zip(weights, outputs, strict=True)))


def test_more_rows_bring_a_student_closer(benchmarks):
    teacher = benchmarks["network_teacher"]
    lesson = teacher.Lesson(1, 1, 2, (16, 4096), (2, 2), 150)
    found = teacher.taught(teacher.EXPERTS["linear"], lesson, 0)
    assert found["excess"][1] < 0.2 * found["excess"][0] < 1.0


def test_intervals_and_holm(benchmarks):
    study = benchmarks["network_study"]
    first, second = [1.0, 2.0, 4.0], [0.5, 1.0, 2.0]
    one = study.difference(first, second)
    reference = stats.ttest_rel(first, second)
    low, high = reference.confidence_interval(0.95)
    assert (one.mean, one.low, one.high, one.p) == pytest.approx((7 / 6, low, high, reference.pvalue))
    same = study.difference(first, first)
    assert (same.mean, same.p, same.is_clear) == (0.0, 1.0, False)
    made = {name: study.Difference(0.0, 0.0, 0.0, p, p) for name, p in {"a": 0.04, "b": 0.01, "c": 0.03}.items()}
    holm = {name: found.holm for name, found in study.corrected(made).items()}
    # 3 · .01, 2 · .03, and 1 · .04, which is not below the one before.
    assert holm == pytest.approx({"b": 0.03, "c": 0.06, "a": 0.06})
    begin, end = study.marks("x")
    page = study.with_table(f"before\n{begin}\nold\n{end}\nafter", "x", "new")
    assert page == f"before\n{begin}\n\nnew\n\n{end}\nafter"
