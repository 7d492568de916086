"""All options of an evaluation."""

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
from stylenet.config.training import TAP_PATTERN, TrackingConfig
from stylenet.metrics.catalogue import CATALOGUE


@dataclass(frozen=True)
class PairsConfig:
    """The choice of content-style pairs."""

    contents: int = option(0, "contents drawn from the set; 0: all")
    styles: int = option(0, "styles drawn from the set; 0: all")
    n: int = option(
        0,
        "pairs drawn from these contents x styles, each image equally often; 0: all",
    )
    seed: int = option(0, "seed of the draws")
    list: str | None = option(
        None, "CSV with the columns content and style (paths below the sets); replaces the draw"
    )
    held_out: float = option(
        0.0,
        "share of a folder: only the images that train.py keeps from training with the same "
        "data.held_out; 0: all images",
    )

    def __post_init__(self) -> None:
        require_not_negative(self, "pairs", "contents", "styles", "n", "seed")
        require(0 <= self.held_out < 1, "pairs.held_out in [0, 1)", self.held_out)


@dataclass(frozen=True)
class ImagesConfig:
    """How a picture reaches the model and the metrics.

    Outputs are judged as 8-bit pictures, as a PNG would hold them.
    """

    resize_px: int = option(512, "shortest side of contents and styles, pixels")
    filter: Literal["bilinear", "bicubic", "lanczos"] = option(
        "bilinear", "Pillow's filter for the resizing, antialiased when shrinking"
    )
    crop: Literal["centre", "none"] = option(
        "centre", "centre: cut the square from the middle; none: keep the whole picture"
    )

    def __post_init__(self) -> None:
        # Four poolings on the way to relu5_1 turn 16 pixels into one.
        require(self.resize_px >= 16, "images.resize_px of 16 or more", self.resize_px)


@dataclass(frozen=True)
class JudgeConfig:
    """The VGG behind the content, style, Gram, CFSD and VGG Fréchet metrics."""

    name: Literal["vgg19", "vgg16"] = option("vgg19", "network")
    weights: str | None = option(
        None, "weights file; None: STYLENET_VGG19 or STYLENET_VGG16, else torchvision's download"
    )
    calibrate: Literal["auto", "yes", "no"] = option(
        "auto",
        "scale channels to mean activation 1 over the evaluated pictures; auto: unless the file "
        "is already normalised",
    )
    padding: Literal["reflect", "zeros", "circular"] = option(
        "reflect", "padding of the convolutions"
    )
    channel_order: Literal["rgb", "bgr"] = option(
        "rgb", "channel order of the network's input; bgr repeats a known mistake of other scripts"
    )


@dataclass(frozen=True)
class MetricsConfig:
    """The metrics to compute, and the choices within each formula."""

    names: tuple[str, ...] = option(tuple(CATALOGUE), "metrics to compute")
    content_taps: tuple[str, ...] = option(
        ("relu4_1",), "layers of the content losses; the mean over them is reported too"
    )
    style_taps: tuple[str, ...] = option(
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
        "layers of the style losses and Gram distance; the mean over them is reported too",
    )
    style_reduction: Literal["mean", "sum"] = option(
        "mean", "reduction of the style loss over channels"
    )
    target_tap: str = option(
        "relu4_1",
        "layer of `target`: the distance to the AdaIN output, as in the content loss of training",
    )
    ssim_window: Literal["gaussian", "uniform"] = option(
        "gaussian", "gaussian: 11x11 on colours; uniform: 7x7 on grey"
    )
    lpips_net: Literal["alex", "vgg"] = option("alex", "backbone of LPIPS")
    cfsd_tap: str = option("relu3_1", "layer of CFSD")
    cfsd_px: int = option(256, "shortest side for CFSD, pixels; 0: the pictures' own")
    cfsd_reduction: Literal["mean", "sum"] = option(
        "mean",
        "reduction of CFSD over positions; the reference sums, so its value grows with the size",
    )
    colour_bins: int = option(8, "bins per channel of the colour histograms")
    frechet_tap: str = option(
        "relu4_1", "layer whose channel means `vgg_frechet` compares (not FID)"
    )
    kid_subsets: int = option(100, "random subsets for KID")
    kid_subset_size: int = option(50, "vectors in each subset of KID, at most as many as there are")
    bootstrap: int = option(2000, "resamples for the 95 % intervals over pairs")
    timing_rounds: int = option(5, "timed passes; the latency is their median")

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in CATALOGUE]
        require(not unknown, f"metrics.names out of {', '.join(CATALOGUE)}", ", ".join(unknown))
        require(bool(self.names), "at least one of metrics.names", list(self.names))
        for tap in (
            *self.content_taps,
            *self.style_taps,
            self.target_tap,
            self.cfsd_tap,
            self.frechet_tap,
        ):
            require(bool(TAP_PATTERN.fullmatch(tap)), "taps such as relu4_1 in metrics.*", tap)
        require(
            bool(self.content_taps and self.style_taps),
            "at least one tap in metrics.content_taps and style_taps",
            0,
        )
        require_positive(
            self, "metrics", "colour_bins", "kid_subsets", "bootstrap", "timing_rounds"
        )
        require_not_negative(self, "metrics", "cfsd_px")  # 0 keeps the pictures' size
        # The unbiased estimate divides by n - 1.
        require(self.kid_subset_size > 1, "metrics.kid_subset_size above 1", self.kid_subset_size)


@dataclass(frozen=True)
class NetworksConfig:
    """The networks of LPIPS, FID and ArtFID.

    Each file is the named one, else the one in torch's cache, else a download. stylenet checks its
    sha256.
    """

    lpips: str | None = option(
        None,
        "backbone of LPIPS: torchvision's alexnet-owt-7be5be79.pth or vgg16-397923af.pth, or "
        "AlexNet's convolutions alone (sha256 1454cf62...)",
    )
    inception: str | None = option(
        None, "Inception of FID and KID, torch-fidelity's weights-inception-2015-12-05-6726825d.pth"
    )
    art_inception: str | None = option(
        None,
        "Inception of ArtFID, art-fid's art_inception.pth; never downloaded, since no hash is "
        "known",
    )
    download: bool = option(True, "download files that are neither named nor in the cache")


@dataclass(frozen=True)
class OracleConfig:
    """Pixels optimised for one pair, as Gatys does.

    The objective is the one of feed-forward training.
    """

    iterations: int = option(100, "steps of Adam, from the content image")
    lr: float = option(0.05, "learning rate of Adam, in units of pixel values in [0, 1]")
    style_weight: float = option(
        10.0,
        "weight of the style loss, summed over metrics.style_taps; the content loss has weight 1",
    )

    def __post_init__(self) -> None:
        require_positive(self, "oracle", "iterations", "lr", "style_weight")


@dataclass(frozen=True)
class Protocol(Sections):
    """All options of an evaluation.

    A card in configs/protocols fixes everything that changes a number.
    """

    pairs: PairsConfig = field(default_factory=PairsConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    oracle: OracleConfig = field(default_factory=OracleConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
