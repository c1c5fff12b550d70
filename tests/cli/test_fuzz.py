"""Damaged files and model folders: each is refused with one line, or gives the right result.

What is right is decided by readers that are not the library's: Python's csv module, polars for
parquet, and least squares by numpy, since a mixture of one expert is ordinary least squares.
"""

import csv
import hashlib
import io
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars
import pyarrow
import pyarrow.parquet
import pytest

from gatewise.cli import main

SEED = 20261122

TABLE = '''y,x,"colour, main",z
1.25,0.5,red,3
2.5,1.5,blue,1e1
3.125,-2.5,"dark ""red""",7.25
-4,3.5,red,.5
5.75,4.25,blue,-6
6.5,5,red,2
7,6.125,blue,8.5
8.25,7.5,"dark ""red""",1
9.5,8.25,red,4
11,9.75,blue,12
12.5,10.5,red,0
13.75,11.25,"dark ""red""",5
'''

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MISSING = {"", "NA", "N/A", "null", "NULL"}

INTERESTING_BYTES = [
    b"\0", b'"', b",", b"\n", b"\r", b"\r\n", b";", b"\t", b" ", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1a", b"NA",
    b"nan", b"inf", b"1e999", b"-", b"\xe9", b"\xc3\xa9", b"\xe2\x80\xa8", b"#", b"'", b"\\", b"PAR1", b"{", b"0" * 400,
]  # fmt: skip

INTERESTING_FIELDS = [
    "", "NA", "null", "nan", "NaN", "inf", "-Infinity", "1e999", "1e308", "-1e101", "4.9e-324", "abc", "1,5", "0x1F",
    "1_0", " 3 ", "+7", "1e", "--1", "é", "=1+1", "9" * 60, "1" + "0" * 400, "true", "2020-01-01", '"', "a\nb", "red ",
    "-0", "１",
]  # fmt: skip

# Not among them: another order of the names of the features. With checksums that match it is no damage but a model
# that says something else, and nothing in the folder could tell.
INTERESTING_VALUES = [
    None, True, False, 0, 1, 2, 3, -1, 10**6, 10**9, 10**30, 0.5, float("inf"), "", "softmax", "linear", "constant",
    "x", "../../etc/passwd", "os.system", "float32", "é", [], ["x"], {}, {"name": "gaussian"},
]  # fmt: skip

RIGHT_COLUMNS = ["line", "mean", "lower", "upper", "weight_1", "weight_2"]


def mutate_bytes(data: bytes, random_: random.Random) -> bytes:
    """One to three random changes: a flipped bit, an inserted, deleted, repeated or moved piece, a cut-off end."""
    content = bytearray(data)
    for _ in range(random_.choice([1, 1, 1, 2, 3])):
        place = random_.randrange(len(content) + 1)
        length = random_.choice([1, 1, 2, 5, 20])
        kind = random_.randrange(7)
        if kind == 0 and place < len(content):
            content[place] ^= 1 << random_.randrange(8)
        elif kind == 1:
            content[place:place] = random_.choice(INTERESTING_BYTES)
        elif kind == 2:
            content[place : place + length] = random_.choice(INTERESTING_BYTES)
        elif kind == 3:
            del content[place : place + length]
        elif kind == 4:
            content[place:place] = content[place : place + length]
        elif kind == 5:
            content[place : place + length] = bytes(random_.randrange(256) for _ in range(length))
        elif random_.random() < 0.3:
            del content[place:]
    return bytes(content)


def mutate_fields(rows: list[list[str]], random_: random.Random) -> bytes:
    """One or two changes of whole fields, rows or columns of a CSV table, written as CSV again."""
    rows = [list(row) for row in rows]
    for _ in range(random_.choice([1, 1, 2])):
        row, column = random_.randrange(len(rows)), random_.randrange(4)
        kind = random_.randrange(10)
        if kind <= 4 and column < len(rows[row]):
            rows[row][column] = random_.choice(INTERESTING_FIELDS)
        elif kind == 5 and rows[row]:
            del rows[row][min(column, len(rows[row]) - 1)]
        elif kind == 6:
            rows[row].insert(column, random_.choice(INTERESTING_FIELDS))
        elif kind == 7:
            rows[random_.randrange(len(rows))] = list(rows[row])
        elif kind == 8 and len(rows) > 2:
            del rows[row]
        elif kind == 9:
            value = random_.choice(INTERESTING_FIELDS)
            for line in rows[1:]:
                line[column : column + 1] = [value]
    buffer = io.StringIO()
    quoting = random_.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    csv.writer(buffer, quoting=quoting, lineterminator=random_.choice(["\n", "\r\n"])).writerows(rows)
    return buffer.getvalue().encode()


def csv_columns(data: bytes) -> dict[str, list[str | None]] | None:
    """The table as Python's csv module reads it; None if it does not hold one."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (UnicodeError, csv.Error):
        return None
    if len(rows) < 2 or len({len(row) for row in rows}) > 1 or "\0" in text:
        return None
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names) or "" in names:
        return None
    fields = [[None if field.strip() in MISSING else field.strip() for field in row] for row in rows[1:]]
    return dict(zip(names, map(list, zip(*fields, strict=True)), strict=True))


def design_of(columns: dict[str, list[str | None]]) -> tuple[np.ndarray, np.ndarray] | None:
    """Target and design (with intercept) of a table of text, or None if it cannot be fitted."""
    numbers: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        present = [value for value in values if value is not None]
        if len(present) < len(values):
            return None
        if all(NUMBER.fullmatch(value) for value in present):
            numbers[name] = np.array([float(value) for value in present])
            if not (np.abs(numbers[name]) < 1e100).all():
                return None
            continue
        words = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
        if name == "y" or any(NUMBER.fullmatch(value) or words.fullmatch(value) for value in present):
            return None
        for level in sorted(set(present))[1:]:
            numbers[f"{name}={level}"] = np.array([float(value == level) for value in present])
        if len(set(present)) == 1 or len(set(present)) > 50:
            return None
    if "y" not in columns:
        return None
    target = numbers.pop("y")
    return target, np.column_stack([np.ones(len(target)), *numbers.values()])


def residual_spread(target: np.ndarray, design: np.ndarray) -> float:
    """The standard deviation around a linear regression."""
    scaled = design / np.abs(design).max(axis=0)
    residual = target - scaled @ np.linalg.lstsq(scaled, target, rcond=None)[0]
    return math.sqrt(float(residual @ residual) / len(target))


def log_likelihood(target: np.ndarray, design: np.ndarray) -> float:
    """The maximised Gaussian log-likelihood of a linear regression."""
    return -0.5 * len(target) * (2 * math.log(residual_spread(target, design)) + math.log(2 * math.pi) + 1)


NOTE = re.compile(r"features: |coded the column |left out the unnamed pandas index ")

# What the fit itself refuses or may refuse in a table that reads well: reasons that depend on floating point.
NUMERIC_REASONS = re.compile("is constant|linear combination|parameters and the table only|need at least|same value")
DAMAGED_CONTAINER = re.compile(f"{NUMERIC_REASONS.pattern}|cannot be read as parquet")

CLASSES = {
    "unseen level": r"which the model has not seen",
    "encoding": r"is not valid UTF|is UTF-32|cannot be decoded",
    "NUL bytes": r"NUL bytes",
    "ragged row": r"fields? where the header has",
    "quotes": r"not valid CSV",
    "column names": r"has no name|are both named",
    "empty": r"is empty|has no rows|has no columns|but no rows",
    "missing column": r"has no column",
    "missing values": r"missing values|missing value",
    "not finite": r"not a finite number",
    "not numeric": r"must be numeric|mixes text and numbers|neither number, text nor boolean",
    "levels": r"distinct texts|same value in every row",
    "cannot be fitted": NUMERIC_REASONS.pattern,
    "parquet": r"cannot be read as parquet",
    "folder incomplete": r"is incomplete|there is no model folder",
    "folder checksum": r"checksum does not match",
    "folder newer": r"schema version",
    "folder unknown class": r"cannot be rebuilt",
    "folder damaged": r"is damaged",
}


def classify(message: str) -> str:
    """The class of a refusal."""
    for name, pattern in CLASSES.items():
        if re.search(pattern, message):
            return name
    raise AssertionError(f"a refusal of no known class: {message}")


class Campaign:
    """Runs mutants and counts how they end."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.counts: Counter[str] = Counter()

    def run(self, arguments: list[str]) -> tuple[str, str]:
        """Standard output and standard error of a command that must end with 0 or with a refusal of one line."""
        code = main(arguments)
        captured = self.capsys.readouterr()
        if code == 0:
            assert all(NOTE.match(line) for line in captured.err.splitlines()), captured.err
            self.counts["right result"] += 1
            return captured.out, ""
        assert code == 2
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        self.counts[classify(captured.err)] += 1
        return "", captured.err

    def fit(self, path: Path, expected: tuple[np.ndarray, np.ndarray] | None, may_refuse: re.Pattern[str]) -> None:
        """Fit one expert to the file; `expected` is its table as another reader sees it, None for a refusal.

        A table that the other reader accepts may be refused for the reasons `may_refuse` only.
        """
        options = ["--target", "y", "--experts", "1", "--starts", "1", "--json"]
        out, error = self.run(["fit", str(path), *options])
        if error:
            assert expected is None or may_refuse.search(error), error
            return
        assert expected is not None, "an independent reader refuses this table"
        statistics = json.loads(out)["statistics"]
        assert statistics["n_rows"] == len(expected[0])
        if statistics["status"] == "ON_FLOOR":
            # One expert is on the floor only where the features explain the target up to rounding.
            assert residual_spread(*expected) < 1e-10 * expected[0].std()
            return
        # Both solve the same least-squares problem by orthogonalisation in double precision.
        assert statistics["log_likelihood"] == pytest.approx(log_likelihood(*expected), rel=1e-7, abs=1e-6)


@pytest.mark.parametrize("number", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutants(tmp_path, capsys, number):
    campaign = Campaign(capsys)
    random_ = random.Random(SEED)
    for mutants in (csv_mutants, parquet_mutants, folder_mutants):
        mutants(campaign, tmp_path, random_, number)
    total = sum(campaign.counts.values())
    with capsys.disabled():
        print(f"\n{total} mutants:", ", ".join(f"{name} {count}" for name, count in campaign.counts.most_common()))
    assert total == number
    # A campaign in which nothing is accepted, or a class of error is never met, would show little.
    assert campaign.counts["right result"] >= 0.15 * number
    assert len(campaign.counts) >= 15


def csv_mutants(campaign: Campaign, folder: Path, random_: random.Random, number: int) -> None:
    """Mutants of a CSV file, half of the number."""
    path = folder / "mutant.csv"
    rows = list(csv.reader(io.StringIO(TABLE)))
    makers = [lambda: mutate_bytes(TABLE.encode(), random_), lambda: mutate_fields(rows, random_)]
    for make in makers * (number // 4):
        data = make()
        path.write_bytes(data)
        columns = csv_columns(data)
        campaign.fit(path, None if columns is None else design_of(columns), NUMERIC_REASONS)


def parquet_mutants(campaign: Campaign, folder: Path, random_: random.Random, number: int) -> None:
    """Mutants of a parquet file, a quarter of the number."""
    path = folder / "mutant.parquet"
    frame = pd.read_csv(io.StringIO(TABLE)).rename(columns={"colour, main": "colour"})
    files = []
    for compression in (None, "snappy"):
        buffer = io.BytesIO()
        frame.to_parquet(buffer, compression=compression, store_schema=compression is None)
        files.append(buffer.getvalue())
    for mutant in range(number // 4):
        if mutant < 0.15 * number:
            path.write_bytes(mutate_bytes(files[mutant % 2], random_))
            # Which damages of the container a reader notices is its own affair.
            campaign.fit(path, parquet_design(path), DAMAGED_CONTAINER)
        else:
            mutate_frame(frame, random_).to_parquet(path)
            campaign.fit(path, parquet_design(path), NUMERIC_REASONS)


def mutate_frame(frame: pd.DataFrame, random_: random.Random) -> pd.DataFrame:
    """A frame with one column of another content or type, renamed, left out or with an index."""
    frame = frame.copy()
    name = random_.choice(list(frame.columns))
    size = len(frame)
    changes: list[Callable[[], pd.DataFrame]] = [
        lambda: frame.assign(**{name: frame[name].where(np.arange(size) != random_.randrange(size))}),
        lambda: frame.assign(**{name: [random_.choice([1.0, np.inf, -np.inf, 1e101]) for _ in range(size)]}),
        lambda: frame.assign(**{name: pd.date_range("2020-01-01", periods=size)}),
        lambda: frame.assign(**{name: [[number] for number in range(size)]}),
        lambda: frame.assign(**{name: [random_.random() < 0.5 for _ in range(size)]}),
        lambda: frame.assign(**{name: pd.array([random_.randrange(100) for _ in range(size)], dtype="Int16")}),
        lambda: frame.assign(**{name: pd.Categorical([random_.choice("uvw") for _ in range(size)])}),
        lambda: frame.assign(**{name: [str(number % 3) for number in range(size)]}),
        lambda: frame.assign(**{name: [random_.choice([None, "a", "b"]) for _ in range(size)]}),
        lambda: frame.assign(**{name: None}),
        lambda: frame.assign(**{name: 7}),
        lambda: frame.assign(extra=np.sin(np.arange(size) + 1.0)),
        lambda: frame.assign(copy=frame["x"]),
        lambda: frame.rename(columns={name: random_.choice(["", "renamed", "é", " y"])}),
        lambda: frame.drop(columns=name),
        lambda: frame.iloc[: random_.randrange(size)],
        lambda: frame.sample(frac=1.0, random_state=random_.randrange(1000)),
        lambda: frame.set_index(name),
    ]
    return random_.choice(changes)()


def parquet_design(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Target and design of a parquet file as polars reads it, or pyarrow where polars cannot; None for a refusal."""
    try:
        table = polars.read_parquet(path).to_arrow()
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException):
        try:
            table = pyarrow.parquet.read_table(path)
            table.validate(full=True)
            "".join(table.column_names)
        except (pyarrow.ArrowException, OSError, ValueError):
            return None
    numbers: dict[str, np.ndarray] = {}
    if table.num_rows == 0 or len(set(table.column_names)) < table.num_columns:
        return None
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name == "":
            return None
        if name.startswith("__index_level_"):
            continue
        series = column.to_pandas()
        if column.null_count:
            return None
        values = series.tolist()
        if name == "y" and isinstance(values[0], bool):
            numbers[name] = np.array(values, dtype=float)
        elif isinstance(values[0], str | bool):
            if name == "y":
                return None
            texts = [str(value).lower() if isinstance(value, bool) else value for value in values]
            if len(set(texts)) == 1:
                return None
            numbers |= {
                f"{name}={level}": np.array([float(t == level) for t in texts]) for level in sorted(set(texts))[1:]
            }
        elif isinstance(values[0], int | float):
            numbers[name] = np.array(values, dtype=float)
            if not (np.abs(numbers[name]) < 1e100).all():
                return None
        else:
            return None
    if "y" not in numbers:
        return None
    target = numbers.pop("y")
    return target, np.column_stack([np.ones(len(target)), *numbers.values()])


def folder_mutants(campaign: Campaign, folder: Path, random_: random.Random, number: int) -> None:
    """Mutants of a model folder, a quarter of the number; predictions must not change if one is accepted."""
    data, outputs, model = folder / "data.csv", folder / "fit", folder / "fit" / "model"
    data.write_text(TABLE)
    assert (
        main(["fit", str(data), "--target", "y", "--starts", "2", "--out", str(outputs), "--features", "x,z", "--json"])
        == 0
    )
    campaign.capsys.readouterr()
    original = {path.name: path.read_bytes() for path in model.iterdir()}
    predictions = folder / "predictions.csv"
    predict = ["predict", str(model), str(data), "--out", str(predictions), "--overwrite"]
    assert main(predict) == 0
    campaign.capsys.readouterr()
    right = predictions.read_bytes()
    for mutant in range(number // 4):
        for name, content in original.items():
            (model / name).write_bytes(content)
        name = random_.choice(sorted(original))
        if mutant < 0.11 * number:
            content = mutate_bytes(original[name], random_)
        elif mutant < 0.125 * number:
            content = random_.choice([b"", original[name][: len(original[name]) // 2], b"{}", b"[]"])
        else:
            name, content = "config.json", mutate_config(original["config.json"], random_)
        (model / name).write_bytes(content)
        _, error = campaign.run(predict)
        if error:
            continue
        if mutant < 0.125 * number:
            assert predictions.read_bytes() == right
        else:
            # Another name of the target is no damage: nothing is said about the target then, and the rest stays.
            with predictions.open() as file:
                shared = [name for name in next(csv.reader(file)) if name in RIGHT_COLUMNS]
            assert shared == RIGHT_COLUMNS
            pd.testing.assert_frame_equal(
                pd.read_csv(predictions)[shared], pd.read_csv(io.BytesIO(right))[shared], check_exact=True
            )


def mutate_config(content: bytes, random_: random.Random) -> bytes:
    """A configuration with one entry changed, added or left out, mostly with a checksum that matches."""
    config = json.loads(content)
    entries = [(config, key) for key in config]
    for holder, key in entries:
        below = holder[key]
        if isinstance(below, dict | list):
            entries += [(below, inner) for inner in (below if isinstance(below, dict) else range(len(below)))]
    holder, key = random_.choice(entries)
    kind = random_.randrange(6)
    if kind == 5:
        config[random_.choice(["gate", "experts", "family"])]["name"] = random_.choice(["entmax", "os.system", ""])
    elif kind == 4:
        config["schema_version"] = random_.randrange(4)
    elif kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[random_.choice(["extra", "class", "path"])] = random_.choice(INTERESTING_VALUES)
    else:
        holder[key] = random_.choice(INTERESTING_VALUES)
    if random_.random() < 0.8:
        config.pop("sha256", None)
        canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
        config["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    return json.dumps(config).encode()
