"""A model as a folder for others: a bundle with its card, laid out as a repository of the Hugging Face Hub.

    FOLDER/
      README.md             the model card
      model.json            ┐ the bundle, as it is: `--model FOLDER` takes it
      weights.safetensors   ┘
      metrics.json          every score of the evaluation the card tells of, where there is one

No photograph, no prediction and no path of the machine it was trained on is among them.
"""

import shutil
from pathlib import Path

from attrtrain import bundle
from attrtrain.errors import ConfigError
from attrtrain.files import atomic_folder
from attrtrain.metrics.document import METRICS, SHARDS, write_metrics
from attrtrain.publishing.published_model import PublishedModel

README = "README.md"
NAMES = (README, bundle.CARD, bundle.WEIGHTS, METRICS)


def write_hub_folder(folder: Path, model: PublishedModel, card: str) -> None:
    """Writes the folder whole or not at all. One that is there is replaced if it holds nothing else.

    Args:
        folder: where to.
        model: what is published.
        card: README.md.

    Raises:
        ConfigError: `folder` holds other files, or cannot be written.
        WeightsError: the model cannot be loaded from what was written, so nothing is left of it.
    """
    if folder.resolve() == Path.cwd():
        raise ConfigError(f"--to {folder}: is the folder this was called in, which cannot be replaced; name another")
    _require_ours(folder)
    try:
        with atomic_folder(folder) as partial:
            for name in (bundle.CARD, bundle.WEIGHTS):
                shutil.copyfile(model.folder / name, partial / name)
            (partial / README).write_text(card, encoding="utf-8")
            if model.metrics is not None:
                source = {name: told for name, told in model.metrics.source.items() if name != SHARDS}
                told = model.metrics.model_copy(update={"source": {**source, "model": model.name}})
                write_metrics(told, partial / METRICS)
            bundle.read_bundle(partial)
    except OSError as error:
        raise ConfigError(f"--to {folder}: {error.strerror or error}") from None


def _require_ours(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"--to {folder}: is a file; name a folder")
    if others := sorted(path.name for path in folder.iterdir() if path.name not in NAMES):
        raise ConfigError(
            f"--to {folder}: holds {others[0]}, which is not of a published model and would be lost; name another folder"
        )
