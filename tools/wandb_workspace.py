"""Makes a W&B dashboard with the panels that matter for attrtrain's runs: a saved view of a project, for everybody in
it.

    python -m tools.wandb_workspace [--entity TEAM] [--project attrtrain] [--name attrtrain]

Needs the package wandb-workspaces (`pip install "attrtrain[wandb-workspaces]"`) and `wandb login`, or an API key in
WANDB_API_KEY. Names of metrics are those of `attrtrain.tracking.wandb_tracker`.
"""

import argparse
import os
import sys
from importlib.util import find_spec
from typing import Any

from attrtrain.errors import AttrtrainError, ConfigError
from attrtrain.tracking.trackers import EPOCH, GLOBAL_STEP
from attrtrain.tracking.wandb_tracker import has_key, project_of_environment
from attrtrain.wording import one_line

_CURVES: dict[str, dict[str, tuple[str, ...]]] = {
    "How good": {
        "mAP beside its prior": ("val/map", "val/prior_map"),
        "best mAP so far": ("val/best_map",),
        "loss, validation": ("val/loss",),
    },
    "Training": {
        "loss": ("train/loss",),
        "learning rate": ("train/lr",),
        "gradient norm": ("train/grad_norm",),
    },
    "Machine": {
        "objects a second": ("train/objects_per_second",),
        "share of the time waiting for data": ("train/data_wait_share",),
        "GPU memory, GiB": ("train/gpu_memory_gib",),
        "seconds an epoch": ("val/seconds",),
    },
}
_TABLES = ("val/attributes", "best/attributes")
_CHARTS = {"best/precision_recall": "Precision over recall", "best/calibration": "Calibration"}
_GALLERY = "best/gallery"


def build_workspace(entity: str, project: str, name: str) -> Any:
    """A `wandb_workspaces.workspaces.Workspace` that is not saved yet."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    curves = [
        ws.Section(
            name=section,
            is_open=True,
            panels=[
                wr.LinePlot(title=title, x=EPOCH if "seconds an epoch" in title else GLOBAL_STEP, y=list(metrics))
                for title, metrics in panels.items()
            ],
        )
        for section, panels in _CURVES.items()
    ]
    attributes = ws.Section(
        name="Attributes", is_open=True, panels=[wr.WeavePanelSummaryTable(table_name=table) for table in _TABLES]
    )
    best = ws.Section(
        name="Best epoch",
        is_open=True,
        panels=[
            *(
                wr.CustomChart.from_table(
                    f"{key}_table",
                    chart_fields={"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"},
                    chart_strings={"title": title},
                )
                for key, title in _CHARTS.items()
            ),
            wr.MediaBrowser(title="Crops and what is said of them", media_keys=[_GALLERY], num_columns=4),
        ],
    )
    return ws.Workspace(entity=entity, project=project, name=name, sections=[curves[0], attributes, best, *curves[1:]])


def save_workspace(entity: str, project: str, name: str) -> str:
    """Saves a new view; returns its URL.

    Args:
        entity: team or account; "" for that of the login.

    Raises:
        ConfigError: the package is not installed, or nobody is logged in.
        AttrtrainError: the server refused it.
    """
    if find_spec("wandb_workspaces") is None:
        raise ConfigError('the package wandb-workspaces is not installed; `pip install "attrtrain[wandb-workspaces]"`')
    if not has_key():  # else W&B would ask for one, and wait
        raise ConfigError("no W&B login; `wandb login` once, or set WANDB_API_KEY")
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    try:
        owner = entity or wandb.Api().default_entity or ""
        return str(build_workspace(owner, project, name).save().url)
    except Exception as error:
        raise AttrtrainError(f"W&B took no workspace: {one_line(error)}") from None


def main() -> int:
    """Parses the command line; a mistake becomes one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--entity", default=os.environ.get("WANDB_ENTITY", ""), help="team or account; by default the login's own"
    )
    parser.add_argument("--project", default=project_of_environment())
    parser.add_argument("--name", default="attrtrain", help="what the view is called")
    arguments = parser.parse_args()
    try:
        print(save_workspace(arguments.entity, arguments.project, arguments.name))
    except AttrtrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
