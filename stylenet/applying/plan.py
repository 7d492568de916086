"""The pictures of a call: pairs, file names and shares, each a function of a job's number.

Nothing is planned in memory, so a million contents with 80,000 styles start at once. Every process
has the same names for the same pairs, on any machine and after any interruption.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from stylenet import images
from stylenet.csv_files import read_rows
from stylenet.datasets import generator_for
from stylenet.errors import DataError, UsageError

# a content meets so many styles in a row: its features and their codes are in memory together
STYLES_PER_BLOCK = 32
NAME_BYTES = 100  # of each label in a file name; file systems take 255 in all


class Job(NamedTuple):
    """One picture to make: content, style, strength, and file below OUT.

    `content` and `style` are numbers. The style may be a mixture.
    """

    content: int
    style: int
    alpha: float
    output: str


class Pictures:
    """Picture files in order, none twice, each with the folder that holds it."""

    def __init__(self, places: Iterable[str | Path]) -> None:
        """Raises DataError for a place that does not exist, and for a folder without images."""
        files: dict[str, tuple[Path, Path]] = {}  # by name
        for place in places:
            root = images.root_of(place)
            for path in images.iterate_images([place]):
                files.setdefault(str(path), (path, root))
        self.paths = [path for path, _ in files.values()]
        self.roots = list(dict.fromkeys(root for _, root in files.values()))
        # where the path below the root begins, since slicing is faster than relative_to
        starts = {root: 0 if root == Path() else len(str(root / "x")) - 1 for root in self.roots}
        self.starts = [starts[root] for _, root in files.values()]

    def __len__(self) -> int:
        return len(self.paths)

    def below(self, i: int) -> str:
        """The path relative to its folder."""
        return str(self.paths[i])[self.starts[i] :].replace(os.sep, "/")

    def name(self, i: int) -> str:
        """The file's name in a manifest.

        It is the path below the folder, or the whole path where there are several folders.
        """
        return self.below(i) if len(self.roots) == 1 else self.paths[i].as_posix()

    def describe(self) -> dict[str, Any]:
        """The identity of the files: their folders, their count, and a hash of their names."""
        digest = hashlib.sha256()
        for i in range(len(self)):
            digest.update(os.fsencode(f"{self.below(i)}\n"))
        roots = sorted({str(root.resolve()) for root in self.roots})
        return {"folders": roots, "n": len(self), "sha256": digest.hexdigest()}

    def labels(self, keeps_folders: bool = False) -> list[str]:
        """A label for each file, by which its pictures are named; no two are alike.

        It is the stem. Stems that are alike get their folder's name in front. With `keeps_folders`
        it is the path below the folder, without the suffix.
        """
        if keeps_folders:
            paths = enumerate(self.paths)
            return distinct(
                f"{self.below(i)[: -len(path.name)]}{shortened(path.stem)}" for i, path in paths
            )
        stems = Counter(path.stem for path in self.paths)
        parents = ("" if stems[path.stem] == 1 else f"{path.parent.name}_" for path in self.paths)
        return distinct(
            shortened(parent + path.stem) for parent, path in zip(parents, self.paths, strict=True)
        )


def shortened(name: str) -> str:
    """The name's first NAME_BYTES bytes, in whole characters."""
    # a character takes at most 4 bytes: shorter names need no encoding
    return (
        os.fsencode(name)[:NAME_BYTES].decode(errors="ignore")
        if len(name) > NAME_BYTES // 4
        else name
    )


def distinct(names: Iterable[str]) -> list[str]:
    """The names; a repeated one gets the next free number as its ending."""
    result: list[str] = []
    last: dict[str, int] = {}
    taken: set[str] = set()
    for name in names:
        label = name
        while label in taken:
            last[name] = last.get(name, 1) + 1
            label = f"{name}_{last[name]}"
        taken.add(label)
        result.append(label)
    return result


class Names:
    """The name <content>__<style> of every pair, distinct whichever pairs are made."""

    def __init__(self, contents: Sequence[str], styles: Sequence[str]) -> None:
        """The labels must be distinct on each side."""
        self.contents, self.styles = contents, styles

    def __call__(self, content: int, style: int) -> str:
        """The pair's name.

        "a" + "b__c" and "a__b" + "c" would be alike. All but the first get a number that makes no
        pair's name.
        """
        name = f"{self.contents[content]}__{self.styles[style]}"
        # only a name that can be cut in several places can belong to several pairs
        rank = self.pairs_called(name).index((content, style)) if len(cuts(name)) > 1 else 0
        candidates = (f"{name}_{i}" for i in itertools.count(2))
        free = (candidate for candidate in candidates if not self.pairs_called(candidate))
        return next(itertools.islice(free, rank - 1, None)) if rank else name

    def pairs_called(self, name: str) -> list[tuple[int, int]]:
        """Every pair whose labels make the name, in order."""
        contents, styles = self.numbers
        parts = [(name[:cut], name[cut + 2 :]) for cut in cuts(name)]
        return sorted((contents[a], styles[b]) for a, b in parts if a in contents and b in styles)

    @functools.cached_property
    def numbers(self) -> tuple[dict[str, int], dict[str, int]]:
        """The dictionaries {label: number} of contents and of styles; seldom needed."""
        return tuple(
            {label: i for i, label in enumerate(labels)} for labels in (self.contents, self.styles)
        )


def cuts(name: str) -> list[int]:
    """The positions at which "__" begins."""
    return [match.start() for match in re.finditer("(?=__)", name)]


class Pairing(Protocol):
    """Which content meets which style, in blocks of one content that processes share."""

    n_blocks: int

    def block(self, number: int) -> list[tuple[int, int, float | None, str]]:
        """The block's pairs: (content, style, strength or None, file or empty).

        None and empty stand for the plan's own strength and name.
        """

    def count(self, rank: int, world_size: int) -> int:
        """The number of pictures in blocks rank, rank + world_size, and so on."""


class AllPairs:
    """Every content with every style.

    STYLES_PER_BLOCK styles meet all contents before the next ones do.
    """

    def __init__(self, n_contents: int, n_styles: int) -> None:
        self.n_contents, self.n_styles = n_contents, n_styles
        self.n_blocks = n_contents * -(-n_styles // STYLES_PER_BLOCK)

    def block(self, number: int) -> list[tuple[int, int, float | None, str]]:
        """As Pairing."""
        part, content = divmod(number, self.n_contents)
        return [(content, style, None, "") for style in self.styles_of(part)]

    def styles_of(self, part: int) -> range:
        """The styles of one part, which meet all contents before the next part's."""
        return range(part * STYLES_PER_BLOCK, min(self.n_styles, (part + 1) * STYLES_PER_BLOCK))

    def count(self, rank: int, world_size: int) -> int:
        """As Pairing."""
        parts = range(self.n_blocks // self.n_contents)
        starts = (part * self.n_contents for part in parts)
        shares = (
            share_of(range(start, start + self.n_contents), rank, world_size) for start in starts
        )
        return sum(
            len(share) * len(self.styles_of(part))
            for share, part in zip(shares, parts, strict=True)
        )


class RandomPairs:
    """Each content with n different styles, drawn by the seed and the content's number."""

    def __init__(self, n_contents: int, n_styles: int, n: int, seed: int) -> None:
        """Raises UsageError if n exceeds the number of styles."""
        if n > n_styles:
            raise UsageError(
                f"expected at most random:{n_styles} for {n_styles} styles, but random:{n} came; "
                "give more styles"
            )
        self.n_styles, self.n, self.seed, self.n_blocks = n_styles, n, seed, n_contents

    def block(self, number: int) -> list[tuple[int, int, float | None, str]]:
        """As Pairing."""
        styles = generator_for(self.seed, number).choice(self.n_styles, self.n, replace=False)
        return [(number, int(style), None, "") for style in styles]

    def count(self, rank: int, world_size: int) -> int:
        """As Pairing."""
        return self.n * len(share_of(range(self.n_blocks), rank, world_size))


class ListedPairs:
    """The pairs of a CSV, sorted by content."""

    def __init__(self, file: Path, contents: Pictures, styles: Pictures) -> None:
        """Reads the columns content and style, and the optional output and alpha.

        Pictures are named as below their folders. Raises DataError.
        """
        numbers = [
            {pictures.name(i): i for i in range(len(pictures))} for pictures in (contents, styles)
        ]
        rows = [
            read_row(row, line, numbers, file)
            for line, row in read_rows(file, ("content", "style"))
        ]
        if not rows:
            raise DataError(f"expected pairs in {file}, but it lists none")
        # the sort is stable: a content's pairs stay in the file's order
        by_content = itertools.groupby(sorted(rows, key=lambda row: row[0]), key=lambda row: row[0])
        self.blocks = [list(group) for _, group in by_content]
        self.n_blocks = len(self.blocks)

    def block(self, number: int) -> list[tuple[int, int, float | None, str]]:
        """As Pairing."""
        return self.blocks[number]

    def count(self, rank: int, world_size: int) -> int:
        """As Pairing."""
        return sum(map(len, self.blocks[rank::world_size]))


def read_row(
    row: dict[str, str], line: int, numbers: Sequence[dict[str, int]], file: Path
) -> tuple[int, int, float | None, str]:
    """One pair of a CSV.

    Raises DataError for an unknown picture, a bad strength, and a file outside OUT.
    """
    for kind, known in zip(("content", "style"), numbers, strict=True):
        if row[kind] not in known:
            raise DataError(
                f"expected a {kind} as named below --{kind} in {file} line {line}, but "
                f"{row[kind]!r} is not there"
            )
    alpha, output = row.get("alpha") or "", row.get("output") or ""
    try:
        strength = float(alpha) if alpha else None
    except ValueError:
        strength = -1.0  # refused below, with the same message
    if strength is not None and not 0 <= strength <= 1:
        raise DataError(f"expected alpha in [0, 1] in {file} line {line}, but {alpha!r} came")
    place = PurePosixPath(output)
    # hidden names are those of temporary files
    is_odd = any(
        part.startswith(".") or "\0" in part or len(os.fsencode(part)) > 255 for part in place.parts
    )
    if output and (place.is_absolute() or is_odd or place.suffix.lower() not in images.SUFFIXES):
        raise DataError(
            f"expected an image file below OUT as output in {file} line {line}, but {output!r} came"
        )
    return (
        numbers[0][row["content"]],
        numbers[1][row["style"]],
        strength,
        str(place) if output else "",
    )


def share_of(numbers: range, rank: int, world_size: int) -> range:
    """The numbers that leave the remainder `rank` when divided by `world_size`."""
    return range(numbers.start + (rank - numbers.start) % world_size, numbers.stop, world_size)


class Plan:
    """All jobs of a call."""

    def __init__(
        self,
        contents: Pictures,
        styles: Sequence[tuple[Path, ...]],
        style_names: Callable[[int], str],
        pairing: Pairing,
        name: Callable[[int, int], str],
        alpha: float,
    ) -> None:
        """`name` gives the file below OUT of a pair that names none.

        Raises DataError for two pairs with one file.
        """
        self.contents, self.styles, self.style_names = contents, styles, style_names
        self.pairing, self.name, self.alpha = pairing, name, alpha
        if isinstance(pairing, ListedPairs):
            check_distinct(job.output for job in self.jobs())

    def __len__(self) -> int:
        return self.count(0, 1)

    def count(self, rank: int, world_size: int) -> int:
        """The number of jobs in a process's share."""
        return self.pairing.count(rank, world_size)

    def jobs(self, rank: int = 0, world_size: int = 1) -> Iterator[Job]:
        """The jobs of a process's share, those of a content in a row.

        The shares are disjoint and complete.
        """
        for number in range(rank, self.pairing.n_blocks, world_size):
            for content, style, alpha, output in self.pairing.block(number):
                strength = self.alpha if alpha is None else alpha
                yield Job(content, style, strength, output or self.name(content, style))

    def row(self, job: Job) -> tuple[str, str, str, str]:
        """The job's row in a manifest: content, style, output, alpha."""
        return (
            self.contents.name(job.content),
            self.style_names(job.style),
            job.output,
            repr(job.alpha).removesuffix(".0"),
        )


def check_distinct(outputs: Iterable[str]) -> None:
    """Raise DataError for a file that is named twice."""
    seen: set[str] = set()
    for output in outputs:
        if output in seen:
            raise DataError(
                "expected a place of its own for every picture, but two of the pairs go to "
                f"{output}; give them outputs"
            )
        seen.add(output)


def make_pairing(
    pairs: str | None, contents: Pictures, styles: Pictures, n_styles: int, seed: int
) -> Pairing:
    """The pairing that --pairs names: all (the default), random:K or a CSV.

    Raises UsageError and DataError.
    """
    kind, _, number = (pairs or "all").partition(":")
    if kind == "all" and not number:
        return AllPairs(len(contents), n_styles)
    if kind == "random" and number.isdecimal() and int(number) > 0:
        return RandomPairs(len(contents), n_styles, int(number), seed)
    if Path(pairs).suffix.lower() == ".csv":
        return ListedPairs(Path(pairs), contents, styles)
    raise UsageError(f"expected all, random:K or a .csv file as --pairs, but {pairs!r} came")


def make_plan(
    contents: Pictures,
    styles: Pictures,
    pairs: str | None = None,
    seed: int = 0,
    alpha: float = 1.0,
    is_mixture: bool = False,
    keeps_folders: bool = False,
    suffix: str = ".png",
    file: str | None = None,
    own_style: str = "",
) -> Plan:
    """The jobs of a call. Raises UsageError and DataError.

    `own_style` is the name of a model for one style: then there are no style pictures.

    A mixture makes one style of all. With `keeps_folders` a picture lies where its content does. It
    has the content's name if each content is made once. `file` is the name of the only picture.
    """
    numbers = range(len(styles))
    groups = [tuple(styles.paths)] if is_mixture else [(path,) for path in styles.paths]
    groups = [()] if own_style else groups
    pairing = make_pairing(pairs, contents, styles, len(groups), seed)
    style_labels = [own_style] if own_style else styles.labels()
    pair_name = Names(
        contents.labels(keeps_folders),
        [shortened("+".join(style_labels))] if is_mixture else style_labels,
    )
    is_once = not isinstance(pairing, ListedPairs) and pairing.count(0, 1) == len(contents)

    def name(content: int, style: int) -> str:
        stem = (
            pair_name.contents[content] if keeps_folders and is_once else pair_name(content, style)
        )
        return file or stem + suffix

    def style_name(style: int) -> str:
        if own_style:
            return own_style
        return "+".join(map(styles.name, numbers)) if is_mixture else styles.name(style)

    return Plan(contents, groups, style_name, pairing, name, alpha)
