"""The decoder mirrors the encoder; its options; the published decoder."""

import pytest
import torch

from stylenet.errors import UsageError, WeightsError
from stylenet.images import load_image
from stylenet.models import decoder as d
from stylenet.models.decoder import Decoder
from stylenet.models.stylenet import StyleNet
from stylenet.models.vgg_files import load_vgg, read_weights
from stylenet.transforms import ADAIN, channel_stats


def test_paper_shape():
    shapes = {
        name: (conv.in_channels, conv.out_channels)
        for name, conv in Decoder("vgg19", "relu4_1").convs.items()
    }
    assert list(shapes) == [
        "conv4_1",
        "conv3_4",
        "conv3_3",
        "conv3_2",
        "conv3_1",
        "conv2_2",
        "conv2_1",
        "conv1_2",
        "conv1_1",
    ]
    assert (
        shapes["conv4_1"] == (512, 256)
        and shapes["conv3_1"] == (256, 128)
        and shapes["conv1_1"] == (64, 3)
    )
    assert sum(p.numel() for p in Decoder("vgg19", "relu4_1").parameters()) == 3_505_219


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
@pytest.mark.parametrize(
    "tap, channels, factor",
    [("relu1_1", 64, 1), ("relu2_1", 128, 2), ("relu3_2", 256, 4), ("relu5_1", 512, 16)],
)
def test_depth_by_tap(network, tap, channels, factor):
    output = Decoder(network, tap)(torch.rand(1, channels, 3, 2))
    assert output.shape == (1, 3, 3 * factor, 2 * factor)


@pytest.mark.parametrize("norm", ["none", "instance", "batch"])
@pytest.mark.parametrize("padding", ["reflect", "zeros", "circular"])
@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
def test_options_work_and_differ_from_the_default(norm, padding, upsampling):
    seed = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    features = torch.rand(2, 128, 4, 4, generator=seed())
    ours = Decoder("vgg19", "relu2_1", norm, padding, upsampling, generator=seed())
    plain = Decoder("vgg19", "relu2_1", generator=seed())
    is_default = (norm, padding, upsampling) == ("none", "reflect", "nearest")
    assert torch.allclose(ours(features), plain(features)) == is_default
    ours(features).sum().backward()
    assert all(p.grad is not None for p in ours.parameters())


def test_against_a_plain_sequential():
    """The textbook decoder as plain layers, with the same weights."""
    ours = Decoder("vgg19", "relu2_1", generator=torch.Generator().manual_seed(0))
    layers = []
    for name, conv in ours.convs.items():
        layers += [torch.nn.ReflectionPad2d(1), conv, torch.nn.ReLU()]
        layers += [torch.nn.Upsample(scale_factor=2, mode="nearest")] if name == "conv2_1" else []
    features = torch.rand(1, 128, 5, 6)
    torch.testing.assert_close(ours(features), torch.nn.Sequential(*layers[:-1])(features))


@pytest.mark.parametrize("init", ["uniform", "he"])
def test_start_weights_are_a_function_of_the_generator_alone(init):
    def make(seed):
        return (
            Decoder("vgg19", "relu3_1", init=init, generator=torch.Generator().manual_seed(seed))
            .convs["conv3_1"]
            .weight
        )

    torch.manual_seed(5)
    first = make(0)
    torch.manual_seed(6)
    assert torch.equal(first, make(0)) and not torch.equal(first, make(1))


def test_he_keeps_the_signal_that_uniform_loses():
    x, outputs = torch.randn(2, 512, 8, 8).relu(), {}
    for init in ("uniform", "he"):
        decoder = Decoder("vgg19", "relu4_1", init=init, generator=torch.Generator().manual_seed(0))
        seen = []
        decoder.convs["conv1_2"].register_forward_hook(
            lambda *arguments, seen=seen: seen.append(arguments[2].detach().std())
        )
        decoder(x)
        outputs[init] = float(seen[0])
    assert outputs["he"] > 0.3 and outputs["uniform"] < 0.1


def test_freezing_by_layer():
    decoder = Decoder("vgg19", "relu2_1", norm="instance")
    d.freeze_layers(decoder, ("conv2_1",))
    trained = [name for name, p in decoder.named_parameters() if p.requires_grad]
    assert trained and not any("conv2_1" in name for name in trained)
    with pytest.raises(
        UsageError, match="decoder layers out of conv2_1, conv1_2, conv1_1, but conv9_9"
    ):
        d.freeze_layers(decoder, ("conv9_9",))


def flat(decoder):
    numbers = range(1, 100, 3)
    items = zip(numbers, decoder.convs.values())
    return {
        f"{n}.{part}": getattr(conv, part).detach().clone()
        for n, conv in items
        for part in ("weight", "bias")
    }


def test_flat_layout_loads_by_order():
    source, target = (
        Decoder("vgg19", "relu2_1", generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    )
    d.load_flat_decoder(target, flat(source), "x")
    features = torch.rand(1, 128, 4, 4)
    assert torch.equal(source(features), target(features))
    with pytest.raises(WeightsError, match="expected 3 convolutions"):
        d.load_flat_decoder(target, flat(Decoder("vgg19", "relu3_1")), "x")


def test_published_decoder_gives_the_known_look(real):
    """The normalised encoder gives the known picture, the raw one does not.

    The picture is in range, with the content's outlines and the style's colours.
    """
    decoder = Decoder("vgg19", "relu4_1")
    d.load_flat_decoder(decoder, read_weights(real("decoder")), "published")
    content, style = (
        load_image(sorted(real(kind).iterdir())[3], 256)[None] for kind in ("content", "style")
    )
    shifts, edges = {}, {}
    for name in ("vgg19_normalised", "vgg19"):
        net = StyleNet(load_vgg("vgg19", real(name), ["relu4_1"]), ADAIN, decoder)
        with torch.no_grad():
            output = net(content, style).clamp(0, 1)
        assert output.shape == content.shape
        distance = lambda a, b: float((channel_stats(a)[0] - channel_stats(b)[0]).abs().mean())  # noqa: E731
        shifts[name] = distance(output, style) / distance(content, style)
        edges[name] = edge_correlation(output, content)
    assert shifts["vgg19_normalised"] < 0.5 and edges["vgg19_normalised"] > 0.3
    assert (
        edges["vgg19_normalised"] > edges["vgg19"]
        or shifts["vgg19"] > 2 * shifts["vgg19_normalised"]
    )


def edge_correlation(a, b):
    """Correlation of the gradient magnitudes of two slightly blurred pictures."""
    maps = []
    for image in (a, b):
        grey = torch.nn.functional.avg_pool2d(image.mean(1, keepdim=True), 4)
        maps.append(
            (
                (grey[..., 1:, :-1] - grey[..., :-1, :-1]).abs()
                + (grey[..., :-1, 1:] - grey[..., :-1, :-1]).abs()
            ).flatten()
        )
    return float(torch.corrcoef(torch.stack(maps))[0, 1])
