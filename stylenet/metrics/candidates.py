"""The candidates of an evaluation: models, folders of pictures, and two controls.

The cost of a model is measured here too.
"""

from __future__ import annotations

import abc
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylenet import images, runtime
from stylenet.applying.stylizer import Stylizer, identify, is_published, load_network, split_adapter
from stylenet.checkpoint import find_release, read_release
from stylenet.csv_files import read_rows
from stylenet.errors import DataError
from stylenet.looks import make_look
from stylenet.metrics.pairs import Pairs


class Candidate(abc.ABC):
    """A source of a picture for each pair; its `id` changes whenever its pictures may change."""

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
    """The control that returns the content unchanged."""

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
    """The control that returns the style, resized to the content's size."""

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
        file = find_release(split_adapter(path)[1])
        self.stylizer = Stylizer.load(path, device, encoder_weights=encoder)
        parts = identify(path, encoder)
        super().__init__(name, "model:" + "+".join(parts), alphas)
        self.facts = {"path": str(path), "sha256": parts[0]} | self.describe(file)
        # The caches key on the picture's number; the tensor itself waits in an attribute. The
        # pairs come in the contents' order, so one content is enough.
        self.style_code = functools.lru_cache(maxsize=64)(
            lambda number: self.stylizer.encode_style(self.style)
        )
        self.encoded_content = functools.lru_cache(maxsize=1)(
            lambda number: self.stylizer.encode_content(self.content)
        )

    def describe(self, file: Path) -> dict[str, Any]:
        """What the model's file records of its training."""
        if is_published(file):  # bare weights, no description
            return {"origin": "a decoder in pytorch-AdaIN's layout"}
        description = read_release(file)[1]
        keys = (
            "git_commit",
            "step",
            "data",
            "transform",
            "encoder",
            "decoder",
            "wandb_run",
            "config",
        )
        return {name: description[name] for name in keys if name in description}

    def picture(
        self,
        pairs: Pairs,
        pair: tuple[int, int],
        content: Tensor,
        style: Tensor,
        alpha: float | None,
    ) -> Tensor:
        self.content, self.style = content, style
        encoded = self.encoded_content(pair[0])
        return self.stylizer.render(encoded, make_look([self.style_code(pair[1])], alpha=alpha))


class Folder(Candidate):
    """Pictures of another program, paired by a manifest.

    The manifest has the columns content, style, output. Raises DataError for a missing picture.
    """

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
        keys = [pairs.names_of(pair) for pair in pairs.pairs]
        missing = [
            pair for pair in keys if pair not in self.outputs or not self.outputs[pair].is_file()
        ]
        if missing:
            raise DataError(
                f"expected a picture for each of the {len(keys)} pairs in "
                f"{folder}/manifest.csv, but {len(missing)} are missing, "
                f"first {missing[0][0]} + {missing[0][1]}; --dry-run writes the list of pairs"
            )
        # The id covers names and bytes: a replaced picture is scored again.
        digest = hashlib.sha256()
        for pair in keys:
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
        path = self.outputs[pairs.names_of(pair)]
        picture = images.load_image(path)[None]
        if picture.shape != content.shape:
            sizes = [
                # [1, 3, H, W] read backwards: width x height
                f"{tuple(x.shape[:-3:-1])[0]} x {tuple(x.shape[:-3:-1])[1]}"
                for x in (content, picture)
            ]
            raise DataError(
                f"expected {sizes[0]} pixels as the protocol's content has, but {path} has "
                f"{sizes[1]}; make it anew"
            )
        return picture


def short_name(path: str) -> str:
    """A model's name in tables: that of its run folder, else its file's stem."""
    location = Path(split_adapter(path)[1]).resolve()
    # Every run's file is called model.safetensors, so its folder gives the name.
    is_in_run = location.is_file() and location.parent.name and location.stem == "model"
    return (
        location.parent.name if is_in_run else location.name if location.is_dir() else location.stem
    )


def distinct(names: Iterable[str]) -> list[str]:
    """The names, each repeated one with a number; the controls' names count as used."""
    taken = {control().name for control in (ContentCopy, StyleCopy)}
    result = []
    for name in names:
        numbered = (f"{name} ({i})" for i in itertools.count(2))
        label = next(label for label in itertools.chain([name], numbered) if label not in taken)
        taken.add(label)
        result.append(label)
    return result


def measure_cost(model: Model, px: int, n_rounds: int) -> dict[str, Any]:
    """The model's cost at px x px.

    It is measured in a fresh process, so that nothing else is in its memory.
    """
    import multiprocessing

    context = multiprocessing.get_context("spawn")  # a fork would inherit memory and CUDA state
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=send_cost,
        args=(theirs, model.path, model.encoder, model.device, px, n_rounds),
        daemon=True,
    )
    process.start()
    theirs.close()  # so that recv raises instead of waiting if the process dies
    try:
        return ours.recv()
    except EOFError:
        process.join()  # it sets exitcode
        raise DataError(
            f"expected the cost of {model.path}, but the process that measures it ended with "
            f"exit code {process.exitcode}; set images.resize_px below {px}"
        ) from None
    finally:
        process.join()


def send_cost(connection: Any, *arguments: Any) -> None:
    """Measure in the fresh process, and send the cost through the connection."""
    connection.send(cost_of(*arguments))


def cost_of(path: str, encoder: str | None, device: str, px: int, n_rounds: int) -> dict[str, Any]:
    """The cost of stylising one picture of px x px in full float32.

    It has parameters, multiply-accumulates, seconds and peak bytes.
    """
    runtime.allow_tf32(False)  # the same arithmetic on every card
    stylizer = Stylizer.load(path, device, encoder_weights=encoder)
    content, style = torch.rand(2, 1, 3, px, px, generator=torch.Generator().manual_seed(0))
    peak = runtime.PeakMemory(stylizer.device)
    stylizer(content, style)  # also warms up
    cost = {"peak_bytes": peak.above_start()}
    code = stylizer.encode_style(style)
    cost["seconds"] = median_seconds(lambda: stylizer(content, style), n_rounds)
    cost["seconds_cached_style"] = median_seconds(lambda: stylizer(content, code), n_rounds)
    # Parameters and products are those of the plain network, not of its fast form.
    plain = load_network(path, encoder)
    cost["parameters"] = sum(p.numel() for p in plain.parameters())
    cost["macs"] = count_macs(plain, px)
    return cost | {"px": px, "hardware": runtime.hardware(stylizer.device)}


def median_seconds(action: Callable[[], Any], n_rounds: int) -> float:
    """The median duration of an action that returns its result on the CPU."""
    import statistics
    import time

    durations = []
    for _ in range(n_rounds):
        start = time.perf_counter()
        action()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def count_macs(net: torch.nn.Module, px: int) -> int:
    """The multiply-accumulates for one picture and one style of px x px each.

    Convolutions and matrix products count.
    """
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, 3, px, px)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(image, image)
    return counter.get_total_flops() // 2  # PyTorch counts a multiply and an add as two
