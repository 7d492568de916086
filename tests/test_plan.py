"""Jobs: their pairs, names and shares, each a function of the job's number."""

import itertools
import time
import tracemalloc
from pathlib import Path

import pytest
from conftest import draw

from stylenet import images
from stylenet.applying import plan as plans
from stylenet.errors import DataError, UsageError


def fake_pictures(monkeypatch, *names, root="set"):
    """Pictures that are listed but never read."""
    monkeypatch.setattr(
        images, "iterate_images", lambda places: (Path(root, name) for name in names)
    )
    monkeypatch.setattr(Path, "is_dir", lambda path: str(path) == root)
    return plans.Pictures([root])


def all_jobs(plan, world_size=1):
    return [list(plan.jobs(rank, world_size)) for rank in range(world_size)]


@pytest.fixture
def sets(tmp_path):
    """Five contents in class folders, forty styles."""
    for i in range(5):
        draw(tmp_path / "c" / f"class{i % 2}" / f"x{i}.png", i, 8, 8)
    for i in range(40):
        draw(tmp_path / "s" / f"s{i:02}.png", 10 + i, 8, 8)
    return plans.Pictures([tmp_path / "c"]), plans.Pictures([tmp_path / "s"])


def test_all_is_every_pair_once(sets):
    plan = plans.make_plan(*sets)
    made = {(job.content, job.style) for job in plan.jobs()}
    assert len(plan) == len(list(plan.jobs())) == 200 and made == set(
        itertools.product(range(5), range(40))
    )
    assert len({job.output for job in plan.jobs()}) == 200


def test_few_styles_are_needed_at_a_time_and_contents_come_in_a_row(sets):
    plan = list(plans.make_plan(*sets).jobs())
    first, rest = plan[: 5 * plans.STYLES_PER_BLOCK], plan[5 * plans.STYLES_PER_BLOCK :]
    assert {job.style for job in first} == set(range(32)) and {job.style for job in rest} == set(
        range(32, 40)
    )
    for part in (first, rest):
        assert [content for content, _ in itertools.groupby(job.content for job in part)] == list(
            range(5)
        )


def test_random_draws_without_repetition_by_seed_and_content(sets):
    made = [
        [(j.content, j.style) for j in plans.make_plan(*sets, f"random:{k}", seed).jobs()]
        for k, seed in ((3, 0), (3, 0), (3, 1))
    ]
    assert made[0] == made[1] != made[2] and len(set(made[0])) == len(made[0]) == 15
    assert sorted({content for content, _ in made[0]}) == list(range(5))
    assert {s for _, s in made[0][:3]} != {s for _, s in made[0][3:6]}
    everything = plans.make_plan(*sets, "random:40")
    assert {job.style for job in itertools.islice(everything.jobs(), 40)} == set(range(40))


@pytest.mark.parametrize("pairs", ["all", "random:3", "list"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 60])
def test_shares_partition_the_jobs(sets, tmp_path, pairs, world_size):
    rows = [f"{sets[0].name(i % 5)},{sets[1].name(7 * i % 40)}" for i in range(17)]
    (tmp_path / "list.csv").write_text("\n".join(["content,style", *rows]))
    plan = plans.make_plan(*sets, str(tmp_path / "list.csv") if pairs == "list" else pairs)
    shares = all_jobs(plan, world_size)
    assert sorted(itertools.chain(*shares)) == sorted(plan.jobs())
    assert [len(share) for share in shares] == [
        plan.count(rank, world_size) for rank in range(world_size)
    ]


def test_a_million_contents_with_80000_styles_start_at_once(monkeypatch):
    """Eighty billion pairs: first and last need a moment and a few megabytes."""
    pairings = plans.AllPairs(10**6, 80_000), plans.RandomPairs(10**6, 80_000, 5, seed=1)
    names = plans.Names(range(10**6), range(80_000))
    tracemalloc.start()
    start = time.perf_counter()
    for pairing in pairings:
        plan = plans.Plan(None, range(80_000), str, pairing, names, 1.0)
        some = [*itertools.islice(plan.jobs(3, 64), 1000), *pairing.block(pairing.n_blocks - 1)]
        assert len(some) >= 1005 and plan.count(3, 64) == pytest.approx(len(plan) / 64, rel=0.01)
    assert len(plans.Plan(None, [], str, pairings[0], names, 1.0)) == 8 * 10**10
    assert time.perf_counter() - start < 5 and tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_labels_of_a_large_listing_are_quick():
    start = time.perf_counter()
    made = plans.distinct("image" for _ in range(200_000))
    assert (
        made[:3] == ["image", "image_2", "image_3"]
        and len(set(made)) == 200_000
        and time.perf_counter() - start < 5
    )


def test_names_are_distinct_whatever_the_labels():
    contents = ["a", "a__b", "a__b__c", "a_", "x"]
    styles = ["c", "b__c", "b__b__c", "_c", "c_2", "b__c_2", "y"]
    names = plans.Names(contents, styles)
    made = {(c, s): names(c, s) for c in range(len(contents)) for s in range(len(styles))}
    assert len(set(made.values())) == len(made)
    assert (
        made[4, 6] == "x__y" and made[0, 1] == "a__b__c" and made[1, 0] == "a__b__c_3"
    )  # a + b__c_2 has _2 already


def test_a_name_does_not_depend_on_the_pairs_or_shares(sets):
    by_pair = {(job.content, job.style): job.output for job in plans.make_plan(*sets).jobs()}
    for share in all_jobs(plans.make_plan(*sets, "random:4"), 3):
        assert all(job.output == by_pair[job.content, job.style] for job in share)


def test_class_folders_are_kept(sets):
    several = {job.output for job in plans.make_plan(*sets, keeps_folders=True).jobs()}
    assert "class1/x3__s07.png" in several and len(several) == 200
    once = [
        job.output
        for job in plans.make_plan(*sets, "random:1", keeps_folders=True, suffix=".jpg").jobs()
    ]
    assert once == [
        "class0/x0.jpg",
        "class0/x2.jpg",
        "class0/x4.jpg",
        "class1/x1.jpg",
        "class1/x3.jpg",
    ]


def test_kept_names_that_collide(monkeypatch):
    pictures = fake_pictures(monkeypatch, "k/a.jpg", "k/a.png", "l/a.png")
    assert pictures.labels(keeps_folders=True) == ["k/a", "k/a_2", "l/a"]
    assert pictures.labels() == ["k_a", "k_a_2", "l_a"]


def test_long_names_fit_a_file_system(monkeypatch):
    pictures = fake_pictures(monkeypatch, "ä" * 120 + ".png", "ä" * 121 + ".png", "b" * 30 + ".png")
    labels = pictures.labels()
    assert labels == ["ä" * 50, "ä" * 50 + "_2", "b" * 30]


def test_several_folders_are_named_whole(tmp_path):
    for folder in "ab":
        draw(tmp_path / folder / "x.png", 1, 8, 8)
    both = plans.Pictures([tmp_path / "a", tmp_path / "b", tmp_path / "a" / "x.png"])
    assert len(both) == 2 and [both.name(i) for i in range(2)] == [
        (tmp_path / f / "x.png").as_posix() for f in "ab"
    ]


def test_a_list_has_its_own_places_and_strengths(sets, tmp_path):
    file = tmp_path / "list.csv"
    file.write_text(
        "style,content,output,alpha\ns03.png,class1/x1.png,new/one.jpg,0.5\ns01.png,class0/x0.png,,\n"
    )
    plan = plans.make_plan(*sets, str(file), alpha=0.9)
    assert [plan.row(job) for job in plan.jobs()] == [
        ("class0/x0.png", "s01.png", "x0__s01.png", "0.9"),
        ("class1/x1.png", "s03.png", "new/one.jpg", "0.5"),
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        ("content,style\n", "lists none"),
        ("content\nx\n", "columns content, style"),
        ("content,style\nclass0/x0.png,nope.png\n", "line 2, but 'nope.png' is not there"),
        ("content,style,alpha\nclass0/x0.png,s01.png,2\n", "alpha in"),
        ("content,style,alpha\nclass0/x0.png,s01.png,strong\n", "alpha in"),
        ("content,style,output\nclass0/x0.png,s01.png,../x.png\n", "image file below OUT"),
        ("content,style,output\nclass0/x0.png,s01.png,/x.png\n", "image file below OUT"),
        ("content,style,output\nclass0/x0.png,s01.png,x.doc\n", "image file below OUT"),
        ("content,style,output\nclass0/x0.png,s01.png,.writing-0-x.png\n", "image file below OUT"),
        (f"content,style,output\nclass0/x0.png,s01.png,{'x' * 300}.png\n", "image file below OUT"),
        ("content,style,output\nclass0/x0.png,s01.png,a\0b.png\n", "image file below OUT"),
        (
            "content,style\nclass0/x0.png,s01.png\nclass0/x0.png,s01.png\n",
            "two of the pairs go to x0__s01.png",
        ),
        (
            "content,style,output\nclass0/x0.png,s01.png,a.png\nclass0/x0.png,s02.png,a.png\n",
            "two of the pairs go to a.png",
        ),
    ],
)
def test_mistakes_in_a_list(sets, tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        plans.make_plan(*sets, str(tmp_path / "list.csv"))


def test_a_list_from_a_spreadsheet_and_exact_strengths(sets, tmp_path):
    (tmp_path / "list.csv").write_text(
        "content,style,alpha\nclass0/x0.png,s01.png,0.1234567891\n", encoding="utf-8-sig"
    )
    plan = plans.make_plan(*sets, str(tmp_path / "list.csv"))
    assert [plan.row(job)[3] for job in plan.jobs()] == ["0.1234567891"]


@pytest.mark.parametrize(
    "pairs", ["random", "random:0", "random:-1", "random:x", "some", "all:3", "pairs.txt"]
)
def test_other_pairs_are_refused(sets, pairs):
    with pytest.raises(UsageError, match="expected all, random:K or a .csv"):
        plans.make_plan(*sets, pairs)


def test_more_styles_than_there_are(sets):
    with pytest.raises(UsageError, match="at most random:40"):
        plans.make_plan(*sets, "random:41")
