"""Exact tiling: a StyleNet piece by piece, equal to the whole pass up to rounding.

AdaIN needs only the channel statistics of the whole content. So a picture is encoded in tiles into
its full feature map (1/32 of the activations of a whole pass) and surveyed once. Then it is aligned
and decoded in tiles.

Every tile has a halo as wide as the network sees, which is cut off again. At the picture's border
the tile ends too, so that the network's padding is that of the whole pass. With circular padding
the halo continues at the opposite border.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stylenet import images
from stylenet.looks import Look
from stylenet.models.stylenet import StyleNet
from stylenet.models.vgg import block_of
from stylenet.transforms import StyleCode

Write = Callable[[int, int, Tensor], None]  # top, left, a piece of the picture [N, 3, h, w]


class Span(NamedTuple):
    """A tile in one direction, in pixels: its core, and the wider range that is computed.

    With circular padding the range may reach beyond the picture.
    """

    start: int
    stop: int
    wide_start: int
    wide_stop: int


def cell_px(net: StyleNet) -> int:
    """The side in pixels of the square that one feature stands for."""
    return 2 ** (block_of(net.tap) - 1)


def halo_px(net: StyleNet) -> int:
    """The largest distance between a pixel and a feature that depends on it, or the reverse.

    In pixels, rounded up to whole cells.
    """
    # a 3x3 kernel reaches one neighbour further, which is 2^(block - 1) pixels away
    radius = sum(2 ** (block_of(name) - 1) for name in net.decoder.convs)
    if net.decoder.upsampling == "bilinear":  # each doubling sees one more neighbour
        radius += sum(2**level for level in range(1, block_of(net.tap)))
    cell = cell_px(net)
    return -(-radius // cell) * cell


def is_periodic(net: StyleNet) -> bool:
    """Whether the network continues a picture at the opposite border."""
    return "circular" in (net.encoder.padding, net.decoder.padding)


def can_tile(net: StyleNet, shape: Sequence[int]) -> bool:
    """Whether tiles and the whole pass give the same picture of a content [..., H, W]."""
    if any(isinstance(layer, nn.InstanceNorm2d) for layer in net.decoder.modules()):
        return False  # it measures each tile on its own
    # with circular padding, sides that pooling rounds up have another period at every depth
    is_whole = not any(side % cell_px(net) for side in shape[-2:])
    return not is_periodic(net) or (is_whole and net.encoder.padding == net.decoder.padding)


def spans(length: int, tile: int, halo: int, wraps: bool = False) -> list[Span]:
    """The tiles of a side of `length` pixels.

    With `wraps` their halos reach beyond it.
    """
    starts = range(0, length, tile)
    if wraps:
        return [
            Span(a, min(a + tile, length), a - halo, min(a + tile, length) + halo) for a in starts
        ]
    return [
        Span(a, min(a + tile, length), max(0, a - halo), min(length, a + tile + halo))
        for a in starts
    ]


def tiles(net: StyleNet, shape: Sequence[int], tile_px: int) -> Iterator[tuple[Span, Span]]:
    """Rows and columns of every tile of a picture [..., H, W], row by row."""
    tile = whole_cells(tile_px, cell_px(net))
    sides = (spans(side, tile, halo_px(net), is_periodic(net)) for side in shape[-2:])
    return itertools.product(*sides)


def piece_of(whole: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """The part of [..., H, W] between two rows and two columns.

    Beyond a border it continues at the opposite one.
    """
    for dim, (start, stop) in ((-2, rows), (-1, columns)):
        length = whole.shape[dim]
        if start >= 0 and stop <= length:
            whole = whole.narrow(dim, start, stop - start)
        else:
            whole = whole.index_select(dim, torch.arange(start, stop, device=whole.device) % length)
    return whole


def as_input(pixels: Tensor, net: nn.Module) -> Tensor:
    """Pixels [N, 3, h, w], float in [0, 1] or uint8, as a network takes them.

    Float, channels last, on the network's device.
    """
    there = pixels.to(next(net.parameters()).device)
    unit = images.to_unit(there) if there.dtype == torch.uint8 else there.float()
    return unit.contiguous(memory_format=torch.channels_last)


def encode_tiled(net: StyleNet, image: Tensor, tile_px: int) -> Tensor:
    """The full feature map of a picture [N, 3, H, W], [N, C, ceil(H / cell), ceil(W / cell)].

    The picture is float in [0, 1] or uint8. Only its tiles move to the network's device.
    """
    cell, features = cell_px(net), None
    for rows, columns in tiles(net, image.shape, tile_px):
        pixels = piece_of(image, rows[2:], columns[2:])
        piece = net.encode(as_input(pixels, net))
        if features is None:
            size = [-(-side // cell) for side in image.shape[-2:]]
            features = piece.new_empty(len(piece), piece.shape[1], *size).contiguous(
                memory_format=torch.channels_last
            )
        # in cells: where the core lies in the full map, and where in the piece
        target = [slice(span.start // cell, -(-span.stop // cell)) for span in (rows, columns)]
        offset = [(span.start - span.wide_start) // cell for span in (rows, columns)]
        core = [slice(o, o + t.stop - t.start) for o, t in zip(offset, target, strict=True)]
        features[:, :, target[0], target[1]] = piece[:, :, core[0], core[1]]
    return features


def render_tiled(
    net: StyleNet,
    features: Tensor,
    shape: Sequence[int],
    look: Look,
    tile_px: int,
    write: Write,
) -> StyleCode | None:
    """Align and decode the full feature map of a picture of the given [..., H, W].

    `write` receives one piece after another. The result are the content's statistics, as those of
    the whole pass.
    """
    cell, areas = cell_px(net), net.areas(look, shape)
    stats = net.settled_stats(features, look, areas)
    needs_whole = stats is None  # then the transform aligns the whole map at once
    if needs_whole:
        features = net.align(features, look, None)
    for rows, columns in tiles(net, shape, tile_px):
        cells = [(span.wide_start // cell, -(-span.wide_stop // cell)) for span in (rows, columns)]
        piece = piece_of(features, *cells)
        part = None if areas is None else piece_of(areas, *cells)
        pixels = net.decoder(piece if needs_whole else net.align(piece, look, stats, part))
        # in pixels of the piece, without the halo
        core = [
            slice(span.start - span.wide_start, span.stop - span.wide_start)
            for span in (rows, columns)
        ]
        write(rows.start, columns.start, pixels[:, :, core[0], core[1]])
    return stats


def whole_cells(tile_px: int, cell: int) -> int:
    """The tile's side as a multiple of the cell, at least one."""
    return max(cell, tile_px // cell * cell)
