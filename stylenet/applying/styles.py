"""Styles as a call asks for them: pictures, style cards, parts of pictures, and regions."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from stylenet import images
from stylenet.applying.stylizer import Stylizer, as_seen, check_stroke, to_mask
from stylenet.errors import DataError, UsageError
from stylenet.looks import CARD_SUFFIX, Look, Region, StyleCard, check_colour, make_look
from stylenet.transforms import StyleCode

INCLUDED = Path(__file__).parent.parent / "weights" / "styles"  # cards for the included model


class Masking(NamedTuple):
    """The style of a region: the region's mask, the style, and the part of it that counts."""

    mask: Path
    style: Path
    part: Path | None = None


class Controls(NamedTuple):
    """What a call asks beside styles, mixture and strength.

    `colour` is one of `stylenet.colours.Colour`. `stroke` is the style's shortest side as a
    multiple of the content's, or None. `part` is a mask of the base styles. `is_seamless`: the
    content can be tiled, and so can the result.
    """

    colour: str = "style"
    stroke: float | None = None
    masks: tuple[Masking, ...] = ()
    part: Path | None = None
    is_seamless: bool = False

    def check(self, styles: Sequence[Path]) -> None:
        """Raise UsageError for what does not go together, and DataError for a missing mask."""
        check_colour(self.colour)
        if self.stroke is not None:
            check_stroke(self.stroke)
        if self.part and not styles:
            raise UsageError(
                "expected --style with --style-mask, but none came; a region's style takes its "
                "own as --mask MASK:STYLE:PART"
            )
        for path in (*(m.mask for m in self.masks), *(m.part for m in self.masks), self.part):
            if path and not path.is_file():
                raise DataError(f"expected a picture as mask, but there is no file {path}")
        cards = [path for path in (*styles, *(m.style for m in self.masks)) if is_card(path)]
        names = (("--stroke", self.stroke), ("--colour matched", self.colour == "matched"))
        given = [name for name, value in (*names, ("--style-mask", self.part)) if value]
        given += ["a style's own mask" for m in self.masks if m.part and is_card(m.style)]
        if cards and given:
            raise UsageError(
                f"expected a picture as style with {given[0]}, which changes it before the "
                f"network sees it, but {cards[0].name} is a style card; give the painting"
            )


def masking(text: str) -> Masking:
    """A region from MASK:STYLE or MASK:STYLE:PART. Raises ValueError."""
    parts = re.split(r":(?![\\/])", text)  # but not after a drive's letter
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(text)
    mask, style, *rest = (Path(part).expanduser() for part in parts)
    return Masking(mask, Path(found(str(style))), rest[0] if rest else None)


def is_card(path: Path) -> bool:
    """Whether a style is a card."""
    return path.suffix.lower() == CARD_SUFFIX


def included() -> list[Path]:
    """The cards that stylenet includes, by name."""
    return sorted(INCLUDED.glob(f"*{CARD_SUFFIX}"))


def found(name: str) -> str:
    """The path of a style: the name itself, or that of an included card.

    Raises DataError for a bare name that is neither.
    """
    card = INCLUDED / f"{name}{CARD_SUFFIX}"
    if Path(name).exists() or not re.fullmatch(r"[\w-]+", name):
        return name
    if not card.is_file():
        known = ", ".join(path.stem for path in included())
        raise DataError(
            f"expected a picture, a folder or an included card as --style ({known}), but there is "
            f"no {name}"
        )
    return str(card)


class Wanted(NamedTuple):
    """A style as one content asks for it. Equal ones have one code."""

    path: Path
    size_px: int = 0  # of its shortest side, 0: as it is
    content: Path | None = None  # whose colours it gets
    part: Path | None = None  # a mask of what counts


Seen = StyleCard | tuple[Tensor, Tensor | None]  # a card, or the pixels [3, h, w] and their mask


def read(wanted: Wanted, read_content: Callable[[Path], Tensor]) -> Seen:
    """A style from its files. Raises DataError, and WeightsError for a damaged card."""
    if is_card(wanted.path):
        return StyleCard.load(wanted.path)
    pixels = images.load_bytes(wanted.path, wanted.size_px or None)
    if wanted.content is not None:
        content = read_content(wanted.content)
        pixels = as_seen(pixels[None], content[None], "matched", None)[0]
    mask = None if wanted.part is None else to_mask(wanted.part)
    return pixels, mask


def encode(stylizer: Stylizer, seen: Seen) -> StyleCode:
    """The code of a style that was read."""
    if isinstance(seen, StyleCard):
        return stylizer.encode_style(seen)
    pixels, mask = seen
    return stylizer.encode_style(pixels, *([] if mask is None else [mask]))


class Looks:
    """Makes the look of each content from the controls of a call."""

    def __init__(
        self,
        controls: Controls,
        mixture: Sequence[float] | None,
        style_px: int,
        is_square: bool = False,
    ) -> None:
        """Reads the masks. With `is_square` contents are cropped, and so are they.

        Raises DataError.
        """
        self.controls, self.mixture, self.style_px = controls, mixture, style_px
        self.is_square = is_square
        self.masks = [to_mask(masking.mask) for masking in controls.masks]
        self.masks_at = functools.lru_cache(maxsize=64)(
            lambda shape: [middle(mask, shape) for mask in self.masks]
        )

    def wanted(
        self, styles: Sequence[Path], content: Path | None, shortest_px: int
    ) -> list[Wanted]:
        """The base styles and then those of the regions, for a content of this shortest side."""
        controls = self.controls
        size_px = self.style_px
        if controls.stroke is not None:
            size_px = max(1, round(controls.stroke * shortest_px))
        owner = content if controls.colour == "matched" else None
        pairs = [(path, controls.part) for path in styles]
        pairs += [(masking.style, masking.part) for masking in controls.masks]
        return [
            Wanted(path) if is_card(path) else Wanted(path, size_px, owner, part)
            for path, part in pairs
        ]

    def make(
        self, content: Path, codes: Sequence[StyleCode], alpha: float, takes_styles: bool = True
    ) -> Look:
        """The look of the codes of `wanted` for a content. Raises DataError."""
        n_base = len(codes) - len(self.masks)
        is_cropped = self.is_square and self.masks
        masks = self.masks_at(images.shown_size(content)) if is_cropped else self.masks
        regions = [Region(mask, (code,)) for mask, code in zip(masks, codes[n_base:], strict=True)]
        base = list(codes[:n_base])
        if not base and not takes_styles:
            base = [()]  # a network for one style has one code, which is empty
        return make_look(base, self.mixture, alpha, regions, self.controls.colour)


def middle(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The part of a mask [1, 1, h, w] over the square in the middle of a picture.

    `size` is the picture's width and height.
    """
    shown = min(size)
    (left, width), (top, height) = (
        (round(side * (1 - shown / long) / 2), max(1, round(side * shown / long)))
        for side, long in zip((mask.shape[-1], mask.shape[-2]), size, strict=True)
    )
    return mask[..., top : top + height, left : left + width]
