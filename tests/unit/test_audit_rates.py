"""The simulated sets behind docs/audit.md are what they are called."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from tools import audit_rates
from tools.audit_rates import Scenario, judge_one, main, simulate


def test_coins_have_their_rate_and_signals_their_direction():
    coins = simulate(Scenario("coins", "labels", 2000, 20, rate=0.1), [0, 1])
    assert coins.labels.mean() == pytest.approx(0.1, abs=0.01)
    assert coins.best_auroc == pytest.approx(0.5, abs=0.001)  # nobody knows more than the rate
    weak, strong = (simulate(Scenario("s", "pixels", 2000, 20, signal=s), [0, 1]).best_auroc for s in (0.4, 1.6))
    assert 0.55 < weak < 0.65 < strong


@pytest.mark.parametrize("by_category", [False, True])
def test_nine_percent_are_known(by_category):
    drawn = simulate(Scenario("sparse", "labels", 3000, 50, known=0.09, known_by_category=by_category), [0])
    assert 1 - np.isnan(drawn.labels).mean() == pytest.approx(0.09, abs=0.02)


def test_shuffled_labels_are_the_same_rows_elsewhere_and_photographs_have_one_coin():
    plain = simulate(Scenario("p", "labels", 300, 10, signal=2.0), [3])
    moved = simulate(Scenario("p", "labels", 300, 10, signal=2.0, mixed="shuffled"), [3])
    assert sorted(map(tuple, plain.labels)) == sorted(map(tuple, moved.labels)) and (plain.labels != moved.labels).any()
    alike = simulate(Scenario("p", "labels", 300, 10, mixed="by photograph"), [3])
    for image in np.unique(alike.image_id):
        assert len(np.unique(alike.labels[alike.image_id == image], axis=0)) == 1


def test_the_table_counts_verdicts(tmp_path, monkeypatch, capsys):
    kinds = [Scenario("coins", "labels", 30, 6, rate=0.5), Scenario("signal", "pixels", 60, 6, signal=4.0)]
    monkeypatch.setattr(audit_rates, "scenarios", lambda: kinds)
    monkeypatch.setattr(audit_rates, "PERMUTATIONS", 19)
    main([str(tmp_path / "rates.json"), "--null-sets", "3", "--sets", "2", "--workers", "1"])
    coins, signal = json.loads((tmp_path / "rates.json").read_text())["rows"]
    assert (coins["sets"], signal["sets"]) == (3, 2)
    assert sum(coins["verdicts"].values()) == 3
    verdicts = [judge_one(kinds[1], [0, 1, one])[0] for one in range(2)]
    assert all(signal["verdicts"][name] == verdicts.count(name) for name in signal["verdicts"])
    exact = binomtest(round(3 * coins["wrong"]), 3).proportion_ci(method="exact")
    assert coins["wrong_interval"] == pytest.approx([exact.low, exact.high])
    assert len(capsys.readouterr().out.splitlines()) == 3
