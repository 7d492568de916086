"""The pairs of an evaluation, and how their pictures are prepared."""

import math
import tarfile

import numpy as np
import pytest
from conftest import draw
from PIL import Image

from stylenet import datasets, images
from stylenet.config.protocol import Protocol
from stylenet.errors import DataError
from stylenet.metrics.pairs import choose_pairs, draw_pairs, load_picture


def protocol(*overrides):
    return Protocol.load(None, list(overrides))


@pytest.mark.parametrize("n_contents, n_styles", [(4, 6), (5, 5), (3, 7), (1, 4), (6, 1)])
def test_all_pairs_of_the_product_once(n_contents, n_styles):
    pairs = draw_pairs(n_contents, n_styles, 0, seed=3)
    assert pairs == tuple((c, s) for c in range(n_contents) for s in range(n_styles))


@pytest.mark.parametrize(
    "n_contents, n_styles, n", [(4, 6, 9), (50, 10, 200), (100, 90, 40), (7, 7, 20)]
)
def test_drawn_pairs_differ_and_use_every_image_as_often(n_contents, n_styles, n):
    pairs = draw_pairs(n_contents, n_styles, n, seed=0)
    assert len(set(pairs)) == n
    for k, size in enumerate((n_contents, n_styles)):
        counts = np.bincount([pair[k] for pair in pairs], minlength=size)
        assert counts.max() - counts.min() <= 1


def test_draw_depends_on_the_seed_alone():
    assert draw_pairs(50, 50, 10, 0) == draw_pairs(50, 50, 10, 0) != draw_pairs(50, 50, 10, 1)
    # contents and styles are drawn independently: no content keeps the style of its own number
    assert sum(c == s for c, s in draw_pairs(50, 50, 50, 0)) < 10


def test_contents_and_styles_are_drawn_before_the_pairs(image_folders):
    content, style = map(str, image_folders)
    pairs = choose_pairs(protocol("pairs.contents=3", "pairs.styles=2"), content, style)
    assert (len(pairs.contents), len(pairs.styles), len(pairs.pairs)) == (3, 2, 6)
    assert [len(names) for names in pairs.names] == [3, 2] and pairs.names[1][0].startswith("s")
    assert pairs == choose_pairs(protocol("pairs.contents=3", "pairs.styles=2"), content, style)


def test_held_out_share_is_what_training_never_saw(image_folders):
    content, style = map(str, image_folders)
    split = datasets.read_split(content, 0.3, "data.content")
    pairs = choose_pairs(protocol("pairs.held_out=0.3"), content, style)
    assert pairs.contents == split.held_out.paths and not set(pairs.contents) & set(
        split.train.paths
    )
    assert len(choose_pairs(protocol(), content, style).contents) == 10


def test_manifest_gives_its_held_out_part(image_folders, tmp_path):
    content, style = image_folders
    (tmp_path / "m.csv").write_text(
        f"path,split\n{content}/c0.png,train\n{content}/c2.png,held_out\n"
    )
    assert [
        path.name for path in choose_pairs(protocol(), str(tmp_path / "m.csv"), str(style)).contents
    ] == ["c2.png"]
    (tmp_path / "m.csv").write_text(f"path,split\n{content}/c0.png,train\n")
    assert [
        path.name for path in choose_pairs(protocol(), str(tmp_path / "m.csv"), str(style)).contents
    ] == ["c0.png"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("content,style\nc0.png,none.png\n", "'none.png' is in neither"),
        ("content,style\n", "it lists no pair"),
        ("a,b\n1,2\n", "expected a table with the columns content, style"),
    ],
)
def test_faulty_lists(image_folders, tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        choose_pairs(protocol(f"pairs.list={tmp_path / 'list.csv'}"), *map(str, image_folders))


def test_pictures_are_prepared_as_the_protocol_says(tmp_path):
    path = draw(tmp_path / "a.png", 0, 80, 40)
    square = load_picture(path, protocol("images.resize_px=20"))
    whole = load_picture(path, protocol("images.resize_px=20", "images.crop=none"))
    assert square.shape == (1, 3, 20, 20) and whole.shape == (1, 3, 20, 40)
    assert square.equal(whole[..., 10:30])
    expected = (
        np.asarray(Image.open(path).convert("RGB").resize((40, 20), Image.Resampling.LANCZOS)) / 255
    )
    lanczos = load_picture(
        path, protocol("images.resize_px=20", "images.crop=none", "images.filter=lanczos")
    )
    np.testing.assert_allclose(lanczos[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)
    assert not math.isclose(float((lanczos - whole).abs().max()), 0)


def test_sets_inside_each_other_keep_their_names_apart(tmp_path):
    for i in range(2):
        draw(tmp_path / f"{i}.png", i, 16, 16)
        draw(tmp_path / f"sub/{i}.png", 9 + i, 16, 16)
    (tmp_path / "list.csv").write_text("content,style\n0.png,1.png\nsub/0.png,0.png\n")
    sets = str(tmp_path), str(tmp_path / "sub")
    pairs = choose_pairs(protocol(f"pairs.list={tmp_path / 'list.csv'}"), *sets)
    used = [(pairs.contents[c], pairs.styles[s]) for c, s in pairs.pairs]
    assert used == [
        (tmp_path / "0.png", tmp_path / "sub/1.png"),
        (tmp_path / "sub/0.png", tmp_path / "sub/0.png"),
    ]
    drawn = choose_pairs(protocol("pairs.n=0"), *sets)
    names = [drawn.names_of(pair) for pair in drawn.pairs]
    assert len(set(names)) == len(names) == 6


def test_sets_in_shards(tmp_path):
    draw(tmp_path / "a.png", 1, 16, 16)
    draw(tmp_path / "b.png", 2, 16, 16)
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("a.png", "b.png"):
            tar.add(tmp_path / name, name)
    origin = str(tmp_path / "{0..0}.tar")
    pairs = choose_pairs(protocol("pairs.n=0"), origin, origin)
    assert {pairs.names_of(pair) for pair in pairs.pairs} == {
        ("0.tar/a.png", "0.tar/b.png"),
        ("0.tar/b.png", "0.tar/a.png"),
    }
    assert images.sha256_of_picture(pairs.contents[0]) == images.sha256_of_picture(
        tmp_path / "a.png"
    )
