"""The results of an evaluation as tables, and tables as Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stylenet.metrics.catalogue import CATALOGUE, best_of
from stylenet.metrics.extractors import IMPLEMENTATIONS

NOT_COMPUTED = "not computed"
COST_TITLES = ("parameters", "MACs", "latency", "latency, cached style", "peak memory")


class Table(NamedTuple):
    """A table as text."""

    title: str
    header: list[str]
    rows: list[list[str]]
    best: frozenset[tuple[int, int]] = frozenset()  # (row, column) of the best value of a column


def label_of(entry: Mapping[str, Any]) -> str:
    """A candidate's name with its strength."""
    return entry["name"] if entry["alpha"] is None else f"{entry['name']}, alpha {entry['alpha']:g}"


def heading_of(metric: str) -> str:
    """A column's title with an arrow in the direction of better values."""
    return CATALOGUE[metric].heading


def wanted_columns(results: Mapping[str, Any]) -> list[str]:
    """The metrics of the protocol, in the order of the tables."""
    return [name for name in CATALOGUE if name in results["protocol"]["values"]["metrics.names"]]


def metric_table(results: Mapping[str, Any], statistic: str) -> Table:
    """Candidates against metrics: `mean` with its interval, or `median`.

    The best rival's value is marked.
    """
    names, entries = wanted_columns(results), results["candidates"]
    rows = [
        [label_of(e), *(cell(e["metrics"].get(name), name, statistic) for name in names)]
        for e in entries
    ]
    title = (
        "Mean over the pairs [95 % interval]" if statistic == "mean" else "Median over the pairs"
    )
    return Table(title, ["", *map(heading_of, names)], rows, best_cells(entries, names, statistic))


def number(value: float, metric: str, sign: str = "") -> str:
    """A metric's value with its number of digits.

    A value that would read as zero has two significant digits instead.
    """
    digits = CATALOGUE[metric].digits
    # Below half a unit of the last digit all digits would be 0.
    return (
        f"{value:{sign}.1e}" if 0 < abs(value) < 0.5 * 10**-digits else f"{value:{sign}.{digits}f}"
    )


def signed(difference: Mapping[str, float], metric: str) -> str:
    """A mean difference with its interval, if it has one."""
    shown = {
        key: number(difference[key], metric, "+")
        for key in ("mean", "low", "high")
        if key in difference
    }
    return f"{shown['mean']} [{shown['low']}, {shown['high']}]" if "low" in shown else shown["mean"]


def cell(value: Mapping[str, float] | None, metric: str, statistic: str) -> str:
    """A number; a mean also has its interval, if there is one."""
    if value is None:
        return NOT_COMPUTED
    if statistic not in value:
        return "–"
    has_interval = statistic == "mean" and "low" in value
    interval = (
        f" [{number(value['low'], metric)}, {number(value['high'], metric)}]"
        if has_interval
        else ""
    )
    return number(value[statistic], metric) + interval


def best_cells(
    entries: Sequence[Mapping[str, Any]], names: Sequence[str], statistic: str
) -> frozenset[tuple[int, int]]:
    """The (row, column) of the best value of each column.

    Only rivals at their full strength count. A single rival is not marked.
    """
    cells = set()
    # A model has an entry for each strength; the last one wins.
    last = {e["name"]: i for i, e in enumerate(entries) if e["kind"] != "control"}
    rivals = list(last.values())
    # column 0 holds the names
    for column, name in enumerate(names, start=1):
        values = {i: entries[i]["metrics"].get(name, {}).get(statistic) for i in rivals}
        known = {i: value for i, value in values.items() if value is not None}
        if len(known) > 1:
            pick = best_of(name)
            cells.add((pick(known, key=known.__getitem__), column))
    return frozenset(cells)


def cost_table(results: Mapping[str, Any]) -> Table | None:
    """The cost of the models; None if the protocol does not ask for it."""
    if "efficiency" not in results["protocol"]["values"]["metrics.names"]:
        return None
    rows = []
    for entry in {e["name"]: e for e in results["candidates"] if e["kind"] != "control"}.values():
        cost = entry["efficiency"]
        rows.append(
            [
                entry["name"],
                *(
                    cost_cells(cost)
                    if cost
                    else [f"{NOT_COMPUTED}: only pictures came"] * len(COST_TITLES)
                ),
            ]
        )
    # All costs come from the same size and machine.
    known = next((e["efficiency"] for e in results["candidates"] if e["efficiency"]), None)
    where = f" at {known['px']} x {known['px']} on {known['hardware']}, float32" if known else ""
    return Table(f"Cost of one picture{where}", ["", *COST_TITLES], rows) if rows else None


def cost_cells(cost: Mapping[str, Any]) -> list[str]:
    """The parts of a cost with their units."""
    peak = NOT_COMPUTED if cost["peak_bytes"] is None else f"{cost['peak_bytes'] / 2**20:.0f} MiB"
    durations = [f"{cost[name] * 1000:.0f} ms" for name in ("seconds", "seconds_cached_style")]
    return [f"{cost['parameters'] / 1e6:.2f} M", f"{cost['macs'] / 1e9:.1f} G", *durations, peak]


def difference_table(results: Mapping[str, Any]) -> Table | None:
    """Paired differences to the first candidate; None if there are none.

    Only an interval without 0 counts as "better" or "worse".
    """
    rows = []
    for d in results["differences"]:
        median = number(d["median"], d["metric"], "+")
        rows.append(
            [
                d["b"],
                heading_of(d["metric"]),
                signed(d, d["metric"]),
                median,
                f"{d['better_in']:.0%}",
                verdict(d),
            ]
        )
    header = ["", "metric", "mean difference [95 % interval]", "median", "better in", ""]
    return (
        Table(f"Paired differences to {results['differences'][0]['a']}", header, rows)
        if rows
        else None
    )


def verdict(difference: Mapping[str, Any]) -> str:
    """Better, worse, undecided or too few pairs."""
    if "low" not in difference:
        return "too few pairs"
    if difference["low"] <= 0 <= difference["high"]:
        return "undecided"
    # A positive difference is good exactly if higher is better.
    return (
        "better"
        if (difference["mean"] > 0) == CATALOGUE[difference["metric"]].higher_is_better
        else "worse"
    )


def oracle_table(results: Mapping[str, Any]) -> Table | None:
    """Steps of pixel optimisation that reach a feed-forward picture; None without an oracle.

    Content loss and style loss have a column each.
    """
    oracle = results["oracle"]
    if not oracle:
        return None
    rows = []
    for name, reach in oracle["reached"].items():
        known = [k for k in reach["each"] if k is not None]
        spread = f"{min(known)} to {max(known)}" if known else "–"
        medians = (
            # None: the median pair did not get there
            f"more than {oracle['iterations']}" if reach[key] is None else f"{reach[key]:g}"
            for key in ("median", "median_style_alone")
        )
        both, style_alone = medians
        counts = f"{reach['n_reached']} of {reach['n']}"
        rows.append(
            [
                name,
                f"{reach['content']:.3f}",
                f"{reach['style']:.3f}",
                both,
                spread,
                counts,
                style_alone,
            ]
        )
    title = (
        f"Oracle: steps of Adam (rate {oracle['lr']:g}, style weight {oracle['style_weight']:g}) "
        "on the pixels, from the content image, "
        f"until the style loss is reached at no more content loss; at most {oracle['iterations']}"
    )
    header = [
        "",
        "AdaIN target",
        "style",
        "median steps",
        "smallest to largest",
        "pairs reached",
        "median, content let go",
    ]
    return Table(title, header, rows)


def frontier_table(results: Mapping[str, Any]) -> Table | None:
    """The area under each model's curve; None without a frontier."""
    if not results["frontier"]:
        return None
    rows = [[name, f"{curve['area']:.4f}"] for name, curve in results["frontier"]["curves"].items()]
    return Table(
        "Area under the curve of style over normalised content loss, 0 best, 1 the content copy",
        ["", "area"],
        rows,
    )


def model_table(results: Mapping[str, Any]) -> Table:
    """The candidates with path, sha256 and training."""
    rows = []
    for entry in {e["name"]: e for e in results["candidates"] if e["kind"] != "control"}.values():
        facts = entry["facts"]
        trained = (
            f"step {facts['step']}, commit {(facts.get('git_commit') or 'unknown')[:10]}"
            if "step" in facts
            else "–"
        )
        rows.append([entry["name"], entry["kind"], facts["path"], facts["sha256"][:12], trained])
    return Table("Who took part", ["", "kind", "path", "sha256", "training"], rows)


def style_tables(results: Mapping[str, Any]) -> list[Table]:
    """A table of means per style for each rival."""
    names = dict.fromkeys(e["name"] for e in results["candidates"] if e["kind"] != "control")
    return [table for name in names if (table := style_table(name, results["per_style"][name]))]


def style_table(name: str, per_style: Mapping[str, Mapping[str, float]]) -> Table | None:
    """Means per style, the worst style at the top; None without metrics.

    The order is by relative style loss, else by the first metric.
    """
    # "n" is the number of pairs; every style has the same metrics.
    metrics = [name for name in next(iter(per_style.values())) if name != "n"]
    if not metrics:
        return None
    key = "style_relative" if "style_relative" in metrics else metrics[0]
    order = sorted(per_style, key=lambda style: per_style[style][key], reverse=True)
    rows = [
        [style, str(per_style[style]["n"]), *(number(per_style[style][m], m) for m in metrics)]
        for style in order
    ]
    return Table(
        f"Means per style of {name}, worst {CATALOGUE[key].title} first",
        ["", "pairs", *map(heading_of, metrics)],
        rows,
    )


def all_tables(results: Mapping[str, Any]) -> list[Table]:
    """The tables that the results have."""
    tables = [
        metric_table(results, "mean"),
        metric_table(results, "median"),
        difference_table(results),
        oracle_table(results),
    ]
    tables += [frontier_table(results), cost_table(results), model_table(results)]
    return [table for table in tables if table]


def heading(results: Mapping[str, Any]) -> str:
    """The protocol and its numbers of pairs, in one line."""
    protocol, pairs = results["protocol"], results["pairs"]
    changed = f" changed by {', '.join(protocol['overrides'])}" if protocol["overrides"] else ""
    counts = (
        f"{pairs['n']} pairs of {pairs['unique_contents']} contents and "
        f"{pairs['unique_styles']} styles"
    )
    return f"Protocol {protocol['name']}{changed}: {counts}"


def title(results: Mapping[str, Any]) -> str:
    """The question of an evaluation: what its rivals are compared in."""
    names = [entry["name"] for entry in results["candidates"] if entry["kind"] != "control"]
    rivals = list(dict.fromkeys(names)) or ["the copies"]
    first, last = ", ".join(rivals[:-1]), rivals[-1]
    return f"How well does {last} stylise?" if not first else f"Which is best: {first} or {last}?"


def summary_lines(results: Mapping[str, Any]) -> list[str]:
    """For each metric the best rival at full strength, by how much, and how certain that is."""
    full = {entry["name"]: entry for entry in results["candidates"] if entry["kind"] != "control"}
    lines = []
    for name in wanted_columns(results):
        means = {
            rival: entry["metrics"][name]["mean"]
            for rival, entry in full.items()
            if name in entry["metrics"]
        }
        if len(means) < 2:
            continue
        ordered = sorted(means, key=means.get, reverse=CATALOGUE[name].higher_is_better)
        values = ", ".join(f"{rival} {number(means[rival], name)}" for rival in ordered)
        certainty = certainty_of(results, name, *ordered[:2])
        lines.append(f"{CATALOGUE[name].title}: {ordered[0]} is best ({values}){certainty}.")
    return lines


def certainty_of(results: Mapping[str, Any], metric: str, best: str, second: str) -> str:
    """What the paired difference of two rivals says, where one of them is the first candidate."""
    for d in results["differences"]:
        if d["metric"] == metric and {d["a"], d["b"]} == {best, second}:
            if "low" not in d:
                return "; too few pairs to be certain"
            is_certain = verdict(d) in ("better", "worse")
            return f"; {'certain' if is_certain else 'not certain'} over the pairs"
    return ""


def meanings(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(heading, one sentence) of every metric in the tables."""
    return [(heading_of(name), CATALOGUE[name].meaning) for name in wanted_columns(results)]


def notes(results: Mapping[str, Any]) -> list[str]:
    """A line for each reason why metrics were not computed, with their names."""
    by_reason: dict[str, list[str]] = {}  # metrics that lack the same thing share a line
    for name, why in results["not_computed"].items():
        by_reason.setdefault(why, []).append(CATALOGUE[name].title if name in CATALOGUE else name)
    return [f"{', '.join(names)}: {NOT_COMPUTED}: {why}" for why, names in by_reason.items()]


def markdown(results: Mapping[str, Any]) -> str:
    """All tables and notes as Markdown."""
    parts = [f"## {heading(results)}", *(markdown_table(table) for table in all_tables(results))]
    parts += ["\n".join(f"- {note}" for note in notes(results))] if results["not_computed"] else []
    parts += ["```yaml\n" + protocol_text(results) + "```", provenance(results)]
    return "\n\n".join(parts) + "\n"


def protocol_text(results: Mapping[str, Any]) -> str:
    """The values of the protocol, without tracking and places of files.

    The fixed properties of the implementations are included.
    """
    values = results["protocol"]["values"] | IMPLEMENTATIONS
    return "".join(
        f"{key}: {value}\n"
        for key, value in values.items()
        if not key.startswith(("tracking.", "networks.", "judge.weights"))
    )


def provenance(results: Mapping[str, Any]) -> str:
    """Commit, versions and networks, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    networks = (
        ", ".join(f"{name} {facts['sha256'][:12]}" for name, facts in results["networks"].items())
        or "none"
    )
    return (
        f"Commit {results['git_commit'] or 'unknown'}; networks: {networks}; "
        f"{results['hardware']}; {versions}."
    )


def markdown_table(table: Table) -> str:
    """A table as Markdown, the best values in bold."""
    rows = [
        [
            f"**{markdown_text(text)}**" if (i, j) in table.best else markdown_text(text)
            for j, text in enumerate(row)
        ]
        for i, row in enumerate(table.rows)
    ]
    lines = [[markdown_text(text) for text in table.header], ["---"] * len(table.header), *rows]
    return f"### {table.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown_text(text: str) -> str:
    """Text with Markdown's special characters escaped; an underscore in a word is not special."""
    return re.sub(r"([|*<`])", r"\\\1", text)


def latex(results: Mapping[str, Any]) -> str:
    """All tables and notes for LaTeX with booktabs, the best values in bold."""
    parts = [latex_table(table, heading(results)) for table in all_tables(results)]
    return "\n".join([f"% {note}" for note in notes(results)] + parts)


def latex_table(table: Table, source: str) -> str:
    """A table for LaTeX."""
    body = [
        [
            rf"\textbf{{{latex_text(text)}}}" if (i, j) in table.best else latex_text(text)
            for j, text in enumerate(row)
        ]
        for i, row in enumerate(table.rows)
    ]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(table.title)}. {latex_text(source)}.}}",
    ]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(latex_text, table.header)) + r" \\", r"\midrule"]
    # "{}": a row that starts with [ would be read as an option of the \\ before it.
    lines += ["{}" + " & ".join(row) + r" \\" for row in body]
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
