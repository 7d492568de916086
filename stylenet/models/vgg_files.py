"""Files of VGG weights: how to find and download them, their two layouts, and their hashes."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import urllib.error
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylenet.errors import WeightsError, at_home, one_line
from stylenet.files import check_kind
from stylenet.models.vgg import VGG, Padding, Pooling, block_of, conv_names, conv_shapes, deepest

WEIGHTS_VARIABLE = {"vgg19": "STYLENET_VGG19", "vgg16": "STYLENET_VGG16"}
# torchvision's IMAGENET1K_V1 files; the download checks the eight hex digits, which begin their
# sha256
DOWNLOAD_FILE = {"vgg19": "vgg19-dcbb9e9d.pth", "vgg16": "vgg16-397923af.pth"}
DOWNLOAD_ROOT = "https://download.pytorch.org/models"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def find_weights(network: str, path: str | None) -> Path:
    """The weights file: `path`, the environment variable's, or torchvision's download.

    torch caches the download. Raises WeightsError where none leads to a file; the message lists the
    ways to get the weights.
    """
    variable = WEIGHTS_VARIABLE[network]
    named = path or at_home(os.environ.get(variable))
    if not named:
        return download_weights(network)
    if not Path(named).is_file():
        origin = "encoder.weights" if path else variable
        raise WeightsError(
            f"expected {network} weights at {named} ({origin}), but there is no such file; "
            f"{how_to_get(network)}"
        )
    return Path(named)


def download_weights(network: str, root: str | None = None) -> Path:
    """torchvision's IMAGENET1K_V1 file in torch's cache, downloaded if it is missing.

    Its hash is checked.
    """
    return download_checked(
        f"{root or DOWNLOAD_ROOT}/{DOWNLOAD_FILE[network]}", "about 550 MB", how_to_get(network)
    )


def download_checked(url: str, size: str, remedy: str, may_fetch: bool = True) -> Path:
    """A file in torch's cache, downloaded if it is missing and checked by its sha256.

    The file's name holds the first hex digits of the sha256. They are also checked where the file
    was in the cache already, which torch's own loader does not do. Raises WeightsError, with the
    remedy, where the file is not available.
    """
    file = url.rsplit("/", 1)[1]
    target = Path(torch.hub.get_dir()) / "checkpoints" / file
    digits = re.search(r"-([0-9a-f]{8})\.", file).group(1)
    if not target.is_file() and not may_fetch:
        raise WeightsError(f"expected {file} in {target.parent}, but it is not there; {remedy}")
    try:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            print(f"downloading {url} to {target}, once ({size})", file=sys.stderr)
            torch.hub.download_url_to_file(
                url, str(target), hash_prefix=digits, progress=sys.stderr.isatty()
            )
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        raise WeightsError(
            f"expected to download {url}, but it failed ({one_line(error)}); {remedy}"
        ) from None
    check_digits(target, digits)
    return target


def check_digits(file: str | Path, *digits: str) -> None:
    """Raise WeightsError unless the file's sha256 begins with one of these digits."""
    if not sha256_of_file(file).startswith(digits):
        known = " or ".join(beginning[:8] for beginning in digits)
        raise WeightsError(
            f"expected a sha256 beginning with {known}, but {file} has another; delete the file "
            "and try again"
        )


def how_to_get(network: str) -> str:
    """One line with the ways to provide the weights."""
    variable = WEIGHTS_VARIABLE[network]
    url = f"{DOWNLOAD_ROOT}/{DOWNLOAD_FILE[network]}"
    return (
        f"give encoder.weights=FILE, or set {variable}=FILE, or fetch {url} on a machine with "
        "a network"
    )


def sha256_of_file(path: str | Path) -> str:
    """The file's sha256, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file.

    Raises WeightsError for a pickle, a truncated file, or anything but tensors.
    """
    check_kind(path)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # torch raises many kinds for damaged files
        reason = one_line(error).split(". ")[0][:160]
        raise WeightsError(
            f"expected a file of network weights, but {path} is damaged or a pickle of code "
            f"({reason})"
        ) from None
    weights = unwrapped(weights)
    if not isinstance(weights, Mapping) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        raise WeightsError(
            f"expected a mapping of names to tensors in {path}, but it holds "
            f"{type(weights).__name__}"
        )
    return {name.removeprefix("module."): tensor for name, tensor in weights.items()}


# where training programs keep the network in their checkpoints
WRAPPERS = ("state_dict", "model_state_dict", "decoder", "model")


def unwrapped(weights: Any) -> Any:
    """The mapping of tensors in a training checkpoint of another program, or what came."""
    inner = [weights.get(key) for key in WRAPPERS] if isinstance(weights, Mapping) else []
    return next((mapping for mapping in inner if isinstance(mapping, Mapping)), weights)


def is_flat_layout(weights: Mapping[str, Tensor]) -> bool:
    """Whether the file has the normalised VGG's layout.

    That is a numbered Sequential that starts with a 1x1 convolution.
    """
    first = weights.get("0.weight")
    return first is not None and tuple(first.shape) == (3, 3, 1, 1)


def conv_keys(network: str, flat: bool) -> dict[str, str]:
    """The key of every convolution in the file, {convolution: key}.

    The flat layout numbers padding, convolution and ReLU, and pooling between blocks. torchvision's
    has no padding layers.
    """
    # the flat layout starts with the 1x1 convolution and a padding layer
    keys, number, block = {}, (1 if flat else 0), 1
    for name in conv_names(network):
        if block_of(name) != block:
            number, block = number + 1, block_of(name)  # the pooling layer
        keys[name] = f"{number + 1}" if flat else f"features.{number}"
        number += 3 if flat else 2  # (padding,) convolution, ReLU
    return keys


def load_vgg(
    network: str,
    path: str | Path,
    taps: Iterable[str],
    padding: Padding = "reflect",
    pooling: Pooling = "max",
) -> VGG:
    """The encoder up to the deepest of the taps, from a file in either layout.

    The layouts are torchvision's and the normalised VGG's. Raises WeightsError for a file of
    another network, and for one that ends before a tap (naming its reach).
    """
    weights = read_weights(path)
    flat = is_flat_layout(weights)
    keys = conv_keys(network, flat)
    vgg = VGG(network, deepest(network, taps), padding, pooling)
    check_reach(vgg, weights, keys, path)
    for name, conv in vgg.convs.items():
        conv.weight.copy_(weights[f"{keys[name]}.weight"])
        conv.bias.copy_(weights[f"{keys[name]}.bias"])
    fold_preprocessing(vgg, weights if flat else None)
    return vgg.eval()


def reach_of_file(network: str, path: str | Path) -> str:
    """The deepest tap that a weights file reaches.

    Raises WeightsError for a file of another network.
    """
    weights = read_weights(path)
    names_in_file = [
        name
        for name, key in conv_keys(network, is_flat_layout(weights)).items()
        if f"{key}.weight" in weights
    ]
    if not names_in_file:
        raise WeightsError(
            f"expected the weights of {network}, but {path} has keys such as {sorted(weights)[:3]}"
        )
    return names_in_file[-1].replace("conv", "relu")


def check_reach(
    vgg: VGG, weights: Mapping[str, Tensor], keys: Mapping[str, str], path: str | Path
) -> None:
    """Raise WeightsError unless the file fits the network and reaches every convolution.

    It must hold every convolution of `vgg` in its shape.
    """
    names_in_file = [
        name
        for name, key in keys.items()
        if f"{key}.weight" in weights and f"{key}.bias" in weights
    ]
    if "conv1_1" not in names_in_file:
        layouts = "torchvision's (features.0.weight) or the normalised one's (0.weight, 1x1)"
        raise WeightsError(
            f"expected {vgg.network} in {layouts} layout, but {path} has keys such as "
            f"{sorted(weights)[:3]}"
        )
    # a 3x3 convolution under a key that this network lacks is another network's
    convs = [key for key, tensor in weights.items() if tensor.ndim == 4 and tensor.shape[-1] == 3]
    foreign = sorted(set(convs) - {f"{key}.weight" for key in keys.values()})
    shapes = {
        name: (tuple(weights[f"{keys[name]}.weight"].shape), tuple(conv.weight.shape))
        for name, conv in vgg.convs.items()
        if name in names_in_file
    }
    misfits = [
        f"{name} is {in_file} instead of {expected}"
        for name, (in_file, expected) in shapes.items()
        if in_file != expected
    ]
    if foreign or misfits:
        what = misfits[0] if misfits else f"{foreign[0]} is no layer of it"
        raise WeightsError(
            f"expected the weights of {vgg.network}, but {path} is of another network ({what})"
        )
    missing = [name for name in vgg.convs if name not in names_in_file]
    if missing:
        reach = list(keys)[list(keys).index(missing[0]) - 1].replace("conv", "relu")
        raise WeightsError(
            f"expected weights up to {vgg.reach}, but {path} reaches only {reach}; ask for taps "
            "up to it or use a longer file"
        )


def fold_preprocessing(vgg: VGG, flat_weights: Mapping[str, Tensor] | None) -> None:
    """Put the file's input convention into `vgg.mean` and conv1_1, in float64.

    A convention is an affine map of RGB [0, 1]: P x + p. It equals P (x - m) with m = -P^-1 p.
    """
    if flat_weights is None:
        matrix = torch.diag(1 / torch.tensor(IMAGENET_STD, dtype=torch.float64))
        mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64)
    else:
        matrix = flat_weights["0.weight"].double().reshape(3, 3)
        mean = -torch.linalg.solve(matrix, flat_weights["0.bias"].double())
    conv = vgg.convs["conv1_1"]
    # conv(P (x - m)) = (conv P)(x - m): [out, RGB, 3, 3]
    conv.weight.copy_(torch.einsum("oikl,ij->ojkl", conv.weight.double(), matrix))
    vgg.mean.copy_(mean.reshape(1, 3, 1, 1))


def sha256_of_encoder(vgg: VGG, tap: str) -> str:
    """The sha256 of an uncalibrated network's values up to the tap.

    It is the same however far the network's file reaches.
    """
    digest = hashlib.sha256(f"{vgg.network} {tap}".encode())
    for name in conv_shapes(vgg.network, tap):
        for tensor in (vgg.mean, vgg.convs[name].weight, vgg.convs[name].bias):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
