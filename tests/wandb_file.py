"""Reads a run's .wandb file: LevelDB's log format (github.com/google/leveldb, doc/log_format.md) with records in W&B's
own protocol buffers.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _FILE_HEADER, _HEADER = 32_768, 7, 7
_WHOLE, _FIRST, _LAST = 1, 2, 4


def records(path: Path) -> Iterator[Record]:
    """Every record of the file, up to where a killed writer left off; each checksum is compared."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, parts = _FILE_HEADER, b""
    while position + _HEADER <= len(content):
        if _BLOCK - position % _BLOCK < _HEADER:  # what no header fits into is left empty
            position += _BLOCK - position % _BLOCK
            continue
        checksum, length, kind = struct.unpack("<IHB", content[position : position + _HEADER])
        piece = content[position + _HEADER : position + _HEADER + length]
        position += _HEADER + length
        if len(piece) < length:
            return
        assert checksum == zlib.crc32(bytes([kind]) + piece) & 0xFFFFFFFF
        parts = piece if kind in (_WHOLE, _FIRST) else parts + piece
        if kind in (_WHOLE, _LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record


def history(path: Path) -> list[dict[str, Any]]:
    """Rows of the history, as they were logged."""
    return [_values(record.history.item) for record in records(path) if record.HasField("history")]


def summary(path: Path) -> dict[str, Any]:
    """What was set in the summary at the end."""
    found: dict[str, Any] = {}
    for record in records(path):
        if record.HasField("summary"):
            found.update(_values(record.summary.update))
    return found


def config(path: Path) -> dict[str, Any]:
    """The configuration the run began with."""
    run = next(record.run for record in records(path) if record.HasField("run"))
    return _values(run.config.update)


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
