"""StyleNet: encoder, feature transform and decoder, put together as the paper's figure 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stylenet.losses import LossWeights, content_loss, gram_loss, identity_loss, style_loss, total_variation
from stylenet.models.vgg import VGG
from stylenet.transforms import FeatureTransform, StyleCode, adain, blend, mix


class Stylised(NamedTuple):
    """What a training step needs of a forward pass."""

    output: Tensor  # [N, 3, H, W], the decoded image
    target: Tensor  # [N, C, h, w], the AdaIN output t that the decoder inverts: what the content loss compares with
    content_features: Tensor  # [N, C, h, w] at the tap
    style_features: dict[str, Tensor]  # at the tap and the style taps


class StyleNet(nn.Module):
    """Restyle contents with styles. Parts are passed in; only the decoder is trained.

    Images are RGB in [0, 1], [N, 3, H, W], any size; the output has the content's size.
    """

    def __init__(self, encoder: VGG, transform: FeatureTransform, decoder: nn.Module, tap: str = "relu4_1") -> None:
        super().__init__()
        self.encoder, self.transform, self.decoder, self.tap = encoder, transform, decoder, tap

    def forward(self, content: Tensor, style: Tensor, alpha: float = 1.0) -> Tensor:
        """The content [N, 3, H, W] in the look of the style [N or 1, 3, h, w], at strength alpha in [0, 1]."""
        return self.restyle(content, [self.encode_style(style)], [1.0], alpha)

    def encode(self, image: Tensor) -> Tensor:
        """The image's features at the tap."""
        return self.encoder(image, [self.tap])[self.tap]

    def encode_style(self, style: Tensor) -> StyleCode:
        """What the transform keeps of a style image; reusable for any number of contents."""
        return self.transform.describe(self.encode(style))

    def restyle(self, content: Tensor, styles: Sequence[StyleCode], weights: Sequence[float], alpha: float = 1.0) -> Tensor:
        """The content with a weighted mixture of encoded styles."""
        return self.render(self.encode(content), content.shape, styles, weights, alpha)

    def render(
        self,
        features: Tensor,
        shape: Sequence[int],
        styles: Sequence[StyleCode],
        weights: Sequence[float],
        alpha: float,
        own: StyleCode | None = None,
    ) -> Tensor:
        """The same from the features of a content of the given shape, which serve any number of styles.

        `own` is what the transform shall take for its survey of the content (a video's is smoothed over time).
        """
        mixed = mix(self.transform, features, styles, weights, own)
        return self.decode(blend(self.transform.unchanged(features), mixed, alpha), shape)

    def decode(self, features: Tensor, shape: Sequence[int]) -> Tensor:
        """Features as an image of the given [..., H, W].

        The encoder pools with ceiling, so that the decoder's image covers the input from its top left corner on:
        sides that are no multiple of 8 need a crop and no resampling.
        """
        return self.decoder(features)[..., : shape[-2], : shape[-1]]

    def stylise(self, content: Tensor, style: Tensor, style_taps: Sequence[str]) -> Stylised:
        """One training forward pass: t = AdaIN(f(c), f(s)) and g(t) (eq. 9 and 10)."""
        with torch.no_grad():
            content_features = self.encode(content)
            style_features = self.encoder(style, [*style_taps, self.tap])
            code = self.transform.describe(style_features[self.tap])
            aligned = self.transform.apply(content_features, code, None)
            # what is only concatenated is no target; there it is the AdaIN output, as for the paper's baseline
            target = aligned if self.transform.widening == 1 else adain(content_features, style_features[self.tap])
        return Stylised(self.decode(aligned, content.shape), target, content_features, style_features)

    def losses(self, stylised: Stylised, content: Tensor, style: Tensor, weights: LossWeights) -> dict[str, Tensor]:
        """The terms that have a weight, themselves unweighted: content, style and Gram per tap, total variation, identity."""
        output, target, _, style_features = stylised
        terms = {}
        if weights.needs_features:
            features = self.encoder(output, [*weights.taps, self.tap])
            if weights.content:
                terms["content"] = content_loss(features[self.tap], target)
            for tap in weights.taps:
                if weights.style:
                    terms[f"style/{tap}"] = style_loss(features[tap], style_features[tap], weights.reduction)
                if weights.gram:
                    terms[f"gram/{tap}"] = gram_loss(features[tap], style_features[tap])
        if weights.tv:
            terms["tv"] = total_variation(output)
        if weights.identity:
            terms["identity"] = self.identity_term(stylised, content, style)
        return terms

    def identity_term(self, stylised: Stylised, content: Tensor, style: Tensor) -> Tensor:
        """The identity loss of both images: each, restyled with itself, must come back.

        An image's features aligned with its own statistics are its features, so no transform is applied.
        """
        features = torch.cat([stylised.content_features, stylised.style_features[self.tap]])
        images = torch.cat([content, style])
        return identity_loss(self.decode(self.transform.unchanged(features), images.shape), images)
