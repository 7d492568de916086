"""A network for one style: its shapes, its parts, training, and the command without --style."""

import json

import pytest
import torch
from conftest import ROOT, draw
from torch import nn

import train
from stylenet import Stylizer, images
from stylenet.applying import command
from stylenet.checkpoint import load_model
from stylenet.errors import UsageError
from stylenet.models.families import FAMILIES
from stylenet.models.johnson import JohnsonNet

SMALL = {"channels": (4, 6, 8), "blocks": 1}


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make(**options):
    return JohnsonNet(**(SMALL | options), generator=torch.Generator().manual_seed(0)).eval()


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("upsampling", ["nearest", "bilinear", "transposed"])
@pytest.mark.parametrize("size", [(32, 32), (13, 30), (1, 1), (5, 64)])
def test_every_size_comes_back(norm, upsampling, size):
    output = make(norm=norm, upsampling=upsampling)(image(2, 3, *size))
    assert output.shape == (2, 3, *size) and output.isfinite().all()


def test_the_paper_has_as_many_parameters():
    """1.68 million: 9x9, two strides, five blocks, two upsamplings, 9x9, and the norms."""
    net = JohnsonNet(norm="batch")
    convs = [3 * 32 * 81 + 32, 32 * 64 * 9 + 64, 64 * 128 * 9 + 128]
    convs += [128 * 128 * 9 + 128] * 10
    convs += [128 * 64 * 9 + 64, 64 * 32 * 9 + 32, 32 * 3 * 81 + 3]
    norms = 2 * (32 + 64 + 128 + 10 * 128 + 64 + 32)
    assert sum(p.numel() for p in net.parameters()) == sum(convs) + norms


def test_the_style_picture_is_not_looked_at_and_alpha_mixes_pixels():
    net, content = make(), image(1, 3, 24, 20)
    full = net(content, image(1, 3, 8, 8, seed=1))
    assert torch.equal(full, net(content))
    torch.testing.assert_close(net(content, alpha=0.25), 0.75 * content + 0.25 * full)


def test_instance_normalisation_takes_the_contrast_out():
    """The features behind the first layer do not depend on contrast and brightness; batch's do."""
    content = image(1, 3, 32, 32)
    for norm, is_equal in (("instance", True), ("batch", False)):
        first = make(norm=norm).down[0]
        weak, strong = first(0.3 * content + 0.5), first(content)
        assert torch.allclose(weak, strong, atol=1e-3) == is_equal


def test_a_transposed_convolution_is_uneven_and_a_resize_is_not():
    """An even map through kernels of ones: a checkerboard against an even map."""
    for upsampling, is_even in (("transposed", False), ("nearest", True)):
        layer = make(norm="none", upsampling=upsampling).up[0]
        nn.init.ones_(layer.conv.weight)
        inner = layer(torch.ones(1, 8, 8, 8))[..., 4:12, 4:12]
        assert (inner.std() == 0) == is_even


OPTIONS = [
    "model.name=johnson",
    "model.channels=[4,6,8]",
    "model.blocks=1",
    "decoder.norm=instance",
    "loss.content_weight=0",
    "loss.style_weight=0",
    "loss.feature_weight=1",
    "loss.feature_taps=[relu2_1]",
    "loss.gram_weight=1",
    "loss.tv_weight=0.1",
]


@pytest.fixture(scope="module")
def run_of_one_style(tmp_path_factory, tiny_options, image_folders):
    """A network trained for two steps on a single style picture."""
    folder = tmp_path_factory.mktemp("johnson")
    style = sorted(image_folders[1].iterdir())[0]
    options = [*tiny_options, *OPTIONS, f"data.style={style}", f"run.dir={folder / 'wave'}"]
    assert train.main(["--config", str(ROOT / "configs/adain.yaml"), *options]) == 0
    return folder / "wave"


def test_training_validates_against_the_one_style(run_of_one_style):
    rows = [json.loads(line) for line in (run_of_one_style / "history.jsonl").open()]
    checks = [row for row in rows if row["kind"] == "val"]
    assert checks and {"features/relu2_1", "gram/relu1_1", "gram/relu2_1", "tv"} <= checks[0].keys()
    _, description = load_model(run_of_one_style / "model.safetensors")
    assert description["model"] == "johnson" and description["data"]["style"]["train"] == 1


def test_the_command_needs_no_style(run_of_one_style, tmp_path, capsys):
    content = draw(tmp_path / "in/photo.png", 0)
    call = ["--model", str(run_of_one_style), "--content", str(content), "--size", "0"]
    assert command.main([*call, "--output", str(tmp_path / "out.png")]) == 0
    expected = Stylizer.load(run_of_one_style, device="cpu")(content)
    written = images.load_image(tmp_path / "out.png")
    torch.testing.assert_close(written, expected, atol=0.6 / 255, rtol=0)
    assert command.main([*call, "--output", str(tmp_path / "out/")]) == 0
    assert (tmp_path / "out/photo__wave.png").exists()
    assert command.main([*call, "--output", str(tmp_path / "set"), "--pairs", "all"]) == 0
    assert "photo.png,wave,photo__wave.png,1" in (tmp_path / "set/manifest.csv").read_text()
    with pytest.raises(UsageError, match="expected no --style with .*wave, which has"):
        command.main([*call, "--style", str(content), "--output", str(tmp_path / "x.png")])


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (["--stroke", "2"], "no --stroke"),
        (["--colour", "matched"], "no --colour"),
        (["--style-mask", "photo.png"], "no --style-mask"),
        (["--weights", "1"], "no --weights"),
        (["--sweep", "alpha"], "a model for any style with --sweep"),
        (["--sweep", "alpha", "--style", "photo.png"], "a model for any style with --sweep"),
    ],
)
def test_no_option_of_styles_is_ignored(run_of_one_style, tmp_path, monkeypatch, extra, named):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photo.png", 0)
    call = ["--model", str(run_of_one_style), "--content", "photo.png", "--output", "out.png"]
    with pytest.raises(UsageError, match=named):
        command.main([*call, *extra])
    with pytest.raises(UsageError, match="expected no --style with"):
        command.main([*call[:2], "--style", "photo.png", "--save-style", "mine.style"])
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_a_model_for_any_style_needs_one(tmp_path):
    content = draw(tmp_path / "photo.png", 0)
    call = ["--content", str(content), "--output", str(tmp_path / "out.png")]
    with pytest.raises(UsageError, match="expected --style, but none came"):
        command.main(call)
    with pytest.raises(UsageError, match="expected a style, but none came"):
        Stylizer.load(device="cpu")(content)
    with pytest.raises(UsageError, match="expected --style with --method gatys"):
        command.main([*call, "--method", "gatys"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["model.name=johnson", "model.antialias=true"], "expected no model.antialias"),
        (
            ["decoder.upsampling=transposed"],
            "expected another decoder.upsampling for model.name=",
        ),
    ],
)
def test_options_of_other_families_are_refused(tiny_options, tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        train.main(
            [
                "--config",
                str(ROOT / "configs/adain.yaml"),
                *tiny_options,
                *options,
                f"run.dir={tmp_path / 'x'}",
            ]
        )


def test_the_family_says_what_it_cannot():
    family = FAMILIES["johnson"]
    assert not family.takes_styles and not family.can_tile(make(), (99, 99))
    assert all(f.takes_styles for name, f in FAMILIES.items() if name != "johnson")
