"""stylize.py: where pictures go, what is skipped, what is refused."""

import re
import shutil

import numpy as np
import pytest
from conftest import draw, run_python
from PIL import Image

import stylize
from stylenet.errors import DataError, UsageError, WeightsError
from stylenet.inference import Stylizer


@pytest.fixture
def folders(tmp_path):
    """Two contents and two styles."""
    for i in range(2):
        draw(tmp_path / "c" / f"c{i}.png", i, 40, 32)
        draw(tmp_path / "s" / f"s{i}.png", 10 + i, 33, 48)
    return tmp_path / "c", tmp_path / "s"


@pytest.fixture
def call(trained_run, folders, tmp_path):
    """stylize.main with the tiny model on the CPU; options replace the defaults."""

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
        return stylize.main([str(argument) for argument in [*arguments, "--style-size", "24", *extra]])

    return run


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_every_content_with_every_style(call, tmp_path, capsys):
    assert call() == 0
    assert names(tmp_path / "out") == [f"c{i}__s{j}.png" for i in range(2) for j in range(2)]
    assert Image.open(tmp_path / "out/c0__s0.png").size == (30, 24)
    assert "wrote 4 of 4" in capsys.readouterr().out


def test_one_picture_to_a_file_equals_the_api(call, folders, tmp_path, trained_run):
    out = tmp_path / "deep/one.png"
    content, style = folders[0] / "c0.png", folders[1] / "s0.png"
    assert call("--alpha", "0.5", "--size", "0", "--style-size", "0", content=(content,), style=(style,), output=out) == 0
    expected = Stylizer.load(trained_run, device="cpu")(content, style, alpha=0.5)
    assert np.abs(np.asarray(Image.open(out)) / 255.0 - expected.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6


def test_one_picture_to_a_folder(call, folders, tmp_path):
    assert call(content=(folders[0] / "c0.png",), style=(folders[1] / "s0.png",)) == 0
    assert names(tmp_path / "out") == ["c0__s0.png"]


def test_weights_mix_all_styles_into_one_picture(call, folders, tmp_path):
    assert call("--weights", "1,3", content=(folders[0] / "c0.png",)) == 0
    assert names(tmp_path / "out") == ["c0__s0+s1.png"]
    assert call("--weights", "1,0", content=(folders[0] / "c0.png",), output=tmp_path / "mixed.png") == 0
    assert call(content=(folders[0] / "c0.png",), style=(folders[1] / "s0.png",), output=tmp_path / "single.png") == 0
    assert (tmp_path / "mixed.png").read_bytes() == (tmp_path / "single.png").read_bytes()


def test_alike_names_do_not_overwrite_each_other(call, folders, tmp_path):
    for target in ("a/c0.png", "b/c0.png", "b/c0.jpg"):
        (tmp_path / "twins" / target).parent.mkdir(parents=True, exist_ok=True)
        Image.open(folders[0] / "c0.png").save(tmp_path / "twins" / target)
    assert call(content=(tmp_path / "twins",), style=(folders[1] / "s0.png",)) == 0
    assert names(tmp_path / "out") == ["a_c0__s0.png", "b_c0__s0.png", "b_c0__s0_2.png"]


def test_joined_names_that_collide_and_long_ones(call, folders, tmp_path):
    for name in ("a", "a__b"):
        shutil.copy(folders[0] / "c0.png", tmp_path / f"{name}.png")
    for name in ("c", "b__c", "x" * 240):
        shutil.copy(folders[1] / "s0.png", tmp_path / f"{name}.png")
    contents = (tmp_path / "a.png", tmp_path / "a__b.png")
    assert call(content=contents, style=(tmp_path / "c.png", tmp_path / "b__c.png", tmp_path / f"{'x' * 240}.png")) == 0
    assert len(names(tmp_path / "out")) == 6 and {"a__b__c.png", "a__b__c_2.png"} < set(names(tmp_path / "out"))


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
def test_a_broken_picture_is_reported_skipped_and_makes_the_code_nonzero(call, folders, tmp_path, capsys, kind, written):
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
    with pytest.raises(UsageError, match="expected --model PATH"):
        stylize.main(["--content", "a", "--style", "b", "--output", "c"])
    assert not (tmp_path / "out").exists() or names(tmp_path / "out") == []


@pytest.mark.parametrize("extra, code", [(["--alpha", "2"], 2), (["--content", "/nowhere"], 3), (["--model", "/nowhere"], 4)])
def test_exit_codes_and_one_line(folders, tmp_path, trained_run, extra, code):
    base = ["--content", folders[0], "--style", folders[1], "--output", tmp_path / "out", "--model", trained_run]
    done = run_python("stylize.py", *base, *extra)
    assert done.returncode == code and re.fullmatch(r"error: [^\n]*\n", done.stderr)


def test_output_beside_the_inputs_is_not_taken_as_input(call, folders):
    """Listing happens before writing, so an output folder inside the content folder is harmless."""
    assert call(output=folders[0] / "out") == 0
    assert len(names(folders[0] / "out")) == 4
    shutil.rmtree(folders[0] / "out")
