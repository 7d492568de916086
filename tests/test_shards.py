"""Shards: webdataset's tar files, in the order of a folder, resumed bit for bit."""

import io
import subprocess
import sys
import tarfile

import pytest
from conftest import ROOT, draw
from test_resume import assert_equal, begin, comparable

from stylenet import datasets, images, shards
from stylenet.errors import DataError, WeightsError

webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")


@pytest.fixture(scope="module")
def packed(image_folders, tmp_path_factory):
    """The two folders of pictures, each as two shards that webdataset's own writer made."""
    places = []
    for folder in image_folders:
        target = tmp_path_factory.mktemp("shards")
        paths = images.list_images(folder)
        half = -(-len(paths) // 2)
        pattern = str(target / "%03d.tar")
        with webdataset.ShardWriter(pattern, maxcount=half, verbose=0) as writer:
            for i, path in enumerate(paths):
                name = path.suffix[1:].lower()
                writer.write({"__key__": f"{i:04d}", name: path.read_bytes()})
        places.append(f"{target}/{{000..001}}.tar")
    return places


def test_pictures_are_those_of_the_folder(image_folders, packed):
    for folder, pattern in zip(image_folders, packed, strict=True):
        ours, theirs = (
            datasets.read_split(str(origin), 0, "data.content").train
            for origin in (pattern, folder)
        )
        assert len(ours) == len(theirs) > 2
        for a, b in zip(ours.paths, theirs.paths, strict=True):
            assert images.load_bytes(a).equal(images.load_bytes(b))
        assert datasets.hash_of_list(ours) != datasets.hash_of_list(theirs)


def test_training_on_shards_is_training_on_the_folder(tiny_options, packed, tmp_path):
    origins = [f"data.content={packed[0]}", f"data.style={packed[1]}"]
    assert begin(tiny_options, tmp_path / "folder", "data.held_out=0") == 0
    for name, more in (("shards", []), ("workers", ["data.workers=2"])):
        assert begin(tiny_options, tmp_path / name, "data.held_out=0", *origins, *more) == 0
        assert_equal(comparable(tmp_path / name, 4), comparable(tmp_path / "folder", 4))


def test_two_processes_resume_bit_for_bit(tiny_options, packed, tmp_path):
    origins = [f"data.content={packed[0]}", f"data.style={packed[1]}"]

    def run(folder, *more):
        start = ["--resume", str(folder)] if folder.exists() else RECIPE
        options = [] if folder.exists() else [*tiny_options, *origins, f"run.dir={folder}"]
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run(
            [sys.executable, *command, str(ROOT / "train.py"), *start, *options, *more],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr

    run(tmp_path / "parts", "train.steps=2", "optim.lr_schedule=constant")
    run(tmp_path / "parts", "train.steps=4")
    run(tmp_path / "plain", "train.steps=4", "optim.lr_schedule=constant")
    assert_equal(comparable(tmp_path / "parts", 4), comparable(tmp_path / "plain", 4))


RECIPE = ["--config", str(ROOT / "configs/adain.yaml")]


def test_parts_are_held_out_by_name(packed):
    split = datasets.read_split(packed[0], 0.3, "data.content")
    assert split.held_out and not set(split.held_out.paths) & set(split.train.paths)
    again = datasets.read_split(packed[0], 0.3, "data.content")
    assert again == split


def test_faults_are_one_line(packed, tmp_path, monkeypatch):
    missing = packed[0].replace("001}", "005}")
    with pytest.raises(DataError, match="expected 6 shards .* 4 are missing"):
        datasets.read_split(missing, 0, "data.content")
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(DataError, match="expected an uncompressed tar file"):
        datasets.read_split(str(tmp_path / "bad.tar"), 0, "data.content")
    with tarfile.open(tmp_path / "empty.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("note.txt"), io.BytesIO())
    with pytest.raises(DataError, match="expected images in the shards"):
        datasets.read_split(str(tmp_path / "empty.tar"), 0, "data.content")
    monkeypatch.setitem(sys.modules, "braceexpand", None)
    with pytest.raises(WeightsError, match="webdataset"):
        shards.expand("a.tar")


def test_a_shortened_shard_and_an_absent_name_are_data_errors(tmp_path):
    draw(tmp_path / "a.png", 1, 40, 40)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "a.png", "deep/a.png")
    place = tmp_path / "a.tar" / "deep/a.png"
    assert images.load_bytes(place).equal(images.load_bytes(tmp_path / "a.png"))
    with pytest.raises(DataError, match="not there"):
        images.load_bytes(tmp_path / "a.tar/b.png")
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[:600])
    with pytest.raises(DataError, match="ends before"):
        images.load_bytes(place)
    assert shards.opened(tmp_path / "a.png") is None


@pytest.mark.parametrize("name", ["./a.png", "/a.png"])
def test_names_as_tar_writes_them(tmp_path, name):
    """`tar cf x.tar .` and `tar -P`; an absolute name is not a file outside the shard."""
    draw(tmp_path / "a.png", 1, 40, 40)
    member = tarfile.TarInfo(name)
    member.size = (tmp_path / "a.png").stat().st_size
    with tarfile.open(tmp_path / "a.tar", "w") as tar, open(tmp_path / "a.png", "rb") as file:
        tar.addfile(member, file)
    (path,) = datasets.read_split(str(tmp_path / "a.tar"), 0, "data.content").train.paths
    assert path == tmp_path / "a.tar/a.png"
    assert images.load_bytes(path).equal(images.load_bytes(tmp_path / "a.png"))
