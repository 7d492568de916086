"""Stylising by optimising pixels, without a trained network (Gatys et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stylenet import build, runtime
from stylenet.errors import NonFiniteLossError
from stylenet.looks import shares_of
from stylenet.losses import LossWeights, effective_weight, weighted_total
from stylenet.models.learning import Observed
from stylenet.models.vgg_files import sha256_of_encoder
from stylenet.objective import Objective, mixed

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "lbfgs": lambda pixels, lr, history: torch.optim.LBFGS(
        [pixels], lr=lr, max_iter=1, history_size=history
    ),
    "adam": lambda pixels, lr, history: torch.optim.Adam([pixels], lr=lr),
}


class Iterate(NamedTuple):
    """The picture after some iterations, and its losses."""

    iteration: int
    pixels: Tensor  # [1, 3, H, W] in [0, 1]
    terms: dict[str, float]  # the objective's, unweighted
    total: float


class Course:
    """One optimisation of pixels: iterate over it; between two iterates it can be stored.

    The pixels are clipped to [0, 1] after each step. An iteration is one step of the optimiser, and
    evaluates the objective once. The optimiser sees the objective over its first value: the first
    step of L-BFGS depends on the scale, and a large one never recovers.
    """

    def __init__(
        self,
        objective: Objective,
        seen: Observed,
        start: Tensor,
        name: str = "adam",
        lr: float = 0.05,
        history: int = 20,
    ) -> None:
        """`start` [1, 3, H, W] in [0, 1]; `history`: the past steps that L-BFGS keeps."""
        self.objective, self.seen, self.iteration, self.scale = objective, seen, 0, 0.0
        self.pixels = start.detach().clone().requires_grad_()
        self.optimizer = OPTIMISERS[name](self.pixels, lr, history)

    def iterates(self, n_iterations: int) -> Iterator[Iterate]:
        """The picture after 0, 1, … `n_iterations` iterations, from the stored one on.

        Raises NonFiniteLossError.
        """
        while self.iteration < n_iterations:
            before, evaluations = self.pixels.detach().clone(), []

            def closure(evaluations: list[dict[str, Tensor]] = evaluations) -> Tensor:
                self.optimizer.zero_grad(set_to_none=True)
                terms = self.objective.terms(self.pixels, self.seen)
                total = weighted_total(terms, self.objective.weights)
                self.scale = self.scale or total.item() or 1.0
                (total / self.scale).backward()
                evaluations.append(terms)
                return total / self.scale

            self.optimizer.step(closure)
            with torch.no_grad():
                self.pixels.clamp_(0, 1)
            self.iteration += 1
            yield self.iterate(self.iteration - 1, before, evaluations[0])
        with torch.no_grad():
            pixels = self.pixels.detach().clone()
            yield self.iterate(self.iteration, pixels, self.objective.terms(pixels, self.seen))

    def iterate(self, iteration: int, pixels: Tensor, terms: dict[str, Tensor]) -> Iterate:
        """An iterate, of finite losses."""
        values = {name: value.item() for name, value in terms.items()}
        weights = self.objective.weights
        total = sum(effective_weight(name, weights) * value for name, value in values.items())
        if not math.isfinite(total):
            raise NonFiniteLossError(
                f"expected finite losses, but {total} came after {iteration} iterations; lower "
                "optim.lr"
            )
        return Iterate(iteration, pixels, values, total)

    def state(self) -> dict[str, Any]:
        """What `load` needs to continue from here."""
        return {
            "iteration": self.iteration,
            "scale": self.scale,
            "pixels": self.pixels.detach().cpu(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a stored state."""
        self.iteration, self.scale = state["iteration"], state["scale"]
        with torch.no_grad():
            self.pixels.copy_(state["pixels"])
        self.optimizer.load_state_dict(state["optimizer"])


class Gatys:
    """Pictures by optimisation of their pixels: a frozen loss network and a configuration.

    ::

        gatys = Gatys.load("configs/gatys.yaml", ["network.name=vgg16"])
        picture = gatys(content, style)  # tensors [1, 3, H, W] in [0, 1]
    """

    def __init__(self, objective: Objective, options: Any, device: torch.device) -> None:
        """`options` is the section `optim` of an Optimisation."""
        self.objective, self.options, self.device = objective, options, device

    @property
    def sha256(self) -> str:
        """The sha256 of the loss network's weights."""
        return sha256_of_encoder(self.objective.teacher, self.objective.teacher.reach)

    @classmethod
    def load(
        cls, path: str | None = None, overrides: Sequence[str] = (), device: str = "auto"
    ) -> Gatys:
        """From a YAML file, or the defaults, with `key=value` overrides.

        Raises UsageError and WeightsError.
        """
        return cls.make(build.read_optimisation(path, overrides), device)

    @classmethod
    def make(cls, config: Any, device: str = "auto") -> Gatys:
        """From an Optimisation."""
        chosen = runtime.pick_device(device)
        return cls(build.make_pixel_objective(config, chosen), config.optim, chosen)

    def __call__(
        self, content: Tensor, *styles: Tensor, mixture: Sequence[float] | None = None
    ) -> Tensor:
        """The content [1, 3, H, W] in the style of the styles [1, 3, h, w], all in [0, 1].

        It is the iterate of the smallest total loss at the full size.
        """
        shares = shares_of(mixture, len(styles))
        picture = None
        for px in self.sizes(content):
            course = self.course(content, styles, shares, px, picture)
            iterates = course.iterates(self.n_iterations(is_first=picture is None))
            picture = min(iterates, key=lambda iterate: iterate.total).pixels
        return picture.cpu()

    def sizes(self, content: Tensor) -> list[int]:
        """The shortest sides to go through, up to the content's own."""
        full_px = min(content.shape[-2:])
        return [*(px for px in self.options.scales if px < full_px), full_px]

    def n_iterations(self, is_first: bool) -> int:
        """The iterations at a size."""
        return self.options.iterations if is_first else self.options.fine_iterations

    def course(
        self,
        content: Tensor,
        styles: Sequence[Tensor],
        shares: Sequence[float],
        px: int,
        picture: Tensor | None,
    ) -> Course:
        """The optimisation at one size, from the smaller picture on; styles shrink alike."""
        factor = px / min(content.shape[-2:])
        small = scaled(content, factor).to(self.device)
        small_styles = [scaled(style, factor).to(self.device) for style in styles]
        observe, options = self.objective.observe, self.options
        seen = mixed([observe(small, style) for style in small_styles], shares)
        start = self.start(small, small_styles[0]) if picture is None else enlarged(picture, small)
        objective = relative(self.objective, seen)
        return Course(objective, seen, start, options.name, options.lr, options.history)

    def start(self, content: Tensor, style: Tensor) -> Tensor:
        """The first picture: the content, white noise, or the style at the content's size."""
        if self.options.start == "noise":
            generator = torch.Generator().manual_seed(self.options.seed)
            return torch.rand(content.shape, generator=generator).to(content)
        return enlarged(style, content) if self.options.start == "style" else content


def relative(objective: Objective, seen: Observed) -> Objective:
    """The objective whose terms are divided by the mean square of what they aim at.

    So a layer counts by its weight alone, whatever the scale of its activations in the file at
    hand. Gatys et al. scale the network for that.
    """
    weights = objective.weights
    targets: dict[str, tuple[Tensor, ...]] = {
        tap: (
            *((seen.style_grams[tap],) if weights.gram else ()),
            *(seen.style_stats[tap] if weights.style else ()),
            *((seen.style_slices[tap],) if weights.sliced else ()),
        )
        for tap in weights.taps
    }
    contents = {tap: (seen.content_features[tap],) for tap in weights.feature_taps}
    return Objective(
        objective.teacher,
        objective.tap,
        objective.transform,
        weights._replace(
            taps=divided(weights.taps, targets),
            feature_taps=divided(weights.feature_taps, contents) if weights.features else {},
        ),
    )


def divided(
    taps: Mapping[str, float], targets: Mapping[str, tuple[Tensor, ...]]
) -> dict[str, float]:
    """The weights over the mean squares of the targets, which sum over a target's parts."""
    squares = {
        tap: sum(part.square().mean().item() for part in parts) for tap, parts in targets.items()
    }
    # a layer without any activation weighs nothing rather than infinitely much
    return {
        tap: weight / square if (square := squares.get(tap)) else 0.0
        for tap, weight in taps.items()
    }


def scaled(image: Tensor, factor: float) -> Tensor:
    """The image at another size, [1, 3, H, W]; unchanged by a factor of 1."""
    if factor == 1:
        return image
    size = [max(1, round(side * factor)) for side in image.shape[-2:]]
    return F.interpolate(image, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def enlarged(image: Tensor, like: Tensor) -> Tensor:
    """The image at another one's size."""
    size = like.shape[-2:]
    return F.interpolate(image.to(like), size=size, mode="bilinear", antialias=True).clamp(0, 1)


def split_losses(terms: dict[str, float], weights: LossWeights) -> dict[str, float]:
    """The weighted content, style and total variation losses of an iterate."""
    sums = {"content": 0.0, "style": 0.0, "tv": 0.0}
    for name, value in terms.items():
        kind = name.partition("/")[0]
        part = "content" if kind in ("content", "features") else "tv" if kind == "tv" else "style"
        sums[part] += effective_weight(name, weights) * value
    return sums
