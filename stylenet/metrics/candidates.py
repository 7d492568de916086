"""Who takes part in an evaluation: models, folders of pictures, and the two controls; and what a
model costs.
"""

from __future__ import annotations

import abc
import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylenet import images, runtime
from stylenet.applying.stylizer import Stylizer, identify, load_network
from stylenet.checkpoint import find_release, read_release
from stylenet.csv_files import read_rows
from stylenet.errors import DataError
from stylenet.looks import make_look
from stylenet.metrics.pairs import Pairs


class Candidate(abc.ABC):
    """Something that gives a picture for a pair; `id` changes whenever its pictures may."""

    kind = "control"

    def __init__(
        self, name: str, candidate_id: str, alphas: Sequence[float | None] = (None,)
    ) -> None:
        self.name, self.id, self.alphas = name, candidate_id, tuple(alphas)
        self.facts: dict[str, Any] = {}

    @abc.abstractmethod
    def picture(
        self,
        pairs: Pairs,
        pair: tuple[int, int],
        content: Tensor,
        style: Tensor,
        alpha: float | None,
    ) -> Tensor:
        """The picture of a content and a style [1, 3, H, W], in the content's size."""


class ContentCopy(Candidate):
    """The control that changes nothing."""

    def __init__(self) -> None:
        super().__init__("content copy", "control:content")

    def picture(
        self,
        pairs: Pairs,
        pair: tuple[int, int],
        content: Tensor,
        style: Tensor,
        alpha: float | None,
    ) -> Tensor:
        return content


class StyleCopy(Candidate):
    """The control that forgets the content."""

    def __init__(self) -> None:
        super().__init__("style copy", "control:style")

    def picture(
        self,
        pairs: Pairs,
        pair: tuple[int, int],
        content: Tensor,
        style: Tensor,
        alpha: float | None,
    ) -> Tensor:
        same = style.shape == content.shape
        return (
            style
            if same
            else torch.nn.functional.interpolate(
                style, content.shape[-2:], mode="bilinear", antialias=True
            )
        )


class Model(Candidate):
    """A trained network at one or several strengths."""

    kind = "model"

    def __init__(
        self, path: str, name: str, alphas: Sequence[float], device: str, encoder: str | None
    ) -> None:
        self.path, self.encoder, self.device = path, encoder, device
        found = find_release(path)
        self.stylizer = Stylizer.load(path, device, encoder_weights=encoder)
        parts = identify(path, encoder)
        super().__init__(name, "model:" + "+".join(parts), alphas)
        self.facts = {"path": str(path), "sha256": parts[0]} | self.describe(found)
        self.style_code = functools.lru_cache(maxsize=64)(
            lambda number: self.stylizer.encode_style(self.style)
        )
        self.content_features = functools.lru_cache(maxsize=1)(
            lambda number: self.stylizer.encode_content(self.content)
        )

    def describe(self, found: Path) -> dict[str, Any]:
        """What is known of the training."""
        if found.suffix == ".pth":
            return {"origin": "a decoder in pytorch-AdaIN's layout"}
        about = read_release(found)[1]
        kept = (
            "git_commit",
            "step",
            "data",
            "transform",
            "encoder",
            "decoder",
            "wandb_run",
            "config",
        )
        return {name: about[name] for name in kept if name in about}

    def picture(
        self,
        pairs: Pairs,
        pair: tuple[int, int],
        content: Tensor,
        style: Tensor,
        alpha: float | None,
    ) -> Tensor:
        self.content, self.style = content, style
        features, shape = self.content_features(pair[0])
        return self.stylizer.render(
            features, shape, make_look([self.style_code(pair[1])], alpha=alpha)
        )


class Folder(Candidate):
    """Pictures that another program made, paired by a manifest: columns content, style, output."""

    kind = "images"

    def __init__(self, folder: str, name: str, pairs: Pairs) -> None:
        self.folder = Path(folder)
        rows = [
            row
            for _, row in read_rows(self.folder / "manifest.csv", ("content", "style", "output"))
        ]
        self.outputs = {
            (row["content"], row["style"]): self.folder / row["output"]
            for row in rows
            if row["output"]
        }
        wanted = [
            (pairs.names[pairs.contents[c]], pairs.names[pairs.styles[s]]) for c, s in pairs.pairs
        ]
        missing = [
            pair for pair in wanted if pair not in self.outputs or not self.outputs[pair].is_file()
        ]
        if missing:
            raise DataError(
                f"expected a picture for each of the {len(wanted)} pairs in "
                f"{folder}/manifest.csv, but {len(missing)} are missing, "
                f"first {missing[0][0]} + {missing[0][1]}; --dry-run writes the list of pairs"
            )
        digest = hashlib.sha256()
        for pair in wanted:
            digest.update(f"{pair}".encode() + self.outputs[pair].read_bytes())
        super().__init__(name, f"images:{digest.hexdigest()}")
        self.facts = {"path": str(folder), "sha256": digest.hexdigest()}

    def picture(
        self,
        pairs: Pairs,
        pair: tuple[int, int],
        content: Tensor,
        style: Tensor,
        alpha: float | None,
    ) -> Tensor:
        path = self.outputs[
            pairs.names[pairs.contents[pair[0]]], pairs.names[pairs.styles[pair[1]]]
        ]
        picture = images.load_image(path)[None]
        if picture.shape != content.shape:
            sizes = [
                f"{tuple(x.shape[:-3:-1])[0]} x {tuple(x.shape[:-3:-1])[1]}"
                for x in (content, picture)
            ]
            raise DataError(
                f"expected {sizes[0]} pixels as the protocol's content has, but {path} has "
                f"{sizes[1]}; make it anew"
            )
        return picture


def short_name(path: str) -> str:
    """What a model is called in a table: its run folder's name, else its file's stem."""
    found = Path(path).resolve()
    is_in_run = found.is_file() and found.parent.name and found.stem == "model"
    return found.parent.name if is_in_run else found.name if found.is_dir() else found.stem


def distinct(names: Iterable[str]) -> list[str]:
    """The names, with a number behind those that came before or are a control's."""
    seen = {control().name: 1 for control in (ContentCopy, StyleCopy)}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result


def measure_cost(model: Model, px: int, n_rounds: int) -> dict[str, Any]:
    """The model's cost at px x px, measured in a fresh process, so that nothing else is in its
    memory.
    """
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=send_cost,
        args=(theirs, model.path, model.encoder, model.device, px, n_rounds),
        daemon=True,
    )
    process.start()
    theirs.close()
    cost = ours.recv()
    process.join()
    return cost


def send_cost(connection: Any, *arguments: Any) -> None:
    """In the fresh process: measure and report."""
    connection.send(cost_of(*arguments))


def cost_of(path: str, encoder: str | None, device: str, px: int, n_rounds: int) -> dict[str, Any]:
    """Parameters, multiply-accumulates, seconds and peak bytes of restyling one picture of px x px
    in full float32.
    """
    runtime.allow_tf32(False)
    stylizer = Stylizer.load(path, device, encoder_weights=encoder)
    content, style = torch.rand(2, 1, 3, px, px, generator=torch.Generator().manual_seed(0))
    peak = runtime.PeakMemory(stylizer.device)
    stylizer(content, style)
    cost = {"peak_bytes": peak.above_start()}
    code = stylizer.encode_style(style)
    cost["seconds"] = median_seconds(lambda: stylizer(content, style), n_rounds)
    cost["seconds_cached_style"] = median_seconds(lambda: stylizer(content, code), n_rounds)
    plain = load_network(path, encoder)
    cost["parameters"] = sum(p.numel() for p in plain.parameters())
    cost["macs"] = count_macs(plain, px)
    return cost | {"px": px, "hardware": runtime.hardware(stylizer.device)}


def median_seconds(action: Callable[[], Any], n_rounds: int) -> float:
    """The median duration of an action whose result is on the CPU when it returns."""
    import statistics
    import time

    durations = []
    for _ in range(n_rounds):
        start = time.perf_counter()
        action()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def count_macs(net: torch.nn.Module, px: int) -> int:
    """Multiply-accumulates of the convolutions and matrix products for one picture of px x px with
    its style.
    """
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, 3, px, px)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(image, image)
    return counter.get_total_flops() // 2
