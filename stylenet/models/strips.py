"""Exact tiling of the compact network: strip by strip, equal to the whole pass up to rounding.

The network takes statistics at every depth, so no tile can be finished on its own. A large picture
passes through the network in stages instead. Each stage ends at a map whose statistics the next one
needs:

1. pixels -> features at 1/8 (kept), statistics at 1/2 and 1/4
2. 1/8 -> 1/8, for each of the decoder's blocks
3. 1/8 -> 1/4
4. 1/4, with the content's features at 1/4 -> 1/4
5. 1/4 -> statistics at 1/2
6. 1/4, with the content's features at 1/2 -> pixels

All stages work in strips of the picture's full width. In float32 the features of a
pixel take 32 bytes at 1/2, 16 at 1/4 and 8 at 1/8 of the size. So no map at 1/2 is kept: stages 4
and 6 compute the content's features from its pixels again, and stage 6 repeats stage 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stylenet.looks import Look
from stylenet.models.compact import (
    EIGHTH,
    HALF,
    QUARTER,
    STRIDE,
    Alignment,
    Areas,
    CompactNet,
    areas_at_depths,
)
from stylenet.models.tiles import Span, Write, as_input, spans
from stylenet.transforms import StyleCode, area_stats, channel_stats, joined_stats

# A cell is a square of STRIDE pixels, one feature at 1/8. Strips and halos are whole cells high.
Rows = Callable[[int, int], Tensor]  # start, stop in cells -> these rows of a map or a picture

# cells that a stage of the decoder sees beyond its strip. A block sees two: it has two 3x3 kernels
# at 1/8. Stage 4 sees 15 pixels: 8 with two kernels at 1/4, and 7 from the pixels to 1/4.
DECODER_HALO = 2
# pixels of a strip for each pixel of a square tile
STRIP_TILES = 2


class Strips:
    """The strips of a picture [..., H, W], with a halo in cells."""

    def __init__(self, shape: Sequence[int], tile_px: int, halo: int) -> None:
        height, width = shape[-2:]
        self.n_cells = -(-height // STRIDE)
        n_cells = max(1, STRIP_TILES * tile_px**2 // (width * STRIDE))
        self.spans = spans(self.n_cells, n_cells, halo)

    def pieces(
        self, stage: Callable[..., Tensor], *sources: Tensor | Rows
    ) -> Iterator[tuple[Span, Tensor]]:
        """Each strip's span with the stage's output from the sources, without the halo.

        A whole map as a source stands for its rows.
        """
        for span in self.spans:
            rows = (
                self.rows_of(source)(span.wide_start, span.wide_stop)
                if isinstance(source, Tensor)
                else source(span.wide_start, span.wide_stop)
                for source in sources
            )
            yield span, core(stage(*rows), span)

    def rows_of(self, whole: Tensor) -> Rows:
        """The rows of a whole map [N, C, n_cells * k, w]."""
        per_cell = whole.shape[2] // self.n_cells
        return lambda start, stop: whole[:, :, start * per_cell : stop * per_cell]

    def whole(self, stage: Callable[..., Tensor], *sources: Tensor | Rows) -> Tensor:
        """The stage's output for the whole picture."""
        whole = None
        for span, piece in self.pieces(stage, *sources):
            per_cell = piece.shape[2] // (span.stop - span.start)
            if whole is None:
                n, channels, _, width = piece.shape
                whole = piece.new_empty(n, channels, self.n_cells * per_cell, width).contiguous(
                    memory_format=torch.channels_last
                )
            whole[:, :, span.start * per_cell : span.stop * per_cell] = piece
        return whole

    def stats(
        self, stage: Callable[..., Tensor], *sources: Tensor | Rows, areas: Tensor | None = None
    ) -> StyleCode:
        """Means and deviations of the stage's output for the whole picture, in each area."""
        pieces, sizes = [], []  # a piece's statistics, and what each of its areas weighs
        for span, piece in self.pieces(stage, *sources):
            part = None
            if areas is not None:
                part = self.rows_of(areas)(span.start, span.stop)
            pieces.append(area_stats(piece, part))
            sizes.append([span.stop - span.start] if part is None else part.sum((1, 2, 3)).tolist())
        joined: list[Tensor] = []
        for k in range(len(pieces[0]) // 2):
            means, deviations = ([own[2 * k + j] for own in pieces] for j in (0, 1))
            joined += joined_stats(means, deviations, [size[k] for size in sizes])
        return tuple(joined)


def core(piece: Tensor, span: Span) -> Tensor:
    """The rows [N, C, h, w] of a span without its halo."""
    per_cell = piece.shape[2] // (span.wide_stop - span.wide_start)
    return piece[
        :,
        :,
        (span.start - span.wide_start) * per_cell : (span.stop - span.wide_start) * per_cell,
    ]


class Content(NamedTuple):
    """A content's features as the stages take them, in whole maps or by rows."""

    half: Tensor | Rows
    quarter: Tensor | Rows
    eighth: Tensor
    half_stats: StyleCode
    quarter_stats: StyleCode


def content_of(net: CompactNet, features: Sequence[Tensor]) -> Content:
    """The content of `CompactNet.encode`, or that of `encode_in_strips`."""
    if not is_in_strips(features):
        half, quarter, eighth = features
        return Content(half, quarter, eighth, channel_stats(half), channel_stats(quarter))
    image, eighth, *stats = features

    def pixels(start: int, stop: int) -> Tensor:
        return as_input(image[:, :, start * STRIDE : stop * STRIDE], net)

    return Content(
        # near a strip's border they are inexact, which the halo covers
        lambda *rows: net.encode_half(pixels(*rows)),
        lambda *rows: net.encode_shallow(pixels(*rows))[1],
        eighth,
        tuple(stats[:2]),
        tuple(stats[2:]),
    )


def style_code(net: CompactNet, features: Sequence[Tensor]) -> StyleCode:
    """The style code of an image, from its features of either kind."""
    if not is_in_strips(features):
        return net.style_code(features)
    _, eighth, *stats = features
    return (*stats, *channel_stats(eighth))


def is_in_strips(features: Sequence[Tensor]) -> bool:
    """Whether these are the features of `encode_in_strips`, and not the maps of a whole pass."""
    return features[0].shape[1] == 3  # the pixels


def encode_in_strips(net: CompactNet, image: Tensor, tile_px: int) -> tuple[Tensor, ...]:
    """What `render_in_strips` takes of a picture [N, 3, H, W], float in [0, 1] or uint8.

    The pixels themselves, the features at 1/8, and mean and deviation at 1/2 and 1/4.
    """
    strips, eighth, own, n_cells = Strips(image.shape, tile_px, encoder_halo(net)), [], [], []
    for span in strips.spans:
        pixels = image[:, :, span.wide_start * STRIDE : span.wide_stop * STRIDE]
        half, quarter = net.encode_shallow(as_input(pixels, net))
        eighth.append(core(net.encode_deep(quarter), span).clone())  # without the halo's memory
        own.append([*channel_stats(core(half, span)), *channel_stats(core(quarter, span))])
        n_cells.append(span.stop - span.start)
    half_mean, half_std, quarter_mean, quarter_std = zip(*own, strict=True)
    return (
        image,
        torch.cat(eighth, dim=2),
        *joined_stats(half_mean, half_std, n_cells),
        *joined_stats(quarter_mean, quarter_std, n_cells),
    )


def render_in_strips(
    net: CompactNet,
    features: Sequence[Tensor],
    shape: Sequence[int],
    look: Look,
    tile_px: int,
    write: Write,
) -> StyleCode:
    """Pass the stylised picture to `write`, strip by strip, and return the content's statistics.

    `features` are those of `encode_in_strips` or `CompactNet.encode` of a picture [..., H, W].
    """
    content, areas = content_of(net, features), areas_at_depths(look, shape)
    # at 1/8 the maps of a block take a quarter of the memory of those at 1/2
    deep, strips = (Strips(shape, side, DECODER_HALO) for side in (2 * tile_px, tile_px))
    half_stats, quarter_stats = own_stats(content, areas, strips)
    own = None
    if look.alpha != 1:
        own = [half_stats, quarter_stats, area_stats(content.eighth, areas[EIGHTH])]
    aligned = Alignment(look, own, areas)

    def at(depth: int) -> list[Tensor]:
        """The areas at a depth as one more source of a stage, where there are regions."""
        return [] if areas[depth] is None else [areas[depth]]

    def after(layer: Callable[[Tensor], Tensor], stats: StyleCode) -> Callable[..., Tensor]:
        return lambda x, *part: layer(aligned.piece(x, EIGHTH, stats, *part))

    x, stats = content.eighth, aligned.settle(area_stats(content.eighth, areas[EIGHTH]))
    for block in net.decoder_blocks:
        x = deep.whole(after(block, stats), x, *at(EIGHTH))
        stats = aligned.settle(area_stats(x, areas[EIGHTH]))
    x = strips.whole(after(net.grow_eighth, stats), x, *at(EIGHTH))  # [N, C', H / 4, W / 4]

    grown, kept = aligned.settle(area_stats(x, areas[QUARTER])), aligned.settle(quarter_stats)
    x = strips.whole(
        lambda x, quarter, *part: net.quarter_block(
            aligned.piece(x, QUARTER, grown, *part) + aligned.piece(quarter, QUARTER, kept, *part)
        ),
        x,
        content.quarter,
        *at(QUARTER),
    )

    joined = aligned.settle(area_stats(x, areas[QUARTER]))

    def grow(x: Tensor, *part: Tensor) -> Tensor:
        return net.grow_quarter(aligned.piece(x, QUARTER, joined, *part))

    wide = aligned.settle(strips.stats(grow, x, *at(QUARTER), areas=areas[HALF]))
    fine = aligned.settle(half_stats)
    n_areas = len(at(QUARTER))
    painted = strips.pieces(
        lambda x, half, *parts: net.paint(
            aligned.piece(grow(x, *parts[:n_areas]), HALF, wide, *parts[n_areas:])
            + aligned.piece(half, HALF, fine, *parts[n_areas:])
        ),
        x,
        content.half,
        *at(QUARTER),
        *at(HALF),
    )
    for span, pixels in painted:
        top = span.start * STRIDE
        write(top, 0, pixels[..., : shape[-2] - top, : shape[-1]])
    return tuple(aligned.stats)


def own_stats(content: Content, areas: Areas, strips: Strips) -> tuple[StyleCode, StyleCode]:
    """The content's statistics at 1/2 and 1/4 in each area."""
    if areas[HALF] is None:
        return content.half_stats, content.quarter_stats
    return tuple(
        strips.stats(lambda x: x, features, areas=areas[depth])
        for features, depth in ((content.half, HALF), (content.quarter, QUARTER))
    )


def encoder_halo(net: CompactNet) -> int:
    """The cells that a feature at 1/8 sees beyond its own."""
    scale_px, reach_px = 1, 0
    for down in (net.to_half, net.to_quarter, net.to_eighth):
        reach_px += down.kernel().shape[-1] // 2 * scale_px
        scale_px *= 2
    n_convs = 2 * (1 + len(net.more_encoder_blocks))  # 3x3, at 1/8
    return -(-reach_px // STRIDE) + n_convs
