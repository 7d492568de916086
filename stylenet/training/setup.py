"""The objects of a run: data, networks, and what trains them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stylenet import build, checkpoint, datasets, images, runtime
from stylenet.datasets import Batch
from stylenet.errors import DataError, UsageError
from stylenet.models.critic import Critic
from stylenet.motion import Motion
from stylenet.training import parts
from stylenet.training.adversary import Adversary
from stylenet.training.parts import Part

if TYPE_CHECKING:
    from stylenet.config.training import Config

NETWORK, CRITIC = "network", "critic"  # the first one is released


class Setup:
    """Everything that computes in a run. `folder` is named in messages only."""

    def __init__(
        self, config: Config, device: torch.device, state: dict[str, Any] | None, folder: Path
    ) -> None:
        self.config, self.device, self.folder = config, device, folder
        self.layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        self.last_batch: tuple[Tensor, Tensor] | None = None  # on the device
        self.make_data()
        self.make_networks(state)
        self.description = build.describe_run(config, self.encoder, self.data, device) | {
            "started_from": self.started_from,
            **self.adapter,
        }
        if state:
            self.load(state)
        self.net = self.make_learner()

    def make_data(self) -> None:
        """Image sets, their caches, and the stream of samples."""
        self.data = build.make_data(self.config)
        self.sources = build.make_sources(self.config, self.data, self.device)
        self.dataset = build.make_dataset(self.config, self.sources)
        self.bad_files = datasets.BadFiles(sum(map(len, self.sources)), self.config.data.max_bad)

    def make_networks(self, state: dict[str, Any] | None) -> None:
        """The calibrated encoder, the objective, the network at its start, and its optimiser."""
        config = self.config
        raw = build.make_raw_encoder(config)
        raw.network.to(self.device, memory_format=self.layout)
        trained, mu = build.make_trained(config), self.take_start(raw, state)
        if self.start:
            trained.load_state_dict(self.start.trained)
        build.add_adapters(config, trained)
        self.encoder = build.calibrate_encoder(raw, mu)
        trained.to(self.device, memory_format=self.layout)
        self.parts = {
            NETWORK: Part(
                trained, build.make_optimizer(config, trained), build.make_average(config, trained)
            )
        }
        self.adversary = self.make_adversary()
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=config.train.precision == "fp16"
        )
        self.learning_rate, self.objective = (
            build.make_schedule(config),
            build.make_objective(config, self.encoder),
        )

    def make_adversary(self) -> Adversary | None:
        """The critic, which is one more part of the run; None without an adversarial loss."""
        if not self.config.loss.adversarial_weight:
            return None
        options, seed = self.config.critic, self.config.run.seed
        critic = Critic(options.channels, seed).to(self.device, memory_format=self.layout)
        adversary = Adversary(critic, options.lr, options.r1_weight)
        self.parts[CRITIC] = adversary.part
        return adversary

    def take_start(self, raw: build.Encoder, state: dict[str, Any] | None) -> dict[str, Tensor]:
        """The calibration: the resumed run's, the starting point's, or a new measurement.

        Notes the starting point.
        """
        self.start = None
        if state:
            before = state["release"]["description"]
            checkpoint.check_encoder(before, raw.sha256, self.folder)
            self.started_from = before["started_from"]
            self.adapter = {name: before[name] for name in ("adapter",) if name in before}
            return checkpoint.with_prefix(state["release"]["tensors"], "mu.")
        self.start = build.load_starting_point(self.config, raw)
        self.started_from = self.start.description if self.start else None
        self.adapter = build.describe_adapter(self.config)
        if self.start and self.start.mu is not None:
            return self.start.mu
        # one process measures for all, lest rounding make the ranks' encoders differ
        return runtime.from_main(
            build.measure_mu(self.config, raw, self.sources) if runtime.is_main() else None
        )

    def load(self, state: dict[str, Any]) -> None:
        """Take over a resume state.

        Raises DataError if the sets are not those that it was trained on.
        """
        for kind, before in state["release"]["description"]["data"].items():
            now = self.description["data"][kind]
            if (now["train"], now["list_sha256"]) != (before["train"], before["list_sha256"]):
                raise DataError(
                    f"expected the {before['train']} {kind} images that the run began with, but "
                    f"{now['origin']} holds other "
                    f"files; put them back, or fine-tune a new run: train.init_from={self.folder}"
                )
        parts.load_states(self.parts, state["parts"])
        self.scaler.load_state_dict(state["scaler"])

    def make_learner(self) -> Any:
        """The network of the loop; compiled and spread over the processes where asked for."""
        trained = self.parts[NETWORK].module
        if self.config.train.compile:
            self.encoder.network.compile()
            trained.compile()
        trained.train()
        self.spread = None  # over the processes
        if runtime.world_size() > 1:
            if any(isinstance(module, nn.BatchNorm2d) for module in trained.modules()):
                if self.device.type != "cuda":
                    raise UsageError(
                        "expected GPUs for decoder.norm=batch in several processes, since only "
                        "there its statistics are shared; "
                        "use one"
                    )
                trained = nn.SyncBatchNorm.convert_sync_batchnorm(trained)
                self.parts[NETWORK] = self.parts[NETWORK]._replace(module=trained)
            self.spread = DistributedDataParallel(trained)
        return build.make_learner(self.config, self.encoder, self.spread or trained)

    def make_batches(self, samples_seen: int, is_stopped: Callable[[], bool]) -> Iterator[Batch]:
        """The batches of this process, from the first sample not yet seen, until `is_stopped`."""
        options = self.config.data
        sampler = datasets.EndlessSampler(
            samples_seen, options.batch_size, runtime.rank(), runtime.world_size()
        )
        pin = self.device.type == "cuda" and options.cache != "device"
        return datasets.make_batches(
            self.dataset,
            sampler,
            options.workers if options.cache == "none" else 0,
            pin,
            is_stopped,
        )

    def to_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Contents and styles as float32 in [0, 1] on the device, in the networks' layout.

        Raises DataError.
        """
        self.bad_files.report(batch)
        on_device = (
            pixels.to(self.device, non_blocking=True) for pixels in (batch.content, batch.style)
        )
        self.last_batch = tuple(
            images.to_unit(pixels).contiguous(memory_format=self.layout) for pixels in on_device
        )
        return self.last_batch

    def shift(self, step: int) -> tuple[int, int]:
        """The pixels by which the shift loss moves the contents of a step."""
        return datasets.shift_of(self.config.run.seed, step)

    def motion(self, step: int) -> Motion | None:
        """The motion of the motion loss in a step; None without that loss."""
        if not self.config.loss.motion_weight:
            return None
        side_px = self.config.data.crop_px
        return datasets.motion_of(self.config.run.seed, step, side_px, side_px)

    def gradients_shared(self, is_last: bool) -> contextlib.AbstractContextManager:
        """Context of a backward pass: processes share gradients after the last batch of a step."""
        return self.spread.no_sync() if self.spread and not is_last else contextlib.nullcontext()

    def clip_gradients(self) -> None:
        """Scale the gradients down to optim.clip_norm where they are above it."""
        if self.config.optim.clip_norm:
            parts.clip_gradients(self.network, self.scaler, self.config.optim.clip_norm)

    @property
    def network(self) -> Part:
        """The part that is released."""
        return self.parts[NETWORK]

    def make_shown(self) -> Any:
        """The network that is released, for evaluation: the average if there is one."""
        return build.make_learner(self.config, self.encoder, self.network.shown.eval())

    def make_present(self) -> Any:
        """The network as its last step left it, for evaluation."""
        return build.make_learner(self.config, self.encoder, self.network.module.eval())
