"""The score of one picture: networks and formulas put together as a protocol says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylenet import build
from stylenet.errors import WeightsError
from stylenet.losses import gram
from stylenet.metrics import catalogue, extractors, formulas
from stylenet.metrics.catalogue import CATALOGUE
from stylenet.metrics.formulas import Description
from stylenet.metrics.pairs import Pairs, load_picture
from stylenet.models.vgg import deepest, tap_names
from stylenet.models.vgg_files import find_weights, reach_of_file
from stylenet.transforms import channel_stats

if TYPE_CHECKING:
    from stylenet.config.protocol import Protocol


class Scorer:
    """The networks and the formulas.

    `missing` says of each metric that cannot be computed what it needs.
    """

    def __init__(
        self, protocol: Protocol, pairs: Pairs, device: torch.device, asked_for: Sequence[str] = ()
    ) -> None:
        self.protocol, self.options, self.device = protocol, protocol.metrics, device
        self.missing: dict[str, str] = {}
        self.networks: dict[str, Any] = {}
        self.judge = self.load_judge(pairs)
        self.lpips = self.load("lpips", self.load_lpips)
        self.inception = self.load("inception", self.load_inception)
        self.art_inception = self.load("art_inception", self.load_art_inception)
        if min(len(pairs.pairs), len({style for _, style in pairs.pairs})) < 2:
            of_sets = [name for name in catalogue.names_of("set") if self.wants(name)]
            self.missing |= dict.fromkeys(of_sets, "needs at least two pairs with two styles")
        refused = [name for name in asked_for if name in self.missing]
        if refused:
            raise WeightsError(
                f"{refused[0]} was asked for, but cannot be computed: {self.missing[refused[0]]}"
            )

    def wants(self, *names: str) -> bool:
        """Whether one of the metrics is wanted and can be computed."""
        return any(name in self.options.names and name not in self.missing for name in names)

    def taps_of(self, metric: str) -> tuple[str, ...]:
        """The judge's layers that a metric needs."""
        option = CATALOGUE[metric].taps
        value = getattr(self.options, option) if option else ()
        return (value,) if isinstance(value, str) else tuple(value)

    def load_judge(self, pairs: Pairs) -> build.Judge | None:
        """The judge, as deep as the wanted metrics need and its file reaches."""
        name, wanted = self.protocol.judge.name, [m for m in self.options.names if self.taps_of(m)]
        try:
            if not wanted:
                return None
            reach = reach_of_file(name, find_weights(name, self.protocol.judge.weights))
            order = tap_names(name)
            for metric in wanted:
                last = deepest(name, self.taps_of(metric))
                if order.index(last) > order.index(reach):
                    self.missing[metric] = (
                        f"needs {name} weights up to {last}, but the file ends at {reach}"
                    )
            self.judge_taps = {
                tap
                for metric in wanted
                if metric not in self.missing
                for tap in self.taps_of(metric)
            }
            if not self.judge_taps:
                return None
            judge = build.make_judge(
                self.protocol, self.judge_taps, lambda: self.calibration_pictures(pairs)
            )
        except WeightsError as error:
            self.missing |= dict.fromkeys(wanted, f"needs the {name} of the judge ({error})")
            return None
        judge.network.to(self.device)
        self.networks["judge"] = {"network": name, "normalised file": judge.is_normalised_file}
        self.networks["judge"] |= {"sha256": judge.sha256, "calibration sha256": judge.mu_sha256}
        return judge

    def calibration_pictures(self, pairs: Pairs) -> Iterator[Tensor]:
        """Every evaluated picture once."""
        used = [
            [paths[i] for i in dict.fromkeys(pair[k] for pair in pairs.pairs)]
            for k, paths in enumerate(pairs[:2])
        ]
        return (load_picture(path, self.protocol) for path in (*used[0], *used[1]))

    def load(self, name: str, loader: Callable[[], tuple[Any, str]]) -> Any:
        """A network that some wanted metrics need, or None with their names in `missing`."""
        metrics = catalogue.needing(name)
        if not any(metric in self.options.names for metric in metrics):
            return None
        try:
            network, sha256 = loader()
        except WeightsError as error:
            self.missing |= {
                metric: f"needs {name} ({error})"
                for metric in metrics
                if metric not in self.missing
            }
            return None
        self.networks[name] = {"sha256": sha256}
        return network

    def load_lpips(self) -> tuple[extractors.Lpips, str]:
        """LPIPS on the device."""
        options = self.protocol.networks
        network, sha256 = extractors.load_lpips(
            self.options.lpips_net, options.lpips, options.download
        )
        return network.to(self.device), sha256

    def load_inception(self) -> extractors.Extractor:
        """The Inception of FID."""
        return extractors.load_inception(
            self.protocol.networks.inception, self.protocol.networks.download
        )

    def load_art_inception(self) -> extractors.Extractor:
        """The Inception of ArtFID."""
        return extractors.load_art_inception(self.protocol.networks.art_inception)

    @torch.inference_mode()
    def describe(self, image: Tensor) -> Description:
        """Run every network on a picture [1, 3, H, W]."""
        image, options = image.to(self.device), self.options
        found = self.judge.network(image, sorted(self.judge_taps)) if self.judge else {}
        kept = {
            tap: found[tap] for tap in (*options.content_taps, options.target_tap) if tap in found
        }
        stats = {
            tap: channel_stats(found[tap])
            for tap in (*options.style_taps, options.target_tap)
            if tap in found
        }
        grams = {
            tap: gram(found[tap])
            for tap in options.style_taps
            if tap in found and self.wants("gram")
        }
        has_lpips = self.lpips is not None
        return Description(
            image,
            features=kept,
            stats=stats,
            grams=grams,
            structure=self.structure(image),
            perception=self.lpips.features(image) if has_lpips else None,
            perception_heads=self.lpips.heads if has_lpips else None,
            vectors=self.vectors(image, found),
        )

    def structure(self, image: Tensor) -> Tensor | None:
        """The features that CFSD compares."""
        if not self.wants("cfsd"):
            return None
        tap = self.options.cfsd_tap
        return self.judge.network(extractors.at_shortest(image, self.options.cfsd_px), [tap])[tap]

    def vectors(self, image: Tensor, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The vectors that the metrics of a whole set are made of."""
        found: dict[str, Tensor] = {}
        if self.wants("vgg_frechet"):
            found["vgg"] = features[self.options.frechet_tap].mean(dim=(2, 3))
        if self.inception is not None:
            found["inception"] = self.inception(image)
        if self.art_inception is not None:
            found["art"] = self.art_inception(image)
        return {name: vector[0].float().cpu() for name, vector in found.items()}

    @torch.inference_mode()
    def score(
        self, output: Description, content: Description, style: Description
    ) -> dict[str, float]:
        """All metrics of a picture that was made from the content and the style."""
        values: dict[str, Tensor] = {}
        for name in self.pair_metrics():
            value = getattr(formulas, name)(output, content, style, self.options)
            values |= per_tap(name, value) if isinstance(value, dict) else {name: value}
        return {name: float(value) for name, value in values.items()}

    def pair_metrics(self) -> list[str]:
        """The metrics of a pair that are computed; ArtFID is made of LPIPS."""
        return [
            name
            for name in catalogue.names_of("pair")
            if self.wants(name) or (name == "lpips" and self.wants("artfid"))
        ]


def per_tap(name: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`name` as the mean over the layers, and `name/tap` for each."""
    return {name: torch.stack(list(values.values())).mean()} | {
        f"{name}/{tap}": value for tap, value in values.items()
    }
