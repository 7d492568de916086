"""Scores against plain formulas, the oracle, the store, and the real judge on photos."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import draw

from stylenet import build
from stylenet.config.protocol import Protocol
from stylenet.errors import DataError
from stylenet.images import load_image
from stylenet.metrics import functional, suite
from stylenet.metrics.candidates import (
    ContentCopy,
    Folder,
    StyleCopy,
    distinct,
    measure_cost,
    short_name,
)
from stylenet.metrics.functional import Point
from stylenet.metrics.pairs import choose_pairs, load_picture
from stylenet.metrics.scorer import Scorer
from stylenet.metrics.store import Store, pack, unpack
from stylenet.metrics.suite import Evaluation, is_enough, iterations_to


def protocol(*overrides):
    return Protocol.load(None, ["images.resize_px=32", "networks.download=false", *overrides])


def make_scorer(vgg19_file, image_folders, *overrides):
    chosen = protocol(f"judge.weights={vgg19_file}", "pairs.n=3", *overrides)
    pairs = choose_pairs(chosen, *map(str, image_folders))
    return chosen, pairs, Scorer(chosen, pairs, torch.device("cpu"))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_scores_are_the_formulas_on_the_judges_features(vgg19_file, image_folders, reduction):
    chosen, pairs, scorer = make_scorer(
        vgg19_file,
        image_folders,
        f"metrics.style_reduction={reduction}",
        "metrics.cfsd_px=0",
        "metrics.content_taps=[relu3_1,relu4_1]",
    )
    content, style = load_picture(pairs.contents[0], chosen), load_picture(pairs.styles[0], chosen)
    output = (content + style.flip(-1)) / 2
    values = scorer.score(*map(scorer.describe, (output, content, style)))
    taps = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    f_o, f_c, f_s = (scorer.judge.network(x, taps) for x in (output, content, style))

    def standard(f):
        return (f - f.mean((2, 3), keepdim=True)) / (
            f.var((2, 3), correction=0, keepdim=True) + 1e-5
        ).sqrt()

    def style_term(a, b):
        gaps = [
            (a.mean((2, 3)) - b.mean((2, 3))) ** 2,
            (a.std((2, 3), correction=0) - b.std((2, 3), correction=0)) ** 2,
        ]
        return float(sum(gap.sum() if reduction == "sum" else gap.mean() for gap in gaps))

    approx = lambda value: pytest.approx(value, rel=2e-3)  # noqa: E731 - eps differs
    assert values["content"] == approx(
        sum(float(((f_o[t] - f_c[t]) ** 2).mean()) for t in taps[2:]) / 2
    )
    assert values["content_norm/relu4_1"] == approx(
        float(((standard(f_o["relu4_1"]) - standard(f_c["relu4_1"])) ** 2).mean())
    )
    assert values["style"] == approx(sum(style_term(f_o[t], f_s[t]) for t in taps) / 4)
    copied = sum(style_term(f_c[t], f_s[t]) for t in taps) / 4
    assert values["style_relative"] == approx(values["style"] / copied)
    f4 = (
        standard(f_c["relu4_1"])
        * (f_s["relu4_1"].var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    )
    target = f4 + f_s["relu4_1"].mean((2, 3), keepdim=True)
    assert values["target"] == approx(float(((f_o["relu4_1"] - target) ** 2).mean()))
    assert values["cfsd"] == pytest.approx(
        float(functional.cfsd(f_c["relu3_1"], f_o["relu3_1"])), rel=1e-4
    )
    assert values["ssim"] == pytest.approx(float(functional.ssim(output, content)))
    assert values["colour"] == pytest.approx(float(functional.colour_distance(output, style)))


def test_judge_is_calibrated_unless_its_file_is_normalised(vgg19_file, image_folders):
    _, pairs, scorer = make_scorer(vgg19_file, image_folders)
    assert scorer.judge.mu_sha256 and not scorer.judge.is_normalised_file
    features = torch.cat(
        [
            scorer.judge.network(picture, ["relu2_1"])["relu2_1"]
            for picture in scorer.calibration_pictures(pairs)
        ]
    )
    means = features.mean((0, 2, 3))
    assert means[means > 0.9].mean().item() == pytest.approx(1, abs=1e-3)
    _, _, raw = make_scorer(vgg19_file, image_folders, "judge.calibrate=no")
    assert raw.judge.mu_sha256 is None and raw.judge.sha256 == scorer.judge.sha256


def test_pixels_follow_the_objective_of_training(vgg19_file, image_folders, tmp_path):
    chosen, pairs, scorer = make_scorer(
        vgg19_file, image_folders, "oracle.iterations=12", "metrics.style_taps=[relu1_1,relu2_1]"
    )
    evaluation = Evaluation(chosen, pairs, [ContentCopy()], scorer, tmp_path)
    content, style = evaluation.load_pair(0)
    course = list(evaluation.optimise(0))
    assert len(course) == 13
    total = [point.content + chosen.oracle.style_weight * 2 * point.style for point in course]
    assert total[12] < 0.8 * total[0] and course[12].style < course[0].style
    values = scorer.score(*map(scorer.describe, (content, content, style)))
    assert course[0].content == pytest.approx(
        values["target"], rel=1e-4
    )  # it starts from the content image
    assert course[0].style == pytest.approx(
        sum(values[f"style/{tap}"] for tap in ("relu1_1", "relu2_1")) / 2, rel=1e-4
    )


def test_steps_of_the_oracle():
    course = [(1.0, 4.0), (1.2, 2.0), (0.9, 1.0), (0.5, 0.5)]
    assert iterations_to(course, Point(1.0, 2.0)) == 2  # at no more content loss
    assert iterations_to(course, Point(9, 9)) == 0 and iterations_to(course, Point(0.1, 9)) is None
    assert is_enough(course, [Point(1, 2)], 100) and not is_enough(course, [Point(0.1, 2)], 100)
    assert is_enough(course, [Point(0.1, 2)], 3) and not is_enough([], [], 3)


def test_store_reads_only_whole_lines_of_its_settings(tmp_path):
    store = Store(tmp_path, "a")
    store.add(("pair", "m", 0.5, 1), values={"style": 0.1})
    Store(tmp_path, "b").add(("pair", "m", 0.5, 2), values={})
    file = tmp_path / "work/rows-0.jsonl"
    file.write_text(file.read_text() + '{"settings": "a", "key": ["pair", "m"')
    again = Store(tmp_path, "a")
    assert list(again.rows) == [("pair", "m", 0.5, 1)] and again["pair", "m", 0.5, 1]["values"] == {
        "style": 0.1
    }
    again.add(("pair", "m", 1.0, 3), values={})
    assert len(Store(tmp_path, "a").rows) == 2
    assert all(json.loads(line) for line in file.read_text().splitlines() if line.endswith("}"))


def test_vectors_survive_the_store_exactly():
    vector = torch.randn(33, generator=torch.Generator().manual_seed(0))
    assert unpack(pack({"v": vector})["v"]).equal(vector)


def test_settings_change_with_what_moves_a_number(vgg19_file, image_folders):
    def name(*overrides):
        return suite.settings_name(*make_scorer(vgg19_file, image_folders, *overrides))

    assert name() == name("tracking.project=other")
    assert (
        len(
            {
                name(),
                name("metrics.colour_bins=4"),
                name("pairs.seed=1"),
                name("judge.calibrate=no"),
            }
        )
        == 4
    )


def test_style_copy_of_another_shape_fits_the_content(image_folders):
    chosen = protocol("images.crop=none")
    pairs = choose_pairs(chosen, *map(str, image_folders))
    content, style = load_picture(pairs.contents[0], chosen), load_picture(pairs.styles[0], chosen)
    assert content.shape != style.shape
    assert StyleCopy().picture(pairs, (0, 0), content, style, None).shape == content.shape
    assert ContentCopy().picture(pairs, (0, 0), content, style, None) is content


def test_a_picture_without_a_finite_score_is_refused(image_folders):
    pairs = choose_pairs(protocol(), *map(str, image_folders))
    with pytest.raises(
        suite.DataError, match="expected finite metrics, but style of content copy on c0.png"
    ):
        suite.check_finite({"style": math.nan}, ContentCopy(), pairs, (0, 0))


def test_names_in_tables(tmp_path):
    run = tmp_path / "mine"
    run.mkdir()
    (run / "model.safetensors").touch()
    assert [short_name(str(p)) for p in (run, run / "model.safetensors", "x/decoder.pth")] == [
        "mine",
        "mine",
        "decoder",
    ]
    assert distinct(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]
    assert distinct(["a", "a", "a (2)"]) == ["a", "a (2)", "a (2) (2)"]


def test_folder_changes_its_name_with_its_pictures(image_folders, tmp_path):
    chosen = protocol("pairs.n=1")
    pairs = choose_pairs(chosen, *map(str, image_folders))
    (c, s), ids = pairs.pairs[0], []
    row = ",".join((*pairs.names_of((c, s)), "0.png"))
    for seed in (0, 0, 1):
        draw(tmp_path / "0.png", seed, 32, 32)
        (tmp_path / "manifest.csv").write_text(f"content,style,output\n{row}\n")
        ids.append(Folder(str(tmp_path), "peer", pairs).id)
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.slow
def test_published_decoder_on_real_pictures(real, tmp_path):
    """The decoder lies between the controls.

    It is nearer to the style than the content copy, and nearer to the content than the style copy.
    """
    from stylenet.metrics.candidates import Model
    from stylenet.metrics.summary import summarise

    weights = str(real("vgg19_normalised"))
    chosen = protocol(
        f"judge.weights={weights}", "pairs.n=12", "images.resize_px=128", "metrics.timing_rounds=1"
    )
    pairs = choose_pairs(chosen, str(real("content")), str(real("style")))
    model = Model(str(real("decoder")), "published", [1.0], "cpu", weights)
    evaluation = Evaluation(
        chosen,
        pairs,
        [ContentCopy(), StyleCopy(), model],
        Scorer(chosen, pairs, torch.device("cpu")),
        tmp_path,
    )
    evaluation.score_all()
    content, style, published = (
        entry["metrics"] for entry in summarise(evaluation, "test", [])["candidates"]
    )
    assert published["style"]["mean"] < 0.5 * content["style"]["mean"]
    assert published["content_norm"]["mean"] < 0.6 * style["content_norm"]["mean"]
    assert (
        published["gram"]["mean"] < content["gram"]["mean"]
        and published["target"]["mean"] < content["target"]["mean"]
    )


def test_stylenet_of_a_published_decoder_wants_the_normalised_encoder(vgg19_file, tmp_path):
    from stylenet.applying.stylizer import load_network
    from stylenet.errors import WeightsError

    torch.save({}, tmp_path / "decoder.pth")
    with pytest.raises(WeightsError, match="expected the normalised VGG for"):
        load_network(tmp_path / "decoder.pth", str(vgg19_file))


def test_protocol_comes_back_from_its_values():
    chosen = protocol("pairs.n=3", "metrics.style_taps=[relu1_1]")
    assert build.make_protocol(json.loads(json.dumps(chosen.to_flat()))) == chosen


def test_pictures_of_a_png_are_read_as_they_are(tmp_path):
    path = draw(tmp_path / "a.png", 0, 32, 32)
    assert load_picture(path, protocol("images.crop=none"))[0].equal(load_image(path))


def test_a_cost_whose_process_dies_is_one_line(tmp_path):
    model = SimpleNamespace(path=str(tmp_path / "none.safetensors"), encoder=None, device="cpu")
    with pytest.raises(DataError, match="exit code 1; set images.resize_px below 32"):
        measure_cost(model, 32, 1)
