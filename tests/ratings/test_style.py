"""Style held equal: against statsmodels, and on voters who like length."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from arena.ratings import Ledger, differences, fit, strengths, style_fit, weights
from arena.ratings.strengths import cells
from arena.ratings.tally import SCORES
from arena.types import Style
from bench import simulate


def test_the_same_as_statsmodels(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        glm = pytest.importorskip("statsmodels.api")
    monkeypatch.setattr(strengths, "PRIOR", 0.0)
    random = np.random.default_rng(2)
    true = simulate.strengths(random, 6, 150)
    a, b = simulate.pairs(random, 6, 3000)
    features = random.normal(0, 1, (3000, 4))
    effects = np.array([0.5, 0.0, -0.2, 0.1])
    seen = simulate.tally(6, a, b, simulate.verdicts(random, true[a] - true[b] + features @ effects))
    ours = style_fit(seen, np.ones(3000), features, ridge=0.0)
    design = np.zeros((3000, 6))
    design[np.arange(3000), a], design[np.arange(3000), b] = 1, -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = glm.GLM(
            SCORES[seen.whats[2, seen.what]], np.column_stack([design[:, 1:], features]), family=glm.families.Binomial()
        )
        theirs = model.fit(cov_type="HC0")
    others = np.concatenate([[0.0], theirs.params[:5]])
    assert ours.fit.strengths == pytest.approx(others - others.mean(), abs=1e-6)
    assert [each.effect for each in ours.effects] == pytest.approx(theirs.params[5:], abs=1e-6)
    widths = [each.upper - each.lower for each in ours.effects]
    assert widths == pytest.approx(2 * 1.959964 * theirs.bse[5:], rel=1e-5)


def test_without_features_it_is_the_plain_board() -> None:
    random = np.random.default_rng(6)
    seen = simulate.honest(random, simulate.strengths(random, 5, 150), 400)
    weight = np.full(400, 0.5)
    found = style_fit(seen, weight, np.zeros((400, 4)))
    assert found.fit.strengths == pytest.approx(fit(cells(seen, weight)).strengths, abs=1e-6)
    assert {each.effect for each in found.effects} == {0.0}


def test_settings_and_ballots_on_more_sides_are_those_of_the_plain_board() -> None:
    random = np.random.default_rng(8)
    seen = simulate.rankings(random, simulate.strengths(random, 5, 150), 4, 60)
    families = {name: "one" if name < "model-02" else name for name in seen.names}
    weight = weights(seen, None)
    found = style_fit(seen, weight, np.zeros((len(weight), 4)), families).fit
    plain = fit(cells(seen, weight), families, samples=0)
    assert found.strengths == pytest.approx(plain.strengths, abs=1e-6)
    assert found.covariance == pytest.approx(plain.covariance, abs=1e-6)


def test_what_length_buys_is_taken_away() -> None:
    plain, controlled = simulate.length_bias(7, 20_000)
    assert controlled < plain / 2


def test_differences_are_relative_and_a_feature_that_never_differs_is_nothing() -> None:
    found = differences([(Style(300, 2, 0, 1), Style(100, 2, 0, 0)), (Style(10, 0, 0, 0), Style(30, 0, 0, 1))])
    assert found.tolist() == [[1, 0, 0, 1], [-1, 0, 0, -1]]
    assert differences([]).shape == (0, 4)
    assert style_fit(Ledger().tally(), np.ones(0), differences([])).fit.names == ()
