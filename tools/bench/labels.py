"""`labels`: reading a label file as large as the published COCO Attributes, 1.24 GB.

The limit is the C unpickler on its own, which would run whatever the file asks for. attrtrain's reader refuses that,
and what it returns is a checked matrix; the peer is what people write to get a matrix: unpickle and stack.
"""

import argparse
import gc
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from attrtrain.files import atomic_write
from tools.bench.contest import Contender, take_turns
from tools.bench.data import Source
from tools.bench.result import Case, Result

OBJECTS = 188_426
_BLOCK = 1 << 24


def run(arguments: argparse.Namespace, source: Source | None, work: Path) -> Result:
    """Compares on one core: seconds, and the most memory held."""
    objects = arguments.objects or OBJECTS
    path = work / "cocottributes.pkl"
    write_labels(path, objects, arguments.attributes)
    _read_file(path)  # into the page cache
    contenders = [
        Contender("plain C unpickle", "limit", "tools.bench.labels:plain", {"path": str(path)}),
        Contender("attrtrain", "attrtrain", "tools.bench.labels:ours", {"path": str(path)}),
        Contender("C unpickle, collector off", "peer", "tools.bench.labels:uncollected", {"path": str(path)}),
        Contender("unpickle + numpy.stack", "peer", "tools.bench.labels:stacked", {"path": str(path)}),
    ]
    rows = take_turns(contenders, arguments.repeats, arguments.cores[:1], arguments.limit_seconds)
    size = path.stat().st_size
    settings = {"objects": objects, "attributes": arguments.attributes, "bytes": size}
    note = f"{size / 1e9:.3g} GB; peak MB is that of the whole process"
    return Result("labels", [Case("one core", rows, "seconds", "lower", note)], settings)


def plain(path: str) -> dict[str, Any]:
    """The standard library's unpickler."""
    begun = time.perf_counter()
    content = _unpickled(path)
    return _outcome(begun, len(content["ann_vecs"]))


def uncollected(path: str) -> dict[str, Any]:
    """The same without the garbage collector, which walks what is there again and again and finds none; attrtrain
    pauses it, too.
    """
    gc.disable()
    return plain(path)


def stacked(path: str) -> dict[str, Any]:
    """Unpickle, stack, and make a negative label unknown."""
    begun = time.perf_counter()
    content = _unpickled(path)
    labels = np.stack(list(content["ann_vecs"].values())).astype(np.float32)
    labels[labels < 0] = np.nan
    return _outcome(begun, len(labels))


def ours(path: str) -> dict[str, Any]:
    """What attrtrain does with a label file, checksum aside."""
    from attrtrain.annotations.coco_attributes import read_coco_attributes

    begun = time.perf_counter()
    labels = read_coco_attributes(path)
    return _outcome(begun, len(labels.labels))


def write_labels(path: Path, objects: int, attributes: int) -> None:
    """Writes what Python 2 would: protocol 0, strings with escapes, NumPy's names of then, 9 % of the votes known."""
    with atomic_write(path) as file:
        for part in _pickle(objects, attributes, np.random.default_rng(0)):
            file.write(part)


def _pickle(objects: int, attributes: int, rng: np.random.Generator) -> Iterator[bytes]:
    """The opcodes of {"attributes": […], "patch_id_to_ann_id": {…}, "split": {…}, "ann_vecs": {…}}."""
    yield _SHARED + b"(dS'attributes'\n(l"
    for number in range(attributes):
        yield b"(dS'id'\nI%d\nsS'name'\nS'attribute %d'\nsS'supercategory'\nS'a group'\nsa" % (408 + number, number)
    yield b"sS'patch_id_to_ann_id'\n(d"
    for number in range(objects):
        yield b"I%d\nI%d\ns" % (number + 1, 10_000 + number)
    yield b"sS'split'\n(d"
    for number in range(objects):
        yield b"I%d\nS'%s2014'\ns" % (number + 1, b"val" if number % 3 == 0 else b"train")
    yield b"sS'ann_vecs'\n(d"
    votes = np.array([-1, 0, 1 / 3, 2 / 3, 1])
    texts = [_python2_text(vote.tobytes()) for vote in votes]
    for number in range(objects):
        drawn = np.where(rng.random(attributes) < 0.09, rng.integers(1, 5, attributes), 0)
        data = b"".join([texts[vote] for vote in drawn.tolist()])
        a, b, c, d, e, f = range(_MEMO_BEGINS + _PUTS * number, _MEMO_BEGINS + _PUTS * (number + 1))
        yield _VECTOR % (number + 1, a, b, c, attributes, d, data, e, f)
    yield b"s."


def _python2_text(data: bytes) -> bytes:
    """A string as Python 2's repr has it: what is not printable ASCII is escaped."""
    return repr(data)[2:-1].encode()


# Numbers 1 to 4 of the memo: what every vector refers to.
_SHARED = (
    b"cnumpy.core.multiarray\n_reconstruct\np1\n0cnumpy\nndarray\np2\n0S'b'\np3\n0"
    b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbp4\n0"
)
# An array as NumPy 1 pickled it: made empty, then filled from (version, shape, dtype, order, data). Python 2 memorised
# every part, which keeps all data alive until the end.
_VECTOR = b"I%d\ng1\n(g2\n(I0\ntp%d\ng3\ntp%d\nRp%d\n(I1\n(I%d\ntp%d\ng4\nI00\nS'%s'\np%d\ntp%d\nbs"
_MEMO_BEGINS, _PUTS = 10, 6


def _unpickled(path: str) -> Any:
    with Path(path).open("rb") as file:
        return pickle.load(file, encoding="latin1")  # noqa: S301  (a file we have just written)


def _read_file(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(_BLOCK):
            pass


def _outcome(begun: float, objects: int) -> dict[str, Any]:
    return {"value": time.perf_counter() - begun, "objects": objects}
