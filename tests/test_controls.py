"""Regions, colours, strokes and style cards through the API, for both families that take them."""

import dataclasses

import numpy as np
import pytest
import torch

from stylenet import Stylizer
from stylenet.applying.stylizer import SHIPPED_MODEL, as_seen, to_mask
from stylenet.errors import UsageError, WeightsError
from stylenet.looks import Look, Region, StyleCard, make_look
from stylenet.models.compact import CompactNet
from stylenet.models.fusion import FusionNet
from stylenet.models.johnson import JohnsonNet
from stylenet.transforms import align_areas, area_stats, channel_stats


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def compact():
    return CompactNet((4, 6, 8), 4, 2, antialias=True, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["compact", "vgg"])
def net(request, trained_run):
    if request.param == "compact":
        return compact()
    from stylenet.applying.stylizer import load_network

    return load_network(trained_run)


@pytest.fixture
def stylizer(net):
    return Stylizer(net, "cpu", tile="off")


CONTENT, STYLES = image(3, 91, 70), [image(3, 40, 50, seed=i) ** (i + 1) for i in range(3)]


def half(height=91, width=70):
    mask = torch.zeros(height, width)
    mask[:, : width // 2] = 1
    return mask


def test_a_mask_of_ones_is_no_mask(stylizer):
    whole = stylizer(CONTENT, STYLES[0])
    for base in (STYLES[1], []):
        masked = stylizer(CONTENT, base, regions=[(torch.ones(5, 9), STYLES[0])])
        torch.testing.assert_close(masked, whole, rtol=0, atol=1e-4)
    empty = stylizer(CONTENT, STYLES[0], regions=[(torch.zeros(5, 9), STYLES[1])])
    torch.testing.assert_close(empty, whole, rtol=0, atol=1e-4)


def test_each_part_has_its_style_and_the_contents_statistics_are_its_own(stylizer):
    picture = stylizer(CONTENT, STYLES[0], regions=[(half(), STYLES[1])])
    others = [stylizer(CONTENT, style) for style in STYLES[:2]]
    distance = lambda a, b, part: float((a - b)[..., part].abs().mean())  # noqa: E731
    left, right = slice(0, 20), slice(50, 70)
    assert distance(picture, others[1], left) < distance(picture, others[0], left)
    assert distance(picture, others[0], right) < distance(picture, others[1], right)
    # what happens outside a region does not reach its statistics
    changed = CONTENT.clone()
    changed[..., 60:] = changed[..., 60:] ** 3
    again = stylizer(changed, STYLES[0], regions=[(half(), STYLES[1])])
    assert distance(picture, again, slice(0, 8)) < 0.3 * distance(picture, again, slice(60, 70))


@pytest.mark.parametrize("alpha", [1.0, 0.4])
@pytest.mark.parametrize("colour", ["style", "content", "only"])
def test_regions_and_colours_are_exact_in_tiles(net, alpha, colour):
    content, soft = image(3, 200, 90), image(30, 20, seed=9)
    regions = [(soft, STYLES[1]), (half(200, 90), STYLES[2])]
    for base in (STYLES[0], []):
        options = {"alpha": alpha, "colour": colour, "regions": regions}
        whole = Stylizer(net, "cpu", tile="off")(content, base, **options)
        tiled = Stylizer(net, "cpu", tile=64)(content, base, **options)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=2e-5)


def test_without_a_base_style_the_rest_stays_the_content(stylizer):
    picture = stylizer(CONTENT, [], regions=[(half(), STYLES[1])])
    assert torch.equal(picture[..., 36:], CONTENT[..., 36:])
    assert not torch.allclose(picture[..., :30], CONTENT[..., :30], atol=0.05)


def test_colours_of_the_content_and_of_the_style_only(stylizer):
    plain = stylizer(CONTENT, STYLES[0])
    y = lambda x: (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)  # noqa: E731
    for colour, like in (("content", plain), ("only", CONTENT)):
        picture = stylizer(CONTENT, STYLES[0], colour=colour)
        inside = ((picture > 1e-3) & (picture < 1 - 1e-3)).all(0)
        torch.testing.assert_close(y(picture)[inside], y(like)[inside], rtol=0, atol=1e-4)
    matched = stylizer(CONTENT, STYLES[2], colour="matched")
    seen = as_seen(STYLES[2][None], CONTENT[None], "matched", None)
    assert torch.equal(matched, stylizer(CONTENT, seen))
    assert not torch.allclose(matched, stylizer(CONTENT, STYLES[2]), atol=0.01)


def test_strokes_scale_the_style_with_the_content():
    style = image(1, 3, 40, 60)
    assert as_seen(style, image(1, 3, 80, 100), "style", 0.5).shape == (1, 3, 40, 60)
    assert as_seen(style, image(1, 3, 160, 200), "style", 0.5).shape == (1, 3, 80, 120)
    assert torch.equal(as_seen(style, image(1, 3, 8, 8), "style", None), style)


def test_strokes_reach_the_network(stylizer):
    small, large = (stylizer(CONTENT, STYLES[0], stroke=s) for s in (0.5, 2))
    assert not torch.allclose(small, large, atol=0.003)


def test_a_part_of_a_style(stylizer):
    style = image(3, 48, 64)
    style[..., :32] = 0.1 * style[..., :32]
    code = stylizer.encode_style(style, half(48, 64))
    plain, dark = stylizer.encode_style(style), stylizer.encode_style(style[..., :24])
    distance = lambda a, b: sum(float((x - y).norm()) for x, y in zip(a, b))  # noqa: E731
    assert distance(code, dark) < distance(plain, dark)
    everything = stylizer.encode_style(style, torch.ones(2, 2))
    for a, b in zip(everything, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_statistics_in_areas():
    x, areas = image(2, 3, 8, 10), image(2, 1, 8, 10, seed=1)
    areas = areas / areas.sum(0, keepdim=True)
    stats = area_stats(x, areas)
    for k in range(2):
        weight = areas[k].double()
        mean = (x.double() * weight).sum((2, 3)) / weight.sum()
        variance = ((x.double() - mean[..., None, None]) ** 2 * weight).sum((2, 3)) / weight.sum()
        torch.testing.assert_close(stats[2 * k][..., 0, 0].double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            stats[2 * k + 1][..., 0, 0].double() ** 2, variance + 1e-5, rtol=1e-4, atol=1e-6
        )
    assert area_stats(x, None)[0].equal(channel_stats(x)[0])
    own = align_areas(x, [stats[:2], stats[2:]], areas, stats)
    torch.testing.assert_close(own, x, rtol=0, atol=1e-5)  # its own statistics change nothing


def test_areas_sum_to_one_at_every_depth():
    regions = [Region(to_mask(image(7, 9, seed=i)), ()) for i in range(3)]
    look = Look((), regions=tuple(regions))
    for stride in (1, 2, 8):
        areas = look.areas((1, 3, 45, 61), stride)
        assert areas.shape == (4, 1, -(-45 // stride), -(-61 // stride))
        torch.testing.assert_close(areas.sum(0), torch.ones_like(areas[0]))
        assert areas.min() >= 0
    assert make_look([(torch.zeros(1),)]).areas((1, 3, 4, 4)) is None


def test_a_mask_may_be_a_picture_an_array_or_a_tensor(tmp_path):
    from PIL import Image

    values = (half(10, 12) * 255).to(torch.uint8)
    Image.fromarray(values.numpy()).save(tmp_path / "mask.png")
    expected = half(10, 12)[None, None]
    for mask in (tmp_path / "mask.png", values.numpy(), values, half(10, 12).numpy()):
        torch.testing.assert_close(to_mask(mask), expected, rtol=0, atol=1e-6)
    with pytest.raises(UsageError, match="expected an image"):
        to_mask(np.zeros((2, 3, 4, 5), dtype=np.uint8))


def test_what_a_network_or_a_code_cannot_do_is_one_line(stylizer):
    fusion = Stylizer(FusionNet((4, 6, 8), 1), "cpu")
    with pytest.raises(UsageError, match="for a mask, but .* leave that out"):
        fusion(CONTENT, STYLES[0], regions=[(half(), STYLES[1])])
    with pytest.raises(UsageError, match="for a style's own mask, but"):
        fusion.encode_style(STYLES[0], half())
    code = stylizer.encode_style(STYLES[0])
    for options in ({"stroke": 1.0}, {"colour": "matched"}):
        with pytest.raises(UsageError, match="a picture as style"):
            stylizer(CONTENT, code, **options)
    with pytest.raises(UsageError, match="as colour"):
        stylizer(CONTENT, STYLES[0], colour="blue")
    with pytest.raises(UsageError, match="stroke in"):
        stylizer(CONTENT, STYLES[0], stroke=0)
    with pytest.raises(UsageError, match="one content"):
        stylizer(image(2, 3, 16, 16), STYLES[0], colour="matched")
    with pytest.raises(UsageError, match="at least one style"):
        stylizer(CONTENT, [])


@pytest.fixture(scope="module")
def shipped():
    return Stylizer.load(SHIPPED_MODEL, "cpu")


def test_a_style_card_is_the_style(shipped, tmp_path):
    card = shipped.make_card(STYLES[0], "Waves", "a drawn picture")
    card.save(tmp_path / "waves.style")
    assert (tmp_path / "waves.style").stat().st_size < 12_000
    read = StyleCard.load(tmp_path / "waves.style")
    assert (read.title, read.source, read.model) == ("Waves", "a drawn picture", shipped.model_id)
    assert read.thumbnail[:2] == b"\xff\xd8"
    assert torch.equal(shipped(CONTENT, read), shipped(CONTENT, STYLES[0]))


def test_a_card_of_several_works_is_their_mean(shipped):
    card = shipped.make_card(STYLES, "Three")
    mixed = shipped(CONTENT, STYLES)
    torch.testing.assert_close(shipped(CONTENT, card), mixed, rtol=0, atol=1e-5)


def test_another_model_refuses_a_card(shipped, trained_run, tmp_path):
    card = shipped.make_card(STYLES[0], "Waves")
    other = Stylizer.load(trained_run, "cpu")
    with pytest.raises(WeightsError, match="make the card again"):
        other(CONTENT, card)
    with pytest.raises(UsageError, match="loaded from a file"):
        Stylizer(compact(), "cpu").make_card(STYLES[0], "x")
    (tmp_path / "no.style").write_bytes(b"no")
    for path in (tmp_path / "no.style", SHIPPED_MODEL, tmp_path / "absent.style"):
        with pytest.raises(WeightsError, match="expected a style card"):
            StyleCard.load(path)


def rolled(picture, down, right):
    return picture.roll((down, right), (-2, -1))


def test_a_seamless_texture_has_no_border(stylizer):
    """To shift the texture around its border and to stylise it commute, so there is no seam."""
    texture = image(3, 48, 64)
    made = stylizer(texture, STYLES[0], is_seamless=True)
    assert made.shape == texture.shape
    moved = stylizer(rolled(texture, 24, 32), STYLES[0], is_seamless=True)
    torch.testing.assert_close(moved, rolled(made, 24, 32), rtol=0, atol=1e-4)
    plain = stylizer(rolled(texture, 24, 32), STYLES[0])
    assert not torch.allclose(rolled(stylizer(texture, STYLES[0]), 24, 32), plain, atol=0.01)


def test_tiles_of_a_seamless_texture_meet(shipped):
    """Across the seam of 2 x 2 tiles neighbours differ as they do elsewhere."""
    x = torch.arange(64) * 2 * torch.pi / 64
    wave = 0.5 + 0.2 * torch.stack([x.sin() + y.cos() for y in x])
    texture = torch.stack([wave, wave.roll(9, 1), wave.roll(20, 0)])
    jumps = {}
    for is_seamless in (True, False):
        made = shipped(texture, STYLES[1], is_seamless=is_seamless).repeat(1, 2, 2)
        steps = (made[:, :, 1:] - made[:, :, :-1]).abs().mean((0, 1))
        jumps[is_seamless] = float(steps[63] / torch.cat([steps[8:55], steps[72:119]]).mean())
    assert jumps[True] < 1.6 < jumps[False]


def test_seamless_with_regions_colours_and_tiles(net):
    texture, soft = image(3, 64, 72), image(8, 9, seed=3)
    options = {"regions": [(soft, STYLES[1])], "colour": "content", "is_seamless": True}
    for base in (STYLES[0], []):
        whole = Stylizer(net, "cpu", tile="off")(texture, base, **options)
        tiled = Stylizer(net, "cpu", tile=64)(texture, base, **options)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=2e-5)


def test_a_texture_off_the_grid_is_refused(stylizer):
    with pytest.raises(UsageError, match="multiples of 8"):
        stylizer(image(3, 30, 64), STYLES[0], is_seamless=True)


def test_strokes_of_a_seamless_texture_are_those_of_the_picture(shipped):
    content, style = image(3, 64, 64), image(3, 40, 48, seed=1)
    by_stroke = shipped(content, style, stroke=0.5, is_seamless=True)
    small = as_seen(style[None], content[None], "style", 0.5)
    torch.testing.assert_close(by_stroke, shipped(content, small, is_seamless=True))


@pytest.mark.parametrize(
    "damage", [lambda card: {"model": ()}, lambda card: {"code": (card.code[0] * torch.nan,)}]
)
def test_a_damaged_card_is_one_line(shipped, tmp_path, damage):
    card = shipped.make_card(image(3, 32, 32), "mine")
    dataclasses.replace(card, **damage(card)).save(tmp_path / "mine.style")
    with pytest.raises(WeightsError, match="expected a style card"):
        StyleCard.load(tmp_path / "mine.style")


def test_a_card_whose_code_does_not_fit_is_one_line(shipped):
    card = shipped.make_card(image(3, 32, 32), "mine")
    with pytest.raises(WeightsError, match="has 2 others"):
        shipped(image(3, 32, 32), dataclasses.replace(card, code=card.code[:2]))
    with pytest.raises(UsageError, match="expected pictures for a style card"):
        shipped.make_card(card, "again")


def test_a_network_for_one_style_has_no_strokes():
    one = Stylizer(JohnsonNet((4, 6, 8), 1), "cpu")
    with pytest.raises(UsageError, match="neither stroke nor colour matched"):
        one(image(3, 32, 32), [], stroke=2)
