"""eval.py --explain: statistics, maps of the losses, and each part of a code alone."""

import csv

import pytest
import torch

import eval as evaluation
from stylenet import Stylizer, images
from stylenet.errors import UsageError
from stylenet.metrics import explain
from stylenet.models.vgg_files import load_vgg

TAPS = ("relu1_1", "relu2_1")


def image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def judge(vgg19_file):
    return load_vgg("vgg19", vgg19_file, TAPS)


def test_rows_hold_every_channel_and_the_most_moved_first(judge):
    content, style = image(1, 3, 32, 32), image(1, 3, 32, 32, seed=1) ** 2
    stats = [explain.stats_by_tap(judge, picture, TAPS) for picture in (content, style, style)]
    rows = list(explain.statistics_rows(*stats))
    assert len(rows) == 2 * (64 + 128)
    first = [abs(row[-1]) for row in rows if row[0] == "relu1_1"]
    assert first == sorted(first, reverse=True) and first[0] > 0
    for tap, channel, name, before, wanted, after, moved in rows[:5]:
        mean, std = (part.flatten()[channel].item() for part in stats[0][tap])
        assert before == pytest.approx({"mean": mean, "deviation": std}[name], abs=1e-5)
        assert wanted == after and moved == pytest.approx(
            (after - before) / std, rel=1e-3, abs=1e-4
        )
    # the output is the style: nothing is left
    assert [row[-1] for row in explain.loss_rows(*stats)] == [0.0, 0.0]


def test_the_content_map_is_where_the_picture_changed(judge):
    content = image(1, 3, 64, 64)
    changed = content.clone()
    changed[..., 40:56, 8:24] = 1 - changed[..., 40:56, 8:24]
    values = explain.content_loss_map(judge, content, changed, "relu2_1")  # at 1/2 of the size
    top, left = divmod(int(values.argmax()), values.shape[1])
    assert 18 <= top <= 29 and 2 <= left <= 13
    assert explain.content_loss_map(judge, content, content, "relu2_1").max() == 0


def test_the_style_map_is_the_gradient(judge):
    style, output = image(1, 3, 16, 16, seed=1) ** 2, image(1, 3, 16, 16)
    values = explain.style_loss_map(judge, style, output, TAPS)

    def loss(picture):
        wanted = explain.stats_by_tap(judge, style, TAPS)
        own = explain.stats_by_tap(judge, picture, TAPS)
        return sum(
            (a - b).square().mean()
            for tap in TAPS
            for a, b in zip(own[tap], wanted[tap], strict=True)
        ).item()

    y, x = divmod(int(values.argmax()), 16)
    changes = []
    for channel in range(3):
        moved = [output.clone() for _ in range(2)]
        for sign, picture in zip((1, -1), moved, strict=True):
            picture[0, channel, y, x] += sign * 1e-2
        changes.append((loss(moved[0]) - loss(moved[1])) / 2e-2)
    assert values[y, x].item() == pytest.approx(sum(c * c for c in changes) ** 0.5, rel=0.05)


def test_heat_is_red_where_the_map_is_high():
    values = torch.zeros(8, 8)
    values[:4] = 1
    red, green, blue = explain.heat(values, torch.full((1, 3, 16, 16), 0.5))
    assert red[:6].min() > 0.95 and green[:6].max() < 0.05 and torch.equal(green, blue)
    assert torch.allclose(red[12:], green[12:])


def test_parts_alone_of_the_small_network():
    stylizer = Stylizer.load(device="cpu")
    content, style = image(1, 3, 32, 32), image(1, 3, 32, 32, seed=1) ** 3
    alone = list(explain.parts_alone(stylizer, content, style))
    assert len(alone) == 3  # its depths
    own = stylizer(content, stylizer.encode_style(content))
    assert all(not torch.allclose(picture, own, atol=1e-3) for picture in alone)
    assert all(torch.equal(p, own) for p in explain.parts_alone(stylizer, content, content))


def test_the_command_writes_a_folder_for_each_pair(
    trained_run, image_folders, vgg19_file, tmp_path, capsys
):
    call = ["--model", trained_run, "--content", image_folders[0], "--style", image_folders[1]]
    call += ["--output", tmp_path / "out", "--explain", "2", "pairs.n=3", "images.resize_px=32"]
    call += ["metrics.names=[style,target]", "metrics.style_taps=[relu1_1,relu2_1]"]
    call += [f"judge.weights={vgg19_file}", "tracking.mode=disabled"]
    assert evaluation.main([str(part) for part in call]) == 0
    assert capsys.readouterr().out.count("explained: ") == 2
    place = tmp_path / "out/explain" / trained_run.name / "pair_002"
    names = {"statistics.csv", "losses.csv", "pictures.png", "content_loss.png", "style_loss.png"}
    assert {path.name for path in place.iterdir()} == names | {"layers.png"}
    with open(place / "losses.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["layer"] for row in rows] == list(TAPS)
    assert images.load_image(place / "layers.png").shape[2] == 2 * 32 + 4  # mean, deviation
    with pytest.raises(UsageError, match="expected a number of pairs as --explain"):
        evaluation.main([str(part) for part in [*call, "--explain", "-1"]])
