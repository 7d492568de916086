"""The networks of LPIPS, FID and ArtFID.

The tests cover layouts, hashes, a loopback download, and the messages for missing networks.
"""

import hashlib
import http.server
import itertools
import threading

import pytest
import torch
import torch.nn.functional as F

from stylenet.errors import UsageError, WeightsError
from stylenet.images import load_image
from stylenet.metrics import extractors
from stylenet.models.vgg_files import read_weights


def image(seed, px=64):
    return torch.rand(1, 3, px, px, generator=torch.Generator().manual_seed(seed))


def random_backbone(net, seed=0):
    """Random weights in torchvision's layout."""
    models = pytest.importorskip("torchvision.models")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = {"alex": models.alexnet, "vgg": models.vgg16}[net](weights=None)
    return {
        name: tensor
        for name, tensor in network.state_dict().items()
        if name.startswith("features.")
    }


def random_heads(net):
    sizes = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}[net]
    generator = torch.Generator().manual_seed(1)
    return {
        f"lin{i}.model.1.weight": torch.rand(1, n, 1, 1, generator=generator)
        for i, n in enumerate(sizes)
    }


def named_by_hash(folder, stem, content):
    """A file whose name contains the first digits of its hash, as torch's downloads do."""
    path = folder / f"{stem}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_against_the_package(net):
    """The whole chain, scaling included.

    The backbone is random and from the package; the heads are its shipped ones.
    """
    package = pytest.importorskip("lpips")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = package.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    backbone = {
        f"features.{name.split('.', 1)[1]}": tensor
        for name, tensor in theirs.net.state_dict().items()
    }
    ours = extractors.Lpips(net, backbone, read_weights(extractors.find_heads(net)))
    a, b = image(0), image(1)
    with torch.no_grad():
        assert ours(a, b).item() == pytest.approx(theirs(2 * a - 1, 2 * b - 1).item(), rel=1e-5)
    assert ours(a, a).item() == 0


def test_lpips_of_real_pictures_against_the_package(real):
    """AlexNet's convolutions from a file of their own, in both implementations."""
    package = pytest.importorskip("lpips")
    path = real("alexnet")
    ours, sha256 = extractors.load_lpips("alex", str(path), False)
    theirs = package.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    layers = [
        module
        for number in range(1, 6)
        for module in getattr(theirs.net, f"slice{number}")
        if isinstance(module, torch.nn.Conv2d)
    ]
    weights = torch.load(path, weights_only=True)
    with torch.no_grad():
        for layer, number in zip(layers, (0, 3, 6, 8, 10), strict=True):
            layer.weight.copy_(weights[f"features.{number}.weight"])
            layer.bias.copy_(weights[f"features.{number}.bias"])
    paths = sorted(path for path in real("content").iterdir() if path.suffix == ".jpg")[:4]
    photos = [load_image(path, 256)[None, :, :256, :256] for path in paths]
    for a, b in itertools.pairwise(photos):
        expected = theirs(2 * a - 1, 2 * b - 1).item()
        assert ours(a, b).item() == pytest.approx(expected, rel=1e-5) and expected > 0.3
    # a blurred picture is nearer than another one
    assert ours(photos[0], F.avg_pool2d(photos[0], 3, 1, 1)).item() < 0.3
    assert sha256.startswith("1454cf62")


def test_lpips_grows_with_the_noise():
    ours = extractors.Lpips("alex", random_backbone("alex"), random_heads("alex"))
    a, noise = image(0), image(1) - 0.5
    distances = [ours(a, (a + k * noise).clamp(0, 1)).item() for k in (0, 0.2, 0.5, 1)]
    assert distances == sorted(distances) and distances[0] == 0 < distances[1]


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_of_small_pictures_is_refused(net):
    ours = extractors.Lpips(net, random_backbone(net), random_heads(net))
    smallest = torch.rand(1, 3, ours.smallest_px, ours.smallest_px)
    assert ours(smallest, 1 - smallest).isfinite()
    with pytest.raises(UsageError, match="expected pictures of .* pixels or more for lpips"):
        ours(smallest[..., 1:], smallest[..., 1:])


def test_heads_are_checked(monkeypatch, tmp_path):
    pytest.importorskip("torchmetrics")
    assert extractors.find_heads("alex").name == "alex.pth"
    monkeypatch.setitem(extractors.HEADS_SHA256, "alex", "0" * 64)
    with pytest.raises(WeightsError, match="expected the heads of LPIPS 0.1"):
        extractors.find_heads("alex")


@pytest.mark.parametrize(
    "find, package",
    [
        (lambda: extractors.find_heads("alex"), "torchmetrics"),
        (lambda: extractors.load_inception(None, False), "torch-fidelity"),
    ],
)
def test_missing_packages_are_named(monkeypatch, find, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        WeightsError, match=f"expected the package {package}.*requirements-metrics.txt"
    ):
        find()


def test_named_files_must_exist_and_have_the_right_hash(tmp_path):
    with pytest.raises(
        WeightsError, match=r"expected network weights at nowhere.pth \(networks.lpips\)"
    ):
        extractors.load_lpips("alex", "nowhere.pth", False)
    (tmp_path / "alexnet.pth").write_bytes(b"something else")
    with pytest.raises(WeightsError, match="expected a sha256 beginning with 7be5be79"):
        extractors.load_lpips("alex", str(tmp_path / "alexnet.pth"), False)
    with pytest.raises(WeightsError, match="expected a sha256 beginning with 6726825d"):
        extractors.load_inception(str(tmp_path / "alexnet.pth"), False)


def test_nothing_is_fetched_when_forbidden():
    with pytest.raises(
        WeightsError, match="alexnet-owt-7be5be79.pth.*is not there; give networks.lpips=FILE"
    ):
        extractors.load_lpips("alex", None, False)
    with pytest.raises(WeightsError, match="none is named; get it from"):
        extractors.load_art_inception(None)


@pytest.fixture
def server(tmp_path):
    """A loopback server over a folder; the list records each requested path."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            """Log nothing."""

    (tmp_path / "served").mkdir()
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", tmp_path / "served", asked
    running.shutdown()


def test_download_is_checked_cached_and_used(server, tmp_path, monkeypatch):
    url, folder, asked = server
    torch.save(random_backbone("alex"), tmp_path / "plain.pth")
    file = named_by_hash(folder, "alexnet-owt", (tmp_path / "plain.pth").read_bytes())
    monkeypatch.setitem(extractors.BACKBONE_URL, "alex", f"{url}/{file.name}")
    pytest.importorskip("torchmetrics")
    network, sha256 = extractors.load_lpips("alex", None, True)
    assert sha256 == hashlib.sha256(file.read_bytes()).hexdigest() and len(asked) == 1
    assert network(image(0), image(1)).item() > 0
    extractors.load_lpips("alex", None, False)
    assert len(asked) == 1  # from the cache
    monkeypatch.setitem(extractors.BACKBONE_URL, "alex", f"{url}/other-00000000.pth")
    with pytest.raises(
        WeightsError, match="expected to download .*other-00000000.pth, but it failed"
    ):
        extractors.load_lpips("alex", None, True)


def test_inception_of_fid_runs_from_a_file(tmp_path, monkeypatch):
    """torch-fidelity's network with random weights in its own layout.

    Bytes go in; one vector per image comes out.
    """
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    fetched = {}
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: fetched, raising=False)
    monkeypatch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, _: None)
    content = tmp_path / "w.pth"
    torch.save({}, content)
    path = named_by_hash(tmp_path, "weights-inception", content.read_bytes())
    monkeypatch.setattr(extractors, "INCEPTION_URL", f"http://x/{path.name}")
    extractor = extractors.load_inception(str(path), False)
    vectors = extractor.run(torch.cat([image(0), image(1)]))
    assert (
        vectors.shape == (2, 2048)
        and extractor.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    )


def test_art_inception_runs_from_a_file_and_refuses_others(tmp_path):
    models = pytest.importorskip("torchvision.models")
    network = models.inception_v3(weights=None, aux_logits=False, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "art.pth")
    extractor = extractors.load_art_inception(str(tmp_path / "art.pth"))
    assert extractor.run(image(0, 96)).shape == (1, 2048) and len(extractor.sha256) == 64
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="expected the weights of an Inception v3"):
        extractors.load_art_inception(str(tmp_path / "other.pth"))


def test_resizing_keeps_the_shape_of_the_picture():
    assert extractors.at_shortest(image(0, 64)[..., :32], 16).shape == (1, 3, 32, 16)
    assert extractors.at_shortest(image(0), 0).equal(image(0)) and extractors.at_shortest(
        image(0), 64
    ).equal(image(0))
