"""TensorBoard. Its event files lie in RUN/tensorboard; `tensorboard --logdir runs` shows them."""

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from attrtrain.errors import ConfigError
from attrtrain.run_layout import TENSORBOARD
from attrtrain.tracking.trackers import (
    Forgiving,
    NullTracker,
    Outcome,
    Picture,
    Summary,
    Tracker,
    Values,
    finite,
    log_line,
    warn,
)
from attrtrain.wording import one_line


def require_tensorboard() -> None:
    """Asks for the package before anything is begun.

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec("tensorboard") is None:
        raise ConfigError(
            'track.tensorboard: the package tensorboard is not installed; `pip install "attrtrain[tensorboard]"`, or leave it off'
        )


def start(run_folder: Path, step: int, kept: Sequence[Mapping[str, Any]], config: str) -> Tracker:
    """Begins event files, or goes on with those that are there.

    Args:
        run_folder: the run directory.
        step: optimizer steps taken where the run begins or goes on.
        kept: lines of metrics.jsonl up to there.
        config: the run's configuration as YAML.
    """
    from torch.utils.tensorboard import SummaryWriter

    try:
        # Whatever was written from this step on is passed over by readers; what belongs to it is written again.
        folder = run_folder / TENSORBOARD
        is_new = not folder.exists()  # which a run that went on before without TensorBoard catches up with
        writer = SummaryWriter(str(folder), purge_step=None if is_new else step)
        tracker = TensorBoardTracker(writer)
        for line in kept:
            if is_new or line["step"] == step:
                log_line(tracker, line)
        writer.add_text("config", f"```yaml\n{config}\n```", step)
    except Exception as error:
        warn(f"TensorBoard is left out of this run: {one_line(error)}")
        return NullTracker()
    return Forgiving(tracker, "TensorBoard")


class TensorBoardTracker(NullTracker):
    """Copies to TensorBoard what it has a view for: numbers as `train/loss`, `val/map`, … over optimizer steps,
    pictures, and alerts as text.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, kind: str, step: int, values: Values) -> None:
        """Writes one line, and flushes: a killed run loses none."""
        for name, value in finite(values):
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        self._writer.flush()

    def log_pictures(self, name: str, step: int, pictures: Sequence[Picture]) -> None:
        """Writes pictures."""
        from PIL import Image

        for number, picture in enumerate(pictures):
            with Image.open(io.BytesIO(picture.content)) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._writer.add_image(f"{name}/{number:02}", pixels, step, dataformats="HWC")

    def alert(self, title: str, text: str) -> None:
        """Writes text."""
        self._writer.add_text("alert", f"**{title}**: {text}")

    def finish(self, summary: Summary, outcome: Outcome = "finished") -> None:
        """Writes the summary as text and closes the files."""
        if summary:
            lines = "\n".join(f"| {name} | {value} |" for name, value in summary.items())
            self._writer.add_text("summary", f"| | |\n|---|---|\n{lines}")
        self._writer.close()
