"""A run without training, in a process of its own: opens trackers as training does, and tells them something of every
kind.

    python tracked_numbers.py RUN MODE FROM TO END

Logs the steps FROM + 1 to TO, goes on where an earlier one stood at step FROM, and ends as END says: finished,
preempted, failed, or killed. Every fourth step is an evaluation's, too. MODE is that of W&B. With WAIT_FOR in the
environment, it waits for that file before it ends.
"""

import io
import os
import signal
import sys
import time
from pathlib import Path

from PIL import Image

from attrtrain.config.schema import TrackConfig
from attrtrain.tracking import tensorboard_tracker, wandb_tracker
from attrtrain.tracking.jsonl_tracker import JsonlTracker
from attrtrain.tracking.trackers import Artifact, Curves, Picture, Table, Trackers

CONFIG = {"optim": {"lr": 0.1}, "run": {"seed": 3}}
TABLE = Table(("attribute", "AP", "positives"), [("furry", 0.25, 7), ("striped", None, 0)])


def main(run: Path, mode: wandb_tracker.Mode, begin: int, to: int, end: str) -> None:
    """Does it."""
    run.mkdir(parents=True, exist_ok=True)
    lines = JsonlTracker(run / "metrics.jsonl", begin, begin // 4)
    track = TrackConfig(tags=["small", "drawn"], group="", notes="by a test")
    tracker = Trackers(
        [
            lines,
            wandb_tracker.start(mode, run, lines.kept, track, CONFIG),
            tensorboard_tracker.start(run, begin, lines.kept, "optim: {lr: 0.1}"),
        ]
    )
    (run / "weights.bin").write_bytes(b"weights")
    tracker.log_artifact(Artifact("shards-drawn ü", "dataset", {"manifest.json": b'{"shards": 2}'}, {"objects": 4}))
    for step in range(begin + 1, to + 1):
        epoch = (step + 3) // 4
        loss = float("nan") if step == 3 else 1 / step
        tracker.log("train", step, {"epoch": epoch, "lr": 0.1 / step, "loss": loss, "grad_norm": 2.0})
        if step % 4 == 0:
            tracker.log("val", step, {"epoch": epoch, "map": step / 100, "prior_map": 0.01})
            tracker.log_table("val/attributes", step, TABLE)
    while (awaited := os.environ.get("WAIT_FOR")) and not Path(awaited).exists():
        time.sleep(0.05)
    if end == "killed":
        time.sleep(2.5)  # twice what W&B's client may keep in memory
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "failed":
        tracker.alert("training failed", "the loss is not a finite number")
    if end == "finished":
        tracker.log_curves(
            "best/curve", to, Curves("a curve", "recall", {"all": ([0, 1], [1, 0.5]), "furry": ([0], [1])})
        )
        tracker.log_pictures("best/gallery", to, [_picture(30, 20, "a dog"), _picture(10, 40, "a cat")])
        tracker.log_artifact(Artifact("bundle", "model", {"weights.bin": run / "weights.bin"}, {"map": 0.5}))
    summary = {"best_epoch": to // 4, "val/map": 0.5, "nothing": None} if end == "finished" else {}
    tracker.finish(summary, end)  # type: ignore[arg-type]


def _picture(width: int, height: int, caption: str) -> Picture:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, "PNG")
    return Picture(buffer.getvalue(), caption)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])  # type: ignore[arg-type]
