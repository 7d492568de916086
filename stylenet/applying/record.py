"""The record of a data set: its settings, and a row for every picture of any process.

Each process appends to a part of its own and merges it at the end, sorted by output. So the
manifest is the same for any number of processes and interruptions. A picture gets its name when it
is whole, and its row after that. If a kill comes between the two, the next run sees the picture and
adds the row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from stylenet import files, runtime
from stylenet.csv_files import format_row, parse_rows, write_rows
from stylenet.errors import UsageError

SETTINGS, MANIFEST = "stylize.json", "manifest.csv"
PART = f"{MANIFEST}.part-"
COLUMNS = ("content", "style", "output", "alpha")
MERGE_LOCK = f".{MANIFEST}.lock"


class Record:
    """The settings and the manifest of a folder, as one of several processes sees them.

    Raises UsageError if the folder holds other files or has other settings, or if another process
    writes the same share.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], rank: int = 0, world_size: int = 1
    ) -> None:
        self.folder = folder
        check_settings(folder, settings)
        self.part = open_part(folder / f"{PART}{rank}")
        # an earlier run with more processes may have left parts that nobody else merges
        self.inherited = [
            open_part(path)
            for path in numbered(folder, PART, rank, world_size)
            if path.name != f"{PART}{rank}"
        ]
        # the prefix of half-written pictures, which do not lie among whole ones
        self.scratch = folder / f"{files.UNFINISHED}{rank}-"
        for path in numbered(folder, files.UNFINISHED, rank, world_size):
            path.unlink(missing_ok=True)

    def __contains__(self, row: Sequence[str]) -> bool:
        """Whether the row's picture exists."""
        return (self.folder / row[COLUMNS.index("output")]).is_file()

    def add(self, row: Sequence[str]) -> None:
        """Append a row; it survives a kill of the process."""
        with files.naming(self.part.file.name):
            self.part.file.write(format_row(row))
            self.part.file.flush()

    def close(self) -> None:
        """Merge this process's rows into the manifest.

        Rows of earlier processes are merged too, where their share is now this one's.
        """
        paths = [Path(part.file.name) for part in (self.part, *self.inherited)]
        for part in (self.part, *self.inherited):
            part.file.close()  # some systems delete no open file
        busy, lock = f"another process holds {self.folder}", None
        try:
            # a negative wait is for ever: the processes merge into one manifest in turn
            lock = runtime.Lock(self.folder / MERGE_LOCK, busy, wait_s=-1)
            merge(self.folder / MANIFEST, paths, self.scratch)
            for path in paths:  # only now that the manifest holds their rows
                path.unlink()
        finally:
            if lock:
                lock.release()
            self.release()

    def release(self) -> None:
        """Let others have this process's share; its rows stay for the next call."""
        for part in (self.part, *self.inherited):
            part.close()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Merge the rows; after an error only release the share."""
        if kind is None:
            self.close()
        else:
            self.release()


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into an empty folder, or compare them with the stored ones.

    Raises UsageError if the folder holds other files or has other settings.
    """
    # through JSON, as the stored ones went: tuples become lists
    file, current = folder / SETTINGS, json.loads(json.dumps(settings))
    strangers = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if not file.is_file():
        if strangers:
            raise UsageError(
                "expected an empty folder for a data set, or one begun with --pairs, but "
                f"{folder} holds {strangers[0]}; "
                "give another --output"
            )
        description = {
            "settings": current,
            "git_commit": runtime.git_commit(),
            "versions": runtime.versions(),
        }
        with files.replaced_file(file) as temporary:
            temporary.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        return
    known = read_settings(file)
    different = [name for name in known | current if known.get(name) != current.get(name)]
    if different:
        name = different[0]
        raise UsageError(
            f"expected the settings that {folder} was begun with, but {name} was "
            f"{known.get(name)} and is {current.get(name)} now; "
            "give the same again, or another --output"
        )


def read_settings(file: Path) -> dict[str, Any]:
    """The settings stored in a file. Raises UsageError for a damaged file."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"expected the settings of a data set in {file}, but it cannot be read ({error}); "
            "give another --output"
        ) from None


class Part(NamedTuple):
    """The rows of one process: a file open at its end, and the lock that protects it."""

    file: IO[bytes]
    lock: runtime.Lock

    def close(self) -> None:
        """Close the file and release the lock."""
        self.file.close()
        self.lock.release()


def open_part(path: Path) -> Part:
    """A process's part, without half a row of a killed process. Raises UsageError."""
    busy = (
        f"expected to be alone with {path}, but another process makes the same share; wait for it"
    )
    lock = runtime.Lock(path.with_name(f".{path.name}.lock"), busy)
    try:
        file = open(path, "ab+")  # noqa: SIM115 - open until the end
    except OSError as error:
        raise UsageError(f"expected to write {path}, but it failed ({error.strerror})") from None
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    return Part(file, lock)


def numbered(folder: Path, prefix: str, rank: int, world_size: int) -> list[Path]:
    """The files <prefix><number>… that fall to this process.

    An earlier run with more processes may have left some of them.
    """
    numbers = {
        path: path.name.removeprefix(prefix).partition("-")[0]
        for path in sorted(folder.glob(f"{prefix}*"))
    }
    return [
        path
        for path, digits in numbers.items()
        if digits.isdecimal() and int(digits) % world_size == rank
    ]


def merge(manifest: Path, parts: Sequence[Path], scratch: Path) -> None:
    """Rewrite the manifest with the rows of the parts, one row for each picture.

    The rows are sorted by output.
    """
    # a picture's newest row wins: dictionaries keep the last value of a key
    rows = {
        row["output"]: row
        for file in (manifest, *parts)
        if file.is_file()
        for row in whole_rows(file)
    }
    ordered = ([rows[output][name] for name in COLUMNS] for output in sorted(rows))
    write_rows(manifest, COLUMNS, ordered, scratch)


def whole_rows(file: Path) -> Iterator[dict[str, str]]:
    """The whole rows of a manifest, or of a part, which has no header."""
    for row in parse_rows(file.read_bytes()):
        if len(row) == len(COLUMNS) and tuple(row) != COLUMNS:
            yield dict(zip(COLUMNS, row, strict=True))
