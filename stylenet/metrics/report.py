"""The outputs of an evaluation.

They are metrics.json, pairs.csv, table.md, table.tex and one self-contained report.html.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from stylenet import files, images
from stylenet.csv_files import write_rows
from stylenet.metrics import plots, tables
from stylenet.metrics.catalogue import CATALOGUE
from stylenet.metrics.suite import Evaluation
from stylenet.metrics.tables import Table


def write_pairs(evaluation: Evaluation, path: Path) -> None:
    """Write pairs.csv: a row for each picture, with all of its metrics."""
    options = evaluation.scorer.options
    # Every picture has the same metrics, so the first row gives the columns.
    sample = evaluation.store["pair", evaluation.candidates[0].id, None, 0]["values"]
    absent = [
        name
        for name in options.names
        if name in evaluation.scorer.missing and CATALOGUE[name].of == "pair"
    ]
    header = ["candidate", "alpha", "content_file", "style_file", *sample, *absent]
    write_rows(path, header, pair_rows(evaluation, list(sample), len(absent)))


def pair_rows(evaluation: Evaluation, metrics: Sequence[str], n_absent: int) -> Iterator[list[Any]]:
    """A row for each picture of each candidate at each strength."""
    pairs = evaluation.pairs
    for candidate in evaluation.candidates:
        for alpha, (i, (c, s)) in itertools.product(candidate.alphas, enumerate(pairs.pairs)):
            values = evaluation.store["pair", candidate.id, alpha, i]["values"]
            names = pairs.names_of((c, s))
            row = [candidate.name, "" if alpha is None else alpha, *names]
            yield [
                *row,
                *(repr(values[name]) for name in metrics),  # repr keeps every digit
                *[tables.NOT_COMPUTED] * n_absent,
            ]


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with files.replaced_file(path) as temporary:
        # "replace": a file name may not be Unicode.
        temporary.write_text(text, encoding="utf-8", errors="replace")


def write_all(evaluation: Evaluation, results: Mapping[str, Any], folder: Path) -> None:
    """Write all outputs of the evaluation into the folder."""
    # allow_nan=False: NaN is no JSON.
    write_text(folder / "metrics.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_pairs(evaluation, folder / "pairs.csv")
    write_text(folder / "table.md", tables.markdown(results))
    write_text(folder / "table.tex", tables.latex(results))
    pictures = collect_pictures(evaluation, results)
    page = html_page(
        tables.title(results),
        [*tables.all_tables(results), *tables.style_tables(results)],
        plots.plots(results),
        pictures,
        results,
        summary=[tables.heading(results), *tables.summary_lines(results)],
    )
    write_text(folder / "report.html", page)


class Strip(NamedTuple):
    """A row of pictures with captions."""

    title: str
    cells: list[tuple[str, str]]  # (caption, data URI)


def collect_pictures(
    evaluation: Evaluation, results: Mapping[str, Any], n_examples: int = 6
) -> dict[str, list[Strip]]:
    """{heading: strips}: examples, then the worst pairs. Both show every rival."""
    uri = PictureUris(evaluation)
    strips: dict[str, list[Strip]] = {}
    # Examples are spread evenly over the pairs.
    step = max(1, len(evaluation.pairs.pairs) // n_examples)
    rivals = [c for c in evaluation.candidates if c.kind != "control"]
    strips["Examples"] = [
        Strip("", [*uri.inputs(i), *((c.name, uri.of(c, i)) for c in rivals)])
        for i in range(0, len(evaluation.pairs.pairs), step)[:n_examples]
    ]
    strips[WORST] = [
        Strip(title, [*uri.inputs(number), *((c.name, uri.of(c, number)) for c in rivals)])
        for number, title in worst_titles(results).items()
    ]
    return strips


WORST = "Worst pairs"


def worst_titles(results: Mapping[str, Any]) -> dict[int, str]:
    """{pair: its files, and for which candidates by which metrics it is among the worst}.

    Each pair appears once.
    """
    files_of: dict[int, str] = {}
    reasons: dict[int, list[str]] = {}
    for candidate, by_metric in results["worst"].items():
        for metric, rows in by_metric.items():
            for row in rows:
                files_of[row["pair"]] = f"{row['content']} + {row['style']}"
                value = tables.number(row["value"], metric)
                reasons.setdefault(row["pair"], []).append(
                    f"{candidate}: {CATALOGUE[metric].title} {value}"
                )
    return {number: f"{files_of[number]} ({'; '.join(why)})" for number, why in reasons.items()}


class PictureUris:
    """Pictures of an evaluation as data URIs; each is computed once."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation, self.made = evaluation, {}

    def of(self, candidate: Any, number: int) -> str:
        """A candidate's picture at full strength."""
        return self.keep((candidate.id, number), lambda: self.evaluation.picture(candidate, number))

    def inputs(self, number: int) -> list[tuple[str, str]]:
        """The content and the style of a pair, with captions."""
        content, style = self.evaluation.load_pair(number)
        c, s = self.evaluation.pairs.pairs[number]
        return [
            ("content", self.keep(("content", c), lambda: content)),
            ("style", self.keep(("style", s), lambda: style)),
        ]

    def keep(self, key: tuple, make: Callable[[], Tensor]) -> str:
        """The URI under the key, computed on the first call."""
        if key not in self.made:
            self.made[key] = data_uri(make())
        return self.made[key]


def data_uri(image: Tensor, px: int = 256) -> str:
    """A picture [1, 3, H, W] for a page: JPEG, longest side at most `px`.

    The metrics never see it.
    """
    picture = images.to_pil(image[0])
    picture.thumbnail((px, px))  # keeps the aspect ratio and never enlarges
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def html_page(
    title: str,
    shown: Sequence[Table],
    drawn: Mapping[str, str],
    pictures: Mapping[str, Sequence[Strip]],
    results: Mapping[str, Any],
    failed: Sequence[str] = (),
    summary: Sequence[str] = (),
) -> str:
    """The self-contained page.

    `failed` names the runs that are missing in it because they failed. `summary` says in sentences
    what the tables show.
    """
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    environment = Environment(
        # autoescape: candidates and files have any name.
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default=True),
    )
    lost = [f"failed, and not in the tables: {name}" for name in failed]
    facts = {
        "summary": summary,
        "folded": WORST,
        "meanings": tables.meanings(results),
        "notes": [*lost, *tables.notes(results)],
        "protocol": tables.protocol_text(results),
        "provenance": tables.provenance(results),
    }
    return environment.get_template("report.html").render(
        title=title, tables=shown, plots=drawn, pictures=pictures, **facts
    )
