"""Colours, regions, strokes, cards, sheets, JSON and pipes on the command line."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, draw
from PIL import Image

import stylize
from stylenet import Stylizer, images
from stylenet.applying import sheet
from stylenet.applying.styles import Masking, included, masking
from stylenet.errors import DataError, UsageError, WeightsError
from stylenet.looks import StyleCard

PX = 48


@pytest.fixture
def files(tmp_path):
    """A photo, three paintings, and a mask of the left half."""
    draw(tmp_path / "photo.png", 1, 60, PX)
    for i in range(3):
        draw(tmp_path / f"s{i}.png", 10 + i, 50, PX)
    mask = np.zeros((PX, 60), dtype=np.uint8)
    mask[:, :30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


@pytest.fixture
def call(files, monkeypatch):
    """Call stylize.main in the folder of the files, with the included model."""
    monkeypatch.chdir(files)

    def run(*extra, content=("photo.png",), style=("s0.png",), output="out.png"):
        arguments = ["--content", *content] if content else []
        arguments += ["--style", *style] if style else []
        arguments += ["--output", output] if output else []
        sizes = ["--device", "cpu", "--size", str(PX)]
        sizes += [] if "--stroke" in extra else ["--style-size", str(PX)]
        return stylize.main([*arguments, *sizes, *map(str, extra)])

    return run


def read(path):
    return torch.from_numpy(np.array(Image.open(path)).astype(np.int16))


def by_api(files, *styles, **options):
    stylizer = Stylizer.load(device="cpu")
    pictures = [images.load_bytes(files / name, PX) for name in styles]
    content = images.load_bytes(files / "photo.png", PX)
    made = stylizer(content, pictures, **options)
    return torch.from_numpy(np.array(images.to_pil(made)).astype(np.int16))


@pytest.mark.parametrize("colour", ["content", "only", "matched"])
def test_colours_equal_the_api(call, files, colour):
    assert call("--colour", colour) == 0
    assert (read("out.png") - by_api(files, "s0.png", colour=colour)).abs().max() <= 1


def test_strokes_equal_the_api(call, files):
    assert call("--stroke", 0.75) == 0
    small = images.load_bytes(files / "s0.png", 36)
    content = images.load_bytes(files / "photo.png", PX)
    expected = images.to_pil(Stylizer.load(device="cpu")(content, small))
    assert np.array_equal(np.array(Image.open("out.png")), np.array(expected))
    # of the picture as it is: the shortest side stands in its header
    assert call("--stroke", 0.75, "--size", 0) == 0
    assert np.array_equal(np.array(Image.open("out.png")), np.array(expected))


def test_regions_equal_the_api(call, files):
    assert call("--mask", "mask.png:s1.png") == 0
    other = images.load_bytes(files / "s1.png", PX)
    expected = by_api(files, "s0.png", regions=[(str(files / "mask.png"), other)])
    assert (read("out.png") - expected).abs().max() <= 1


def test_without_a_style_the_rest_stays(call, files):
    assert call("--mask", "mask.png:s1.png", style=None) == 0
    assert torch.equal(read("out.png")[:, 31:], read("photo.png")[:, 31:])
    assert call("--mask", "mask.png:s1.png", style=None, output="folder") == 0
    assert [path.name for path in (files / "folder").glob("*.png")] == ["photo__s1.png"]


def test_a_part_of_a_painting(call, files):
    assert call("--style-mask", "mask.png") == 0
    part = read("out.png")
    assert call() == 0
    assert not torch.equal(part, read("out.png"))
    assert call("--mask", "mask.png:s0.png:mask.png", style=None) == 0
    code = Stylizer.load(device="cpu").encode_style(files / "s0.png", files / "mask.png")
    expected = Stylizer.load(device="cpu")(
        images.load_bytes(files / "photo.png", PX), [], regions=[(files / "mask.png", code)]
    )
    assert np.array_equal(np.array(Image.open("out.png")), np.array(images.to_pil(expected)))


def test_regions_of_clips(call, files):
    frames = files / "frames"
    for i in range(3):
        draw(frames / f"f{i}.png", 5 + i, 60, PX)
    options = ["--video", "--mask", "mask.png:s1.png", "--colour", "content"]
    assert call(*options, content=("frames",), output="made") == 0
    assert call(*options, "--colour", "matched", content=("frames",), output="more") == 0
    pictures = [read(path) for path in sorted((files / "made").glob("*.png"))]
    assert len(pictures) == 3 and pictures[0].shape == (PX, 60, 3)
    assert call("--colour", "content", content=("frames/f0.png",)) == 0
    plain = read("out.png")
    # a clip's first frame has no past, so it is the still picture in the same regions
    assert call(*options[1:], content=("frames/f0.png",)) == 0
    assert (pictures[0].int() - read("out.png").int()).abs().max() <= 1
    assert (pictures[0].int() - plain.int()).abs().float().mean() > 5


def test_a_card_stands_for_its_painting(call, files, capsys):
    assert call("--save-style", "mine.style", content=None, output=None) == 0
    assert "wrote mine.style" in capsys.readouterr().out
    assert StyleCard.load(files / "mine.style").source == "s0.png"
    assert call(style=("mine.style",), output="card.png") == 0
    assert call() == 0
    assert torch.equal(read("card.png"), read("out.png"))
    # mixed with a picture, in a region, and in a data set
    assert call("--weights", "1,1", style=("mine.style", "s1.png")) == 0
    assert (read("out.png") - by_api(files, "s0.png", "s1.png")).abs().max() <= 1
    assert call("--mask", "mask.png:mine.style", style=None) == 0
    assert call("--pairs", "all", style=("mine.style", "s1.png"), output="set") == 0
    assert "photo.png,mine.style,photo__mine.png,1" in (files / "set/manifest.csv").read_text()


def test_a_card_of_several_is_their_mean(call, files):
    three = ("s0.png", "s1.png", "s2.png")
    assert call("--save-style", "mine.style", style=three, content=None, output=None) == 0
    assert call(style=("mine.style",)) == 0
    assert (read("out.png") - by_api(files, *three)).abs().max() <= 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--stroke", 2], "--stroke"),
        (["--colour", "matched"], "--colour matched"),
        (["--style-mask", "mask.png"], "--style-mask"),
        (["--mask", "mask.png:mine.style:mask.png"], "a style's own mask"),
    ],
)
def test_what_a_card_cannot_do_is_one_line(call, extra, message):
    assert call("--save-style", "mine.style", content=None, output=None) == 0
    with pytest.raises(UsageError, match=message):
        call(*extra, style=("mine.style",))


def test_a_card_of_another_model_is_refused(call, trained_run, files):
    assert call("--save-style", "mine.style", content=None, output=None) == 0
    with pytest.raises(WeightsError, match="make the card again"):
        call("--model", trained_run, style=("mine.style",))
    assert not (files / "out.png").exists()


def test_included_cards_have_names(call, capsys):
    assert stylize.main(["--list-styles"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(included())
    for path in included():
        assert any(line.startswith(f"{path.stem} ") for line in lines)
        assert call(style=(path.stem,)) == 0
        assert StyleCard.load(path).source and StyleCard.load(path).thumbnail


def test_a_file_comes_before_a_card_of_its_name(tmp_path, monkeypatch):
    from stylenet.applying import styles

    monkeypatch.setattr(styles, "INCLUDED", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hokusai.style").write_bytes(b"")
    assert styles.found("hokusai") == str(tmp_path / "hokusai.style")
    (tmp_path / "hokusai").mkdir()
    assert styles.found("hokusai") == "hokusai" and styles.found("a.jpg") == "a.jpg"
    with pytest.raises(DataError, match="card as --style .hokusai., but there is no monet"):
        styles.found("monet")


def test_regions_are_parsed():
    from pathlib import Path

    assert masking("a.png:b.jpg") == Masking(Path("a.png"), Path("b.jpg"))
    assert masking("a.png:b.jpg:c.png").part == Path("c.png")
    assert masking("C:\\a.png:D:\\b.jpg").style == Path("D:\\b.jpg")
    for wrong in ("a.png", ":b.jpg", "a:b:c:d"):
        with pytest.raises(ValueError):
            masking(wrong)


def test_json_lines(call, capsys):
    assert call("--json", "--alpha", 0.5, style=("s0.png", "s1.png"), output="out") == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert rows == [
        {"content": "photo.png", "style": f"s{i}.png", "output": f"out/photo__s{i}.png"}
        | {"alpha": 0.5}
        for i in range(2)
    ]
    assert "wrote 2 of 2" in printed.err


def test_pictures_through_pipes(files):
    code = "import sys, stylize; sys.exit(stylize.main(sys.argv[1:]))"
    options = ["--style", "s0.png", "--size", str(PX), "--style-size", str(PX), "--device", "cpu"]
    arguments = ["--content", "-", "--output", "-", "--format", "png", *options]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=(files / "photo.png").read_bytes(),
        capture_output=True,
        cwd=files,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(files)},
        check=True,
    )
    picture = Image.open(io.BytesIO(done.stdout))
    assert picture.format == "PNG" and picture.size == (60, PX)
    made = torch.from_numpy(np.array(picture).astype(np.int16))
    assert (made - by_api(files, "s0.png")).abs().max() <= 1
    assert b"wrote 1 of 1" in done.stderr


def test_a_broken_picture_in_a_pipe(call, monkeypatch, files):
    stream = SimpleNamespace(buffer=io.BytesIO(b"no picture"))
    monkeypatch.setattr(sys, "stdin", stream)
    assert call(content=("-",)) == DataError.exit_code
    assert not (files / "out.png").exists()


@pytest.mark.parametrize(
    ("kind", "styles", "shape"),
    [("styles", 3, (2, 2)), ("alpha", 2, (2, 5)), ("corners", 4, (5, 5))],
)
def test_sheets(call, files, kind, styles, shape):
    names = [f"s{i % 3}.png" for i in range(styles)]
    if styles == 4:
        draw(files / "s3.png", 20, 50, PX)
        names[3] = "s3.png"
    assert call("--sweep", kind, style=tuple(names)) == 0
    size = Image.open("out.png").size
    cell = 60 + sheet.GAP_PX, PX + sheet.LABEL_PX + sheet.GAP_PX
    assert size == (shape[1] * cell[0] + sheet.GAP_PX, shape[0] * cell[1] + sheet.GAP_PX)
    # the first picture is the first style's
    alpha = 0.0 if kind == "alpha" else 1.0
    first = read("out.png")[sheet.GAP_PX : sheet.GAP_PX + PX, sheet.GAP_PX : sheet.GAP_PX + 60]
    assert (first - by_api(files, "s0.png", alpha=alpha)).abs().max() <= 1


def test_sheets_refuse_what_does_not_fit(call):
    with pytest.raises(UsageError, match="expected four styles"):
        call("--sweep", "corners", style=("s0.png", "s1.png"))
    with pytest.raises(UsageError, match="expected one picture as --output"):
        call("--sweep", "styles", output="folder")
    with pytest.raises(UsageError, match="one content and some styles"):
        call("--sweep", "styles", style=None)


def test_mixtures_between_corners_sum_to_one():
    rows = sheet.cells("corners", list("abcd"), 1.0)
    assert all(sum(cell.mixture) == pytest.approx(1) for row in rows for cell in row)
    assert [rows[i][j].label for i in (0, 4) for j in (0, 4)] == list("abcd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mask", "mask.png"], "expected MASK:STYLE"),
        (["--colour", "blue"], "--colour"),
        (["--stroke", "0"], "stroke in"),
        (["--stroke", "1", "--style-size", "30"], "--stroke or --style-size"),
        (["--save-style", "x.png"], "ending in .style"),
        (["--method", "gatys", "--mask", "mask.png:s1.png"], "--mask"),
        (["--method", "gatys", "--colour", "content"], "--colour"),
    ],
)
def test_mistakes_are_one_line(call, capsys, options, message):
    with pytest.raises((UsageError, SystemExit)) as error:
        call(*options)
    assert message in str(error.value) + capsys.readouterr().err


def test_a_texture_is_brought_to_the_grid(call, files):
    assert call("--seamless") == 0
    content = images.load_bytes(files / "photo.png", PX)
    content = images.to_pil(images.to_unit(content)).resize((64, PX), Image.Resampling.LANCZOS)
    style = images.load_bytes(files / "s0.png", PX)
    expected = Stylizer.load(device="cpu").picture(content, style, is_seamless=True)
    assert np.array_equal(np.array(Image.open("out.png")), np.array(expected))


def test_a_mask_is_never_replaced(call, files):
    before = (files / "mask.png").read_bytes()
    for options in (["--mask", "mask.png:s1.png"], ["--style-mask", "mask.png"]):
        with pytest.raises(UsageError, match="another name than an input's"):
            call(*options, output="mask.png")
    (files / "masks").mkdir()
    (files / "photo__s0.png").write_bytes(before)
    (files / "masks/link.png").symlink_to("../photo__s0.png")
    with pytest.raises(UsageError, match="expected inputs that no picture replaces"):
        call("--mask", "masks/link.png:s1.png", output=".")
    assert before == (files / "mask.png").read_bytes() == (files / "photo__s0.png").read_bytes()


def test_one_file_is_made_by_one_process(call, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="expected one process for --sweep"):
        call("--sweep", "alpha")
    with pytest.raises(UsageError, match="expected one process for a pipe"):
        call(output="-")


def test_a_missing_mask_is_one_line(call, files):
    with pytest.raises(DataError, match="absent.png"):
        call("--mask", "absent.png:s1.png")
    assert not (files / "out.png").exists()


def test_a_data_set_notes_its_controls(call):
    assert call("--pairs", "all", "--colour", "content", output="set") == 0
    with pytest.raises(UsageError, match="colour"):
        call("--pairs", "all", output="set")
    assert call("--pairs", "all", "--mask", "mask.png:s1.png", output="other") == 0
    with pytest.raises(UsageError, match="masks"):
        call("--pairs", "all", output="other")


def save(path, array, **options):
    Image.fromarray(array.astype(np.uint8)).save(path, **options)


def test_a_mask_is_cropped_with_its_photo(call, files):
    """Of a wide photo the square in the middle is left, which this region does not touch."""
    save("wide.png", np.full((PX, 2 * PX, 3), 120))
    mask = np.zeros((PX, 2 * PX))
    mask[:, : PX // 2] = 255
    save("edge.png", mask)
    wide = {"content": ("wide.png",), "style": None}
    assert call("--mask", "edge.png:s1.png", "--crop", **wide) == 0
    assert np.array_equal(np.array(Image.open("out.png")), np.full((PX, PX, 3), 120))
    # a mask of another size is stretched over the whole photo first
    save("edge.png", np.repeat([[255, 0, 0, 0]], 2, axis=0))
    assert call("--mask", "edge.png:s1.png", "--crop", **wide) == 0
    assert np.array_equal(np.array(Image.open("out.png"))[:, 9:], np.full((PX, PX - 9, 3), 120))
    mask[:, PX // 2 :] = 255
    save("edge.png", mask)
    assert call("--mask", "edge.png:s1.png", "--crop", **wide) == 0
    assert not np.array_equal(np.array(Image.open("out.png")), np.full((PX, PX, 3), 120))


def test_cropped_masks_in_one_batch(call, files):
    """Contents of one cropped size, but of two shapes, whose masks differ."""
    draw(files / "in/a.png", 1, 2 * PX, PX)
    draw(files / "in/b.png", 2, PX, 2 * PX)
    options = ["--mask", "mask.png:s1.png", "--crop"]
    assert call(*options, "--batch", 2, content=("in",), style=None, output="both") == 0
    for name in "ab":
        assert call(*options, content=(f"in/{name}.png",), style=None) == 0
        assert (read("out.png") - read(f"both/{name}__s1.png")).abs().max() <= 1


def test_what_is_transparent_is_no_region(call, files):
    mask = np.full((PX, 60, 4), 255)
    mask[:, 30:, 3] = 0
    save("clear.png", mask)
    assert call("--mask", "clear.png:s1.png") == 0
    clear = read("out.png")
    assert call("--mask", "mask.png:s1.png") == 0
    assert torch.equal(clear, read("out.png"))


def test_what_stays_of_a_dark_frame_is_not_evened(call, files):
    """A clip's exposure is evened for the network, but not what is kept of its frames."""
    rng, frames = np.random.default_rng(0), files / "frames"
    frames.mkdir()
    picture = rng.integers(60, 200, (PX, 60, 3))
    for i, factor in enumerate((1, 1, 0.7, 0.7)):
        save(frames / f"{i}.png", picture * factor)
    save("none.png", np.zeros((PX, 60)))
    options = ["--video", "--mask", "none.png:s1.png"]
    assert call(*options, content=("frames",), style=None, output="made") == 0
    for before, after in zip(
        sorted(frames.iterdir()), sorted((files / "made").glob("*.png")), strict=True
    ):
        assert torch.equal(read(before), read(after))


def test_a_card_of_weighted_parts(call, files):
    options = ["--weights", "1,3", "--style-mask", "mask.png"]
    two = ("s0.png", "s1.png")
    assert call("--save-style", "mine.style", *options, style=two, content=None, output=None) == 0
    stylizer = Stylizer.load(device="cpu")
    codes = [
        stylizer.encode_style(images.load_bytes(files / name, PX), files / "mask.png")
        for name in two
    ]
    for part, first, second in zip(StyleCard.load("mine.style").code, *codes, strict=True):
        torch.testing.assert_close(part, 0.25 * first + 0.75 * second)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (["--stroke", 2], "--stroke"),
        (["--colour", "matched"], "--colour"),
        (["--mask", "mask.png:s1.png"], "--mask"),
        (["--pairs", "all"], "--pairs"),
        (["--style", "s0.png", "hokusai"], "hokusai.style is a style card"),
        (["--style-mask", "absent.png"], "no file absent.png"),
    ],
)
def test_a_card_ignores_no_option(call, files, extra, named):
    with pytest.raises((UsageError, DataError), match=named):
        call("--save-style", "mine.style", *extra, content=None, output=None)
    assert not (files / "mine.style").exists()


@pytest.mark.parametrize(
    "extra", [["--keep-metadata"], ["--format", "jpg"], ["--smooth", 1], ["--weights", "1"]]
)
def test_a_sheet_ignores_no_option(call, extra):
    with pytest.raises(UsageError, match=f"expected no {extra[0]} with --sweep"):
        call("--sweep", "alpha", *extra)


def test_a_sheet_of_narrow_pictures_has_no_labels(call, files):
    draw(files / "narrow.png", 1, 8, 200)
    assert call("--sweep", "alpha", "--size", 0, content=("narrow.png",)) == 0
    assert sheet.fitting("label", lambda text: not text) == ""


def test_a_part_of_no_style_is_refused(call):
    with pytest.raises(UsageError, match="expected --style with --style-mask"):
        call("--mask", "mask.png:s1.png", "--style-mask", "mask.png", style=None)
    save("none.png", np.zeros((PX, 60)))
    with pytest.raises(UsageError, match="expected some white"):
        call("--style-mask", "none.png")


def test_a_data_set_tells_parts_of_styles_apart(call):
    data_set = {"style": ("s0.png",), "output": "set"}
    assert call("--pairs", "all", "--mask", "mask.png:s1.png:mask.png", **data_set) == 0
    with pytest.raises(UsageError, match="masks was"):
        call("--pairs", "all", "--mask", "mask.png:s1.png", "--style-mask", "mask.png", **data_set)


def test_a_refused_data_set_leaves_nothing(call, files):
    with pytest.raises(DataError, match="no file absent.png"):
        call("--pairs", "all", "--mask", "absent.png:s1.png", output="set")
    assert not (files / "set").exists() or not list((files / "set").iterdir())


def test_a_mask_with_a_pictures_name_is_not_replaced(call, files):
    (files / "fo").mkdir()
    place = files / "fo/photo__s0.png"
    place.write_bytes((files / "mask.png").read_bytes())
    with pytest.raises(UsageError, match="no picture replaces"):
        call("--mask", "fo/photo__s0.png:s1.png", output="fo")
    assert place.read_bytes() == (files / "mask.png").read_bytes()


def test_home_folders_in_regions(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = masking("~/m.png:~/s.jpg")
    assert (made.mask, made.style) == (tmp_path / "m.png", tmp_path / "s.jpg")


def test_json_of_a_pipe_names_it(call, monkeypatch, files, capsys):
    stream = SimpleNamespace(buffer=io.BytesIO((files / "photo.png").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stream)
    assert call("--json", content=("-",)) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["content"] == "standard input"
    for content in ("photo.png", "frames"):  # a picture, a clip
        draw(files / "frames/0.png", 1, 60, PX)
        extra = ["--video"] if content == "frames" else []
        with pytest.raises(UsageError, match="no --json with --output -"):
            call("--json", *extra, content=(content,), output="-")


def test_a_precision_that_overflows_is_no_black_picture(call, files):
    """The included network's features leave fp16's range."""
    with pytest.raises(UsageError, match="use bf16"):
        call("--precision", "fp16", "--size", 256)
    assert not (files / "out.png").exists()
