"""Weights & Biases. Whatever goes wrong there is said once and never ends training."""

import configparser
import io
import netrc
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from attrtrain.config.schema import TrackConfig
from attrtrain.files import atomic_write
from attrtrain.run_layout import WANDB, WANDB_ID
from attrtrain.tracking.trackers import (
    EPOCH,
    GLOBAL_STEP,
    Artifact,
    Curves,
    Forgiving,
    NullTracker,
    Outcome,
    Picture,
    Summary,
    Table,
    Tracker,
    Values,
    finite,
    log_line,
    warn,
)
from attrtrain.wording import one_line

Mode = Literal["online", "offline", "disabled"]

_COURSE = "-course"  # in the id of a run that has left its first course, before which one it is

_LINE = "metrics_line"  # hidden: which line of metrics.jsonl a row of the history is

_INIT_SECONDS = "20"  # unless W&B's own WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT say otherwise
_FINISH_SECONDS = "60"  # a batch system's warning comes but a minute or two before the end
_EXIT_CODES: dict[Outcome, int] = {"finished": 0, "preempted": 85, "failed": 1}


def resolve_mode(asked: Literal["auto", "online", "offline", "disabled"]) -> tuple[Mode, str]:
    """What `auto` comes to, and a line that says so ("" where nothing was decided)."""
    if asked != "auto":
        return asked, ""
    if (mode := os.environ.get("WANDB_MODE")) in ("online", "offline", "disabled"):
        return mode, f"W&B: {mode}, as WANDB_MODE says"  # type: ignore[return-value]  # one of the literals
    if (mode := _kept("mode")) in ("offline", "disabled"):  # by `wandb offline` and `wandb disabled`
        return mode, f"W&B: {mode}, as its own settings here say; `wandb online` undoes that"  # type: ignore[return-value]  # one of the literals
    if has_key():
        return "online", ""
    return (
        "offline",
        "W&B: no API key found, so this run is logged offline; `wandb login` once, or `wandb sync` the run folder later",
    )


def has_key() -> bool:
    """Whether `wandb login` was ever done here, or a key is in the environment; asked without W&B, which would reach
    for the network.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = os.environ.get("WANDB_BASE_URL") or _kept("base_url") or "https://api.wandb.ai"
    host = urlsplit(server).netloc  # with its port, as W&B writes it down
    try:
        return netrc.netrc(os.environ.get("NETRC", str(Path.home() / ".netrc"))).authenticators(host) is not None
    except (OSError, UnicodeDecodeError, netrc.NetrcParseError):
        return False


def _kept(setting: str) -> str:
    """One of W&B's own settings, which its commands keep in files, such as `wandb login --host`; "" where it is not."""
    own = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser() / "settings"
    kept = configparser.ConfigParser()
    with suppress(configparser.Error, UnicodeDecodeError):
        kept.read([own, Path(os.environ.get("WANDB_DIR") or ".", WANDB, "settings")])  # the later one counts
        return kept.get("default", setting, fallback="")
    return ""


def project_of_environment() -> str:
    """The project of runs whose configuration names none."""
    return os.environ.get("WANDB_PROJECT") or "attrtrain"


def start(
    mode: Mode, run_folder: Path, kept: Sequence[Mapping[str, Any]], track: TrackConfig, config: Mapping[str, Any]
) -> Tracker:
    """Begins a W&B run, or goes on with the one whose id the run folder keeps. Where a server does not answer, or does
    not know the key, offline.

    Args:
        mode: as resolved.
        run_folder: where W&B keeps its files, below `wandb`.
        kept: lines of metrics.jsonl up to where the run begins or goes on.
        track: project, group, tags and notes.
        config: what is known of the run from the beginning.
    """
    if mode == "disabled":
        return NullTracker()
    # Else what is uploaded later waits in the home folder, which on a cluster is small and not what is copied along.
    os.environ.setdefault("WANDB_DATA_DIR", str((run_folder / WANDB).resolve()))
    try:
        begin = partial(_init, _keep_id(run_folder), run_folder, track, config)
        run = _try_online(begin, run_folder) if mode == "online" else None
        run = run or begin("offline")
        _define_metrics(run)
        # A server has what reached it before the run was stopped; what came before is in the offline files of then.
        there = len(kept) if run.settings.mode == "offline" else int(run.summary.get(_LINE) or 0)
        tracker = WandbTracker(run, kept, there)
    except Exception as error:
        warn(f"W&B is left out of this run: {one_line(error)}")
        return NullTracker()
    return Forgiving(tracker, "W&B")


def _keep_id(run_folder: Path) -> str:
    """The run's id: kept from before, or given by the agent of a sweep, or a new one."""
    if not (known := read_id(run_folder)):
        write_id(run_folder, known := os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8])
    return known


def read_id(run_folder: Path) -> str:
    """The id of a run, "" where it has none."""
    id_file = run_folder / WANDB_ID
    return id_file.read_text(encoding="utf-8").strip() if id_file.exists() else ""


def write_id(run_folder: Path, run_id: str) -> None:
    """Keeps the id of a run, whole or not at all."""
    with atomic_write(run_folder / WANDB_ID) as file:
        file.write(run_id.encode())


def leave_course(run_folder: Path) -> None:
    """Lets a run that will log other numbers for steps which W&B may have already be another run there, in the group of
    the first: W&B takes no number back.
    """
    if known := read_id(run_folder):
        first, course = _parts(known)
        write_id(run_folder, f"{first}{_COURSE}{course + 1}")


def _parts(run_id: str) -> tuple[str, int]:
    """The id of a run's first course, and which course it is on. An id that people gave may have `-course` within."""
    found = re.fullmatch(rf"(.*){_COURSE}(\d+)", run_id)
    return (found[1], int(found[2])) if found else (run_id, 1)


def _try_online(begin: Callable[[Mode], Any], run_folder: Path) -> Any | None:
    try:
        run = begin("online")
    except Exception as error:
        warn(
            f"W&B cannot be used ({one_line(error)}), so this run is logged offline; later: `wandb sync {run_folder}/wandb/offline-run-*`"
        )
        _stop_service()  # which believes that the run has begun
        return None
    print(f"W&B: {run.url}", flush=True)
    return run


def _init(run_id: str, run_folder: Path, track: TrackConfig, config: Mapping[str, Any], mode: Mode) -> Any:
    import wandb

    wandb.setup(wandb.Settings(silent=True))  # before anything that would speak of credentials
    return wandb.init(
        project=track.project or project_of_environment(),
        id=run_id,
        name=os.environ.get("WANDB_NAME") or run_folder.resolve().name,
        group=track.group or os.environ.get("WANDB_RUN_GROUP") or _parts(run_id)[0],
        tags=track.tags or None,  # None leaves it to WANDB_TAGS and WANDB_NOTES
        notes=track.notes or None,
        dir=str(run_folder),
        config=dict(config),
        allow_val_change=True,  # a run may go on with other settings
        mode=mode,
        resume="allow",  # also offline: synced, the parts of a run that was interrupted make one
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", _INIT_SECONDS)),
            finish_timeout=float(os.environ.get("WANDB_FINISH_TIMEOUT", _FINISH_SECONDS)),
            finish_timeout_raises=True,
            x_transaction_log_flush_interval=1.0,  # what is not written when a process is killed is lost
        ),
    )


def _stop_service() -> None:
    """Ends W&B's own process. Left to W&B, that happens at the interpreter's end, with a traceback where the process is
    gone already.
    """
    import wandb

    with suppress(Exception, SystemExit):  # it exits with that process's code
        wandb.teardown()


def _define_metrics(run: Any) -> None:
    run.define_metric(GLOBAL_STEP, hidden=True)
    run.define_metric(EPOCH, hidden=True)
    run.define_metric(_LINE, hidden=True)
    for kind in ("train", "val"):
        run.define_metric(f"{kind}/*", step_metric=GLOBAL_STEP)


class WandbTracker:
    """Copies to a W&B run: numbers as `train/loss`, `val/map`, … over `train/global_step` and `epoch`, the rest as
    W&B's own media.
    """

    def __init__(self, run: Any, kept: Sequence[Mapping[str, Any]], there: int) -> None:
        """Catches up with metrics.jsonl.

        Args:
            run: of W&B.
            kept: lines of metrics.jsonl so far.
            there: how many lines the run has already: some of `kept`, or more, which will be logged again and are
                passed over.
        """
        self._run = run
        self._lines, self._there = 0, there
        for line in kept:
            log_line(self, line)

    def log(self, kind: str, step: int, values: Values) -> None:
        """Logs one line, unless it is there."""
        self._lines += 1
        if self._lines <= self._there:
            return
        numbers = {EPOCH if name == "epoch" else f"{kind}/{name}": value for name, value in finite(values)}
        self._log(step, {**numbers, _LINE: self._lines})

    def log_table(self, name: str, step: int, table: Table) -> None:
        """Logs a `wandb.Table`."""
        import wandb

        rows = [list(row) for row in table.rows]
        self._log(step, {name: wandb.Table(columns=list(table.columns), data=rows, allow_mixed_types=True)})

    def log_curves(self, name: str, step: int, curves: Curves) -> None:
        """Logs a line plot."""
        import wandb

        xs, ys = ([list(line[axis]) for line in curves.lines.values()] for axis in (0, 1))
        chart = wandb.plot.line_series(xs, ys, keys=list(curves.lines), title=curves.title, xname=curves.x_name)
        self._log(step, {name: chart})

    def log_pictures(self, name: str, step: int, pictures: Sequence[Picture]) -> None:
        """Logs pictures as JPEG, on squares of one size: W&B shows others distorted."""
        import wandb
        from PIL import Image, ImageOps

        if not pictures:
            return
        opened = []
        for picture in pictures:
            with Image.open(io.BytesIO(picture.content)) as image:
                opened.append(image.convert("RGB"))
        side = max(max(image.size) for image in opened)
        images = [
            wandb.Image(ImageOps.pad(image, (side, side)), caption=picture.caption, file_type="jpg")
            for image, picture in zip(opened, pictures, strict=True)
        ]
        self._log(step, {name: images})

    def log_artifact(self, artifact: Artifact) -> None:
        """Logs files: a data set as what the run used, a model as what it made. Files are read where they are, not
        copied.
        """
        import wandb

        own = artifact.kind == "model"
        name = f"{artifact.name}-{self._run.id}" if own else artifact.name
        name = re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:128]  # the client raises on any other letter, such as ü
        made = wandb.Artifact(name, type=artifact.kind, metadata=dict(artifact.facts))
        for file_name, content in artifact.files.items():
            if isinstance(content, bytes):
                with made.new_file(file_name, mode="wb") as file:
                    file.write(content)
            else:
                made.add_file(str(content), name=file_name, policy="immutable", skip_cache=True)
        if own:
            self._run.log_artifact(made, aliases=["best", "latest"])
        else:
            # What use_artifact does with an artifact that is not uploaded yet. Itself it refuses to work offline, and
            # online it waits for the upload.
            self._run._log_artifact(made, aliases=["latest"], is_user_created=True, use_after_commit=True)

    def alert(self, title: str, text: str) -> None:
        """Sends an alert, which W&B turns into mail or a Slack message."""
        self._run.alert(title[:63], text, level="ERROR")

    def finish(self, summary: Summary, outcome: Outcome = "finished") -> None:
        """Writes the summary and closes the run. One that was preempted is told to W&B as such, whose sweeps then start
        it again.
        """
        folder = self._run.settings.sync_dir
        try:
            self._run.summary.update({name: value for name, value in summary.items() if value is not None})
            if outcome == "preempted":
                self._run.mark_preempting()
            self._run.finish(exit_code=_EXIT_CODES[outcome])
        except TimeoutError:
            raise TimeoutError(f"not all was uploaded in time; later: `wandb sync --include-online {folder}`") from None
        finally:
            _stop_service()

    def _log(self, step: int, content: Mapping[str, Any]) -> None:
        self._run.log({**content, GLOBAL_STEP: step})
