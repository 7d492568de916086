"""The score of one picture: networks and formulas put together as a protocol says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stylenet import build
from stylenet.build import Protocol
from stylenet.errors import WeightsError
from stylenet.losses import content_loss, gram, stats_distance
from stylenet.metrics import extractors, functional
from stylenet.metrics.pairs import Pairs, load_picture
from stylenet.models.vgg import deepest, find_weights, reach_of_file, tap_names
from stylenet.transforms import StyleCode, align, channel_stats

# the metrics of all pictures together, by the network whose vectors they compare
VECTORS_OF = {"vgg_frechet": "vgg", "fid": "inception", "kid": "inception", "artfid": "art"}


class Description(NamedTuple):
    """What the metrics need of a picture, be it a content, a style or an output: small enough to be kept."""

    image: Tensor
    features: dict[str, Tensor]  # at the content and target layers
    stats: dict[str, StyleCode]  # at the style and target layers
    grams: dict[str, Tensor]
    structure: Tensor | None  # features for CFSD
    perception: list[Tensor] | None  # features for LPIPS
    vectors: dict[str, Tensor]  # one [D] for each network whose set metrics are wanted


class Scorer:
    """The networks and the formulas. `missing` says of each metric that cannot be computed what it needs."""

    def __init__(self, protocol: Protocol, pairs: Pairs, device: torch.device, asked_for: Sequence[str] = ()) -> None:
        self.protocol, self.options, self.device = protocol, protocol.metrics, device
        self.missing: dict[str, str] = {}
        self.networks: dict[str, Any] = {}
        self.judge = self.load_judge(pairs)
        self.lpips = self.load("lpips", ("lpips", "artfid"), self.load_lpips)
        self.inception = self.load("inception", ("fid", "kid"), self.load_inception)
        self.art_inception = self.load("art_inception", ("artfid",), self.load_art_inception)
        if min(len(pairs.pairs), len({style for _, style in pairs.pairs})) < 2:
            of_sets = [name for name in VECTORS_OF if name in self.options.names and name not in self.missing]
            self.missing |= dict.fromkeys(of_sets, "needs at least two pairs with two styles")
        refused = [name for name in asked_for if name in self.missing]
        if refused:
            raise WeightsError(f"{refused[0]} was asked for, but cannot be computed: {self.missing[refused[0]]}")

    def wants(self, *names: str) -> bool:
        """Whether one of the metrics is wanted and can be computed."""
        return any(name in self.options.names and name not in self.missing for name in names)

    def taps_of(self, metric: str) -> tuple[str, ...]:
        """The judge's layers that a metric needs."""
        options = self.options
        per_metric = dict.fromkeys(("content", "content_norm"), options.content_taps)
        per_metric |= dict.fromkeys(("style", "style_relative", "gram"), options.style_taps)
        per_metric |= {"target": (options.target_tap,), "cfsd": (options.cfsd_tap,), "vgg_frechet": (options.frechet_tap,)}
        return per_metric.get(metric, ())

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
                    self.missing[metric] = f"needs {name} weights up to {last}, but the file ends at {reach}"
            self.judge_taps = {tap for metric in wanted if metric not in self.missing for tap in self.taps_of(metric)}
            if not self.judge_taps:
                return None
            judge = build.make_judge(self.protocol, self.judge_taps, lambda: self.calibration_pictures(pairs))
        except WeightsError as error:
            self.missing |= dict.fromkeys(wanted, f"needs the {name} of the judge ({error})")
            return None
        judge.network.to(self.device)
        self.networks["judge"] = {"network": name, "normalised file": judge.is_normalised_file}
        self.networks["judge"] |= {"sha256": judge.sha256, "calibration sha256": judge.mu_sha256}
        return judge

    def calibration_pictures(self, pairs: Pairs) -> Iterator[Tensor]:
        """Every evaluated picture once."""
        used = [[paths[i] for i in dict.fromkeys(pair[k] for pair in pairs.pairs)] for k, paths in enumerate(pairs[:2])]
        return (load_picture(path, self.protocol) for path in (*used[0], *used[1]))

    def load(self, name: str, metrics: Sequence[str], loader: Callable[[], tuple[Any, str]]) -> Any:
        """A network that some wanted metrics need, or None with their names in `missing`."""
        if not any(metric in self.options.names for metric in metrics):
            return None
        try:
            network, sha256 = loader()
        except WeightsError as error:
            self.missing |= {metric: f"needs {name} ({error})" for metric in metrics if metric not in self.missing}
            return None
        self.networks[name] = {"sha256": sha256}
        return network

    def load_lpips(self) -> tuple[extractors.Lpips, str]:
        """LPIPS on the device."""
        options = self.protocol.networks
        network, sha256 = extractors.load_lpips(self.options.lpips_net, options.lpips, options.download)
        return network.to(self.device), sha256

    def load_inception(self) -> extractors.Extractor:
        """The Inception of FID."""
        return extractors.load_inception(self.protocol.networks.inception, self.protocol.networks.download)

    def load_art_inception(self) -> extractors.Extractor:
        """The Inception of ArtFID."""
        return extractors.load_art_inception(self.protocol.networks.art_inception)

    @torch.inference_mode()
    def describe(self, image: Tensor) -> Description:
        """Run every network on a picture [1, 3, H, W]."""
        image, options = image.to(self.device), self.options
        found = self.judge.network(image, sorted(self.judge_taps)) if self.judge else {}
        kept = {tap: found[tap] for tap in (*options.content_taps, options.target_tap) if tap in found}
        stats = {tap: channel_stats(found[tap]) for tap in (*options.style_taps, options.target_tap) if tap in found}
        grams = {tap: gram(found[tap]) for tap in options.style_taps if tap in found and self.wants("gram")}
        perception = self.lpips.features(image) if self.lpips is not None else None
        return Description(image, kept, stats, grams, self.structure(image), perception, self.vectors(image, found))

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
    def score(self, output: Description, content: Description, style: Description) -> dict[str, float]:
        """All metrics of a picture that was made from the content and the style."""
        options, values = self.options, {}
        for name, formula in (("content", content_loss), ("content_norm", functional.content_norm)):
            if self.wants(name):
                values |= per_tap(name, {t: formula(output.features[t], content.features[t]) for t in options.content_taps})
        if self.wants("target"):  # the content loss of training: the distance to the AdaIN output
            tap = options.target_tap
            values["target"] = content_loss(output.features[tap], align(content.features[tap], style.stats[tap]))
        if self.wants("style", "style_relative"):
            values |= self.style_values(output, content, style)
        if self.wants("gram"):
            values |= per_tap(
                "gram", {t: functional.relative_distance(output.grams[t], style.grams[t]) for t in options.style_taps}
            )
        if self.wants("ssim"):
            values["ssim"] = functional.ssim(output.image, content.image, options.ssim_window)
        if self.wants("lpips", "artfid"):
            values["lpips"] = functional.lpips(content.perception, output.perception, self.lpips.heads)
        if self.wants("cfsd"):
            values["cfsd"] = functional.cfsd(content.structure, output.structure, options.cfsd_reduction)
        if self.wants("colour"):
            values["colour"] = functional.colour_distance(output.image, style.image, options.colour_bins)
        return {name: float(value) for name, value in values.items()}

    def style_values(self, output: Description, content: Description, style: Description) -> dict[str, Tensor]:
        """The style loss, and the same relative to the content copy's."""
        taps, reduction, values = self.options.style_taps, self.options.style_reduction, {}
        own, copied = (
            {tap: stats_distance(picture.stats[tap], style.stats[tap], reduction) for tap in taps} for picture in (output, content)
        )
        if self.wants("style"):
            values |= per_tap("style", own)
        if self.wants("style_relative"):
            means = (torch.stack(list(losses.values())).mean() for losses in (own, copied))
            values["style_relative"] = next(means) / next(means).clamp(min=1e-12)
        return values


def per_tap(name: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`name` as the mean over the layers, and `name/tap` for each."""
    return {name: torch.stack(list(values.values())).mean()} | {f"{name}/{tap}": value for tap, value in values.items()}
