"""Files are ordinary ones, whole or absent; YAML cannot be a bomb."""

import os

import pytest
import yaml

from stylenet import files
from stylenet.config.training import Config
from stylenet.errors import DataError, UsageError, WeightsError
from stylenet.models.vgg_files import read_weights
from stylenet.training.sweeps import read_sweep


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_are_refused_and_not_awaited(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="expected a file, but a pipe or a device came"):
        files.check_regular(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe"):
        Config.load(str(tmp_path / "pipe"))
    with pytest.raises(WeightsError, match="pipe"):
        read_weights(tmp_path / "pipe")


def test_a_name_that_is_too_long_is_one_line(tmp_path):
    with pytest.raises(DataError, match="File name too long"):
        files.check_regular(tmp_path / ("x" * 300))


def test_a_failure_within_leaves_nothing_and_names_the_target(tmp_path):
    def write(error):
        with files.replaced_file(tmp_path / "t.txt") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(UsageError, match="expected to write .*t.txt, but it failed .No space"):
        write(OSError(28, "No space left on device"))
    with pytest.raises(FileNotFoundError):  # another file's error stays what it is
        write(FileNotFoundError(2, "No such file", "elsewhere"))
    assert not list(tmp_path.iterdir())


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in ("ab", "bc", "cd", "de")
)


@pytest.mark.parametrize(
    ("text", "words"),
    [(BOMB, "at most 20 aliases in YAML, but 36 came"), ("[" * 5000, "does not parse|cannot be")],
)
def test_yaml_bombs_are_one_line(tmp_path, text, words):
    (tmp_path / "b.yaml").write_text(text)
    for read in (Config.load, read_sweep):
        with pytest.raises(UsageError, match=words):
            read(str(tmp_path / "b.yaml"))


def test_a_huge_yaml_is_not_read(tmp_path):
    (tmp_path / "h.yaml").write_bytes(b"#" * (files.MAX_YAML_BYTES + 1))
    with pytest.raises(UsageError, match="at most 1,048,576 bytes"):
        Config.load(str(tmp_path / "h.yaml"))


def test_a_few_aliases_are_fine():
    assert files.parse_yaml("a: &x {b: 1}\nc: *x\n", yaml.SafeLoader) == {
        "a": {"b": 1},
        "c": {"b": 1},
    }


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("<!DOCTYPE html><html><title>Virus scan warning</title>", "is a web page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:abc\n", "a pointer of Git LFS"),
    ],
)
def test_what_was_downloaded_in_place_of_weights_is_called_what_it_is(tmp_path, content, kind):
    (tmp_path / "w.pth").write_text(content)
    with pytest.raises(WeightsError, match=kind):
        read_weights(tmp_path / "w.pth")
