"""Trackers without any service: metrics.jsonl, several as one, and one that fails."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm
from wandb.sdk.lib.wbauth import write_netrc_auth

from attrtrain.config.schema import TrackConfig
from attrtrain.errors import AttrtrainError
from attrtrain.tracking import tensorboard_tracker, wandb_tracker
from attrtrain.tracking.jsonl_tracker import JsonlTracker
from attrtrain.tracking.trackers import (
    Artifact,
    Curves,
    Forgiving,
    NullTracker,
    Picture,
    Table,
    Tracker,
    Trackers,
    warn,
)

EVERYTHING = {
    "log": ("train", 1, {"loss": 1.0}),
    "log_table": ("t", 1, Table(("a",), [(1,)])),
    "log_curves": ("c", 1, Curves("c", "x", {"y": ([0], [1])})),
    "log_pictures": ("p", 1, [Picture(b"", "none")]),
    "log_artifact": (Artifact("a", "dataset", {}, {}),),
    "alert": ("title", "text"),
    "finish": ({"map": 0.5}, "preempted"),
}


class Notebook(NullTracker):
    """Writes down what it is told, until it is told something it cannot stand."""

    def __init__(self, fails_on: str = "") -> None:
        self.told: list[tuple[str, tuple]] = []
        self.fails_on = fails_on

    def __getattribute__(self, name: str):
        if name not in EVERYTHING:
            return super().__getattribute__(name)

        def note(*arguments: object) -> None:
            self.told.append((name, arguments))
            if name == self.fails_on:
                raise OSError("no room\nanywhere")

        return note


def tell(tracker: Tracker) -> None:
    for name, arguments in EVERYTHING.items():
        getattr(tracker, name)(*arguments)


def test_every_tracker_is_told_everything() -> None:
    notebooks = [Notebook(), Notebook()]
    tell(Trackers([notebooks[0], Forgiving(notebooks[1], "a friend"), NullTracker()]))
    assert notebooks[0].told == notebooks[1].told == list(EVERYTHING.items())


@pytest.mark.parametrize("fails_on", [name for name in EVERYTHING if name != "finish"])
def test_a_tracker_that_fails_is_said_once_and_told_no_more_and_closed(
    fails_on: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, other = Notebook(fails_on), Notebook()
    trackers = Trackers([Forgiving(broken, "W&B"), other])
    tell(trackers)
    assert (
        capsys.readouterr().err
        == "warning: W&B stopped taking numbers (no room anywhere); metrics.jsonl has all of them\n"
    )
    before = list(EVERYTHING)[: list(EVERYTHING).index(fails_on) + 1]
    assert [name for name, _ in broken.told] == [*before, "finish"]
    assert other.told == list(EVERYTHING.items())


def test_a_tracker_that_fails_to_close_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    Forgiving(Notebook("finish"), "W&B").finish({}, "failed")
    assert capsys.readouterr().err.count("\n") == 1


def test_metrics_jsonl_forgets_what_will_be_logged_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = JsonlTracker(path, 0, 0)
    for step in range(1, 7):
        first.log("train", step, {"epoch": (step + 2) // 3, "loss": 1 / step})
        if step % 3 == 0:
            first.log("val", step, {"epoch": step // 3, "map": float("nan"), "prior_map": None})
    with path.open("a") as file:
        file.write("7\n[]\n{}\n\udcff\n".encode(errors="surrogateescape").decode(errors="replace"))  # none of them ours
        file.write('{"kind": "train", "step": 7, "lo')  # the line a killed process was writing
    assert JsonlTracker(path, 6, 1).kept == [json.loads(line) for line in path.read_text().splitlines()]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [
        *(("train", step) for step in (1, 2, 3)), ("val", 3), *(("train", step) for step in (4, 5, 6)),
    ]  # fmt: skip
    assert lines[3] == {"kind": "val", "step": 3, "epoch": 1, "map": None, "prior_map": None}


def test_metrics_jsonl_that_somebody_edited_loses_no_line_that_says_where_it_lies(tmp_path: Path) -> None:
    ours = [
        {"kind": "train", "step": 2, "epoch": "one", "loss": 0.5},
        {"kind": "val", "step": 3, "map": 0.5},
        {"kind": "val", "step": 3, "epoch": None, "map": 0.6},
        {"kind": "val", "step": 3, "epoch": 1, "map": 0.7},
    ]
    later = [{"kind": "val", "step": 9, "map": 0.5}, {"kind": "val", "step": 3, "epoch": 2, "map": 0.5}]
    not_ours = [{"kind": "train", "step": step} for step in ("2", None, [2], True)] + [{"kind": ["val"], "step": 2}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (*not_ours, *ours, *later)))
    tracker = JsonlTracker(path, 6, 1)
    assert tracker.kept == [json.loads(line) for line in path.read_text().splitlines()] == ours
    assert tracker.dropped == len(later)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path / "metrics.jsonl", 0, 0)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(AttrtrainError, match=r"metrics\.jsonl: No space left on device; free space"):
        tracker.log("train", 1, {"loss": 1.0})


def test_auto_is_online_only_with_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    mode, said = wandb_tracker.resolve_mode("auto")
    assert mode == "offline" and "wandb login" in said
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    assert wandb_tracker.resolve_mode("auto") == ("online", "")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert wandb_tracker.resolve_mode("auto")[0] == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert wandb_tracker.resolve_mode("auto")[0] == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_tracker.resolve_mode("auto")[0] == "disabled"
    assert wandb_tracker.resolve_mode("online") == ("online", "")


@pytest.mark.parametrize(
    "content",
    [None, b"machine without a word that netrc knows\n", "machine example.org password gr\u00fcn\n".encode("latin-1")],
    ids=["a folder", "another syntax", "another encoding"],
)
def test_a_netrc_that_nobody_can_read_holds_no_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    """Every training looks for a key there, and most have nothing to do with W&B."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(path))
    path.mkdir() if content is None else path.write_bytes(content)
    mode, said = wandb_tracker.resolve_mode("auto")
    assert mode == "offline" and "no API key found" in said
    monkeypatch.setenv("WANDB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    assert wandb_tracker.resolve_mode("auto") == ("online", "")


def test_a_key_of_a_server_of_ones_own_is_found_where_wandb_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    servers = [f"https://wandb.example.org{port}" for port in ("", ":8443", ":8080")]
    write_netrc_auth(host=servers[1], api_key="k" * 40)
    write_netrc_auth(host=servers[2], api_key="k" * 40)
    for server in servers:
        monkeypatch.setenv("WANDB_BASE_URL", server)
        assert wandb_tracker.has_key() == (server != servers[0])
    monkeypatch.delenv("WANDB_BASE_URL")
    assert not wandb_tracker.has_key()
    (tmp_path / "settings").write_text(f"[default]\nbase_url = {servers[1]}\n")  # as `wandb login --host` does
    assert wandb_tracker.resolve_mode("auto") == ("online", "")
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text(f"[default]\nbase_url = {servers[0]}\n")
    assert not wandb_tracker.has_key()
    (tmp_path / "wandb" / "settings").unlink()
    (tmp_path / "settings").write_text("no settings")
    assert not wandb_tracker.has_key()


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_auto_heeds_what_wandbs_own_commands_have_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandb").mkdir()
    settings = tmp_path / "wandb" / "settings"
    settings.write_text(f"[default]\nmode = {mode}\n")  # as `wandb offline` and `wandb disabled` do
    resolved, said = wandb_tracker.resolve_mode("auto")
    assert resolved == mode and "`wandb online`" in said
    assert wandb_tracker.resolve_mode("online") == ("online", "")
    settings.write_text("[default]\n\n")  # as `wandb online` leaves it
    assert wandb_tracker.resolve_mode("auto") == ("online", "")
    monkeypatch.setenv("WANDB_MODE", "online")
    settings.write_text(f"[default]\nmode = {mode}\n")
    assert wandb_tracker.resolve_mode("auto")[0] == "online"


def test_tensorboard_that_cannot_write_is_left_out_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    tell(tensorboard_tracker.start(tmp_path, 0, [], ""))
    assert capsys.readouterr().err.startswith("warning: TensorBoard is left out of this run: ")


def test_tensorboard_forgets_what_a_run_logs_again_from_its_very_start(tmp_path: Path) -> None:
    """As one that is killed before its first checkpoint."""
    for loss in (0.9, 0.8):
        tracker = tensorboard_tracker.start(tmp_path, 0, [], "")
        for step in (3, 6):
            tracker.log("train", step, {"loss": loss})
        tracker.finish({})
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (3, pytest.approx(0.8)),
        (6, pytest.approx(0.8)),
    ]


def test_tensorboard_turned_on_later_shows_the_lines_from_before(tmp_path: Path) -> None:
    kept = [{"kind": "train", "step": step, "loss": step / 10} for step in (1, 2, 3)]
    tracker = tensorboard_tracker.start(tmp_path, 3, kept, "")
    tracker.log("train", 4, {"loss": 0.4})
    tracker.finish({}, "finished")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (step, pytest.approx(step / 10)) for step in (1, 2, 3, 4)
    ]


def test_tensorboard_goes_on_after_the_step_of_a_checkpoint(tmp_path: Path) -> None:
    """Of what was logged from there on nothing is shown twice, and what belongs to the checkpoint stays."""
    lines = [{"kind": "train", "step": step, "loss": step / 10} for step in (1, 2, 3)]
    lines.append({"kind": "val", "step": 3, "map": 0.5})
    killed = tensorboard_tracker.start(tmp_path, 0, [], "")
    for line in (*lines, {"kind": "train", "step": 4, "loss": 0.9}):
        killed.log(line["kind"], line["step"], {name: line[name] for name in line if name not in ("kind", "step")})
    killed.finish({}, "failed")
    tracker = tensorboard_tracker.start(tmp_path, 3, lines, "")
    for step in (4, 5):
        tracker.log("train", step, {"loss": step / 10})
    tracker.finish({})
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    shown = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert shown == [(step, pytest.approx(step / 10)) for step in (1, 2, 3, 4, 5)]
    assert [(event.step, event.value) for event in events.Scalars("val/map")] == [(3, 0.5)]


def test_tensorboard_shows_pictures_at_the_step_they_are_of(tmp_path: Path) -> None:
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 4), (200, 30, 30)).save(jpeg, "JPEG")
    tracker = tensorboard_tracker.start(tmp_path, 0, [], "")
    tracker.log_pictures("best/gallery", 7, [Picture(jpeg.getvalue(), "red")] * 2)
    tracker.finish({})
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    for tag in ("best/gallery/00", "best/gallery/01"):
        assert [(event.step, event.width, event.height) for event in events.Images(tag)] == [(7, 8, 4)]


def test_a_run_that_the_agent_of_a_sweep_starts_has_the_agent_s_id_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def begin(run_id: str, *_: object) -> None:
        begun.append(run_id)
        raise OSError("no more of it is needed here")

    monkeypatch.setattr(wandb_tracker, "_init", begin)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    for agents in ("trial17", "trial18"):  # another agent, that goes on with the same run
        monkeypatch.setenv("WANDB_RUN_ID", agents)
        wandb_tracker.start("offline", tmp_path, [], TrackConfig(), {})
    assert begun == ["trial17", "trial17"] and wandb_tracker.read_id(tmp_path) == "trial17"
    monkeypatch.delenv("WANDB_RUN_ID")
    (tmp_path / "other").mkdir()
    wandb_tracker.start("offline", tmp_path / "other", [], TrackConfig(), {})
    assert len(begun[-1]) == 8 and begun[-1] != "trial17"


@pytest.mark.parametrize("first", ["trial17", "cs231n-coursework-1", "my-course", "a-course2b"])
def test_whatever_the_id_of_a_run_each_course_that_it_leaves_is_counted(tmp_path: Path, first: str) -> None:
    wandb_tracker.write_id(tmp_path, first)
    for course in (2, 3):
        wandb_tracker.leave_course(tmp_path)
        assert wandb_tracker.read_id(tmp_path) == f"{first}-course{course}"
        assert wandb_tracker._parts(f"{first}-course{course}")[0] == first


def test_a_warning_is_a_line_of_its_own_also_while_a_progress_bar_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with tqdm(total=3, desc="epoch 1", ncols=80) as bar:
        bar.update()
        warn("W&B is gone")
        bar.refresh()
    shown = [line.split("\r")[-1] for line in capsys.readouterr().err.split("\n")]
    assert shown[0] == "warning: W&B is gone" and shown[1].startswith("epoch 1")
