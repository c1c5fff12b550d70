"""Tables are read as an independent reader reads them, or refused with the place named."""

import csv
import io
import os
import threading
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewise.exceptions import InputError
from gatewise.io.coding import prepare_training
from gatewise.io.reading import parse_csv, parse_parquet, read_table
from gatewise.io.tables import MISSING_WORDS


def parquet_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def test_types_missing_values_and_places():
    table = parse_csv(
        b'y , x,colour\n1,  2.5 ,"red"\n\n-3e2,NA, "blue, dark\n\n4,,\n'.replace(b' "blue, dark', b"blue"), "d"
    )
    assert table.names == ["y", "x", "colour"]
    y, x, colour = (table.column(name) for name in table.names)
    assert y.is_number
    assert y.values.tolist() == [1.0, -300.0, 4.0]
    assert x.is_number
    assert x.missing.tolist() == [False, True, True]
    assert x.values[0] == 2.5
    assert not colour.is_number
    assert colour.values[:2].tolist() == ["red", "blue"]
    assert colour.missing.tolist() == [False, False, True]
    assert table.positions.tolist() == [2, 4, 6]
    assert table.where(1) == "d, line 4 of the file"


def test_quotes_newlines_and_places_below_them():
    table = parse_csv(b'name,y\n"two\nlines",1\n"say ""yes"", now",x\n', "d")
    assert table.column("name").values.tolist() == ["two\nlines", 'say "yes", now']
    with pytest.raises(InputError, match="d, line 4 of the file: the target 'y' must be numeric but is 'x'"):
        table.number_column("y", "target")


@pytest.mark.parametrize(
    "text", ["1", "+2", "-.5", "5.", "1e5", "1E-5", "007", "-0", "123456789.123456789", "4.9e-324"]
)
def test_numbers_are_read_as_python_reads_them(text):
    column = parse_csv(f"a\n{text}\n".encode(), "d").column("a")
    assert column.is_number
    assert column.values[0] == float(text)


@pytest.mark.parametrize(
    "text", ["1_000", "0x10", "1e", "1,5", "1d5", "１", "--1", "1 000", "abc", "TRUE", "2020-01-01"]
)
def test_what_is_not_a_number_is_text(text):
    column = parse_csv(f'a\n"{text}"\n'.encode(), "d").column("a")
    assert not column.is_number
    assert column.values[0] == text


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("a,é\n1,ü\n".encode(), None),
        (b"\xef\xbb\xbf" + "a,é\n1,ü\n".encode(), None),
        ("a,é\n1,ü\n".encode("utf-16"), None),
        (b"\xfe\xff" + "a,é\n1,ü\n".encode("utf-16-be"), None),
        ("a,é\n1,ü\n".encode("latin-1"), "latin-1"),
        ("a,é\n1,ü\n".encode("cp1252"), "cp1252"),
        ("a,é\n1,ü\n".encode("utf-32"), "utf-32"),
        ("a,é\r\n1,ü\r\n".encode(), "utf-8"),
        ("a,é\r1,ü".encode(), "utf-8"),
    ],
    ids=["utf-8", "utf-8-bom", "utf-16-le", "utf-16-be", "latin-1", "cp1252", "utf-32", "crlf", "cr"],
)
def test_encodings(data, encoding):
    table = parse_csv(data, "d", encoding)
    assert table.names == ["a", "é"]
    assert table.column("é").values.tolist() == ["ü"]
    assert table.positions.tolist() == [2]


REFUSED_CSV = {
    "empty": (b"", r"d\.csv is empty: a header line and rows are needed"),
    "only a byte order mark": (b"\xef\xbb\xbf", r"d\.csv is empty: a header line and rows are needed"),
    "blank lines": (b"\n\n\r\n", r"d\.csv is empty"),
    "header only": (b"a,b\n", r"d\.csv has a header but no rows"),
    "duplicate column": (b"a,b, a\n1,2,3\n", r"d\.csv: the columns 1 and 3 are both named 'a'; rename one of them"),
    "no name": (b",\n0,1\n", r"d\.csv: no column has a name; a header line with names is needed"),
    "semicolons and decimal commas": (
        b"y;x\n2,5;1,5\n3,5;2,5\n",
        r"d\.csv: the fields of the file are not separated by commas: save it with commas, and with decimal points$",
    ),
    "short row": (
        b"a,b\n1,2\n\n3\n",
        r"d\.csv, line 4 of the file has 1 field where the header has 2: correct that line",
    ),
    "long row": (b"a,b\n1,2,3\n", r"d\.csv, line 2 of the file has 3 fields where the header has 2"),
    "short row below a quoted newline": (b'a,b\n"1\n",2\n3\n', r"d\.csv, line 4 of the file has 1 field where"),
    "open quote": (
        b'a,b\n1,2\n"3,4\n',
        r"d\.csv, the record that begins in line 3 of the file is not valid CSV: .*quotes",
    ),
    "text after a quote": (b'a,b\n1,"2"x\n', r"d\.csv, the record that begins in line 2 of the file is not valid CSV"),
    "NUL": (b"a,b\n1,2\n3,\x00\n", r"d\.csv contains NUL bytes, the first in line 3 of the file"),
    "UTF-16 without a mark": ("a,b\n1,2\n".encode("utf-16-le"), r"d\.csv contains NUL bytes, .* UTF-16 without a byte"),
    "latin-1": (
        "a,b\n1,é\n".encode("latin-1"),
        r"d\.csv is not valid UTF-8: byte 0xe9 at position 6 \(line 2 of the file\); .* encoding=\"latin-1\"",
    ),
    "odd UTF-16": (b"\xff\xfea\x00,", r"d\.csv is not valid UTF-16.*at position 4"),
    "UTF-32": ("a\n1\n".encode("utf-32"), r"d\.csv is UTF-32: save it as UTF-8, or pass encoding=\"utf-32\""),
    "xlsx": (b"PK\x03\x04\x14\x00\x06\x00", r"d\.csv contains NUL bytes.* a spreadsheet"),
}


@pytest.mark.parametrize(("data", "pattern"), REFUSED_CSV.values(), ids=REFUSED_CSV.keys())
def test_csv_that_is_refused(data, pattern):
    with pytest.raises(InputError, match=pattern):
        parse_csv(data, "d.csv")


@pytest.mark.parametrize(
    ("encoding", "pattern"),
    [
        ("no-such", "unknown encoding 'no-such': use a name like utf-8"),
        ("hex", "unknown encoding 'hex'"),
        ("ascii", r"not valid ASCII: byte 0xc3 at position 0 \(line 1 of the file\)"),
        ("undefined", "d cannot be decoded as undefined"),
    ],
)
def test_encodings_that_are_refused(encoding, pattern):
    with pytest.raises(InputError, match=pattern):
        parse_csv("é\n1\n".encode(), "d", encoding)


def test_an_encoding_that_yields_no_text_is_refused():
    with pytest.raises(InputError, match="cannot be decoded as unicode_escape"):
        parse_csv(b"a\n\\ud800\n", "d", "unicode_escape")


@pytest.mark.parametrize(
    ("text", "name", "pattern"),
    [
        ("x,y\n1,2\n", "z", r"d has no column 'z'; its columns are 'x', 'y': name one of them"),
        ("stretch,y\n1,2\n", "strech", r"did you mean 'stretch'\?"),
        ("x;y\n1;2\n", "z", "the fields of the file are not separated by commas: save it with commas"),
        (",".join(f"c{i}" for i in range(30)) + "\n" + "1," * 29 + "1\n", "zz", r"'c19' and 10 more: name one of them"),
        (
            "x\n1\nfoo\n",
            "x",
            "mixes text and numbers, 'foo' in line 3 of the file and '1' in line 2; correct the odd ones",
        ),
        (
            "x\neast\nwest\nNaN\n",
            "x",
            "'east' in line 2 of the file and 'NaN' in line 4; the latter counts as a number that is not finite, not "
            "as a missing value, which is an empty field or one of 'NA', 'N/A', 'null', 'NULL': correct these",
        ),
    ],
)
def test_columns_that_are_refused(text, name, pattern):
    with pytest.raises(InputError, match=pattern):
        parse_csv(text.encode(), "d").column(name)


def test_a_column_without_a_name_is_refused_only_where_it_is_used():
    table = parse_csv(b",y,x,\n0,1,2,\n1,3,4,\n", "d.csv")
    assert (table.names, table.unnamed) == (["y", "x"], (1, 4))
    with pytest.raises(InputError, match=r"d\.csv: column 4 has no name; .* row\.names=FALSE\), or say which columns"):
        table.leave_out_unnamed()
    assert parse_csv(b"y,x\n1,2\n", "d.csv").leave_out_unnamed() == []


@pytest.mark.parametrize("labels", [("0", "1", "2"), ("17", "3", "5"), ('"Mazda RX4"', '"Fiat 128"', '"Volvo 142E"')])
def test_the_names_of_rows_that_r_and_pandas_write_are_left_out(labels):
    text = '"",y,x\n' + "".join(f"{label},{row},{row**2}\n" for row, label in enumerate(labels))
    data = prepare_training(parse_csv(text.encode(), "d.csv"), "y")
    assert list(data.design.columns) == ["x"]
    assert data.notes[0] == "left out the first column, which has no name and names the rows"
    assert "left out" not in prepare_training(parse_csv(text.encode(), "d.csv"), "y", features=["x"]).notes[0:1]


@pytest.mark.parametrize(
    "values", [("0.5", "1.5", "2.5"), ("1", "1", "2"), ("1", "", "2"), ("a", "1", "b"), ("nan", "1", "2")]
)
def test_what_may_be_data_without_a_name_is_refused(values):
    text = ",y,x\n" + "".join(f"{value},{row},{row**2}\n" for row, value in enumerate(values))
    with pytest.raises(InputError, match=r"d\.csv: column 1 has no name"):
        prepare_training(parse_csv(text.encode(), "d.csv"), "y")


@pytest.mark.parametrize("words", [("True", "False"), ("TRUE", "FALSE"), ("true", "false")])
def test_booleans_are_numbers_where_numbers_are_asked_for(words):
    text = "y\n{0}\n{1}\nNA\n{0}\n".format(*words)
    column = parse_csv(text.encode(), "d").number_column("y", "target")
    assert column.values[~column.missing].tolist() == [1.0, 0.0, 1.0]
    assert column.missing.tolist() == [False, False, True, False]
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.table({"y": [True, False, None]}), buffer)
    column = parse_parquet(buffer.getvalue(), "d").number_column("y")
    assert column.is_number
    assert column.values[:2].tolist() == [1.0, 0.0]
    with pytest.raises(
        InputError, match="the target 'y' must be numeric but is 'True'; name another column, or choose"
    ):
        parse_csv(b"y\nTrue\nno\n", "d").number_column("y", "target")


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*missing\.csv: check its name"):
        read_table(tmp_path / "missing.csv")
    with pytest.raises(InputError, match="is a folder: name a CSV or parquet file"):
        read_table(tmp_path)
    with pytest.raises(InputError, match=r"cannot read .*embedded null byte"):
        read_table("a\0b")
    with pytest.raises(InputError, match=r"cannot read .*: File name too long"):
        read_table("n" * 300)


def field_strategy():
    return st.text(st.sampled_from(["a", "1", ".", " ", '"', ",", "\n", "\r", "é", "\u2028", "N", "A"]), max_size=4)


@given(
    st.lists(st.lists(field_strategy(), min_size=2, max_size=2), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_what_is_read(rows, terminator):
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator=terminator, quoting=csv.QUOTE_ALL)
    writer.writerow(["first", "second"])
    writer.writerows(rows)
    table = parse_csv(buffer.getvalue().encode(), "d")
    expected = [[None if field.strip() in MISSING_WORDS else field.strip() for field in row] for row in rows]
    assert [list(row) for row in zip(*(array.to_pylist() for array in table.arrays.values()), strict=True)] == expected


@given(st.text(st.sampled_from(["a", "1", ",", ",", "\n", "\r", '"', " ", "é"]), max_size=25))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_as_the_csv_module_reads_it_or_refused(text):
    text = "x,y\n1,2\n" + text
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, places, line = [], [], 1
    try:
        for record in reader:
            if record:
                rows.append(record)
                places.append(line)
            line = reader.line_num + 1
        valid = all(len(row) == 2 for row in rows)
    except csv.Error:
        valid = False
    if not valid:
        with pytest.raises(InputError, match=r"fields? where|not valid CSV"):
            parse_csv(text.encode(), "d")
        return
    table = parse_csv(text.encode(), "d")
    assert table.positions.tolist() == places[1:]
    expected = [[None if field.strip() in MISSING_WORDS else field.strip() for field in row] for row in rows[1:]]
    assert [list(row) for row in zip(*(array.to_pylist() for array in table.arrays.values()), strict=True)] == expected


def test_parquet_types(tmp_path):
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "real": [0.5, 1.5, np.nan],
            "text": ["a", None, "b"],
            "flag": pd.array([True, False, None], dtype="boolean"),
            "kind": pd.Categorical(["u", "v", "u"]),
        }
    )
    path = tmp_path / "d.parquet"
    frame.to_parquet(path)
    table = read_table(path)
    assert table.unit == "row"
    assert table.where(2) == f"{path}, row 3 of the table"
    columns = {name: table.column(name) for name in table.names}
    assert [column.is_number for column in columns.values()] == [True, True, False, False, False]
    assert columns["whole"].missing.tolist() == [False, True, False]
    assert columns["real"].values[:2].tolist() == [0.5, 1.5]
    assert columns["real"].missing.tolist() == [False, False, True]
    assert columns["text"].values[[0, 2]].tolist() == ["a", "b"]
    assert columns["flag"].values[:2].tolist() == ["true", "false"]
    assert columns["kind"].values.tolist() == ["u", "v", "u"]


def test_parquet_is_known_by_its_content_and_leaves_out_an_unnamed_index(tmp_path):
    path = tmp_path / "data.bin"
    pd.DataFrame({"a": [1.0, 2.0]}, index=[7, 9]).to_parquet(path)
    table = read_table(path)
    assert table.names == ["a"]
    assert table.notes == ("left out the unnamed pandas index '__index_level_0__'",)


@pytest.mark.parametrize("kind", [pa.decimal128(6, 2), pa.float16(), pa.uint64(), pa.int8()])
def test_every_kind_of_number_is_a_number(kind):
    values = (
        [Decimal("1.00"), Decimal("2.00")] if pa.types.is_decimal(kind) else np.array([1, 2], kind.to_pandas_dtype())
    )
    table = parse_parquet(parquet_bytes(pa.table({"a": pa.array(values, kind)})), "d")
    assert table.column("a").values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("table", "name", "pattern"),
    [
        (
            pa.table({"t": pa.array([0], pa.timestamp("s"))}),
            "t",
            r"the column 't' has the type timestamp\[.*, which is neither",
        ),
        (pa.table({"t": pa.array([[1]])}), "t", r"the column 't' has the type list<.*leave it out"),
        (pa.table({"t": pa.array([{"a": 1}])}), "t", r"the column 't' has the type struct<"),
    ],
)
def test_parquet_columns_that_are_refused(table, name, pattern):
    with pytest.raises(InputError, match=pattern):
        parse_parquet(parquet_bytes(table), "d").column(name)


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        (b"", r"d\.parquet is empty: a parquet table is needed"),
        (b"PAR1", r"d\.parquet cannot be read as parquet: "),
        (b"x,y\n1,2\n", r"d\.parquet cannot be read as parquet: "),
        (parquet_bytes(pa.table({"a": pa.array([], pa.float64())})), r"d\.parquet has no rows"),
        (parquet_bytes(pa.table({})), r"d\.parquet has no columns"),
        (
            parquet_bytes(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])),
            r"d\.parquet: the columns 1 and 2 are both named 'a'",
        ),
        (parquet_bytes(pa.table({"a": [1.0, 2.0]}))[:-20], r"d\.parquet cannot be read as parquet: "),
    ],
    ids=["empty", "magic only", "CSV", "no rows", "no columns", "duplicate", "truncated"],
)
def test_parquet_that_is_refused(tmp_path, data, pattern):
    path = tmp_path / "d.parquet"
    path.write_bytes(data)
    with pytest.raises(InputError, match=pattern):
        read_table(path)


def test_numbers_and_text_of_parquet_are_not_taken_for_each_other():
    table = parse_parquet(parquet_bytes(pa.table({"a": [1.0], "b": ["x"]})), "d")
    with pytest.raises(InputError, match=r"d, row 1 of the table: the target 'b' must be numeric but is 'x'"):
        table.number_column("b", "target")
    with pytest.raises(InputError, match=r"d: the column 'a' holds numbers \(double\) where text is needed"):
        table.text_column("a")


def test_a_pipe_can_be_read(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=Path.write_bytes, args=(path, b"a\n1\n"))
    writer.start()
    table = read_table(path)
    writer.join()
    assert table.column("a").values.tolist() == [1.0]
