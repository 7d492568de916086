"""Reading and writing files safely: ordinary files only, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from stylenet.errors import DataError, UsageError, WeightsError, one_line

UNFINISHED = ".writing-"  # how the names of temporary files begin


def check_regular(path: str | Path, expected: str = "a file") -> None:
    """Raise DataError for a path that is no ordinary file.

    Reading a pipe or a device would wait for ever. A missing file passes: opening it says so.
    """
    path = Path(path)
    try:
        is_other = path.exists() and not path.is_file()
    except OSError as error:  # a name that is too long, a folder that is locked
        raise DataError(f"{path}: expected {expected}, but {error.strerror}") from None
    if is_other:
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise DataError(f"{path}: expected {expected}, but {kind} came")


def check_kind(path: str | Path) -> None:
    """Raise WeightsError for a text that was downloaded in place of the weights, or a pipe."""
    try:
        check_regular(path, "a file of network weights")
        with open(path, "rb") as file:
            start = file.read(200).lstrip().lower()
    except (DataError, OSError) as error:
        raise WeightsError(
            f"expected a file of network weights, but {path} cannot be read ({one_line(error)})"
        ) from None
    kinds = {b"<!doctype html": "a web page", b"<html": "a web page"}
    kinds[b"version https://git-lfs"] = "a pointer of Git LFS (git lfs pull fetches the file)"
    for beginning, kind in kinds.items():
        if start.startswith(beginning):
            raise WeightsError(
                f"expected a file of network weights, but {path} is {kind}; download the file "
                "itself"
            )


class replaced_file:  # noqa: N801 - used like a function
    """A context whose temporary file replaces `target` on success.

    The temporary path lies beside `target`. On success the file is synced and renamed, on failure
    it is removed.

    `scratch` is another beginning of the temporary path, on the same file system. What a killed
    process leaves then lies there.
    """

    def __init__(self, target: str | Path, scratch: Path | None = None) -> None:
        self.target = Path(target)
        self.scratch = scratch or self.target.parent / UNFINISHED

    def __enter__(self) -> Path:
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(
                dir=self.scratch.parent, prefix=self.scratch.name, suffix=self.target.suffix
            )
        except OSError as error:
            raise UsageError(
                f"expected a folder that can be written, but {self.target.parent} cannot "
                f"({error.strerror})"
            ) from None
        os.close(handle)
        self.temporary = Path(name)
        return self.temporary

    def __exit__(self, kind: type | None, error: BaseException | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
            elif isinstance(error, OSError) and error.filename in (None, str(self.temporary)):
                self.fail(error)
        finally:
            # what did not become the target must not stay; nothing to remove after a rename
            with contextlib.suppress(OSError):
                self.temporary.unlink(missing_ok=True)

    def finish(self) -> None:
        """Sync the temporary file, and rename it to the target."""
        try:
            with open(self.temporary, "rb") as file:
                os.fsync(file.fileno())  # before the rename, so that a crash leaves no empty file
            self.temporary.chmod(0o666 & ~current_umask())
            self.temporary.replace(self.target)
        except OSError as error:
            self.fail(error)

    def fail(self, error: OSError) -> NoReturn:
        """Raise the UsageError for an error of the system, with the target's name."""
        raise UsageError(
            f"expected to write {self.target}, but it failed ({error.strerror or error})"
        ) from None


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """A context that raises UsageError with the path where writing to it fails.

    An error of a full disk does not name the file itself.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"expected to write {path}, but it failed ({error.strerror or error})"
        ) from None


def check_writable(folder: str | Path) -> None:
    """Make the folder and a file in it, and remove the file again.

    Raises UsageError if that fails.
    """
    with contextlib.suppress(KeyError), replaced_file(Path(folder) / "probe"):
        raise KeyError  # ends the context like a failure, so that no file stays


def current_umask() -> int:
    """The process's umask, which finished files follow and temporary ones do not."""
    mask = os.umask(0)  # the umask can only be read by setting it
    os.umask(mask)
    return mask


MAX_YAML_BYTES = 2**20
MAX_ALIASES = 20


def read_yaml_text(path: str | Path) -> str:
    """The text of a YAML file. Raises UsageError."""
    try:
        check_regular(path, "a YAML file")
        if Path(path).stat().st_size > MAX_YAML_BYTES:
            raise UsageError(f"expected at most {MAX_YAML_BYTES:,} bytes, but {path} has more")
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, DataError) as error:
        raise UsageError(
            f"expected a readable YAML file, but {path} cannot be read ({one_line(error)})"
        ) from None


def parse_yaml(text: str, loader: type) -> Any:
    """The content of a YAML text, by a loader that constructs plain values only.

    Raises UsageError for more aliases than a person writes: each may stand for many others, so a
    short file could be endless. Raises YAMLError and RecursionError for what does not parse.
    """
    import yaml  # here, since stylising needs no YAML

    n_aliases = sum(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
    if n_aliases > MAX_ALIASES:
        raise UsageError(f"expected at most {MAX_ALIASES} aliases in YAML, but {n_aliases} came")
    return yaml.load(text, Loader=loader)  # noqa: S506 - see above
