"""The networks behind some metrics.

Every file is checked by its sha256. A network that cannot be loaded raises WeightsError.

Images are RGB in [0, 1], [N, 3, H, W]. Each network converts and resizes inside, as its reference
does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylenet.errors import UsageError, WeightsError
from stylenet.metrics import functional
from stylenet.models.vgg_files import check_digits, download_checked, read_weights, sha256_of_file

# A protocol cannot change these, and a reader of its results must know them.
IMPLEMENTATIONS = {
    "fid, kid": "torch-fidelity's Inception, resized inside as TensorFlow 1 does (bilinear, no "
    "antialias, 299); covariance over N - 1",
    "artfid": "torchvision's Inception v3 with art-fid's weights, no resize; LPIPS as below",
    "lpips": "version 0.1, images in [-1, 1] at their own size",
}
EXTRAS = "pip install -r requirements-metrics.txt"
BACKBONE_URL = {
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
}
# the convolutions of torchvision's AlexNet alone, in a file of 10 MB: all that LPIPS needs
CONVOLUTIONS_SHA256 = {"alex": "1454cf628f565bb39c929b4ab19c33d8c662292055b946c48daaeb6ccaf8811d"}
BACKBONE_SIZE = {"alex": "about 230 MB", "vgg": "about 550 MB"}
# The numbers of the tapped ReLUs in torchvision's `features`.
BACKBONE_TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
SMALLEST_PX = {"alex": 31, "vgg": 16}  # whose last tap has a pixel
# The heads of LPIPS 0.1, as torchmetrics and lpips ship them.
HEADS_SHA256 = {
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
}
HEADS_FILE = "functional/image/lpips_models/{net}.pth"
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of inputs in [-1, 1]
INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"


class Extractor(NamedTuple):
    """A network as a function, with the sha256 of its weights."""

    run: Callable[[Tensor], Tensor]
    sha256: str


def find_file(
    named: str | None,
    url: str,
    size: str,
    option: str,
    may_fetch: bool,
    also: str | None = None,
) -> Path:
    """The named file, else the one in the cache, else a download.

    Its sha256 must begin with the digits in the URL. A named file may have the sha256 `also`
    instead. Raises WeightsError.
    """
    remedy = f"give {option}=FILE, or fetch {url} on a machine with a network"
    if not named:
        return download_checked(url, size, remedy, may_fetch)
    if not Path(named).is_file():
        raise WeightsError(
            f"expected network weights at {named} ({option}), but there is no such file; {remedy}"
        )
    check_digits(named, url.rsplit("-", 1)[1].removesuffix(".pth"), *filter(None, [also]))
    return Path(named)


class Lpips(nn.Module):
    """Perceptual distance of two images (Zhang et al. 2018), at the images' own size."""

    def __init__(self, net: str, backbone: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        super().__init__()
        from torchvision import models

        make = {"alex": models.alexnet, "vgg": models.vgg16}[net]
        self.layers = make(weights=None).features
        self.layers.load_state_dict(
            {
                name.removeprefix("features."): tensor
                for name, tensor in backbone.items()
                if name.startswith("features.")
            }
        )
        self.taps, self.smallest_px = BACKBONE_TAPS[net], SMALLEST_PX[net]
        self.heads = [heads[f"lin{i}.model.1.weight"].flatten() for i in range(len(self.taps))]
        self.register_buffer("shift", torch.tensor(LPIPS_SHIFT).reshape(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(LPIPS_SCALE).reshape(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def features(self, image: Tensor) -> list[Tensor]:
        """The outputs of the tapped layers for an image in [0, 1]."""
        x, outputs = (2 * image - 1 - self.shift) / self.scale, []
        for number, layer in enumerate(self.layers[: self.taps[-1] + 1]):
            x = layer(x)
            if number in self.taps:
                outputs.append(x.clone())  # the next layer may work in place
        return outputs

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        height, width = a.shape[-2:]
        if min(height, width) < self.smallest_px:
            raise UsageError(
                f"expected pictures of {self.smallest_px} pixels or more for lpips, but "
                f"{width}x{height} came; give images.resize_px, or other metrics"
            )
        return functional.lpips(self.features(a), self.features(b), self.heads)


def load_lpips(net: str, named: str | None, may_fetch: bool) -> tuple[Lpips, str]:
    """LPIPS and the sha256 of its backbone. Raises WeightsError."""
    heads = find_heads(net)
    path = find_file(
        named,
        BACKBONE_URL[net],
        BACKBONE_SIZE[net],
        "networks.lpips",
        may_fetch,
        CONVOLUTIONS_SHA256.get(net),
    )
    return Lpips(net, read_weights(path), read_weights(heads)), sha256_of_file(path)


def find_heads(net: str) -> Path:
    """The file of LPIPS heads in the torchmetrics package, checked by its sha256.

    The package itself is not imported. Raises WeightsError.
    """
    package = importlib.util.find_spec("torchmetrics")
    if package is None or not package.submodule_search_locations:
        raise WeightsError(
            "expected the package torchmetrics, which carries the heads of LPIPS, but it is not "
            f"installed; {EXTRAS}"
        )
    # Importing torchmetrics takes seconds and is not needed for a file.
    path = Path(package.submodule_search_locations[0]) / HEADS_FILE.format(net=net)
    if not path.is_file() or sha256_of_file(path) != HEADS_SHA256[net]:
        raise WeightsError(
            f"expected the heads of LPIPS 0.1 at {path}, but they are missing or others; {EXTRAS}"
        )
    return path


def load_inception(named: str | None, may_fetch: bool) -> Extractor:
    """The Inception of FID and KID: images to vectors [N, 2048]. Raises WeightsError.

    It is torch-fidelity's port of the TensorFlow network. Its resize to 299 is TensorFlow 1's:
    bilinear, without antialiasing.
    """
    if importlib.util.find_spec("torch_fidelity") is None:
        raise WeightsError(
            "expected the package torch-fidelity, which has the Inception of FID, but it is not "
            f"installed; {EXTRAS}"
        )
    path = find_file(named, INCEPTION_URL, "about 95 MB", "networks.inception", may_fetch)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
    ).eval()

    def run(image: Tensor) -> Tensor:
        # torch-fidelity takes bytes; [0] is the only feature asked for, "2048".
        return network.to(image.device)((image * 255).round().to(torch.uint8))[0]

    return Extractor(run, sha256_of_file(path))


def load_art_inception(named: str | None) -> Extractor:
    """The Inception of ArtFID: images to vectors [N, 2048], without a resize.

    It is torchvision's network with art-fid's weights, only from a named file: this project knows
    no hash of it. The file's own hash goes into the results. Raises WeightsError.
    """
    if not named:
        raise WeightsError(
            "expected art-fid's art_inception.pth, but none is named; "
            "get it from https://huggingface.co/matthias-wright/art_inception and give "
            "networks.art_inception=FILE"
        )
    if not Path(named).is_file():
        raise WeightsError(
            f"expected network weights at {named} (networks.art_inception), but there is no such "
            "file"
        )
    from torchvision.models import inception_v3

    network = inception_v3(
        weights=None, aux_logits=False, transform_input=False, init_weights=False
    )
    network.fc = nn.Identity()  # the vectors are the pooled features before it
    weights = {
        name: tensor
        for name, tensor in read_weights(named).items()
        if not name.startswith(("fc.", "AuxLogits."))
    }
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise WeightsError(
            f"expected the weights of an Inception v3 in {named}, but other layers came"
        ) from None
    network.requires_grad_(False).eval()
    return Extractor(lambda image: network.to(image.device)(image), sha256_of_file(named))


def at_shortest(image: Tensor, px: int) -> Tensor:
    """The image [N, 3, H, W] with its shortest side at `px`, antialiased; 0 changes nothing."""
    shortest = min(image.shape[-2:])
    if px in (0, shortest):
        return image
    size = [round(side * px / shortest) for side in image.shape[-2:]]
    return F.interpolate(
        image, size=size, mode="bilinear", antialias=True, align_corners=False
    ).clamp(0, 1)
