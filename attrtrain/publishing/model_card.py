"""A model's README.md: what it does, how good it is beside guessing, where it fails, what it was made of. Every number
comes from the run's files.
"""

import re
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from jinja2 import DictLoader, Environment, StrictUndefined

from attrtrain.config.schema import TIMM, Head, UnknownLabels
from attrtrain.files import legible
from attrtrain.metrics.document import AttributeEntry, Interval, MetricsDocument
from attrtrain.publishing.front_matter import front_matter
from attrtrain.publishing.options import CardOptions
from attrtrain.publishing.published_model import PublishedModel
from attrtrain.report import headline
from attrtrain.report.metric_names import metric_name
from attrtrain.report.render import interval, percent, score
from attrtrain.report.run_report import installed_versions
from attrtrain.shards.manifest import Manifest, SourceRecord, unlabelled_attributes
from attrtrain.wording import counted

# What GitHub's Markdown makes a link of without being told, and what stands there instead: no width, and no address any
# more.
_LINKED = re.compile(r"(?<=:)(?=//)|(?i:(?<=www))(?=\.)|(?<=[\w.+-])(?=@)")
_WORD_JOINER = "\u2060"
_ROWS = 10  # best and worst attributes shown
_NAMES_SHOWN = 20  # in a list; more are folded away
_SCORES = {
    "auroc": "mean over attributes",
    "mA": "mean of true positive and true negative rate, over attributes",
    "cf1": "F1 of precision and recall averaged over attributes",
    "cf1_tuned": "the same at tuned thresholds",
    "of1": "F1 over all known labels together",
    "of1_tuned": "the same at tuned thresholds",
    "instance_f1": "harmonic mean of precision and recall, each averaged over objects",
    "ece": "expected gap between score and share present; lower is better",
}
_SETTINGS = {
    "backbone starts from": ("model", "weights"),
    "epochs": ("train", "epochs"),
    "objects a step": ("train", "global_batch"),
    "optimizer": ("optim", "name"),
    "highest learning rate": ("optim", "lr"),
    "schedule": ("optim", "schedule"),
    "weight decay": ("optim", "weight_decay"),
    "gradient norm at most": ("train", "clip_norm"),
    "moving average of weights": ("train", "ema"),
    "mirrored crops": ("data", "flip"),
    "unknown labels in the loss": ("labels", "unknown"),
    "seed": ("run", "seed"),
}

_HEADS: dict[Head, str] = {
    "linear": "a linear head",
    "mlp": "an MLP head",
    "category": "an MLP head that reads the object's category, too",
    "ml_decoder": "an ML-Decoder head",
}
_UNKNOWN: dict[UnknownLabels, str] = {
    "mask": "Unknown labels counted in no loss.",
    "negative": "Unknown labels counted as absent in the loss.",
    "selective": "Unknown labels counted as a soft absent in the loss where the object's category hardly ever has the attribute, and else in no loss.",
    "hill": "Unknown labels counted as absent in the loss, less where the model was sure of the attribute.",
    "splc": "Unknown labels counted as absent in the loss, and after the first epoch as present where the model was sure of the attribute.",
}


def write_card(model: PublishedModel, options: CardOptions, place: str) -> str:
    """A model card in Markdown, headed by the Hub's metadata in YAML.

    Args:
        model: what is told of.
        options: what no file says.
        place: what `--model` is given to use the model: a folder, or `hf:owner/name`.
    """
    body = _environment().get_template("card").render(_facts(model, options, place))
    body = re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"
    content = legible(f"---\n{front_matter(model, options).to_yaml()}\n---\n\n{body}")  # paths may be no text
    return str(ModelCard(content))  # read as the Hub reads it, which refuses what it cannot


def _facts(model: PublishedModel, options: CardOptions, place: str) -> dict[str, Any]:
    card, metrics = model.card, model.metrics
    train_split = str(model.setting("data", "train_split") or "train")
    untrained = unlabelled_attributes(model.manifests, train_split) if model.manifests else card.untrained
    return {
        "model": model,
        "card": card,
        "metrics": metrics,
        "backbone": _backbone(card.architecture.backbone),
        "head": _HEADS[card.architecture.head],
        "own": {key: card.metrics.get(f"val.{name}") for key, name in _OWN.items()},
        **(_judged(metrics) if metrics else {"split": None, "judged": []}),
        "same_data": model.is_judged_on_own_data,
        "untrained": untrained,
        **_one_sided(model.manifests, train_split, card.vocabulary.names),
        "not_judged": [name for name in metrics.left_out.names if name not in set(untrained)] if metrics else [],
        "best_epoch": model.result.get("best_epoch"),
        "epochs": model.setting("train", "epochs"),
        "unknown": model.setting("labels", "unknown"),
        "unknown_told": _unknown_told(model.setting("labels", "unknown")),
        "train_split": train_split,
        **_data(model.manifests),
        "training": _training(model),
        "place": place,
        "versions": installed_versions(),
        "license": options.license,
    }


def _backbone(name: str) -> str:
    return f"{name.removeprefix(TIMM)} of timm" if name.startswith(TIMM) else name.replace("resnet", "ResNet")


def _unknown_told(unknown: Any) -> str:
    """What unknown labels meant, as far as config.yaml says it: people edit it, so anything may stand there."""
    told = [told for name, told in _UNKNOWN.items() if name == unknown]
    return told[0] if told else "Missing: what unknown labels meant to the loss."


_OWN = {"map": "map", "prior": "prior_map", "objects": "objects"}


@dataclass(frozen=True)
class _Score:
    label: str
    meaning: str
    value: float | None
    interval: Interval | None
    prior: float | None


def _judged(metrics: MetricsDocument) -> dict[str, Any]:
    """What is told of an evaluation."""
    judged = [entry for entry in metrics.attributes if entry.judged]
    prior = metrics.baselines.get("prior") or {}
    scores = []
    for key, meaning in _SCORES.items():
        if (value := metrics.overall.get(key)) is not None:
            label = metric_name(key).full_label
            scores.append(_Score(label, meaning, value, metrics.intervals.get(key), prior.get(key)))
    return {
        "split": metrics.source.get("split"),
        "judged": judged,
        "sentence": headline.sentence(metrics),
        "ladder": _ladder(metrics),
        "above": sum(_is_above_chance(entry) for entry in judged) if metrics.bootstrap.replicates else 0,
        "scores": scores,
        "tables": _tables(judged),
    }


def _ladder(metrics: MetricsDocument) -> list[_Score]:
    """The model's mAP and those of guessing, with their intervals."""
    guessers = {
        "**this model**": "map",
        "guessing by each attribute's rate": "prior_map",
        "its scores in random order": "permutation_map",
        "guessing by the attribute's rate in the object's category": "category_map",
    }
    return [
        _Score(label, "", metrics.overall[key], metrics.intervals.get(key), None)
        for label, key in guessers.items()
        if metrics.overall.get(key) is not None
    ]


def _is_above_chance(entry: AttributeEntry) -> bool:
    chance = max(entry.prior or 0.0, entry.permutation_ap or 0.0)
    if entry.ap_interval is None:  # a perfect ranking has none
        return entry.ap == 1
    return entry.ap_interval[0] > chance


def _tables(judged: list[AttributeEntry]) -> list[tuple[str, list[AttributeEntry]]]:
    """Judged attributes by how far their AP lies above their rate; of many, both ends."""
    ordered = sorted(judged, key=lambda entry: (entry.ap or 0.0) - (entry.prior or 0.0), reverse=True)
    if len(ordered) <= 2 * _ROWS:
        return [("Attributes, the farthest above their rate first", ordered)]
    return [
        (f"The {_ROWS} attributes farthest above their rate", ordered[:_ROWS]),
        (f"The {_ROWS} attributes least above their rate", ordered[-_ROWS:]),
    ]


def _one_sided(manifests: tuple[Manifest, ...], split: str, names: list[str]) -> dict[str, list[str]]:
    """Attributes whose known training labels all say the same."""
    counts = [manifest.splits[split] for manifest in manifests if split in manifest.splits]
    positives = [sum(column) for column in zip(*(part.positives for part in counts), strict=True)]
    negatives = [sum(column) for column in zip(*(part.negatives for part in counts), strict=True)]
    rows = list(zip(names, positives, negatives, strict=False))
    return {
        "never_present": [name for name, present, absent in rows if absent and not present],
        "never_absent": [name for name, present, absent in rows if present and not absent],
    }


def _data(manifests: tuple[Manifest, ...]) -> dict[str, Any]:
    """Counts of all shard folders together."""
    splits = {}
    for name in dict.fromkeys(name for manifest in manifests for name in manifest.splits):
        parts = [manifest.splits[name] for manifest in manifests if name in manifest.splits]
        present, absent, unknown = (
            sum(sum(getattr(part, kind)) for part in parts) for kind in ("positives", "negatives", "unknowns")
        )
        known = present + absent
        splits[name] = {
            "objects": sum(part.objects for part in parts),
            "images": sum(part.images for part in parts),
            "known": known / max(1, known + unknown),
            "present": present / max(1, known),
        }
    left_out: Counter[str] = Counter()
    sources: dict[str, SourceRecord] = {}
    for manifest in manifests:
        left_out.update(manifest.left_out)
        sources.update({source.sha256: source for source in manifest.sources})
    return {
        "splits": splits,
        "left_out": dict(left_out),
        "sources": list(sources.values()),
        "split_notes": list(dict.fromkeys(manifest.split_note.removeprefix("split: ") for manifest in manifests)),
        "categories": sorted({name for manifest in manifests for name in manifest.categories if name}),
    }


def _training(model: PublishedModel) -> list[tuple[str, str]]:
    """Settings, without those that say where things lay on the machine."""
    if not model.config:
        return []
    told = {name: model.setting(*place) for name, place in _SETTINGS.items()}
    if isinstance(weights := told["backbone starts from"], str):
        pretrained = "timm's pretrained weights" if model.card.architecture.backbone.startswith(TIMM) else "ImageNet"
        told["backbone starts from"] = {"none": "random weights", "imagenet": pretrained}.get(
            weights, Path(weights).name
        )
    rows = [("crops", f"{model.card.image_px} × {model.card.image_px} px")]
    rows += [(name, "not known" if value is None else str(value)) for name, value in told.items()]
    if isinstance(seconds := model.result.get("seconds"), int | float):
        rows.append(
            ("training took", f"{seconds / 3600:.1f} hours" if seconds > 3600 else f"{seconds / 60:.1f} minutes")
        )
    return rows


def _environment() -> Environment:
    template = (files("attrtrain.publishing") / "model_card.md.j2").read_text(encoding="utf-8")
    environment = Environment(  # noqa: S701  Markdown, whose names `text` makes harmless
        loader=DictLoader({"card": template}), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        score=score, interval=interval, percent=percent, text=as_text, names=_names, python=repr, counted=_counted
    )
    return environment


def as_text(value: object) -> str:
    """Text as Markdown that shows it, on one line: no name out of data becomes a heading, a link, a cell or HTML."""
    text = _LINKED.sub(_WORD_JOINER, " ".join(str(value).split()))
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", text)


def _names(names: list[str]) -> str:
    """Names behind a heading that opens them where they are many."""
    told = ", ".join(map(as_text, names))
    return told if len(names) <= _NAMES_SHOWN else f"<details><summary>their names</summary>{told}</details>"


def _counted(value: int | list[Any], noun: str) -> str:
    return counted(int(value) if isinstance(value, int | float) else len(value), noun)
