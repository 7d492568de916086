"""Optimisation of pixels: courses, starts, sizes, and what it reaches on real pictures."""

import dataclasses

import pytest
import torch

from stylenet import build, images
from stylenet.applying.optimise import Gatys, split_losses
from stylenet.errors import NonFiniteLossError, UsageError, WeightsError
from stylenet.losses import effective_weight

SMALL = ["loss.content_taps=[relu2_1]", "loss.style_taps=[relu1_1,relu2_1]"]


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def make(vgg19_file):
    """A Gatys on the small random VGG, with overrides."""

    def make_one(*overrides):
        return Gatys.load(None, [*SMALL, f"network.weights={vgg19_file}", *overrides], "cpu")

    return make_one


def course_of(gatys, content, style):
    return gatys.course(content, [style], [1.0], min(content.shape[-2:]), None)


CONTENT, STYLE = image(1, 3, 20, 24), image(1, 3, 28, 16, seed=1)


@pytest.mark.parametrize("statistic", ["gram", "mean_std", "sliced"])
@pytest.mark.parametrize("optimiser", [["optim.name=lbfgs"], ["optim.name=adam", "optim.lr=0.02"]])
def test_the_loss_falls_and_pixels_stay_in_range(make, statistic, optimiser):
    gatys = make(f"loss.style_statistic={statistic}", *optimiser)
    iterates = list(course_of(gatys, CONTENT, STYLE).iterates(25))
    assert [iterate.iteration for iterate in iterates] == list(range(26))
    assert min(iterate.total for iterate in iterates) < 0.5 * iterates[0].total
    assert all(i.pixels.min() >= 0 and i.pixels.max() <= 1 for i in iterates)
    assert torch.equal(iterates[0].pixels, CONTENT)
    again = course_of(gatys, CONTENT, STYLE)
    weights = again.objective.weights
    for iterate in (iterates[0], iterates[-1]):  # the terms are those of the pixels beside them
        terms = again.objective.terms(iterate.pixels, again.seen)
        total = sum(effective_weight(name, weights) * t.item() for name, t in terms.items())
        assert iterate.total == pytest.approx(total, rel=1e-5)
        assert sum(split_losses(iterate.terms, weights).values()) == pytest.approx(total, rel=1e-5)


def test_the_picture_is_the_best_iterate(make):
    """Large steps of Adam overshoot: the last iterate is not the best."""
    gatys = make("optim.name=adam", "optim.lr=0.3", "optim.iterations=9")
    iterates = list(course_of(gatys, CONTENT, STYLE).iterates(9))
    best = min(iterates, key=lambda iterate: iterate.total)
    assert best.iteration != 9
    assert torch.equal(gatys(CONTENT, STYLE), best.pixels)


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_a_stored_course_continues_bit_for_bit(make, optimiser):
    gatys = make(f"optim.name={optimiser}", "optim.lr=0.05")
    whole = list(course_of(gatys, CONTENT, STYLE).iterates(8))
    first = course_of(gatys, CONTENT, STYLE)
    for iterate in first.iterates(8):
        if iterate.iteration == 4:
            break
    second = course_of(gatys, CONTENT, STYLE)
    second.load(first.state())
    rest = list(second.iterates(8))
    assert [iterate.iteration for iterate in rest] == [5, 6, 7, 8]
    assert [i.total for i in rest] == [i.total for i in whole[5:]]
    assert torch.equal(rest[-1].pixels, whole[-1].pixels)


def test_starts(make):
    noise = [
        course_of(make("optim.start=noise", f"optim.seed={s}"), CONTENT, STYLE) for s in (0, 0, 1)
    ]
    pixels = [course.pixels.detach() for course in noise]
    assert torch.equal(pixels[0], pixels[1]) and not torch.equal(pixels[0], pixels[2])
    start = course_of(make("optim.start=style"), CONTENT, STYLE).pixels
    assert start.shape == CONTENT.shape
    torch.testing.assert_close(start.mean(), STYLE.mean(), atol=0.02, rtol=0)


def test_coarse_to_fine(make):
    content, style = image(1, 3, 40, 48), image(1, 3, 40, 40, seed=1)
    gatys = make("optim.scales=[20,30,999]", "optim.iterations=6", "optim.fine_iterations=2")
    assert gatys.sizes(content) == [20, 30, 40]
    small = gatys.course(content, [style], [1.0], 20, None)
    assert small.pixels.shape == (1, 3, 20, 24)
    picture = gatys(content, style)
    assert picture.shape == content.shape and not torch.equal(picture, content)


def test_a_mixture_of_styles_has_the_mean_gram_matrix(make):
    gatys, other = make(), image(1, 3, 20, 20, seed=2)
    seen = gatys.course(CONTENT, [STYLE, other], [0.25, 0.75], 20, None).seen
    parts = [gatys.objective.observe(CONTENT, x).style_grams["relu1_1"] for x in (STYLE, other)]
    torch.testing.assert_close(seen.style_grams["relu1_1"], 0.25 * parts[0] + 0.75 * parts[1])
    with pytest.raises(UsageError, match="weight"):
        gatys(CONTENT, STYLE, other, mixture=[1.0])


def test_weights_of_a_mixture_count_by_their_proportion(make):
    gatys, other = make("optim.iterations=2"), image(1, 3, 20, 20, seed=2)
    by_ones, by_none, by_fives = (
        gatys(CONTENT, STYLE, other, mixture=mixture) for mixture in ([1, 1], None, [5, 5])
    )
    assert torch.equal(by_ones, by_none) and torch.equal(by_ones, by_fives)
    # a style mixed with itself is the style
    alone = gatys(CONTENT, STYLE)
    torch.testing.assert_close(gatys(CONTENT, STYLE, STYLE), alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("statistic", ["gram", "mean_std", "sliced"])
def test_the_scale_of_the_networks_layers_does_not_count(make, statistic):
    """Activations a thousand times as large give the same losses, and nearly the same course."""
    totals = []
    for factor in (1, 1000):
        gatys = make(f"loss.style_statistic={statistic}", "optim.lr=0.1")
        conv = list(gatys.objective.teacher.convs.values())[-1]
        conv.weight.mul_(factor)
        conv.bias.mul_(factor)
        course = course_of(gatys, CONTENT, STYLE)
        totals.append([iterate.total for iterate in course.iterates(5)])
    assert totals[0] == pytest.approx(totals[1], rel=0.02)


def test_layers_are_equal_and_relative_to_their_targets(make):
    course = course_of(make(), CONTENT, STYLE)
    weights = course.objective.weights
    assert weights.content == 0 and weights.style == 0 and weights.gram == 10
    for tap, weight in weights.taps.items():
        square = course.seen.style_grams[tap].square().mean().item()
        assert weight == pytest.approx(0.5 / square)
    square = course.seen.content_features["relu2_1"].square().mean().item()
    assert weights.feature_taps["relu2_1"] == pytest.approx(1 / square)


def test_a_course_that_diverges_is_one_error(make):
    gatys = make()
    course = course_of(gatys, CONTENT, STYLE)
    course.objective.weights = course.objective.weights._replace(gram=float("inf"))
    with pytest.raises(NonFiniteLossError, match="after 0 iterations; lower optim.lr"):
        next(course.iterates(2))


def test_a_network_that_ends_before_a_tap_is_named(vgg19_file):
    with pytest.raises(WeightsError, match="expected weights up to relu5_1"):
        Gatys.load(None, [f"network.weights={vgg19_file}"], "cpu")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.scales=[64,32]", "ascending optim.scales"),
        ("optim.iterations=0", "optim.iterations above 0"),
        ("loss.style_taps=[]", "distinct taps in loss.style_taps"),
        ("loss.style_tap_weights=[1]", "5 weights of 0 or more"),
        ("loss.content_taps=[conv4_2]", "loss.content_taps such as relu4_2"),
        ("loss.style_statistic=mean", "gram|mean_std|sliced"),
        ("snapshots.every=0", "snapshots.every above 0"),
    ],
)
def test_mistakes_in_the_options(override, words):
    with pytest.raises(UsageError, match="expected") as caught:
        build.read_optimisation(None, [override])
    assert words in str(caught.value)


def test_the_shipped_file_says_what_the_defaults_are():
    from conftest import ROOT

    shipped = build.read_optimisation(str(ROOT / "configs/gatys.yaml"), [])
    assert shipped == build.read_optimisation(None, [])


@pytest.mark.slow
def test_optimisation_beats_the_feed_forward_network_on_real_pairs(real):
    """Under one objective, on five pairs: the bound that feed-forward networks approach."""
    from stylenet import Stylizer

    taps = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    gatys = Gatys.load(
        None,
        [
            f"network.weights={real('vgg19')}",
            "loss.content_taps=[relu4_1]",
            f"loss.style_taps={taps}".replace("'", "").replace(" ", ""),
        ],
        "cpu",
    )
    stylizer = Stylizer.load(device="cpu")
    folders = [images.list_images(real(kind)) for kind in ("content", "style")]
    for content_path, style_path in zip(folders[0][:5], folders[1][:5], strict=True):
        content, style = (images.load_image(path, 64)[None] for path in (content_path, style_path))
        course = gatys.course(content, [style], [1.0], min(content.shape[-2:]), None)
        iterates = list(course.iterates(30))
        best = min(iterates, key=lambda iterate: iterate.total)
        rival = gatys.course(stylizer(content, style), [style], [1.0], 64, None)
        rival.objective, rival.seen = course.objective, course.seen
        fed_forward = next(rival.iterates(0))
        assert best.total < fed_forward.total, (content_path.name, style_path.name)
        first, last = (
            split_losses(i.terms, course.objective.weights)["style"] for i in (iterates[0], best)
        )
        assert last < 0.2 * first


def test_a_look_is_frozen_and_options_too():
    options = build.read_optimisation(None, []).optim
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.lr = 2
