"""The comparison of an ablation's cells.

It has deviations over seeds, paired intervals against the baseline, curves and pictures.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from stylenet import build, images
from stylenet.checkpoint import read_release
from stylenet.csv_files import read_rows
from stylenet.metrics import functional, report, tables
from stylenet.metrics import plots as drawing
from stylenet.metrics.candidates import Model
from stylenet.metrics.catalogue import CATALOGUE, best_of
from stylenet.metrics.pairs import choose_pairs, load_picture
from stylenet.metrics.report import Strip
from stylenet.metrics.summary import MIN_FOR_INTERVAL
from stylenet.metrics.tables import Table
from stylenet.tracking import HISTORY_FILE, make_tracker, sync_command

N_PICTURES = 6


class Trained(NamedTuple):
    """A finished cell: its setting, its seed and its run folder.

    The first setting is the baseline.
    """

    setting: str
    seed: int
    folder: Path


class Scores(NamedTuple):
    """The results of eval.py for the cells, by folder name and at full strength."""

    results: dict[str, Any]  # metrics.json
    entries: dict[str, dict[str, Any]]  # of metrics.json
    pairs: dict[str, dict[str, list[float]]]  # {metric: a value for every pair}


def read_scores(folder: Path) -> Scores:
    """The results that eval.py left in the folder."""
    results = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    entries = {entry["name"]: entry for entry in results["candidates"]}  # the last strength wins
    pairs: dict[str, dict[str, list[float]]] = {}
    for _, row in read_rows(folder / "pairs.csv", ("candidate", "alpha")):
        entry = entries[row["candidate"]]
        # An empty alpha belongs to a control or a folder; else only the full strength counts.
        if row["alpha"] in ("", str(entry["alpha"])):
            values = pairs.setdefault(entry["name"], {})
            for name in entry["metrics"].keys() & row.keys():
                values.setdefault(name, []).append(float(row[name]))
    return Scores(results, entries, pairs)


def by_setting(runs: Sequence[Trained]) -> dict[str, list[Trained]]:
    """The runs of each setting, in the order of the sweep file."""
    return {
        setting: [run for run in runs if run.setting == setting]
        for setting in dict.fromkeys(run.setting for run in runs)
    }


def write_all(
    runs: Sequence[Trained],
    folder: Path,
    name: str,
    baseline: str,
    failed: Sequence[str],
    question: str = "",
) -> str:
    """Write the tables, the plots, the grid of pictures and the numbers of a comparison.

    Tables are Markdown, LaTeX and HTML; the numbers are JSON. `question` is what the ablation asks.
    Returns the first table as text.

    Without a finished run of the baseline there are no differences.
    """
    scores = read_scores(folder / "eval")
    all_tables = [
        metric_table(runs, scores),
        difference_table(runs, scores, baseline),
        run_table(runs, scores),
    ]
    all_tables = [table for table in all_tables if table.rows]
    title = f"{question or f'Ablation {name}'}"
    about = f"Ablation {name}: {len(runs)} runs. {tables.heading(scores.results)}"
    lost = [f"- failed, and not in the tables: {cell}" for cell in failed]
    summary = summary_lines(runs, scores, baseline)
    parts = [
        f"## {title}",
        about,
        "\n".join(f"- {tables.markdown_text(line)}" for line in summary),
        *map(tables.markdown_table, all_tables),
        *lost,
        *(f"- {note}" for note in tables.notes(scores.results)),
    ]
    report.write_text(folder / "table.md", "\n\n".join(parts) + "\n")
    report.write_text(
        folder / "table.tex", "\n".join(tables.latex_table(table, title) for table in all_tables)
    )
    report.write_text(
        folder / "comparison.json", json.dumps(numbers(runs, scores, baseline), indent=1) + "\n"
    )
    strips = make_strips(runs, scores)
    images.save_image(labelled_grid(strips), folder / "grid.png")
    pictures = {
        "The same pairs for every setting": [
            Strip("", [(c, report.data_uri(p)) for c, p in strip]) for strip in strips
        ]
    }
    page = report.html_page(
        title, all_tables, plots(runs, scores), pictures, scores.results, failed, [about, *summary]
    )
    report.write_text(folder / "report.html", page)
    return tables.markdown_table(all_tables[0])


FEW_SEEDS = 3


def summary_lines(runs: Sequence[Trained], scores: Scores, baseline: str) -> list[str]:
    """What differs from the baseline for certain, and how much the seeds can say."""
    lines = []
    for setting, gaps in differences(runs, scores, baseline).items():
        certain = {
            name: tables.verdict({"metric": name} | gap)
            for name, gap in gaps.items()
            if tables.verdict({"metric": name} | gap) in ("better", "worse")
        }
        parts = [
            f"{verdict} in "
            + ", ".join(
                f"{CATALOGUE[name].title} ({tables.signed(gaps[name], name)})"
                for name, found in certain.items()
                if found == verdict
            )
            for verdict in ("better", "worse")
            if verdict in certain.values()
        ]
        what = "; ".join(parts) or "no metric differs for certain"
        lines.append(f"{setting} against {baseline}: {what}.")
    n_seeds = min(len(members) for members in by_setting(runs).values())
    if n_seeds < FEW_SEEDS:
        lines.append(
            f"With {n_seeds} seed{'s' * (n_seeds != 1)} a setting, the intervals say little about "
            "what another training would give."
        )
    return lines


def metric_names(scores: Scores) -> list[str]:
    """The metrics of the tables that were computed."""
    names = tables.wanted_columns(scores.results)
    return [
        name for name in names if any(name in entry["metrics"] for entry in scores.entries.values())
    ]


def over_seeds(runs: Sequence[Trained], scores: Scores, metric: str) -> list[float]:
    """The metric's mean over the pairs, for each run."""
    return [scores.entries[run.folder.name]["metrics"][metric]["mean"] for run in runs]


def metric_table(runs: Sequence[Trained], scores: Scores) -> Table:
    """A row per setting: mean ± deviation over the seeds, the best value of each metric marked.

    The controls are at the end.
    """
    names, settings = metric_names(scores), by_setting(runs)
    rows, best = [], set()
    for setting, members in settings.items():
        rows.append(
            [
                setting,
                str(len(members)),
                *(spread(over_seeds(members, scores, name), name) for name in names),
            ]
        )
    for column, name in enumerate(names, start=2):  # after the setting and the number of seeds
        means = [
            statistics.fmean(over_seeds(members, scores, name)) for members in settings.values()
        ]
        best.add((means.index(best_of(name)(means)), column))
    for entry in (e for e in scores.entries.values() if e["kind"] == "control"):
        rows.append(
            [
                entry["name"],
                "–",
                *(tables.number(entry["metrics"][name]["mean"], name) for name in names),
            ]
        )
    header = ["", "seeds", *map(tables.heading_of, names)]
    title = "Mean ± standard deviation over the seeds, of means over the pairs"
    return Table(title, header, rows, frozenset(best) if len(settings) > 1 else frozenset())


def spread(values: Sequence[float], metric: str) -> str:
    """Mean ± sample deviation; for one seed only the mean."""
    mean = tables.number(statistics.fmean(values), metric)
    return (
        f"{mean} ± {tables.number(statistics.stdev(values), metric)}" if len(values) > 1 else mean
    )


def difference_table(runs: Sequence[Trained], scores: Scores, baseline: str) -> Table:
    """The differences of each setting to the baseline, pair by pair."""
    rows = []
    for setting, gaps in differences(runs, scores, baseline).items():
        for name, gap in gaps.items():
            rows.append(
                [
                    setting,
                    tables.heading_of(name),
                    tables.signed(gap, name),
                    tables.verdict({"metric": name} | gap),
                ]
            )
    return Table(
        f"Paired differences to {baseline}, 95 % intervals over seeds and pairs",
        ["", "metric", "mean difference", ""],
        rows,
    )


def differences(
    runs: Sequence[Trained], scores: Scores, baseline: str
) -> dict[str, dict[str, dict[str, float]]]:
    """{setting: {metric: mean difference to the baseline with its interval}}.

    Empty without the baseline.
    """
    settings = by_setting(runs)
    base = settings.pop(baseline, [])
    names = [
        name for name in metric_names(scores) if base and name in scores.pairs[base[0].folder.name]
    ]
    return {
        setting: {name: difference(base, members, scores, name) for name in names}
        for setting, members in settings.items()
        if names
    }


def difference(
    base: Sequence[Trained], own: Sequence[Trained], scores: Scores, metric: str
) -> dict[str, float]:
    """The mean of own - base over seeds and pairs, with its interval.

    Another training and other pictures would both give other values, so the interval counts both.
    """
    a, b = (
        np.array([scores.pairs[run.folder.name][metric] for run in runs])  # [seeds, pairs]
        for runs in (base, own)
    )
    values = scores.results["protocol"]["values"]
    interval = functional.bootstrap_of_runs(
        a, b, values["metrics.bootstrap"], values["pairs.seed"]
    )._asdict()
    return interval if a.shape[1] >= MIN_FOR_INTERVAL else {"mean": interval["mean"]}


def run_table(runs: Sequence[Trained], scores: Scores) -> Table:
    """A row per run, with what identifies it."""
    rows = []
    for run in runs:
        facts = scores.entries[run.folder.name]["facts"]
        commit = (facts["git_commit"] or "unknown")[:10]
        rows.append(
            [
                run.setting,
                str(run.seed),
                str(run.folder),
                str(facts["step"]),
                commit,
                facts["sha256"][:12],
            ]
        )
    return Table("The runs", ["", "seed", "folder", "steps", "commit", "sha256"], rows)


def numbers(runs: Sequence[Trained], scores: Scores, baseline: str) -> dict[str, Any]:
    """The comparison as JSON data: means per run, and the paired differences."""
    names, settings = metric_names(scores), by_setting(runs)
    # The order of the runs is that of `seeds`.
    means = {
        setting: {name: over_seeds(members, scores, name) for name in names}
        for setting, members in settings.items()
    }
    seeds = {setting: [run.seed for run in members] for setting, members in settings.items()}
    gaps = differences(runs, scores, baseline)
    return {
        "schema_version": 1,
        "baseline": baseline,
        "seeds": seeds,
        "means": means,
        "differences": gaps,
    }


def make_strips(runs: Sequence[Trained], scores: Scores) -> list[list[tuple[str, Tensor]]]:
    """Rows of captioned pictures [1, 3, H, W] for a few pairs.

    A row has the content, the style, and the output of each setting's first run.
    """
    results = scores.results
    protocol = build.make_protocol(results["protocol"]["values"])
    pairs = choose_pairs(protocol, *results["pairs"]["sets"])
    # evenly spread over the pairs; unique, since rounding may repeat one
    chosen = np.unique(
        np.linspace(0, len(pairs.pairs) - 1, min(N_PICTURES, len(pairs.pairs))).round().astype(int)
    )
    inputs = {
        int(i): [load_picture(paths[k], protocol) for paths, k in zip(pairs[:2], pairs.pairs[i])]
        for i in chosen
    }
    strips = {i: [("content", content), ("style", style)] for i, (content, style) in inputs.items()}
    for setting, members in by_setting(runs).items():
        # loaded once, for all of its pictures
        folder = members[0].folder
        values = read_release(folder)[1]["config"]
        model = Model(str(folder), setting, [1.0], "auto", values.get("encoder.weights"))
        for i, strip in strips.items():
            strip.append((setting, model.picture(pairs, pairs.pairs[i], *inputs[i], 1.0)))
    return list(strips.values())


def labelled_grid(
    strips: Sequence[Sequence[tuple[str, Tensor]]], px: int = 160, line_px: int = 14
) -> Tensor:
    """The rows as one picture [3, H, W], each column under its caption."""
    size = (px, px)
    rows = [
        [
            torch.nn.functional.interpolate(p, size, mode="bilinear", antialias=True)[0]
            for _, p in strip
        ]
        for strip in strips
    ]
    grid = images.to_pil(images.make_grid(rows))
    # "a=1, b=2" takes four short lines, which fit a column.
    captions = [caption.replace(", ", "\n").replace("=", "\n") for caption, _ in strips[0]]
    top = line_px * max(caption.count("\n") + 1 for caption in captions) + 4
    # A crop beyond the upper edge adds the space for the captions.
    page = grid.crop((0, -top, grid.width, grid.height))
    pen = ImageDraw.Draw(page)
    pen.rectangle((0, 0, page.width, top - 1), fill="white")
    for column, caption in enumerate(captions):
        pen.multiline_text((column * (px + 4) + 2, 1), caption, fill="black", spacing=1)
    return images.to_tensor(page)


def plots(runs: Sequence[Trained], scores: Scores) -> dict[str, str]:
    """{caption: SVG}: every seed's metrics by setting, and the validation losses over the steps."""
    return drawing.drawn_or_note(
        {
            "Every seed's mean over the pairs, by setting": lambda: seeds_plot(runs, scores),
            "Total validation loss over the training steps": lambda: history_plot(runs),
        }
    )


def seeds_plot(runs: Sequence[Trained], scores: Scores) -> str:
    """A panel for each metric, with a dot for each run."""
    names, settings = metric_names(scores), by_setting(runs)

    def draw(panels: Any) -> None:
        for panel, name in zip(np.atleast_1d(panels), names):  # a single panel comes bare
            for row, (members, colour) in enumerate(zip(settings.values(), drawing.cycle())):
                values = over_seeds(members, scores, name)
                panel.plot(values, [row] * len(values), "o", color=colour, alpha=0.7)
            panel.set_title(CATALOGUE[name].title, fontsize=9, color=drawing.INK)
            panel.set_yticks(
                range(len(settings)), list(settings) if name == names[0] else [""] * len(settings)
            )
            panel.invert_yaxis()

    return drawing.figure(draw, len(names), (1.6 * len(names) + 2, 0.3 * len(settings) + 1))


def history_plot(runs: Sequence[Trained]) -> str:
    """The validation loss of each run over the steps."""

    def draw(axes: Any) -> None:
        for (setting, members), colour in zip(by_setting(runs).items(), drawing.cycle()):
            for i, run in enumerate(members):
                rows = [row for row in read_history(run.folder) if row.get("kind") == "val"]
                label = setting if i == 0 else None  # one legend entry a setting
                axes.plot(
                    [row["step"] for row in rows],
                    [row["total"] for row in rows],
                    "o-",
                    color=colour,
                    label=label,
                    alpha=0.8,
                )
        axes.set(xlabel="steps", ylabel="total validation loss")
        drawing.use_log_scale(axes)
        axes.legend(frameon=False, labelcolor=drawing.INK)

    return drawing.figure(draw)


def read_history(folder: Path) -> list[Mapping[str, Any]]:
    """The lines of a run's history; none if it has no history file."""
    path = folder / HISTORY_FILE
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.is_file()
        else []
    )


def track(
    folder: Path, name: str, mode: str, project: str, entity: str | None, timeout_s: float
) -> None:
    """Send table and grid to W&B.

    They form a run of their own in the ablation's group.
    """
    import uuid

    options = {
        "project": project,
        "entity": entity,
        "group": name,
        "name": f"ablation {name}",
        "tags": ["ablation", name[:64]],  # W&B refuses longer tags
    }
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    tracker = make_tracker(
        folder, mode, uuid.uuid4().hex[:8], timeout_s, {"ablation": name}, "ablation", **options
    )
    metrics = list(next(iter(comparison["means"].values())))
    rows = [
        [setting, *(statistics.fmean(means[m]) for m in metrics)]
        for setting, means in comparison["means"].items()
    ]
    tracker.log_table("comparison", ["setting", *metrics], rows)
    tracker.log_image("grid", folder / "grid.png", 0)
    tracker.finish(0)
    command = sync_command(folder)
    if command:
        print(f"to upload the offline run: {command}")
