"""Weights & Biases. Whatever goes wrong there is said once and never ends training."""

import netrc
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from attrtrain.tracking.trackers import NullTracker, Tracker, Values

WANDB_ID = "wandb_id"  # file in the run folder that holds the id of its W&B run

Mode = Literal["online", "offline", "disabled"]


def resolve_mode(asked: Literal["auto", "online", "offline", "disabled"]) -> tuple[Mode, str]:
    """What `auto` comes to, and a line that says so ("" where nothing was decided)."""
    if asked != "auto":
        return asked, ""
    if (mode := os.environ.get("WANDB_MODE")) in ("online", "offline", "disabled"):
        return mode, f"W&B: {mode}, as WANDB_MODE says"  # type: ignore[return-value]
    if _has_key():
        return "online", ""
    return (
        "offline",
        "W&B: no API key found, so this run is logged offline; `wandb login` once, or `wandb sync` the run folder later",
    )


def _has_key() -> bool:
    """Whether `wandb login` was ever done here, or a key is in the environment; asked without W&B, which would reach for the network."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC", str(Path.home() / ".netrc"))).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def start(mode: Mode, run_folder: Path, project: str, config: Mapping[str, Any]) -> Tracker:
    """Begins a W&B run, or goes on with the one whose id the run folder keeps."""
    if mode == "disabled":
        return NullTracker()
    import wandb

    id_file = run_folder / WANDB_ID
    if not id_file.exists():
        id_file.write_text(uuid.uuid4().hex[:8])
    run_id = id_file.read_text().strip()
    try:
        run = wandb.init(
            project=project,
            id=run_id,
            name=run_folder.resolve().name,
            group=run_id,  # offline restarts make a run each; the group holds them together
            dir=str(run_folder),
            config=dict(config),
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings=wandb.Settings(silent=True, console="off"),
        )
        for kind in ("train", "val"):
            run.define_metric(f"{kind}/*", step_metric="train/global_step")
    except Exception as error:  # no failure of a dashboard is worth a training run
        print(f"warning: W&B is left out of this run: {error}", file=sys.stderr)
        return NullTracker()
    return WandbTracker(run)


class WandbTracker:
    """Copies numbers to a W&B run as `train/loss`, `val/map`, … over `train/global_step`."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._failed = False

    def log(self, kind: str, step: int, values: Values) -> None:
        """Logs one line."""
        numbers = {f"{kind}/{name}": value for name, value in values.items() if value is not None}
        self._try(lambda: self._run.log({**numbers, "train/global_step": step}))

    def finish(self, summary: Values) -> None:
        """Writes the summary and closes the run."""
        self._try(lambda: self._run.summary.update(dict(summary)))
        self._try(self._run.finish)

    def _try(self, action: Any) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._failed = True
            print(f"warning: W&B stopped taking numbers ({error}); metrics.jsonl goes on", file=sys.stderr)
