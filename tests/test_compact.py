"""The compact network: sizes, strengths, mixtures, its fast form, and its training by the VGG."""

import re

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, draw

import stylize
import train
from stylenet import build, images
from stylenet.applying.stylizer import Stylizer, load_network
from stylenet.checkpoint import load_model
from stylenet.config.training import Config
from stylenet.errors import UsageError, WeightsError
from stylenet.looks import make_look, mean_code
from stylenet.models.compact import BlurredConv, CompactNet, grown, make_fast
from stylenet.models.fast import SubPixelConv
from stylenet.models.learning import repeated, rolled

RECIPE = str(ROOT / "configs/compact.yaml")
SMALL = [
    "model.channels=[4,6,8]",
    "model.blocks=2",
    "train.styles_per_content=2",
    "checkpoint.release_dtype=fp16",
]


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def net():
    """A small network whose statistics matter: its last layer is not near zero."""
    made = CompactNet((4, 6, 8), 3, generator=torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        made.to_pixels.weight.mul_(5)
    return made.requires_grad_(False)


@pytest.mark.parametrize("size", [(32, 40), (33, 47), (7, 70), (1, 1), (8, 9)])
def test_output_has_the_content_size(net, size):
    output = net(image(1, 3, *size), image(1, 3, 21, 30, seed=1))
    assert output.shape == (1, 3, *size) and output.isfinite().all()


def test_no_strength_is_the_content_with_itself(net):
    content, style = image(1, 3, 32, 40), image(1, 3, 24, 24, seed=1)
    torch.testing.assert_close(net(content, style, 0.0), net(content, content))
    assert (net(content, style) - net(content, content)).abs().max() > 0.01
    middle = net(content, style, 0.5) - net(content, content)
    assert (
        0 < middle.square().mean() < (net(content, style) - net(content, content)).square().mean()
    )


def test_mixing_lies_between_the_styles(net):
    content = image(1, 3, 32, 40)
    codes = [net.encode_style(image(1, 3, 24, 24, seed=seed)) for seed in (1, 2)]
    torch.testing.assert_close(
        net.stylise(content, make_look(codes, [3.0, 0.0])),
        net.stylise(content, make_look(codes[:1])),
    )
    torch.testing.assert_close(
        net.stylise(content, make_look(codes, [1.0, 3.0])),
        net.stylise(content, make_look([mean_code(codes, [0.25, 0.75])])),
    )
    assert not torch.equal(
        net.stylise(content, make_look(codes)), net.stylise(content, make_look(codes[:1]))
    )


def test_features_take_the_styles_statistics_at_every_depth(net):
    """The output depends on each of the six statistics."""
    content, code = image(1, 3, 32, 40), net.encode_style(image(1, 3, 24, 24, seed=1))
    plain = net.stylise(content, make_look([code]))
    assert len(code) == 6
    for i in range(6):
        other = tuple(part * 1.5 + 0.1 if i == k else part for k, part in enumerate(code))
        assert (net.stylise(content, make_look([other])) - plain).abs().max() > 1e-3, i


def test_a_batch_is_its_images(net):
    contents, styles = image(2, 3, 32, 40), image(2, 3, 24, 24, seed=1)
    single = torch.cat([net(contents[i : i + 1], styles[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(net(contents, styles), single, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        net(contents, styles[:1])[1:], net(contents[1:], styles[:1]), rtol=1e-4, atol=1e-5
    )


def test_in_training_each_content_meets_several_styles(net, monkeypatch):
    contents, styles = image(2, 3, 24, 24), image(2, 3, 24, 24, seed=1)
    pairs = net(repeated(contents, 2), rolled(styles, 2))
    encoded, encode = [], CompactNet.encode
    monkeypatch.setattr(
        CompactNet, "encode", lambda net, x: encoded.append(len(x)) or encode(net, x)
    )
    torch.testing.assert_close(net(contents, styles, n_styles=2), pairs, rtol=0, atol=1e-5)
    net(contents, contents)
    assert encoded == [2, 2, 2]  # every image once, and one in its own style as well


def test_sides_are_filled_up_with_their_last_pixels(net):
    content, style = image(1, 3, 33, 47), image(1, 3, 24, 24, seed=1)
    filled = F.pad(content, (0, 1, 0, 7), mode="replicate")
    torch.testing.assert_close(net(content, style), net(filled, style)[..., :33, :47])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_close_and_statistics_stay_exact(net, dtype):
    content, style = image(2, 3, 33, 47), image(1, 3, 24, 24, seed=1)
    fast = make_fast(net, torch.device("cpu"), dtype)
    assert fast.to_half.weight.dtype == dtype and all(
        part.dtype == torch.float32 for part in fast.encode_style(style)
    )
    torch.testing.assert_close(
        fast(content, style).float(), net(content, style), rtol=0.05, atol=0.05
    )


@pytest.mark.parametrize("size", [(32, 40), (33, 47), (17, 25)])
def test_fast_form_is_the_same(net, size):
    content, style = image(2, 3, *size), image(1, 3, 21, 30, seed=1)
    fast = make_fast(net, torch.device("cpu"))
    torch.testing.assert_close(
        fast(content, style, 0.7), net(content, style, 0.7), rtol=1e-5, atol=1e-5
    )
    for name in ("from_eighth", "from_quarter", "to_pixels"):  # the plain one is left as it was
        assert isinstance(getattr(fast, name), SubPixelConv) and not isinstance(
            getattr(net, name), SubPixelConv
        )


def test_shipped_size():
    config = Config.load(RECIPE)
    n = sum(p.numel() for p in CompactNet(config.model.channels, config.model.blocks).parameters())
    assert n <= 1_500_000


@pytest.fixture(scope="module")
def compact_run(tmp_path_factory, tiny_options):
    """A finished tiny run of the compact recipe."""
    run_dir = tmp_path_factory.mktemp("runs") / "compact"
    assert train.main(["--config", RECIPE, *tiny_options, *SMALL, f"run.dir={run_dir}"]) == 0
    return run_dir


def test_trains_and_applies_without_a_vgg(compact_run, tmp_path):
    tensors, about = load_model(compact_run / "model.safetensors")
    assert about["model"] == "compact" and not any(name.startswith("encoder.") for name in tensors)
    assert {tensor.dtype for name, tensor in tensors.items() if name.startswith("decoder.")} == {
        torch.float16
    }
    stylizer = Stylizer.load(compact_run)
    content, style = draw(tmp_path / "c.png", 1, 37, 29), draw(tmp_path / "s.png", 2)
    output = stylizer(content, style, alpha=0.5)
    assert output.shape == (3, 29, 37)
    torch.testing.assert_close(stylizer(content, stylizer.encode_style(style), alpha=0.5), output)
    assert isinstance(load_network(compact_run), CompactNet)


def test_stylize_makes_data_sets_and_clips_with_it(compact_run, image_folders, tmp_path):
    """Every content of a batch has its own style.

    The pictures equal those made one by one.
    """
    content, style = image_folders
    call = [
        "--model",
        compact_run,
        "--content",
        content,
        "--style",
        style,
        "--size",
        "24",
        "--style-size",
        "24",
        "--device",
        "cpu",
    ]
    for n in (1, 3):
        extra = ["--pairs", "random:2", "--batch", n, "--output", tmp_path / f"out{n}"]
        assert stylize.main([*map(str, call), *map(str, extra)]) == 0
    made = sorted((tmp_path / "out1").glob("*.png"))
    assert len(made) == 20
    for path in made:
        one, three = (images.load_image(tmp_path / f"out{n}" / path.name) for n in (1, 3))
        assert (one - three).abs().max() <= 1.01 / 255
    clip = [
        "--content",
        content,
        "--video",
        "--style",
        style / "s0.png",
        "--output",
        tmp_path / "clip",
        "--precision",
        "bf16",
    ]
    assert (
        stylize.main([*map(str, call[:2]), *map(str, clip), "--size", "24", "--device", "cpu"]) == 0
    )
    assert len(list((tmp_path / "clip").iterdir())) == 10


def test_fine_tuning_starts_from_the_weights(compact_run, tiny_options, tmp_path):
    start = [
        f"train.init_from={compact_run}",
        f"run.dir={tmp_path}/next",
        "train.steps=1",
        "optim.lr=1e-12",
    ]
    assert train.main(["--config", RECIPE, *tiny_options, *SMALL, *start]) == 0
    before, after = (
        load_model(folder / "model.safetensors")[0] for folder in (compact_run, tmp_path / "next")
    )
    assert all(
        torch.allclose(before[name].float(), after[name].float(), atol=1e-3) for name in before
    )
    old, new = (
        load_model(folder / "model.safetensors")[1] for folder in (compact_run, tmp_path / "next")
    )
    assert (
        new["started_from"]["training_sha256"] == old["training_sha256"] != new["training_sha256"]
    )
    assert old["started_from"] is None
    assert not re.search(r"['\"]/", str(new["started_from"]))  # no path
    assert train.main(["--resume", str(tmp_path / "next"), "train.steps=2"]) == 0
    _, resumed = load_model(tmp_path / "next/model.safetensors")
    assert (
        resumed["started_from"] == new["started_from"]
        and resumed["training_sha256"] != new["training_sha256"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["decoder.norm=batch"], "no decoder.norm beside model.name=compact"),
        (["transform.name=wct"], "transform.name=adain"),
        (["model.fusion=concat"], "no model.fusion"),
        (["train.styles_per_content=9"], "at most data.batch_size"),
        (["model.channels=[3,4]"], "three numbers"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        build.check_config(Config.load(RECIPE, options))


def test_a_blur_is_part_of_the_kernel():
    conv, x = BlurredConv(3, 5, 3), image(1, 3, 16, 20)
    taps = torch.tensor([0.25, 0.5, 0.25])
    blur = torch.outer(taps, taps).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), blur, groups=3)
    torch.testing.assert_close(
        conv(x), F.conv2d(blurred, conv.weight, conv.bias, stride=2), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("size", [(32, 40), (33, 47), (1, 1), (8, 9)])
def test_antialiased_network_and_its_fast_form(size):
    torch.manual_seed(0)
    net = (
        CompactNet((4, 6, 8), 4, 2, True, torch.Generator().manual_seed(0))
        .eval()
        .requires_grad_(False)
    )
    content, style = image(1, 3, *size), image(1, 3, 24, 24, seed=1)
    plain = net(content, style)
    assert plain.shape == content.shape
    fast = make_fast(net, torch.device("cpu"))
    assert not any(isinstance(module, BlurredConv) for module in fast.modules())
    torch.testing.assert_close(fast(content, style), plain, rtol=1e-5, atol=1e-5)


def test_a_larger_network_starts_where_a_smaller_one_is(net):
    larger = CompactNet((4, 6, 8), 5, 2, generator=torch.Generator().manual_seed(1)).eval()
    larger.load_state_dict(grown(larger, dict(net.state_dict())))
    content, style = image(1, 3, 32, 40), image(1, 3, 24, 24, seed=1)
    torch.testing.assert_close(larger(content, style), net(content, style), rtol=1e-3, atol=1e-4)


def test_growing_by_a_run(compact_run, tiny_options, tmp_path):
    more = [
        "model.blocks=3",
        "model.encoder_blocks=2",
        "model.antialias=true",
        "loss.shift_weight=1",
        "loss.motion_weight=1",
        "loss.style_balance=0.5",
    ]
    more += [
        "loss.content_norm_weight=1",
        "loss.content_norm_taps=[relu2_1]",
        "data.scales=[16,20,24]",
    ]
    start = [f"train.init_from={compact_run}", f"run.dir={tmp_path}/next", "train.steps=2"]
    assert (
        train.main(["--config", RECIPE, *tiny_options, *SMALL[:1], *SMALL[2:], *more, *start]) == 0
    )
    _, about = load_model(tmp_path / "next/model.safetensors")
    assert about["decoder"] == {
        "channels": [4, 6, 8],
        "blocks": 3,
        "encoder_blocks": 2,
        "antialias": True,
    }
    assert Stylizer.load(tmp_path / "next")(
        draw(tmp_path / "c.png", 1), draw(tmp_path / "s.png", 2)
    ).shape == (3, 40, 48)
    back = [f"train.init_from={tmp_path}/next", f"run.dir={tmp_path}/back", "train.steps=1"]
    with pytest.raises(WeightsError, match="model.blocks"):
        train.main(["--config", RECIPE, *tiny_options, *SMALL, *back])


def test_growing_the_encoder_at_the_decoders_cost_is_refused(net):
    other = CompactNet((4, 6, 8), 3, 2)
    with pytest.raises(WeightsError, match="raise model.blocks together with model.encoder_blocks"):
        grown(other, dict(net.state_dict()))
