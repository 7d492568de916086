"""stylize.py: the places of pictures, and what it skips or refuses."""

import csv
import json
import re
import shutil
import signal

import numpy as np
import pytest
import torch
from conftest import draw, run_python
from PIL import Image

import stylize
from stylenet import images
from stylenet.applying import pictures
from stylenet.applying.stylizer import Stylizer
from stylenet.config.protocol import Protocol
from stylenet.csv_files import read_rows
from stylenet.errors import DataError, UsageError, WeightsError
from stylenet.metrics.candidates import Folder
from stylenet.metrics.pairs import choose_pairs
from stylenet.models import families
from stylenet.models.families import VggFamily
from stylenet.transforms import TRANSFORMS


@pytest.fixture
def folders(tmp_path):
    """Two contents and two styles."""
    for i in range(2):
        draw(tmp_path / "c" / f"c{i}.png", i, 40, 32)
        draw(tmp_path / "s" / f"s{i}.png", 10 + i, 33, 48)
    return tmp_path / "c", tmp_path / "s"


@pytest.fixture
def call(trained_run, folders, tmp_path):
    """Call stylize.main with the tiny model on the CPU; options replace the defaults."""

    def run(*extra, content=(folders[0],), style=(folders[1],), output=tmp_path / "out"):
        arguments = [
            "--content",
            *content,
            "--style",
            *style,
            "--output",
            output,
            "--model",
            trained_run,
            "--device",
            "cpu",
            "--size",
            "24",
        ]
        return stylize.main(
            [str(argument) for argument in [*arguments, "--style-size", "24", *extra]]
        )

    return run


def names(folder):
    """Every file below the folder but the locks, which stay."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(path.relative_to(folder).as_posix() for path in files)


def test_every_content_with_every_style(call, tmp_path, capsys):
    assert call() == 0
    assert names(tmp_path / "out") == [f"c{i}__s{j}.png" for i in range(2) for j in range(2)]
    assert Image.open(tmp_path / "out/c0__s0.png").size == (30, 24)
    assert "wrote 4 of 4" in capsys.readouterr().out


def test_one_picture_to_a_file_equals_the_api(call, folders, tmp_path, trained_run):
    out = tmp_path / "deep/one.png"
    content, style = folders[0] / "c0.png", folders[1] / "s0.png"
    assert (
        call(
            "--alpha",
            "0.5",
            "--size",
            "0",
            "--style-size",
            "0",
            content=(content,),
            style=(style,),
            output=out,
        )
        == 0
    )
    expected = Stylizer.load(trained_run, device="cpu")(content, style, alpha=0.5)
    assert (
        np.abs(np.asarray(Image.open(out)) / 255.0 - expected.permute(1, 2, 0).numpy()).max()
        <= 0.5 / 255 + 1e-6
    )


def test_one_picture_to_a_folder(call, folders, tmp_path):
    assert call(content=(folders[0] / "c0.png",), style=(folders[1] / "s0.png",)) == 0
    assert names(tmp_path / "out") == ["c0__s0.png"]


def test_weights_mix_all_styles_into_one_picture(call, folders, tmp_path):
    assert call("--weights", "1,3", content=(folders[0] / "c0.png",)) == 0
    assert names(tmp_path / "out") == ["c0__s0+s1.png"]
    assert (
        call("--weights", "1,0", content=(folders[0] / "c0.png",), output=tmp_path / "mixed.png")
        == 0
    )
    assert (
        call(
            content=(folders[0] / "c0.png",),
            style=(folders[1] / "s0.png",),
            output=tmp_path / "single.png",
        )
        == 0
    )
    assert (tmp_path / "mixed.png").read_bytes() == (tmp_path / "single.png").read_bytes()


def test_alike_names_do_not_overwrite_each_other(call, folders, tmp_path):
    for target in ("a/c0.png", "b/c0.png", "b/c0.jpg"):
        (tmp_path / "twins" / target).parent.mkdir(parents=True, exist_ok=True)
        Image.open(folders[0] / "c0.png").save(tmp_path / "twins" / target)
    assert call(content=(tmp_path / "twins",), style=(folders[1] / "s0.png",)) == 0
    assert names(tmp_path / "out") == ["a_c0__s0.png", "b_c0_2__s0.png", "b_c0__s0.png"]


def test_joined_names_that_collide_and_long_ones(call, folders, tmp_path):
    for name in ("a", "a__b"):
        shutil.copy(folders[0] / "c0.png", tmp_path / f"{name}.png")
    for name in ("c", "b__c", "x" * 240):
        shutil.copy(folders[1] / "s0.png", tmp_path / f"{name}.png")
    contents = (tmp_path / "a.png", tmp_path / "a__b.png")
    assert (
        call(
            content=contents,
            style=(tmp_path / "c.png", tmp_path / "b__c.png", tmp_path / f"{'x' * 240}.png"),
        )
        == 0
    )
    assert len(names(tmp_path / "out")) == 6 and {"a__b__c.png", "a__b__c_2.png"} < set(
        names(tmp_path / "out")
    )


def test_each_style_and_content_is_encoded_once(call, monkeypatch):
    counts = {"encode_style": 0, "encode_content": 0}
    for method in counts:
        original = getattr(Stylizer, method)

        def counted(self, image, method=method, original=original):
            counts[method] += 1
            return original(self, image)

        monkeypatch.setattr(Stylizer, method, counted)
    assert call() == 0
    assert counts == {"encode_style": 2, "encode_content": 2}


@pytest.mark.parametrize("kind, written", [("content", 2), ("style", 2)])
def test_a_broken_picture_is_reported_skipped_and_makes_the_code_nonzero(
    call, folders, tmp_path, capsys, kind, written
):
    folder = folders[kind == "style"]
    (folder / f"{kind[0]}1.png").write_bytes(b"broken")
    assert call() == 3
    captured = capsys.readouterr()
    assert captured.err.count(f"{kind[0]}1.png") == 1 and "skipped" in captured.err
    assert len(names(tmp_path / "out")) == written and f"wrote {written} of 4" in captured.out


def test_mistakes(call, folders, tmp_path, trained_run):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.safetensors").write_bytes(b"broken")
    cases = [
        (["--alpha", "1.5"], {}, UsageError, "alpha in"),
        (["--weights", "1,2,3"], {}, UsageError, "2 weights"),
        (["--weights", "a,b"], {}, UsageError, "invalid weights value"),
        (["--size", "-3"], {}, UsageError, "invalid size value"),
        (["--precision", "int8"], {}, UsageError, "invalid choice"),
        (["--device", "cuda:9"], {}, UsageError, "expected a device"),
        (["--modle", "x"], {}, UsageError, "unrecognized arguments"),
        ([], {"output": tmp_path / "one.png"}, UsageError, "expected a folder as --output"),
        ([], {"output": ""}, UsageError, "an empty name"),
        (["--model", ""], {}, UsageError, "expected a name as --model"),
        ([], {"output": tmp_path / "file"}, UsageError, "folder that can be written"),
        ([], {"content": (tmp_path / "empty",)}, DataError, "there are none"),
        ([], {"style": (tmp_path / "absent.png",)}, DataError, "there is no"),
        (["--model", str(tmp_path / "bad.safetensors")], {}, WeightsError, "truncated, a pickle"),
        (["--model", str(tmp_path / "absent")], {}, WeightsError, "there is no file"),
        (["--model", str(tmp_path / "empty")], {}, WeightsError, "has neither"),
    ]
    for extra, options, kind, message in cases:
        with pytest.raises(kind, match=message):
            call(*extra, **options)
    assert not (tmp_path / "out").exists() or names(tmp_path / "out") == []


@pytest.mark.parametrize(
    "extra, code",
    [(["--alpha", "2"], 2), (["--content", "/nowhere"], 3), (["--model", "/nowhere"], 4)],
)
def test_exit_codes_and_one_line(folders, tmp_path, trained_run, extra, code):
    base = [
        "--content",
        folders[0],
        "--style",
        folders[1],
        "--output",
        tmp_path / "out",
        "--model",
        trained_run,
    ]
    done = run_python("stylize.py", *base, *extra)
    assert done.returncode == code and re.fullmatch(r"error: [^\n]*\n", done.stderr)


def test_output_beside_the_inputs_is_not_taken_as_input(call, folders):
    """Listing happens before writing, so an output folder inside the content folder is harmless."""
    assert call(output=folders[0] / "out") == 0
    assert len(names(folders[0] / "out")) == 4
    shutil.rmtree(folders[0] / "out")


def bytes_of(folder):
    """{name: content} of every file, hidden ones too."""
    return {name: (folder / name).read_bytes() for name in names(folder)}


def rows_of(folder):
    with open(folder / "manifest.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_data_set_says_what_was_made_from_what(call, folders, tmp_path, trained_run, capsys):
    assert (
        call(
            "--pairs",
            "random:1",
            "--seed",
            "5",
            "--alpha",
            "0.5",
            content=(folders[0], folders[0] / "c0.png"),
        )
        == 0
    )
    out = tmp_path / "out"
    rows = rows_of(out)
    assert [row["content"] for row in rows] == ["c0.png", "c1.png"] and [
        row["alpha"] for row in rows
    ] == ["0.5", "0.5"]
    assert names(out) == sorted([*(row["output"] for row in rows), "manifest.csv", "stylize.json"])
    stylizer = Stylizer.load(trained_run, device="cpu")
    for row in rows:
        content, style = (
            images.load_bytes(folder / row[kind], 24)
            for folder, kind in zip(folders, ("content", "style"))
        )
        expected = stylizer(content, style, 0.5).permute(1, 2, 0).numpy()
        assert (
            np.abs(np.asarray(Image.open(out / row["output"])) / 255.0 - expected).max()
            <= 0.5 / 255 + 1e-6
        )
    settings = json.loads((out / "stylize.json").read_text())["settings"]
    assert (
        settings["seed"] == 5 and settings["content"]["n"] == 2 and len(settings["model"][0]) == 64
    )
    assert "wrote 2 of 2" in capsys.readouterr().out


def test_the_same_command_again_makes_only_what_is_missing(call, tmp_path, capsys):
    assert call("--pairs", "all") == 0
    first = bytes_of(tmp_path / "out")
    (tmp_path / "out/c1__s0.png").unlink()
    time_of_another = (tmp_path / "out/c0__s0.png").stat().st_mtime_ns
    assert call("--pairs", "all") == 0
    assert (
        bytes_of(tmp_path / "out") == first
        and (tmp_path / "out/c0__s0.png").stat().st_mtime_ns == time_of_another
    )
    assert "wrote 1 of 4 pictures" in (out := capsys.readouterr().out) and "3 there before" in out


@pytest.mark.parametrize(
    "extra, name",
    [
        (["--alpha", "0.5"], "alpha"),
        (["--size", "20"], "size"),
        (["--crop"], "crop"),
        (["--precision", "bf16"], "precision"),
        (["--seed", "1"], "seed"),
        (["--pairs", "random:1"], "pairs"),
        (["--format", "jpg"], "format"),
    ],
)
def test_changed_settings_are_refused(call, tmp_path, extra, name):
    assert call("--pairs", "all") == 0
    before = bytes_of(tmp_path / "out")
    with pytest.raises(UsageError, match=f"but {name} was .* and is .* now; give"):
        call("--pairs", "all", *extra)
    assert bytes_of(tmp_path / "out") == before


def test_changed_pictures_and_models_are_refused(call, folders, tmp_path, trained_run):
    assert call("--pairs", "all") == 0
    draw(folders[1] / "s2.png", 77, 40, 40)
    with pytest.raises(UsageError, match="but style was"):
        call("--pairs", "all")
    (folders[1] / "s2.png").unlink()
    state = max((trained_run / "checkpoints").glob("step_*.pt"))
    with pytest.raises(UsageError, match="but model was"):
        call("--pairs", "all", "--model", state)
    assert call("--pairs", "all") == 0


def test_data_sets_and_single_pictures_do_not_mix(call, folders, tmp_path):
    assert call() == 0 and call() == 0  # single ones are made anew, as ever
    with pytest.raises(UsageError, match="expected an empty folder for a data set"):
        call("--pairs", "all")
    assert call("--pairs", "all", output=tmp_path / "set") == 0
    for output in (tmp_path / "set", tmp_path / "set/one.png"):
        with pytest.raises(UsageError, match="which holds a data set"):
            call(content=(folders[0] / "c0.png",), style=(folders[1] / "s0.png",), output=output)
    with pytest.raises(UsageError, match="outside the inputs"):
        call("--pairs", "all", output=folders[0] / "out")
    with pytest.raises(UsageError, match="expected a folder as --output with --pairs"):
        call("--pairs", "all", output=tmp_path / "a.png")
    with pytest.raises(UsageError, match="--pairs all with --weights"):
        call("--pairs", "random:1", "--weights", "1,1", output=tmp_path / "mixed")
    assert call("--pairs", "all", "--weights", "1,1", output=tmp_path / "mixed") == 0
    assert [row["style"] for row in rows_of(tmp_path / "mixed")] == ["s0.png+s1.png"] * 2


def test_class_folders_squares_and_jpegs(call, tmp_path):
    """The options of a stylised classification set.

    Each content gives a picture under its own name in its own class.
    """
    for i in range(4):
        draw(tmp_path / "train" / f"class{i % 2}" / f"n{i}.jpg", i, 60 + i, 50)
    options = ["--pairs", "random:1", "--keep-folders", "--crop", "--format", "jpg"]
    assert call(*options, content=(tmp_path / "train",)) == 0
    made = [name for name in names(tmp_path / "out") if name.endswith(".jpg")]
    assert made == ["class0/n0.jpg", "class0/n2.jpg", "class1/n1.jpg", "class1/n3.jpg"]
    assert all(Image.open(tmp_path / "out" / name).size == (24, 24) for name in made)


def test_a_broken_picture_of_a_data_set_is_passed_over_and_tried_again(
    call, folders, tmp_path, capsys
):
    whole = (folders[0] / "c1.png").read_bytes()
    (folders[0] / "c1.png").write_bytes(b"broken")
    for _ in range(2):
        assert call("--pairs", "all") == 3
        captured = capsys.readouterr()
        assert captured.err.count("c1.png") == 1 and "2 skipped" in captured.out
        assert [row["content"] for row in rows_of(tmp_path / "out")] == ["c0.png"] * 2
    (folders[0] / "c1.png").write_bytes(whole)
    assert call("--pairs", "all") == 0 and len(rows_of(tmp_path / "out")) == 4


@pytest.mark.parametrize("extra", [[], ["--pairs", "all"]])
def test_a_picture_that_cannot_be_written_ends_the_call(call, tmp_path, monkeypatch, extra):
    def full(self, path, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UsageError, match="expected to write .*No space left on device"):
        call(*extra)
    assert not [name for name in names(tmp_path / "out") if name.endswith(".png")]


def test_a_full_disk_loses_nothing_that_was_made(call, tmp_path, monkeypatch):
    assert call("--pairs", "all", output=tmp_path / "whole") == 0
    save, n_saved = Image.Image.save, []

    def full(self, path, **options):
        n_saved.append(1)
        if len(n_saved) > 2:
            raise OSError(28, "No space left on device")
        save(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(UsageError, match="No space left"):
            call("--pairs", "all", "--workers", "1")
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert call("--pairs", "all", "--workers", "1") == 0
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


KILLED = """
import itertools, os, sys
sys.path.insert(0, ".")
import stylize
from stylenet import files
from stylenet.applying import record
moment, n = sys.argv[1], int(sys.argv[2])
turn = itertools.count(1)

def kill():
    os.kill(os.getpid(), 9)

def half_a_picture(self, *error, whole=files.replaced_file.__exit__):
    if self.target.suffix == ".png" and next(turn) == n:
        os.truncate(self.temporary, self.temporary.stat().st_size // 2)
        kill()
    whole(self, *error)

def no_row_yet(self, row, add=record.Record.add):
    kill() if next(turn) == n else add(self, row)

def half_a_row(self, row, add=record.Record.add):
    add(self, row)
    if next(turn) == n:
        self.part.file.truncate(self.part.file.tell() - 3)
        kill()

def merged(*arguments, merge=record.merge):
    merge(*arguments)
    kill()

if moment == "half_a_picture":
    files.replaced_file.__exit__ = half_a_picture
elif moment == "merged":
    record.merge = merged
else:
    record.Record.add = locals()[moment]
sys.exit(stylize.main(sys.argv[3:]))
"""


@pytest.fixture
def data_set(folders, trained_run):
    """The arguments of a data set of six pictures, without the output folder."""
    draw(folders[0] / "c2.png", 9, 40, 32)
    inputs = [
        "--content",
        folders[0],
        "--style",
        folders[1],
        "--model",
        trained_run,
        "--device",
        "cpu",
    ]
    return [
        *map(str, inputs),
        "--size",
        "24",
        "--style-size",
        "24",
        "--pairs",
        "random:2",
        "--keep-folders",
        "--workers",
        "2",
    ]


@pytest.mark.parametrize(
    "moment, n", [("half_a_picture", 3), ("no_row_yet", 2), ("half_a_row", 1), ("merged", 0)]
)
def test_killed_at_any_moment_and_resumed_is_as_if_nothing_happened(data_set, tmp_path, moment, n):
    assert stylize.main([*data_set, "--output", str(tmp_path / "whole")]) == 0
    done = run_python("-c", KILLED, moment, n, *data_set, "--output", tmp_path / "out")
    assert done.returncode == -signal.SIGKILL, done.stderr
    made = list((tmp_path / "out").rglob("[!.]*.png"))
    most = (
        6 if moment != "half_a_picture" else 5
    )  # rows come after their pictures, up to four of them later
    assert (6 if moment == "merged" else 1) <= len(made) <= most
    for path in made:
        Image.open(path).load()
    assert moment != "half_a_picture" or list((tmp_path / "out").glob(".writing-0-*.png"))
    assert stylize.main([*data_set, "--output", str(tmp_path / "out")]) == 0
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_make_what_one_makes(data_set, tmp_path):
    """Two processes run under torchrun.

    Then one process takes over the share of a killed pair.
    """
    assert stylize.main([*data_set, "--output", str(tmp_path / "one")]) == 0
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "stylize.py",
    ]
    done = run_python(*torchrun, *data_set, "--output", tmp_path / "two", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    said = sorted(line for line in done.stdout.splitlines() if "wrote" in line)
    assert [re.match(r"process \d of 2 wrote \d of \d", line)[0] for line in said] == [
        "process 1 of 2 wrote 4 of 4",
        "process 2 of 2 wrote 2 of 2",
    ]
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "one")


def test_a_share_after_another_is_the_whole(call, tmp_path, monkeypatch):
    """Machines that know of each other only through the environment."""
    assert call("--pairs", "all", output=tmp_path / "one") == 0
    for rank in (2, 0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        assert call("--pairs", "all", output=tmp_path / "three") == 0
    assert bytes_of(tmp_path / "three") == bytes_of(tmp_path / "one")


@pytest.fixture
def mixed_sizes(tmp_path):
    """Seven contents of three sizes."""
    for i in range(7):
        draw(tmp_path / "many" / f"m{i}.png", 30 + i, 30 + 6 * (i % 3), 32)
    return tmp_path / "many"


@pytest.mark.parametrize(
    "options", [["--pairs", "random:2"], ["--pairs", "all", "--weights", "1,3"], ["--alpha", "0.4"]]
)
def test_batches_of_mixed_sizes_change_nothing(call, tmp_path, mixed_sizes, options):
    pixels = {}
    for n in (1, 3):
        assert (
            call(*options, "--batch", str(n), content=(mixed_sizes,), output=tmp_path / f"out{n}")
            == 0
        )
        pixels[n] = {
            path.name: np.asarray(Image.open(path)).astype(int)
            for path in (tmp_path / f"out{n}").glob("*.png")
        }
    assert pixels[1].keys() == pixels[3].keys() and len(pixels[1]) >= 7
    assert (
        max(np.abs(pixels[1][name] - pixels[3][name]).max() for name in pixels[1]) <= 1
    )  # at a rounding edge


def test_strengths_of_a_list_do_not_mix_in_a_batch(call, folders, tmp_path):
    rows = [f"c{i % 2}.png,s{i // 2}.png,{alpha}" for i, alpha in enumerate((0, 1, 0.5, 1))]
    (tmp_path / "list.csv").write_text("\n".join(["content,style,alpha", *rows]))
    for n in (1, 4):
        assert (
            call("--pairs", tmp_path / "list.csv", "--batch", str(n), output=tmp_path / f"out{n}")
            == 0
        )
    for path in (tmp_path / "out1").glob("*.png"):
        pixels = [
            np.asarray(Image.open(tmp_path / f"out{n}" / path.name)).astype(int) for n in (1, 4)
        ]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1


def test_batches_are_really_made(call, mixed_sizes, monkeypatch):
    sizes, render = [], Stylizer.render_pixels
    monkeypatch.setattr(
        Stylizer,
        "render_pixels",
        lambda self, content, *a: sizes.append(content.shape[0]) or render(self, content, *a),
    )
    assert call("--batch", "3", "--size", "0", content=(mixed_sizes,)) == 0
    assert sum(sizes) == 14 and max(sizes) == 3


@pytest.mark.parametrize("can_tile, most", [(True, 3 * 100**2), (False, 200**2)])
def test_memory_errors_within_a_batch_halve_the_tile_then_the_batch(
    call, tmp_path, mixed_sizes, monkeypatch, can_tile, most
):
    assert call("--size", "150", content=(mixed_sizes,), output=tmp_path / "plain") == 0
    done, in_memory = [], Stylizer.in_memory

    def scarce(self, action, shape):
        def attempt(tile):
            if shape[0] * (tile or max(shape[-2:])) ** 2 > most:
                raise torch.OutOfMemoryError
            done.append((shape[0], tile))
            return action(tile)

        return in_memory(self, attempt, shape)

    monkeypatch.setattr(Stylizer, "in_memory", scarce)
    monkeypatch.setattr(VggFamily, "can_tile", lambda self, net, shape: can_tile)
    assert (
        call("--size", "150", "--batch", "3", content=(mixed_sizes,), output=tmp_path / "scarce")
        == 0
    )
    assert {batch for batch, _ in done} == ({1, 2, 3} if can_tile else {1}) and {
        bool(tile) for _, tile in done
    } == {
        can_tile,
        False,
    }
    for path in (tmp_path / "plain").glob("*.png"):
        pixels = [
            np.asarray(Image.open(tmp_path / kind / path.name)).astype(int)
            for kind in ("plain", "scarce")
        ]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1


@pytest.mark.parametrize("method", ["render_pixels", "encode_style", "encode_content"])
def test_a_picture_that_never_fits_is_said_in_a_line(call, monkeypatch, method):
    def scarce(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Stylizer, method, scarce)
    with pytest.raises(UsageError, match="expected pictures that fit the GPU's memory"):
        call()


def test_inputs_are_never_replaced(call, folders, tmp_path):
    before = bytes_of(folders[0])
    for output in (folders[0], folders[0] / "deeper"):
        with pytest.raises(UsageError, match="expected a folder outside the inputs"):
            call("--keep-folders", output=output)
    photo = next(folders[0].glob("*.png"))
    with pytest.raises(UsageError, match="expected another name than an input's"):
        call(content=(photo,), style=(next(folders[1].glob("*.png")),), output=photo)
    assert bytes_of(folders[0]) == before


def test_inputs_that_a_folder_or_a_pattern_names_are_not_replaced_either(call, folders):
    """Nor those that have a result's name."""
    contents, styles = folders
    draw(contents / "c0__s0.png", 9, 30, 24)
    before = bytes_of(contents) | bytes_of(styles)
    (contents.parent / "one").mkdir()
    shutil.copy(contents / "c0.png", contents.parent / "one/a.png")
    s0 = styles / "s0.png"
    for content, style, output, extra in (
        (contents.parent / "one", s0, contents.parent / "one/a.png", ()),
        (contents.parent / "one/*.png", s0, contents.parent / "one/a.png", ()),
        (contents, s0, contents, ()),
        (contents / "c0.png", styles, s0, ("--sweep", "styles")),
    ):
        with pytest.raises(UsageError, match="expected inputs that no picture replaces"):
            call(*extra, content=(content,), style=(style,), output=output)
    assert before == bytes_of(contents) | bytes_of(styles)


def test_a_pattern_s_names_begin_where_its_folders_do(call, folders, tmp_path):
    for name in ("alb/one/x.png", "alb/two/x.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(folders[0] / "c0.png", tmp_path / name)
    for i, pattern in enumerate(("al*/*/x.png", "alb/**/*.png")):
        out, style = tmp_path / f"out{i}", (folders[1] / "s0.png",)
        content = (tmp_path / pattern,)
        assert (
            call("--pairs", "all", "--keep-folders", content=content, style=style, output=out) == 0
        )
        start = ("alb/", "")[i]
        rows = [row["content"] for _, row in read_rows(out / "manifest.csv", ("content",))]
        assert rows == [f"{start}one/x.png", f"{start}two/x.png"]
        assert (out / f"{start}one/x.png").exists()


@pytest.mark.parametrize("option", ["--content", "--style", "--pairs", "--style-mask"])
def test_an_empty_name_is_not_the_current_folder(call, folders, monkeypatch, option):
    monkeypatch.chdir(folders[0])
    with pytest.raises(UsageError, match=f"expected a name as {option}, but an empty name came"):
        call(option, "")


def test_pictures_do_not_become_clips(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="only a clip becomes a clip"):
        call(output="x.mp4")
    with pytest.raises(UsageError, match="expected one picture for --output -"):
        call(output="-")
    assert not list(tmp_path.glob("x.mp4")) and not (tmp_path / "-").exists()


@pytest.mark.parametrize(
    ("rank", "n", "message"),
    [("2", "2", "from 0 to 1"), ("x", "2", "whole number"), ("0", "0", "WORLD_SIZE of 1")],
)
def test_a_share_that_is_none_is_refused(call, monkeypatch, rank, n, message):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", n)
    with pytest.raises(UsageError, match=message):
        call("--pairs", "random:1")


def test_pictures_too_thin_are_named_each(call, tmp_path, capsys):
    for name in ("thin", "thinner"):
        Image.new("RGB", (60_000, 1)).save(tmp_path / f"{name}.png")
    assert (
        call("--size", "512", content=(tmp_path / "thin.png", tmp_path / "thinner.png"))
        == DataError.exit_code
    )
    assert all(
        f"{name}.png" in capsys_line
        for name, capsys_line in zip(("thin", "thinner"), capsys.readouterr().err.splitlines())
    )


def test_efdm_batches_styles_of_one_size_only(call, folders, trained_run, tmp_path, monkeypatch):
    """EFDM's codes have the style's size, so styles of two sizes cannot share a batch."""
    draw(folders[1] / "larger.png", 9, 80, 90)
    monkeypatch.setattr(families, "TRANSFORMS", dict.fromkeys(TRANSFORMS, TRANSFORMS["efdm"]))
    assert call("--style-size", "0", "--batch", "4") == 0


def test_arithmetic_options_reach_the_network(call, monkeypatch):
    seen = []
    monkeypatch.setattr(Stylizer, "__init__", lambda self, net, *a: seen.append(a) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("--precision", "tf32", "--compile", "--tile", "128", "--device", "cpu")
    assert seen[0][:4] == ("cpu", "tf32", 128, True) and torch.backends.cudnn.allow_tf32
    with pytest.raises(ZeroDivisionError):
        call("--precision", "fp32")
    assert not torch.backends.cudnn.allow_tf32


def test_few_styles_are_kept_and_the_rest_made_again(call, folders, tmp_path, monkeypatch):
    for i in range(2, 6):
        draw(folders[1] / f"s{i}.png", 10 + i, 33, 48)
    assert call(output=tmp_path / "kept") == 0
    monkeypatch.setattr(pictures.StyleCodes.__init__, "__defaults__", (1,))
    counted = []
    monkeypatch.setattr(
        Stylizer,
        "encode_style",
        lambda self, x, encode=Stylizer.encode_style: counted.append(1) or encode(self, x),
    )
    assert call(output=tmp_path / "forgotten") == 0
    assert len(counted) == 12 and bytes_of(tmp_path / "forgotten") == bytes_of(tmp_path / "kept")


def test_each_file_is_read_once_for_jobs_in_a_row(call, monkeypatch):
    read, load = [], images.load_bytes
    monkeypatch.setattr(
        images, "load_bytes", lambda path, *a: read.append(path.name) or load(path, *a)
    )
    assert call("--workers", "3") == 0
    assert sorted(read) == ["c0.png", "c1.png", "s0.png", "s1.png"]


def test_an_evaluation_reads_the_manifest(call, folders, tmp_path):
    """stylize.py makes eval.py's pairs with --pairs; eval.py --images accepts them."""
    protocol = Protocol()
    pairs = choose_pairs(protocol, str(folders[0]), str(folders[1]))
    rows = [pairs.names_of(pair) for pair in pairs.pairs]
    (tmp_path / "pair_list.csv").write_text(
        "\n".join(["content,style", *(",".join(row) for row in rows)])
    )
    assert call("--pairs", str(tmp_path / "pair_list.csv"), "--crop") == 0
    assert len(Folder(str(tmp_path / "out"), "ours", pairs).outputs) == len(rows) == 4


def test_it_says_what_it_did(call, folders, tmp_path, capsys):
    (folders[0] / "notes.txt").touch()
    Image.new("RGB", (400, 300)).save(tmp_path / "p.jpg")
    assert call("--size", "100", content=(tmp_path / "p.jpg",)) == 0
    assert "p.jpg: 400x300 -> 133x100 (--size 0 keeps the size)" in capsys.readouterr().err
    assert call("--size", "0", content=(folders[0],)) == 0
    said = capsys.readouterr().err
    assert "notes.txt" not in said and "are passed over: .txt (1)" in said and "->" not in said
    frames = [Image.new("RGB", (40, 30), (90 * i, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert call(content=(tmp_path / "a.gif",)) == 0
    assert "a.gif is animated; this is its first frame" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["o.heic", "o.pmg", "o.txt"])
def test_an_unknown_suffix_makes_no_folder(call, tmp_path, name):
    with pytest.raises(UsageError, match="end a folder's name with /"):
        call(output=tmp_path / name)
    assert not (tmp_path / name).exists()


def test_patterns_in_quotes_are_matched(call, folders, tmp_path):
    assert call(content=(folders[0] / "*.png",)) == 0
    with pytest.raises(DataError, match="there is no .*none"):
        call(content=(folders[0] / "none*.png",))


def test_a_photo_s_metadata_is_kept_if_asked(call, folders, tmp_path):
    style = (sorted(folders[1].iterdir())[0],)
    photo = Image.new("RGB", (40, 30))
    exif = photo.getexif()
    exif[0x010F] = "A maker"
    photo.save(tmp_path / "p.jpg", exif=exif)
    for extra, expected in (((), None), (("--keep-metadata",), "A maker")):
        output = tmp_path / "o.jpg"
        assert call(*extra, content=(tmp_path / "p.jpg",), style=style, output=output) == 0
        with Image.open(output) as saved:
            assert saved.getexif().get(0x010F) == expected
