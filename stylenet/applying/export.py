"""Export a network for other programs: ONNX, or PyTorch's own exported programs.

    stylenet export --to onnx runs/mine --output mine.onnx

writes mine.onnx (content and style as pictures, and a strength), mine.style.onnx (a style's code)
and mine.codes.onnx (a content, a mixture of codes, and a strength). Pictures are [1, 3, H, W] in
[0, 1], of any size from 32 pixels on.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim

from stylenet import __version__, files, hub
from stylenet.applying.stylizer import SHIPPED_MODEL, load_network
from stylenet.checkpoint import find_release, read_release
from stylenet.errors import Parser, UsageError, WeightsError, one_line
from stylenet.looks import Look
from stylenet.models.families import Network, family_of

Kind = Literal["onnx", "torch-export"]
KINDS: tuple[str, ...] = get_args(Kind)
SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}
OPSET = 20
# an example's sizes: no two alike, no multiples of anything
SHAPE, STYLE_SHAPE, N_STYLES = (1, 3, 93, 117), (1, 3, 75, 101), 3


class StyleIn(nn.Module):
    """A content and a style as pictures, and a strength."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, content: Tensor, style: Tensor, alpha: Tensor) -> Tensor:
        """The stylised content, [N, 3, H, W] in [0, 1]."""
        look = Look((self.net.encode_style(style),), alpha=alpha)
        return self.net.render(self.net.encode(content), content.shape, look)[0].clamp(0, 1)


class CodeOf(nn.Module):
    """A style as a picture."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, style: Tensor) -> tuple[Tensor, ...]:
        """The parts of its style code."""
        return self.net.encode_style(style)


class CodesIn(nn.Module):
    """A content, the weights of a mixture, a strength, and the codes of the mixture's styles.

    Each part of the codes has a row for each style. AdaIN is linear in a style's code, so mixing
    the codes is mixing what they align.
    """

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, content: Tensor, mixture: Tensor, alpha: Tensor, codes: Sequence[Tensor]
    ) -> Tensor:
        """The stylised content, [N, 3, H, W] in [0, 1]."""
        shares = (mixture / mixture.sum())[:, None, None, None]
        code = tuple((part * shares).sum(0, keepdim=True) for part in codes)
        look = Look((code,), alpha=alpha)
        return self.net.render(self.net.encode(content), content.shape, look)[0].clamp(0, 1)


class ContentIn(nn.Module):
    """A content alone, of a network for one style."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, content: Tensor) -> Tensor:
        """The stylised content, [N, 3, H, W] in [0, 1]."""
        look = Look(((),))
        return self.net.render(self.net.encode(content), content.shape, look)[0].clamp(0, 1)


class Graph(NamedTuple):
    """What is exported: a module, example inputs by name, which sizes are free, output names."""

    ending: str
    module: nn.Module
    inputs: dict[str, Any]
    free: dict[str, Any]
    outputs: list[str]


def graphs(net: Network) -> list[Graph]:
    """The graphs of a network: with the style as a picture, its code alone, with codes.

    A network for one style has a single graph. Raises UsageError for a transform whose style codes
    have no fixed size.
    """
    family = family_of(net)
    draw = torch.Generator().manual_seed(0)
    content, style = (torch.rand(*s, generator=draw) for s in (SHAPE, STYLE_SHAPE))
    free = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    if not family.takes_styles:
        return [Graph("", ContentIn(net), {"content": content}, {"content": free}, ["output"])]
    if not family.can_mask(net):
        raise UsageError(
            "expected a network whose transform is AdaIN (or its mean or deviation alone) for an "
            "export, but this one has another; export one of those"
        )
    with torch.no_grad():
        code = net.encode_style(style)
    names = [f"code_{i}" for i in range(len(code))]
    alpha, rows = torch.tensor(0.7), {0: Dim.DYNAMIC}
    codes = [torch.cat([part] * N_STYLES) for part in code]
    mixture = torch.tensor([1.0, 2.0, 0.5])
    return [
        Graph(
            "",
            StyleIn(net),
            {"content": content, "style": style, "alpha": alpha},
            {"content": free, "style": free, "alpha": None},
            ["output"],
        ),
        Graph(".style", CodeOf(net), {"style": style}, {"style": free}, names),
        Graph(
            ".codes",
            CodesIn(net),
            {"content": content, "mixture": mixture, "alpha": alpha, "codes": codes},
            {"content": free, "mixture": rows, "alpha": None, "codes": [rows] * len(codes)},
            ["output"],
        ),
    ]


def main(arguments: list[str]) -> int:
    """Exit code of one call."""
    parser = Parser(
        prog="stylenet export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", nargs="?", default=str(SHIPPED_MODEL), help="as --model (default: the included)"
    )
    parser.add_argument("--to", choices=KINDS, default="onnx", help="the format (default onnx)")
    parser.add_argument("--output", metavar="OUT", help="OUT.onnx or OUT.pt2 (default: the name)")
    parser.add_argument("--encoder", metavar="FILE", help="VGG weights, where the model has none")
    options = parser.parse_args(arguments)
    target = options.output or Path(options.model).stem + SUFFIXES[options.to]
    for file in export(options.model, target, options.to, options.encoder):
        print(f"wrote {file}: {file.stat().st_size / 1e6:.1f} MB")
    return 0


def export(
    path: str | Path, target: str | Path, kind: str = "onnx", encoder: str | None = None
) -> list[Path]:
    """Write the graphs of a model; returns their files.

    `target` names the first, OUT.onnx or OUT.pt2; the others are OUT.style.* and OUT.codes.*.
    Raises UsageError, and WeightsError where a package is missing.
    """
    if kind not in KINDS:
        raise UsageError(f"expected one of {', '.join(KINDS)} as kind of export, but {kind} came")
    target = Path(target)
    if target.suffix != SUFFIXES[kind]:
        raise UsageError(f"expected a name ending in {SUFFIXES[kind]}, but {target} came")
    files.check_writable(target.parent)
    net = load_network(path, encoder)
    fast = family_of(net).make_fast(net, torch.device("cpu"), torch.float32)
    write = write_onnx if kind == "onnx" else write_program
    made = []
    with contextlib.ExitStack() as stack:  # all of them, or none
        for graph in graphs(fast):
            made.append(target.with_name(target.stem + graph.ending + target.suffix))
            write(graph, Path(stack.enter_context(files.replaced_file(made[-1]))))
    return made


def write_program(graph: Graph, file: Path) -> None:
    """Write a graph as a program that torch.export.load reads."""
    torch.export.save(program_of(graph), file)


def program_of(graph: Graph) -> torch.export.ExportedProgram:
    """The graph, traced."""
    return torch.export.export(
        graph.module,
        (),
        graph.inputs,
        dynamic_shapes=graph.free,
        strict=False,
        # padding to whole features makes conditions on sizes that the solver cannot write down
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def write_onnx(graph: Graph, file: Path) -> None:
    """Write a graph as ONNX. Raises WeightsError where the packages for it are missing."""
    try:
        import onnxscript  # noqa: F401 - the exporter's own message is longer
    except ImportError as error:
        raise WeightsError(
            f"expected the packages onnx and onnxscript for an export, but {one_line(error)}; "
            'run: pip install "stylenet[onnx]"'
        ) from None
    flat = [
        name
        for key, value in graph.inputs.items()
        for name in ([f"code_{i}" for i in range(len(value))] if isinstance(value, list) else [key])
    ]
    torch.onnx.export(
        program_of(graph),
        (),
        f=file,
        input_names=flat,
        output_names=graph.outputs,
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


CARD = """---
license: {licence}
library_name: stylenet
pipeline_tag: image-to-image
tags: [style-transfer, adain]
---

# {title}

A model for arbitrary style transfer, trained with stylenet {version}.

```python
from stylenet import Stylizer

Stylizer.load("hf:{name}").picture("photo.jpg", "painting.jpg").save("out.png")
```

| fact | value |
|---|---|
{facts}
{sources}"""
ENCODER_SOURCE = """
The file contains the first layers of {name} (Visual Geometry Group, University of Oxford, CC BY
4.0), scaled. Name the source where you pass it on.
"""


def push(model: str | Path, name: str) -> str:
    """Upload a released model and a card of it to the hub as hf:owner/name; returns its address.

    `model` is a model file or a run folder. Raises WeightsError for anything that was not released
    by stylenet, and for an upload that fails.
    """
    file = find_release(model)
    if file.suffix != ".safetensors":
        raise WeightsError(
            f"expected a released model, model.safetensors, but {file} came, a training state; "
            "finish the run, or name its model.safetensors"
        )
    _, description = read_release(file)
    encoder = description.get("encoder") or {}
    is_carried = bool(encoder.get("is_carried"))
    repository = name.removeprefix(hub.HUB)
    shown = ("model", "transform", "step", "git_commit")
    facts = "\n".join(
        f"| {key} | {description[key]} |" for key in shown if description.get(key) is not None
    )
    card = CARD.format(
        title=repository.rpartition("/")[2],
        version=__version__,
        name=repository,
        facts=facts,
        licence="cc-by-4.0" if is_carried else "mit",
        sources=ENCODER_SOURCE.format(name=encoder["name"].upper()) if is_carried else "",
    )
    return hub.upload(file, card, repository)
