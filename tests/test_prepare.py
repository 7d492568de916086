"""The check of a folder, its manifest, and the pack of two sets."""

import csv
import hashlib
import os
import re
import shutil
import struct
import tarfile
import zlib

import numpy as np
import prepare
import pytest
from conftest import ROOT, draw, run_python
from PIL import Image

import train
from stylenet import datasets, images
from stylenet.config.training import Config
from stylenet.errors import DataError, UsageError


def png_16_bit_rgb(width, height):
    """A 16-bit RGB PNG, which Pillow reads but cannot write."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    rows = b"".join(b"\0" + bytes([row, 0, 90, 0, 200, row]) * width for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with one file of every kind that the check knows."""
    root = tmp_path / "images"
    for i in range(10):
        draw(root / f"good{i}.png", i, 80, 70)
    (root / "corrupt.jpg").write_bytes(b"no image")
    noise = Image.effect_noise((300, 300), 50).convert("RGB")
    noise.save(root / "cut.png")
    (root / "cut.png").write_bytes((root / "cut.png").read_bytes()[:20000])
    Image.new("RGB", (100, 20)).save(root / "tiny.png")
    Image.new("CMYK", (80, 80), (9, 99, 0, 0)).save(root / "cmyk.jpg")
    Image.new("RGBA", (80, 80), (9, 9, 99, 50)).save(root / "alpha.png")
    Image.fromarray(np.full((80, 80), 30000, dtype=np.uint16)).save(root / "deep.png")
    (root / "deep_rgb.png").write_bytes(png_16_bit_rgb(80, 80))
    (root / "good9.png").rename(os.fsdecode(os.fsencode(root) + b"/caf\xe9.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 70), (200, 10, 10)).save(root / "turned.jpg", exif=exif)
    (root / "sub").mkdir()
    shutil.copy(root / "good0.png", root / "sub/same.png")
    Image.open(root / "good1.png").save(root / "sub/saved_again.png", optimize=True, pnginfo=None)
    return root


def check(folder, *extra):
    return prepare.main(["check", str(folder), "--workers", "1", *map(str, extra)])


def test_everything_is_listed(folder, capsys):
    before = sorted(folder.rglob("*"))
    assert check(folder) == 0
    out = capsys.readouterr().out
    counts = dict(re.findall(r"^([\w-]+): (\d+)", out, re.MULTILINE))
    expected = {"corrupt": "1", "truncated": "1", "huge": "0", "tiny": "1", "duplicate": "2"}
    assert counts == expected | {"CMYK": "1", "alpha": "1", "16-bit": "2", "EXIF-rotated": "1"}
    assert (
        "sub/same.png: the same picture as" in out and "14 to train, 1 held out, 5 left out" in out
    )
    assert sorted(folder.rglob("*")) == before  # nothing is written into it
    manifest = folder.parent / f"{folder.name}.csv"
    assert len(datasets.read_split(str(manifest), 0, "x").train) == 14
    assert check(folder) == 0  # its own manifest is replaced, another file is not
    manifest.write_text("my,own,table\n")
    with pytest.raises(UsageError, match="it is another file; give --output"):
        check(folder)


def test_huge_pictures_are_left_out(folder, monkeypatch, capsys):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    finding = prepare.inspect(
        folder / "cmyk.jpg", 64
    )  # 6,400 is below the refusal at twice the limit
    assert finding.marks == ["CMYK"]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert prepare.inspect(folder / "cmyk.jpg", 64).marks == ["huge"]


def test_manifest_rows_and_split(folder, tmp_path):
    target = tmp_path / "elsewhere/m.tsv"
    assert check(folder, "--output", target, "--held-out", "0.3") == 0
    with open(target, newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    # a name need not be UTF-8
    assert b"caf\xe9.png" in [os.fsencode(row["path"]).rpartition(b"/")[2] for row in rows]
    assert len(rows) == 15 and {row["split"] for row in rows} == {"train", "held_out"}
    for row in rows:
        path = target.parent / row["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row[
            "sha256"
        ] and path.stat().st_size == int(row["bytes"])
        assert images.open_rgb(path).size == (int(row["width"]), int(row["height"]))
    split = datasets.read_split(str(target), 0.9, "x")
    assert (len(split.train), len(split.held_out)) == (12, 3)  # of 6 chosen, 3 are usable
    assert not set(split.train.paths) & set(split.held_out.paths)


@pytest.mark.parametrize("share", [0, 0.3, 0.6])
def test_the_split_is_that_of_training(folder, tmp_path, share):
    """A folder and its manifest hold out the same images, but for what the manifest leaves out."""
    assert check(folder, "--output", tmp_path / "m.csv", "--held-out", share) == 0
    by_folder = datasets.read_split(str(folder), share, "x")
    by_manifest = datasets.read_split(str(tmp_path / "m.csv"), 0.9, "x")
    for of_folder, of_manifest in zip(by_folder, by_manifest, strict=True):
        listed = {path.resolve() for path in of_manifest.paths}
        assert listed <= {path.resolve() for path in of_folder.paths}


def test_the_default_share_is_that_of_training():
    parsed = prepare.make_parser().parse_args(["check", "x"])
    assert parsed.held_out == Config().data.held_out


def test_training_takes_the_manifest(folder, tmp_path, tiny_options, capsys):
    assert check(folder, "--output", tmp_path / "m.csv") == 0
    options = [
        *tiny_options,
        f"data.content={tmp_path / 'm.csv'}",
        "train.steps=2",
        f"run.dir={tmp_path / 'run'}",
    ]
    assert train.main(["--config", str(ROOT / "configs/adain.yaml"), *options]) == 0
    assert "warning" not in capsys.readouterr().err


def test_mistakes(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "bad/x.png").write_bytes(b"")
    cases = [
        ([tmp_path / "absent"], DataError, "expected a folder"),
        ([tmp_path / "empty"], DataError, "there are none"),
        ([tmp_path / "bad"], DataError, "all 1 were left out"),
        ([folder, "--held-out", "1"], UsageError, "held-out in"),
        ([folder, "--output", tmp_path / "m.txt"], UsageError, "named"),
        ([folder, "--output", tmp_path / "folder.csv"], UsageError, "is a folder"),
    ]
    for arguments, kind, message in cases:
        with pytest.raises(kind, match=message):
            check(*arguments)
    done = run_python("data/prepare.py", "check", tmp_path / "empty")
    assert done.returncode == 3 and re.fullmatch(r"error: [^\n]*\n", done.stderr)


@pytest.fixture
def two_sets(tmp_path):
    for i in range(9):
        draw(tmp_path / "photos" / f"c{i}.png", i, 300 + i, 200)
    for i in range(6):
        draw(tmp_path / "paintings" / "deep" / f"s{i}.jpg", 50 + i, 90, 120)
    return [
        "--content",
        str(tmp_path / "photos"),
        "--style",
        str(tmp_path / "paintings"),
        "--workers",
        "1",
    ]


def unpack(file, folder):
    with tarfile.open(file) as tar:
        tar.extractall(folder, filter="data")
    return folder


def test_a_pack_is_both_sets_made_smaller(two_sets, tmp_path, tiny_options):
    target = tmp_path / "pack.tar"
    assert (
        prepare.main(
            [
                "pack",
                *two_sets,
                "--px",
                "96",
                "--max-mb",
                "1",
                "--held-out",
                "0.2",
                "--output",
                str(target),
            ]
        )
        == 0
    )
    folder = unpack(target, tmp_path / "there")
    contents, styles = (
        datasets.read_split(str(folder / f"{kind}.csv"), 0, "data") for kind in ("content", "style")
    )
    assert [len(part) for part in (*contents, *styles)] == [7, 2, 5, 1]
    before = datasets.read_split(two_sets[1], 0.2, "data")
    first = images.open_rgb(contents.train.paths[0])
    assert min(first.size) == 96 and images.open_rgb(styles.train.paths[0]).size == (
        90,
        120,
    )  # nothing is enlarged
    expected = images.open_rgb(before.train.paths[0]).resize(first.size, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(first, float) - np.asarray(expected, float)).mean() < 4
    options = [
        *tiny_options,
        f"data.content={folder}/content.csv",
        f"data.style={folder}/style.csv",
        "train.steps=1",
    ]
    assert (
        train.main(
            ["--config", str(ROOT / "configs/adain.yaml"), *options, f"run.dir={tmp_path}/run"]
        )
        == 0
    )


def test_a_pack_keeps_its_limit_at_the_best_quality(two_sets, tmp_path, capsys):
    qualities = {}
    for limit in ("1", "0.06"):
        target = tmp_path / f"{limit}.tar"
        assert (
            prepare.main(
                ["pack", *two_sets, "--px", "128", "--max-mb", limit, "--output", str(target)]
            )
            == 0
        )
        qualities[limit] = int(re.search(r"quality (\d+)", capsys.readouterr().out).group(1))
        assert target.stat().st_size <= float(limit) * 1e6
    assert qualities["1"] == 90 > qualities["0.06"] >= 30
    with pytest.raises(UsageError, match="give a smaller --px or a larger --max-mb"):
        prepare.main(["pack", *two_sets, "--max-mb", "0.01", "--output", str(tmp_path / "no.tar")])
    assert not (tmp_path / "no.tar").exists()


def test_a_pack_leaves_out_what_its_format_cannot_hold(two_sets, tmp_path, capsys):
    Image.new("RGB", (20_000, 18)).save(tmp_path / "photos/panorama.png")
    target = tmp_path / "p.tar"
    assert prepare.main(["pack", *two_sets, "--px", "16", "--output", str(target)]) == 3
    assert "panorama.png: expected sides of at most 16383" in "".join(capsys.readouterr())


def test_the_same_pictures_give_the_same_pack(two_sets, tmp_path):
    for name in ("a.tar", "b.tar"):
        assert (
            prepare.main(["pack", *two_sets, "--px", "32", "--output", str(tmp_path / name)]) == 0
        )
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_pack_leaves_broken_pictures_out(two_sets, tmp_path, capsys):
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no image")
    assert (
        prepare.main(["pack", *two_sets, "--px", "32", "--output", str(tmp_path / "p.tar")])
        == DataError.exit_code
    )
    said = capsys.readouterr()
    assert "bad.jpg" in said.err and "9 contents, 6 styles" in said.out
    listed = (
        (unpack(tmp_path / "p.tar", tmp_path / "there") / "content.csv").read_text().splitlines()
    )
    assert len(listed) == 10


@pytest.mark.parametrize(
    "wrong", [["--px", "3"], ["--max-mb", "0"], ["--held-out", "1"], ["--output", "pack.zip"]]
)
def test_a_pack_with_wrong_options_is_refused(two_sets, wrong):
    with pytest.raises(UsageError, match="expected --output ending in .tar"):
        prepare.main(["pack", *two_sets, *wrong])
