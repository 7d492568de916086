"""The outputs of an evaluation: metrics.json, pairs.csv, table.md, table.tex and one self-contained report.html."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from stylenet import images
from stylenet.errors import one_line
from stylenet.metrics.extractors import EXTRAS, IMPLEMENTATIONS
from stylenet.metrics.scorer import VECTORS_OF
from stylenet.metrics.suite import HIGHER_IS_BETTER, Evaluation

NOT_COMPUTED = "not computed"
INK = "#010203"  # stands for the page's own text colour in a plot
PALETTE = ("#3b82f6", "#ef4444", "#10b981", "#f59e0b", "#8b5cf6", "#06b6d4", "#ec4899", "#84cc16")  # legible on light and dark


class Column(NamedTuple):
    """How a metric is shown."""

    title: str
    digits: int = 3


COLUMNS = {
    "content_norm": Column("content norm"),
    "content": Column("content"),
    "target": Column("AdaIN target"),
    "style": Column("style"),
    "style_relative": Column("style / copy"),
    "gram": Column("Gram"),
    "ssim": Column("SSIM"),
    "lpips": Column("LPIPS"),
    "cfsd": Column("CFSD", 4),
    "colour": Column("colour"),
    "vgg_frechet": Column("VGG Fréchet (not FID)"),
    "fid": Column("FID", 2),
    "kid": Column("KID", 4),
    "artfid": Column("ArtFID", 2),
}
COST_TITLES = ("parameters", "MACs", "latency", "latency, cached style", "peak memory")


class Table(NamedTuple):
    """A table as text."""

    title: str
    header: list[str]
    rows: list[list[str]]
    best: frozenset[tuple[int, int]] = frozenset()  # (row, column) of the best value of a column


def label_of(entry: Mapping[str, Any]) -> str:
    """A candidate at a strength."""
    return entry["name"] if entry["alpha"] is None else f"{entry['name']}, alpha {entry['alpha']:g}"


def title_of(metric: str) -> str:
    """A column's title with the direction in which it gets better."""
    return f"{COLUMNS[metric].title} {'↑' if metric in HIGHER_IS_BETTER else '↓'}"


def wanted_columns(results: Mapping[str, Any]) -> list[str]:
    """The metrics of the protocol in the order of the tables."""
    return [name for name in COLUMNS if name in results["protocol"]["values"]["metrics.names"]]


def metric_table(results: Mapping[str, Any], statistic: str) -> Table:
    """Candidates against metrics: `mean` with its interval, or `median`. The best rival's value is marked."""
    names, entries = wanted_columns(results), results["candidates"]
    rows = [[label_of(e), *(cell(e["metrics"].get(name), name, statistic) for name in names)] for e in entries]
    title = "Mean over the pairs [95 % interval]" if statistic == "mean" else "Median over the pairs"
    return Table(title, ["", *map(title_of, names)], rows, best_cells(entries, names, statistic))


def number(value: float, metric: str, sign: str = "") -> str:
    """A metric's value with its number of digits, or with two significant ones where it would read as zero."""
    digits = COLUMNS[metric].digits
    return f"{value:{sign}.1e}" if 0 < abs(value) < 0.5 * 10**-digits else f"{value:{sign}.{digits}f}"


def signed(difference: Mapping[str, float], metric: str) -> str:
    """A mean difference with its interval, if it has one."""
    shown = {key: number(difference[key], metric, "+") for key in ("mean", "low", "high") if key in difference}
    return f"{shown['mean']} [{shown['low']}, {shown['high']}]" if "low" in shown else shown["mean"]


def cell(value: Mapping[str, float] | None, metric: str, statistic: str) -> str:
    """A number, with its interval if it is a mean that has one."""
    if value is None:
        return NOT_COMPUTED
    if statistic not in value:
        return "–"
    has_interval = statistic == "mean" and "low" in value
    interval = f" [{number(value['low'], metric)}, {number(value['high'], metric)}]" if has_interval else ""
    return number(value[statistic], metric) + interval


def best_cells(entries: Sequence[Mapping[str, Any]], names: Sequence[str], statistic: str) -> frozenset[tuple[int, int]]:
    """Where the best value of each column stands among the rivals at their full strength; alone nobody is best."""
    found = set()
    last = {e["name"]: i for i, e in enumerate(entries) if e["kind"] != "control"}
    rivals = list(last.values())
    for column, name in enumerate(names, start=1):
        values = {i: entries[i]["metrics"].get(name, {}).get(statistic) for i in rivals}
        known = {i: value for i, value in values.items() if value is not None}
        if len(known) > 1:
            pick = max if name in HIGHER_IS_BETTER else min
            found.add((pick(known, key=known.__getitem__), column))
    return frozenset(found)


def cost_table(results: Mapping[str, Any]) -> Table | None:
    """What the models cost."""
    if "efficiency" not in results["protocol"]["values"]["metrics.names"]:
        return None
    rows = []
    for entry in {e["name"]: e for e in results["candidates"] if e["kind"] != "control"}.values():
        cost = entry["efficiency"]
        rows.append([entry["name"], *(cost_cells(cost) if cost else [f"{NOT_COMPUTED}: only pictures came"] * len(COST_TITLES))])
    known = next((e["efficiency"] for e in results["candidates"] if e["efficiency"]), None)
    where = f" at {known['px']} x {known['px']} on {known['hardware']}, float32" if known else ""
    return Table(f"Cost of one picture{where}", ["", *COST_TITLES], rows) if rows else None


def cost_cells(cost: Mapping[str, Any]) -> list[str]:
    """Numbers with their units."""
    peak = NOT_COMPUTED if cost["peak_bytes"] is None else f"{cost['peak_bytes'] / 2**20:.0f} MiB"
    durations = [f"{cost[name] * 1000:.0f} ms" for name in ("seconds", "seconds_cached_style")]
    return [f"{cost['parameters'] / 1e6:.2f} M", f"{cost['macs'] / 1e9:.1f} G", *durations, peak]


def difference_table(results: Mapping[str, Any]) -> Table | None:
    """Paired differences to the first candidate; an interval without 0 means that "better" or "worse" is no chance."""
    rows = []
    for d in results["differences"]:
        median = number(d["median"], d["metric"], "+")
        rows.append([d["b"], title_of(d["metric"]), signed(d, d["metric"]), median, f"{d['better_in']:.0%}", verdict(d)])
    header = ["", "metric", "mean difference [95 % interval]", "median", "better in", ""]
    return Table(f"Paired differences to {results['differences'][0]['a']}", header, rows) if rows else None


def verdict(difference: Mapping[str, Any]) -> str:
    """Better, worse, or undecided."""
    if "low" not in difference:
        return "too few pairs"
    if difference["low"] <= 0 <= difference["high"]:
        return "undecided"
    return "better" if (difference["mean"] > 0) == (difference["metric"] in HIGHER_IS_BETTER) else "worse"


def oracle_table(results: Mapping[str, Any]) -> Table | None:
    """Steps of pixel optimisation that a feed-forward picture is worth. Content and style stand apart."""
    oracle = results["oracle"]
    if not oracle:
        return None
    rows = []
    for name, found in oracle["reached"].items():
        known = [k for k in found["each"] if k is not None]
        spread = f"{min(known)} to {max(known)}" if known else "–"
        medians = (
            f"more than {oracle['iterations']}" if found[key] is None else f"{found[key]:g}"
            for key in ("median", "median_style_alone")
        )
        both, style_alone = medians
        counts = f"{found['n_reached']} of {found['n']}"
        rows.append([name, f"{found['content']:.3f}", f"{found['style']:.3f}", both, spread, counts, style_alone])
    title = (
        f"Oracle: steps of Adam (rate {oracle['lr']:g}, style weight {oracle['style_weight']:g}) on the pixels, from the content image, "
        f"until the style loss is reached at no more content loss; at most {oracle['iterations']}"
    )
    header = ["", "AdaIN target", "style", "median steps", "smallest to largest", "pairs reached", "median, content let go"]
    return Table(title, header, rows)


def frontier_table(results: Mapping[str, Any]) -> Table | None:
    """The area under each model's curve."""
    if not results["frontier"]:
        return None
    rows = [[name, f"{curve['area']:.4f}"] for name, curve in results["frontier"]["curves"].items()]
    return Table("Area under the curve of style over normalised content loss, 0 best, 1 the content copy", ["", "area"], rows)


def model_table(results: Mapping[str, Any]) -> Table:
    """Who took part."""
    rows = []
    for entry in {e["name"]: e for e in results["candidates"] if e["kind"] != "control"}.values():
        facts = entry["facts"]
        trained = f"step {facts['step']}, commit {(facts.get('git_commit') or 'unknown')[:10]}" if "step" in facts else "–"
        rows.append([entry["name"], entry["kind"], facts["path"], facts["sha256"][:12], trained])
    return Table("Who took part", ["", "kind", "path", "sha256", "training"], rows)


def style_tables(results: Mapping[str, Any]) -> list[Table]:
    """Means per style of every rival."""
    names = dict.fromkeys(e["name"] for e in results["candidates"] if e["kind"] != "control")
    return [table for name in names if (table := style_table(name, results["per_style"][name]))]


def style_table(name: str, per_style: Mapping[str, Mapping[str, float]]) -> Table | None:
    """Means per style, the worst by relative style loss, else by the first metric, at the top."""
    metrics = [name for name in next(iter(per_style.values())) if name != "n"]
    if not metrics:
        return None
    key = "style_relative" if "style_relative" in metrics else metrics[0]
    order = sorted(per_style, key=lambda style: per_style[style][key], reverse=True)
    rows = [[style, str(per_style[style]["n"]), *(number(per_style[style][m], m) for m in metrics)] for style in order]
    return Table(f"Means per style of {name}, worst {COLUMNS[key].title} first", ["", "pairs", *map(title_of, metrics)], rows)


def all_tables(results: Mapping[str, Any]) -> list[Table]:
    """Every table that the results have."""
    tables = [metric_table(results, "mean"), metric_table(results, "median"), difference_table(results), oracle_table(results)]
    tables += [frontier_table(results), cost_table(results), model_table(results)]
    return [table for table in tables if table]


def heading(results: Mapping[str, Any]) -> str:
    """The protocol and its numbers, in a line."""
    protocol, pairs = results["protocol"], results["pairs"]
    changed = f" changed by {', '.join(protocol['overrides'])}" if protocol["overrides"] else ""
    counts = f"{pairs['n']} pairs of {pairs['unique_contents']} contents and {pairs['unique_styles']} styles"
    return f"Protocol {protocol['name']}{changed}: {counts}"


def notes(results: Mapping[str, Any]) -> list[str]:
    """What was not computed, and why; metrics that lack the same thing together."""
    by_reason: dict[str, list[str]] = {}
    for name, why in results["not_computed"].items():
        by_reason.setdefault(why, []).append(COLUMNS[name].title if name in COLUMNS else name)
    return [f"{', '.join(names)}: {NOT_COMPUTED}: {why}" for why, names in by_reason.items()]


def markdown(results: Mapping[str, Any]) -> str:
    """All tables and notes as Markdown."""
    parts = [f"## {heading(results)}", *(markdown_table(table) for table in all_tables(results))]
    parts += ["\n".join(f"- {note}" for note in notes(results))] if results["not_computed"] else []
    parts += ["```yaml\n" + protocol_text(results) + "```", provenance(results)]
    return "\n\n".join(parts) + "\n"


def protocol_text(results: Mapping[str, Any]) -> str:
    """Every value of the protocol but tracking and the places of files, and what it leaves no choice in."""
    values = results["protocol"]["values"] | IMPLEMENTATIONS
    return "".join(
        f"{key}: {value}\n" for key, value in values.items() if not key.startswith(("tracking.", "networks.", "judge.weights"))
    )


def provenance(results: Mapping[str, Any]) -> str:
    """Commit, versions and networks, in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    networks = ", ".join(f"{name} {about['sha256'][:12]}" for name, about in results["networks"].items()) or "none"
    return f"Commit {results['git_commit'] or 'unknown'}; networks: {networks}; {results['hardware']}; {versions}."


def markdown_table(table: Table) -> str:
    """One table, the best values bold."""
    rows = [
        [f"**{markdown_text(text)}**" if (i, j) in table.best else markdown_text(text) for j, text in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]
    lines = [[markdown_text(text) for text in table.header], ["---"] * len(table.header), *rows]
    return f"### {table.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown_text(text: str) -> str:
    """Text with Markdown's special characters escaped; an underscore within a word is none."""
    return re.sub(r"([|*<`])", r"\\\1", text)


def latex(results: Mapping[str, Any]) -> str:
    """All tables for LaTeX with booktabs, the best values bold."""
    parts = [latex_table(table, heading(results)) for table in all_tables(results)]
    return "\n".join([f"% {note}" for note in notes(results)] + parts)


def latex_table(table: Table, source: str) -> str:
    """One table."""
    body = [
        [rf"\textbf{{{latex_text(text)}}}" if (i, j) in table.best else latex_text(text) for j, text in enumerate(row)]
        for i, row in enumerate(table.rows)
    ]
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(table.title)}. {latex_text(source)}.}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(latex_text, table.header)) + r" \\", r"\midrule"]
    lines += ["{}" + " & ".join(row) + r" \\" for row in body]  # a row that starts with [ would be an option of \\
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


LATEX_SPECIAL = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "–": "--",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
    "é": r"\'e",
}


def latex_text(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def write_pairs(evaluation: Evaluation, path: Path) -> None:
    """pairs.csv: one row for every picture, all of its metrics."""
    pairs, options = evaluation.pairs, evaluation.scorer.options
    sample = evaluation.store["pair", evaluation.candidates[0].id, None, 0]["values"]
    absent = [name for name in options.names if name in evaluation.scorer.missing and name not in VECTORS_OF]
    with (
        images.replaced_file(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["candidate", "alpha", "content_file", "style_file", *sample, *absent])
        for candidate in evaluation.candidates:
            for alpha in candidate.alphas:
                for i, (c, s) in enumerate(pairs.pairs):
                    values = evaluation.store["pair", candidate.id, alpha, i]["values"]
                    names = pairs.names[pairs.contents[c]], pairs.names[pairs.styles[s]]
                    strength = "" if alpha is None else alpha
                    row = [candidate.name, strength, *names, *(repr(values[name]) for name in sample)]
                    writer.writerow([*row, *(NOT_COMPUTED for _ in absent)])


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    with images.replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")  # a file name may be no Unicode


def write_all(evaluation: Evaluation, results: Mapping[str, Any], folder: Path) -> None:
    """Every output of the evaluation."""
    write_text(folder / "metrics.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_pairs(evaluation, folder / "pairs.csv")
    write_text(folder / "table.md", markdown(results))
    write_text(folder / "table.tex", latex(results))
    pictures = collect_pictures(evaluation, results)
    page = html_page(heading(results), [*all_tables(results), *style_tables(results)], plots(results), pictures, results)
    write_text(folder / "report.html", page)


class Strip(NamedTuple):
    """A row of pictures with captions."""

    title: str
    cells: list[tuple[str, str]]  # (caption, data URI)


def collect_pictures(evaluation: Evaluation, results: Mapping[str, Any], n_examples: int = 6) -> dict[str, list[Strip]]:
    """{heading: strips}: the worst pairs of every candidate by each metric first, then examples with all candidates."""
    uri = PictureUris(evaluation)
    found: dict[str, list[Strip]] = {}
    for candidate in evaluation.candidates:
        for metric, rows in results["worst"].get(candidate.name, {}).items():
            title = f"Worst pairs of {candidate.name} by {title_of(metric)}"
            captions = [f"{metric} {number(row['value'], metric)}" for row in rows]
            found[title] = [
                Strip(f"{row['content']} + {row['style']}", [*uri.inputs(row["pair"]), (caption, uri.of(candidate, row["pair"]))])
                for row, caption in zip(rows, captions)
            ]
    step = max(1, len(evaluation.pairs.pairs) // n_examples)
    rivals = [c for c in evaluation.candidates if c.kind != "control"]
    found["Examples"] = [
        Strip("", [*uri.inputs(i), *((c.name, uri.of(c, i)) for c in rivals)])
        for i in range(0, len(evaluation.pairs.pairs), step)[:n_examples]
    ]
    return found


class PictureUris:
    """Pictures of an evaluation as data URIs, each made once."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation, self.made = evaluation, {}

    def of(self, candidate: Any, number: int) -> str:
        """A candidate's picture at full strength."""
        return self.keep((candidate.id, number), lambda: self.evaluation.picture(candidate, number))

    def inputs(self, number: int) -> list[tuple[str, str]]:
        """The content and the style of a pair, with captions."""
        content, style = self.evaluation.load_pair(number)
        c, s = self.evaluation.pairs.pairs[number]
        return [("content", self.keep(("content", c), lambda: content)), ("style", self.keep(("style", s), lambda: style))]

    def keep(self, key: tuple, make: Callable[[], Tensor]) -> str:
        """The URI under the key."""
        if key not in self.made:
            self.made[key] = data_uri(make())
        return self.made[key]


def data_uri(image: Tensor, px: int = 256) -> str:
    """A picture [1, 3, H, W] for a page: JPEG, longest side at most `px` (the metrics never see it)."""
    picture = images.to_pil(image[0])
    picture.thumbnail((px, px))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def plots(results: Mapping[str, Any]) -> dict[str, str]:
    """{caption: SVG} of everything that can be drawn."""
    drawings: dict[str, Callable[[], str]] = {}
    if results["frontier"]:
        caption = "Style loss over normalised content loss as the strength grows; towards the lower left is better"
        drawings[caption] = lambda: frontier_plot(results)
    if results["oracle"]:
        caption = "Style loss over the steps of the oracle, a line for each pair; the dashed lines are the candidates"
        drawings[caption] = lambda: oracle_plot(results)
    if any("low" in value for entry in results["candidates"] for value in entry["metrics"].values()):
        drawings["Means with 95 % intervals"] = lambda: interval_plot(results)
    return drawn_or_note(drawings)


def drawn_or_note(drawings: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    """{caption: SVG}, or a note in their place where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        return {f"plots: {NOT_COMPUTED}: needs matplotlib ({one_line(error)}); {EXTRAS}": ""}
    mpl.use("svg")
    return {caption: draw() for caption, draw in drawings.items()}


def frontier_plot(results: Mapping[str, Any]) -> str:
    """Every model's curve between the two copies."""

    def draw(axes: Any) -> None:
        for colour, (name, curve) in zip(cycle(), results["frontier"]["curves"].items()):
            x, y = ([point[key] for point in curve["points"]] for key in ("content_norm", "style"))
            axes.plot(x, y, "o-", color=colour, label=f"{name.lstrip('_')} (area {curve['area']:.3f})")
            for point in curve["points"]:
                axes.annotate(f"{point['alpha']:g}", (point["content_norm"], point["style"]), (4, 4), textcoords="offset points")
        for marker, (name, copy) in zip("xs", results["frontier"]["copies"].items()):
            axes.plot(copy["content"], copy["style"], marker, color=INK, label=name, clip_on=False)
        axes.set(xlabel="content loss, normalised per channel", ylabel="style loss", ylim=(0, None), xlim=(0, None))
        axes.legend(frameon=False, labelcolor=INK)

    return figure(draw)


def oracle_plot(results: Mapping[str, Any]) -> str:
    """The oracle's courses."""

    def draw(axes: Any) -> None:
        for course in results["oracle"]["courses"]:
            axes.plot([point[1] for point in course], color=INK, alpha=0.25, linewidth=0.8)
        for colour, (name, found) in zip(cycle(), results["oracle"]["reached"].items()):
            axes.axhline(found["style"], color=colour, linestyle="--", label=name.lstrip("_"))
        axes.set(xlabel="steps", ylabel="style loss", yscale="log")
        axes.legend(frameon=False, labelcolor=INK)

    return figure(draw)


def interval_plot(results: Mapping[str, Any]) -> str:
    """A panel for each metric with intervals, a dot for each candidate."""
    names = [n for n in wanted_columns(results) if any("low" in e["metrics"].get(n, {}) for e in results["candidates"])]
    entries = results["candidates"]

    def draw(panels: Any) -> None:
        for panel, name in zip(np.atleast_1d(panels), names):
            for row, (entry, colour) in enumerate(zip(entries, cycle())):
                value = entry["metrics"][name]
                colour = INK if entry["kind"] == "control" else colour
                panel.plot([value["low"], value["high"]], [row, row], color=colour)
                panel.plot(value["mean"], row, "o", color=colour)
            panel.set_title(COLUMNS[name].title, fontsize=9, color=INK)
            panel.set_yticks(
                range(len(entries)), [label_of(entry) for entry in entries] if name == names[0] else [""] * len(entries)
            )
            panel.invert_yaxis()

    return figure(draw, len(names), (1.6 * len(names) + 2, 0.3 * len(entries) + 1))


def cycle() -> Any:
    """The palette again and again."""
    import itertools

    return itertools.cycle(PALETTE)


def figure(draw: Callable[[Any], None], n_panels: int = 1, size: tuple[float, float] = (7, 4.2)) -> str:
    """An SVG whose ink is the page's own text colour."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ink = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    with mpl.rc_context(
        {
            **ink,
            "svg.hashsalt": "stylenet",
            "font.size": 9,
            "text.parse_math": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        canvas = Figure(size, layout="constrained")
        panels = canvas.subplots(1, n_panels, squeeze=False)[0]
        draw(panels if n_panels > 1 else panels[0])
        stream = io.StringIO()
        canvas.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def html_page(
    title: str,
    tables: Sequence[Table],
    drawn: Mapping[str, str],
    pictures: Mapping[str, Sequence[Strip]],
    results: Mapping[str, Any],
    failed: Sequence[str] = (),
) -> str:
    """The self-contained page; `failed` are what took no part and should have."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(default=True))
    lost = [f"failed, and not in the tables: {name}" for name in failed]
    facts = {"notes": [*lost, *notes(results)], "protocol": protocol_text(results), "provenance": provenance(results)}
    return environment.get_template("report.html").render(title=title, tables=tables, plots=drawn, pictures=pictures, **facts)
