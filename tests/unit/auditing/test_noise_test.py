"""The rules, each by evidence made for it, and then on whole label matrices."""

import numpy as np
import pytest

from attrtrain.auditing.description import describe
from attrtrain.auditing.held_out import HeldOut
from attrtrain.auditing.noise_test import CO_OCCURRENCE, PHOTOGRAPHS, PIXELS, SIDE, Evidence, judge, label_evidence
from attrtrain.auditing.permutation import PermutationTest, permutation_p

NONE = np.array([np.nan])


def found(effect=0.2, p=0.001, null=0.01):
    return PermutationTest(effect, p, np.full(99, null))


def told(effect=0.2, p=0.001, power=1.0):
    return HeldOut(effect, p, np.full(99, 0.01), NONE, NONE, power)


NOTHING, UNTOLD = found(0.0, 0.6), told(0.0, 0.6)


def evidence(co=NOTHING, photographs=NOTHING, side=UNTOLD, pixels=None, attributes=204):
    return Evidence(attributes, co, photographs, side, pixels)


@pytest.mark.parametrize(
    ("given", "verdict", "decided_by"),
    [
        # 1: pixels decide, whatever the label file says
        (evidence(pixels=told()), "learnable", PIXELS),
        (evidence(found(), found(), UNTOLD, UNTOLD), "noise", PIXELS),
        (evidence(pixels=told(effect=0.029)), "weak", PIXELS),
        (evidence(pixels=told(0.1, p=0.011)), "noise", PIXELS),
        (evidence(pixels=told(0.0, 0.6, power=0.85)), "weak", PIXELS),
        (evidence(side=told(), pixels=UNTOLD), "weak", PIXELS),
        # 2: category and box
        (evidence(side=told()), "learnable", SIDE),
        (evidence(side=told(effect=0.029)), "weak", SIDE),
        (evidence(side=told(p=0.004)), "noise", SIDE),  # three tests: 0.012
        (evidence(photographs=None, side=told(p=0.004)), "learnable", SIDE),  # two tests: 0.008
        # 3, 4: what shows no more than that these are no coin flips
        (evidence(photographs=found()), "weak", PHOTOGRAPHS),
        (evidence(co=found()), "weak", CO_OCCURRENCE),
        (evidence(co=found(), photographs=found()), "weak", PHOTOGRAPHS),
        # 5: nothing found
        (evidence(), "noise", CO_OCCURRENCE),
        (evidence(side=None, photographs=None), "noise", CO_OCCURRENCE),
        (evidence(attributes=5), "noise", CO_OCCURRENCE),
        (evidence(attributes=4), "weak", CO_OCCURRENCE),  # six pairs
        (evidence(co=None), "weak", PHOTOGRAPHS),
        (evidence(co=found(0.0, 0.6, null=0.2)), "weak", CO_OCCURRENCE),  # chance alone reaches a correlation of 0.2
        (evidence(side=told(0.0, 0.6, power=0.5)), "weak", CO_OCCURRENCE),
        (evidence(None, None, None), "weak", ""),
    ],
)
def test_each_rule(given, verdict, decided_by):
    judgement = judge(given)
    assert judgement.verdict == verdict
    assert judgement.decided_by == decided_by or judgement.verdict in ("noise", "weak")
    assert judgement.reason and 0 < judgement.p_value <= 1


def test_p_values_of_the_label_file_are_multiplied_by_their_number():
    assert judge(evidence(side=told(p=0.002))).p_value == pytest.approx(0.006)
    assert judge(evidence(photographs=None, side=told(p=0.002))).p_value == pytest.approx(0.004)
    assert judge(evidence(pixels=told(p=0.002))).p_value == 0.002


def test_without_pixels_it_is_said_that_they_are_not_known():
    assert "--weights" in judge(evidence()).open_question
    assert "--weights" in judge(evidence(co=found())).open_question
    assert judge(evidence(pixels=UNTOLD)).open_question == ""


def test_a_permutation_p_value_counts_the_data_themselves():
    assert permutation_p(1.0, np.array([0.0, 0.5, 0.9])) == 0.25
    assert permutation_p(0.5, np.array([0.0, 0.5, 0.9])) == 0.75


def objects(n=275, seed=0, categories=("dog",), per_photograph=1):
    rng = np.random.default_rng(seed)
    category = rng.choice(categories, n)
    box = np.column_stack([rng.random((n, 2)) * 300, np.exp(rng.normal(4, 0.5, (n, 2)))])
    return category, describe(category, box, np.zeros((n, 2), dtype=np.int64)), np.arange(n) // per_photograph


def verdict(labels, description, image_id, permutations=399):
    return judge(label_evidence(labels.astype(np.float32), description, image_id, permutations)).verdict


@pytest.mark.parametrize("rate", [0.5, 0.1])
def test_275_objects_of_204_coins_are_noise(rate):
    rng = np.random.default_rng(11)
    _, description, image_id = objects(categories=("dog", "cat", "car"), per_photograph=2)
    assert verdict(rng.random((275, 204)) < rate, description, image_id) == "noise"


def test_coins_without_boxes_or_categories_are_noise_by_their_independence():
    rng = np.random.default_rng(12)
    nothing = describe(np.full(275, ""), np.full((275, 4), np.nan), np.zeros((275, 2), dtype=np.int64))
    assert verdict(rng.random((275, 204)) < 0.5, nothing, np.arange(275)) == "noise"


def test_labels_that_go_by_category_are_learnable_and_weak_once_shuffled():
    rng = np.random.default_rng(13)
    category, description, image_id = objects(categories=("dog", "cat", "car"))
    rate = {name: rng.random(20) for name in ("dog", "cat", "car")}
    labels = rng.random((275, 20)) < np.array([rate[name] for name in category])
    assert verdict(labels, description, image_id) == "learnable"
    assert verdict(labels[rng.permutation(275)], description, image_id) == "weak"


def test_one_coin_a_photograph_is_weak():
    rng = np.random.default_rng(14)
    _, description, image_id = objects(per_photograph=3)
    assert verdict((rng.random((275, 30)) < 0.5)[image_id], description, image_id) == "weak"


@pytest.mark.parametrize(
    "labels",
    [
        np.full((40, 6), np.nan),
        np.ones((40, 6)),
        np.zeros((40, 6)),
        np.eye(40, 1),
        np.full((40, 6), 0.5),
        np.zeros((0, 3)),
        np.zeros((1, 3)),
        np.random.default_rng(0).integers(0, 2, (2, 2)),
        np.random.default_rng(0).integers(0, 2, (30, 1)),
        np.random.default_rng(0).integers(0, 2, (30, 5)),
    ],
    ids=str,
)
def test_too_little_to_go_by_is_weak(labels):
    _, description, image_id = objects(len(labels), per_photograph=2)
    assert verdict(np.asarray(labels), description, image_id, permutations=99) == "weak"
