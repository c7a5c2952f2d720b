"""Which attribute each column of a label matrix, and each logit of a model, stands for."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unicodedata import category

from attrtrain.errors import LabelError
from attrtrain.wording import given_twice


@dataclass(frozen=True)
class AttributeVocabulary:
    """Attributes in column order.

    Attributes:
        names: (A) names without surrounding space, each once.
        source_ids: (A) the ids of the label file, rising.
        groups: (A) the group of each attribute in the label file (COCO Attributes: its supercategory), "" where there
            is none.
    """

    names: tuple[str, ...]
    source_ids: tuple[int, ...]
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (len(self.names) == len(self.source_ids) == len(self.groups)):
            raise LabelError("vocabulary: names, ids and groups differ in number")
        if not self.names:
            raise LabelError("vocabulary: no attributes")
        if duplicates := given_twice(self.names):
            raise LabelError(
                f"vocabulary: attribute names given twice: {', '.join(duplicates)}; rename or drop one of each"
            )
        if odd := [name for name in self.names if any(category(sign) == "Cc" for sign in name)]:
            raise LabelError(
                f"vocabulary: attribute name {odd[0]!a} holds a control character, such as the end of a line; rename it"
            )
        if not all(self.names):
            raise LabelError("vocabulary: an attribute has no name")
        if list(self.source_ids) != sorted(set(self.source_ids)):
            raise LabelError("vocabulary: attribute ids must be distinct and rising")

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]]) -> "AttributeVocabulary":
        """Builds a vocabulary from `{"id", "name", "supercategory"}` records in any order.

        Column i belongs to the i-th record by id: that is how COCO Attributes' vectors are laid out, although its list
        is shuffled.
        """
        ordered = sorted(records, key=lambda record: int(record["id"]))
        return cls(
            names=tuple(str(record["name"]).strip() for record in ordered),
            source_ids=tuple(int(record["id"]) for record in ordered),
            groups=tuple(str(record.get("supercategory", "")).strip() for record in ordered),
        )

    @classmethod
    def from_names(cls, names: Iterable[str]) -> "AttributeVocabulary":
        """Builds a vocabulary from column names; their positions become the ids."""
        stripped = tuple(name.strip() for name in names)
        return cls(names=stripped, source_ids=tuple(range(len(stripped))), groups=("",) * len(stripped))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids and names in order: two label matrices may be joined only where it is equal."""
        canonical = json.dumps(
            list(zip(self.source_ids, self.names, strict=True)), ensure_ascii=True, separators=(",", ":")
        )
        return hashlib.sha256(canonical.encode()).hexdigest()
