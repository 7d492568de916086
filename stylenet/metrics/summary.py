"""The summary of an evaluation.

It has means with intervals, paired differences, set metrics, oracle, frontier, styles and worst
pairs. The result is plain data, the content of metrics.json. Every other output is written from it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylenet import runtime
from stylenet.metrics import functional, set_formulas
from stylenet.metrics.candidates import Candidate
from stylenet.metrics.catalogue import CATALOGUE, names_of
from stylenet.metrics.functional import Point
from stylenet.metrics.store import unpack
from stylenet.metrics.suite import Evaluation, iterations_to

SCHEMA_VERSION = 1
N_WORST = 3
MIN_FOR_INTERVAL = 6  # pairs; with fewer a bootstrap interval says next to nothing


def summarise(
    evaluation: Evaluation, protocol_name: str, overrides: Sequence[str]
) -> dict[str, Any]:
    """The whole result, ready for JSON."""
    scorer, pairs = evaluation.scorer, evaluation.pairs
    n_unique = [len({pair[k] for pair in pairs.pairs}) for k in (0, 1)]
    # The other overrides change no number.
    relevant = tuple(
        name
        for name in overrides
        if not name.removeprefix("--").startswith(("tracking.", "networks."))
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": {
            "name": protocol_name,
            "overrides": list(relevant),
            "values": evaluation.protocol.to_flat(),
        },
        "pairs": {
            "n": len(pairs.pairs),
            "unique_contents": n_unique[0],
            "unique_styles": n_unique[1],
            "sets": pairs.origins,
        },
        "settings": evaluation.settings,
        "seed": evaluation.protocol.pairs.seed,
        "networks": scorer.networks,
        "not_computed": dict(scorer.missing),
        "git_commit": runtime.git_commit(),
        "versions": runtime.versions(),
        "hardware": runtime.hardware(scorer.device),
        "candidates": [
            entry for c in evaluation.candidates for entry in describe_candidate(evaluation, c)
        ],
        "differences": differences(evaluation),
        "oracle": oracle(evaluation),
        "frontier": frontier(evaluation),
        "per_style": {c.name: per_style(evaluation, c) for c in evaluation.candidates},
        "worst": {
            c.name: worst(evaluation, c) for c in evaluation.candidates if c.kind != "control"
        },
    }


def describe_candidate(evaluation: Evaluation, candidate: Candidate) -> list[dict[str, Any]]:
    """One entry for each strength: the candidate and its metrics."""
    key = ("cost", candidate.id, runtime.hardware(evaluation.scorer.device))
    cost = evaluation.store.rows.get(key, {}).get("cost")
    identity = {
        "name": candidate.name,
        "kind": candidate.kind,
        "facts": candidate.facts,
        "efficiency": cost,
    }
    return [
        identity
        | {
            "alpha": alpha,
            "metrics": pair_metrics(evaluation, candidate, alpha)
            | set_metrics(evaluation, candidate, alpha),
        }
        for alpha in candidate.alphas
    ]


def columns(
    evaluation: Evaluation, candidate: Candidate, alpha: float | None
) -> dict[str, list[float]]:
    """{metric: its value for each pair, in the pairs' order}."""
    rows = [
        evaluation.store["pair", candidate.id, alpha, i]["values"]
        for i in range(len(evaluation.pairs.pairs))
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def pair_metrics(
    evaluation: Evaluation, candidate: Candidate, alpha: float | None
) -> dict[str, dict[str, float]]:
    """Mean, 95 % interval and median of each metric over the pairs."""
    options = evaluation.scorer.options
    metrics = {}
    for name, values in columns(evaluation, candidate, alpha).items():
        interval = mean_with_interval(values, options.bootstrap, evaluation.protocol.pairs.seed)
        metrics[name] = interval | {"median": statistics.median(values), "n": len(values)}
    return metrics


def mean_with_interval(values: Sequence[float], n_resamples: int, seed: int) -> dict[str, float]:
    """The mean and, if there are enough values, the ends of its 95 % interval."""
    interval = functional.bootstrap(values, n_resamples, seed)._asdict()
    return interval if len(values) >= MIN_FOR_INTERVAL else {"mean": interval["mean"]}


def set_metrics(
    evaluation: Evaluation, candidate: Candidate, alpha: float | None
) -> dict[str, dict[str, float]]:
    """FID, KID, ArtFID and the VGG Fréchet distance.

    Each compares all pictures with their styles; every style counts once.
    """
    # A style of many pairs is one picture, so it counts once.
    styles = sorted({pair[1] for pair in evaluation.pairs.pairs})
    pairs, options, seed = (
        columns(evaluation, candidate, alpha),
        evaluation.scorer.options,
        evaluation.protocol.pairs.seed,
    )
    metrics = {}
    for name in (name for name in names_of("set") if evaluation.scorer.wants(name)):
        output_vectors = vectors(
            evaluation,
            [("pair", candidate.id, alpha, i) for i in range(len(evaluation.pairs.pairs))],
            name,
        )
        style_vectors = vectors(evaluation, [("style", number) for number in styles], name)
        value = getattr(set_formulas, name)(output_vectors, style_vectors, pairs, options, seed)
        metrics[name] = {"mean": value, "n": len(output_vectors), "n_styles": len(styles)}
    return metrics


def vectors(evaluation: Evaluation, keys: Sequence[tuple], metric: str) -> Tensor:
    """The vectors of the rows under these keys, [N, D]."""
    return torch.stack(
        [unpack(evaluation.store[key]["vectors"][CATALOGUE[metric].vectors]) for key in keys]
    )


def rivals(evaluation: Evaluation) -> list[Candidate]:
    """The candidates in the comparison: all but the controls."""
    return [c for c in evaluation.candidates if c.kind != "control"]


def differences(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The paired differences of every other rival to the first, at full strength.

    Each has a 95 % interval.
    """
    first, *others = rivals(evaluation) or [None]  # without rivals no others either
    entries = []
    for other in others:
        base, own = (columns(evaluation, c, c.alphas[-1]) for c in (first, other))
        for name in (name for name in own if "/" not in name):  # no single layers
            entries.append(
                {"metric": name, "a": first.name, "b": other.name}
                | difference(base[name], own[name], name, evaluation)
            )
    return entries


def difference(
    base: Sequence[float], own: Sequence[float], metric: str, evaluation: Evaluation
) -> dict[str, float]:
    """The mean of own - base with its interval, and the median.

    `better_in` is the share of pairs where own is better.
    """
    gaps = np.subtract(own, base)  # [pairs]; the pairing removes what both have in common
    seed, n = evaluation.protocol.pairs.seed, evaluation.scorer.options.bootstrap
    is_better = gaps > 0 if CATALOGUE[metric].higher_is_better else gaps < 0
    details = {
        "median": float(np.median(gaps)),
        "better_in": float(is_better.mean()),
        "n": len(gaps),
    }
    return mean_with_interval(gaps, n, seed) | details


def oracle(evaluation: Evaluation) -> dict[str, Any] | None:
    """The number of pixel optimisation steps that reach each candidate's style loss.

    The content loss must be no higher than the candidate's.
    """
    numbers = evaluation.oracle_pairs()
    if not numbers:
        return None
    courses = {number: evaluation.store["oracle", number]["course"] for number in numbers}
    reached = {c.name: reach(evaluation, c, courses) for c in rivals(evaluation)}
    options = evaluation.protocol.oracle
    settings = {
        "iterations": options.iterations,
        "lr": options.lr,
        "style_weight": options.style_weight,
        "start": "content image",
    }
    return settings | {"pairs": numbers, "courses": list(courses.values()), "reached": reached}


def reach(evaluation: Evaluation, candidate: Candidate, courses: dict[int, list]) -> dict[str, Any]:
    """The steps for each pair (None: not within the limit) and their median.

    A second count ignores the content loss.
    """
    goals = {number: evaluation.goal(candidate, number) for number in courses}
    each = [iterations_to(courses[number], goal) for number, goal in goals.items()]
    # An infinite content goal is always met.
    style_alone = [
        iterations_to(courses[number], goal._replace(content=math.inf))
        for number, goal in goals.items()
    ]
    losses = {
        name: statistics.fmean(getattr(goal, name) for goal in goals.values())
        for name in Point._fields
    }
    counts = {"n_reached": sum(k is not None for k in each), "n": len(each)}
    medians = {"median": median_steps(each), "median_style_alone": median_steps(style_alone)}
    return {"each": each, "each_style_alone": style_alone} | medians | counts | losses


def median_steps(each: Sequence[int | None]) -> float | None:
    """The median; a None counts as more than the limit, and so may the median."""
    median = statistics.median(math.inf if k is None else k for k in each)
    # JSON has no infinity.
    return None if math.isinf(median) else median


def frontier(evaluation: Evaluation) -> dict[str, Any] | None:
    """The curve of each model with several strengths, and the area under it.

    The curve leads from content to style.
    """
    several = [c for c in rivals(evaluation) if len(c.alphas) > 1]
    if not several or not (
        evaluation.scorer.wants("content_norm") and evaluation.scorer.wants("style")
    ):
        return None
    # content copy first, then style copy: the ends of every curve
    copies = [point_of(evaluation, c, None) for c in evaluation.candidates if c.kind == "control"]
    curves = {}
    for candidate in several:
        points = [point_of(evaluation, candidate, alpha) for alpha in candidate.alphas]
        rows = [
            {"alpha": a, "content_norm": p.content, "style": p.style}
            for a, p in zip(candidate.alphas, points)
        ]
        curves[candidate.name] = {"points": rows, "area": functional.frontier_area(points, *copies)}
    ends = dict(zip(("content copy", "style copy"), (copy._asdict() for copy in copies)))
    return {"curves": curves, "copies": ends}


def point_of(evaluation: Evaluation, candidate: Candidate, alpha: float | None) -> Point:
    """The mean normalised content loss and the mean style loss."""
    values = columns(evaluation, candidate, alpha)
    return Point(statistics.fmean(values["content_norm"]), statistics.fmean(values["style"]))


def per_style(evaluation: Evaluation, candidate: Candidate) -> dict[str, dict[str, float]]:
    """{style: means over its pairs at full strength}."""
    pairs, values = evaluation.pairs, columns(evaluation, candidate, candidate.alphas[-1])
    means_by_style = {}
    for style in sorted({pair[1] for pair in pairs.pairs}):
        chosen = [i for i, pair in enumerate(pairs.pairs) if pair[1] == style]
        means = {
            name: statistics.fmean(column[i] for i in chosen)
            for name, column in values.items()
            if "/" not in name
        }
        means_by_style[pairs.names[1][style]] = {"n": len(chosen)} | means
    return means_by_style


def worst(evaluation: Evaluation, candidate: Candidate) -> dict[str, list[dict[str, Any]]]:
    """{metric: the candidate's worst pairs, worst first}."""
    pairs, values = evaluation.pairs, columns(evaluation, candidate, candidate.alphas[-1])
    worst_pairs = {}
    for name in (name for name in values if "/" not in name):
        order = sorted(
            range(len(values[name])),
            key=lambda i: values[name][i],
            reverse=not CATALOGUE[name].higher_is_better,  # the worst value first
        )
        worst_pairs[name] = [
            {
                "pair": i,
                **dict(zip(("content", "style"), pairs.names_of(pairs.pairs[i]), strict=True)),
                "value": values[name][i],
            }
            for i in order[:N_WORST]
        ]
    return worst_pairs
