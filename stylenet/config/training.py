"""All options of a training run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Literal

from stylenet.config.options import (
    Sections,
    option,
    require,
    require_not_negative,
    require_positive,
)

TAP_PATTERN = re.compile(r"relu[1-5]_[1-4]")  # VGG-16 lacks some: the network checks its own


MAX_LR = 1e36  # float32 ends at 3e38
MAX_SEED = 2**63


@dataclass(frozen=True)
class RunConfig:
    """The folder, the seed and the device of a run."""

    dir: str = option(
        "runs/default",
        "folder of the run: config, checkpoints, samples, released model; {id} stands for the W&B "
        "run's id",
    )
    seed: int = option(0, "seed of the decoder's start weights, the sampler and every augmentation")
    device: str = option(
        "auto", "auto (cuda, else mps, else cpu), or a torch device such as cpu or cuda:1"
    )

    def __post_init__(self) -> None:
        require(0 <= self.seed < MAX_SEED, "run.seed of 0 or more, below 2**63", self.seed)
        require(bool(self.dir.strip()), "a folder as run.dir", self.dir)


@dataclass(frozen=True)
class DataConfig:
    """Images and how they reach the network."""

    content: str | None = option(
        None,
        "content images: a folder, read recursively, a manifest written by data/prepare.py, or "
        "shards such as shards/{000..099}.tar",
    )
    style: str | None = option(
        None, "style images: a folder, a manifest, a single picture, or shards"
    )
    batch_size: int = option(8, "content-style pairs per step, in each process")
    crop_px: int = option(256, "side of the random square crop, pixels")
    resize_px: int = option(
        512, "shortest side before the crop, pixels; with data.scales: the largest one stored"
    )
    scales: tuple[int, ...] = option(
        (),
        "shortest sides, pixels: each sample draws one, never above its picture's own; "
        "empty: always resize_px, even if that enlarges",
    )
    flip: bool = option(False, "mirror half of the images left to right (the paper does not)")
    workers: int = option(4, "loader processes; with a cache: threads that decode the images once")
    cache: Literal["none", "ram", "device"] = option(
        "none",
        "where resized images are kept as uint8; none: nowhere, ram: in memory, device: on the GPU",
    )
    held_out: float = option(
        0.02, "share of a folder's images kept for validation (a manifest has its own split)"
    )
    max_bad: float = option(
        0.05, "share of unreadable images above which training stops; one is always allowed"
    )

    def __post_init__(self) -> None:
        require_positive(self, "data", "batch_size", "crop_px", "resize_px")
        require_not_negative(self, "data", "workers", "max_bad")
        require(0 <= self.held_out < 1, "data.held_out in [0, 1)", self.held_out)
        require(
            self.crop_px <= self.resize_px,
            f"data.crop_px of at most data.resize_px={self.resize_px}",
            self.crop_px,
        )
        # Above resize_px a stored image would be enlarged; below crop_px no crop would fit.
        expected = (
            f"data.scales from data.crop_px={self.crop_px} to data.resize_px={self.resize_px}"
        )
        require(
            all(self.crop_px <= scale <= self.resize_px for scale in self.scales),
            expected,
            list(self.scales),
        )


@dataclass(frozen=True)
class ModelConfig:
    """Which network is trained."""

    name: Literal["vgg", "compact", "johnson", "fusion"] = option(
        "vgg",
        "vgg: a decoder behind the frozen VGG (the paper); compact: a small network without it, "
        "which learns from the VGG; johnson: a network for one style; fusion: two encoders, a "
        "fusion and a decoder",
    )
    channels: tuple[int, ...] = option(
        (32, 64, 128),
        "compact: channels at 1/2, 1/4 and 1/8 of the size; johnson, fusion: at 1, 1/2 and 1/4",
    )
    blocks: int = option(
        4,
        "compact: residual blocks at 1/8 of the size, encoder and decoder together; johnson, "
        "fusion: at 1/4",
    )
    encoder_blocks: int = option(1, "compact: how many of model.blocks belong to the encoder")
    fusion: Literal["adain", "concat", "attention"] = option(
        "adain", "fusion: how a content's features meet a style's"
    )
    antialias: bool = option(
        False, "compact: blur before each stride and upsample bilinearly, against grid patterns"
    )

    def __post_init__(self) -> None:
        require(
            len(self.channels) == 3 and min(self.channels) > 0,
            "three numbers as model.channels",
            list(self.channels),
        )
        require_positive(self, "model", "blocks", "encoder_blocks")
        require(
            self.encoder_blocks <= self.blocks,
            f"model.encoder_blocks of at most model.blocks={self.blocks}",
            self.encoder_blocks,
        )


@dataclass(frozen=True)
class EncoderConfig:
    """The frozen VGG: the encoder of the network and of the losses.

    A compact network uses it for the losses only.
    """

    name: Literal["vgg19", "vgg16"] = option("vgg19", "network")
    weights: str | None = option(
        None, "weights file; None: STYLENET_VGG19 or STYLENET_VGG16, else torchvision's download"
    )
    tap: str = option("relu4_1", "layer where features are aligned and where the decoder starts")
    padding: Literal["reflect", "zeros", "circular"] = option(
        "reflect", "padding of the convolutions"
    )
    pooling: Literal["max", "avg"] = option("max", "pooling between the blocks")
    calibrate: bool = option(
        True,
        "rescale every channel to mean activation 1 over the training images (Gatys); fine-tuning "
        "keeps the model's calibration",
    )
    calibrate_images: int = option(256, "images for the calibration, half contents and half styles")

    def __post_init__(self) -> None:
        require(bool(TAP_PATTERN.fullmatch(self.tap)), "encoder.tap such as relu4_1", self.tap)
        require(
            self.calibrate_images >= 2,
            "encoder.calibrate_images of 2 or more",
            self.calibrate_images,
        )


@dataclass(frozen=True)
class TransformConfig:
    """The transform that aligns the content's features with the style's."""

    name: Literal["adain", "mean", "std", "none", "efdm", "histogram", "wct", "concat"] = option(
        "adain",
        "adain (the paper), or an alternative for ablations; the content loss compares with its "
        "output",
    )


@dataclass(frozen=True)
class DecoderConfig:
    """The learned mirror of the encoder."""

    norm: Literal["none", "instance", "batch"] = option(
        "none",
        "normalisation after each convolution (AdaIN's paper: none; johnson: batch in its paper, "
        "instance in Ulyanov's)",
    )
    padding: Literal["reflect", "zeros", "circular"] = option(
        "reflect", "padding of the convolutions"
    )
    upsampling: Literal["nearest", "bilinear", "transposed"] = option(
        "nearest",
        "upsampling in place of the encoder's pooling; transposed: johnson's transposed "
        "convolution",
    )
    init: Literal["uniform", "he"] = option(
        "uniform", "start weights; uniform: as the known implementations, he: learns sooner"
    )


# of the losses that need passes of their own: loss.lazy_every_steps
LAZY_WEIGHTS = {"identity_weight", "identity_feature_weight", "shift_weight", "motion_weight"}


@dataclass(frozen=True)
class LossConfig:
    """The objective: a weighted sum of content, style and optional terms.

    It is content_weight * content + style_weight * sum of style over taps + the optional terms.
    """

    content_weight: float = option(
        1.0, "weight of the content loss, which compares with the AdaIN output"
    )
    style_weight: float = option(
        10.0, "weight of the style loss; its scale depends on loss.style_reduction"
    )
    style_taps: tuple[str, ...] = option(
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1"), "layers of the style and Gram losses"
    )
    style_tap_weights: tuple[float, ...] = option((), "weight of each style tap; empty: 1 each")
    style_reduction: Literal["mean", "sum"] = option(
        "mean", "reduction over channels; mean: as pytorch-AdaIN, sum: as the Lua original"
    )
    style_balance: float = option(
        0.0,
        "share of the style loss that divides each sample by its own magnitude, 0 to 1; pale "
        "styles then count as much",
    )
    gram_balance: float = option(
        0.0, "share of the Gram loss that divides each sample by its style's magnitude, 0 to 1"
    )
    content_norm_weight: float = option(
        0.0, "weight of the content loss on features normalised per channel"
    )
    content_norm_taps: tuple[str, ...] = option(
        ("relu3_1", "relu4_1"), "layers of the normalised content loss"
    )
    feature_weight: float = option(
        0.0,
        "weight of the content loss against the content's own features, as Gatys and Johnson have "
        "it",
    )
    feature_taps: tuple[str, ...] = option(("relu4_1",), "layers of that loss")
    gram_weight: float = option(0.0, "weight of the Gram loss over the style taps")
    sliced_weight: float = option(
        0.0, "weight of the sliced Wasserstein loss over the style taps: whole distributions"
    )
    tv_weight: float = option(0.0, "weight of the output's total variation")
    identity_weight: float = option(
        0.0, "weight of the identity loss: an image stylised with itself must not change"
    )
    identity_feature_weight: float = option(
        0.0,
        "weight of the same on the contents' normalised features, at the layers of "
        "loss.content_norm_taps (Park & Lee 2019 compare both)",
    )
    shift_weight: float = option(
        0.0,
        "weight of the shift loss: if the content moves by some pixels, the output must follow",
    )
    motion_weight: float = option(
        0.0,
        "weight of the motion loss: if the content moves, brightens and gets noisy as in a clip, "
        "the output must follow the motion alone",
    )
    lazy_every_steps: int = option(
        1,
        "the identity, shift and motion terms count in every so many-th step, as many times over "
        "(lazy regularisation, Karras et al. 2020): they cost passes of their own",
    )
    adversarial_weight: float = option(
        0.0, "weight of the adversarial loss: a critic compares outputs with crops of the style set"
    )

    def __post_init__(self) -> None:
        # Every term of the objective has a field that ends so; a new one is checked as well.
        weights = [f.name for f in dataclasses.fields(self) if f.name.endswith("_weight")]
        require_not_negative(self, "loss", *weights)
        for name in ("style_taps", "content_norm_taps", "feature_taps"):
            for tap in getattr(self, name):
                require(
                    bool(TAP_PATTERN.fullmatch(tap)), f"loss.{name} such as [relu1_1, relu4_1]", tap
                )
        require(0 <= self.style_balance <= 1, "loss.style_balance in [0, 1]", self.style_balance)
        require(0 <= self.gram_balance <= 1, "loss.gram_balance in [0, 1]", self.gram_balance)
        require(
            bool(self.content_norm_taps),
            "at least one tap in loss.content_norm_taps",
            list(self.content_norm_taps),
        )
        # validation has no critic
        own = set(weights) - {"adversarial_weight"}
        require(any(getattr(self, name) for name in own), "at least one loss weight above 0", 0)
        require_positive(self, "loss", "lazy_every_steps")
        is_lazy_alone = not any(getattr(self, name) for name in set(weights) - LAZY_WEIGHTS)
        require(
            self.lazy_every_steps == 1 or not is_lazy_alone,
            "loss.lazy_every_steps of 1, or a weight above 0 of a loss that every step has",
            self.lazy_every_steps,
        )
        n_taps, n_weights = len(self.style_taps), len(self.style_tap_weights)
        require(n_taps > 0, "at least one tap in loss.style_taps", list(self.style_taps))
        require(
            n_taps == len(set(self.style_taps)),
            "each tap once in loss.style_taps",
            list(self.style_taps),
        )
        require(
            n_weights in (0, n_taps),
            f"{n_taps} loss.style_tap_weights, one per tap, or none",
            list(self.style_tap_weights),
        )
        require(
            all(w >= 0 for w in self.style_tap_weights),
            "loss.style_tap_weights of 0 or more",
            list(self.style_tap_weights),
        )


@dataclass(frozen=True)
class CriticConfig:
    """The critic of the adversarial loss, and how it learns."""

    channels: int = option(32, "channels of its first layer")
    lr: float = option(2e-4, "learning rate of its Adam, constant")
    r1_weight: float = option(0.0, "weight of the penalty on its gradient at paintings (R1)")

    def __post_init__(self) -> None:
        require_positive(self, "critic", "channels", "lr")
        require_not_negative(self, "critic", "r1_weight")


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser and its learning rate."""

    name: Literal["adam", "muon"] = option(
        "adam", "muon: Muon for kernels, Adam for the rest; the compact network learns faster"
    )
    lr: float = option(1e-4, "learning rate before the schedule")
    lr_schedule: Literal["inverse", "cosine", "constant"] = option(
        "inverse", "inverse: lr / (1 + lr_decay * t); cosine: to 0 at train.steps"
    )
    lr_decay: float = option(5e-5, "decay of the inverse schedule, per step")
    warmup_steps: int = option(0, "steps over which the rate rises linearly from 0")
    clip_norm: float | None = option(None, "largest gradient norm; None: no clipping")
    ema_decay: float | None = option(
        None, "decay of the averaged decoder weights, such as 0.999; None: no average"
    )

    def __post_init__(self) -> None:
        require_positive(self, "optim", "lr")
        require(self.lr < MAX_LR, f"optim.lr below {MAX_LR:g}", self.lr)
        require_not_negative(self, "optim", "lr_decay", "warmup_steps")
        require(
            self.clip_norm is None or self.clip_norm > 0,
            "optim.clip_norm above 0 or None",
            self.clip_norm,
        )
        require(
            self.ema_decay is None or 0 < self.ema_decay < 1,
            "optim.ema_decay between 0 and 1 or None",
            self.ema_decay,
        )


@dataclass(frozen=True)
class TrainConfig:
    """Length, arithmetic and starting point of the training."""

    steps: int = option(160_000, "total number of optimiser steps")
    accumulate: int = option(1, "batches whose gradients are averaged for one step")
    styles_per_content: int = option(
        1, "styles of the batch that meet each content in a step; more of them save encoder passes"
    )
    precision: Literal["fp32", "bf16", "fp16"] = option(
        "fp32", "arithmetic of the convolutions; fp16 uses a loss scaler"
    )
    tf32: bool = option(True, "allow TF32 in float32 convolutions on the GPU")
    channels_last: bool = option(True, "use the channels-last memory layout in the networks")
    compile: bool = option(False, "torch.compile the encoder and the decoder")
    init_from: str | None = option(
        None,
        "fine-tune the decoder of a model.safetensors, checkpoint, run folder or pytorch-AdaIN "
        "(decoder.pth)",
    )
    freeze: tuple[str, ...] = option(
        (),
        "layers that keep their weights, such as [conv4_1, conv3_4]; of other networks than vgg "
        "their parts, such as [to_half]",
    )
    adapter_rank: int = option(
        0,
        "rank of low-rank adapters of train.init_from; only they are trained and released, as a "
        "small file for --model BASE+ADAPTER; 0: none",
    )
    patience: int = option(
        0,
        "validations without a better total after which training ends, with the best model; 0: "
        "train to the last step",
    )
    log_every_steps: int = option(10, "steps between two logged lines")

    def __post_init__(self) -> None:
        require_positive(
            self, "train", "steps", "accumulate", "styles_per_content", "log_every_steps"
        )
        require_not_negative(self, "train", "adapter_rank", "patience")
        require(
            bool(self.init_from) or not self.adapter_rank,
            "train.init_from beside train.adapter_rank, since adapters change a trained model",
            self.init_from,
        )


@dataclass(frozen=True)
class ValConfig:
    """Held-out pairs: their losses and the grid of pictures."""

    every_steps: int = option(1000, "steps between two validations; there is always one at the end")
    pairs: int = option(32, "held-out pairs whose losses are averaged")
    grid_pairs: int = option(6, "held-out pairs in the grid of pictures")
    alphas: tuple[float, ...] = option((0.25, 0.5, 0.75, 1.0), "strengths shown in the grid")

    def __post_init__(self) -> None:
        require_positive(self, "val", "every_steps", "pairs", "grid_pairs")
        require(all(0 <= a <= 1 for a in self.alphas), "val.alphas in [0, 1]", list(self.alphas))


@dataclass(frozen=True)
class CheckpointConfig:
    """What a run saves: checkpoints and the released model."""

    every_steps: int = option(
        1000, "steps between two checkpoints; there is always one at the end and on a stop"
    )
    keep: int = option(3, "newest checkpoints to keep, besides the best by validation loss")
    release_dtype: Literal["fp32", "fp16"] = option(
        "fp32", "number format of the released model; fp16 halves the file"
    )
    release_name: str | None = option(
        None, "name and version of the released model, such as compact-1"
    )
    carry_encoder: bool = option(
        True, "put the encoder into the released model, so that it needs no other file"
    )

    def __post_init__(self) -> None:
        require_positive(self, "checkpoint", "every_steps", "keep")


@dataclass(frozen=True)
class TrackingConfig:
    """Tracking by Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = option(
        "auto", "auto: WANDB_MODE, else online where an API key is configured, else offline"
    )
    project: str | None = option(None, "W&B project; None: WANDB_PROJECT, else stylenet")
    entity: str | None = option(None, "W&B user or team; None: WANDB_ENTITY, else the account's")
    name: str | None = option(None, "name of the run; None: WANDB_NAME, else the run folder's")
    group: str | None = option(None, "W&B group, as of an ablation; None: WANDB_RUN_GROUP")
    tags: tuple[str, ...] = option((), "W&B tags; none: WANDB_TAGS, separated by commas")
    notes: str | None = option(None, "W&B notes")
    artifacts: Literal["final", "all", "none"] = option(
        "final", "checkpoints logged as artifacts; final: latest and best at the end, all: each one"
    )
    init_timeout_s: float = option(
        60.0,
        "seconds to wait for W&B at the start and at the end; then the run continues without it",
    )

    def __post_init__(self) -> None:
        require_positive(self, "tracking", "init_timeout_s")


@dataclass(frozen=True)
class Config(Sections):
    """All options of a training run."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    val: ValConfig = field(default_factory=ValConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        n_styles, batch_size = self.train.styles_per_content, self.data.batch_size
        require(
            n_styles <= batch_size,
            f"train.styles_per_content of at most data.batch_size={batch_size}",
            n_styles,
        )


def name_of_computation(config: Config) -> str:
    """Ten hex digits that name what a run computes.

    They depend on all options but the run's folder, its device, its tracking and its release name.
    """
    elsewhere = ("run.dir", "run.device", "tracking.", "checkpoint.release_name")
    values = {
        key: value for key, value in config.to_flat().items() if not key.startswith(elsewhere)
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]
