"""The record of a data set.

Its settings must agree, rows outlive their process, and any parts give one manifest.
"""

import json

import pytest
from conftest import run_python

from stylenet.applying.record import Record
from stylenet.errors import UsageError

ROWS = [
    ("c1.png", "s.png", "b.png", "1"),
    ("c0, the first.png", "s.png", "a.png", "0.5"),
    ("c\udcff.png", "ß.png", "c.png", "1"),
]


def files(folder):
    """The names in a listing without hidden files; the locks are hidden and stay."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def text_of(folder):
    return (folder / "manifest.csv").read_bytes().decode(errors="surrogateescape")


def test_the_manifest_is_sorted_and_the_parts_are_gone(tmp_path):
    kept = Record(tmp_path, {"alpha": 1.0})
    for row in (*ROWS, ROWS[0]):
        kept.add(row)
    assert files(tmp_path) == ["manifest.csv.part-0", "stylize.json"]
    kept.close()
    assert files(tmp_path) == ["manifest.csv", "stylize.json"]
    first, *lines = text_of(tmp_path).splitlines()
    assert first == "content,style,output,alpha"
    assert lines == [
        '"c0, the first.png",s.png,a.png,0.5',
        "c1.png,s.png,b.png,1",
        "c\udcff.png,ß.png,c.png,1",
    ]


def test_half_a_row_does_not_swallow_the_next(tmp_path):
    (tmp_path / "stylize.json").write_text('{"settings": {}}')
    (tmp_path / "manifest.csv.part-0").write_bytes(b"c1.png,s.png,b.png,1\nc0, the fi")
    kept = Record(tmp_path, {})
    kept.add(("c2.png", "s.png", "d.png", "1"))
    kept.close()
    assert text_of(tmp_path).splitlines()[1:] == ["c1.png,s.png,b.png,1", "c2.png,s.png,d.png,1"]


def test_rows_of_other_processes_and_former_calls_are_kept(tmp_path):
    for rank, row in enumerate(ROWS):
        one = Record(tmp_path, {}, rank, 3)
        one.add(row)
        one.close()
    assert len(text_of(tmp_path).splitlines()) == 4


def test_fewer_processes_take_over_what_more_have_left(tmp_path):
    for rank, row in enumerate(ROWS):
        Record(tmp_path, {}, rank, 3).add(row)  # never closed, as if killed
        (tmp_path / f".writing-{rank}-x.png").write_bytes(b"half")
    (tmp_path / "manifest.csv.part-1").open("ab").write(b"c9.png,s.png,z.p")
    alone = Record(tmp_path, {})
    assert files(tmp_path) == [*(f"manifest.csv.part-{rank}" for rank in range(3)), "stylize.json"]
    alone.close()
    assert (
        files(tmp_path) == ["manifest.csv", "stylize.json"]
        and len(text_of(tmp_path).splitlines()) == 4
    )


def test_a_share_keeps_its_hands_off_another(tmp_path):
    (tmp_path / ".writing-1-x.png").write_bytes(b"being written")
    (tmp_path / "manifest.csv.part-1").write_text("x,y,z,1\n")
    (tmp_path / "stylize.json").write_text(json.dumps({"settings": {}}))
    Record(tmp_path, {}, 0, 2).close()
    assert (tmp_path / ".writing-1-x.png").exists() and (tmp_path / "manifest.csv.part-1").exists()


def test_two_processes_with_one_share_are_refused(tmp_path):
    Record(tmp_path, {})
    code = (
        "from pathlib import Path; from stylenet.applying.record import Record; "
        f"Record(Path({str(tmp_path)!r}), {{}})"
    )
    held = Record(tmp_path, {})
    done = run_python("-c", code)
    assert done.returncode == 1 and "another process makes the same share" in done.stderr
    held.close()


def test_settings_must_agree(tmp_path):
    Record(tmp_path, {"alpha": 1.0, "size": 512}).close()
    Record(tmp_path, {"alpha": 1.0, "size": 512}).close()
    with pytest.raises(UsageError, match="but size was 512 and is 256 now"):
        Record(tmp_path, {"alpha": 1.0, "size": 256})
    with pytest.raises(UsageError, match="but crop was None and is True now"):
        Record(tmp_path, {"alpha": 1.0, "size": 512, "crop": True})
    about = json.loads((tmp_path / "stylize.json").read_text())
    assert set(about) == {"settings", "git_commit", "versions"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": 3}'])
def test_damaged_settings(tmp_path, text):
    (tmp_path / "stylize.json").write_text(text)
    with pytest.raises(UsageError, match="expected the settings of a data set"):
        Record(tmp_path, {})


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(UsageError, match="holds holiday.jpg"):
        Record(tmp_path, {})


def test_an_error_releases_the_share_and_keeps_its_rows(tmp_path):
    with pytest.raises(ZeroDivisionError), Record(tmp_path, {}) as kept:
        kept.add(ROWS[0])
        1 / 0  # noqa: B018 - the error is the test
    with Record(tmp_path, {}) as again:  # `kept` lives, but holds nothing
        again.add(ROWS[1])
    assert len(text_of(tmp_path).splitlines()) == 3 and kept
