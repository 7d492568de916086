"""The results of an evaluation as SVG plots in the page's own text colour."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from stylenet.errors import one_line
from stylenet.metrics.catalogue import CATALOGUE
from stylenet.metrics.extractors import EXTRAS
from stylenet.metrics.tables import NOT_COMPUTED, label_of, wanted_columns

INK = "#010203"  # stands for the page's own text colour in a plot
# Legible on a light and on a dark page.
PALETTE = (
    "#3b82f6",
    "#ef4444",
    "#10b981",
    "#f59e0b",
    "#8b5cf6",
    "#06b6d4",
    "#ec4899",
    "#84cc16",
)


def plots(results: Mapping[str, Any]) -> dict[str, str]:
    """{caption: SVG} of everything that can be drawn."""
    drawings: dict[str, Callable[[], str]] = {}
    if results["frontier"]:
        caption = (
            "Style loss over normalised content loss as the strength grows; towards the "
            "lower left is better"
        )
        drawings[caption] = lambda: frontier_plot(results)
    if results["oracle"]:
        caption = (
            "Style loss over the steps of the oracle, a line for each pair; the dashed "
            "lines are the candidates"
        )
        drawings[caption] = lambda: oracle_plot(results)
    if any(
        "low" in value for entry in results["candidates"] for value in entry["metrics"].values()
    ):
        drawings["Means with 95 % intervals"] = lambda: interval_plot(results)
    return drawn_or_note(drawings)


def drawn_or_note(drawings: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    """{caption: SVG}; without matplotlib a note takes the place of all plots."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        return {f"plots: {NOT_COMPUTED}: needs matplotlib ({one_line(error)}); {EXTRAS}": ""}
    mpl.use("svg")
    return {caption: draw() for caption, draw in drawings.items()}


def frontier_plot(results: Mapping[str, Any]) -> str:
    """Each model's curve between the two copies."""

    def draw(axes: Any) -> None:
        for colour, (name, curve) in zip(cycle(), results["frontier"]["curves"].items()):
            x, y = ([point[key] for point in curve["points"]] for key in ("content_norm", "style"))
            axes.plot(
                x, y, "o-", color=colour, label=f"{name.lstrip('_')} (area {curve['area']:.3f})"
            )
            for point in curve["points"]:  # each with its strength beside it
                axes.annotate(
                    f"{point['alpha']:g}",
                    (point["content_norm"], point["style"]),
                    (4, 4),
                    textcoords="offset points",
                )
        for marker, (name, copy) in zip("xs", results["frontier"]["copies"].items()):
            axes.plot(copy["content"], copy["style"], marker, color=INK, label=name, clip_on=False)
        axes.set(
            xlabel="content loss, normalised per channel",
            ylabel="style loss",
            ylim=(0, None),
            xlim=(0, None),
        )
        axes.legend(frameon=False, labelcolor=INK)

    return figure(draw)


def oracle_plot(results: Mapping[str, Any]) -> str:
    """The style loss over the oracle's steps, a line for each pair."""

    def draw(axes: Any) -> None:
        for course in results["oracle"]["courses"]:
            # point: (content loss, style loss)
            axes.plot([point[1] for point in course], color=INK, alpha=0.25, linewidth=0.8)
        for colour, (name, losses) in zip(cycle(), results["oracle"]["reached"].items()):
            axes.axhline(losses["style"], color=colour, linestyle="--", label=name.lstrip("_"))
        axes.set(xlabel="steps", ylabel="style loss")
        use_log_scale(axes)
        axes.legend(frameon=False, labelcolor=INK)

    return figure(draw)


def interval_plot(results: Mapping[str, Any]) -> str:
    """A panel for each metric with intervals, with a dot for each candidate."""
    names = [
        n
        for n in wanted_columns(results)
        if any("low" in e["metrics"].get(n, {}) for e in results["candidates"])
    ]
    entries = results["candidates"]

    def draw(panels: Any) -> None:
        for panel, name in zip(np.atleast_1d(panels), names):  # a single panel comes bare
            for row, (entry, colour) in enumerate(zip(entries, cycle())):
                value = entry["metrics"][name]
                colour = INK if entry["kind"] == "control" else colour
                panel.plot([value["low"], value["high"]], [row, row], color=colour)
                panel.plot(value["mean"], row, "o", color=colour)
            panel.set_title(CATALOGUE[name].title, fontsize=9, color=INK)
            panel.set_yticks(
                range(len(entries)),
                [label_of(entry) for entry in entries] if name == names[0] else [""] * len(entries),
            )
            panel.invert_yaxis()  # the first candidate at the top, as in the tables

    return figure(draw, len(names), (1.6 * len(names) + 2, 0.3 * len(entries) + 1))


def use_log_scale(axes: Any) -> None:
    """A logarithmic y axis with plain numbers; the library's own are in its mathematical markup."""
    from matplotlib.ticker import FuncFormatter, LogFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    # between powers of ten only where few of these are in sight
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))


def cycle() -> Iterator[str]:
    """The palette, repeated without end."""
    return itertools.cycle(PALETTE)


def figure(
    draw: Callable[[Any], None], n_panels: int = 1, size: tuple[float, float] = (7, 4.2)
) -> str:
    """An SVG of the panels that `draw` fills, in the page's own text colour."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ink = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    )
    with mpl.rc_context(
        {
            **ink,
            "svg.hashsalt": "stylenet",  # fixed ids: equal results give equal files
            "font.size": 9,
            "text.parse_math": False,  # a name may contain a $
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
