"""Are these labels distinguishable from independent coin flips, or from labels shuffled between objects?

Up to four permutation tests are weighed:

    co-occurrence      do attributes go together?               tells coin flips; shuffled labels still go together
    photographs        are objects of one photograph alike?     tells both
    category and box   do they tell labels of unseen objects?   tells both, and that labels belong to their objects
    pixels             do frozen features of the crop?          the same, from what a model will see; needs weights

The rules, and why:

1. The pixels decide where they were tested. p <= ALPHA: `learnable` from a mean AUROC of 0.5 + LEARNABLE_EFFECT on,
   else `weak`. Nothing found: `noise`, if a signal planted into the same objects is found (`HeldOut.power`) at least
   POWER of the time; else `weak`, too little data to tell. But where category and box do tell the labels, they are no
   noise: `weak`, for then it is the crops or the features that lack something.
2. Without pixels, category and box decide in the same way when they find something: `learnable` or `weak`. They are
   read off the label file, yet a crop shows them.
3. Alike photographs alone make `weak`: whoever labels a photograph in one go, carelessly, gives its objects like labels
   too.
4. Co-occurrence alone makes `weak`: it survives shuffling labels between objects, so it cannot show that they belong to
   them.
5. Nothing found: `noise`, if there were at least MIN_PAIRS pairs of attributes, a co-occurrence of DETECTABLE_PHI would
   have been found, and so would, where category and box were tested, a signal planted into them. Else `weak`: two or
   three real attributes may well be independent of each other and of the box, so their independence accuses nobody.

The three tests on the label file count as one look: their p-values are multiplied by their number (Bonferroni). Labels
in which nothing can be tested, all unknown or all the same, are `weak` with p = 1.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attrtrain.auditing.held_out import MIN_CASES, PLANTED_AUROC, HeldOut, held_out_test
from attrtrain.auditing.permutation import ALPHA, PermutationTest
from attrtrain.auditing.structure import MIN_PAIRS, co_occurrence_test, photograph_test

Verdict = Literal["learnable", "weak", "noise"]
EXIT_CODES: dict[Verdict, int] = {"learnable": 0, "weak": 3, "noise": 4}

LEARNABLE_EFFECT = 0.03
"""Mean AUROC above 0.5 from which labels are worth training on: less is real, but no model of it would be worth
having.
"""
POWER = 0.9
"""Share of planted signals that must be found before finding none is held against labels."""
DETECTABLE_PHI = 0.15
"""Correlation between attributes (root mean square) that chance must not reach, before finding none is held against
labels.
"""

CO_OCCURRENCE, PHOTOGRAPHS, SIDE, PIXELS = "co-occurrence", "photographs", "category and box", "pixels"


@dataclass(frozen=True)
class Evidence:
    """What the tests found; None where one could not be made."""

    attributes: int
    co_occurrence: PermutationTest | None
    photographs: PermutationTest | None
    side: HeldOut | None
    pixels: HeldOut | None = None

    @property
    def of_label_file(self) -> dict[str, PermutationTest]:
        """The tests that need no pixels and could be made."""
        tests = {CO_OCCURRENCE: self.co_occurrence, PHOTOGRAPHS: self.photographs, SIDE: self.side}
        return {name: test for name, test in tests.items() if test is not None}

    def adjusted_p(self, name: str) -> float:
        """The p-value of one of the tests on the label file, multiplied by their number; 1 where it was not made."""
        tests = self.of_label_file
        return min(1.0, tests[name].p_value * len(tests)) if name in tests else 1.0


@dataclass(frozen=True)
class Judgement:
    """The verdict and what it rests on.

    Attributes:
        verdict: see the module's docstring.
        p_value: of the deciding test.
        effect: of the deciding test, in its unit.
        decided_by: the deciding test's name, "" where nothing could be tested.
        reason: one sentence.
        open_question: what these tests cannot tell, "" where nothing is left open.
    """

    verdict: Verdict
    p_value: float
    effect: float
    decided_by: str
    reason: str
    open_question: str


def label_evidence(
    labels: NDArray[np.float32],
    description: NDArray[np.float64],
    image_id: NDArray[np.int64],
    permutations: int,
    seed: int = 0,
) -> Evidence:
    """Makes the three tests that need no pixels.

    Args:
        labels: (N, A) vote shares, NaN = unknown.
        description: (N, D) of `describe`.
        image_id: (N,).
        permutations: shuffled data sets a test; below 3 / ALPHA no test can reach significance.
        seed: chooses the shuffles.
    """
    return Evidence(
        attributes=labels.shape[1],
        co_occurrence=co_occurrence_test(labels, permutations, seed),
        photographs=photograph_test(labels, image_id, permutations, seed),
        side=held_out_test(description, labels, image_id, permutations, seed),
    )


def judge(evidence: Evidence) -> Judgement:
    """Weighs the evidence by the rules above."""
    return _by_pixels(evidence, evidence.pixels) if evidence.pixels is not None else _by_label_file(evidence)


def _by_pixels(evidence: Evidence, pixels: HeldOut) -> Judgement:
    def found(verdict: Verdict, reason: str, open_question: str = "") -> Judgement:
        return Judgement(verdict, pixels.p_value, pixels.effect, PIXELS, reason, open_question)

    auroc = f"a mean AUROC of {0.5 + pixels.effect:.3f}"
    if pixels.p_value <= ALPHA and pixels.effect >= LEARNABLE_EFFECT:
        return found(
            "learnable",
            f"frozen features of the crops tell labels of unseen photographs with {auroc}; guessing has 0.5",
        )
    if pixels.p_value <= ALPHA:
        return found(
            "weak",
            f"frozen features of the crops tell labels of unseen photographs, but hardly: {auroc}; guessing has 0.5",
            "whether a trained network finds more than frozen features do",
        )
    if evidence.adjusted_p(SIDE) <= ALPHA:
        return found(
            "weak",
            "category and box tell the labels, but frozen features of the crops do not: is each crop the object its labels mean?",
            "whether a trained network finds in the crops what frozen features do not",
        )
    if pixels.power >= POWER:
        return found(
            "noise",
            f"frozen features of the crops tell labels of unseen photographs no better than labels shuffled between objects ({auroc}; guessing has 0.5)",
        )
    return found(
        "weak",
        f"too little data to tell: where labels with an AUROC of {PLANTED_AUROC} were planted into these crops, "
        f"they were found {pixels.power:.0%} of the time",
        "everything; label more objects",
    )


def _by_label_file(evidence: Evidence) -> Judgement:
    tests = evidence.of_label_file

    def found(verdict: Verdict, name: str, reason: str, open_question: str = "") -> Judgement:
        return Judgement(verdict, evidence.adjusted_p(name), tests[name].effect, name, reason, open_question)

    only_pixels = "whether the pixels show these labels; give --weights to test that on shards"
    if not tests:
        reason = f"nothing can be tested: no attribute has {MIN_CASES} known positives and {MIN_CASES} known negatives"
        return Judgement(
            "weak", 1.0, 0.0, "", reason, "whether there is anything to learn; label more objects, both ways"
        )
    if evidence.adjusted_p(SIDE) <= ALPHA:
        effect = tests[SIDE].effect
        told = f"tell labels of unseen photographs with a mean AUROC of {0.5 + effect:.3f}; guessing has 0.5"
        if effect >= LEARNABLE_EFFECT:
            return found("learnable", SIDE, f"category and box alone {told}")
        return found("weak", SIDE, f"category and box {told}: real, but tiny", only_pixels)
    if evidence.adjusted_p(PHOTOGRAPHS) <= ALPHA:
        reason = "objects of one photograph have like labels, but category and box do not tell them"
        return found("weak", PHOTOGRAPHS, reason, only_pixels)
    if evidence.adjusted_p(CO_OCCURRENCE) <= ALPHA:
        # Objects of one photograph that are alike make attributes seem to go together.
        together = "attributes go together" + (
            ", or objects of one photograph are alike" if evidence.photographs is None else ""
        )
        reason = (
            f"{together}, so these are no coin flips, but nothing in the label file ties them to their objects: "
            "real labels shuffled between objects look like this"
        )
        return found("weak", CO_OCCURRENCE, reason, only_pixels)
    smallest = min(tests, key=lambda name: tests[name].p_value)
    if _would_have_been_found(evidence):
        reason = "not distinguishable from independent coin flips: attributes do not go together, and nothing the label file knows of an object tells its labels"
        return found("noise", smallest, reason, only_pixels)
    return found("weak", smallest, "too few labels to tell them from coin flips", only_pixels)


def _would_have_been_found(evidence: Evidence) -> bool:
    pairs = evidence.attributes * (evidence.attributes - 1) // 2
    return (
        evidence.co_occurrence is not None
        and pairs >= MIN_PAIRS
        and evidence.co_occurrence.detectable <= DETECTABLE_PHI
        and (evidence.side is None or evidence.side.power >= POWER)
    )
