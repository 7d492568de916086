"""Factories that turn configuration into objects.

Besides the scripts no other file imports the configuration.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stylenet import datasets, runtime
from stylenet.checkpoint import check_encoder, find_release, read_release, with_prefix
from stylenet.config.optimisation import Optimisation
from stylenet.config.protocol import Protocol
from stylenet.config.training import Config
from stylenet.datasets import PairDataset, PixelSource, Split
from stylenet.errors import UsageError, WeightsError
from stylenet.losses import LossWeights
from stylenet.models import adapters
from stylenet.models.calibration import calibrate, mean_activations
from stylenet.models.critic import SMALLEST_PX
from stylenet.models.families import FAMILIES, Parts, parts_of
from stylenet.models.vgg import VGG
from stylenet.models.vgg_files import (
    find_weights,
    is_flat_layout,
    load_vgg,
    read_weights,
    sha256_of_encoder,
    sha256_of_file,
)
from stylenet.objective import Objective
from stylenet.optim import Muon
from stylenet.transforms import TRANSFORMS


class Data(NamedTuple):
    """The image sets of a run."""

    content: Split
    style: Split


class Encoder(NamedTuple):
    """A frozen encoder and what identifies it."""

    network: VGG
    sha256: str  # of the weights up to encoder.tap, before calibration
    mu: dict[str, Tensor]  # mean activation per channel, divided out; empty: not calibrated


def make_data(config: Config) -> Data:
    """Both image sets, split into training and held-out parts. Raises DataError."""
    options = config.data
    return Data(
        datasets.read_split(options.content, options.held_out, "data.content"),
        datasets.read_split(options.style, options.held_out, "data.style"),
    )


def make_sources(
    config: Config, data: Data, device: torch.device
) -> tuple[PixelSource, PixelSource]:
    """The training images of both sets, cached as data.cache says."""
    options = config.data
    # With several scales small pictures keep their size, as long as a crop fits.
    floor = options.crop_px if options.scales else None
    sources = tuple(PixelSource(split.train, options.resize_px, floor) for split in data)
    if config.data.cache != "none":
        for source in sources:
            source.keep(
                device if config.data.cache == "device" else torch.device("cpu"),
                config.data.workers,
            )
    return sources


def make_dataset(config: Config, sources: tuple[PixelSource, PixelSource]) -> PairDataset:
    """The endless stream of pairs."""
    return PairDataset(
        *sources, config.data.crop_px, config.run.seed, config.data.flip, config.data.scales
    )


def make_raw_encoder(config: Config) -> Encoder:
    """The encoder from its file, up to the deepest layer that the run needs.

    Raises WeightsError.
    """
    options = config.encoder
    path = find_weights(options.name, options.weights)
    # The losses may look deeper than the decoder's tap.
    taps = {options.tap, *config.loss.style_taps, *make_loss_weights(config).content_taps}
    network = load_vgg(options.name, path, taps, options.padding, options.pooling)
    return Encoder(network, sha256_of_encoder(network, options.tap), {})


def calibrate_encoder(encoder: Encoder, mu: dict[str, Tensor]) -> Encoder:
    """The encoder rescaled by the mean activations; unchanged without any."""
    if mu:
        calibrate(encoder.network, mu)
    return encoder._replace(mu=mu)


def measure_mu(
    config: Config, encoder: Encoder, sources: tuple[PixelSource, PixelSource]
) -> dict[str, Tensor]:
    """The mean activations over the run's own training images.

    Empty if encoder.calibrate is off.
    """
    if not config.encoder.calibrate:
        return {}
    device = next(iter(encoder.network.convs.values())).weight.device
    batches = datasets.calibration_batches(
        sources, config.encoder.calibrate_images, config.data.crop_px
    )
    return mean_activations(encoder.network, (batch.to(device) for batch in batches))


def read_optimisation(path: str | None, overrides: Iterable[str]) -> Optimisation:
    """The options of stylising by optimisation, from a YAML file and the command line."""
    return Optimisation.load(path, list(overrides))


def make_pixel_objective(config: Optimisation, device: torch.device) -> Objective:
    """The objective of stylising by optimisation on its loss network. Raises WeightsError."""
    options, loss = config.network, config.loss
    path = find_weights(options.name, options.weights)
    taps = [*loss.content_taps, *loss.style_taps]
    network = load_vgg(options.name, path, taps, options.padding, options.pooling).to(device)
    content_weights = loss.content_tap_weights or [1.0] * len(loss.content_taps)
    n_taps = len(loss.style_taps)
    style_weights = loss.style_tap_weights or [1 / n_taps] * n_taps
    statistic = {"gram": "gram", "mean_std": "style", "sliced": "sliced"}[loss.style_statistic]
    weights = LossWeights(
        content=0.0,  # the content's own features are the target, not the AdaIN output
        features=loss.content_weight,
        feature_taps=dict(zip(loss.content_taps, content_weights, strict=True)),
        taps=dict(zip(loss.style_taps, style_weights, strict=True)),
        tv=loss.tv_weight,
        **{"style": 0.0, statistic: loss.style_weight},
    )
    return Objective(network, loss.content_taps[0], TRANSFORMS["none"], weights)


def make_protocol(values: dict[str, Any]) -> Protocol:
    """The protocol from the values in a metrics.json."""
    return Protocol.from_flat(values)


class Judge(NamedTuple):
    """The VGG of an evaluation and what identifies it."""

    network: VGG
    sha256: str  # of the weights up to the deepest tap used, before calibration
    is_normalised_file: bool
    mu_sha256: str | None


def make_judge(
    protocol: Protocol, taps: set[str], pictures: Callable[[], Iterable[Tensor]]
) -> Judge:
    """The evaluation's VGG up to the deepest of the taps.

    judge.calibrate says whether it is calibrated over `pictures()` [1, 3, H, W]. Raises
    WeightsError.
    """
    options = protocol.judge
    path = find_weights(options.name, options.weights)
    is_normalised = is_flat_layout(read_weights(path))
    network = load_vgg(options.name, path, taps, options.padding)
    if options.channel_order == "bgr":
        first = network.convs["conv1_1"]
        first.weight.copy_(first.weight.flip(1))  # [64, 3, 3, 3], over the input channels
        network.mean.copy_(network.mean.flip(1))
    # The hash names the file's values, so it is taken before calibration.
    digest, mu = sha256_of_encoder(network, network.reach), {}
    if options.calibrate == "yes" or (options.calibrate == "auto" and not is_normalised):
        mu = mean_activations(network, pictures())
        calibrate(network, mu)
    return Judge(network, digest, is_normalised, hash_of_mu(mu))


def make_parts(config: Config) -> Parts:
    """The plain parts of the configured network."""
    family, values = FAMILIES[config.model.name], config.to_flat()
    encoder = {name: values[f"encoder.{name}"] for name in ("name", "tap", "padding", "pooling")}
    trained = {name: values[option] for name, option in family.options.items()}
    return Parts(config.model.name, encoder, trained, config.transform.name)


def check_config(config: Config) -> None:
    """Raise UsageError for options that the configured family does not use.

    A transform that the family does not know raises it too.
    """
    name, family, values, defaults = (
        config.model.name,
        FAMILIES[config.model.name],
        config.to_flat(),
        Config().to_flat(),
    )
    # An idle option at its default is silent; a changed one would mislead.
    changed = [
        key for key in values if key.startswith(family.idle) and values[key] != defaults[key]
    ]
    if changed:
        raise UsageError(
            f"expected no {changed[0]} beside model.name={name}, which has no use for it; leave "
            "it out"
        )
    for key, choices in family.lacking.items():
        if values[key] in choices:
            raise UsageError(
                f"expected another {key} for model.name={name}, which does not have "
                f"{values[key]}; see --help"
            )
    if config.loss.adversarial_weight and config.data.crop_px < SMALLEST_PX:
        raise UsageError(
            f"expected data.crop_px of {SMALLEST_PX} or more with loss.adversarial_weight, but "
            f"{config.data.crop_px} came; give larger crops"
        )
    if config.transform.name not in family.transforms:
        known = ", ".join(family.transforms)
        raise UsageError(
            f"expected transform.name={known} for model.name={name}, but {config.transform.name} "
            "came"
        )


def make_trained(config: Config) -> nn.Module:
    """The module that learns; run.seed draws its start weights.

    Raises UsageError for unknown layers to freeze.
    """
    check_config(config)
    family = FAMILIES[config.model.name]
    trained = family.make(
        make_parts(config), torch.Generator().manual_seed(config.run.seed), config.decoder.init
    )
    family.freeze(trained, config.train.freeze)
    return trained


def add_adapters(config: Config, trained: nn.Module) -> None:
    """Give a network in training the adapters that the configuration asks for, in place.

    Raises UsageError beside batch normalisation, whose statistics an adapter does not hold.
    """
    if config.train.adapter_rank:
        if any(isinstance(module, nn.BatchNorm2d) for module in trained.modules()):
            raise UsageError(
                "expected a network without batch normalisation for train.adapter_rank, since its "
                "statistics would change too; use train.freeze"
            )
        generator = torch.Generator().manual_seed(config.run.seed)
        adapters.adapt(trained, config.train.adapter_rank, generator)


def make_learner(config: Config, encoder: Encoder, trained: nn.Module) -> Any:
    """The network of the training loop."""
    return FAMILIES[config.model.name].make_learner(trained, encoder.network, make_parts(config))


def make_objective(config: Config, encoder: Encoder) -> Objective:
    """The losses on the features of the encoder."""
    return Objective(
        encoder.network,
        config.encoder.tap,
        TRANSFORMS[config.transform.name],
        make_loss_weights(config),
    )


def make_loss_weights(config: Config) -> LossWeights:
    """The weights of the objective."""
    loss = config.loss
    taps = dict(
        zip(loss.style_taps, loss.style_tap_weights or [1.0] * len(loss.style_taps), strict=True)
    )
    return LossWeights(
        content=loss.content_weight,
        style=loss.style_weight,
        taps=taps,
        reduction=loss.style_reduction,
        gram=loss.gram_weight,
        tv=loss.tv_weight,
        identity=loss.identity_weight,
        identity_features=loss.identity_feature_weight,
        balance=loss.style_balance,
        gram_balance=loss.gram_balance,
        content_norm=loss.content_norm_weight,
        content_norm_taps=loss.content_norm_taps,
        shift=loss.shift_weight,
        motion=loss.motion_weight,
        features=loss.feature_weight,
        feature_taps=dict.fromkeys(loss.feature_taps, 1.0),
        sliced=loss.sliced_weight,
        adversarial=loss.adversarial_weight,
    )


def make_optimizer(config: Config, trained: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of the layers that are not frozen. Raises UsageError if there are none."""
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    if not parameters:
        raise UsageError(
            "expected at least one layer to train, but train.freeze names all; leave one out"
        )
    return {"adam": torch.optim.Adam, "muon": Muon}[config.optim.name](
        parameters, lr=config.optim.lr
    )


def make_schedule(config: Config) -> Callable[[int], float]:
    """The learning rate of step t, counted from 0."""
    optim, n_steps = config.optim, config.train.steps
    shapes: dict[str, Callable[[int], float]] = {
        "constant": lambda t: 1.0,
        "inverse": lambda t: 1 / (1 + optim.lr_decay * t),  # as pytorch-AdaIN
        "cosine": lambda t: 0.5 + 0.5 * math.cos(math.pi * min(1.0, t / n_steps)),
    }
    shape = shapes[optim.lr_schedule]
    # The warm-up has no step of rate 0: step 0 has 1 / (warmup_steps + 1) of it.
    return lambda t: optim.lr * shape(t) * min(1.0, (t + 1) / (optim.warmup_steps + 1))


def make_average(config: Config, trained: nn.Module) -> torch.optim.swa_utils.AveragedModel | None:
    """The exponential moving average of the trained weights; None without optim.ema_decay."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    decay = config.optim.ema_decay
    return (
        AveragedModel(trained, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        if decay
        else None
    )


class StartingPoint(NamedTuple):
    """What fine-tuning takes from a released model."""

    trained: dict[str, Tensor]
    mu: dict[str, Tensor] | None  # None: measured again, as in a run from scratch
    description: dict[str, Any]  # the file's hash and, where it records that, its training


def load_starting_point(config: Config, encoder: Encoder) -> StartingPoint | None:
    """Weights and calibration of the model that train.init_from names; None without it.

    Raises WeightsError for a model of another encoder or decoder.
    """
    path, family = config.train.init_from, FAMILIES[config.model.name]
    if not path:
        return None
    if str(path).endswith((".pth", ".pth.tar")):  # pytorch-AdaIN's decoders, which name no encoder
        if config.train.adapter_rank:
            raise UsageError(
                f"expected a released model as train.init_from with train.adapter_rank, but {path} "
                "is another code's decoder, to which no adapter can be added later; leave "
                "train.adapter_rank=0"
            )
        trained = make_trained(config)
        if not family.load_published(trained, read_weights(path), path):
            raise WeightsError(
                f"expected a network of model.name={config.model.name}, but {path} is a decoder; "
                "leave model.name=vgg"
            )
        return StartingPoint(trained.state_dict(), None, {"file_sha256": sha256_of_file(path)})
    tensors, description = read_release(path)
    if "adapter" in description:
        raise WeightsError(
            f"expected a whole model as train.init_from, but {path} is an adapter; start from its "
            "base"
        )
    if family.has_encoder:
        check_encoder(description, encoder.sha256, path)
    check_same_parts(config, description, path)
    mu = with_prefix(tensors, "mu.")  # {layer: [C]}
    if description["encoder"]["sha256"] != encoder.sha256:
        mu = None  # another teacher of a network without encoder, which is measured anew
    missing = [name for name in encoder.network.convs if mu and name not in mu]
    if missing:
        raise WeightsError(
            f"expected loss.style_taps within the layers that {path} was calibrated on, but "
            f"{missing[0]} is beyond them"
        )
    # A released model may be float16; training starts in float32.
    own = {name: tensor.float() for name, tensor in with_prefix(tensors, "decoder.").items()}
    start = family.start_from(make_trained(config), own)
    return StartingPoint(
        start,
        mu,
        {"file_sha256": sha256_of_file(find_release(path)), **describe_training(description)},
    )


def check_same_parts(config: Config, description: dict[str, Any], path: str) -> None:
    """Raise WeightsError if fine-tuning cannot bridge the difference between two networks.

    The networks are the configured one and that of the model at `path`.
    """
    ours = make_parts(config)
    if description["model"] != ours.family:
        raise WeightsError(
            f"expected a network of model.name={ours.family}, but {path} is one of "
            f"{description['model']}"
        )
    theirs, family = parts_of(description), FAMILIES[ours.family]
    differing = [
        f"encoder.{name}"
        for name, value in ours.encoder.items()
        if family.has_encoder and theirs.encoder.get(name) != value
    ]
    for name, option in family.options.items():
        if not family.can_start_from(name, theirs.trained.get(name), ours.trained[name]):
            differing.append(option)
    # Another transform is fine as long as the decoder's input keeps its width.
    if TRANSFORMS[theirs.transform].widening != TRANSFORMS[ours.transform].widening:
        differing.append("transform.name")
    if differing:
        raise WeightsError(
            f"expected the options of {path} for fine-tuning, but {', '.join(differing)} differ; "
            "set them as it has them"
        )


def describe_run(
    config: Config, encoder: Encoder, data: Data, device: torch.device
) -> dict[str, Any]:
    """The description that every checkpoint and released model contains."""
    parts = make_parts(config)
    sets = {
        "content": datasets.describe_set(data.content),
        "style": datasets.describe_set(data.style),
    }
    has_encoder = carries_encoder(config)
    return {
        "model": parts.family,
        "encoder": {
            **parts.encoder,
            "sha256": encoder.sha256,
            "is_carried": has_encoder,
            "mu_sha256": hash_of_mu(encoder.mu),
        },
        "decoder": dict(parts.trained),
        "transform": config.transform.name,
        "config": config.to_flat(),
        "data": sets,
        "git_commit": runtime.git_commit(),
        "versions": runtime.versions(),
        "hardware": runtime.hardware(device),
    }


def describe_adapter(config: Config) -> dict[str, Any]:
    """The entry of an adapter in a description, which names its base; empty without one."""
    path = config.train.init_from
    if not config.train.adapter_rank:
        return {}
    digest = sha256_of_file(find_release(path))
    return {
        "adapter": {"rank": config.train.adapter_rank, "base": str(path), "base_sha256": digest}
    }


# Options for places and tracking; they do not change what is computed.
PRIVATE = (
    "run.dir",
    "run.device",
    "data.content",
    "data.style",
    "encoder.weights",
    "train.init_from",
    "tracking.",
    "checkpoint.",
)


def describe_training(description: dict[str, Any]) -> dict[str, Any]:
    """How a model was trained: its description without paths, with a sha256 over the rest.

    For a resumed run it describes the last part only. Commit, hardware and train.steps may have
    been different before.
    """
    own = {
        name: description[name] for name in ("step", "data", "git_commit", "versions", "hardware")
    }
    own["data"] = {
        kind: {k: v for k, v in facts.items() if k != "origin"}
        for kind, facts in own["data"].items()
    }
    own["config"] = {
        key: value for key, value in description["config"].items() if not key.startswith(PRIVATE)
    }
    own |= {
        "encoder_sha256": description["encoder"]["sha256"],
        "mu_sha256": description["encoder"]["mu_sha256"],
    }
    own["started_from"] = description.get("started_from")  # a chain of fine-tunings stays visible
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    return {"training_sha256": digest, **own}


def hash_of_mu(mu: dict[str, Tensor]) -> str | None:
    """The sha256 of the calibration; None without calibration."""
    if not mu:
        return None
    # float64 on the CPU, in the order of the names: the same bytes on every device.
    return hashlib.sha256(
        b"".join(mu[name].double().cpu().numpy().tobytes() for name in sorted(mu))
    ).hexdigest()


def carries_encoder(config: Config) -> bool:
    """Whether the released model holds the VGG."""
    return config.checkpoint.carry_encoder and FAMILIES[config.model.name].has_encoder


def release_tensors(config: Config, encoder: Encoder, trained: nn.Module) -> dict[str, Tensor]:
    """The tensors of a released model, by name.

    They are the trained weights, the calibration and, if it is included, the encoder up to its tap.
    """
    dtype = runtime.DTYPES.get(config.checkpoint.release_dtype, torch.float32)
    is_adapter = config.train.adapter_rank > 0  # the base has the rest of the network
    prefix = "adapter" if is_adapter else "decoder"
    own = adapters.adapter_tensors(trained) if is_adapter else trained.state_dict()
    tensors = {f"{prefix}.{name}": tensor.detach().to(dtype) for name, tensor in own.items()}
    tensors |= {f"mu.{name}": mean for name, mean in encoder.mu.items()}
    if carries_encoder(config) and not is_adapter:
        # The run's network may reach deeper for its losses.
        needed = VGG(config.encoder.name, config.encoder.tap).state_dict().keys()
        tensors |= {
            f"encoder.{name}": tensor
            for name, tensor in encoder.network.state_dict().items()
            if name in needed
        }
    return tensors
