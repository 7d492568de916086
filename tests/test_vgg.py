"""The encoder: layouts, taps, reach, padding, pooling, calibration, and its weights files."""

import http.server
import pickle
import threading

import pytest
import torch
import torchvision
from conftest import random_torchvision_weights

from stylenet.errors import UsageError, WeightsError
from stylenet.images import load_image
from stylenet.models import calibration, vgg_files
from stylenet.models import vgg as v
from stylenet.models.vgg_files import load_vgg, read_weights

IMAGE = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def to_flat_layout(weights, network="vgg19"):
    """The same network as a numbered Sequential on BGR 0-255.

    Every channel has an arbitrary scale.
    """
    preprocess = torch.zeros(3, 3)
    for out, source in enumerate((2, 1, 0)):
        preprocess[out, source] = 255.0
    mean, std = torch.tensor(vgg_files.IMAGENET_MEAN), torch.tensor(vgg_files.IMAGENET_STD)
    flat = {"0.weight": preprocess[:, :, None, None], "0.bias": -(preprocess @ mean)}
    generator, previous = torch.Generator().manual_seed(9), None
    for name, key in vgg_files.conv_keys(network, flat=True).items():
        source = vgg_files.conv_keys(network, flat=False)[name]
        if f"{source}.weight" not in weights:
            break
        weight, bias = weights[f"{source}.weight"].double(), weights[f"{source}.bias"].double()
        if previous is None:  # from normalised RGB to BGR 0-255
            weight = (weight / std[None, :, None, None] / 255)[:, [2, 1, 0]]
        else:
            weight = weight / previous[None, :, None, None]
        previous = torch.rand(len(weight), generator=generator) + 0.5
        flat[f"{key}.weight"] = (weight * previous[:, None, None, None]).float()
        flat[f"{key}.bias"] = (bias * previous).float()
    return flat


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    weights = random_torchvision_weights("vgg19", 9)
    torch.save(weights, folder / "vision.pth")
    torch.save(to_flat_layout(weights), folder / "flat.pth")
    return folder


@pytest.mark.parametrize("network", ["vgg19", "vgg16"])
def test_equals_torchvision_with_zero_padding(network, tmp_path):
    builder = {"vgg19": torchvision.models.vgg19, "vgg16": torchvision.models.vgg16}[network]
    reference = builder(weights=None).features.eval()
    torch.save(
        {f"features.{k}": value for k, value in reference.state_dict().items()}
        | {"classifier.0.bias": torch.ones(1)},
        tmp_path / "w",
    )
    ours = load_vgg(network, tmp_path / "w", ["relu5_1"], padding="zeros")
    mean, std = (
        torch.tensor(values)[None, :, None, None]
        for values in (vgg_files.IMAGENET_MEAN, vgg_files.IMAGENET_STD)
    )
    x, expected = (IMAGE - mean) / std, {}
    for name, key in vgg_files.conv_keys(network, flat=False).items():
        number = int(key.split(".")[1])
        stop = number + 2  # after the ReLU
        expected[name.replace("conv", "relu")] = reference[:stop](x)
    for tap, features in ours(IMAGE, list(ours.channels)).items():
        torch.testing.assert_close(features, expected[tap], rtol=1e-4, atol=1e-5)


def test_both_layouts_agree_up_to_a_factor_per_channel(files):
    ours, theirs = (
        load_vgg("vgg19", files / name, ["relu4_1"]) for name in ("vision.pth", "flat.pth")
    )
    a, b = (net(IMAGE, list(net.channels)) for net in (ours, theirs))
    for tap in a:
        assert relative_error_up_to_scale(a[tap], b[tap]) < 1e-5


def relative_error_up_to_scale(a, b):
    scale = (a * b).sum((0, 2, 3), keepdim=True) / (a * a).sum((0, 2, 3), keepdim=True).clamp(
        min=1e-12
    )
    return float((a * scale - b).norm() / b.norm())


def test_real_files_agree_up_to_a_factor_per_channel(real):
    taps = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    photo = load_image(sorted(real("content").iterdir())[0], 256)[None]
    a = load_vgg("vgg19", real("vgg19"), taps)(photo, taps)
    b = load_vgg("vgg19", real("vgg19_normalised"), taps)(photo, taps)
    for tap in taps:
        assert relative_error_up_to_scale(a[tap], b[tap]) < 1e-5


def test_only_what_is_asked_for_is_computed_and_returned(files):
    net = load_vgg("vgg19", files / "vision.pth", ["relu3_1", "relu1_1"])
    assert net.reach == "relu3_1" and list(net.convs)[-1] == "conv3_1"
    assert set(net(IMAGE, ["relu1_1"])) == {"relu1_1"}
    assert net(IMAGE, ["relu1_1"])["relu1_1"].min() >= 0
    with pytest.raises(WeightsError, match="up to relu3_1.*relu4_1"):
        net(IMAGE, ["relu4_1"])


def test_a_tap_beyond_the_file_names_its_reach(files):
    with pytest.raises(WeightsError, match="up to relu5_1.*reaches only relu4_1"):
        load_vgg("vgg19", files / "vision.pth", ["relu5_1"])


def test_other_networks_and_files_are_refused(files, tmp_path):
    torch.save(random_torchvision_weights("vgg16", 9), tmp_path / "vgg16.pth")
    with pytest.raises(WeightsError, match="of another network"):
        load_vgg("vgg19", tmp_path / "vgg16.pth", ["relu4_1"])
    torch.save({"layer.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="expected vgg19 in torchvision's"):
        load_vgg("vgg19", tmp_path / "other.pth", ["relu4_1"])
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds list"):
        load_vgg("vgg19", tmp_path / "list.pth", ["relu4_1"])
    with pytest.raises(UsageError, match="taps of vgg19"):
        load_vgg("vgg19", files / "vision.pth", ["relu3_5"])


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_pickles_and_damaged_files_are_refused_and_not_run(files, tmp_path, capsys):
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Evil()))
    torch.save({"a": Evil()}, tmp_path / "zip.pth")
    content = (files / "vision.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    for name in ("pickle.pth", "zip.pth", "cut.pth"):
        with pytest.raises(WeightsError, match="damaged or a pickle") as caught:
            load_vgg("vgg19", tmp_path / name, ["relu1_1"])
        assert "\n" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["reflect", "zeros", "circular"])
def test_padding(mode):
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    expected = {"reflect": [4.0, 5.0], "zeros": [0.0, 0.0], "circular": [8.0, 9.0]}[mode]
    assert v.pad(x, mode)[0, 0, 0, 1:3].tolist() == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 3), (17, 9)])
@pytest.mark.parametrize("mode", ["reflect", "zeros", "circular"])
def test_any_size_passes(files, size, mode):
    net = load_vgg("vgg19", files / "vision.pth", ["relu4_1"], padding=mode)
    features = net(torch.rand(1, 3, *size), ["relu4_1"])["relu4_1"]
    assert features.shape[-2:] == (-(-size[0] // 8), -(-size[1] // 8)) and features.isfinite().all()


def test_zero_padding_pads_with_the_mean_image(files):
    """A mean image is zero inside the network.

    With zero padding its borders are therefore like its middle.
    """
    net = load_vgg("vgg19", files / "flat.pth", ["relu1_1"], padding="zeros")
    features = net(net.mean.expand(1, 3, 6, 6), ["relu1_1"])["relu1_1"]
    torch.testing.assert_close(features, features[..., 2:3, 2:3].expand_as(features))


def test_average_pooling(files):
    taps = ["relu1_2", "relu2_1"]
    net = load_vgg("vgg19", files / "vision.pth", taps, pooling="avg")
    low = net(IMAGE, taps)
    pooled = torch.nn.functional.avg_pool2d(low["relu1_2"], 2)
    expected = torch.relu(net.convs["conv2_1"](v.pad(pooled, "reflect")))
    torch.testing.assert_close(low["relu2_1"], expected)


def test_frozen(files):
    net = load_vgg("vgg19", files / "vision.pth", ["relu2_1"])
    assert not any(p.requires_grad for p in net.parameters())
    image = IMAGE.clone().requires_grad_()
    net(image, ["relu2_1"])["relu2_1"].sum().backward()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_calibration_makes_every_mean_one_and_changes_only_scale(files, pooling):
    net = load_vgg("vgg19", files / "vision.pth", ["relu4_1"], pooling=pooling)
    taps = list(net.channels)
    before = net(IMAGE, taps)
    mu = calibration.mean_activations(net, [IMAGE])
    calibration.calibrate(net, mu)
    after = net(IMAGE, taps)
    for tap in taps:
        mean = mu[tap.replace("relu", "conv")].float()
        alive = mean > calibration.NEAR_DEAD * mean.mean()
        torch.testing.assert_close(
            after[tap].mean((0, 2, 3))[alive], torch.ones(int(alive.sum())), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            after[tap][:, alive],
            (before[tap] / mean[None, :, None, None])[:, alive],
            rtol=1e-3,
            atol=1e-3,
        )


def test_calibration_leaves_dead_channels_and_clamps_near_dead_ones(files):
    net = load_vgg("vgg19", files / "vision.pth", ["relu1_2"])
    before = {name: (conv.weight.clone(), conv.bias.clone()) for name, conv in net.convs.items()}
    mu = {"conv1_1": torch.ones(64).double(), "conv1_2": torch.ones(64).double()}
    mu["conv1_1"][0], mu["conv1_1"][1] = 0.0, 1e-9
    calibration.calibrate(net, mu)
    weight, bias = before["conv1_1"]
    torch.testing.assert_close(net.convs["conv1_1"].weight[0], weight[0])
    floor = calibration.NEAR_DEAD * float(mu["conv1_1"].mean())
    torch.testing.assert_close(net.convs["conv1_1"].bias[1], bias[1] / floor)
    assert all(conv.weight.isfinite().all() for conv in net.convs.values())


def test_mean_activations_do_not_depend_on_batching(files):
    net = load_vgg("vgg19", files / "vision.pth", ["relu2_1"])
    whole, single = (
        calibration.mean_activations(net, [IMAGE]),
        calibration.mean_activations(net, [IMAGE[:1], IMAGE[1:]]),
    )
    for name in whole:
        assert whole[name].dtype == torch.float64
        torch.testing.assert_close(whole[name], single[name], rtol=1e-6, atol=1e-8)


def test_calibrating_the_real_vgg_brings_its_means_to_one_where_the_published_ones_are(real):
    """On the photos of the calibration the median channel has mean 1.

    The published network's median lies around 1 too.
    """
    photos = torch.stack(
        [load_image(path, 256)[:, :256, :256] for path in sorted(real("content").iterdir())[:16]]
    )
    raw, published = (
        load_vgg("vgg19", real(name), ["relu4_1"]) for name in ("vgg19", "vgg19_normalised")
    )
    calibration.calibrate(raw, calibration.mean_activations(raw, [photos]))
    a, b = (net(photos, ["relu4_1"])["relu4_1"].mean((0, 2, 3)) for net in (raw, published))
    assert 0.5 < float(b.median()) < 2 and float(a.median()) == pytest.approx(1, abs=0.01)


def test_sha256_names_values_not_files(files, tmp_path):
    weights = torch.load(files / "vision.pth", weights_only=True)
    torch.save(dict(list(weights.items())[:12]), tmp_path / "short.pth")
    long, short = (
        load_vgg("vgg19", files / "vision.pth", ["relu4_1"]),
        load_vgg("vgg19", tmp_path / "short.pth", ["relu3_1"]),
    )
    assert vgg_files.sha256_of_encoder(long, "relu3_1") == vgg_files.sha256_of_encoder(
        short, "relu3_1"
    )
    assert vgg_files.sha256_of_encoder(long, "relu3_1") != vgg_files.sha256_of_encoder(
        long, "relu2_1"
    )
    long.convs["conv1_1"].bias[0] += 1e-6
    assert vgg_files.sha256_of_encoder(long, "relu3_1") != vgg_files.sha256_of_encoder(
        short, "relu3_1"
    )


def test_weights_are_found_by_path_then_environment(files, monkeypatch):
    monkeypatch.setenv("STYLENET_VGG19", str(files / "flat.pth"))
    assert vgg_files.find_weights("vgg19", str(files / "vision.pth")) == files / "vision.pth"
    assert vgg_files.find_weights("vgg19", None) == files / "flat.pth"
    with pytest.raises(WeightsError, match="encoder.weights.*no such file.*STYLENET_VGG19=FILE"):
        vgg_files.find_weights("vgg19", "nowhere.pth")


@pytest.fixture
def server(tmp_path):
    """A loopback server over a folder, with the list of requested paths."""
    (tmp_path / "www").mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "www"))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            """Log nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path / "www", asked
    server.shutdown()
    server.server_close()


def test_download_is_checked_by_hash_and_cached(server, monkeypatch):
    url, folder, asked = server
    torch.save(random_torchvision_weights("vgg19", 2), folder / "new.pth")
    digits = vgg_files.sha256_of_file(folder / "new.pth")[:8]
    (folder / "new.pth").rename(folder / f"vgg19-{digits}.pth")
    monkeypatch.setitem(vgg_files.DOWNLOAD_FILE, "vgg19", f"vgg19-{digits}.pth")
    monkeypatch.setattr(vgg_files, "DOWNLOAD_ROOT", url)
    path = vgg_files.find_weights("vgg19", None)
    assert load_vgg("vgg19", path, ["relu1_2"]).reach == "relu1_2"
    assert vgg_files.find_weights("vgg19", None) == path and len(asked) == 1
    path.write_bytes(b"damaged in the cache")
    with pytest.raises(WeightsError, match="delete the file"):
        vgg_files.find_weights("vgg19", None)


def test_failed_downloads_say_how_to_get_the_weights(server, monkeypatch):
    url, folder, _ = server
    monkeypatch.setattr(vgg_files, "DOWNLOAD_ROOT", url)
    with pytest.raises(WeightsError, match="expected to download.*404.*STYLENET_VGG19=FILE"):
        vgg_files.find_weights("vgg19", None)
    (folder / vgg_files.DOWNLOAD_FILE["vgg19"]).write_bytes(b"another file")
    with pytest.raises(WeightsError, match="invalid hash"):
        vgg_files.find_weights("vgg19", None)
    monkeypatch.setattr(vgg_files, "DOWNLOAD_ROOT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="expected to download"):
        vgg_files.find_weights("vgg16", None)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", None])
def test_weights_as_training_programs_save_them(tmp_path, wrapper):
    weights = {"a.weight": torch.ones(2)}
    parallel = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save({wrapper: parallel, "epoch": 3} if wrapper else parallel, tmp_path / "w.pth.tar")
    assert read_weights(tmp_path / "w.pth.tar").keys() == weights.keys()
