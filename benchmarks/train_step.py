"""Time a training step, ours against the textbook's.

    python benchmarks/train_step.py --batch 4 --crop 256 --rounds 7

Weights and images are random, since the speed does not depend on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from rounds import compare
from textbook import TAPS, Textbook

from stylenet import runtime
from stylenet.losses import LossWeights, weighted_total
from stylenet.models.decoder import Decoder
from stylenet.models.stylenet import StyleNet
from stylenet.models.vgg import VGG
from stylenet.objective import Objective
from stylenet.transforms import ADAIN


def make_parts() -> tuple[VGG, Decoder]:
    """The same random encoder and decoder in every process, with signals of a natural size."""
    torch.manual_seed(0)
    encoder, decoder = VGG("vgg19", "relu4_1"), Decoder("vgg19", "relu4_1", init="he")
    with torch.no_grad():
        encoder.mean.fill_(0.45)
        for conv in encoder.convs.values():
            torch.nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return encoder.eval(), decoder


def make_images(n: int, px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random contents and styles."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(n, 3, px, px, generator=generator) for _ in range(2))


def make_textbook_step(n: int, px: int) -> Callable[[], None]:
    """One textbook step."""
    net = Textbook(*make_parts())
    content, style = make_images(n, px)
    optimizer = torch.optim.Adam(net.decoder.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        net.training_loss(content, style).backward()
        optimizer.step()

    return step


def make_our_step(n: int, px: int, precision: str) -> Callable[[], None]:
    """One step as train.py does it."""
    runtime.keep_freed_memory()
    device, layout = torch.device("cpu"), torch.channels_last
    encoder, decoder = (part.to(memory_format=layout) for part in make_parts())
    net = StyleNet(encoder, ADAIN, decoder)
    objective = Objective(
        encoder, "relu4_1", ADAIN, LossWeights(1.0, 10.0, dict.fromkeys(TAPS, 1.0), "mean")
    )
    content, style = (images.contiguous(memory_format=layout) for images in make_images(n, px))
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-4)

    def step() -> None:
        with runtime.autocast(device, precision):
            seen = objective.observe(content, style)
            terms = objective.terms(net.learn(seen), seen)
        weighted_total(terms, objective.weights).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def first_losses_agree(n: int, px: int) -> None:
    """Print both first losses: the two must do the same work."""
    encoder, decoder = make_parts()
    content, style = make_images(n, px)
    objective = Objective(
        encoder, "relu4_1", ADAIN, LossWeights(1.0, 10.0, dict.fromkeys(TAPS, 1.0), "mean")
    )
    with torch.no_grad():
        seen = objective.observe(content, style)
        ours = weighted_total(
            objective.terms(StyleNet(encoder, ADAIN, decoder).learn(seen), seen), objective.weights
        )
        theirs = Textbook(encoder, decoder).training_loss(content, style)
    print(f"first loss: textbook {float(theirs):.6g}, ours {float(ours):.6g}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    size = (options.batch, options.crop)
    print(
        f"training step, batch {size[0]}, {size[1]}² crops, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}"
    )
    first_losses_agree(1, min(size[1], 64))
    candidates = {
        "textbook float32": (make_textbook_step, size),
        "ours float32": (make_our_step, (*size, "fp32")),
        "ours bf16": (make_our_step, (*size, "bf16")),
    }
    compare(candidates, options.rounds)


if __name__ == "__main__":
    main()
