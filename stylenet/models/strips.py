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
    CompactNet,
    mixed_code,
)
from stylenet.models.tiles import Span, Write, as_input, spans
from stylenet.transforms import StyleCode, channel_stats, joined_stats

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

    def stats(self, stage: Callable[..., Tensor], *sources: Tensor | Rows) -> StyleCode:
        """Channel means and deviations of the stage's output for the whole picture."""
        parts = [
            (channel_stats(piece), span.stop - span.start)
            for span, piece in self.pieces(stage, *sources)
        ]
        (means, deviations), sizes = zip(*(own for own, _ in parts)), [size for _, size in parts]
        return joined_stats(means, deviations, sizes)


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
    content = content_of(net, features)
    # at 1/8 the maps of a block take a quarter of the memory of those at 1/2
    deep, strips = (Strips(shape, side, DECODER_HALO) for side in (2 * tile_px, tile_px))
    code = mixed_code(look, style_code(net, features) if look.alpha != 1 else None)
    aligned = Alignment(code, look.content_stats, look.own_share)

    def after(layer: Callable[[Tensor], Tensor], stats: StyleCode) -> Callable[[Tensor], Tensor]:
        return lambda x: layer(aligned.piece(x, EIGHTH, stats))

    x, stats = content.eighth, aligned.settle(channel_stats(content.eighth))
    for block in net.decoder_blocks:
        x = deep.whole(after(block, stats), x)
        stats = aligned.settle(channel_stats(x))
    x = strips.whole(after(net.grow_eighth, stats), x)  # [N, C', H / 4, W / 4]

    grown, kept = aligned.settle(channel_stats(x)), aligned.settle(content.quarter_stats)
    x = strips.whole(
        lambda x, quarter: net.quarter_block(
            aligned.piece(x, QUARTER, grown) + aligned.piece(quarter, QUARTER, kept)
        ),
        x,
        content.quarter,
    )

    joined = aligned.settle(channel_stats(x))

    def grow(x: Tensor) -> Tensor:
        return net.grow_quarter(aligned.piece(x, QUARTER, joined))

    wide, fine = aligned.settle(strips.stats(grow, x)), aligned.settle(content.half_stats)
    painted = strips.pieces(
        lambda x, half: net.paint(
            aligned.piece(grow(x), HALF, wide) + aligned.piece(half, HALF, fine)
        ),
        x,
        content.half,
    )
    for span, pixels in painted:
        top = span.start * STRIDE
        write(top, 0, pixels[..., : shape[-2] - top, : shape[-1]])
    return tuple(aligned.stats)


def encoder_halo(net: CompactNet) -> int:
    """The cells that a feature at 1/8 sees beyond its own."""
    scale_px, reach_px = 1, 0
    for down in (net.to_half, net.to_quarter, net.to_eighth):
        reach_px += down.kernel().shape[-1] // 2 * scale_px
        scale_px *= 2
    n_convs = 2 * (1 + len(net.more_encoder_blocks))  # 3x3, at 1/8
    return -(-reach_px // STRIDE) + n_convs
