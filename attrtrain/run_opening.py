"""The run directory of a training that begins or goes on, and the trackers that are told of it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from attrtrain import __version__, checkpoint
from attrtrain.auditing.quick import QuickAudit
from attrtrain.config.changes import changes, changes_numbers
from attrtrain.config.load import dump_config
from attrtrain.config.schema import TrainConfig
from attrtrain.engine.state import RunState, Task
from attrtrain.engine.stopping import is_finished
from attrtrain.errors import ConfigError
from attrtrain.files import atomic_write, remove_partials
from attrtrain.report.for_trackers import describe_shards
from attrtrain.report.run_directory import read_config
from attrtrain.run_layout import BUNDLES, CONFIG, EVALUATION, HISTORY, RESULT
from attrtrain.tracking import tensorboard_tracker, wandb_tracker
from attrtrain.tracking.jsonl_tracker import JsonlTracker
from attrtrain.tracking.trackers import Tracker, Trackers


def open_folder(task: Task, state: RunState, audit: QuickAudit | None, source: Path | None) -> Tracker:
    """Writes the run's configuration and makes its trackers, which are told what the run is. Main process only.

    Args:
        audit: of a new run.
        source: the checkpoint of one that goes on.
    """
    config, folder = task.config, task.folder
    for place in (folder, folder / EVALUATION, folder / BUNDLES):
        remove_partials(place)  # of a training that was killed while it wrote
    settings, leaves_course = dump_config(config), source is not None and _other_numbers(config, folder, source)
    (folder / RESULT).unlink(missing_ok=True)  # of fewer epochs: whoever waits for it waits for the last
    # Of a run that is trained already what is left to do, judging, follows from the bundle alone.
    if not is_finished(config, state) or not (folder / CONFIG).exists():
        with atomic_write(folder / CONFIG) as file:
            file.write(settings.encode())
    mode, note = wandb_tracker.resolve_mode(config.track.wandb)
    if note:
        print(note, flush=True)
    lines = JsonlTracker(folder / HISTORY, state.step, state.epoch)
    if leaves_course and lines.dropped:
        wandb_tracker.leave_course(folder)
    trackers: list[Tracker] = [lines, wandb_tracker.start(mode, folder, lines.kept, config.track, _known(task, audit))]
    if config.track.tensorboard:
        trackers.append(tensorboard_tracker.start(folder, state.step, lines.kept, settings))
    tracker = Trackers(trackers)
    tracker.log_artifact(describe_shards(task.train_shards))
    if audit is not None and audit.verdict == "noise":
        tracker.alert("labels look like noise", f"{config.run.dir}: {audit.line}")
    return tracker


def _other_numbers(config: TrainConfig, folder: Path, source: Path) -> bool:
    """Whether numbers from here on may be others than those that were logged before: settings differ from the
    checkpoint's, or from those that the folder was last trained with. A line is the mean over the steps since the line
    before, so it is another number too where lines are of other steps.
    """
    try:
        last = read_config(folder / CONFIG)[1]
    except ConfigError:
        return True
    before = [checkpoint.load_state(source)["config"], *([last] if last else [])]
    return any(
        changes_numbers(settings, config) or ("track", "every_steps") in changes(settings, config)
        for settings in before
    )


def _known(task: Task, audit: QuickAudit | None) -> dict[str, Any]:
    """What runs are told apart by: the configuration, and what it came to here."""
    facts = {
        "attrtrain": __version__,
        "precision": task.runtime.precision,
        "device": task.runtime.device.type,
        "world_size": task.order.world_size,
        "steps_per_epoch": task.order.steps_per_epoch,
        "attributes": len(task.train_shards.vocabulary),
        "train_objects": len(task.train_shards),
        "val_objects": len(task.val_shards),
        "data_fingerprint": task.train_shards.fingerprint,
    }
    return {**asdict(task.config), "facts": {**facts, **({"audit": audit.verdict} if audit else {})}}
