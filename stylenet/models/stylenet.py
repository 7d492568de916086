"""StyleNet: encoder, feature transform and decoder, put together as the paper's figure 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stylenet.looks import Look
from stylenet.losses import (
    LossWeights,
    content_loss,
    gram_loss,
    identity_loss,
    normalised_content_loss,
    shift_loss,
    style_loss,
    total_variation,
)
from stylenet.models.vgg import VGG
from stylenet.transforms import FeatureTransform, StyleCode, adain, blend, mix


class Stylised(NamedTuple):
    """What a training step needs of a forward pass."""

    output: Tensor  # [R * N, 3, H, W], the decoded images: each of the N contents with R styles
    target: Tensor  # [R * N, C, h, w], the AdaIN output t that the decoder inverts: what the content loss compares with
    content_features: dict[str, Tensor]  # [N, C, h, w] at the tap and at those of the normalised content loss
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
        return self.stylise(content, Look((self.encode_style(style),), alpha=alpha))

    def encode(self, image: Tensor) -> Tensor:
        """The image's features at the tap."""
        return self.encoder(image, [self.tap])[self.tap]

    def encode_style(self, style: Tensor) -> StyleCode:
        """What the transform keeps of a style image. It serves any number of contents."""
        return self.style_code(self.encode(style))

    def style_code(self, features: Tensor) -> StyleCode:
        """The same from the style's features."""
        return self.transform.describe(features)

    @property
    def has_content_stats(self) -> bool:
        """Whether `content_stats` gives anything."""
        return self.transform.survey is not None

    def content_stats(self, features: Tensor) -> StyleCode | None:
        """What the transform measures of a whole content; None where it needs the whole content itself."""
        return self.transform.survey(features) if self.transform.survey else None

    def stylise(self, content: Tensor, look: Look) -> Tensor:
        """The content [N, 3, H, W] in a look."""
        return self.render(self.encode(content), content.shape, look)

    def render(self, features: Tensor, shape: Sequence[int], look: Look) -> Tensor:
        """The same from the features of a content of the given shape; they serve any number of looks."""
        return self.decode(self.align(features, look), shape)

    def align(self, features: Tensor, look: Look) -> Tensor:
        """Content features brought to the look: aligned with each style, mixed, blended with what they were."""
        mixed = mix(self.transform, features, look.codes, look.mixture, look.content_stats)
        return blend(self.transform.unchanged(features), mixed, look.alpha)

    def decode(self, features: Tensor, shape: Sequence[int]) -> Tensor:
        """Features as an image of the given [..., H, W].

        The encoder pools with ceiling, so that the decoder's image covers the input from its top left corner on:
        sides that are no multiple of 8 need a crop and no resampling.
        """
        return self.decoder(features)[..., : shape[-2], : shape[-1]]

    def learn(self, content: Tensor, style: Tensor, weights: LossWeights, n_styles: int = 1) -> Stylised:
        """One training forward pass: t = AdaIN(f(c), f(s)) and g(t) (eq. 9 and 10), with what the weighted terms need.

        Each content meets `n_styles` of the batch's styles: its own, the next one's, and so on.
        """
        content_features, style_features = self.observe(content, style, weights)
        with torch.no_grad():
            contents, styles = repeated(content_features[self.tap], n_styles), rolled(style_features[self.tap], n_styles)
            aligned = self.transform.apply(contents, self.transform.describe(styles), None)
            # what is only concatenated is no target; there it is the AdaIN output, as for the paper's baseline
            target = aligned if self.transform.widening == 1 else adain(contents, styles)
        return Stylised(self.decode(aligned, content.shape), target, content_features, style_features)

    @torch.no_grad()
    def observe(self, content: Tensor, style: Tensor, weights: LossWeights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the objective compares with: the features of content and style, at the tap and at those of their terms."""
        return self.encoder(content, [*weights.content_taps, self.tap]), self.encoder(style, [*weights.taps, self.tap])

    def losses(
        self, stylised: Stylised, content: Tensor, style: Tensor, weights: LossWeights, shift: tuple[int, int] = (1, 2)
    ) -> dict[str, Tensor]:
        """The terms that have a weight, themselves unweighted: content, style and Gram per tap, total variation, identity, shift."""
        output, target, content_features, style_features = stylised
        n_styles = len(output) // len(content)
        terms = {}
        if weights.needs_features:
            features = self.encoder(output, [*weights.taps, *weights.content_taps, self.tap])
            if weights.content:
                terms["content"] = content_loss(features[self.tap], target)
            if weights.content_norm:
                pairs = [(features[tap], repeated(content_features[tap], n_styles)) for tap in weights.content_taps]
                terms["content_norm"] = torch.stack([normalised_content_loss(*pair) for pair in pairs]).mean()
            for tap in weights.taps:
                wanted = rolled(style_features[tap], n_styles)
                if weights.style:
                    terms[f"style/{tap}"] = style_loss(features[tap], wanted, weights.reduction, weights.balance)
                if weights.gram:
                    terms[f"gram/{tap}"] = gram_loss(features[tap], wanted)
        if weights.tv:
            terms["tv"] = total_variation(output)
        if weights.identity:
            terms["identity"] = self.identity_term(stylised, content, style)
        if weights.shift:
            terms["shift"] = shift_loss(output[: len(content)], self(content.roll(shift, (2, 3)), style), shift)
        return terms

    def identity_term(self, stylised: Stylised, content: Tensor, style: Tensor) -> Tensor:
        """The identity loss of both images: each, restyled with itself, must come back.

        An image's features aligned with its own statistics are its features, so no transform is applied.
        """
        features = torch.cat([stylised.content_features[self.tap], stylised.style_features[self.tap]])
        images = torch.cat([content, style])
        return identity_loss(self.decode(self.transform.unchanged(features), images.shape), images)


def repeated(contents: Tensor, times: int) -> Tensor:
    """The batch over and over, [N, C, H, W] -> [times * N, C, H, W]."""
    return contents.repeat(times, 1, 1, 1) if times > 1 else contents


def rolled(styles: Tensor, times: int) -> Tensor:
    """The batch over and over, each time moved on by one, so that `repeated` contents meet other styles."""
    return torch.cat([styles.roll(-k, 0) for k in range(times)]) if times > 1 else styles
