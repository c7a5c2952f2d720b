"""What a training leaves when its last epoch is done: its best model judged, a page about it, and its result."""

import json
from contextlib import suppress
from pathlib import Path

from attrtrain import bundle
from attrtrain.engine.evaluate import EvaluationStoppedError, evaluate
from attrtrain.engine.judging import headline, judge_split, predictions_of, write_judgement
from attrtrain.engine.state import RunState, Task
from attrtrain.engine.stopping import preempted
from attrtrain.files import atomic_write
from attrtrain.metrics.document import SHARDS, MetricsDocument
from attrtrain.report.for_trackers import describe_bundle, track_judgement
from attrtrain.report.run_directory import joined, read_run, write_run_report
from attrtrain.run_layout import BUNDLE, EVALUATION, REPORT, RESULT
from attrtrain.tracking.trackers import Tracker


def complete_run(task: Task, state: RunState) -> None:
    """Judges the bundle as anybody else would, and writes evaluation/, report.html and result.json from that.
    Collective.

    Raises:
        PreemptedError: some rank was asked to stop before the model was judged, which it is when the run is started
            again.
    """
    runtime, folder = task.runtime, task.folder
    runtime.accelerator.wait_for_everyone()  # the bundle is rank 0's to write
    model, card = bundle.read_bundle(folder)
    evaluation = None
    with suppress(EvaluationStoppedError):
        evaluation = evaluate(
            runtime,
            model.to(runtime.device),
            task.val_shards,
            image_px=card.image_px,
            framing=card.framing,
            positive_at=card.positive_at,
            channels_last=card.channels_last,
            categories=model.categories,
            workers=runtime.workers(task.config.data.workers),
            stop=task.stop,
        )
    if evaluation is None:  # the last checkpoint is there, and result.json is not: started again, the run is judged
        raise preempted(task, state)
    if not runtime.is_main:
        return
    predictions = predictions_of(evaluation, task.val_shards)
    document = judge_split(
        predictions,
        task.val_shards,
        task.train_shards,
        source={"model": folder.name, "epoch": str(state.best_epoch), SHARDS: joined(task.val_shards.folders)},
        positive_at=card.positive_at,
    )
    write_judgement(folder / EVALUATION, document, predictions)
    write_run_report(folder / REPORT, read_run(folder), task.val_shards)  # what `attrtrain report` would write
    _write_result(folder / RESULT, state, document)
    track_judgement(task.tracker, state.step, document, predictions, task.val_shards)
    task.tracker.log_artifact(describe_bundle(folder / BUNDLE, card, state.best_epoch))
    _finish_tracking(task.tracker, state, document)
    print(
        f"best epoch {state.best_epoch}: val {headline(document)}\n{folder / REPORT} shows it; {folder / BUNDLE} is the model"
    )


def _write_result(path: Path, state: RunState, document: MetricsDocument) -> None:
    """Writes result.json, whose fields `run_layout` tells, whole or not at all."""
    result = {
        "best_epoch": state.best_epoch,
        "val": {
            "map": document.overall["map"],
            "map_interval": document.intervals.get("map"),
            "prior_map": document.overall["prior_map"],
            "objects": document.objects,
        },
        "seconds": state.seconds,
    }
    with atomic_write(path) as file:
        file.write(json.dumps(result, indent=1).encode() + b"\n")


def _finish_tracking(tracker: Tracker, state: RunState, document: MetricsDocument) -> None:
    low, high = document.intervals.get("map") or (None, None)
    tracker.finish(
        {
            "best_epoch": state.best_epoch,
            "best_step": state.best_step,
            "val/map": document.overall["map"],
            "val/map_low": low,
            "val/map_high": high,
            "val/prior_map": document.overall["prior_map"],
            "seconds": state.seconds,
        }
    )
