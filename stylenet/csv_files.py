"""The reader and the writer of every CSV table.

Spreadsheets may begin a file with a byte order mark and separate columns by semicolons. File names
are bytes, which need not be UTF-8.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stylenet.errors import DataError
from stylenet.files import check_regular, replaced_file

SEPARATORS = {".tsv": "\t"}  # by suffix; else comma, or semicolon


def read_rows(
    file: str | Path, columns: Sequence[str], remedy: str = "correct it"
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row) for every row of a table that has at least these columns.

    Raises DataError, whose message ends with the remedy.
    """
    expected = f"expected a table with the columns {', '.join(columns)}"
    try:
        check_regular(file, "a table")
        # surrogateescape carries bytes that are no UTF-8 unchanged
        with open(file, newline="", encoding=encoding_of(file), errors="surrogateescape") as stream:
            reader = csv.DictReader(stream, delimiter=separator_of(Path(file), stream))
            if not set(columns) <= set(reader.fieldnames or ()):
                header = ", ".join(reader.fieldnames or ()) or "nothing"
                raise DataError(f"{expected} in {file}, but {header} came; {remedy}")
            for row in reader:
                yield reader.line_num, {name: row[name] or "" for name in reader.fieldnames}
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{expected}, but {file} cannot be read ({error}); {remedy}") from None


def encoding_of(file: str | Path) -> str:
    """The encoding of a table: UTF-8 with or without a mark, or UTF-16 by its mark."""
    with open(file, "rb") as stream:
        mark = stream.read(2)
    return "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def separator_of(file: Path, stream: io.TextIOBase) -> str:
    """The column separator of an open table; rewinds the stream to its start."""
    header = stream.readline()
    stream.seek(0)
    default = next((mark for mark in ",;\t" if mark in header), ",")
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
        separator = SEPARATORS.get(Path(file).suffix.lower(), ",")
        stream.writelines(text_of(row, separator) for row in itertools.chain([columns], rows))


def text_of(row: Sequence[Any], separator: str = ",") -> str:
    """One row as text, with its line break."""
    line = io.StringIO()
    # csv does not know that a return in a name has to be in quotes
    quoting = csv.QUOTE_ALL if any("\r" in str(cell) for cell in row) else csv.QUOTE_MINIMAL
    csv.writer(line, delimiter=separator, lineterminator="\n", quoting=quoting).writerow(row)
    return line.getvalue()


def format_row(row: Sequence[Any]) -> bytes:
    """One row as bytes in a CSV file, with its line break."""
    return text_of(row).encode(errors="surrogateescape")


def parse_rows(content: bytes) -> Iterator[list[str]]:
    """The rows of a file without a header, without a half-written last line."""
    text = content.decode(errors="surrogateescape")
    yield from csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
