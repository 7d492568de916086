"""The Python API."""

import pytest
import torch
from conftest import draw, random_torchvision_weights
from PIL import Image
from test_fast import image, random_net

import train
from stylenet import images
from stylenet.applying.stylizer import SHIPPED_MODEL, Stylizer, identify, load_network
from stylenet.checkpoint import load_model, save_model, state_path
from stylenet.errors import UsageError, WeightsError
from stylenet.looks import make_look
from stylenet.models.decoder import Decoder
from stylenet.models.stylenet import StyleNet
from stylenet.transforms import TRANSFORMS


@pytest.fixture(scope="module")
def stylizer(trained_run):
    return Stylizer.load(trained_run / "model.safetensors", device="cpu")


@pytest.fixture
def pictures(tmp_path):
    return (
        draw(tmp_path / "c.png", 1, 37, 29),
        draw(tmp_path / "s.png", 2),
        draw(tmp_path / "t.png", 3),
    )


def test_paths_pil_and_tensors_are_the_same(stylizer, pictures):
    content, style, _ = pictures
    expected = stylizer(content, style)
    assert (
        expected.shape == (3, 29, 37)
        and expected.dtype == torch.float32
        and expected.min() >= 0
        and expected.max() <= 1
    )
    assert torch.equal(stylizer(Image.open(content), Image.open(style)), expected)
    assert torch.equal(stylizer(images.load_image(content), str(style)), expected)
    batch = stylizer(images.load_image(content)[None].repeat(2, 1, 1, 1), style)
    assert batch.shape == (2, 3, 29, 37)
    torch.testing.assert_close(batch[1], expected)


def test_equals_the_plain_network(stylizer, pictures, trained_run):
    content, style = (images.load_image(path)[None] for path in pictures[:2])
    with torch.no_grad():
        expected = load_network(trained_run)(content, style, 0.7).clamp(0, 1)[0]
    torch.testing.assert_close(stylizer(pictures[0], pictures[1], alpha=0.7), expected)


def test_encoded_styles_are_reusable(stylizer, pictures):
    content, style, _ = pictures
    assert torch.equal(stylizer(content, stylizer.encode_style(style)), stylizer(content, style))


def test_mixing(stylizer, pictures):
    content, a, b = pictures
    assert torch.equal(stylizer(content, [a, b], mixture=[1, 0]), stylizer(content, a))
    torch.testing.assert_close(stylizer(content, [a, b]), stylizer(content, [b, a], mixture=[2, 2]))
    assert not torch.allclose(
        stylizer(content, [a, b], mixture=[1, 3]), stylizer(content, [a, b], mixture=[3, 1])
    )


def test_low_precision_is_near(stylizer, pictures, trained_run):
    low = Stylizer.load(trained_run, device="cpu", precision="bf16")(pictures[0], pictures[1])
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, stylizer(pictures[0], pictures[1]), rtol=0, atol=0.05)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_each_precision_of_the_command_is_one_of_the_api(trained_run, pictures, precision):
    stylizer = Stylizer.load(trained_run, device="cpu", precision=precision)
    assert stylizer(pictures[0], pictures[1]).isfinite().all()


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_is_refused(stylizer, pictures, alpha):
    with pytest.raises(UsageError, match="alpha in"):
        stylizer(pictures[0], pictures[1], alpha=alpha)


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [0, 0], [-1, 2], [float("nan"), 1]])
def test_weights_that_do_not_match_are_refused(stylizer, pictures, weights):
    with pytest.raises(UsageError, match="2 weights"):
        stylizer(pictures[0], list(pictures[1:]), mixture=weights)


@pytest.mark.parametrize(
    "image", [torch.zeros(1, 8, 8), torch.zeros(3, 8), torch.zeros(3, 8, 8, dtype=torch.int64)]
)
def test_tensors_of_another_kind_are_refused(stylizer, pictures, image):
    with pytest.raises(UsageError, match="expected an image"):
        stylizer(image, pictures[1])


def test_release_checkpoint_and_folder_are_the_same_model(stylizer, pictures, trained_run):
    expected = stylizer(pictures[0], pictures[1])
    for path in (trained_run, state_path(trained_run, 4)):
        torch.testing.assert_close(
            Stylizer.load(path, device="cpu")(pictures[0], pictures[1]), expected
        )


def test_a_model_without_its_encoder_wants_the_same_one(
    tiny_options, tmp_path, pictures, vgg19_file, stylizer, monkeypatch
):
    recipe = ["--config", "configs/adain.yaml"]
    assert (
        train.main(
            [*recipe, *tiny_options, f"run.dir={tmp_path / 'x'}", "checkpoint.carry_encoder=false"]
        )
        == 0
    )
    model = tmp_path / "x/model.safetensors"
    assert not any(name.startswith("encoder.") for name in load_model(model)[0])
    named = Stylizer.load(model, device="cpu", encoder_weights=str(vgg19_file))
    torch.testing.assert_close(named(pictures[0], pictures[1]), stylizer(pictures[0], pictures[1]))
    monkeypatch.setenv("STYLENET_VGG19", str(vgg19_file))
    assert torch.equal(
        Stylizer.load(model, device="cpu")(pictures[0], pictures[1]),
        named(pictures[0], pictures[1]),
    )
    torch.save(random_torchvision_weights("vgg19", 9, seed=5), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="expected the encoder that"):
        Stylizer.load(model, encoder_weights=str(tmp_path / "other.pth"))


def test_tensors_that_do_not_fit_are_refused(trained_run, tmp_path):
    tensors, description = load_model(trained_run / "model.safetensors")
    del tensors["decoder.convs.conv1_1.bias"]
    save_model(tensors, description, tmp_path / "m.safetensors")
    with pytest.raises(WeightsError, match="weights of a Decoder"):
        load_network(tmp_path / "m.safetensors")


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("tile", ["off", 64])
def test_a_batch_is_each_content_with_its_own_styles(name, tile):
    widening = TRANSFORMS[name].widening
    net = random_net(tap="relu2_1")
    net = StyleNet(
        net.encoder, TRANSFORMS[name], Decoder("vgg19", "relu2_1", widening=widening), "relu2_1"
    ).eval()
    stylizer = Stylizer(net, "cpu", tile=tile)
    contents, styles = image(3, 70, 90), image(6, 20, 20, seed=1)
    codes = [
        [stylizer.encode_style(styles[i]), stylizer.encode_style(styles[i + 3])] for i in range(3)
    ]
    encoded = stylizer.encode_content(contents)
    looks = [make_look(mixed, [1, 2], 0.7) for mixed in codes]
    batch = stylizer.render_pixels(encoded, looks)
    assert batch.shape == (3, 70, 90, 3) and batch.dtype == torch.uint8
    for i in range(3):
        alone = stylizer.render_pixels(stylizer.encode_content(contents[i]), looks[i : i + 1])[0]
        assert (alone.int() - batch[i].int()).abs().max() <= 1


def test_a_model_is_identified_by_its_files(trained_run, vgg19_file, tmp_path):
    release = trained_run / "model.safetensors"
    assert identify(trained_run) == identify(release) and len(identify(release)) == 1
    assert len(identify(release, str(vgg19_file))) == 2
    (tmp_path / "other.safetensors").write_bytes(release.read_bytes() + b"x")
    assert identify(tmp_path / "other.safetensors") != identify(release)


@pytest.mark.parametrize("tile", ["off", 64])
def test_given_statistics_replace_the_content_s_own(pictures, trained_run, tile):
    """The content's own survey changes nothing, whole or in tiles.

    Another survey changes the picture.
    """
    stylizer = Stylizer.load(trained_run, device="cpu", tile=tile)
    content = stylizer.encode_content(pictures[0])
    look = make_look([stylizer.encode_style(pictures[1])])
    own = stylizer.render_frame(content, look)[1]
    other = stylizer.render_frame(stylizer.encode_content(pictures[2]), look)[1]
    expected = stylizer.render(content, look)
    assert torch.equal(stylizer.render(content, look.with_stats(own)), expected)
    assert not torch.allclose(stylizer.render(content, look.with_stats(other)), expected, atol=0.01)


@pytest.mark.parametrize("channels", [[8], [8, 8, 8, 8], ["x", 1, 1], [-1, 8, 8], None])
def test_a_description_of_an_impossible_network_is_refused(tmp_path, channels):
    tensors, description = load_model(SHIPPED_MODEL)
    changed = description | {"decoder": description["decoder"] | {"channels": channels}}
    save_model(tensors, changed, tmp_path / "m.safetensors")
    with pytest.raises(WeightsError, match="expected a description that makes a network"):
        load_network(tmp_path / "m.safetensors")


def test_a_model_of_an_unknown_kind_is_refused(trained_run, tmp_path):
    tensors, description = load_model(trained_run / "model.safetensors")
    save_model(tensors, description | {"model": "other"}, tmp_path / "m.safetensors")
    with pytest.raises(WeightsError, match="a known kind .*fusion., but 'other' came"):
        load_network(tmp_path / "m.safetensors")
