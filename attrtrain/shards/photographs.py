"""Objects → their crops, photograph by photograph: each is found, fetched and decoded once, whoever asks."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import groupby, repeat
from operator import itemgetter
from pathlib import Path

from attrtrain.annotations.table import ObjectTable
from attrtrain.errors import LeftOutError
from attrtrain.shards.crop import Crop, cut
from attrtrain.shards.image_decode import load_image
from attrtrain.shards.image_lookup import FetchedImage, find_image
from attrtrain.shards.manifest import CropSettings

_FETCHED_AHEAD = 16  # photographs at URLs


def crops_of(
    table: ObjectTable, image_folders: Sequence[Path | str], settings: CropSettings
) -> Iterator[tuple[int, Crop | LeftOutError]]:
    """Yields each row of the table with its crop, or the reason why there is none. Each photograph is decoded once."""
    # By file name and not by id: were two files given one id, each object would still come from the file its row names.
    photographs = zip(table.image.tolist(), *table.image_size.T.tolist(), strict=True)
    groups = [
        (photograph, [row for _, row in group])
        for photograph, group in groupby(zip(photographs, range(len(table)), strict=True), key=itemgetter(0))
    ]
    boxes, crowds = table.box.tolist(), table.crowd.tolist()
    found = _found([name for (name, *_), _ in groups], image_folders)
    for ((_, width, height), rows), source in zip(groups, found, strict=True):
        mine = [boxes[row] for row in rows], [crowds[row] for row in rows]
        yield from zip(rows, cut_photograph(source, (width, height), *mine, settings), strict=True)


def cut_photograph(
    source: Path | FetchedImage | LeftOutError,
    declared_size: tuple[int, int],
    boxes: Sequence[Sequence[float]],
    crowds: Sequence[bool],
    settings: CropSettings,
) -> Iterator[Crop | LeftOutError]:
    """Yields the crop of each object of one photograph, which is decoded once, or the reason why there is none.

    Args:
        source: as `look_for` gives it.
        declared_size: width and height that the annotation gives, 0 where it gives none.
        boxes: x, y, width, height of each object.
        crowds: whether each is one.
        settings: how crops are cut and stored.
    """
    try:
        if isinstance(source, LeftOutError):
            raise source
        image = load_image(source, declared_size)
    except LeftOutError as error:
        yield from repeat(error, len(boxes))
        return
    for (x, y, width, height), crowd in zip(boxes, crowds, strict=True):
        try:
            yield cut(image, (x, y, width, height), crowd, settings)
        except LeftOutError as error:
            yield error


def look_for(name: str, folders: Sequence[Path | str]) -> Path | FetchedImage | LeftOutError:
    """Where a photograph is, as `find_image` tells it, or the reason why its objects are left out."""
    try:
        return find_image(name, folders)
    except LeftOutError as error:
        return error


def _found(names: Sequence[str], folders: Sequence[Path | str]) -> Iterator[Path | FetchedImage | LeftOutError]:
    """Where each photograph is; those at URLs are fetched ahead, a few at a time, for the way there is long."""
    find = partial(look_for, folders=folders)
    if not any(isinstance(folder, str) for folder in folders):
        # All of them first: one by one, between photographs that are decoded, each takes five times as long.
        yield from list(map(find, names))
        return
    executor = ThreadPoolExecutor(_FETCHED_AHEAD)
    try:
        coming: deque[Future[Path | FetchedImage | LeftOutError]] = deque()
        for name in names:
            coming.append(executor.submit(find, name))
            if len(coming) > _FETCHED_AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
