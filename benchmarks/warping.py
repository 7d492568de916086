"""Measure the warping error of stylised real clips, with and without smoothing.

    pip install opencv-python-headless
    python benchmarks/warping.py --models runs/mine runs/tuned --clips clip.mp4 --style paintings/

The flow between two frames of the clip comes from DIS (Kroeger et al. 2016, OpenCV). A pixel counts
where the flow there and back agree, so what was hidden is left out, and where the clip's own frames
agree to 8 levels, so a wrong flow is too. The error is the root mean square difference, in levels
of 255, between each stylised frame and the one before it, warped by the flow (Lai et al. 2018). The
distance is that of the styles' statistics (the style loss of the VGG named by STYLENET_VGG19),
which says what a calmer clip costs.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Sequence

import flicker
import torch
from torch import Tensor

from stylenet import images
from stylenet.applying.clips.reading import Frame, open_source
from stylenet.applying.stylizer import Stylizer
from stylenet.losses import stats_distance
from stylenet.models.vgg import VGG
from stylenet.models.vgg_files import find_weights, load_vgg
from stylenet.motion import warp
from stylenet.transforms import channel_stats

TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
AGREEMENT_PX = 1.0  # between the flow there and back
AGREEMENT = 8.0  # levels of 255 between a frame and the warped one before it
EVERY = 8  # frames of a stylised clip between two whose style is measured


def flow_between(a: Tensor, b: Tensor) -> Tensor:
    """Where in frame b each pixel of frame a lies, [1, 2, H, W] in pixels; both uint8 [3, H, W]."""
    import cv2

    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    greys = [cv2.cvtColor(x.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY) for x in (a, b)]
    return torch.from_numpy(dis.calc(*greys, None)).permute(2, 0, 1)[None]


class Step:
    """From one frame of a clip to the next: the flow back, and where it holds."""

    def __init__(self, before: Tensor, now: Tensor) -> None:
        self.flow = flow_between(now, before)
        forth = warp(flow_between(before, now), self.flow)
        agrees = (self.flow + forth).norm(dim=1) < AGREEMENT_PX
        own = (self.warped(images.to_unit(before)) - images.to_unit(now)).abs().amax(0) * 255
        self.valid = agrees[0] & (own < AGREEMENT)

    def warped(self, picture: Tensor) -> Tensor:
        """A picture [3, H, W] of the frame before, as it should look now."""
        return warp(picture[None], self.flow)[0]

    def squared_error(self, before: Tensor, now: Tensor) -> float:
        """The mean squared difference in levels of 255 where the flow holds."""
        difference = (self.warped(before) - now)[:, self.valid] * 255
        return float(difference.square().mean())


def warping_error(pictures: Sequence[Tensor], steps: Sequence[Step]) -> float:
    """The warping error of a clip [3, H, W] in [0, 1]."""
    pairs = zip(steps, itertools.pairwise(pictures), strict=True)
    return statistics.fmean(step.squared_error(*pair) for step, pair in pairs) ** 0.5


@torch.inference_mode()
def style_distance(vgg: VGG, pictures: Sequence[Tensor], style: Tensor) -> float:
    """The mean style loss of a clip's pictures."""
    target = vgg(images.to_unit(style)[None], TAPS)
    losses = []
    for picture in pictures[::EVERY]:
        features = vgg(picture[None], TAPS)
        pairs = [(channel_stats(features[tap]), channel_stats(target[tap])) for tap in TAPS]
        losses.append(statistics.fmean(float(stats_distance(a, b, "mean")) for a, b in pairs))
    return statistics.fmean(losses)


def main() -> None:
    """Print a row for each clip, model and smoothing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", required=True, nargs="+")
    parser.add_argument("--clips", required=True, nargs="+")
    parser.add_argument("--style", required=True, help="a folder of paintings")
    parser.add_argument("--pairs", type=int, default=4, help="styles for each clip")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--smooth", type=float, nargs="+", default=[0, 0.15])
    options = parser.parse_args()
    vgg = load_vgg("vgg19", find_weights("vgg19", None), TAPS)
    paths = images.list_images(options.style)
    chosen = [paths[(2 * i + 1) * len(paths) // (2 * options.pairs)] for i in range(options.pairs)]
    styles = [images.load_bytes(path, options.size) for path in chosen]
    print(f"{options.pairs} styles, {options.frames} frames, shortest side {options.size}, fp32")
    print(f"{'clip':<28}{'model':<28}{'smooth':>7}{'error':>8}{'ratio':>7}{'style':>8}")
    stylizers = {model: Stylizer.load(model) for model in options.models}
    for clip in options.clips:
        source = open_source(clip, options.size, None)
        items = (item for item in source if isinstance(item, Frame))
        frames = [item.pixels for item in itertools.islice(items, options.frames)]
        steps = [Step(*pair) for pair in itertools.pairwise(frames)]
        own = warping_error([images.to_unit(frame) for frame in frames], steps)
        share = statistics.fmean(float(step.valid.float().mean()) for step in steps)
        print(f"{clip[-27:]:<28}{f'the clip itself ({share:.0%} of it)':<35}{own:>8.2f}")
        first: list[float] = []
        for name, stylizer in stylizers.items():
            encoded = {key: flicker.encoded(stylizer, frames, key) for key in (False, True)}
            for smooth_s in options.smooth:
                errors, distances = [], []
                for style in styles:
                    made = flicker.stylised(
                        stylizer, frames, encoded[smooth_s > 0], style, smooth_s
                    )
                    errors.append(warping_error(made, steps))
                    distances.append(style_distance(vgg, made, style))
                first = first or errors
                ratio = statistics.median(e / f for e, f in zip(errors, first, strict=True))
                print(
                    f"{clip[-27:]:<28}{name[-27:]:<28}{smooth_s:>7g}"
                    f"{statistics.median(errors):>8.2f}{ratio:>7.2f}"
                    f"{statistics.fmean(distances):>8.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
