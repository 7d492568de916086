"""The families: each kind of network, how to build it, and what it can do.

A configuration and a released file both become `Parts`, and `make(parts)` builds the network from
them. Code that trains, applies or measures a network asks its family. No other file knows the
kinds.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from stylenet.errors import UsageError, WeightsError
from stylenet.looks import Look
from stylenet.models import compact, decoder, fast, strips, tiles
from stylenet.models.compact import CompactNet
from stylenet.models.decoder import Decoder
from stylenet.models.fusion import FusionNet
from stylenet.models.johnson import JohnsonNet
from stylenet.models.learning import PairLearner
from stylenet.models.stylenet import StyleNet
from stylenet.models.tiles import Write
from stylenet.models.vgg import VGG
from stylenet.transforms import TRANSFORMS, StyleCode, area_stats

Network = StyleNet | CompactNet | JohnsonNet | FusionNet
# [N, C, h, w] at the tap; of a compact network at its three depths
Features = Tensor | tuple[Tensor, ...]


class Parts(NamedTuple):
    """Everything that is needed to build a network again.

    The description in a released file holds it.
    """

    family: str
    # the VGG of the network or of its losses: name, tap, padding, pooling
    encoder: Mapping[str, Any]
    trained: Mapping[str, Any]  # the family's own options, by the names in `Family.options`
    transform: str = "adain"


class Family(abc.ABC):
    """A kind of network.

    `trained` is the module that learns: a whole network, or the part behind a frozen encoder.
    """

    network: ClassVar[type]  # the class of the complete network
    options: ClassVar[Mapping[str, str]]  # {name in `Parts.trained`: option of the configuration}
    defaults: ClassVar[Mapping[str, Any]] = {}  # for options that older files lack
    # options, or sections with a dot, that do not apply to the family
    idle: ClassVar[tuple[str, ...]] = ()
    # {option: choices} that the family does not have
    lacking: ClassVar[Mapping[str, tuple[str, ...]]] = {"decoder.upsampling": ("transposed",)}
    transforms: ClassVar[tuple[str, ...]] = tuple(TRANSFORMS)
    has_encoder: ClassVar[bool]  # whether a network needs the VGG to stylise
    takes_styles: ClassVar[bool] = True  # False: the weights hold the one style
    # whether the network's `encode_style` has an encoder that `encode` does not use
    encodes_styles_apart: ClassVar[bool] = False

    @abc.abstractmethod
    def make(
        self, parts: Parts, generator: torch.Generator | None = None, init: str = "uniform"
    ) -> nn.Module:
        """The module that learns, with start weights drawn from the generator."""

    @abc.abstractmethod
    def assemble(self, trained: nn.Module, encoder: VGG | None, parts: Parts) -> Network:
        """The complete network, ready to stylise."""

    @abc.abstractmethod
    def make_learner(self, trained: nn.Module, encoder: VGG, parts: Parts) -> Any:
        """The network as the training loop calls it.

        `trained` may be distributed over processes.
        """

    @abc.abstractmethod
    def make_fast(self, net: Network, device: torch.device, dtype: torch.dtype) -> Network:
        """The same function from the same weights, arranged for the device."""

    def compile(self, net: Network) -> None:
        """Pass the fast form to torch.compile, in place.

        Each new picture size then costs a compilation.
        """
        net.compile()

    def can_tile(self, net: Network, shape: Sequence[int]) -> bool:
        """Whether tiles and the whole pass give the same picture of a content [..., H, W]."""
        return False

    def reach_px(self, net: Network) -> int:
        """How far a pixel of the output sees, in pixels, where `can_mask`; rounded up to whole
        features.
        """
        raise NotImplementedError

    def can_mask(self, net: Network) -> bool:
        """Whether parts of a picture can have styles of their own, and a style a mask."""
        return False

    def masked_code(self, net: Network, features: Features, look: Look, shape: Any) -> StyleCode:
        """The style code of the part of a style [..., H, W] that is a look's only region.

        `features` are those of a whole pass.
        """
        raise NotImplementedError

    def encode_tiled(self, net: Network, image: Tensor, tile_px: int) -> Features:
        """The features of a picture [N, 3, H, W], float in [0, 1] or uint8, for `render_tiled`.

        The picture need not be on the network's device. A tile has about tile_px² pixels.
        """
        raise NotImplementedError

    def style_code(self, net: Network, features: Features) -> StyleCode:
        """The style code of a style's features, those of `encode_tiled` included."""
        return net.style_code(features)

    def is_tiled(self, features: Features) -> bool:
        """Whether only `render_tiled` takes these features, and not the network's `render`."""
        return False

    def render_tiled(
        self,
        net: Network,
        features: Features,
        shape: Sequence[int],
        look: Look,
        tile_px: int,
        write: Write,
    ) -> StyleCode | None:
        """Pass the stylised picture to `write` in pieces, and return the content's statistics."""
        raise NotImplementedError

    def load_published(
        self, trained: nn.Module, weights: Mapping[str, Tensor], origin: str
    ) -> bool:
        """Whether the family has a decoder in pytorch-AdaIN's layout, which is then loaded."""
        return False

    def start_from(self, trained: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The start weights for fine-tuning, from a released network's tensors."""
        return tensors

    def can_start_from(self, name: str, theirs: Any, ours: Any) -> bool:
        """Whether fine-tuning may change an option of `Parts.trained`."""
        return theirs == ours

    def freeze(self, trained: nn.Module, layers: tuple[str, ...]) -> None:
        """Freeze the named layers: the network's own parts.

        Raises UsageError for unknown names.
        """
        parts = dict(trained.named_children())
        unknown = [name for name in layers if name not in parts]
        if unknown:
            raise UsageError(
                f"expected parts of the network as train.freeze ({', '.join(parts)}), but "
                f"{', '.join(unknown)} came"
            )
        for name in layers:
            parts[name].requires_grad_(False)


class VggFamily(Family):
    """The paper's network: a frozen VGG, a transform at one of its layers, a trained decoder."""

    network = StyleNet
    options: ClassVar[Mapping[str, str]] = {
        "norm": "decoder.norm",
        "padding": "decoder.padding",
        "upsampling": "decoder.upsampling",
    }
    idle = (
        "model.channels",
        "model.blocks",
        "model.encoder_blocks",
        "model.antialias",
        "model.fusion",
    )
    has_encoder = True

    def make(
        self, parts: Parts, generator: torch.Generator | None = None, init: str = "uniform"
    ) -> Decoder:
        return Decoder(
            encoder_name=parts.encoder["name"],
            tap=parts.encoder["tap"],
            init=init,
            generator=generator,
            widening=TRANSFORMS[parts.transform].widening,
            **parts.trained,
        )

    def assemble(self, trained: nn.Module, encoder: VGG | None, parts: Parts) -> StyleNet:
        return StyleNet(encoder, TRANSFORMS[parts.transform], trained, parts.encoder["tap"])

    make_learner = assemble

    def make_fast(self, net: StyleNet, device: torch.device, dtype: torch.dtype) -> StyleNet:
        return fast.make_fast(net, device, dtype)

    def compile(self, net: StyleNet) -> None:
        net.encoder.compile()
        net.decoder.compile()

    def can_tile(self, net: StyleNet, shape: Sequence[int]) -> bool:
        return tiles.can_tile(net, shape)

    def reach_px(self, net: StyleNet) -> int:
        return 2 * tiles.halo_px(net)

    def can_mask(self, net: StyleNet) -> bool:
        return net.has_areas

    def masked_code(self, net: StyleNet, features: Tensor, look: Look, shape: Any) -> StyleCode:
        return area_stats(features, net.areas(look, shape))[2:]

    def encode_tiled(self, net: StyleNet, image: Tensor, tile_px: int) -> Tensor:
        return tiles.encode_tiled(net, image, tile_px)

    def render_tiled(
        self,
        net: StyleNet,
        features: Tensor,
        shape: Sequence[int],
        look: Look,
        tile_px: int,
        write: Write,
    ) -> StyleCode | None:
        return tiles.render_tiled(net, features, shape, look, tile_px, write)

    def load_published(
        self, trained: nn.Module, weights: Mapping[str, Tensor], origin: str
    ) -> bool:
        decoder.load_flat_decoder(trained, weights, origin)
        return True

    def freeze(self, trained: nn.Module, layers: tuple[str, ...]) -> None:
        decoder.freeze_layers(trained, layers)


class WholeFamily(Family):
    """A network that is trained as a whole. Only its losses use the VGG."""

    transforms = ("adain",)
    has_encoder = False

    def make(
        self, parts: Parts, generator: torch.Generator | None = None, init: str = "uniform"
    ) -> nn.Module:
        return self.network(**parts.trained, generator=generator)

    def assemble(self, trained: nn.Module, encoder: VGG | None, parts: Parts) -> Network:
        return trained

    def make_learner(self, trained: nn.Module, encoder: VGG, parts: Parts) -> PairLearner:
        return PairLearner(trained)

    def make_fast(self, net: Network, device: torch.device, dtype: torch.dtype) -> Network:
        fast_net = copy.deepcopy(net).eval().requires_grad_(False)
        return fast_net.to(device, dtype, memory_format=torch.channels_last)


class CompactFamily(WholeFamily):
    """A small network with its own encoder.

    Only its losses use the VGG.
    """

    network = CompactNet
    options: ClassVar[Mapping[str, str]] = {
        "channels": "model.channels",
        "blocks": "model.blocks",
        "encoder_blocks": "model.encoder_blocks",
        "antialias": "model.antialias",
    }
    defaults: ClassVar[Mapping[str, Any]] = {"encoder_blocks": 1, "antialias": False}
    idle = ("decoder.", "model.fusion")

    def make_fast(self, net: CompactNet, device: torch.device, dtype: torch.dtype) -> CompactNet:
        return compact.make_fast(net, device, dtype)

    def can_tile(self, net: CompactNet, shape: Sequence[int]) -> bool:
        return True

    def reach_px(self, net: CompactNet) -> int:
        # beyond the encoder two kernels a block at 1/8, and less than five features after it
        n_cells = strips.encoder_halo(net) + 2 * len(net.decoder_blocks) + 5
        return compact.STRIDE * n_cells

    def can_mask(self, net: CompactNet) -> bool:
        return True

    def masked_code(
        self, net: CompactNet, features: Sequence[Tensor], look: Look, shape: Any
    ) -> StyleCode:
        areas = compact.areas_at_depths(look, shape)
        stats = [area_stats(x, areas[d]) for x, d in zip(features, compact.DEPTHS, strict=True)]
        return tuple(part for own in stats for part in own[2:])

    def encode_tiled(self, net: CompactNet, image: Tensor, tile_px: int) -> tuple[Tensor, ...]:
        return strips.encode_in_strips(net, image, tile_px)

    def render_tiled(
        self,
        net: CompactNet,
        features: Sequence[Tensor],
        shape: Sequence[int],
        look: Look,
        tile_px: int,
        write: Write,
    ) -> StyleCode:
        return strips.render_in_strips(net, features, shape, look, tile_px, write)

    def style_code(self, net: CompactNet, features: Features) -> StyleCode:
        return strips.style_code(net, features)

    def is_tiled(self, features: Features) -> bool:
        return strips.is_in_strips(features)

    def compile(self, net: CompactNet) -> None:
        net.encode, net.decode = torch.compile(net.encode), torch.compile(net.decode)

    def start_from(self, trained: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return compact.grown(trained, tensors)

    def can_start_from(self, name: str, theirs: Any, ours: Any) -> bool:
        # additional blocks start as the identity, see `compact.grown`
        return (
            name == "antialias"
            or theirs == ours
            or (name in ("blocks", "encoder_blocks") and ours >= theirs)
        )


class JohnsonFamily(WholeFamily):
    """A network for one style (Johnson et al. 2016).

    Only its losses use the VGG. Instance normalisation looks at the whole picture, so nothing is
    tiled.
    """

    network = JohnsonNet
    options: ClassVar[Mapping[str, str]] = {
        "channels": "model.channels",
        "blocks": "model.blocks",
        "norm": "decoder.norm",
        "upsampling": "decoder.upsampling",
    }
    idle = (
        "decoder.padding",
        "decoder.init",
        "model.encoder_blocks",
        "model.antialias",
        "model.fusion",
    )
    lacking: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    takes_styles = False


class FusionFamily(WholeFamily):
    """Two encoders, a fusion and a decoder.

    Only its losses use the VGG. The fusion looks at the whole picture, so nothing is tiled.
    """

    network = FusionNet
    options: ClassVar[Mapping[str, str]] = {
        "channels": "model.channels",
        "blocks": "model.blocks",
        "fusion": "model.fusion",
    }
    idle = ("decoder.", "model.encoder_blocks", "model.antialias")
    encodes_styles_apart = True


FAMILIES: dict[str, Family] = {
    "vgg": VggFamily(),
    "compact": CompactFamily(),
    "johnson": JohnsonFamily(),
    "fusion": FusionFamily(),
}

# pytorch-AdaIN's published decoders carry no description; they are all of this kind
PUBLISHED = Parts(
    family="vgg",
    encoder={"name": "vgg19", "tap": "relu4_1", "padding": "reflect", "pooling": "max"},
    trained={"norm": "none", "padding": "reflect", "upsampling": "nearest"},
)


def family_of(net: nn.Module) -> Family:
    """The family of a network."""
    return next(family for family in FAMILIES.values() if isinstance(net, family.network))


def parts_of(description: Mapping[str, Any]) -> Parts:
    """The parts that a released file describes. Raises WeightsError for an unknown family."""
    family = description["model"]
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise WeightsError(f"expected a model of a known kind ({known}), but {family!r} came")
    trained = {**FAMILIES[family].defaults, **description["decoder"]}
    return Parts(family, description["encoder"], trained, description["transform"])
