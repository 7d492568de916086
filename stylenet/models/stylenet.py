"""StyleNet: encoder, feature transform and decoder, as in the paper's figure 2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stylenet.looks import Look
from stylenet.models.learning import Observed, repeated, rolled
from stylenet.models.vgg import VGG, block_of
from stylenet.transforms import (
    FeatureTransform,
    StyleCode,
    area_stats,
    blend,
    channel_stats,
    mix,
    shares,
)


class StyleNet(nn.Module):
    """A network that stylises contents with styles.

    Its parts are passed in, and only the decoder is trained. Images are RGB in [0, 1], [N, 3, H,
    W], any size; the output has the content's size.
    """

    def __init__(
        self, encoder: VGG, transform: FeatureTransform, decoder: nn.Module, tap: str = "relu4_1"
    ) -> None:
        super().__init__()
        self.encoder, self.transform, self.decoder, self.tap = encoder, transform, decoder, tap

    def forward(self, content: Tensor, style: Tensor, alpha: float = 1.0) -> Tensor:
        """The content stylised with the style, [N, 3, H, W].

        content [N, 3, H, W], style [N or 1, 3, h, w]; `alpha` is the strength in [0, 1].
        """
        return self.stylise(content, Look((self.encode_style(style),), alpha=alpha))

    def encode(self, image: Tensor) -> Tensor:
        """The image's features at the tap, [N, C, h, w]."""
        return self.encoder(image, [self.tap])[self.tap]

    def encode_style(self, style: Tensor) -> StyleCode:
        """The style code of a style image, which serves any number of contents."""
        return self.style_code(self.encode(style))

    def style_code(self, features: Tensor) -> StyleCode:
        """The style code of a style's features."""
        return self.transform.describe(features)

    @property
    def has_content_stats(self) -> bool:
        """Whether `content_stats` returns statistics."""
        return self.transform.survey is not None

    def content_stats(self, features: Tensor) -> StyleCode | None:
        """What the transform measures of a whole content.

        None where the transform needs the whole content itself.
        """
        return self.transform.survey(features) if self.transform.survey else None

    def stylise(self, content: Tensor, look: Look) -> Tensor:
        """The content [N, 3, H, W] stylised with a look."""
        return self.render(self.encode(content), content.shape, look)[0]

    def render(
        self, features: Tensor, shape: Sequence[int], look: Look
    ) -> tuple[Tensor, StyleCode | None]:
        """The stylised content, computed from its features and its shape, and its statistics.

        The features serve any number of looks. The statistics are those that aligned the content;
        None for a transform without.
        """
        areas = self.areas(look, shape)
        stats = self.settled_stats(features, look, areas)
        return self.decode(self.align(features, look, stats, areas), shape), stats

    def areas(self, look: Look, shape: Sequence[int]) -> Tensor | None:
        """The look's areas of a picture [..., H, W] at the tap; None without regions."""
        return look.areas(shape, 2 ** (block_of(self.tap) - 1))

    @property
    def has_areas(self) -> bool:
        """Whether the transform can be applied to each area by its own statistics."""
        return self.transform.survey is channel_stats

    def settled_stats(
        self, features: Tensor, look: Look, areas: Tensor | None = None
    ) -> StyleCode | None:
        """The statistics that align a whole content in a look, or None (`content_stats`).

        Those of each area, where there are some.
        """
        own = self.content_stats(features) if areas is None else area_stats(features, areas)
        return None if own is None else look.settled(own, self.has_areas)

    def align(
        self,
        features: Tensor,
        look: Look,
        stats: StyleCode | None,
        areas: Tensor | None = None,
    ) -> Tensor:
        """Content features aligned with each style of the look and mixed.

        The result is blended with the content's own features. `stats` are those of the whole
        content, of which `features` may be a piece, as `areas` are then those of the piece.
        """
        if areas is None:
            mixed = mix(self.transform, features, look.codes, look.mixture, stats)
        else:
            weights = shares(areas).to(features.device)[:, None]  # [A, 1, 1, h, w]
            mixed = sum(
                mix(self.transform, features, *both, stats[2 * k : 2 * k + 2]) * weights[k]
                for k, both in enumerate(look.mixtures)
            ).to(features.dtype)
        return blend(self.transform.unchanged(features), mixed, look.alpha)

    def decode(self, features: Tensor, shape: Sequence[int]) -> Tensor:
        """Features as an image of the given [..., H, W].

        The encoder pools with ceiling, so the decoder's image covers the input from its top left
        corner. Sides that are no multiple of 8 need a crop and no resampling.
        """
        return self.decoder(features)[..., : shape[-2], : shape[-1]]

    def learn(self, seen: Observed) -> Tensor:
        """The outputs g(t) of a training step (eq. 10), [R * N, 3, H, W].

        The content's features are the observed ones.
        """
        # a transform that widens the features has a target of another shape
        aligned = seen.target if self.transform.widening == 1 else self.aligned(seen)
        return self.decode(aligned, seen.content.shape)

    @torch.no_grad()
    def aligned(self, seen: Observed) -> Tensor:
        """The decoder's input where that is not the target."""
        contents, styles = (
            repeated(seen.content_features[self.tap], seen.n_styles),
            rolled(seen.style_features, seen.n_styles),
        )
        # [R * N, C * widening, h, w]
        return self.transform.apply(contents, self.transform.describe(styles), None)

    def restore(self, seen: Observed) -> Tensor:
        """Contents, then styles, each stylised with itself: [2 * N, 3, H, W].

        An image's features aligned with its own statistics are its features, so the network applies
        no transform.
        """
        features = torch.cat([seen.content_features[self.tap], seen.style_features])
        return self.decode(self.transform.unchanged(features), seen.content.shape)
