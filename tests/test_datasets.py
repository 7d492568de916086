"""Splits, the stateless sampler, caches, and unreadable files."""

import itertools
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import draw

from stylenet import datasets as d
from stylenet import images
from stylenet.errors import DataError


@pytest.fixture
def sources(image_folders):
    return tuple(
        d.PixelSource(d.read_split(str(folder), 0.2, "x").train, 24) for folder in image_folders
    )


def make_dataset(sources, **options):
    return d.PairDataset(*sources, **({"crop_px": 16, "seed": 3, "flip": True} | options))


def take(dataset, n, start=0, batch_size=2, workers=0, **options):
    batches = d.make_batches(
        dataset, d.EndlessSampler(start, batch_size, **options), workers, pin=False
    )
    return list(itertools.islice(batches, n))


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert torch.equal(a.content, b.content) and torch.equal(a.style, b.style)


def test_folder_split_is_disjoint_stable_and_complete(image_folders):
    split = d.read_split(str(image_folders[0]), 0.2, "data.content")
    assert (len(split.train), len(split.held_out)) == (8, 2)
    assert not set(split.train.paths) & set(split.held_out.paths)
    assert split == d.read_split(str(image_folders[0]), 0.2, "data.content")
    assert len(d.read_split(str(image_folders[0]), 0.0, "data.content").held_out) == 0


@pytest.mark.parametrize("n, expected", [(1, (1, 0)), (2, (1, 1)), (3, (2, 1))])
def test_small_folders_keep_something_to_train_on(tmp_path, n, expected):
    for i in range(n):
        draw(tmp_path / f"{i}.png", i)
    split = d.read_split(str(tmp_path), 0.02, "x")
    assert (len(split.train), len(split.held_out)) == expected


def test_split_messages(tmp_path):
    (tmp_path / "m.csv").write_text("file,part\n")
    (tmp_path / "n.csv").write_text("path,split\na.png,test\n")
    (tmp_path / "o.csv").write_text("path,split\na.png,held_out\n")
    (tmp_path / "p.txt").touch()
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    (tmp_path / "short.csv").write_text("split,path\ntrain\n")
    (tmp_path / "twice.csv").write_text("path,split\na.png,train\na.png,held_out\n")
    (tmp_path / "empty").mkdir()
    for name, expected in {
        "m.csv": "columns path, split in .* but file, part came; make it with data/prepare.py",
        "n.csv": "'test' came",
        "o.csv": "lists none",
        "p.txt": "folder or a manifest",
        "binary.csv": "expected a table with the columns path, split",
        "short.csv": "line 2, but 'train' came",
        "twice.csv": "a.png in both",
        "empty": "there are none",
        "absent": "there is no",
    }.items():
        with pytest.raises(DataError, match=expected):
            d.read_split(str(tmp_path / name), 0.1, "data.content")
    with pytest.raises(DataError, match="data.content is not set"):
        d.read_split(None, 0.1, "data.content")


def test_manifest_brings_its_own_split(tmp_path):
    (tmp_path / "m.tsv").write_text("path\tsplit\nx/a.png\ttrain\nb.png\theld_out\n")
    split = d.read_split(str(tmp_path / "m.tsv"), 0.5, "x")
    assert split.train.paths == (tmp_path / "x/a.png",) and split.held_out.paths == (
        tmp_path / "b.png",
    )


def test_every_image_once_an_epoch_in_a_new_order():
    first, second = (
        [d.image_number(0, d.CONTENT, e * 50 + i, 50) for i in range(50)] for e in (0, 1)
    )
    assert sorted(first) == sorted(second) == list(range(50)) and first != second


def test_content_and_style_are_paired_anew():
    pairs = [
        (d.image_number(0, d.CONTENT, i, 20), d.image_number(0, d.STYLE, i, 20)) for i in range(60)
    ]
    by_content = [{s for c, s in pairs if c == number} for number in range(20)]
    assert sum(len(styles) > 1 for styles in by_content) > 15


def test_samples_depend_on_seed_and_index_alone(sources):
    ours, theirs = make_dataset(sources), make_dataset(sources)
    shuffled = {i: ours[i] for i in (9, 2, 5)}
    for i in (2, 5, 9):
        assert torch.equal(shuffled[i].content.pixels, theirs[i].content.pixels)
    other = make_dataset(sources, seed=4)
    assert any(not torch.equal(ours[i].content.pixels, other[i].content.pixels) for i in range(5))


def test_workers_and_resume_change_nothing(sources):
    dataset = make_dataset(sources)
    straight = take(dataset, 6)
    assert_same(take(dataset, 6, workers=2), straight)
    assert_same(take(dataset, 3, start=6), straight[3:])


def test_ranks_share_the_batch_of_one_process(sources):
    dataset = make_dataset(sources)
    together = take(dataset, 3, batch_size=4)
    ranks = [take(dataset, 3, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    for whole, a, b in zip(together, *ranks):
        assert torch.equal(whole.content, torch.cat([a.content, b.content]))


def test_caches_change_nothing(image_folders, sources):
    straight = take(make_dataset(sources), 5)
    for device in ("cpu",):
        kept = tuple(d.PixelSource(source.image_set, 24) for source in sources)
        for source in kept:
            source.keep(torch.device(device), 2)
        assert_same(take(make_dataset(kept), 5), straight)


def test_crops_reach_every_corner_and_flip():
    pixels = torch.arange(3 * 5 * 6).reshape(3, 5, 6)
    crops = [d.crop_of(0, 0, i, flip=True) for i in range(200)]
    corners = {d.cut(pixels, crop._replace(mirrored=False), 4)[0, 0, 0].item() for crop in crops}
    assert corners == {0, 1, 2, 6, 7, 8}
    assert 60 < sum(crop.mirrored for crop in crops) < 140
    assert torch.equal(d.cut(pixels, d.Crop(0, 0, True), 4), pixels[:, :4, :4].flip(-1))
    assert not d.crop_of(0, 0, 1, flip=False).mirrored


@pytest.fixture
def damaged(image_folders, tmp_path):
    """A copy of the contents with one broken file, and the styles."""
    folder = tmp_path / "damaged"
    shutil.copytree(image_folders[0], folder)
    (folder / "c0.png").write_bytes(b"broken")
    return tuple(
        d.PixelSource(d.read_split(str(f), 0.0, "x").train, 24) for f in (folder, image_folders[1])
    )


def test_a_bad_file_is_replaced_deterministically_and_reported_once(damaged, capsys):
    once, again = take(make_dataset(damaged), 20), take(make_dataset(damaged), 20, workers=2)
    assert_same(once, again)
    bad = d.BadFiles(18, 0.0)
    for batch in once:
        bad.report(batch)
    error = capsys.readouterr().err
    assert sum(len(batch.failures) for batch in once) > 1 and error.count("c0.png") == 1


def test_too_many_bad_files_stop(damaged):
    def batch(*names):
        return d.Batch(
            torch.empty(0), torch.empty(0), [(name, f"{name}: broken") for name in names], False
        )

    bad = d.BadFiles(20, 0.1)
    bad.report(batch("a", "b"))
    with pytest.raises(DataError, match="at most 10.0% unreadable images of 20, but 3"):
        bad.report(batch("c"))


def test_a_set_without_a_readable_image_stops(tmp_path, sources):
    (tmp_path / "only.png").write_bytes(b"broken")
    broken = d.PixelSource(d.ImageSet(str(tmp_path), (tmp_path / "only.png",)), 24)
    batch = take(make_dataset((broken, sources[1])), 1)[0]
    with pytest.raises(DataError, match="unreadable"):
        d.BadFiles(9, 1.0).report(batch)


def test_paths_name_what_the_sample_shows(sources):
    dataset = make_dataset(sources)
    assert dataset.paths(4) == (dataset[4].content.path, dataset[4].style.path)


def test_held_out_pairs_are_fixed_and_vary(image_folders):
    splits = [d.read_split(str(folder), 0.4, "x").held_out for folder in image_folders]
    pairs = d.held_out_pairs(*splits, 6, 16, 24)
    assert len(pairs) == 6 and pairs[0].content.shape == (3, 16, 16)
    again = d.held_out_pairs(*splits, 6, 16, 24)
    assert all(torch.equal(a.content, b.content) for a, b in zip(pairs, again, strict=True))
    assert [pair[2:] for pair in pairs] == [pair[2:] for pair in again]
    for pair in pairs:  # the names are those of the pictures shown
        for crop, path in (pair.content, pair.content_path), (pair.style, pair.style_path):
            alone = d.PixelSource(d.ImageSet("x", (path,)), 24)
            assert torch.equal(crop, images.to_unit(d.cut(alone[0], d.CENTRE, 16)))
    assert d.held_out_pairs(splits[0], d.ImageSet("x", ()), 6, 16, 24) == []


def test_held_out_pairs_say_what_they_leave_out(image_folders, tmp_path, capsys):
    contents, styles = (d.read_split(str(folder), 0.4, "x").held_out for folder in image_folders)
    gone = tmp_path / "gone.png"
    gone.symlink_to(tmp_path / "elsewhere.png")
    with_gone = d.ImageSet(contents.origin, (*contents.paths, gone))
    assert len(d.held_out_pairs(with_gone, styles, 40, 16, 24)) == 40
    assert capsys.readouterr().err.endswith("check the path; left out of the held-out pairs\n")


def test_calibration_images_come_from_both_sets_and_pass_over_bad_ones(damaged):
    batches = list(d.calibration_batches(damaged, 12, 16, batch_size=4))
    assert sum(len(batch) for batch in batches) == 11
    assert all(batch.dtype == torch.float32 for batch in batches)


def test_names_that_are_not_utf8(tmp_path):
    for i in range(3):
        draw(tmp_path / f"{i}.png", i)
    (tmp_path / "0.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    split = d.read_split(str(tmp_path), 0.3, "x")
    assert len(split.train) + len(split.held_out) == 3 and len(d.hash_of_list(split.train)) == 64


def test_scales_never_enlarge_and_resize_only_what_is_seen():
    pixels = torch.arange(300, dtype=torch.uint8).repeat(3, 100, 1)  # 100 x 300
    assert torch.equal(d.cut_at_scale(pixels, d.CENTRE, 40, 200), d.cut(pixels, d.CENTRE, 40))
    half = d.cut_at_scale(pixels, d.CENTRE, 40, 50)
    assert half.shape == (3, 40, 40)
    whole = torch.nn.functional.interpolate(
        d.cut(pixels, d.CENTRE, 80)[None], (40, 40), mode="bilinear", antialias=True
    )
    assert torch.equal(half, whole[0])


def test_scales_of_a_sample_are_a_function_of_its_number():
    scales = [32, 48, 64]
    seen = [
        (d.scale_of(1, d.CONTENT, i, scales), d.scale_of(1, d.STYLE, i, scales)) for i in range(600)
    ]
    assert seen == [
        (d.scale_of(1, d.CONTENT, i, scales), d.scale_of(1, d.STYLE, i, scales)) for i in range(600)
    ]
    assert (
        0.55 < sum(content == style for content, style in seen) / 600 < 0.78
    )  # half tied, a third of the others by chance
    assert all(abs(sum(c == scale for c, _ in seen) - 200) < 60 for scale in scales)
    shifts = {d.shift_of(1, step) for step in range(600)}
    assert (0, 0) not in shifts and shifts == {(a, b) for a in range(8) for b in range(8)} - {
        (0, 0)
    }


def test_small_pictures_stay_small_down_to_the_floor(tmp_path):
    draw(tmp_path / "a.png", 1, 60, 40)
    image_set = d.read_folder(tmp_path, 0).train
    sides = [
        min(d.PixelSource(image_set, px, floor)[0].shape[1:])
        for px, floor in ((64, None), (64, 16), (64, 50), (30, 16))
    ]
    assert sides == [64, 40, 50, 30]


class Slow(torch.utils.data.Dataset):
    """A set whose samples take for ever, as on a lost network drive."""

    crop_px = 8

    def __getitem__(self, i):
        time.sleep(60)


def test_a_stop_is_noticed_while_a_batch_is_awaited():
    start = time.monotonic()
    batches = d.make_batches(
        Slow(), d.EndlessSampler(0, 2), 1, False, lambda: time.monotonic() - start > 1
    )
    assert next(batches, None) is None and time.monotonic() - start < 20
    for child in multiprocessing.active_children():
        child.kill()


def test_batches_that_do_not_fit_the_shared_memory_are_refused(monkeypatch):
    usage = SimpleNamespace(free=10 * 2**20)
    monkeypatch.setattr(d, "SHARED_MEMORY", Path("/"))
    monkeypatch.setattr(d.shutil, "disk_usage", lambda _: usage)
    d.check_shared_memory(4, 8, 128)  # 4 workers, 2 batches each, 2 * 8 * 3 * 128^2 bytes: 6.3 MB
    with pytest.raises(DataError, match=r"25 MiB of .* data.workers=4, but / has 10 free; lower"):
        d.check_shared_memory(4, 8, 260)
