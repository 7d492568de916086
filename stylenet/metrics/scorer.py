"""The score of a picture: the networks and formulas that a protocol asks for."""

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

    `missing` holds, for each metric that cannot be computed, what it needs.
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
        # A Fréchet or kernel distance needs two vectors on each side.
        if min(len(pairs.pairs), len({style for _, style in pairs.pairs})) < 2:
            of_sets = [name for name in catalogue.names_of("set") if self.wants(name)]
            self.missing |= dict.fromkeys(of_sets, "needs at least two pairs with two styles")
        # A metric that the user named must not vanish silently; a default one may.
        refused = [name for name in asked_for if name in self.missing]
        if refused:
            raise WeightsError(
                f"{refused[0]} was asked for, but cannot be computed: {self.missing[refused[0]]}"
            )

    def wants(self, *names: str) -> bool:
        """Whether the protocol asks for one of the metrics and it can be computed."""
        return any(name in self.options.names and name not in self.missing for name in names)

    def taps_of(self, metric: str) -> tuple[str, ...]:
        """The judge's layers that a metric needs."""
        option = CATALOGUE[metric].taps
        value = getattr(self.options, option) if option else ()
        return (value,) if isinstance(value, str) else tuple(value)

    def load_judge(self, pairs: Pairs) -> build.Judge | None:
        """The judge, as deep as the metrics need and as its file reaches; None without use.

        Metrics beyond its reach go to `missing`.
        """
        name, metrics = self.protocol.judge.name, [m for m in self.options.names if self.taps_of(m)]
        try:
            if not metrics:
                return None
            # A file may hold only the first layers.
            reach = reach_of_file(name, find_weights(name, self.protocol.judge.weights))
            order = tap_names(name)
            for metric in metrics:
                last = deepest(name, self.taps_of(metric))
                if order.index(last) > order.index(reach):
                    self.missing[metric] = (
                        f"needs {name} weights up to {last}, but the file ends at {reach}"
                    )
            self.judge_taps = {
                tap
                for metric in metrics
                if metric not in self.missing
                for tap in self.taps_of(metric)
            }
            if not self.judge_taps:
                return None
            # The pictures are loaded only if the judge is calibrated.
            judge = build.make_judge(
                self.protocol, self.judge_taps, lambda: self.calibration_pictures(pairs)
            )
        except WeightsError as error:
            self.missing |= dict.fromkeys(metrics, f"needs the {name} of the judge ({error})")
            return None
        judge.network.to(self.device)
        self.networks["judge"] = {"network": name, "normalised file": judge.is_normalised_file}
        self.networks["judge"] |= {"sha256": judge.sha256, "calibration sha256": judge.mu_sha256}
        return judge

    def calibration_pictures(self, pairs: Pairs) -> Iterator[Tensor]:
        """Each evaluated picture once."""
        # The two lists hold contents and styles in the order of the pairs.
        used = [
            [paths[i] for i in dict.fromkeys(pair[k] for pair in pairs.pairs)]
            for k, paths in enumerate(pairs[:2])
        ]
        return (load_picture(path, self.protocol) for path in (*used[0], *used[1]))

    def load(self, name: str, loader: Callable[[], tuple[Any, str]]) -> Any:
        """A network that some metrics need; None, with their names in `missing`, if it fails."""
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
        """LPIPS on the device, and its sha256."""
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
        """The description of a picture [1, 3, H, W], from every network."""
        image, options = image.to(self.device), self.options
        features = self.judge.network(image, sorted(self.judge_taps)) if self.judge else {}
        content_features = {
            tap: features[tap]
            for tap in (*options.content_taps, options.target_tap)
            if tap in features
        }
        stats = {
            tap: channel_stats(features[tap])
            for tap in (*options.style_taps, options.target_tap)
            if tap in features
        }
        grams = {
            tap: gram(features[tap])
            for tap in options.style_taps
            if tap in features and self.wants("gram")
        }
        has_lpips = self.lpips is not None
        return Description(
            image,
            features=content_features,
            stats=stats,
            grams=grams,
            structure=self.structure(image),
            perception=self.lpips.features(image) if has_lpips else None,
            perception_heads=self.lpips.heads if has_lpips else None,
            vectors=self.vectors(image, features),
        )

    def structure(self, image: Tensor) -> Tensor | None:
        """The features that CFSD compares."""
        if not self.wants("cfsd"):
            return None
        tap = self.options.cfsd_tap
        # A pass of its own, since CFSD has its own size.
        return self.judge.network(extractors.at_shortest(image, self.options.cfsd_px), [tap])[tap]

    def vectors(self, image: Tensor, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The vectors for the metrics of a set, [D] each."""
        vectors: dict[str, Tensor] = {}
        if self.wants("vgg_frechet"):
            # mean over the positions: [1, C]
            vectors["vgg"] = features[self.options.frechet_tap].mean(dim=(2, 3))
        if self.inception is not None:
            vectors["inception"] = self.inception(image)
        if self.art_inception is not None:
            vectors["art"] = self.art_inception(image)
        return {name: vector[0].float().cpu() for name, vector in vectors.items()}

    @torch.inference_mode()
    def score(
        self, output: Description, content: Description, style: Description
    ) -> dict[str, float]:
        """All metrics of the output for a content and a style."""
        values: dict[str, Tensor] = {}
        for name in self.pair_metrics():  # the name is also that of the function
            value = getattr(formulas, name)(output, content, style, self.options)
            values |= per_tap(name, value) if isinstance(value, dict) else {name: value}
        return {name: float(value) for name, value in values.items()}

    def pair_metrics(self) -> list[str]:
        """The pair metrics to compute; ArtFID needs LPIPS too."""
        return [
            name
            for name in catalogue.names_of("pair")
            if self.wants(name) or (name == "lpips" and self.wants("artfid"))
        ]


def per_tap(name: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`name` as the mean over the layers, and `name/tap` for each layer."""
    return {name: torch.stack(list(values.values())).mean()} | {
        f"{name}/{tap}": value for tap, value in values.items()
    }
