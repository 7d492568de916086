"""Time the whole command for one picture: a textbook script against stylize.py.

    python benchmarks/command.py --size 512 --rounds 5

The seconds count from the shell's return key on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rounds import print_ratios
from train_step import make_images, make_parts

from stylenet import images
from stylenet.models.vgg_files import conv_keys

HERE = Path(__file__).resolve().parent


def write_inputs(folder: Path, px: int) -> None:
    """Write two pictures, and random weights in the layouts of pytorch-AdaIN.

    The weights are 13 MB of decoder, and a VGG-19.
    """
    for name, batch in zip(("content", "style"), make_images(1, px), strict=True):
        images.save_image(batch[0], folder / f"{name}.png")
    encoder, decoder = make_parts()
    keys = conv_keys("vgg19", flat=True)
    flat = {"0.weight": torch.eye(3)[:, :, None, None], "0.bias": -encoder.mean.flatten()}
    for name, conv in encoder.convs.items():
        flat |= {
            f"{keys[name]}.weight": conv.weight.detach(),
            f"{keys[name]}.bias": conv.bias.detach(),
        }
    torch.save(flat, folder / "vgg.pth")
    convs = enumerate(decoder.convs.values(), start=1)
    torch.save(
        {f"{i}.{part}": tensor for i, conv in convs for part, tensor in conv.state_dict().items()},
        folder / "decoder.pth",
    )


def make_commands(folder: Path, px: int) -> dict[str, list[str]]:
    """The commands by name."""
    pictures = [
        "--content",
        folder / "content.png",
        "--style",
        folder / "style.png",
        "--output",
        folder / "out.png",
    ]
    ours = [
        HERE.parent / "stylize.py",
        "--model",
        folder / "decoder.pth",
        *pictures,
        "--size",
        px,
        "--style-size",
        px,
    ]
    ours += ["--encoder", folder / "vgg.pth", "--device", "cpu"]
    textbook = [
        HERE / "textbook.py",
        *pictures,
        "--vgg",
        folder / "vgg.pth",
        "--decoder",
        folder / "decoder.pth",
        "--size",
        px,
    ]
    return {
        "textbook float32": [sys.executable, *map(str, textbook)],
        "ours float32": [sys.executable, *map(str, ours)],
        "ours bf16": [sys.executable, *map(str, ours), "--precision", "bf16"],
    }


def seconds_of(command: list[str]) -> float:
    """The duration of one call in seconds."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ)
    return time.perf_counter() - start


def main() -> None:
    """Run the comparison, without the first round, which reads the files from the disk."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(
        f"the whole command for one {options.size}² picture, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), options.size)
        commands = make_commands(Path(folder), options.size)
        rounds = [
            {name: seconds_of(command) for name, command in commands.items()}
            for _ in range(options.rounds + 1)
        ][1:]
    print_ratios({name: [times[name] for times in rounds] for name in commands})


if __name__ == "__main__":
    main()
