"""The YAML above a model card, by which the Hub finds models and shows their scores."""

import re

from huggingface_hub import EvalResult, ModelCardData

from attrtrain.metrics.document import MetricsDocument
from attrtrain.publishing.options import CardOptions
from attrtrain.publishing.published_model import PublishedModel

TASK = "image-classification"
# Key of metrics.json → what it is called. mAP never stands without what guessing scores.
_INDEXED = {
    "map": "mAP",
    "prior_map": "mAP of guessing by each attribute's rate",
    "permutation_map": "mAP of its scores in random order",
    "category_map": "mAP of guessing by the rate in the object's category",
    "auroc": "AUROC",
}


def front_matter(model: PublishedModel, options: CardOptions) -> ModelCardData:
    """Metadata as `huggingface_hub` writes it."""
    names = model.data_names if model.is_judged_on_own_data else ()
    results = _results(model.metrics, names, options.datasets if names else ()) if model.metrics else []
    return ModelCardData(
        license=options.license,
        library_name="attrtrain",
        pipeline_tag=TASK,
        tags=["attrtrain", "visual-attributes", "multi-label", *model.card.architecture.backbone.split(":")],
        datasets=list(options.datasets) or None,
        metrics=["map"] if results else None,
        model_name=model.name,
        eval_results=results or None,
    )


def _results(metrics: MetricsDocument, data_names: tuple[str, ...], datasets: tuple[str, ...]) -> list[EvalResult]:
    """Scores in full precision, of data by these names; scores that do not exist are absent."""
    name = ", ".join(data_names) or ", ".join(datasets) or "not named"
    kind = datasets[0] if datasets else re.sub(r"[^\w.-]+", "-", name).strip("-") or "unknown"
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=kind,
            dataset_name=name,
            dataset_split=metrics.source.get("split"),
            metric_type=key,
            metric_name=label,
            metric_value=value,
        )
        for key, label in _INDEXED.items()
        if (value := metrics.overall.get(key)) is not None
    ]
