"""A look: the styles, their mixture and the strength of one picture, in one frozen value."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from stylenet import files
from stylenet.colours import COLOURS
from stylenet.errors import UsageError, WeightsError, one_line
from stylenet.transforms import StyleCode


@dataclass(frozen=True)
class Region:
    """A part of the picture with a style of its own.

    `mask` [1, 1, h, w] has weights in [0, 1], in any size: it is stretched over the picture.
    `codes` and `mixture` are as in a look.
    """

    mask: Tensor
    codes: tuple[StyleCode, ...]
    mixture: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Look:
    """A mixture of style codes with a strength.

    `codes` are a network's style codes, each part [N or 1, ...]: one row serves all contents of a
    batch. `mixture` has one share for each code, and the shares sum to 1. `alpha` is the strength:
    0 keeps the content, 1 is the full style.

    `content_stats` are those of a clip's past. They replace what the network measures of the
    content, but for the share `own_share`. Each part is [N or 1, ...].

    `regions` have styles of their own, and the look's codes apply to the rest; with `keeps_rest`
    the rest stays the content. The statistics are then those of each area, the rest first. `colour`
    says whose colours the picture has (`stylenet.colours.Colour`).

    The picture has a border of `margin` pixels that repeats it. It counts for no statistics.
    """

    codes: tuple[StyleCode, ...]
    mixture: tuple[float, ...] = (1.0,)
    alpha: float | Tensor = 1.0
    content_stats: StyleCode | None = None
    own_share: float = 0.0
    regions: tuple[Region, ...] = ()
    keeps_rest: bool = False
    colour: str = "style"
    margin: int = 0

    @property
    def is_full(self) -> bool:
        """Whether the strength is 1. As a tensor, an exported graph's input, it may be any."""
        return not isinstance(self.alpha, Tensor) and self.alpha == 1

    @property
    def mixtures(self) -> list[tuple[tuple[StyleCode, ...], tuple[float, ...]]]:
        """Codes and mixture of the rest, then of each region."""
        return [(self.codes, self.mixture), *((r.codes, r.mixture) for r in self.regions)]

    def areas(self, shape: Sequence[int], stride: int = 1) -> Tensor | None:
        """The weights of the rest and of each region in a picture [..., H, W].

        [A, 1, ceil(H / stride), ceil(W / stride)]; they sum to 1, in the margin to MARGIN_WEIGHT.
        None without regions and without a margin.
        """
        if not self.regions and not self.margin:
            return None
        height, width = shape[-2:]
        inner = height - 2 * self.margin, width - 2 * self.margin
        masks = [stretched(region.mask, *inner) for region in self.regions]
        # where regions overlap, they share
        sums = sum(masks, torch.zeros(1, 1, *inner))
        areas = torch.cat([(1 - sums).clamp(min=0), *(mask / sums.clamp(min=1) for mask in masks)])
        if self.margin:
            weight = torch.full((1, 1, height, width), MARGIN_WEIGHT)
            place = slice(self.margin, -self.margin)
            weight[..., place, place] = 1
            areas = repeated_around(areas, self.margin) * weight
        padded = F.pad(areas, (0, -width % stride, 0, -height % stride), mode="replicate")
        return F.avg_pool2d(padded, stride)

    def with_stats(self, content_stats: StyleCode | None, own_share: float = 0.0) -> Look:
        """The same look with these statistics, and the share of the content's own in them."""
        return dataclasses.replace(self, content_stats=content_stats, own_share=own_share)

    def settled(self, own: StyleCode, are_moments: bool = True) -> StyleCode:
        """The statistics to align a content with, where the network measured `own`.

        `are_moments`: they are means and deviations in turn.
        """
        if self.content_stats is None:
            return own
        return (pooled if are_moments else averaged)(self.content_stats, own, self.own_share)


MARGIN_WEIGHT = 1e-12  # not 0: an area has a weight at every depth


def repeated_around(image: Tensor, n_px: int) -> Tensor:
    """The image [..., H, W] with a border of `n_px` pixels, which continue at the opposite side."""
    for dim in (-2, -1):
        length = image.shape[dim]
        places = torch.arange(-n_px, length + n_px, device=image.device) % length
        image = image.index_select(dim, places)
    return image


CARD_SUFFIX = ".style"
CARD_FORMAT = "stylenet-style-1"


@dataclass(frozen=True)
class StyleCard:
    """A style's code on its own, for one model.

    `model` holds the sha256 of the files that make up the model. `thumbnail` is a small JPEG.
    """

    code: StyleCode
    model: tuple[str, ...]
    title: str
    source: str = ""
    thumbnail: bytes = b""

    def code_for(self, model: tuple[str, ...], device: torch.device) -> StyleCode:
        """The code on a device. Raises WeightsError for another model than the card's."""
        if model != self.model:
            raise WeightsError(
                f"expected the model that the style card {self.title!r} was made with (sha256 "
                f"{self.model[0][:12]}…), but {model[0][:12]}… came; make the card again with "
                "--save-style"
            )
        return tuple(part.to(device) for part in self.code)

    def save(self, path: str | Path) -> None:
        """Write the card, whole or not at all. Raises UsageError if the disk does not take it."""
        facts = {
            "format": CARD_FORMAT,
            "model": json.dumps(self.model),
            "title": as_utf8(self.title),
            "source": as_utf8(self.source),
            "thumbnail": base64.b64encode(self.thumbnail).decode(),
        }
        tensors = {f"code.{i}": part.cpu().contiguous() for i, part in enumerate(self.code)}
        with files.replaced_file(path) as temporary:
            Path(temporary).write_bytes(safetensors.torch.save(tensors, facts))

    @classmethod
    def load(cls, path: str | Path) -> StyleCard:
        """The card in a file. Raises WeightsError for anything else."""
        try:
            with safetensors.safe_open(path, "pt") as file:
                facts = file.metadata() or {}
                if facts.get("format") != CARD_FORMAT:
                    raise ValueError("it holds no style card")
                code = tuple(file.get_tensor(f"code.{i}") for i in range(len(file.keys())))
            if not all(part.is_floating_point() and part.isfinite().all() for part in code):
                raise ValueError("its code has values that are no finite numbers")
            model = json.loads(facts["model"])
            if not (isinstance(model, list) and model and all(isinstance(x, str) for x in model)):
                raise ValueError("it names no model")
            return cls(
                code,
                tuple(model),
                facts["title"],
                facts["source"],
                base64.b64decode(facts["thumbnail"]),
            )
        except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
            raise WeightsError(
                f"expected a style card of --save-style, but {path} is none ({one_line(error)})"
            ) from None


def mean_code(codes: Sequence[StyleCode], shares: Sequence[float] | None = None) -> StyleCode:
    """The weighted mean of style codes of equal shapes, by shares that sum to 1; None: equal."""
    shares = shares or [1 / len(codes)] * len(codes)
    return tuple(
        sum(share * part for share, part in zip(shares, parts, strict=True))
        for parts in zip(*codes, strict=True)
    )


def as_utf8(name: str) -> str:
    """The name with what is no UTF-8 in it, as in an old file name, written as \\x…."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def stretched(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask [1, 1, h, w] in another size, in [0, 1]."""
    exact = mask.float()
    if mask.shape[-2:] != (height, width):
        exact = F.interpolate(exact, (height, width), mode="bilinear", antialias=True)
    return exact.clamp(0, 1)


def pooled(past: StyleCode, own: StyleCode, own_share: float) -> StyleCode:
    """The statistics of a clip's past pooled with a share of a frame's own.

    Both hold a mean and a deviation for each depth. What the means differ by is part of the pooled
    deviation, so a frame lies within its reach, also after flat frames, whose own is next to none.
    """
    result: list[Tensor] = []
    for i in range(0, len(own), 2):
        (old, old_spread), (new, new_spread) = past[i : i + 2], own[i : i + 2]
        variance = torch.lerp(old_spread.square(), new_spread.square(), own_share)
        between = own_share * (1 - own_share) * (new - old).square()
        result += [torch.lerp(old, new, own_share), (variance + between).sqrt()]
    return tuple(result)


def averaged(past: StyleCode, own: StyleCode, own_share: float) -> StyleCode:
    """The same for statistics of other kinds, part by part."""
    return tuple(torch.lerp(old, new, own_share) for old, new in zip(past, own, strict=True))


def make_look(
    codes: Sequence[StyleCode],
    mixture: Sequence[float] | None = None,
    alpha: float = 1.0,
    regions: Sequence[Region] = (),
    colour: str = "style",
) -> Look:
    """A look of style codes mixed in any positive proportion, or equally for None.

    Without codes, but with regions, the rest of the picture stays as it is. Raises UsageError for a
    mixture that does not match the codes, for a strength outside [0, 1], and for an unknown colour.
    """
    check_alpha(alpha)
    check_colour(colour)
    keeps_rest = not codes and bool(regions)
    if keeps_rest:  # next to a region the network paints on, and the seam is drawn in pixels
        codes, mixture = regions[0].codes, regions[0].mixture
    shares = shares_of(mixture, len(codes))
    return Look(
        tuple(codes),
        shares,
        float(alpha),
        regions=tuple(regions),
        keeps_rest=keeps_rest,
        colour=colour,
    )


def shares_of(mixture: Sequence[float] | None, n_styles: int) -> tuple[float, ...]:
    """The weights of a mixture, or equal ones for None, divided by their sum.

    Raises UsageError if weights and styles do not match.
    """
    weights = check_mixture(mixture, n_styles)
    total = float(sum(weights))
    return tuple(weight / total for weight in weights)


def stack(looks: Sequence[Look]) -> Look:
    """Looks of one mixture, strength, colour and masks as one look with a row for each.

    Their codes have the same shapes.
    """
    first = looks[0]
    if len(looks) == 1:
        return first
    regions = [
        dataclasses.replace(rows[0], codes=stacked([region.codes for region in rows]))
        for rows in zip(*(look.regions for look in looks), strict=True)
    ]
    return dataclasses.replace(
        first, codes=stacked([look.codes for look in looks]), regions=tuple(regions)
    )


def stacked(codes: Sequence[tuple[StyleCode, ...]]) -> tuple[StyleCode, ...]:
    """The codes of several mixtures of as many styles, with a row for each mixture."""
    # outer: the styles of the mixture; inner: the parts of a code, [1, ...] each -> [n, ...]
    return tuple(
        tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
        for rows in zip(*codes, strict=True)
    )


def check_alpha(alpha: float) -> None:
    """Raise UsageError for a strength outside [0, 1]."""
    if not 0 <= alpha <= 1:
        raise UsageError(f"expected alpha in [0, 1], but {alpha} came")


def check_colour(colour: str) -> None:
    """Raise UsageError for an unknown choice of colours."""
    if colour not in COLOURS:
        raise UsageError(f"expected one of {', '.join(COLOURS)} as colour, but {colour!r} came")


def check_mixture(mixture: Sequence[float] | None, n_styles: int) -> list[float]:
    """One weight per style, or equal ones for None.

    Raises UsageError if weights and styles do not match.
    """
    weights = [1.0] * n_styles if mixture is None else list(mixture)
    if not n_styles:
        raise UsageError("expected at least one style, but none came")
    if len(weights) != n_styles or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise UsageError(
            f"expected {n_styles} weights of 0 or more, one per style, not all 0, but {weights} "
            "came"
        )
    return weights
