"""Tables on the disk: one reader and one writer for every CSV.

Spreadsheets begin a file with a mark and may separate by semicolons; file names are bytes, which
need not be UTF-8.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stylenet.errors import DataError
from stylenet.images import replaced_file

SEPARATORS = {".tsv": "\t"}  # by suffix; else a comma, or a semicolon where the header has no comma


def read_rows(
    file: str | Path, columns: Sequence[str], remedy: str = "correct it"
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row) for every row of a table that has at least these columns. Raises DataError."""
    expected = f"expected a table with the columns {', '.join(columns)}"
    try:
        with open(file, newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            reader = csv.DictReader(stream, delimiter=separator_of(Path(file), stream))
            if not set(columns) <= set(reader.fieldnames or ()):
                came = ", ".join(reader.fieldnames or ()) or "nothing"
                raise DataError(f"{expected} in {file}, but {came} came; {remedy}")
            for row in reader:
                yield reader.line_num, {name: row[name] or "" for name in reader.fieldnames}
    except (OSError, csv.Error) as error:
        raise DataError(f"{expected}, but {file} cannot be read ({error}); {remedy}") from None


def separator_of(file: Path, stream: io.TextIOBase) -> str:
    """What separates the columns of an open table; the stream stands at its start again."""
    header = stream.readline()
    stream.seek(0)
    default = ";" if ";" in header and "," not in header else ","
    return SEPARATORS.get(file.suffix.lower(), default)


def write_rows(
    file: str | Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    scratch: Path | None = None,
) -> None:
    """Write a table, whole or not at all; the suffix .tsv separates by tabs.

    `scratch`: see replaced_file.
    """
    with (
        replaced_file(file, scratch) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(
            stream, delimiter=SEPARATORS.get(Path(file).suffix.lower(), ","), lineterminator="\n"
        )
        writer.writerow(columns)
        writer.writerows(rows)


def format_row(row: Sequence[Any]) -> bytes:
    """One row as it stands in a file, with its line break."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue().encode(errors="surrogateescape")


def parse_rows(content: bytes) -> Iterator[list[str]]:
    """The rows of a file without a header; a half-written last line is left out."""
    text = content.decode(errors="surrogateescape")
    yield from csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
