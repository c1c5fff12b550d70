"""CSV and parquet read strictly: a table that could be read in two ways is refused, with the place named."""

import codecs
import csv
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from gatewise.exceptions import InputError
from gatewise.io.tables import MISSING_WORDS, OTHER_SEPARATOR, SEPARATOR, Array, Table, names_rows
from gatewise.messages import shown

__all__ = ["parquet_table", "parse_csv", "parse_parquet", "read_table"]

_PARQUET_MAGIC = b"PAR1"
_INDEX_COLUMN = re.compile(r"__index_level_\d+__")


def read_table(path: str | os.PathLike[str], encoding: str | None = None) -> Table:
    r"""Read a CSV or parquet file, strictly.

    Parquet is known by its suffix (.parquet, .pq) or its first bytes; everything else is read as CSV with commas, one
    header line, `"` as quote and an empty field, NA, N/A, null or NULL as missing value. White space around fields is
    not part of them, blank lines are skipped.

    Args:
        path: the file.
        encoding: of a CSV file; by default UTF-8, or UTF-16 if the file begins with its byte order mark.

    Raises:
        InputError: the file is missing, empty, without rows, not of that format or encoding, contains NUL bytes, has
            a ragged row, columns with the same name, or none with a name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "data.csv")
        ...     _ = path.write_text("x,colour\n1.5,red\n,blue\n")
        ...     table = read_table(path)
        >>> table.names, table.column("x").missing.tolist(), table.column("colour").values.tolist()
        (['x', 'colour'], [False, True], ['red', 'blue'])
    """
    source = str(path)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no file {source}: check its name") from None
    except IsADirectoryError:
        raise InputError(f"{source} is a folder: name a CSV or parquet file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {source}: {getattr(error, 'strerror', None) or error}") from error
    if Path(path).suffix.lower() in (".parquet", ".pq") or data.startswith(_PARQUET_MAGIC):
        return parse_parquet(data, source)
    return parse_csv(data, source, encoding)


def _decode(data: bytes, source: str, encoding: str | None) -> str:
    if encoding is None:
        if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            raise InputError(f'{source} is UTF-32: save it as UTF-8, or pass encoding="utf-32"')
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = "utf-16" if utf16 else "utf-8"
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise InputError(f"unknown encoding {shown(encoding)}: use a name like utf-8, latin-1 or cp1252") from None
    except UnicodeDecodeError as error:
        byte, line = error.object[error.start], data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{source} is not valid {error.encoding.upper()}: byte 0x{byte:02x} at position {error.start} "
            f"(line {line} of the file); save it as UTF-8, or name its encoding, for example "
            'encoding="latin-1"'
        ) from None
    except UnicodeError as error:
        raise InputError(f"{source} cannot be decoded as {encoding}: {error}; name its encoding") from None


def _not_csv(source: str, line: int, error: csv.Error) -> InputError:
    """What is wrong with a record that Python's reader refuses: its quotes, or a field of unusual length."""
    place = f"{source}, the record that begins in line {line} of the file"
    if "field limit" in str(error):
        return InputError(
            f"{place} has a field of more than {csv.field_size_limit():,} characters: is a quote not closed, or is "
            "this no table?"
        )
    return InputError(f"{place} is not valid CSV: {error}; check its quotes")


def _record_lines(data: bytes, text: str, source: str) -> np.ndarray:
    """The line on which each record begins, blank lines left out; also refuses quotes that could be read two ways."""
    if b'"' in data:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        starts: list[int] = []
        line = 1
        try:
            for record in reader:
                if record:
                    starts.append(line)
                line = reader.line_num + 1
        except csv.Error as error:
            raise _not_csv(source, line, error) from None
        return np.asarray(starts, dtype=np.int64)
    characters = np.frombuffer(data, dtype=np.uint8)
    feed, carriage = characters == ord("\n"), characters == ord("\r")
    ends = np.flatnonzero(feed | (carriage & ~np.append(feed[1:], False)))
    starts_at = np.concatenate([[0], ends + 1])
    ends = np.append(ends, len(characters))
    two = (ends > 0) & (ends < len(characters))
    two[two] = feed[ends[two]] & carriage[ends[two] - 1]
    return np.flatnonzero(ends - two > starts_at) + 1


def _check_names(names: list[str], source: str) -> tuple[int, ...]:
    """Refuse names that are there twice; the places (from 1) of columns without one."""
    for place, name in enumerate(names, start=1):
        first = names.index(name) + 1
        if name and first != place:
            raise InputError(
                f"{source}: the columns {first} and {place} are both named {shown(name)}; rename one of them"
            )
    unnamed = tuple(place for place, name in enumerate(names, start=1) if not name)
    if names and len(unnamed) == len(names):
        raise InputError(f"{source}: no column has a name; a header line with names is needed")
    return unnamed


def parse_csv(data: bytes, source: str, encoding: str | None = None) -> Table:
    r"""The table in the bytes of a CSV file; see `read_table`.

    Args:
        data: the file's bytes.
        source: what messages call it.
        encoding: as in `read_table`.

    Raises:
        InputError: as `read_table`.

    Example:
        >>> parse_csv(b"x,y\n1,2\n\n3\n", "data.csv")
        Traceback (most recent call last):
        gatewise.exceptions.InputError: data.csv, line 4 of the file has 1 field where the header has 2: correct that
        line, or put quotes around fields that contain commas
    """
    if not data:
        raise InputError(f"{source} is empty: a header line and rows are needed")
    text = _decode(data, source, encoding)
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{source} cannot be decoded as {encoding}: {error.reason}; name its encoding") from None
    nul = data.find(b"\0")
    if nul >= 0:
        line = data.count(b"\n", 0, nul) + 1
        raise InputError(
            f"{source} contains NUL bytes, the first in line {line} of the file: it is damaged, compressed, a "
            "spreadsheet, or UTF-16 without a byte order mark; save it as UTF-8 CSV"
        )
    lines = _record_lines(data, text, source)
    if len(lines) == 0:
        raise InputError(f"{source} is empty: a header line and rows are needed")
    try:
        header = next(record for record in csv.reader(io.StringIO(text, newline="")) if record)
    except csv.Error as error:
        raise _not_csv(source, int(lines[0]), error) from None
    names = [name.strip() for name in header]
    unnamed = _check_names(names, source)
    if len(lines) == 1:
        raise InputError(f"{source} has a header but no rows")
    fields = _read_fields(data, names, lines, source)
    arrays = dict(zip(names, fields, strict=True))
    arrays.pop("", None)
    is_index = unnamed[:1] == (1,) and names_rows(fields[0])
    return Table(source, arrays, lines[1:], "line", unnamed=unnamed, names_rows=is_index)


def _read_fields(data: bytes, names: list[str], lines: np.ndarray, source: str) -> list[Array]:
    """The fields below the header as text, column by column, trimmed, missing ones null."""
    width = len(names)
    ragged: list[tuple[int, int]] = []

    def refuse(row: Any) -> str:
        ragged.append((row.number or 1, row.actual_columns))
        return "error"

    keys = [str(place) for place in range(width)]
    options = {
        # The header is read as a row, so that its quotes are understood as everywhere else.
        "read_options": pyarrow.csv.ReadOptions(
            column_names=keys, use_threads=False, block_size=min(len(data) + 1, 2**31 - 1)
        ),
        "parse_options": pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
        "convert_options": pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(keys, pa.string())),
    }
    try:
        fields = pyarrow.csv.read_csv(pa.BufferReader(data), **options).slice(1)
    except pa.ArrowException as error:
        if not ragged:
            raise InputError(f"{source} cannot be read as CSV: {error}") from error
        if width == 1 and SEPARATOR.search(names[0]):
            # Then the commas are in the numbers.
            raise InputError(f"{source}: {OTHER_SEPARATOR}, and with decimal points") from None
        row, found = ragged[0]
        raise InputError(
            f"{source}, line {lines[row - 1]} of the file has {found} field{'s' * (found != 1)} where the header has "
            f"{width}: correct that line, or put quotes around fields that contain commas"
        ) from None
    words = pc.SetLookupOptions(pa.array(MISSING_WORDS, pa.string()))
    nothing = pa.scalar(None, pa.string())
    arrays = []
    for column in fields.columns:
        trimmed = pc.call_function("utf8_trim_whitespace", [column])
        is_missing = pc.call_function("is_in", [trimmed], words)
        arrays.append(pc.call_function("if_else", [is_missing, nothing, trimmed]))
    return arrays


def parquet_table(data: bytes) -> Any:
    """The `pyarrow.Table` in the bytes of a parquet file, page checksums compared, read in the calling thread alone.

    A thread of Arrow's pool gives its share of the bytes back after the table is there, for which it needs the
    interpreter's lock. If the process is ending by then, which a refusal lets it do at once, it dies of SIGABRT.

    Raises:
        pyarrow.ArrowException: it is none.
        OSError: it is none.

    Example:
        >>> import io
        >>> buffer = io.BytesIO()
        >>> pyarrow.parquet.write_table(pa.table({"a": [1, 2]}), buffer)
        >>> parquet_table(buffer.getvalue()).num_rows
        2
    """
    reader = pyarrow.parquet.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    return reader.read(use_threads=False)


def parse_parquet(data: bytes, source: str) -> Table:
    """The table in the bytes of a parquet file; see `read_table`.

    An index that pandas stored without a name is left out, and the table's notes say so.

    Args:
        data: the file's bytes.
        source: what messages call it.

    Raises:
        InputError: as `read_table`.
    """
    if not data:
        raise InputError(f"{source} is empty: a parquet table is needed")
    try:
        table = parquet_table(data)
        table.validate(full=True)
        names = table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        detail = str(error).strip().splitlines()
        raise InputError(
            f"{source} cannot be read as parquet: {detail[0] if detail else type(error).__name__}"
        ) from error
    unnamed = _check_names(names, source)
    arrays = {
        name: column
        for name, column in zip(names, table.columns, strict=True)
        if name and not _INDEX_COLUMN.fullmatch(name)
    }
    if not arrays or table.num_rows == 0:
        raise InputError(f"{source} has no {'rows' if arrays else 'columns'}")
    notes = tuple(f"left out the unnamed pandas index {name!r}" for name in names if name and name not in arrays)
    return Table(source, arrays, np.arange(1, table.num_rows + 1), "row", notes, unnamed)
