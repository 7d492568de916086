"""Every option once: frozen dataclasses, strict YAML, dotted overrides. Nothing here imports torch.

Precedence: dataclass default < YAML file < command line. All values travel as text until they are coerced by
the declared type, so that `1e-4`, `no` and `0x1` mean the same in a file, on a command line and in a W&B sweep.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from stylenet.errors import UsageError
from stylenet.metrics.catalogue import CATALOGUE

TAP_PATTERN = re.compile(r"relu[1-5]_[1-4]")
NONE_WORDS = ("none", "null", "~", "")
METRICS = tuple(CATALOGUE)
TRUE_WORDS, FALSE_WORDS = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def option(default: Any, meaning: str) -> Any:
    """A dataclass field that carries its meaning for `--help`."""
    return field(default=default, metadata={"meaning": meaning})


def require(is_valid: bool, expected: str, came: Any) -> None:
    """Raise UsageError unless `is_valid`."""
    if not is_valid:
        raise UsageError(f"expected {expected}, but {came!r} came; correct it in the YAML file or on the command line")


def require_positive(section: Any, prefix: str, *names: str) -> None:
    """Raise UsageError unless every named option of the section is above 0."""
    for name in names:
        value = getattr(section, name)
        require(value > 0, f"{prefix}.{name} above 0", value)


def require_not_negative(section: Any, prefix: str, *names: str) -> None:
    """Raise UsageError unless every named option of the section is 0 or more."""
    for name in names:
        value = getattr(section, name)
        require(value >= 0, f"{prefix}.{name} of 0 or more", value)


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives and what it starts from."""

    dir: str = option(
        "runs/default", "folder of the run: config, checkpoints, samples, released model; {id} in it is the W&B run's id"
    )
    seed: int = option(0, "seed of the decoder's start weights, the sampler and every augmentation")
    device: str = option("auto", "auto (cuda, else mps, else cpu), or a torch device such as cpu or cuda:1")

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "run.seed of 0 or more, below 2**63", self.seed)
        require(bool(self.dir.strip()), "a folder as run.dir", self.dir)


@dataclass(frozen=True)
class DataConfig:
    """Images and how they reach the network."""

    content: str | None = option(None, "content images: a folder, read recursively, or a manifest of data/prepare.py")
    style: str | None = option(None, "style images: a folder, read recursively, or a manifest of data/prepare.py")
    batch_size: int = option(8, "content-style pairs a step, in each process")
    crop_px: int = option(256, "side of the random square crop, pixels")
    resize_px: int = option(512, "shortest side before the crop, pixels; with data.scales: the largest that is kept")
    scales: tuple[int, ...] = option(
        (), "shortest sides of which each sample draws one, pixels, never above its picture's own; empty: resize_px, enlarging"
    )
    flip: bool = option(False, "mirror half of the images left to right (the paper does not)")
    workers: int = option(4, "loader processes; for cached images the threads that decode them once")
    cache: Literal["none", "ram", "device"] = option("none", "keep resized images as uint8: nowhere, in memory, on the GPU")
    held_out: float = option(0.02, "share of a folder's images kept for validation (a manifest brings its own split)")
    max_bad: float = option(0.05, "share of unreadable images above which training stops; one is always allowed")

    def __post_init__(self) -> None:
        require_positive(self, "data", "batch_size", "crop_px", "resize_px")
        require_not_negative(self, "data", "workers", "max_bad")
        require(0 <= self.held_out < 1, "data.held_out in [0, 1)", self.held_out)
        require(self.crop_px <= self.resize_px, f"data.crop_px of at most data.resize_px={self.resize_px}", self.crop_px)
        expected = f"data.scales from data.crop_px={self.crop_px} to data.resize_px={self.resize_px}"
        require(all(self.crop_px <= scale <= self.resize_px for scale in self.scales), expected, list(self.scales))


@dataclass(frozen=True)
class ModelConfig:
    """Which network is trained."""

    name: Literal["vgg", "compact"] = option(
        "vgg", "vgg: a decoder behind the frozen VGG (the paper); compact: a small network of its own, taught by the VGG"
    )
    channels: tuple[int, ...] = option((32, 64, 128), "compact: channels at 1/2, 1/4 and 1/8 of the size")
    blocks: int = option(4, "compact: residual blocks at 1/8 of the size, in the encoder and in the decoder")
    encoder_blocks: int = option(1, "compact: those of them in the encoder")
    antialias: bool = option(False, "compact: blur before every stride, and bilinear upsampling: texture leaves the grid")

    def __post_init__(self) -> None:
        require(len(self.channels) == 3 and min(self.channels) > 0, "three numbers as model.channels", list(self.channels))
        require_positive(self, "model", "blocks", "encoder_blocks")
        require(
            self.encoder_blocks <= self.blocks, f"model.encoder_blocks of at most model.blocks={self.blocks}", self.encoder_blocks
        )


@dataclass(frozen=True)
class EncoderConfig:
    """The frozen VGG: the network's encoder, and that of the losses. A compact network has it for the losses only."""

    name: Literal["vgg19", "vgg16"] = option("vgg19", "network")
    weights: str | None = option(None, "weights file; None: STYLENET_VGG19 or STYLENET_VGG16, else torchvision's download")
    tap: str = option("relu4_1", "layer at which features are aligned, and from which the decoder starts")
    padding: Literal["reflect", "zeros", "circular"] = option("reflect", "padding of the convolutions")
    pooling: Literal["max", "avg"] = option("max", "pooling between the blocks")
    calibrate: bool = option(
        True, "rescale every channel to mean activation 1 over the training images (Gatys); fine-tuning keeps the model's"
    )
    calibrate_images: int = option(256, "images used for it, half contents and half styles")

    def __post_init__(self) -> None:
        require(bool(TAP_PATTERN.fullmatch(self.tap)), "encoder.tap such as relu4_1", self.tap)
        require(self.calibrate_images >= 2, "encoder.calibrate_images of 2 or more", self.calibrate_images)


@dataclass(frozen=True)
class TransformConfig:
    """What aligns the content's features with the style's."""

    name: Literal["adain", "mean", "std", "none", "efdm", "histogram", "wct", "concat"] = option(
        "adain", "adain (the paper), or what ablations put in its place; the content loss compares with its output"
    )


@dataclass(frozen=True)
class DecoderConfig:
    """The learned mirror of the encoder."""

    norm: Literal["none", "instance", "batch"] = option("none", "normalisation after each convolution (the paper: none)")
    padding: Literal["reflect", "zeros", "circular"] = option("reflect", "padding of the convolutions")
    upsampling: Literal["nearest", "bilinear"] = option("nearest", "upsampling in place of the encoder's pooling")
    init: Literal["uniform", "he"] = option("uniform", "start weights: uniform as the known implementations, he learns sooner")


@dataclass(frozen=True)
class LossConfig:
    """The objective: content_weight * content + style_weight * sum of style over taps + the optional terms."""

    content_weight: float = option(1.0, "weight of the content loss against the AdaIN output")
    style_weight: float = option(10.0, "weight of the style loss; its scale depends on loss.style_reduction")
    style_taps: tuple[str, ...] = option(("relu1_1", "relu2_1", "relu3_1", "relu4_1"), "layers of the style and Gram losses")
    style_tap_weights: tuple[float, ...] = option((), "weight of each style tap; empty: 1 each")
    style_reduction: Literal["mean", "sum"] = option("mean", "over channels: mean as pytorch-AdaIN, sum as the Lua original")
    style_balance: float = option(
        0.0, "share of the style loss that divides each sample by its own magnitude, so that pale styles count as much; 0 to 1"
    )
    content_norm_weight: float = option(0.0, "weight of the content loss on features normalised per channel, over its taps")
    content_norm_taps: tuple[str, ...] = option(("relu3_1", "relu4_1"), "layers of that loss")
    gram_weight: float = option(0.0, "weight of the Gram loss over the style taps")
    tv_weight: float = option(0.0, "weight of the output's total variation")
    identity_weight: float = option(0.0, "weight of the identity loss: an image styled with itself must come back")
    shift_weight: float = option(0.0, "weight of the shift loss: where the content moves by pixels, the output must move with it")

    def __post_init__(self) -> None:
        weights = [f.name for f in dataclasses.fields(self) if f.name.endswith("_weight")]
        require_not_negative(self, "loss", *weights)
        for name in ("style_taps", "content_norm_taps"):
            for tap in getattr(self, name):
                require(bool(TAP_PATTERN.fullmatch(tap)), f"loss.{name} such as [relu1_1, relu4_1]", tap)
        require(0 <= self.style_balance <= 1, "loss.style_balance in [0, 1]", self.style_balance)
        require(bool(self.content_norm_taps), "at least one tap in loss.content_norm_taps", list(self.content_norm_taps))
        require(any(getattr(self, name) for name in weights), "at least one loss weight above 0", 0)
        n_taps, n_weights = len(self.style_taps), len(self.style_tap_weights)
        require(n_taps > 0, "at least one tap in loss.style_taps", list(self.style_taps))
        require(n_taps == len(set(self.style_taps)), "each tap once in loss.style_taps", list(self.style_taps))
        require(n_weights in (0, n_taps), f"{n_taps} loss.style_tap_weights, one per tap, or none", list(self.style_tap_weights))
        require(all(w >= 0 for w in self.style_tap_weights), "loss.style_tap_weights of 0 or more", list(self.style_tap_weights))


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser and its learning rate."""

    name: Literal["adam", "muon"] = option("adam", "muon: for kernels, with Adam for the rest; learns the compact network faster")
    lr: float = option(1e-4, "learning rate before the schedule")
    lr_schedule: Literal["inverse", "cosine", "constant"] = option(
        "inverse", "inverse: lr / (1 + lr_decay * t); cosine: to 0 at train.steps"
    )
    lr_decay: float = option(5e-5, "decay of the inverse schedule, per step")
    warmup_steps: int = option(0, "steps over which the rate rises linearly from 0")
    clip_norm: float | None = option(None, "largest gradient norm; None: no clipping")
    ema_decay: float | None = option(None, "decay of the averaged decoder weights, such as 0.999; None: no average")

    def __post_init__(self) -> None:
        require_positive(self, "optim", "lr")
        require_not_negative(self, "optim", "lr_decay", "warmup_steps")
        require(self.clip_norm is None or self.clip_norm > 0, "optim.clip_norm above 0 or None", self.clip_norm)
        require(self.ema_decay is None or 0 < self.ema_decay < 1, "optim.ema_decay between 0 and 1 or None", self.ema_decay)


@dataclass(frozen=True)
class TrainConfig:
    """Length, arithmetic and starting point of the training."""

    steps: int = option(160_000, "optimiser steps in all")
    accumulate: int = option(1, "batches whose gradients are averaged for one step")
    styles_per_content: int = option(1, "styles of the batch that each content meets in a step; more spare encoding")
    precision: Literal["fp32", "bf16", "fp16"] = option("fp32", "arithmetic of the convolutions; fp16 uses a loss scaler")
    tf32: bool = option(True, "allow TF32 in float32 convolutions on the GPU")
    channels_last: bool = option(True, "memory layout of the networks")
    compile: bool = option(False, "torch.compile the encoder and the decoder")
    init_from: str | None = option(
        None, "fine-tune the decoder of a model.safetensors, checkpoint or run folder, or of pytorch-AdaIN (decoder.pth)"
    )
    freeze: tuple[str, ...] = option((), "decoder layers that keep their weights, such as [conv4_1, conv3_4]")
    log_every_steps: int = option(10, "steps between two logged lines")

    def __post_init__(self) -> None:
        require_positive(self, "train", "steps", "accumulate", "styles_per_content", "log_every_steps")


@dataclass(frozen=True)
class ValConfig:
    """Held-out pairs: losses and the grid of pictures."""

    every_steps: int = option(1000, "steps between two validations; also done at the end")
    pairs: int = option(32, "held-out pairs whose losses are averaged")
    grid_pairs: int = option(6, "held-out pairs in the grid of pictures")
    alphas: tuple[float, ...] = option((0.25, 0.5, 0.75, 1.0), "strengths shown in the grid")

    def __post_init__(self) -> None:
        require_positive(self, "val", "every_steps", "pairs", "grid_pairs")
        require(all(0 <= a <= 1 for a in self.alphas), "val.alphas in [0, 1]", list(self.alphas))


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept of a run."""

    every_steps: int = option(1000, "steps between two checkpoints; also written at the end and when stopped")
    keep: int = option(3, "newest checkpoints kept, beside the best by validation loss")
    release_dtype: Literal["fp32", "fp16"] = option("fp32", "numbers in the released model; fp16 halves the file")
    release_name: str | None = option(None, "name and version that the released model bears, such as compact-1")
    carry_encoder: bool = option(True, "put the encoder into the released model, so that it needs no other file")

    def __post_init__(self) -> None:
        require_positive(self, "checkpoint", "every_steps", "keep")


@dataclass(frozen=True)
class TrackingConfig:
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = option(
        "auto", "auto: online where an API key is configured, else offline"
    )
    project: str = option("stylenet", "W&B project")
    entity: str | None = option(None, "W&B user or team; None: the account's own")
    group: str | None = option(None, "W&B group, such as the name of an ablation")
    tags: tuple[str, ...] = option((), "W&B tags")
    notes: str | None = option(None, "W&B notes")
    artifacts: Literal["final", "all", "none"] = option(
        "final", "checkpoints logged as artifacts: latest and best at the end, each one, none"
    )
    init_timeout_s: float = option(60.0, "seconds to wait for W&B at the start and at the end before going on without it")

    def __post_init__(self) -> None:
        require_positive(self, "tracking", "init_timeout_s")


@dataclass(frozen=True)
class Config:
    """All options of a training run."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    val: ValConfig = field(default_factory=ValConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        n_styles, batch_size = self.train.styles_per_content, self.data.batch_size
        require(n_styles <= batch_size, f"train.styles_per_content of at most data.batch_size={batch_size}", n_styles)


@dataclass(frozen=True)
class PairsConfig:
    """Which content meets which style."""

    contents: int = option(0, "contents drawn from the set; 0: all")
    styles: int = option(0, "styles drawn from the set; 0: all")
    n: int = option(0, "pairs drawn from the drawn contents x styles, every image as often as the others; 0: all")
    seed: int = option(0, "seed of the draws")
    list: str | None = option(None, "CSV with the columns content and style (paths below the sets), instead of a draw")
    held_out: float = option(
        0.0, "share of a folder: only what train.py with the same data.held_out keeps from training; 0: all of it"
    )

    def __post_init__(self) -> None:
        require_not_negative(self, "pairs", "contents", "styles", "n", "seed")
        require(0 <= self.held_out < 1, "pairs.held_out in [0, 1)", self.held_out)


@dataclass(frozen=True)
class ImagesConfig:
    """How a picture reaches the model and the metrics; outputs are judged as 8-bit pictures, as a PNG would hold them."""

    resize_px: int = option(512, "shortest side of contents and styles, pixels")
    filter: Literal["bilinear", "bicubic", "lanczos"] = option("bilinear", "Pillow's filter for it, antialiased when shrinking")
    crop: Literal["centre", "none"] = option("centre", "cut the square from the middle, or keep the whole picture")

    def __post_init__(self) -> None:
        require(self.resize_px >= 16, "images.resize_px of 16 or more", self.resize_px)


@dataclass(frozen=True)
class JudgeConfig:
    """The VGG that content, style, Gram, CFSD and the VGG Fréchet distance are taken from."""

    name: Literal["vgg19", "vgg16"] = option("vgg19", "network")
    weights: str | None = option(None, "weights file; None: STYLENET_VGG19 or STYLENET_VGG16, else torchvision's download")
    calibrate: Literal["auto", "yes", "no"] = option(
        "auto", "scale channels to mean activation 1 over the evaluated pictures; auto: unless the file is normalised already"
    )
    padding: Literal["reflect", "zeros", "circular"] = option("reflect", "padding of the convolutions")
    channel_order: Literal["rgb", "bgr"] = option("rgb", "what the network is fed; bgr repeats a known slip of others' scripts")


@dataclass(frozen=True)
class MetricsConfig:
    """What is computed, and each formula's choices."""

    names: tuple[str, ...] = option(METRICS, "metrics to compute")
    content_taps: tuple[str, ...] = option(("relu4_1",), "layers of the content losses; their mean is reported too")
    style_taps: tuple[str, ...] = option(
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1"), "layers of the style losses and Gram distance; their mean is reported too"
    )
    style_reduction: Literal["mean", "sum"] = option("mean", "of the style loss over channels")
    target_tap: str = option("relu4_1", "layer whose AdaIN output `target` compares with, as the content loss of training does")
    ssim_window: Literal["gaussian", "uniform"] = option("gaussian", "gaussian 11x11 on colours, or uniform 7x7 on grey")
    lpips_net: Literal["alex", "vgg"] = option("alex", "backbone of LPIPS")
    cfsd_tap: str = option("relu3_1", "layer of CFSD")
    cfsd_px: int = option(256, "CFSD is taken at this shortest side; 0: at the pictures' own")
    cfsd_reduction: Literal["mean", "sum"] = option("mean", "of CFSD over positions; the reference sums, so size moves it")
    colour_bins: int = option(8, "bins per channel of the colour histograms")
    frechet_tap: str = option("relu4_1", "layer whose channel means `vgg_frechet` compares (not FID)")
    kid_subsets: int = option(100, "random subsets of KID")
    kid_subset_size: int = option(50, "vectors in each of them, at most as many as there are")
    bootstrap: int = option(2000, "resamples of the 95 % intervals over pairs")
    timing_rounds: int = option(5, "timed passes whose median is the latency")

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in METRICS]
        require(not unknown, f"metrics.names out of {', '.join(METRICS)}", ", ".join(unknown))
        require(bool(self.names), "at least one of metrics.names", list(self.names))
        for tap in (*self.content_taps, *self.style_taps, self.target_tap, self.cfsd_tap, self.frechet_tap):
            require(bool(TAP_PATTERN.fullmatch(tap)), "taps such as relu4_1 in metrics.*", tap)
        require(bool(self.content_taps and self.style_taps), "at least one tap in metrics.content_taps and style_taps", 0)
        require_positive(self, "metrics", "colour_bins", "kid_subsets", "bootstrap", "timing_rounds")
        require_not_negative(self, "metrics", "cfsd_px")
        require(self.kid_subset_size > 1, "metrics.kid_subset_size above 1", self.kid_subset_size)


@dataclass(frozen=True)
class NetworksConfig:
    """The networks of LPIPS, FID and ArtFID: files, else torch's cache, else a download, each checked by its sha256."""

    lpips: str | None = option(None, "backbone of LPIPS, torchvision's alexnet-owt-7be5be79.pth or vgg16-397923af.pth")
    inception: str | None = option(None, "Inception of FID and KID, torch-fidelity's weights-inception-2015-12-05-6726825d.pth")
    art_inception: str | None = option(
        None, "Inception of ArtFID, art-fid's art_inception.pth; never downloaded, since no hash is known"
    )
    download: bool = option(True, "fetch what is neither named nor in the cache")


@dataclass(frozen=True)
class OracleConfig:
    """Pixels optimised for one pair, as Gatys does, with the objective that feed-forward training has."""

    iterations: int = option(100, "steps of Adam, from the content image")
    lr: float = option(0.05, "its learning rate, in units of pixel values in [0, 1]")
    style_weight: float = option(10.0, "weight of the style loss, summed over metrics.style_taps; the content loss has weight 1")

    def __post_init__(self) -> None:
        require_positive(self, "oracle", "iterations", "lr", "style_weight")


@dataclass(frozen=True)
class Protocol:
    """All options of an evaluation; a card in configs/protocols fixes everything that moves a number."""

    pairs: PairsConfig = field(default_factory=PairsConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    oracle: OracleConfig = field(default_factory=OracleConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


Kind = TypeVar("Kind", Config, Protocol)


@dataclass(frozen=True)
class Option:
    """One option as `--help` shows it."""

    key: str
    type: Any
    default: Any
    meaning: str


@functools.cache
def list_options(kind: type = Config) -> dict[str, Option]:
    """Every option of a training run, or of a Protocol, by its dotted key, in declaration order."""
    options = {}
    for name, section in typing.get_type_hints(kind).items():
        hints = typing.get_type_hints(section)
        for item in dataclasses.fields(section):
            key = f"{name}.{item.name}"
            options[key] = Option(key, hints[item.name], item.default, item.metadata["meaning"])
    return options


def load_config(path: str | Path | None = None, overrides: list[str] = (), kind: type[Kind] = Config) -> Kind:
    """Configuration from defaults, the YAML file and `key=value` overrides, in this order.

    Raises UsageError for an unreadable file, an unknown or repeated key, and an ill-typed value.
    """
    values = flatten(read_yaml(path), str(path), kind) if path else {}
    for override in overrides:
        values |= parse_override(override, kind)
    return make_config(values, kind)


def make_config(values: dict[str, Any], kind: type[Kind] = Config) -> Kind:
    """Configuration from dotted keys; values may be text or of their own type. What is not named keeps its default."""
    options, sections = list_options(kind), {}
    for key, value in values.items():
        if key not in options:
            raise UsageError(unknown_key_message(key, kind))
        section, name = key.split(".", 1)
        sections.setdefault(section, {})[name] = coerce(value, options[key].type, key)
    kinds = typing.get_type_hints(kind)
    return kind(**{name: kinds[name](**chosen) for name, chosen in sections.items()})


def to_flat(config: Config | Protocol) -> dict[str, Any]:
    """The configuration as {dotted key: value}; tuples become lists, as JSON and YAML have them."""
    plain = dataclasses.asdict(config)
    values = {f"{section}.{name}": value for section, options in plain.items() for name, value in options.items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def to_yaml(config: Config | Protocol) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal one."""
    nested: dict[str, dict[str, Any]] = {}
    for key, value in to_flat(config).items():
        section, name = key.split(".", 1)
        nested.setdefault(section, {})[name] = value
    return yaml.safe_dump(nested, sort_keys=False, default_flow_style=None, allow_unicode=True, width=1000)


def differing_keys(old: Kind, new: Kind) -> list[str]:
    """Dotted keys whose values differ."""
    before, after = to_flat(old), to_flat(new)
    return [key for key in before if before[key] != after[key]]


def name_of_computation(config: Config) -> str:
    """Ten hex digits for what a run computes: all of its options but where it lies, on what it runs, and its tracking."""
    elsewhere = ("run.dir", "run.device", "tracking.", "checkpoint.release_name")
    kept = {key: value for key, value in to_flat(config).items() if not key.startswith(elsewhere)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:10]


class StrictLoader(yaml.BaseLoader):
    """YAML in which every scalar stays text and a repeated key is an error (PyYAML lets the last one win)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
        if repeated:
            line = node.start_mark.line + 1
            raise UsageError(
                f"expected each key once, but {', '.join(repeated)} is repeated in the block at line {line}; remove one"
            )
        return super().construct_mapping(node, deep=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The file's mapping with all scalars as text; an empty file is an empty mapping."""
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.load(file, Loader=StrictLoader)  # noqa: S506 - a subclass of BaseLoader, text only
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"expected a readable YAML file, but {path} cannot be read ({error}); check --config") from None
    except yaml.YAMLError as error:
        raise UsageError(f"expected YAML in {path}, but it does not parse: {error}") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if content in (None, ""):
        return {}
    require(isinstance(content, dict), f"sections such as 'loss:' in {path}", content)
    return content


def flatten(tree: dict[str, Any], origin: str, kind: type = Config) -> dict[str, Any]:
    """{section: {name: value}} as {dotted key: value}; dotted keys are taken as they are."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        items = {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
        empty_section = key in typing.get_type_hints(kind) and value == ""
        repeated = sorted(values.keys() & items.keys())
        if repeated:
            raise UsageError(f"expected each key once in {origin}, but {', '.join(repeated)} is given twice; remove one")
        values |= {} if empty_section else items
    return values


def parse_override(text: str, kind: type = Config) -> dict[str, Any]:
    """`key=value` (or `--key=value`, or `section={name: value}`) as {dotted key: text}."""
    key, separator, value = text.removeprefix("--").partition("=")
    if not separator:
        raise UsageError(f"expected key=value, but {text!r} came; see --help for the options")
    if key in typing.get_type_hints(kind):
        return flatten({key: parse_flow(value, key)}, "the command line", kind)
    return {key: value}


def parse_flow(text: str, key: str) -> Any:
    """Text in YAML's flow style, such as `[128, 64]` or `{lr: 1e-3}`, with scalars as text."""
    try:
        return yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a subclass of BaseLoader, text only
    except yaml.YAMLError:
        raise UsageError(f"expected a value for {key} in brackets such as [a, b], but {text!r} came") from None


def coerce(value: Any, kind: Any, key: str) -> Any:
    """The value as its declared type. Raises UsageError naming the key, the type and what came."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # X | None
        is_none = value is None or (isinstance(value, str) and value.lower() in NONE_WORDS)
        return None if is_none else coerce(value, arguments[0], key)
    if origin is Literal:
        return _choice(value, arguments, kind, key)
    if origin is tuple:
        items = parse_flow(value, key) if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise UsageError(ill_typed_message(key, kind, value))
        return tuple(coerce(item, arguments[0], key) for item in items)
    return _scalar(value, kind, key)


def _choice(value: Any, choices: tuple[str, ...], kind: Any, key: str) -> str:
    # A sweep writes Python's None and False where a choice is called "none"; names stay lower case.
    text = str(value).lower()
    if text not in choices:
        raise UsageError(ill_typed_message(key, kind, value))
    return text


def _scalar(value: Any, kind: type, key: str) -> Any:
    if value is None or isinstance(value, (list, dict)):
        raise UsageError(ill_typed_message(key, kind, value))
    try:
        return {bool: _bool, int: _int, float: _float, str: str}[kind](value)
    except ValueError:
        raise UsageError(ill_typed_message(key, kind, value)) from None


def _bool(value: Any) -> bool:
    text = str(value).lower()
    if text not in TRUE_WORDS + FALSE_WORDS:
        raise ValueError(text)
    return text in TRUE_WORDS


def _int(value: Any) -> int:
    number = float(value)  # so that 1e5 and a sweep's 4.0 are whole numbers too
    if isinstance(value, bool) or not number.is_integer():
        raise ValueError(value)
    return int(value) if isinstance(value, str) and re.fullmatch(r"[+-]?[\d_]+", value) else int(number)


def _float(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or number != number or number in (float("inf"), float("-inf")):
        raise ValueError(value)
    return number


def type_name(kind: Any) -> str:
    """A type as the help shows it: `int`, `float or None`, `mean|sum`, `list of str`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "|".join(arguments)
    if origin is tuple:
        return f"list of {type_name(arguments[0])}"
    if origin in (types.UnionType, typing.Union):
        return f"{type_name(arguments[0])} or None"
    return kind.__name__


def ill_typed_message(key: str, kind: Any, value: Any) -> str:
    """What was expected of an option and what came."""
    return f"expected {type_name(kind)} for {key}, but {value!r} came; see --help for its meaning"


def unknown_key_message(key: str, kind: type = Config) -> str:
    """An unknown key with the nearest one, by its whole name or by its last part."""
    keys = list(list_options(kind))
    by_name = [known for known in keys if known.split(".")[-1] == key.split(".")[-1]]
    near = by_name or difflib.get_close_matches(key, keys, n=1, cutoff=0.0)
    return f"expected an option of stylenet, but {key!r} is none; did you mean {near[0]!r}? (--help lists all)"


def format_options(kind: type = Config) -> str:
    """Every option with type, default and meaning, one per line, for `--help`."""
    lines = []
    for item in list_options(kind).values():
        default = list(item.default) if isinstance(item.default, tuple) else item.default
        lines.append(f"  {item.key}: {type_name(item.type)} = {default}\n      {item.meaning}")
    return "\n".join(lines)
