"""Image sets in tar files (webdataset's shards), read in any order.

The library webdataset reads its shards from front to back. Here sample i has to be a function of
its number, so a shard is indexed once by its headers, and each picture is read where it lies. A
picture in a shard has the path of the shard with its own name below it.
"""

from __future__ import annotations

import functools
import io
import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stylenet.errors import DataError, WeightsError, one_line

SUFFIX = ".tar"


class Member(NamedTuple):
    """Where a file of a shard lies in it, in bytes."""

    start: int
    size: int


def is_pattern(origin: str) -> bool:
    """Whether a set's name means shards: one .tar, or several such as shards/{000..099}.tar."""
    return origin.endswith(SUFFIX)


def expand(origin: str) -> list[Path]:
    """The shards that a pattern names, in its order. Raises DataError for a missing one."""
    try:
        from braceexpand import UnbalancedBracesError, braceexpand
    except ImportError:
        raise WeightsError(
            "expected the package webdataset for shards, but it is missing; run: pip install "
            '"stylenet[train]"'
        ) from None
    try:
        paths = [Path(name).expanduser() for name in braceexpand(origin)]
    except UnbalancedBracesError:
        raise DataError(f"expected a pattern such as {{000..099}}.tar, but {origin} came") from None
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"expected {len(paths)} shards as {origin}, but {len(missing)} are missing, first "
            f"{missing[0]}; check the pattern"
        )
    return paths


@functools.lru_cache(maxsize=4096)
def index(shard: Path) -> dict[str, Member]:
    """The files of a shard by name. Raises DataError for no whole, plain tar file."""
    try:
        with tarfile.open(shard, "r:") as tar:
            files = (item for item in tar if item.isreg())
            return {plain(item.name): Member(item.offset_data, item.size) for item in files}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"expected an uncompressed tar file, but {shard} does not read ({one_line(error)})"
        ) from None


def plain(name: str) -> str:
    """A name below the shard: `tar cf x.tar .` writes ./name, and -P absolute ones."""
    return str(PurePosixPath(name)).lstrip("/")


def split_path(path: str | Path) -> tuple[Path, str] | None:
    """The shard and the name in it of a picture's path; None for an ordinary file."""
    text = str(path)
    marker = SUFFIX + os.sep
    if marker not in text:
        return None
    place, _, name = text.partition(marker)
    shard = Path(place + SUFFIX)
    return (shard, name.replace(os.sep, "/")) if shard.is_file() else None


def holds(path: Path) -> bool:
    """Whether a picture's file is there, be it in a shard."""
    parts = split_path(path)
    return path.is_file() if parts is None else parts[1] in index(parts[0])


def opened(path: str | Path) -> io.BytesIO | None:
    """The bytes of a picture in a shard; None for an ordinary file.

    Raises DataError for a name that the shard lacks, and for a shard that has become shorter.
    """
    parts = split_path(path)
    if parts is None:
        return None
    shard, name = parts
    member = index(shard).get(name)
    if member is None:
        raise DataError(f"expected {name} in {shard}, but it is not there")
    with open(shard, "rb") as file:
        file.seek(member.start)
        content = file.read(member.size)
    if len(content) < member.size:
        raise DataError(f"{path}: expected {member.size} bytes, but the shard ends before them")
    return io.BytesIO(content)
