"""The summary of an evaluation and of an ablation, against numbers computed by hand."""

import json
import math
import statistics

import pytest
import torch

from stylenet.config.protocol import Protocol
from stylenet.metrics import comparison, summary
from stylenet.metrics.candidates import Candidate, ContentCopy, StyleCopy
from stylenet.metrics.comparison import Scores, Trained
from stylenet.metrics.pairs import Pairs
from stylenet.metrics.store import pack


class Rival(Candidate):
    """A candidate with known scores."""

    kind = "model"
    picture = ContentCopy.picture


class Given:
    """An evaluation with known scores: {candidate: {metric: a value for each pair}}."""

    def __init__(
        self,
        scores,
        pairs,
        wanted=("style", "content_norm", "ssim"),
        output_vectors=None,
        style_vectors=None,
    ):
        self.candidates = list(scores)
        self.protocol = Protocol.load(None, ["metrics.bootstrap=500"])
        self.pairs = Pairs(
            (),
            tuple(f"s{i}.png" for i in range(9)),
            tuple(pairs),
            (tuple(f"s{i}" for i in range(9)),) * 2,
            ("c", "s"),
        )
        self.pairs = self.pairs._replace(contents=self.pairs.styles)
        self.scorer = type(
            "S",
            (),
            {
                "options": self.protocol.metrics,
                "wants": staticmethod(lambda *n: bool({*n} & {*wanted})),
            },
        )
        self.store = {}
        for candidate, columns in scores.items():
            for alpha in candidate.alphas:
                for i in range(len(pairs)):
                    values = {name: column[i] for name, column in columns.items()}
                    vectors = pack({"vgg": output_vectors[i]}) if output_vectors is not None else {}
                    self.store["pair", candidate.id, alpha, i] = {
                        "values": values,
                        "vectors": vectors,
                    }
        for i, vector in enumerate(style_vectors if style_vectors is not None else ()):
            self.store["style", i] = {"vectors": pack({"vgg": vector})}


PAIRS = [(i, i % 2) for i in range(8)]


def test_differences_are_other_less_first_and_better_follows_the_direction():
    a, b = Rival("a", "a", [1.0]), Rival("b", "b", [1.0])
    base = {"style": [1.0] * 8, "ssim": [0.5] * 8}
    own = {"style": [0.5] * 6 + [2.0, 1.5], "ssim": [0.75] * 8}
    found = {
        d["metric"]: d
        for d in summary.differences(Given({ContentCopy(): base, a: base, b: own}, PAIRS))
    }
    assert (found["style"]["a"], found["style"]["b"]) == ("a", "b")
    assert (
        found["style"]["mean"] == pytest.approx((6 * -0.5 + 1 + 0.5) / 8)
        and found["style"]["median"] == -0.5
    )
    assert (
        found["style"]["better_in"] == 6 / 8
        and found["style"]["low"] < found["style"]["mean"] < found["style"]["high"]
    )
    assert (
        found["ssim"]["mean"] == found["ssim"]["low"] == found["ssim"]["high"] == 0.25
        and found["ssim"]["better_in"] == 1
    )


def test_few_pairs_have_no_interval_and_no_verdict():
    from stylenet.metrics.tables import verdict

    a, b = Rival("a", "a", [1.0]), Rival("b", "b", [1.0])
    (found,) = summary.differences(
        Given({a: {"style": [1.0] * 5}, b: {"style": [0.1] * 5}}, PAIRS[:5])
    )
    assert "low" not in found and verdict(found) == "too few pairs"


def test_worst_pairs_come_worst_first_whatever_the_direction():
    a = Rival("a", "a", [1.0])
    given = Given(
        {
            a: {
                "style": [3.0, 9.0, 1.0, 7.0],
                "style/relu1_1": [0.0] * 4,
                "ssim": [0.9, 0.1, 0.5, 0.3],
            }
        },
        PAIRS[:4],
    )
    found = summary.worst(given, a)
    assert [row["pair"] for row in found["style"]] == [1, 3, 0] and [
        row["pair"] for row in found["ssim"]
    ] == [1, 3, 2]
    assert found["style"][0] == {"pair": 1, "content": "s1", "style": "s1", "value": 9.0} and set(
        found
    ) == {"style", "ssim"}


def test_styles_have_the_means_of_their_pairs():
    a = Rival("a", "a", [1.0])
    found = summary.per_style(Given({a: {"style": [1.0, 2.0, 3.0, 6.0]}}, PAIRS[:4]), a)
    assert found == {"s0": {"n": 2, "style": 2.0}, "s1": {"n": 2, "style": 4.0}}


def test_set_metrics_compare_the_outputs_with_each_style_once():
    """Two styles and four outputs with all variance in one coordinate: the distance by hand."""
    outputs = torch.tensor([[1.0, 0], [2, 0], [3, 0], [6, 0]])
    styles = torch.tensor([[10.0, 0], [14, 0]])
    a = Rival("a", "a", [1.0])
    given = Given({a: {"style": [0.0] * 4}}, PAIRS[:4], ("vgg_frechet",), outputs, styles)
    found = summary.set_metrics(given, a, 1.0)["vgg_frechet"]
    expected = (12 - 3) ** 2 + (8**0.5 - statistics.stdev([1, 2, 3, 6])) ** 2
    assert found["mean"] == pytest.approx(expected) and (found["n"], found["n_styles"]) == (4, 2)


def test_frontier_starts_from_the_copies():
    a = Rival("a", "a", [0.5, 1.0])
    scores = {
        ContentCopy(): {"content_norm": [0.0], "style": [2.0]},
        StyleCopy(): {"content_norm": [2.0], "style": [0.0]},
    }
    found = summary.frontier(
        Given(scores | {a: {"content_norm": [1.0], "style": [0.0]}}, PAIRS[:1])
    )
    assert found["copies"] == {
        "content copy": {"content": 0, "style": 2},
        "style copy": {"content": 2, "style": 0},
    }
    assert found["curves"]["a"]["area"] == pytest.approx(
        0.25
    )  # a triangle of half by half of the box
    assert [point["alpha"] for point in found["curves"]["a"]["points"]] == [0.5, 1.0]


def test_medians_of_steps_count_the_unreached_as_more_than_the_limit():
    assert (
        summary.median_steps([10, None, 30]) == 30
        and summary.median_steps([10, None, None]) is None
    )
    assert summary.median_steps([10, 20, None, None]) is None and summary.median_steps([7]) == 7


def ablation(tmp_path):
    """Two settings with two seeds each on six pairs."""
    runs, entries, pairs = [], {}, {}
    for setting, seed, mean in (("x=1", 0, 1.0), ("x=1", 1, 2.0), ("x=2", 0, 4.0), ("x=2", 1, 8.0)):
        folder = tmp_path / f"{setting[-1]}{seed}"
        runs.append(Trained(setting, seed, folder))
        metrics = {
            "style": {"mean": mean},
            "ssim": {"mean": mean / 10},
            "vgg_frechet": {"mean": 3.0},
        }
        facts = {"git_commit": "abc", "step": 4, "sha256": "f" * 64}
        entries[folder.name] = {
            "name": folder.name,
            "kind": "model",
            "alpha": 1.0,
            "metrics": metrics,
            "facts": facts,
        }
        pairs[folder.name] = {"style": [mean] * 6, "ssim": [mean / 10] * 6}
    entries["content copy"] = {
        "name": "content copy",
        "kind": "control",
        "metrics": entries["10"]["metrics"],
    }
    values = {
        "metrics.names": ["style", "ssim", "vgg_frechet"],
        "metrics.bootstrap": 50,
        "pairs.seed": 0,
    }
    return runs, Scores({"protocol": {"values": values}}, entries, pairs)


def test_deviation_over_seeds_is_that_of_a_sample_and_the_best_is_the_best(tmp_path):
    runs, scores = ablation(tmp_path)
    table = comparison.metric_table(runs, scores)
    # the columns stand in the order of all tables: style, SSIM, Fréchet
    assert table.rows[0][:4] == ["x=1", "2", "1.500 ± 0.707", "0.150 ± 0.071"]
    assert table.rows[1][:4] == ["x=2", "2", "6.000 ± 2.828", "0.600 ± 0.283"]
    assert {(0, 2), (1, 3)} <= table.best and table.rows[2][0] == "content copy"


def test_ablation_intervals_count_seeds_and_need_the_baseline(tmp_path):
    runs, scores = ablation(tmp_path)
    found = comparison.differences(runs, scores, "x=1")
    assert (
        found["x=2"]["style"]["mean"] == 4.5 > found["x=2"]["style"]["low"]
        and "vgg_frechet" not in found["x=2"]
    )
    lines = comparison.summary_lines(runs, scores, "x=1")
    assert any("seeds a setting, the intervals say little" in line for line in lines)
    assert (
        comparison.differences(runs, scores, "x=0") == {}
    )  # its runs failed: nobody takes its place
    assert comparison.numbers(runs, scores, "x=0")["baseline"] == "x=0"
    assert math.isclose(
        json.loads(json.dumps(comparison.numbers(runs, scores, "x=1")))["means"]["x=2"]["style"][1],
        8.0,
    )


def test_scores_are_read_at_full_strength(tmp_path):
    entries = [
        {"name": "m", "alpha": a, "kind": "model", "metrics": {"style": {"mean": a}}}
        for a in (0.5, 1.0)
    ]
    (tmp_path / "metrics.json").write_text(json.dumps({"candidates": entries}))
    (tmp_path / "pairs.csv").write_text(
        "candidate,alpha,content_file,style_file,style,lpips\nm,0.5,c,s,5.0,x\nm,1.0,c,s,1.0,x\nm,1.0,d,s,3.0,x\n"
    )
    scores = comparison.read_scores(tmp_path)
    assert scores.entries["m"]["alpha"] == 1.0 and scores.pairs["m"]["style"] == [1.0, 3.0]
