"""Tables: byte order marks, separators, names that are not UTF-8, mistakes."""

import pytest

from stylenet.csv_files import format_row, parse_rows, read_rows, write_rows
from stylenet.errors import DataError

# a name that is not UTF-8, with a comma, a line break and quotes
ODD = 'caf\udce9, the \r\n"first".png'


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_what_is_written_comes_back(tmp_path, suffix):
    file = tmp_path / f"t{suffix}"
    write_rows(file, ("content", "style"), [(ODD, 1), ("=b.png", None)])
    assert [row for _, row in read_rows(file, ("style", "content"))] == [
        {"content": ODD, "style": "1"},
        {"content": "=b.png", "style": ""},
    ]


def test_a_return_in_a_name_is_no_end_of_the_row(tmp_path):
    write_rows(tmp_path / "t.csv", ("content",), [("a\rb.png",), ("c.png",)])
    assert [row["content"] for _, row in read_rows(tmp_path / "t.csv", ("content",))] == [
        "a\rb.png",
        "c.png",
    ]
    assert list(parse_rows(format_row(["a\rb", 1]) + format_row(["c", 2]))) == [
        ["a\rb", "1"],
        ["c", "2"],
    ]


@pytest.mark.parametrize("separator", [",", ";"])
def test_spreadsheets(tmp_path, separator):
    (tmp_path / "t.csv").write_text(
        f"content{separator}style\r\na.png{separator}b.png\r\n", encoding="utf-8-sig", newline=""
    )
    assert list(read_rows(tmp_path / "t.csv", ("content",))) == [
        (2, {"content": "a.png", "style": "b.png"})
    ]


def test_rows_without_a_header():
    content = format_row(["a", ODD]) + format_row(["b", 1]) + b"half,a"
    assert list(parse_rows(content)) == [["a", ODD], ["b", "1"]]


@pytest.mark.parametrize("text", ["", "content\nx\n", "\0\1"])
def test_a_table_without_the_columns_is_refused(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(
        DataError, match="expected a table with the columns content, style in .*; make it anew"
    ):
        list(read_rows(tmp_path / "t.csv", ("content", "style"), "make it anew"))
    with pytest.raises(DataError, match="expected a table, but a folder came"):
        list(read_rows(tmp_path, ("content",)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_spreadsheets_are_read(tmp_path, encoding, separator):
    text = (
        separator.join(("path", "split")) + "\r\n" + separator.join(("ä b.jpg", "train")) + "\r\n"
    )
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    ((_, row),) = read_rows(tmp_path / "t.csv", ("path", "split"))
    assert row == {"path": "ä b.jpg", "split": "train"}
