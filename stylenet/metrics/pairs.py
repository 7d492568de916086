"""The pairs of contents and styles, and how their pictures are prepared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image
from torch import Tensor

from stylenet import datasets, images
from stylenet.csv_files import read_rows
from stylenet.errors import DataError

if TYPE_CHECKING:
    from stylenet.config.protocol import Protocol

FILTERS = {name: Image.Resampling[name.upper()] for name in ("bilinear", "bicubic", "lanczos")}


class Pairs(NamedTuple):
    """The pictures of an evaluation and their pairs."""

    contents: tuple[Path, ...]
    styles: tuple[Path, ...]
    pairs: tuple[tuple[int, int], ...]  # (number of the content, number of the style)
    names: tuple[tuple[str, ...], tuple[str, ...]]  # contents' and styles', below their sets' roots
    origins: tuple[str, str]  # where contents and styles come from

    def names_of(self, pair: tuple[int, int]) -> tuple[str, str]:
        """The names of a pair's content and style."""
        return self.names[0][pair[0]], self.names[1][pair[1]]


def choose_pairs(protocol: Protocol, content: str, style: str) -> Pairs:
    """The pairs of the protocol from two folders or manifests. Raises DataError."""
    options = protocol.pairs
    sets = [
        evaluated_part(origin, options.held_out, name)
        for origin, name in ((content, "--content"), (style, "--style"))
    ]
    if options.list:
        return pairs_from_list(options.list, *sets)
    contents = draw(sets[0].paths, options.contents, options.seed, datasets.CONTENT)
    styles = draw(sets[1].paths, options.styles, options.seed, datasets.STYLE)
    drawn = draw_pairs(len(contents), len(styles), options.n, options.seed)
    # A set may contain the other: a picture is no style for itself.
    different = tuple((c, s) for c, s in drawn if not is_same(contents[c], styles[s]))
    if not different:
        raise DataError(
            f"expected two different pictures in a pair, but {content} and {style} are one "
            "picture; give other sets"
        )
    names = names_below(contents, sets[0].origin), names_below(styles, sets[1].origin)
    return Pairs(contents, styles, different, names, (content, style))


def names_below(paths: Sequence[Path], origin: str) -> tuple[str, ...]:
    """The names of a set's pictures."""
    return tuple(datasets.name_below(path, origin) for path in paths)


def is_same(a: Path, b: Path) -> bool:
    """Whether two paths are one picture; those in shards are no files."""
    return a == b or (a.is_file() and b.is_file() and a.samefile(b))


def evaluated_part(origin: str, held_out: float, option_name: str) -> datasets.ImageSet:
    """The images of a folder or manifest that an evaluation uses.

    They are the held-out ones, or all if none are held out.
    """
    split = datasets.read_split(origin, held_out, option_name, needs_training_part=False)
    datasets.check_presence(split)
    return split.held_out if split.held_out else split.train


def draw(paths: Sequence[Path], n: int, seed: int, stream: int) -> tuple[Path, ...]:
    """n of the paths in their order; all of them if n is 0 or too large."""
    numbers = datasets.generator_for(seed, stream).permutation(len(paths))[: n or len(paths)]
    return tuple(paths[i] for i in sorted(numbers))


def draw_pairs(n_contents: int, n_styles: int, n: int, seed: int) -> tuple[tuple[int, int], ...]:
    """n different pairs in the contents' order; all of them if n is 0 or too large.

    The counts of two contents, or of two styles, differ by at most one.
    """
    orders = [
        datasets.generator_for(seed, 2 + i).permutation(size)
        for i, size in enumerate((n_contents, n_styles))
    ]
    # A walk on both orders at once uses all images equally. After `period` steps the pairs would
    # repeat, so the styles then shift by one.
    period, total = math.lcm(n_contents, n_styles), n_contents * n_styles
    walk = range(min(n or total, total))
    return tuple(
        sorted(
            (int(orders[0][i % n_contents]), int(orders[1][(i + i // period) % n_styles]))
            for i in walk
        )
    )


def pairs_from_list(file: str, contents: datasets.ImageSet, styles: datasets.ImageSet) -> Pairs:
    """The pairs of a CSV with the columns content and style.

    The names are paths below the sets. Raises DataError.
    """
    names = tuple(names_below(part.paths, part.origin) for part in (contents, styles))
    numbers = [{name: i for i, name in enumerate(known)} for known in names]
    rows = [row for _, row in read_rows(file, ("content", "style"))]
    unknown = [
        row[kind]
        for row in rows
        for kind, known in zip(("content", "style"), numbers)
        if row[kind] not in known
    ]
    if unknown or not rows:
        reason = f"{unknown[0]!r} is in neither" if unknown else "it lists no pair"
        raise DataError(
            f"expected pairs of the given contents and styles in {file}, but {reason}; name them "
            "as below the folders"
        )
    # a repeated row counts once
    pairs = dict.fromkeys((numbers[0][row["content"]], numbers[1][row["style"]]) for row in rows)
    return Pairs(
        contents.paths, styles.paths, tuple(pairs), names, (contents.origin, styles.origin)
    )


def load_picture(path: Path, protocol: Protocol) -> Tensor:
    """A content or style as the protocol prepares it, [1, 3, H, W] in [0, 1]. Raises DataError."""
    options = protocol.images
    image = images.resize_shortest(
        images.open_rgb(path), options.resize_px, FILTERS[options.filter]
    )
    return images.to_tensor(images.cut_centre(image) if options.crop == "centre" else image)[None]
