"""Looks: mixtures in any proportion, rows for a batch, mistakes."""

import dataclasses

import pytest
import torch

from stylenet.errors import UsageError
from stylenet.looks import make_look, stack

CODE = (torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1, 1))


def test_a_mixture_is_a_proportion():
    assert (
        make_look([CODE, CODE], [1, 3]).mixture
        == make_look([CODE, CODE], [2, 6]).mixture
        == (0.25, 0.75)
    )
    assert make_look([CODE, CODE]).mixture == (0.5, 0.5) and make_look([CODE]).alpha == 1.0


def test_stacked_looks_have_a_row_for_each():
    looks = [make_look([CODE, (CODE[1] + i, CODE[0])], [1, 2], 0.5) for i in range(3)]
    look = stack(looks)
    assert (look.mixture, look.alpha) == (looks[0].mixture, 0.5) and stack(looks[:1]) is looks[0]
    assert [part.shape[0] for code in look.codes for part in code] == [3] * 4
    assert look.codes[1][0][:, 0].flatten().tolist() == [0, 1, 2]


def test_a_look_does_not_change():
    look = make_look([CODE])
    with pytest.raises(dataclasses.FrozenInstanceError):
        look.alpha = 0.5
    assert look.with_stats(CODE).content_stats is CODE and look.content_stats is None


@pytest.mark.parametrize("mixture", [[1.0], [1, -1], [0, 0], [1, float("inf")], [1, float("nan")]])
def test_a_mixture_that_does_not_fit_is_refused(mixture):
    with pytest.raises(UsageError, match="expected 2 weights of 0 or more"):
        make_look([CODE, CODE], mixture)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_a_strength_outside_is_refused(alpha):
    with pytest.raises(UsageError, match="alpha in"):
        make_look([CODE], None, alpha)


def test_no_style_at_all_is_one_line():
    with pytest.raises(UsageError, match="expected at least one style"):
        make_look([])
