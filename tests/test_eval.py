"""eval.py as a user meets it.

The tests cover outputs, missing networks, restarts, several processes, pictures of other programs
and mistakes.
"""

import csv
import json
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, draw, read_back, run_python

import eval as evaluation
from stylenet.config.protocol import Protocol
from stylenet.images import load_image, save_image
from stylenet.metrics.pairs import choose_pairs, load_picture

SHORT = [
    "pairs.n=3",
    "images.resize_px=32",
    "metrics.cfsd_px=16",
    "metrics.timing_rounds=1",
    "metrics.bootstrap=50",
]
ALONE = ["networks.download=false", "tracking.mode=disabled"]


@pytest.fixture
def judged(monkeypatch, vgg19_file):
    """The judge's weights come from the environment, as for a user."""
    monkeypatch.setenv("STYLENET_VGG19", str(vgg19_file))


def arguments(trained_run, image_folders, output, *more):
    content, style = image_folders
    models = [] if "--images" in more or "--model" in more else ["--model", str(trained_run)]
    return [
        *models,
        "--content",
        str(content),
        "--style",
        str(style),
        "--output",
        str(output),
        *SHORT,
        *ALONE,
        *more,
    ]


def results_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def entry(results, name, alpha=None):
    return next(e for e in results["candidates"] if e["name"] == name and e["alpha"] == alpha)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, trained_run, image_folders, vgg19_file):
    """One evaluation with all parts, shared by the tests that only read."""
    folder = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLENET_VGG19", str(vgg19_file))
        patch.setenv("TORCH_HOME", str(folder / "no_cache"))
        more = [
            "--alpha",
            "0,0.5,1",
            "--oracle",
            "2",
            "oracle.iterations=3",
            "--model",
            str(trained_run),
            "--model",
            str(trained_run),
        ]
        assert evaluation.main(arguments(trained_run, image_folders, folder / "out", *more)) == 0
    return folder / "out"


def test_all_outputs_are_there(scored):
    names = {path.name for path in scored.iterdir()}
    assert {"metrics.json", "pairs.csv", "table.md", "table.tex", "report.html"} <= names
    assert not [path for path in scored.rglob("*") if path.name.startswith(".writing-")]


def test_metrics_json_says_where_it_comes_from(scored, trained_run):
    from stylenet.models.vgg_files import sha256_of_file

    results = results_of(scored)
    assert results["schema_version"] == 1 and results["protocol"]["name"] == "quick"
    assert "pairs.n=3" in results["protocol"]["overrides"]
    assert results["pairs"]["n"] == 3 and results["seed"] == 0
    assert (
        results["git_commit"]
        and results["versions"]["torch"]
        and len(results["networks"]["judge"]["sha256"]) == 64
    )
    assert entry(results, trained_run.name, 1.0)["facts"]["sha256"] == sha256_of_file(
        trained_run / "model.safetensors"
    )
    assert entry(results, trained_run.name, 1.0)["facts"]["wandb_run"]["id"]


def test_controls_stand_at_their_known_values(scored):
    results = results_of(scored)
    content, style = (
        entry(results, "content copy")["metrics"],
        entry(results, "style copy")["metrics"],
    )
    for name in ("content", "content_norm", "cfsd"):
        assert content[name]["mean"] == pytest.approx(0, abs=1e-6)
    for name in ("style", "style_relative", "gram", "colour"):
        assert style[name]["mean"] == pytest.approx(0, abs=1e-6)
    assert content["ssim"]["mean"] == pytest.approx(1) and content["style_relative"][
        "mean"
    ] == pytest.approx(1)
    assert style["vgg_frechet"]["mean"] == pytest.approx(0, abs=1e-3)
    assert style["content_norm"]["mean"] > 0.1


def test_every_pair_has_a_row_and_the_means_are_theirs(scored, trained_run):
    rows = list(csv.DictReader((scored / "pairs.csv").open()))
    results = results_of(scored)
    assert len(rows) == 3 * (2 + 2 * 3)
    header = (scored / "pairs.csv").read_text().splitlines()[0].split(",")
    assert len(header) == len(set(header)) and header[:4] == [
        "candidate",
        "alpha",
        "content_file",
        "style_file",
    ]
    chosen = [
        float(row["style"])
        for row in rows
        if row["candidate"] == trained_run.name and row["alpha"] == "0.5"
    ]
    assert sum(chosen) / 3 == pytest.approx(
        entry(results, trained_run.name, 0.5)["metrics"]["style"]["mean"]
    )
    per_tap = [float(rows[-1][f"style/relu{i}_1"]) for i in (1, 2, 3, 4)]
    assert float(rows[-1]["style"]) == pytest.approx(sum(per_tap) / 4)


def test_same_model_twice_gets_two_names_and_no_difference(scored, trained_run):
    found = {d["metric"]: d for d in results_of(scored)["differences"]}
    assert found["style"]["b"] == f"{trained_run.name} (2)"
    assert all(d["mean"] == d["better_in"] == 0 for d in found.values())


def test_frontier_runs_from_strength_to_strength(scored, trained_run):
    curve = results_of(scored)["frontier"]["curves"][trained_run.name]
    assert [point["alpha"] for point in curve["points"]] == [0, 0.5, 1] and 0 < curve[
        "area"
    ] <= 1 + 1e-9


def test_oracle_is_told_for_every_model(scored, trained_run):
    oracle = results_of(scored)["oracle"]
    assert len(oracle["courses"]) == 2 and oracle["lr"] == 0.05
    found = oracle["reached"][trained_run.name]
    assert len(found["each"]) == len(found["each_style_alone"]) == 2
    for both, alone in zip(found["each"], found["each_style_alone"]):
        assert both is None or alone <= both  # letting the content go can only be sooner
    for k, course in zip(found["each"], oracle["courses"]):
        assert k is not None or len(course) == 4
        assert len(course) == 1 or course[-1][1] < course[0][1]  # the style loss falls


def test_missing_networks_are_said_in_every_output(scored):
    results = results_of(scored)
    assert {"lpips", "fid", "kid", "artfid"} == set(results["not_computed"])
    for name in ("table.md", "report.html", "table.tex"):
        text = (scored / name).read_text()
        assert "not computed" in text and "networks.lpips=FILE" in text, name
    rows = list(csv.DictReader((scored / "pairs.csv").open()))
    assert {row["lpips"] for row in rows} == {"not computed"}
    assert "lpips" not in entry(results, "content copy")["metrics"]


def test_cost_is_measured(scored, trained_run):
    cost = entry(results_of(scored), trained_run.name, 1.0)["efficiency"]
    assert (
        cost["parameters"] > 1000
        and cost["macs"] > 1e6
        and 0 < cost["seconds"] < 60
        and cost["px"] == 32
    )
    assert cost["peak_bytes"] is None or cost["peak_bytes"] > 0


def test_tables_name_the_protocol_and_mark_the_best(scored):
    markdown, latex = (scored / "table.md").read_text(), (scored / "table.tex").read_text()
    assert (
        "Protocol quick changed by pairs.n=3" in markdown
        and "**" in markdown
        and "images.resize_px: 32" in markdown
    )
    assert (
        "torch-fidelity's Inception, resized inside" in markdown
    )  # what a protocol has no choice in
    assert (
        latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") >= 5
        and r"\textbf{" in latex
    )
    assert not re.search(
        r"(?<!\\)[%_#](?!.*not computed)",
        "".join(line for line in latex.splitlines() if "&" in line),
    )


def test_report_holds_everything_itself(scored):
    page = (scored / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page) and "<script" not in page
    assert "mathdefault" not in page  # the markup of a logarithmic axis
    assert "<h1>Which is best: " in page and "What the metrics mean" in page
    assert page.index("<h1>") < page.index("Examples") < page.index("Worst pairs</summary>")
    assert (
        page.count("<svg") == 2
        and "data:image/jpeg;base64," in page
        and "Worst pairs</summary>" in page
    )


def test_restart_scores_nothing_twice(judged, trained_run, image_folders, tmp_path, monkeypatch):
    from stylenet.metrics.scorer import Scorer

    call = arguments(
        trained_run, image_folders, tmp_path / "out", "--oracle", "1", "oracle.iterations=2"
    )
    assert evaluation.main(call) == 0
    first = results_of(tmp_path / "out")
    monkeypatch.setattr(Scorer, "score", lambda *_: pytest.fail("scored again"))
    monkeypatch.setattr(
        "stylenet.metrics.suite.Course", lambda *_, **__: pytest.fail("optimised again")
    )
    assert evaluation.main(call) == 0
    assert results_of(tmp_path / "out") == first


def test_interrupted_evaluation_goes_on_with_the_same_numbers(
    judged, trained_run, image_folders, tmp_path
):
    call = arguments(
        trained_run, image_folders, tmp_path / "out", "metrics.names=[style,content,vgg_frechet]"
    )
    assert evaluation.main(call) == 0
    whole = results_of(tmp_path / "out")
    file = tmp_path / "out/work/rows-0.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:4]) + lines[4][:20])  # killed in the middle of a line
    assert evaluation.main(call) == 0
    assert results_of(tmp_path / "out") == whole


def test_changed_setting_starts_anew(judged, trained_run, image_folders, tmp_path):
    evaluation.main(
        arguments(trained_run, image_folders, tmp_path / "out", "metrics.names=[style]")
    )
    before = results_of(tmp_path / "out")
    evaluation.main(
        arguments(
            trained_run,
            image_folders,
            tmp_path / "out",
            "metrics.names=[style]",
            "images.resize_px=40",
        )
    )
    after = results_of(tmp_path / "out")
    assert after["settings"] != before["settings"]
    assert entry(after, "content copy")["metrics"] != entry(before, "content copy")["metrics"]


@pytest.mark.slow
def test_processes_share_the_pairs_and_get_the_same_numbers(
    judged, trained_run, image_folders, tmp_path, vgg19_file
):
    call = arguments(
        trained_run,
        image_folders,
        tmp_path / "one",
        "metrics.names=[style,content_norm,ssim,vgg_frechet]",
    )
    assert evaluation.main(call) == 0
    shared = [tmp_path / "two" if part == str(tmp_path / "one") else part for part in call]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run(
        [*launch, "eval.py", *map(str, shared)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, two = (results_of(tmp_path / name)["candidates"] for name in ("one", "two"))
    # another number of threads adds in another order, so on some processors the last digits differ
    assert [list(e["metrics"]) for e in one] == [list(e["metrics"]) for e in two]
    for alone, together in zip(one, two, strict=True):
        for name, values in alone["metrics"].items():
            assert together["metrics"][name] == pytest.approx(values, rel=1e-5, abs=1e-7), (
                alone["name"],
                name,
            )
    rows = [
        [json.loads(line)["key"] for line in file.read_text().splitlines()]
        for file in sorted((tmp_path / "two/work").iterdir())
    ]
    scored_pairs = [tuple(key) for part in rows for key in part if key[0] == "pair"]
    assert len(rows) == 2 and all(rows) and len(scored_pairs) == len(set(scored_pairs)) == 9


def test_metric_asked_for_by_name_must_be_there(
    judged, trained_run, image_folders, tmp_path, monkeypatch, capsys
):
    call = arguments(trained_run, image_folders, tmp_path / "out", "--metrics", "ssim,lpips")
    monkeypatch.setattr(sys, "argv", ["eval.py", *call])
    from stylenet.errors import run_script

    assert run_script(evaluation.main) == 4
    assert "lpips was asked for, but cannot be computed: needs lpips" in capsys.readouterr().err


def test_without_any_weights_the_pixels_are_still_compared(
    trained_run, image_folders, tmp_path, monkeypatch
):
    monkeypatch.setenv("STYLENET_VGG19", str(tmp_path / "none.pth"))
    assert evaluation.main(arguments(trained_run, image_folders, tmp_path / "out")) == 0
    results = results_of(tmp_path / "out")
    assert set(entry(results, "content copy")["metrics"]) == {"ssim", "colour"}
    assert "needs the vgg19" in results["not_computed"]["style"]


def test_taps_beyond_the_file_are_missing_not_replaced(
    judged, trained_run, image_folders, tmp_path
):
    call = arguments(trained_run, image_folders, tmp_path / "out", "--protocol", "microast")
    assert evaluation.main(call) == 0
    results = results_of(tmp_path / "out")
    assert "up to relu5_1, but the file ends at relu4_1" in results["not_computed"]["content"]
    assert set(entry(results, "content copy")["metrics"]) == {"ssim"}


def test_pictures_of_others_enter_the_same_table(judged, trained_run, image_folders, tmp_path):
    """The model's pictures, saved as PNG and scored from the folder, get the model's numbers."""
    from stylenet.applying.stylizer import Stylizer

    content, style = image_folders
    protocol = Protocol.load(ROOT / "configs/protocols/quick.yaml", SHORT)
    pairs = choose_pairs(protocol, str(content), str(style))
    stylizer, rows = Stylizer.load(trained_run), []
    for i, (c, s) in enumerate(pairs.pairs):
        picture = stylizer(
            load_picture(pairs.contents[c], protocol), load_picture(pairs.styles[s], protocol)
        )
        save_image(picture[0], tmp_path / "peer" / f"{i}.png")
        rows.append((*pairs.names_of((c, s)), f"{i}.png"))
    with open(tmp_path / "peer/manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([("content", "style", "output"), *rows])
    more = ["--model", str(trained_run), "--images", str(tmp_path / "peer")]
    assert evaluation.main(arguments(trained_run, image_folders, tmp_path / "out", *more)) == 0
    results = results_of(tmp_path / "out")
    assert entry(results, "peer")["metrics"] == entry(results, trained_run.name, 1.0)["metrics"]
    assert "only pictures came" in (tmp_path / "out/table.md").read_text()


@pytest.mark.parametrize(
    "change, message",
    [
        ("no manifest", "manifest.csv cannot be read"),
        ("no columns", "expected a table with the columns content, style, output"),
        ("missing pair", "expected a picture for each of the 3 pairs"),
        ("wrong size", "expected 32 x 32 pixels"),
    ],
)
def test_faulty_folders_of_pictures(
    judged, trained_run, image_folders, tmp_path, capsys, monkeypatch, change, message
):
    call = arguments(trained_run, image_folders, tmp_path / "out", "--dry-run")
    assert evaluation.main(call) == 0
    rows = list(csv.reader((tmp_path / "out/pair_list.csv").open()))
    peer = tmp_path / "peer"
    peer.mkdir()
    body = [[*row, f"{i}.png"] for i, row in enumerate(rows[1:])]
    if change == "missing pair":
        body = body[:-1]
    for i in range(3):
        draw(peer / f"{i}.png", i, *((20, 32) if change == "wrong size" else (32, 32)))
    header = ["content", "style", "picture" if change == "no columns" else "output"]
    if change != "no manifest":
        with open(peer / "manifest.csv", "w", newline="") as file:
            csv.writer(file).writerows([header, *body])
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "eval.py",
            *arguments(trained_run, image_folders, tmp_path / "out", "--images", str(peer)),
        ],
    )
    from stylenet.errors import run_script

    assert run_script(evaluation.main) == 3
    assert message in capsys.readouterr().err


def test_dry_run_lists_pairs_and_what_is_missing(
    judged, trained_run, image_folders, tmp_path, capsys
):
    assert (
        evaluation.main(arguments(trained_run, image_folders, tmp_path / "out", "--dry-run")) == 0
    )
    said = capsys.readouterr().out
    assert "3 pairs of 3 contents and 3 styles" in said and "lpips: not computed: needs" in said
    assert len((tmp_path / "out/pair_list.csv").read_text().splitlines()) == 4
    assert not (tmp_path / "out/metrics.json").exists()


@pytest.mark.parametrize(
    "extra, code, message",
    [
        (["--protocol", "fast"], 2, "expected a protocol (adain2017, microast, quick, styleid800)"),
        (["--alpha", "2"], 2, "invalid strengths value: '2'"),
        (["--metrics", "beauty"], 2, "expected metrics.names out of content"),
        (["pairs.m=3"], 2, "did you mean 'pairs.n'"),
        (["--model", "nowhere.safetensors"], 4, "there is no file nowhere.safetensors"),
        (["--content", "nowhere"], 3, "there is no nowhere (--content)"),
        (
            ["--oracle", "1", "--metrics", "ssim"],
            2,
            "expected the metrics target and style for --oracle",
        ),
        (["--oracle", "-1"], 2, "expected a number of pairs as --oracle"),
        (["pairs.list=nowhere.csv"], 3, "nowhere.csv cannot be read"),
    ],
)
def test_mistakes(
    judged, trained_run, image_folders, tmp_path, capsys, monkeypatch, extra, code, message
):
    from stylenet.errors import run_script

    monkeypatch.setattr(
        sys, "argv", ["eval.py", *arguments(trained_run, image_folders, tmp_path / "out"), *extra]
    )
    assert run_script(evaluation.main) == code
    error = capsys.readouterr().err
    assert message in error and error.count("error:") == 1


def test_pair_list_is_obeyed(judged, trained_run, image_folders, tmp_path):
    (tmp_path / "list.csv").write_text("content,style\nc0.png,s1.png\ndeep/er/c1.png,s1.png\n")
    more = [f"pairs.list={tmp_path / 'list.csv'}", "metrics.names=[ssim]"]
    assert evaluation.main(arguments(trained_run, image_folders, tmp_path / "out", *more)) == 0
    rows = list(csv.DictReader((tmp_path / "out/pairs.csv").open()))
    assert [(row["content_file"], row["style_file"]) for row in rows[:2]] == [
        ("c0.png", "s1.png"),
        ("deep/er/c1.png", "s1.png"),
    ]


def test_scores_go_to_wandb(judged, trained_run, image_folders, tmp_path):
    """An offline run of the type eval.

    It has a summary, the table of pairs and the ids of the training runs.
    """
    call = arguments(trained_run, image_folders, tmp_path / "out", "metrics.names=[ssim,style]")
    done = run_python(
        "eval.py",
        *[part for part in call if part != "tracking.mode=disabled"],
        "tracking.mode=offline",
        WANDB_SILENT="true",
    )
    assert done.returncode == 0, done.stderr
    assert "wandb sync" in done.stdout
    text = json.dumps(read_back(tmp_path / "out"))
    trained = entry(results_of(tmp_path / "out"), trained_run.name, 1.0)["facts"]["wandb_run"]["id"]
    for expected in (
        "training_runs",
        trained,
        f"{trained_run.name}@1/ssim",
        "content copy/style",
        '"eval"',
        "table-file",
    ):
        assert expected in text, expected
    # the evaluation, and the model as a run of its own
    assert len(list((tmp_path / "out/wandb").glob("offline-run-*"))) == 2
    assert '"alpha"' in text and f"out {trained_run.name}" in text
    (file,) = (tmp_path / "out/wandb").rglob("*.table.json")
    table = json.loads(file.read_text())
    assert (
        table["columns"][:4] == ["candidate", "alpha", "content file", "style file"]
        and len(table["data"]) == 3
    )
    staged = [
        file.read_bytes()[:4] for file in (tmp_path / "out/wandb/data").rglob("*") if file.is_file()
    ]
    assert staged.count(b"\x89PNG") == 9  # content, style and output of three pairs


def test_judge_in_bgr_is_the_judge_on_swapped_channels(vgg19_file):
    from stylenet import build

    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    judges = {}
    for order in ("rgb", "bgr"):
        options = [
            f"judge.weights={vgg19_file}",
            f"judge.channel_order={order}",
            "judge.calibrate=no",
        ]
        protocol = Protocol.load(None, options)
        judges[order] = build.make_judge(protocol, {"relu2_1"}, lambda: iter(())).network
    swapped = judges["rgb"](image.flip(1), ["relu2_1"])["relu2_1"]
    torch.testing.assert_close(
        judges["bgr"](image, ["relu2_1"])["relu2_1"], swapped, rtol=1e-4, atol=1e-5
    )


def test_pictures_are_judged_in_steps_of_a_png(tmp_path):
    from stylenet.images import quantised

    image = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    save_image(image, tmp_path / "a.png")
    assert torch.equal(load_image(tmp_path / "a.png"), quantised(image))


def test_more_that_must_be_told_clearly(
    judged, trained_run, image_folders, tmp_path, monkeypatch, capsys
):
    """One line and the right exit code for each mistake.

    A picture is missing or too small, or the oracle has no judge.
    """
    from stylenet.errors import run_script

    (tmp_path / "m.csv").write_text("path,split\ngone.png,held_out\n")
    draw(tmp_path / "one/a.png", 0)
    base = arguments(trained_run, image_folders, tmp_path / "out")
    cases = [
        ([*base, "--content", str(tmp_path / "m.csv")], 3, "1 are missing, first"),
        ([*base, "images.resize_px=10"], 2, "expected images.resize_px of 16 or more"),
        (
            [*base, "--content", str(tmp_path / "one"), "--style", str(tmp_path / "one")],
            3,
            "are one picture",
        ),
    ]
    for call, code, message in cases:
        monkeypatch.setattr(sys, "argv", ["eval.py", *call])
        assert run_script(evaluation.main) == code
        assert message in capsys.readouterr().err
    monkeypatch.setenv("STYLENET_VGG19", str(tmp_path / "none.pth"))
    monkeypatch.setattr(sys, "argv", ["eval.py", *base, "--oracle", "1"])
    assert run_script(evaluation.main) == 4
    assert (
        "expected the judge for --oracle, but target is needs the vgg19" in capsys.readouterr().err
    )


def test_one_style_has_no_set_metric_and_says_why(judged, trained_run, image_folders, tmp_path):
    more = ["pairs.styles=1", "metrics.names=[ssim,vgg_frechet]"]
    assert evaluation.main(arguments(trained_run, image_folders, tmp_path / "out", *more)) == 0
    assert results_of(tmp_path / "out")["not_computed"] == {
        "vgg_frechet": "needs at least two pairs with two styles"
    }


def test_replaced_pictures_are_scored_anew(judged, trained_run, tmp_path):
    """Pictures replaced under the same name and size never take a score from the store."""
    for i in range(2):
        draw(tmp_path / "c" / f"{i}.bmp", i, 40, 40)
        draw(tmp_path / "s" / f"{i}.bmp", 9 + i, 40, 40)
    call = arguments(
        trained_run, (tmp_path / "c", tmp_path / "s"), tmp_path / "out", "metrics.names=[ssim]"
    )
    evaluation.main(call)
    before = entry(results_of(tmp_path / "out"), "style copy")["metrics"]["ssim"]["mean"]
    draw(tmp_path / "s/0.bmp", 77, 40, 40)
    evaluation.main(call)
    assert entry(results_of(tmp_path / "out"), "style copy")["metrics"]["ssim"]["mean"] != before


@pytest.mark.parametrize("name", ["wct", "concat", "efdm"])
def test_every_transform_has_a_cost(vgg19_file, name, tmp_path):
    """Counting multiplications must also work for a transform with an eigendecomposition."""
    from stylenet.metrics.candidates import count_macs
    from stylenet.models.decoder import Decoder
    from stylenet.models.stylenet import StyleNet
    from stylenet.models.vgg_files import load_vgg
    from stylenet.transforms import TRANSFORMS

    net = StyleNet(
        load_vgg("vgg19", vgg19_file, ["relu2_1"]),
        TRANSFORMS[name],
        Decoder("vgg19", "relu2_1", widening=TRANSFORMS[name].widening),
        "relu2_1",
    )
    assert count_macs(net, 16) > 16 * 16 * 64 * 64 * 9  # more than conv1_2 alone


def test_artfid_brings_its_own_lpips(judged, image_folders, trained_run, tmp_path, monkeypatch):
    from stylenet.metrics import scorer
    from stylenet.metrics.extractors import Extractor, Lpips

    module = pytest.importorskip("test_metrics_extractors")
    network = Lpips("alex", module.random_backbone("alex"), module.random_heads("alex"))
    monkeypatch.setattr(scorer.extractors, "load_lpips", lambda *_: (network, "0" * 64))
    art = Extractor(lambda image: image.mean((2, 3)), "1" * 64)
    monkeypatch.setattr(scorer.extractors, "load_art_inception", lambda *_: art)
    more = ["--metrics", "artfid", "images.resize_px=64"]
    assert evaluation.main(arguments(trained_run, image_folders, tmp_path / "out", *more)) == 0
    metrics = entry(results_of(tmp_path / "out"), "content copy")["metrics"]
    assert metrics["artfid"]["mean"] > 1 and metrics["lpips"]["mean"] == 0
