"""The fast form equals the plain one, for random sizes, paddings, norms and batches."""

import pytest
import torch

from stylenet.applying.stylizer import Stylizer
from stylenet.models import fast
from stylenet.models.compact import CompactNet
from stylenet.models.decoder import Decoder, upsample
from stylenet.models.fast import PaddedConv, SubPixelConv, WinogradConv, make_fast
from stylenet.models.stylenet import StyleNet
from stylenet.models.vgg import VGG, pad
from stylenet.transforms import ADAIN

CPU = torch.device("cpu")


def random_net(padding="reflect", norm="none", upsampling="nearest", pooling="max", tap="relu4_1"):
    """A network with random weights whose activations stay alive, running statistics included."""
    generator = torch.Generator().manual_seed(0)
    encoder = VGG("vgg19", tap, padding, pooling)
    for conv in encoder.convs.values():
        conv.weight.data.normal_(0, (2 / (9 * conv.in_channels)) ** 0.5, generator=generator)
        conv.bias.data.normal_(0, 0.1, generator=generator)
    encoder.mean.uniform_(0, 1, generator=generator)
    decoder = Decoder("vgg19", tap, norm, padding, upsampling, "he", generator)
    for layer in decoder.norms.values():
        if norm == "batch":
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
    return StyleNet(encoder, ADAIN, decoder, tap).eval()


def image(n, height, width, seed=0):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


def relative_difference(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize(
    "padding, norm",
    [
        ("reflect", "none"),
        ("zeros", "none"),
        ("circular", "none"),
        ("reflect", "batch"),
        ("zeros", "instance"),
    ],
)
@torch.inference_mode()
def test_same_pictures_for_random_sizes_and_batches(padding, norm):
    net = random_net(padding, norm)
    quick = make_fast(net, CPU)
    generator = torch.Generator().manual_seed(len(padding) + 10 * len(norm))
    tolerance = 1e-5 if norm == "none" else 2e-4  # a norm divides by small deviations
    for seed in range(3):
        n, *sizes = (
            int(torch.randint(*bounds, (), generator=generator))
            for bounds in ((1, 3), *[(9, 60)] * 4)
        )
        content, style = image(n, *sizes[:2], seed), image(1, *sizes[2:], seed + 9)
        assert (
            relative_difference(quick(content, style, 0.7), net(content, style, 0.7)) < tolerance
        ), sizes


@pytest.mark.parametrize(
    "options",
    [{"upsampling": "bilinear"}, {"pooling": "avg"}, {"tap": "relu2_1"}, {"tap": "relu1_1"}],
)
@torch.inference_mode()
def test_same_pictures_for_the_other_options(options):
    net = random_net(**options)
    content, style = image(2, 37, 50), image(1, 33, 40, seed=1)
    assert relative_difference(make_fast(net, CPU)(content, style), net(content, style)) < 1e-5


@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (5, 1), (8, 4), (16, 7)])
@torch.inference_mode()
def test_same_pictures_for_tiny_sizes(height, width):
    net = random_net()
    content = image(1, height, width)
    assert (
        relative_difference(
            make_fast(net, CPU)(content, image(1, 16, 16)), net(content, image(1, 16, 16))
        )
        < 1e-4
    )


@pytest.mark.parametrize("padding", ["reflect", "zeros", "circular"])
def test_one_transposed_convolution_is_upsampling_and_convolution(padding):
    conv = torch.nn.Conv2d(5, 4, 3)
    x = torch.randn(2, 5, 7, 6)
    expected = conv(pad(upsample(x, "nearest"), padding))
    torch.testing.assert_close(SubPixelConv(conv, padding)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", ["reflect", "zeros", "circular"])
@pytest.mark.parametrize("height, width", [(4, 4), (7, 9), (33, 18), (70, 130)])
def test_winograd_is_the_convolution(padding, height, width, monkeypatch):
    monkeypatch.setattr(
        fast, "TILES_PER_BLOCK", 40
    )  # so that there are several blocks, and rows longer than one
    conv = torch.nn.Conv2d(8, 6, 3)
    x = torch.randn(2, 8, height, width)
    torch.testing.assert_close(
        WinogradConv(conv, padding)(x), conv(pad(x, padding)), rtol=1e-4, atol=1e-4
    )


def test_winograd_only_where_it_wins():
    kinds = {name: type(conv) for name, conv in make_fast(random_net(), CPU).encoder.convs.items()}
    assert kinds["conv3_2"] is WinogradConv and kinds["conv3_1"] is PaddedConv
    low = make_fast(random_net(), CPU, torch.bfloat16)
    assert not any(isinstance(module, WinogradConv) for module in low.modules())


@torch.inference_mode()
def test_the_form_for_gpus(monkeypatch):
    """Without Winograd: its values on the CPU, and its shapes and layout.

    Shapes and layout are checked on a device that knows only those.
    """
    monkeypatch.setattr(fast, "WINOGRAD_CHANNELS", 10_000)
    net, content, style = random_net(), image(2, 37, 50), image(1, 33, 40, seed=1)
    assert relative_difference(make_fast(net, CPU)(content, style), net(content, style)) < 1e-5
    monkeypatch.undo()
    elsewhere = make_fast(net, torch.device("meta"), torch.float16)
    assert not any(isinstance(module, WinogradConv) for module in elsewhere.modules())
    weights = [p for p in elsewhere.parameters() if p.ndim == 4]
    assert all(
        p.dtype == torch.float16 and p.is_contiguous(memory_format=torch.channels_last)
        for p in weights
    )
    output = elsewhere(content.to("meta"), style.to("meta"))
    assert output.shape == content.shape and output.dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_low_precision_stays_close_and_statistics_stay_exact(dtype):
    net = random_net()
    quick = make_fast(net, CPU, dtype)
    content, style = image(1, 64, 64), image(1, 64, 64, seed=1)
    assert all(part.dtype == torch.float32 for part in quick.encode_style(style))
    assert relative_difference(quick(content, style).float(), net(content, style)) < 0.1


def test_the_plain_network_is_left_as_it_was():
    net = random_net(norm="batch")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    make_fast(net, CPU, torch.bfloat16)
    after = net.state_dict()
    assert after.keys() == before.keys() and all(after[name].equal(before[name]) for name in before)
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_layers_keep_their_names():
    net = random_net()
    quick = make_fast(net, CPU)
    assert list(quick.encoder.convs) == list(net.encoder.convs) and list(
        quick.decoder.convs
    ) == list(net.decoder.convs)
    assert isinstance(quick.decoder.convs["conv3_4"], SubPixelConv)


@pytest.mark.slow
@pytest.mark.parametrize(
    "net",
    [
        random_net(tap="relu1_2"),
        CompactNet((4, 6, 8), 2, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["vgg", "compact"],
)
def test_compiled_is_the_same(net):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, compiled = Stylizer(net, "cpu"), Stylizer(net, "cpu", is_compiled=True)
    pictures = image(1, 24, 32), image(1, 24, 32, seed=1)
    torch.testing.assert_close(compiled(*pictures), plain(*pictures), rtol=1e-4, atol=1e-5)
    assert (
        torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    )  # encoder and decoder were compiled
