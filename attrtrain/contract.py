"""The base of everything that is written as JSON: manifests, metrics, cards, audits, records, jobs."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from attrtrain.errors import AttrtrainError
from attrtrain.files import atomic_write

C = TypeVar("C", bound="Contract")


class Contract(BaseModel):
    """Closed to fields that it does not know, and read strictly: a number is a number, not its text."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_contract(kind: type[C], path: Path, error: type[AttrtrainError]) -> C:
    """Reads a contract's JSON.

    Raises:
        error: of that kind, naming file and field, if the file is not there, is damaged or of another version.
    """
    try:
        content = path.read_bytes()
    except OSError as refusal:
        raise error(f"{path}: {refusal.strerror or refusal}") from None
    return parse_contract(kind, content, path, error)


def parse_contract(kind: type[C], content: bytes, place: Path | str, error: type[AttrtrainError]) -> C:
    """As `read_contract`, of what was read at a place."""
    try:
        return kind.model_validate_json(content, strict=True)
    except ValidationError as refusal:
        raise error(f"{place}: damaged or written by another version of attrtrain ({first_fault(refusal)})") from None


def first_fault(error: ValidationError) -> str:
    """What pydantic has to say of the first field that does not fit: `crop.quality: Input should be …`."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"


def write_contract(content: Contract, path: Path) -> None:
    """Writes a contract as JSON, whole or not at all."""
    with atomic_write(path) as file:
        file.write(to_json(content))


def to_json(content: Contract) -> bytes:
    """A contract as its file holds it."""
    return content.model_dump_json(indent=1).encode() + b"\n"
