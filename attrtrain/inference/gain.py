"""What answering together is worth on objects with labels, and what it costs: every part judged by itself, beside all
of it.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from attrtrain.data.reader import ShardSet
from attrtrain.engine.evaluate import evaluate
from attrtrain.engine.judging import predictions_of
from attrtrain.inference.members import PLAIN, Member, Pass, View, shared_card
from attrtrain.metrics.functional import mean_scores
from attrtrain.metrics.paired import paired_difference
from attrtrain.predictions import Predictions
from attrtrain.runtime import Runtime


@dataclass(frozen=True)
class PassResult:
    """What one model said through one view of every object of a split, and the seconds it took, reading the crops
    included.
    """

    member: Member
    view: View
    predictions: Predictions
    seconds: float


def run_passes(
    runtime: Runtime, members: Sequence[Member], views: Sequence[View], shards: ShardSet, workers: int
) -> list[PassResult]:
    """Evaluates every model through every view, one after the other, on crops as `Predictor` gives them to it.
    Collective.

    A model by itself, through no other view, computes in the runtime's precision, as in training.

    Raises:
        ConfigError: a model takes no pictures of a view's size.
        AttrtrainError: an output is not finite.
    """
    card = shared_card(members)
    alone = len(members) == 1 and tuple(views) == (PLAIN,)
    # All of them first: a size that one of them cannot take is refused before the others have looked at every object.
    passes = [(member, view, member.model if alone else Pass(member, view)) for member in members for view in views]
    results = []
    for member, view, network in passes:
        begin = time.perf_counter()
        evaluation = evaluate(
            runtime,
            network,
            shards,
            image_px=card.image_px,
            framing=card.framing,
            positive_at=card.positive_at,
            channels_last=member.card.channels_last,
            categories=member.model.categories,
            workers=workers,
        )
        results.append(PassResult(member, view, predictions_of(evaluation, shards), time.perf_counter() - begin))
    return results


def together(results: Iterable[PassResult]) -> Predictions:
    """The predictions of some passes as one: their mean logits."""
    few = [result.predictions for result in results]
    if len(few) == 1:
        return few[0]
    return replace(few[0], logits=np.mean([one.logits for one in few], axis=0, dtype=np.float32))


def describe_gain(results: Sequence[PassResult], positive_at: float) -> list[str]:
    """Lines of a table: each part of what answers together, and all of it, with its mAP, its gain over the first model
    by itself with a paired interval, and its cost. None for a single pass.
    """
    if len(results) == 1:
        return []
    first = together(_chosen(results, results[0].member, [PLAIN]))
    rows: list[tuple[str, ...]] = []
    for name, chosen in _parts(results):
        predictions = together(chosen)
        score = mean_scores(predictions.logits, predictions.labels, positive_at).map
        seconds = sum(result.seconds for result in chosen)
        gain = "" if not rows else _gain(first, predictions, positive_at)
        rows.append(
            (name, f"{score:.4f}", gain, f"{len(chosen)} pass{'es' if len(chosen) > 1 else ''}, {seconds:.1f} s")
        )
    heads = ("", "mAP", "gain over the first, 95 % interval", "cost")
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [heads, *rows]
    ]


def _parts(results: Sequence[PassResult]) -> list[tuple[str, list[PassResult]]]:
    """Named choices of passes: each model by itself, the first with each kind of view, all models without views, and
    everything.
    """
    members = list(dict.fromkeys(result.member.name for result in results))
    of = {name: next(result.member for result in results if result.member.name == name) for name in members}
    views = list(dict.fromkeys(result.view for result in results))
    flips, scales = [view for view in views if view.scale == 1], [view for view in views if not view.flip]
    first = members[0]
    parts = [(name, _chosen(results, of[name], [PLAIN])) for name in members]
    parts.append((f"{first}, mirrored too", _chosen(results, of[first], flips)))
    parts.append((f"{first}, in {len(scales)} sizes", _chosen(results, of[first], scales)))
    parts.append((f"{first}, all {len(views)} views", _chosen(results, of[first], views)))
    parts.append((f"all {len(members)} models", [result for result in results if result.view == PLAIN]))
    parts.append((f"all {len(members)} models, all {len(views)} views", list(results)))
    kept: dict[tuple[int, ...], tuple[str, list[PassResult]]] = {}
    for name, chosen in parts:
        kept.setdefault(tuple(map(id, chosen)), (name, chosen))
    return list(kept.values())


def _chosen(results: Sequence[PassResult], member: Member, views: Sequence[View]) -> list[PassResult]:
    return [result for result in results if result.member is member and result.view in views]


def _gain(first: Predictions, other: Predictions, positive_at: float) -> str:
    difference = paired_difference(first, other, positive_at=positive_at).overall.get("map")
    return "no attribute can be judged" if difference is None else str(difference)
