"""Applying a trained model: the Python API."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stylenet import images, runtime
from stylenet.checkpoint import (
    ARTIFACT,
    check_encoder,
    find_release,
    read_release,
    with_prefix,
)
from stylenet.colours import luminance, matched, recoloured
from stylenet.errors import UsageError, WeightsError, one_line
from stylenet.hub import HUB
from stylenet.looks import (
    Look,
    Region,
    StyleCard,
    make_look,
    mean_code,
    repeated_around,
    shares_of,
    stack,
)
from stylenet.models.adapters import merged
from stylenet.models.calibration import calibrate
from stylenet.models.families import FAMILIES, PUBLISHED, Features, Network, family_of, parts_of
from stylenet.models.tiles import Write, as_input
from stylenet.models.vgg import VGG
from stylenet.models.vgg_files import (
    find_weights,
    is_flat_layout,
    load_vgg,
    read_weights,
    sha256_of_encoder,
    sha256_of_file,
)
from stylenet.transforms import StyleCode, shares

# what it can do and cannot: docs/model_card.md
SHIPPED_MODEL = Path(__file__).parent.parent / "weights" / "compact.safetensors"

ImageLike = Tensor | np.ndarray | Image.Image | str | Path


class Encoded(NamedTuple):
    """Contents of one size as the network sees them, which serve any number of looks."""

    features: Features
    pixels: Tensor  # [N, 3, H, W], float in [0, 1] or uint8
    margin: int = 0  # a border of so many pixels repeats the picture and is cut off in the end

    @property
    def shape(self) -> Sequence[int]:
        """That of the picture without the margin, [N, 3, h, w]."""
        n, channels, height, width = self.pixels.shape
        return (n, channels, height - 2 * self.margin, width - 2 * self.margin)

    @property
    def picture(self) -> Tensor:
        """The pixels without the margin."""
        height, width = self.shape[-2:]
        return self.pixels[..., self.margin :, self.margin :][..., :height, :width]


class Stylizer:
    """Stylises pictures with a trained network.

    A picture is a path, a PIL image, or a tensor [3, H, W] or [N, 3, H, W], float in [0, 1] or
    uint8. Large ones go through the network in tiles, which changes nothing but the memory: `tile`
    is the side in pixels, "off", or "auto".
    """

    def __init__(
        self,
        net: Network,
        device: str = "auto",
        precision: str = "fp32",
        tile: str | int = "auto",
        is_compiled: bool = False,
        origin: tuple[str | Path, str | None] | None = None,
    ) -> None:
        """`origin` names the files of the network: its own, and its encoder's."""
        if precision not in PRECISIONS:
            raise UsageError(
                f"expected {', '.join(PRECISIONS)} as precision, but {precision!r} came"
            )
        is_number = isinstance(tile, int) and not isinstance(tile, bool) and tile > 0
        if not is_number and tile not in ("auto", "off"):
            raise UsageError(f"expected auto, off or a number of pixels as tile, but {tile!r} came")
        self.device, self.tile, self.origin = runtime.pick_device(device), tile, origin
        self.family = family_of(net)
        self.precision = precision
        self.net = self.family.make_fast(
            net, self.device, runtime.DTYPES.get(precision, torch.float32)
        )
        if is_compiled:
            self.family.compile(self.net)
        if isinstance(tile, int) and not self.family.can_tile(self.net, (0, 0)):
            raise UsageError(
                "expected a network that sees only its neighbourhood for tiling, but this one has "
                "instance normalisation or circular padding in one half only, which need the "
                "whole picture; use --tile off"
            )

    @classmethod
    def load(
        cls,
        path: str | Path = SHIPPED_MODEL,
        device: str = "auto",
        precision: str = "fp32",
        encoder_weights: str | None = None,
        tile: str | int = "auto",
        is_compiled: bool = False,
    ) -> Stylizer:
        """A stylizer from a model file, a checkpoint, a run folder or a decoder.pth.

        The default is the small model that stylenet includes. A decoder.pth is one of
        pytorch-AdaIN. `encoder_weights` is for a model that does not carry its encoder. precision:
        fp32, tf32 (float32 whose products a GPU may round, where the process allows it:
        runtime.allow_tf32), bf16, fp16.

        Raises WeightsError for a damaged or foreign file, and for another encoder than the model
        was trained with.
        """
        net = load_network(path, encoder_weights)
        return cls(net, device, precision, tile, is_compiled, (path, encoder_weights))

    @functools.cached_property
    def model_id(self) -> tuple[str, ...]:
        """The sha256 of the model's files. Raises UsageError for a network that has none."""
        if self.origin is None:
            raise UsageError(
                "expected a stylizer that was loaded from a file for a style card, but this one "
                "has none; use Stylizer.load"
            )
        return identify(*self.origin)

    def make_card(
        self,
        style: ImageLike | list[ImageLike],
        title: str,
        source: str = "",
        mixture: Sequence[float] | None = None,
        mask: ImageLike | None = None,
    ) -> StyleCard:
        """A style card of a picture, or of several, mixed in the proportion `mixture`.

        With a mask only that part of each counts. Raises UsageError for a model whose codes depend
        on the style's size.
        """
        pictures = style if isinstance(style, list) else [style]
        if any(isinstance(picture, (tuple, StyleCard)) for picture in pictures):
            raise UsageError(
                "expected pictures for a style card, but a card or a code came; give the paintings"
            )
        weights = shares_of(mixture, len(pictures))
        codes = [self.encode_style(picture, mask) for picture in pictures]
        if len({tuple(part.shape for part in code) for code in codes}) > 1:
            raise UsageError(
                "expected a model whose style codes have one size for a card of several styles, "
                "but this one's depend on the picture; give one style"
            )
        thumbnail = images.to_jpeg(to_batch(pictures[0])[0], THUMBNAIL_PX)
        return StyleCard(mean_code(codes, weights), self.model_id, title, source, thumbnail)

    @torch.inference_mode()
    def __call__(
        self,
        content: ImageLike,
        style: StyleLike | list[StyleLike] | None = None,
        alpha: float = 1.0,
        mixture: Sequence[float] | None = None,
        colour: str = "style",
        regions: Sequence[Masked] = (),
        stroke: float | None = None,
        is_seamless: bool = False,
    ) -> Tensor:
        """The content in the look of the style, float32 in [0, 1] on the CPU, of the same size.

        The result is [3, H, W], or [N, 3, H, W] for a batch. alpha: 0 gives the content back as the
        decoder can, 1 the full style. A list of styles is mixed in the proportion `mixture` (equal
        parts if None). A style may also be the result of `encode_style`, or a style card. A model
        for one style needs none.

        colour: whose colours the result has, as in `stylenet.colours.Colour`. regions: pairs of a
        mask and a style, which that part of the picture takes; a mask is a picture (white: all of
        it) or a tensor [h, w] in [0, 1], of any size. With an empty list as style the rest stays
        the content. stroke: the style's shortest side as a multiple of the content's; None takes
        the style as it is. is_seamless: a content that can be tiled gives a result that can.

        Raises UsageError for an alpha outside [0, 1], a mixture that does not match the styles, an
        unknown colour, and what the network or a style code cannot do; WeightsError for another
        model's style card.
        """
        styles = style if isinstance(style, list) else [style]
        if not self.family.takes_styles:
            styles = [()]  # its code is empty
        elif style is None:
            raise UsageError("expected a style, but none came; give a picture or a card")
        if not self.family.takes_styles and (stroke is not None or colour == "matched"):
            raise UsageError(
                "expected neither stroke nor colour matched with a model for one style, which sees "
                "no picture of it; leave them out"
            )
        encoded = self.encode_content(content, is_seamless)

        def code_of(style: StyleLike) -> StyleCode:
            if isinstance(style, (tuple, StyleCard)):
                if stroke is not None or colour == "matched":
                    raise UsageError(
                        "expected a picture as style with stroke or with colour matched, which "
                        "change it before the network sees it, but a style code came"
                    )
                return self.encode_style(style)
            return self.encode_style(as_seen(to_batch(style), encoded.picture, colour, stroke))

        output = self.render(
            encoded,
            make_look(
                [code_of(s) for s in styles],
                mixture,
                alpha,
                [Region(to_mask(mask), (code_of(s),)) for mask, s in regions],
                colour,
            ),
        )
        is_batch = isinstance(content, Tensor) and content.ndim == 4
        return output if is_batch else output[0]

    def picture(
        self,
        content: ImageLike,
        style: StyleLike | list[StyleLike] | None = None,
        alpha: float = 1.0,
        mixture: Sequence[float] | None = None,
        colour: str = "style",
        regions: Sequence[Masked] = (),
        stroke: float | None = None,
        is_seamless: bool = False,
    ) -> Image.Image:
        """The same as a Pillow image, of one content."""
        made = self(content, style, alpha, mixture, colour, regions, stroke, is_seamless)
        return images.to_pil(made)

    @torch.inference_mode()
    def encode_style(self, style: StyleLike, mask: ImageLike | None = None) -> StyleCode:
        """The style's code, which the network needs of a style. It fits every content.

        With a mask only that part of the style counts. Raises WeightsError for a card of another
        model and UsageError for a mask without white.
        """
        if isinstance(style, StyleCard):
            code = style.code_for(self.model_id, self.device)
            if self.family.can_mask(self.net) and shapes(code) != self.code_shapes:
                raise WeightsError(
                    f"expected a code of {len(self.code_shapes)} parts that fit the model, but the "
                    f"style card {style.title!r} has {len(code)} others; make the card again with "
                    "--save-style"
                )
            return code
        if isinstance(style, tuple):
            return style
        batch = to_batch(style)
        if mask is not None:
            self.check_masks("a style's own mask")
            part = to_mask(mask)
            if not part.any():
                raise UsageError(
                    "expected some white in a style's mask, which marks what counts, but it is "
                    "black everywhere; invert it"
                )
            look = Look((), regions=(Region(part, ()),))
            features = self.net.encode(as_input(batch, self.net))
            return self.family.masked_code(self.net, features, look, batch.shape)
        if self.family.encodes_styles_apart:
            return self.net.encode_style(as_input(batch, self.net))
        return self.family.style_code(self.net, self.features_of(batch))

    @torch.inference_mode()
    def encode_content(self, content: ImageLike, is_seamless: bool = False) -> Encoded:
        """The content as the network sees it, which `render` takes with any style.

        With `is_seamless` it continues at the opposite border, so that the result can be tiled.
        Raises UsageError for sides that are no multiples of 8, since features lie on such a grid.
        """
        batch = to_batch(content)
        if not is_seamless:
            return Encoded(self.features_of(batch), batch)
        self.check_masks("a seamless texture")
        height, width = batch.shape[-2:]
        if height % GRID_PX or width % GRID_PX:
            raise UsageError(
                f"expected sides that are multiples of {GRID_PX} pixels for a seamless texture, "
                f"but {width}x{height} came; resize it"
            )
        margin = self.family.reach_px(self.net)
        batch = repeated_around(batch, margin)
        return Encoded(self.features_of(batch), batch, margin)

    @functools.cached_property
    def code_shapes(self) -> list[torch.Size]:
        """The shapes of a style code's parts, where they do not depend on the style."""
        return shapes(self.encode_style(torch.zeros(3, GRID_PX, GRID_PX)))

    def check_masks(self, wanted: str = "a mask") -> None:
        """Raise UsageError unless the network can take masks, which the `wanted` control needs."""
        if not self.family.can_mask(self.net):
            raise UsageError(
                "expected a model whose transform is AdaIN (or its mean or deviation alone) for "
                f"{wanted}, but this one looks at the whole picture at once; leave that out"
            )

    def features_of(self, batch: Tensor) -> Features:
        """The features of pictures [N, 3, H, W], computed in tiles where they are large."""

        def encode(tile_px: int | None) -> Features:
            if tile_px:
                return self.family.encode_tiled(self.net, batch, tile_px)
            return self.net.encode(as_input(batch, self.net))

        return self.in_memory(encode, batch.shape)

    def render(self, content: Encoded, look: Look) -> Tensor:
        """An encoded content in a look: pictures [N, 3, H, W], float32 in [0, 1] on the CPU."""
        with torch.inference_mode(False):  # so that the caller may change it and take its gradient
            output = torch.empty(content.shape)

        def write(top: int, left: int, piece: Tensor) -> None:
            output[..., top : top + piece.shape[-2], left : left + piece.shape[-1]] = (
                piece.float().clamp(0, 1).cpu()
            )

        self.draw(content, look, write)
        return output

    def render_pixels(self, content: Encoded, looks: Sequence[Look]) -> Tensor:
        """N encoded contents, each in its own look, as uint8 [N, H, W, 3].

        The looks have one mixture and strength, and codes of equal shapes.
        """
        return self.render_frame(content, stack(looks))[0]

    def render_frame(self, content: Encoded, look: Look) -> tuple[Tensor, StyleCode | None]:
        """Encoded contents in a look as uint8 [N, H, W, 3], and the statistics that aligned them.

        Tiles fill the pixels, so a large picture never exists in float32 as a whole. The statistics
        are None for a network without.
        """
        n, _, *size = content.shape
        pixels = torch.empty(n, *size, 3, dtype=torch.uint8)

        def write(top: int, left: int, piece: Tensor) -> None:
            pixels[:, top : top + piece.shape[-2], left : left + piece.shape[-1]] = (
                images.to_pixels(piece).cpu()
            )

        return pixels, self.draw(content, look, write)

    @torch.inference_mode()
    def draw(self, content: Encoded, look: Look, write: Write) -> StyleCode | None:
        """Pass the stylised picture to `write`, in one piece or in tiles.

        Returns the statistics that aligned it, as `render_frame`.
        """
        features, shape = content.features, content.pixels.shape
        if look.regions:
            self.check_masks()
        if content.margin:
            look = dataclasses.replace(look, margin=content.margin)
            write = without_margin(content.margin, content.shape, write)
        if look.keeps_rest or look.colour in ("content", "only"):
            write = finished(content.pixels, look, write)
        write = checked(write, self.precision)

        def action(tile_px: int | None) -> StyleCode | None:
            if tile_px or self.family.is_tiled(features):
                tile_px = tile_px or max(shape[-2:])
                return self.family.render_tiled(self.net, features, shape, look, tile_px, write)
            picture, stats = self.net.render(features, shape, look)
            write(0, 0, picture)
            return stats

        return self.in_memory(action, shape)

    def tile_px(self, shape: Sequence[int]) -> int | None:
        """The side of the tiles for a picture [..., H, W], or None for one piece."""
        is_small = self.tile == "auto" and shape[-2] * shape[-1] <= WHOLE_PIXELS
        if self.tile == "off" or is_small or not self.family.can_tile(self.net, shape):
            return None
        return (
            best_tile(runtime.free_memory(self.device), self.device)
            if self.tile == "auto"
            else int(self.tile)
        )

    def in_memory(self, action: Callable[[int | None], Any], shape: Sequence[int]) -> Any:
        """The result of `action(tile_px)`, within the GPU's memory.

        Where the memory does not hold it, the tiles are halved until it does.
        """
        tile_px = self.tile_px(shape)
        while True:
            try:
                return action(tile_px)
            except torch.OutOfMemoryError:
                tile_px = (tile_px or max(shape[-2:])) // 2
                if (
                    self.tile == "off"
                    or tile_px < SMALLEST_TILE
                    or not self.family.can_tile(self.net, shape)
                ):
                    raise
            # here, since the exception's traceback holds the failed pass's tensors until it ends
            torch.cuda.empty_cache()


WHOLE_PIXELS = 1280 * 1280  # up to this a picture goes through in one piece
SMALLEST_TILE = 64
GRID_PX = 8  # the side of a square of pixels that one of the deepest features stands for
THUMBNAIL_PX = 96  # the shortest side of a style card's picture
# of a tile with its halo, float32; the largest activations are three of 64 channels
BYTES_PER_PIXEL = 1000


def best_tile(free_bytes: int | None, device: torch.device) -> int:
    """The side of the tiles that fit into a quarter of the free memory.

    On the CPU more than 512 gains nothing.
    """
    # largest first; the 64 added below stand for the halo around a tile
    sizes = (2048, 1024, 512, 256) if device.type == "cuda" else (512, 256)
    candidates = [
        size
        for size in sizes
        if free_bytes is None or (size + 64) ** 2 * BYTES_PER_PIXEL <= free_bytes / 4
    ]
    return candidates[0] if candidates else 128


PRECISIONS = ("fp32", "tf32", *runtime.DTYPES)
FLOAT_SLACK = 0.5  # resizing may overshoot; levels of 255 and standardised pictures lie beyond
StyleLike = ImageLike | StyleCode | StyleCard
Masked = tuple[ImageLike, StyleLike]  # a mask, and the style behind it


def without_margin(margin: int, shape: Sequence[int], write: Write) -> Write:
    """A `write` that drops what lies around a picture of this [..., H, W]."""

    def crop(top: int, left: int, piece: Tensor) -> None:
        (y, height), (x, width) = (
            (start - margin, piece.shape[dim]) for start, dim in ((top, -2), (left, -1))
        )
        rows = slice(max(0, -y), max(0, min(height, shape[-2] - y)))
        columns = slice(max(0, -x), max(0, min(width, shape[-1] - x)))
        inner = piece[..., rows, columns]
        if inner.numel():
            write(max(0, y), max(0, x), inner)

    return crop


def checked(write: Write, precision: str) -> Write:
    """A `write` that raises UsageError for a piece with NaN or infinite values."""

    def check(top: int, left: int, piece: Tensor) -> None:
        if not piece.isfinite().all():
            hint = (
                "its features leave the range of that; use bf16"
                if precision == "fp16"
                else "its weights or the style code may be damaged"
            )
            raise UsageError(
                f"expected finite pixels at {precision}, but the network painted NaN or infinite "
                f"ones; {hint}"
            )
        write(top, left, piece)

    return check


def shapes(code: StyleCode) -> list[torch.Size]:
    """The shapes of a code's parts."""
    return [part.shape for part in code]


def finished(pixels: Tensor, look: Look, write: Write) -> Write:
    """A `write` that first gives a piece what a look takes of the content's pixels."""
    rest = shares(look.areas(pixels.shape))[:1] if look.keeps_rest else None

    def finish(top: int, left: int, piece: Tensor) -> None:
        place = (..., slice(top, top + piece.shape[-2]), slice(left, left + piece.shape[-1]))
        own = pixels[place].to(piece.device)
        own = images.to_unit(own) if own.dtype == torch.uint8 else own.float()
        piece = recoloured(piece.float().clamp(0, 1), own, look.colour)
        if rest is not None:
            piece = torch.lerp(piece, own, rest[place].to(piece.device))
        write(top, left, piece)

    return finish


def as_seen(style: Tensor, content: Tensor, colour: str, stroke: float | None) -> Tensor:
    """A style [1, 3, h, w] as a look for the content [N, 3, H, W] takes it, float in [0, 1].

    Raises UsageError for colours matched with several contents at once.
    """
    style, content = (
        images.to_unit(x) if x.dtype == torch.uint8 else x.float() for x in (style, content)
    )
    if stroke is not None:
        check_stroke(stroke)
        factor = stroke * min(content.shape[-2:]) / min(style.shape[-2:])
        size = [max(1, round(side * factor)) for side in style.shape[-2:]]
        style = F.interpolate(style, size, mode="bilinear", antialias=True)
    if colour == "matched":
        if len(content) > 1 or len(style) > 1:
            raise UsageError(
                f"expected one content and one style at a time with colour matched, but "
                f"{len(content)} and {len(style)} came"
            )
        style = matched(style[0], content[0])[None]
    return style


def check_stroke(stroke: float) -> None:
    """Raise UsageError for strokes that are no multiple in [0.1, 10]."""
    if not 0.1 <= stroke <= 10:
        raise UsageError(f"expected stroke in [0.1, 10], but {stroke} came")


def to_mask(mask: ImageLike) -> Tensor:
    """A mask of any kind as [1, 1, h, w] in [0, 1]; of a picture its brightness.

    What is transparent counts as black. Raises UsageError.
    """
    if isinstance(mask, (str, Path)):
        mask = images.open_rgb(mask, background="black")
    if isinstance(mask, Image.Image):
        mask = images.to_rgb(mask, "black")
    if isinstance(mask, Tensor) and mask.ndim in (2, 4):
        values = mask if mask.ndim == 4 else mask[None, None]
        if values.shape[:2] == (1, 1):
            unit = images.to_unit(values) if values.dtype == torch.uint8 else values
            return unit.float().cpu()
    if isinstance(mask, np.ndarray) and mask.ndim == 2:
        return to_mask(torch.tensor(mask))
    batch = to_batch(mask)[:1]
    return luminance(images.to_unit(batch) if batch.dtype == torch.uint8 else batch.float()).cpu()


def separate(content: Encoded) -> list[Encoded]:
    """Each content of a batch."""
    if isinstance(content.features, Tensor):
        features = content.features.split(1)
    else:
        features = zip(*(depth.split(1) for depth in content.features), strict=True)
    pairs = zip(features, content.pixels.split(1), strict=True)
    return [Encoded(*pair, content.margin) for pair in pairs]


def join(contents: Sequence[Encoded]) -> Encoded:
    """Contents of one size as a batch."""
    if len(contents) == 1:
        return contents[0]
    pixels = torch.cat([content.pixels for content in contents])
    features = [content.features for content in contents]
    if isinstance(features[0], Tensor):
        return Encoded(torch.cat(list(features)), pixels, contents[0].margin)
    depths = tuple(torch.cat(depth) for depth in zip(*features, strict=True))
    return Encoded(depths, pixels, contents[0].margin)


def to_batch(image: ImageLike) -> Tensor:
    """A picture of any kind as [N, 3, H, W], float in [0, 1] or uint8. Raises UsageError."""
    if isinstance(image, (str, Path)):
        image = images.open_rgb(image)
    if isinstance(image, Image.Image):
        image = np.array(images.to_rgb(image))
    if not isinstance(image, (np.ndarray, Tensor)):
        raise UsageError(
            "expected a path, a Pillow image, an array or a tensor as picture, but "
            f"{type(image).__name__} came; give several styles as a list"
        )
    tensor = torch.tensor(np.ascontiguousarray(image)) if isinstance(image, np.ndarray) else image
    if isinstance(image, np.ndarray) and tensor.ndim == 3:
        tensor = tensor.permute(2, 0, 1)  # [H, W, 3] -> [3, H, W]
    batch = tensor if tensor.ndim == 4 else tensor[None]
    is_known = batch.is_floating_point() or batch.dtype == torch.uint8
    if (
        batch.ndim != 4
        or batch.shape[1] != 3
        or not is_known
        or not batch.numel()
        or isinstance(image, np.ndarray)
        and image.ndim != 3
    ):
        kind = (
            "an array [H, W, 3]" if isinstance(image, np.ndarray) else "[3, H, W] or [N, 3, H, W]"
        )
        raise UsageError(
            f"expected an image {kind}, float in [0, 1] or uint8, but {tuple(image.shape)} of "
            f"{image.dtype} came"
        )
    if batch.is_floating_point():
        low, high = (float(bound) for bound in batch.aminmax())
        if not (low >= -FLOAT_SLACK and high <= 1 + FLOAT_SLACK):
            raise UsageError(
                f"expected an image whose floats lie in [0, 1], but {low:g} to {high:g} came; "
                "divide levels by 255"
            )
    return batch


def load_network(path: str | Path, encoder_weights: str | None = None) -> Network:
    """The network of a released model, a checkpoint or a run folder, on the CPU.

    A file that ends in .pth or .pth.tar is a decoder of pytorch-AdaIN, whose encoder is the
    normalised VGG. Raises WeightsError.
    """
    if is_published(path):
        return load_published(path, encoder_weights)
    tensors, description = read_model(path)
    parts = parts_of(description)
    family = FAMILIES[parts.family]
    try:
        trained = family.make(parts)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"expected a description that makes a network in {path}, but it fails "
            f"({one_line(error)[:120]}); fetch or write the file again"
        ) from error
    encoder = (
        load_encoder(tensors, description, encoder_weights, path) if family.has_encoder else None
    )
    fill(trained, with_prefix(tensors, "decoder."), path)
    return family.assemble(trained, encoder, parts).eval()


def read_model(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description of a model; those of an adapter are merged into its base's.

    `path` may be BASE+ADAPTER. An adapter alone finds its base where it was in training. Raises
    WeightsError for another base than the adapter's.
    """
    base, own = split_adapter(path)
    tensors, description = read_release(own)
    if "adapter" not in description:
        if base is not None:
            raise WeightsError(
                f"expected an adapter behind the +, but {own} is a whole model; give one of the two"
            )
        return tensors, description
    facts = description["adapter"]
    place = base or facts["base"]
    if base is None and not Path(place).exists():
        raise WeightsError(
            f"expected {own}, an adapter, with its base, but {place} is not there; give it as "
            f"BASE+{own}"
        )
    digest = sha256_of_file(find_release(place))
    if digest != facts["base_sha256"]:
        raise WeightsError(
            f"expected the base of {own} (sha256 {facts['base_sha256'][:12]}…), but {place} is "
            "another model"
        )
    tensors_of_base, description_of_base = read_release(place)
    trained = merged(
        with_prefix(tensors_of_base, "decoder."), with_prefix(tensors, "adapter."), str(own)
    )
    return (
        tensors_of_base | {f"decoder.{name}": value for name, value in trained.items()},
        description_of_base,
    )


def split_adapter(path: str | Path) -> tuple[str | None, str]:
    """BASE and ADAPTER of a name with a + between them; no base in any other."""
    text = str(path)
    if "+" not in text or Path(text).exists() or text.startswith((ARTIFACT, HUB)):
        return None, text
    base, _, own = text.partition("+")
    return base, own


def is_published(path: str | Path) -> bool:
    """Whether the name is that of a decoder of pytorch-AdaIN, .pth or .pth.tar."""
    return str(path).endswith((".pth", ".pth.tar"))


def load_published(path: str | Path, encoder_weights: str | None) -> Network:
    """The network of a decoder in pytorch-AdaIN's layout, with its encoder.

    It is the normalised VGG, with which such decoders were trained. Raises WeightsError.
    """
    weights = find_weights("vgg19", encoder_weights)
    if not is_flat_layout(read_weights(weights)):
        raise WeightsError(
            f"expected the normalised VGG for {path}, a decoder of pytorch-AdaIN, but {weights} "
            "is another network; "
            "give its vgg_normalised.pth as --encoder"
        )
    family = FAMILIES[PUBLISHED.family]
    trained = family.make(PUBLISHED)
    family.load_published(trained, read_weights(path), str(path))
    encoder = load_vgg(PUBLISHED.encoder["name"], weights, [PUBLISHED.encoder["tap"]])
    return family.assemble(trained, encoder, PUBLISHED)


def identify(path: str | Path, encoder_weights: str | None = None) -> tuple[str, ...]:
    """The sha256 of every file that makes up a model.

    These are its own file, and its encoder's where that decides. Raises WeightsError.
    """
    base, own = split_adapter(path)
    release = find_release(own)
    files = [release]
    if base is not None:
        files.append(find_release(base))
    # then the other half of the network lies in another file
    if is_published(release) or encoder_weights:
        files.append(find_weights("vgg19", encoder_weights))
    return tuple(map(sha256_of_file, files))


def load_encoder(
    tensors: dict[str, Tensor], description: dict, weights: str | None, origin: str | Path
) -> VGG:
    """The encoder that a model carries, or else the one of the named weights.

    Named weights are checked and calibrated as in training.
    """
    spec = description["encoder"]
    if spec["is_carried"]:
        encoder = VGG(spec["name"], spec["tap"], spec["padding"], spec["pooling"])
        fill(encoder, with_prefix(tensors, "encoder."), origin)
        return encoder.eval()
    encoder = load_vgg(
        spec["name"],
        find_weights(spec["name"], weights),
        [spec["tap"]],
        spec["padding"],
        spec["pooling"],
    )
    check_encoder(description, sha256_of_encoder(encoder, spec["tap"]), origin)
    mu = with_prefix(tensors, "mu.")
    if mu:
        calibrate(encoder, mu)
    return encoder


def fill(module: torch.nn.Module, tensors: dict[str, Tensor], origin: str | Path) -> None:
    """Load the tensors. Raises WeightsError if names or shapes do not match."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(
            f"expected the weights of a {type(module).__name__} in {origin}, but they do not fit "
            f"({one_line(error)[:200]})"
        ) from None
