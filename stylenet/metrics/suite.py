"""An evaluation: every pair scored for every candidate, the oracle and the costs.

Every score becomes a line in the output folder as soon as it is known. Its name covers all settings
that it depends on. So a restarted evaluation continues, processes share the pairs, and a changed
setting starts again from nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from stylenet import images, runtime
from stylenet.applying.optimise import Course
from stylenet.errors import DataError, WeightsError
from stylenet.losses import LossWeights
from stylenet.metrics.candidates import Candidate, Model, measure_cost
from stylenet.metrics.formulas import Description
from stylenet.metrics.functional import Point
from stylenet.metrics.pairs import Pairs, load_picture
from stylenet.metrics.scorer import Scorer
from stylenet.metrics.store import Store, pack
from stylenet.objective import Objective
from stylenet.progress import shown
from stylenet.transforms import ADAIN

if TYPE_CHECKING:
    from stylenet.config.protocol import Protocol


class Evaluation:
    """An evaluation scores each pair, oracle course and model cost once."""

    def __init__(
        self,
        protocol: Protocol,
        pairs: Pairs,
        candidates: Sequence[Candidate],
        scorer: Scorer,
        folder: Path,
        n_oracle: int = 0,
    ) -> None:
        self.protocol, self.pairs, self.candidates, self.scorer = (
            protocol,
            pairs,
            candidates,
            scorer,
        )
        self.n_oracle, self.settings = n_oracle, settings_name(protocol, pairs, scorer)
        self.store = Store(folder, self.settings)
        # The oracle minimises these two losses, so the judge must provide them.
        absent = [name for name in ("target", "style") if n_oracle and not scorer.wants(name)]
        if absent:
            raise WeightsError(
                f"expected the judge for --oracle, but {absent[0]} is "
                f"{scorer.missing.get(absent[0], 'left out')}"
            )

    def score_all(self) -> None:
        """Score this process's share of the pairs."""
        share = range(runtime.rank(), len(self.pairs.pairs), runtime.world_size())
        # The pairs come in the contents' order: one content and several styles stay in memory.
        self.content = functools.lru_cache(maxsize=1)(
            lambda i: self.describe(self.pairs.contents[i])
        )
        self.style = functools.lru_cache(maxsize=16)(lambda i: self.describe(self.pairs.styles[i]))
        for number in shown(share, len(share), "pair", runtime.is_main()):
            style = ("style", self.pairs.pairs[number][1])
            if style not in self.store:
                self.store.add(style, vectors=pack(self.style(style[1]).vectors))
            for candidate in self.candidates:
                for alpha in candidate.alphas:
                    if ("pair", candidate.id, alpha, number) not in self.store:
                        self.score_one(candidate, alpha, number)

    def score_one(self, candidate: Candidate, alpha: float | None, number: int) -> None:
        """Score a candidate's picture of a pair, and store the score."""
        pair = self.pairs.pairs[number]
        content, style = self.content(pair[0]), self.style(pair[1])
        picture = candidate.picture(self.pairs, pair, content.image, style.image, alpha)
        # A control returns an input, which is described already.
        known = {id(content.image): content, id(style.image): style}
        output = known.get(id(picture)) or self.scorer.describe(images.quantised(picture))
        values = self.scorer.score(output, content, style)
        check_finite(values, candidate, self.pairs, pair)
        self.store.add(
            ("pair", candidate.id, alpha, number), values=values, vectors=pack(output.vectors)
        )

    def describe(self, path: Path) -> Description:
        """The description of a content or a style file."""
        return self.scorer.describe(load_picture(path, self.protocol))

    def load_pair(self, number: int) -> tuple[Tensor, Tensor]:
        """The content and the style of a pair, as the protocol prepares them."""
        c, s = self.pairs.pairs[number]
        return load_picture(self.pairs.contents[c], self.protocol), load_picture(
            self.pairs.styles[s], self.protocol
        )

    def picture(self, candidate: Candidate, number: int) -> Tensor:
        """A candidate's picture of a pair at its full strength."""
        pair, inputs = self.pairs.pairs[number], self.load_pair(number)
        return images.quantised(candidate.picture(self.pairs, pair, *inputs, candidate.alphas[-1]))

    def pair_table(self, n_pictures: int = 20) -> tuple[list[str], list[list[Any]]]:
        """Header and rows of all rivals' scores at full strength.

        The first `n_pictures` pairs of each rival have the pictures of content, style and output.
        """
        rows, names = [], []
        for candidate in (c for c in self.candidates if c.kind != "control"):
            for i, (c, s) in enumerate(self.pairs.pairs):
                values = self.store["pair", candidate.id, candidate.alphas[-1], i]["values"]
                names = list(values)
                pictures = (
                    [*self.load_pair(i), self.picture(candidate, i)]
                    if i < n_pictures
                    else [None] * 3
                )
                labels = [
                    candidate.name,
                    candidate.alphas[-1],
                    *self.pairs.names_of((c, s)),
                ]
                rows.append([*labels, *pictures, *values.values()])
        header = ["candidate", "alpha", "content file", "style file", "content", "style", "output"]
        return [*header, *(f"metric/{name}" for name in names)], rows

    def oracle_pairs(self) -> list[int]:
        """The numbers of the pairs that the oracle optimises, spread evenly."""
        n = min(self.n_oracle, len(self.pairs.pairs))
        return (
            sorted({int(i) for i in np.linspace(0, len(self.pairs.pairs) - 1, n).round()})
            if n
            else []
        )

    def run_oracle(self) -> None:
        """Optimise this process's share of the oracle's pairs.

        A course ends when every model is reached, or at the last iteration.
        """
        share = self.oracle_pairs()[runtime.rank() :: runtime.world_size()]
        for number in shown(share, len(share), "oracle pair", runtime.is_main() and bool(share)):
            goals = [
                self.goal(candidate, number)
                for candidate in self.candidates
                if candidate.kind != "control"
            ]
            stored_course = self.store.rows.get(("oracle", number), {}).get("course", [])
            if not is_enough(stored_course, goals, self.protocol.oracle.iterations):
                course: list[Point] = []
                for point in self.optimise(number):
                    course.append(point)
                    if is_enough(course, goals, self.protocol.oracle.iterations):
                        break
                self.store.add(("oracle", number), course=[list(point) for point in course])

    def goal(self, candidate: Candidate, number: int) -> Point:
        """Content and style loss of a candidate's picture at its full strength."""
        values = self.store["pair", candidate.id, candidate.alphas[-1], number]["values"]
        return Point(values["target"], values["style"])

    def optimise(self, number: int) -> Iterator[Point]:
        """Content and style loss of the content image after 0, 1, 2, … steps on its pixels."""
        content, style = (picture.to(self.scorer.device) for picture in self.load_pair(number))
        options, oracle = self.scorer.options, self.protocol.oracle
        taps = dict.fromkeys(options.style_taps, 1.0)
        weights = LossWeights(
            content=1.0, style=oracle.style_weight, taps=taps, reduction=options.style_reduction
        )
        objective = Objective(self.scorer.judge.network, options.target_tap, ADAIN, weights)
        # The mean over the taps, as the metric `style` reports it.
        seen = objective.observe(content, style)
        for iterate in Course(objective, seen, content, lr=oracle.lr).iterates(oracle.iterations):
            style_losses = (iterate.terms[f"style/{tap}"] for tap in taps)
            yield Point(iterate.terms["content"], statistics.fmean(style_losses))

    def measure_cost(self) -> None:
        """Measure parameters, MACs, latency and memory of every model, once each."""
        for candidate in self.candidates:
            # Another machine measures again.
            key = ("cost", candidate.id, runtime.hardware(self.scorer.device))
            if (
                isinstance(candidate, Model)
                and self.scorer.wants("efficiency")
                and key not in self.store
            ):
                rounds = self.scorer.options.timing_rounds
                self.store.add(
                    key, cost=measure_cost(candidate, self.protocol.images.resize_px, rounds)
                )


def settings_name(protocol: Protocol, pairs: Pairs, scorer: Scorer) -> str:
    """Sixteen hex digits for all that a score depends on besides the candidate."""
    # Places of files do not count; the networks' hashes below do.
    values = {
        name: value
        for name, value in protocol.to_flat().items()
        if not name.startswith(("tracking.", "networks.", "judge.weights"))
    }
    used = [(k, i) for k in (0, 1) for i in sorted({pair[k] for pair in pairs.pairs})]
    pictures = [[pairs.names[k][i], images.sha256_of_picture(pairs[k][i])] for k, i in used]
    # Another commit may compute another score.
    code = [runtime.git_commit(), scorer.device.type]
    facts = [values, scorer.networks, sorted(scorer.missing), pictures, pairs.pairs, code]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def check_finite(
    values: Mapping[str, float], candidate: Candidate, pairs: Pairs, pair: tuple[int, int]
) -> None:
    """Raise DataError if a metric of a picture is not finite."""
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        where = " + ".join(pairs.names_of(pair))
        raise DataError(
            f"expected finite metrics, but {bad[0]} of {candidate.name} on {where} is "
            f"{values[bad[0]]}"
        )


def iterations_to(course: Sequence[Sequence[float]], goal: Point) -> int | None:
    """The first step where both losses are at most the goal's; None if there is none."""
    return next(
        (k for k, (c, s) in enumerate(course) if c <= goal.content and s <= goal.style), None
    )


def is_enough(course: Sequence[Sequence[float]], goals: Sequence[Point], n_iterations: int) -> bool:
    """Whether a course reaches every goal or the last iteration."""
    # A course of n steps has n + 1 points.
    return len(course) > n_iterations or (
        bool(course) and all(iterations_to(course, goal) is not None for goal in goals)
    )
