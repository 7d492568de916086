"""All options of stylising by optimisation of the pixels (Gatys et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from stylenet.config.options import (
    Sections,
    option,
    require,
    require_not_negative,
    require_positive,
)
from stylenet.config.training import MAX_LR, MAX_SEED, TAP_PATTERN, TrackingConfig


@dataclass(frozen=True)
class NetworkConfig:
    """The frozen loss network."""

    name: Literal["vgg19", "vgg16"] = option("vgg19", "network")
    weights: str | None = option(
        None, "weights file; None: STYLENET_VGG19 or STYLENET_VGG16, else torchvision's download"
    )
    pooling: Literal["avg", "max"] = option(
        "avg", "pooling between the blocks; the paper finds average pooling more pleasing"
    )
    padding: Literal["reflect", "zeros", "circular"] = option(
        "reflect", "padding of the convolutions"
    )


@dataclass(frozen=True)
class LossConfig:
    """The objective: content, style and total variation.

    The terms of each layer are divided by the mean square of their target, so that they have no
    scale of their own.
    """

    content_taps: tuple[str, ...] = option(("relu4_2",), "layers of the content loss")
    content_tap_weights: tuple[float, ...] = option((), "weight of each; empty: 1 each")
    content_weight: float = option(1.0, "weight of the content loss")
    style_taps: tuple[str, ...] = option(
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"), "layers of the style loss"
    )
    style_tap_weights: tuple[float, ...] = option(
        (), "weight of each; empty: 1 over the number of layers, as in the paper"
    )
    style_statistic: Literal["gram", "mean_std", "sliced"] = option(
        "gram",
        "what is matched; gram: Gram matrices over the positions, mean_std: channel means and "
        "deviations, sliced: sliced Wasserstein distance",
    )
    style_weight: float = option(10.0, "weight of the style loss")
    tv_weight: float = option(0.0, "weight of the total variation")

    def __post_init__(self) -> None:
        require_not_negative(self, "loss", "content_weight", "style_weight", "tv_weight")
        require(
            self.content_weight + self.style_weight > 0,
            "loss.content_weight or loss.style_weight above 0",
            0,
        )
        for kind in ("content", "style"):
            taps, weights = getattr(self, f"{kind}_taps"), getattr(self, f"{kind}_tap_weights")
            for tap in taps:
                require(bool(TAP_PATTERN.fullmatch(tap)), f"loss.{kind}_taps such as relu4_2", tap)
            is_set = bool(taps) and len(taps) == len(set(taps))
            require(is_set, f"distinct taps in loss.{kind}_taps", list(taps))
            require(
                len(weights) in (0, len(taps)) and all(w >= 0 for w in weights),
                f"{len(taps)} weights of 0 or more in loss.{kind}_tap_weights, or none",
                list(weights),
            )


@dataclass(frozen=True)
class OptimConfig:
    """The course from the start to the picture."""

    name: Literal["lbfgs", "adam"] = option("lbfgs", "optimiser of the pixels")
    iterations: int = option(300, "iterations at the first size")
    fine_iterations: int = option(100, "iterations at each further size")
    lr: float = option(1.0, "step size: 1 suits lbfgs, .02 suits adam (pixels lie in [0, 1])")
    history: int = option(20, "past steps that lbfgs keeps, each 2 x the picture in float32")
    start: Literal["content", "noise", "style"] = option("content", "picture to begin with")
    seed: int = option(0, "seed of the noise")
    scales: tuple[int, ...] = option(
        (), "smaller shortest sides to go through first, ascending, pixels: for large pictures"
    )

    def __post_init__(self) -> None:
        require_positive(self, "optim", "iterations", "lr", "history")
        require_not_negative(self, "optim", "fine_iterations")
        require(self.lr < MAX_LR, f"optim.lr below {MAX_LR:g}", self.lr)
        require(0 <= self.seed < MAX_SEED, "optim.seed of 0 or more, below 2**63", self.seed)
        is_ascending = list(self.scales) == sorted(set(self.scales))
        require(
            is_ascending and all(px >= 16 for px in self.scales),
            "ascending optim.scales of 16 or more",
            list(self.scales),
        )


@dataclass(frozen=True)
class SnapshotConfig:
    """What is kept of the course. A course that is kept is also resumed."""

    dir: str | None = option(
        None, "folder with a folder for each picture: history.csv, snapshots, strip.png, state.pt"
    )
    every: int = option(50, "iterations between two snapshots and two printed lines")

    def __post_init__(self) -> None:
        require_positive(self, "snapshots", "every")


@dataclass(frozen=True)
class Optimisation(Sections):
    """All options of `stylize.py --method gatys`."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    snapshots: SnapshotConfig = field(default_factory=SnapshotConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
