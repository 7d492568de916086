"""What a network does with a pair: statistics by depth, where losses arise, each layer alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylenet import images
from stylenet.applying.stylizer import Stylizer
from stylenet.csv_files import write_rows
from stylenet.losses import stats_distance
from stylenet.metrics.candidates import Model
from stylenet.metrics.suite import Evaluation
from stylenet.models.vgg import VGG
from stylenet.transforms import StyleCode, channel_stats

COLUMNS = ("layer", "channel", "statistic", "content", "style", "output", "moved_by")


def explain(evaluation: Evaluation, folder: Path, n_pairs: int) -> list[Path]:
    """Write a folder for each model and pair; returns them.

    In each: statistics.csv (each channel of each layer, most moved first), losses.csv (how far the
    output has come from the content to the style, by layer), pictures.png (content, style, output),
    content_loss.png and style_loss.png (where they arise), layers.png (each part of the style code
    alone).
    """
    places = []
    for model in (c for c in evaluation.candidates if isinstance(c, Model)):
        for number in range(min(n_pairs, len(evaluation.pairs.pairs))):
            place = folder / "explain" / model.name / f"pair_{number + 1:03d}"
            explain_one(evaluation, model, number, place)
            places.append(place)
    return places


def explain_one(evaluation: Evaluation, model: Model, number: int, place: Path) -> None:
    """Write the folder of one model and one pair."""
    judge, device = evaluation.scorer.judge.network, evaluation.scorer.device
    taps = evaluation.scorer.options.style_taps
    pair = evaluation.load_pair(number)
    output = evaluation.picture(model, number)
    content, style, output = (picture.to(device) for picture in (*pair, output))
    stats = [stats_by_tap(judge, picture, taps) for picture in (content, style, output)]
    write_rows(place / "statistics.csv", COLUMNS, statistics_rows(*stats))
    header = ("layer", "content_to_style", "output_to_style", "share_left")
    write_rows(place / "losses.csv", header, loss_rows(*stats))
    content_map = content_loss_map(judge, content, output, evaluation.scorer.options.target_tap)
    style_map = style_loss_map(judge, style, output, taps)
    images.save_image(
        images.make_grid([same_size(content, [content, style, output])]), place / "pictures.png"
    )
    images.save_image(heat(content_map, output), place / "content_loss.png")
    images.save_image(heat(style_map, output), place / "style_loss.png")
    alone = list(parts_alone(model.stylizer, content, style))
    if alone:
        images.save_image(images.make_grid([same_size(content, alone)]), place / "layers.png")


@torch.no_grad()
def stats_by_tap(judge: VGG, image: Tensor, taps: Sequence[str]) -> dict[str, StyleCode]:
    """Channel means and deviations of a picture [1, 3, H, W] at each layer."""
    return {tap: channel_stats(x) for tap, x in judge(image, list(taps)).items()}


def statistics_rows(
    content: dict[str, StyleCode], style: dict[str, StyleCode], output: dict[str, StyleCode]
) -> Iterator[list[Any]]:
    """A row for each statistic of each channel, in each layer the most moved first.

    `moved_by` is the output's distance from the content, in deviations of the content's channel.
    """
    for tap in content:
        rows = []
        deviation = content[tap][1].flatten()
        for k, name in enumerate(("mean", "deviation")):
            c, s, o = (stats[tap][k].flatten() for stats in (content, style, output))
            moved = (o - c) / deviation
            rows += [
                [tap, i, name, *(round(v, 6) for v in values)]
                for i, values in enumerate(
                    zip(c.tolist(), s.tolist(), o.tolist(), moved.tolist(), strict=True)
                )
            ]
        yield from sorted(rows, key=lambda row: -abs(row[-1]))


def loss_rows(
    content: dict[str, StyleCode], style: dict[str, StyleCode], output: dict[str, StyleCode]
) -> Iterator[list[Any]]:
    """By layer: the style loss of the content and of the output, and the share that is left."""
    for tap in content:
        before = stats_distance(content[tap], style[tap]).item()
        after = stats_distance(output[tap], style[tap]).item()
        yield [tap, before, after, after / before if before else 0.0]


@torch.no_grad()
def content_loss_map(judge: VGG, content: Tensor, output: Tensor, tap: str) -> Tensor:
    """Where the normalised content loss arises: its mean over channels, [h, w]."""
    maps = []
    for picture in (content, output):
        features = judge(picture, [tap])[tap]
        mean, std = channel_stats(features)
        maps.append((features - mean) / std)
    return (maps[0] - maps[1]).square().mean(1)[0]


def style_loss_map(judge: VGG, style: Tensor, output: Tensor, taps: Sequence[str]) -> Tensor:
    """How much each pixel of the output changes the style loss: the gradient's size, [H, W]."""
    pixels = output.clone().requires_grad_()
    wanted = stats_by_tap(judge, style, taps)
    features = judge(pixels, list(taps))
    sum(stats_distance(channel_stats(features[tap]), wanted[tap]) for tap in taps).backward()
    return pixels.grad.square().sum(1)[0].sqrt()


def heat(values: Tensor, picture: Tensor) -> Tensor:
    """A map [h, w] as red over a grey picture [1, 3, H, W]; its 98th percentile is full red."""
    size = picture.shape[-2:]
    wide = F.interpolate(values[None, None].float(), size=size, mode="bilinear")[0, 0]
    share = (
        wide / wide.flatten().kthvalue(max(1, int(0.98 * wide.numel()))).values.clamp_min(1e-12)
    ).clamp(0, 1)
    grey = picture[0].float().mean(0) * 0.7
    red = grey + (1 - grey) * share
    return torch.stack([red, grey * (1 - share), grey * (1 - share)])


def parts_alone(stylizer: Stylizer, content: Tensor, style: Tensor) -> Iterator[Tensor]:
    """The content in one depth of the style's code, and in its own at all others.

    A depth has a mean and a deviation. A network with one depth gives its mean alone, and its
    deviation alone. Nothing for a network whose code holds something else.
    """
    own, other = stylizer.encode_style(content), stylizer.encode_style(style)
    is_paired = len(own) % 2 == 0 and all(part.shape[2:] == (1, 1) for part in own)
    if not own or not is_paired:
        return
    groups = [(k, k + 1) for k in range(0, len(own), 2)] if len(own) > 2 else [(0,), (1,)]
    for group in groups:
        code = tuple(other[k] if k in group else own[k] for k in range(len(own)))
        yield stylizer(content.cpu(), code)


def same_size(like: Tensor, pictures: Sequence[Tensor]) -> list[Tensor]:
    """Pictures [1, 3, h, w] at one size, as [3, H, W]."""
    size = like.shape[-2:]
    return [
        F.interpolate(p.float(), size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
        for p in pictures
    ]
