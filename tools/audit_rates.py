#!/usr/bin/env python
"""How often is the audit wrong? Judges many simulated sets of labels of which the truth is known: the evidence behind
docs/audit.md.

    python -m tools.audit_rates OUT.json [--null-sets 75] [--sets 30] [--workers 2] [--seed 0]

Prints a table: for each kind of labels, how often the verdict is `learnable`, `weak` and `noise`. Where there is
nothing to learn, `learnable` is a false alarm; where there is something, `noise` is a miss.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import beta
from sklearn.metrics import roc_auc_score

from attrtrain.auditing.assemble import PERMUTATIONS
from attrtrain.auditing.description import describe
from attrtrain.auditing.held_out import held_out_test
from attrtrain.auditing.noise_test import Evidence, judge, label_evidence
from attrtrain.files import atomic_write

CATEGORIES, FEATURES = 8, 64


Part = Literal["labels", "pixels"]


@dataclass(frozen=True)
class Scenario:
    """A kind of labels.

    Attributes:
        name: what it is called in the table.
        part: whether the label file or the pixels (simulated features) are tested.
        objects, attributes: size of each set.
        rate: of positives; None draws one for each attribute between 0.02 and 0.5.
        known: share of labels that are known.
        known_by_category: unknown labels go by category, as in COCO Attributes, instead of by chance.
        signal: how strongly objects decide over labels, in logits; 0 is noise.
        mixed: what is done to labels afterwards: nothing, whole rows shuffled between objects, or each photograph's
            first row copied to all its objects.
    """

    name: str
    part: Part
    objects: int
    attributes: int
    rate: float | None = None
    known: float = 1.0
    known_by_category: bool = False
    signal: float = 0.0
    mixed: Literal["", "shuffled", "by photograph"] = ""

    @property
    def learnable(self) -> bool:
        """Whether there is anything to learn."""
        return self.signal > 0 and not self.mixed


def scenarios() -> list[Scenario]:
    """All kinds of labels that are tried."""
    coins = [
        Scenario("fair coins", "labels", 275, 204, rate=0.5),
        Scenario("fair coins, few objects", "labels", 30, 20, rate=0.5),
        Scenario("fair coins, few attributes", "labels", 2000, 17, rate=0.5),
        Scenario("coins of rate 0.1", "labels", 275, 204, rate=0.1),
        Scenario("coins of rates 0.02 to 0.5", "labels", 275, 40),
        Scenario("coins, 9 % known", "labels", 275, 204, known=0.09),
        Scenario("coins, 9 % known, by category", "labels", 1000, 100, known=0.09, known_by_category=True),
        Scenario("real structure, shuffled", "labels", 275, 40, signal=2.0, mixed="shuffled"),
        Scenario("one coin a photograph", "labels", 275, 40, mixed="by photograph"),
        Scenario("fair coins", "pixels", 275, 204, rate=0.5),
        Scenario("coins of rates 0.02 to 0.5", "pixels", 275, 40),
        Scenario("coins, 9 % known, by category", "pixels", 1000, 100, known=0.09, known_by_category=True),
        Scenario("real structure, shuffled", "pixels", 275, 40, signal=2.0, mixed="shuffled"),
        Scenario("one coin a photograph", "pixels", 275, 40, mixed="by photograph"),
    ]
    sizes: list[tuple[Part, int, int]] = [
        ("labels", 100, 20),
        ("labels", 275, 40),
        ("labels", 1000, 40),
        ("pixels", 275, 40),
        ("pixels", 1000, 40),
    ]
    signals = [
        Scenario(f"signal of {strength:g}", part, objects, attributes, signal=strength)
        for part, objects, attributes in sizes
        for strength in (0.2, 0.4, 0.8, 1.6)
    ]
    sparse = [
        Scenario("signal of 0.8, 9 % known", "labels", 1000, 100, known=0.09, known_by_category=True, signal=0.8),
        Scenario("signal of 0.8, 9 % known", "pixels", 1000, 100, known=0.09, known_by_category=True, signal=0.8),
    ]
    return [*coins, *signals, *sparse]


@dataclass(frozen=True)
class Simulated:
    """One set: labels (N, A) with NaN for unknown, what describes the objects (N, D), photographs (N,), and the truth's
    own AUROC.
    """

    labels: NDArray[np.float32]
    features: NDArray[np.float64]
    image_id: NDArray[np.int64]
    best_auroc: float


def simulate(scenario: Scenario, seed: Sequence[int]) -> Simulated:
    """Draws one set. Photographs hold one to several objects, which share half of what describes them."""
    rng = np.random.default_rng(seed)
    n, attributes = scenario.objects, scenario.attributes
    image_id = np.sort(rng.integers(0, max(2, n // 3), n))
    shared = rng.normal(size=(n, FEATURES))[image_id]  # of a photograph
    latent = np.sqrt(0.5) * shared + np.sqrt(0.5) * rng.normal(size=(n, FEATURES))
    category = np.clip(np.floor(CATEGORIES / 2 + 1.5 * latent[:, 0]), 0, CATEGORIES - 1).astype(np.int64)
    if scenario.part == "labels":
        box = np.column_stack([rng.random((n, 2)) * 400, np.exp(4 + 0.6 * latent[:, 1:3])])
        features = describe(category.astype(str), box, np.zeros((n, 2), dtype=np.int64))
        causes = np.column_stack(
            [rng.normal(size=(CATEGORIES, attributes))[category], latent[:, 1:2] * rng.normal(size=attributes)]
        )
        drive = (causes[:, :attributes] + causes[:, attributes:]) / np.sqrt(2)
    else:
        features = latent * np.linspace(2, 0.2, FEATURES)  # as principal components fall off
        drive = latent @ rng.normal(size=(FEATURES, attributes)) / np.sqrt(FEATURES)
    rates = rng.uniform(0.02, 0.5, attributes) if scenario.rate is None else np.full(attributes, scenario.rate)
    chance = expit(logit(rates) + scenario.signal * drive)
    labels = (rng.random((n, attributes)) < chance).astype(np.float32)
    best = [roc_auc_score(truth, p) for truth, p in zip(labels.T, chance.T, strict=True) if 0 < truth.sum() < n]
    if scenario.mixed == "shuffled":
        labels = labels[rng.permutation(n)]
    elif scenario.mixed == "by photograph":
        labels = labels[np.unique(image_id, return_index=True)[1][np.unique(image_id, return_inverse=True)[1]]]
    if scenario.known < 1:
        asked = (
            rng.random((CATEGORIES, attributes))[category] if scenario.known_by_category else rng.random(labels.shape)
        )
        labels[asked > scenario.known * (3 if scenario.known_by_category else 1)] = np.nan
        if scenario.known_by_category:  # of the attributes that belong to a category, a third is known of an object
            labels[rng.random(labels.shape) > 1 / 3] = np.nan
    return Simulated(labels, features, image_id, float(np.mean(best)))


def judge_one(scenario: Scenario, seed: Sequence[int]) -> tuple[str, float, float]:
    """The verdict on one simulated set, its p-value, and the AUROC of the truth."""
    data = simulate(scenario, seed)
    if scenario.part == "labels":
        evidence = label_evidence(data.labels, data.features, data.image_id, PERMUTATIONS, seed[-1])
    else:
        pixels = held_out_test(data.features, data.labels, data.image_id, PERMUTATIONS, seed[-1])
        evidence = Evidence(scenario.attributes, None, None, None, pixels)
    judgement = judge(evidence)
    return judgement.verdict, judgement.p_value, data.best_auroc


def _judge_many(job: tuple[Scenario, list[list[int]]]) -> list[tuple[str, float, float]]:
    scenario, seeds = job
    return [judge_one(scenario, seed) for seed in seeds]


def measure(null_sets: int, sets: int, workers: int, seed: int) -> Iterator[dict[str, Any]]:
    """Judges `sets` sets of every kind that holds something to learn, and `null_sets` of every other."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for number, scenario in enumerate(scenarios()):
            seeds = [[seed, number, one] for one in range(sets if scenario.learnable else null_sets)]
            jobs = [(scenario, seeds[start::workers]) for start in range(workers)]
            judged = map(_judge_many, jobs) if workers == 1 else pool.map(_judge_many, jobs)
            yield _row(scenario, [one for many in judged for one in many])


def _row(scenario: Scenario, judged: list[tuple[str, float, float]]) -> dict[str, Any]:
    verdicts = Counter(verdict for verdict, _, _ in judged)
    wrong = verdicts["noise" if scenario.learnable else "learnable"]
    low, high = beta.ppf([0.025, 0.975], [wrong, wrong + 1], [len(judged) - wrong + 1, len(judged) - wrong])
    return {
        "name": scenario.name,
        "part": scenario.part,
        "objects": scenario.objects,
        "attributes": scenario.attributes,
        "learnable": scenario.learnable,
        "best_auroc": float(np.mean([best for _, _, best in judged])) if scenario.learnable else None,
        "sets": len(judged),
        "verdicts": {name: verdicts[name] for name in ("learnable", "weak", "noise")},
        "wrong": wrong / len(judged),
        "wrong_interval": [float(np.nan_to_num(low)), float(np.nan_to_num(high, nan=1.0))],
        "median_p": float(np.median([p for _, p, _ in judged])),
    }


def _line(row: dict[str, Any]) -> str:
    shares = [f"{row['verdicts'][name] / row['sets']:.1%}" for name in ("learnable", "weak", "noise")]
    best = "" if row["best_auroc"] is None else f"{row['best_auroc']:.2f}"
    interval = "{:.1%} ({:.1%} to {:.1%})".format(row["wrong"], *row["wrong_interval"])
    return (
        f"{row['part'] + ': ' + row['name']:38}{row['objects']:>5} × {row['attributes']:>3} {best:>5} {row['sets']:>5} "
        f"{shares[0]:>10} {shares[1]:>7} {shares[2]:>7}   {interval}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, measures, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--null-sets", type=int, default=75, help="of each kind without anything to learn")
    parser.add_argument("--sets", type=int, default=30, help="of each kind with something to learn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    rows = []
    print(
        f"{'':38}{'size':>11} {'best':>5} {'sets':>5} {'learnable':>10} {'weak':>7} {'noise':>7}   wrong, 95 % interval"
    )
    for row in measure(arguments.null_sets, arguments.sets, arguments.workers, arguments.seed):
        rows.append(row)
        print(_line(row), flush=True)
        content = {"seed": arguments.seed, "permutations": PERMUTATIONS, "rows": rows}
        with atomic_write(arguments.out) as file:  # after each, for all of them take an hour or more
            file.write(json.dumps(content, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
