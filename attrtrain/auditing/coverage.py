"""How many labelled objects the instances files know, and, where many are missing, what is likely wrong.

COCO's annotation ids are the same in 2014 and 2017, and 2017's train is 2014's train and val without minival, which is
2017's val. So two files of one year, or both of 2017, know every object; fewer are missing for a reason that the share
of matches gives away.
"""

from collections.abc import Sequence

from attrtrain.auditing.document import Coverage

GOOD_SHARE = 0.98

# Photographs in each file: what share of COCO's 123,287 labelled ones it holds (cocodataset.org, 2014 and 2017 splits).
_ALL = 123_287
_PHOTOGRAPHS = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}
_PARTNER = {"train2014": "val2014", "val2014": "train2014", "train2017": "val2017", "val2017": "train2017"}


def describe_coverage(labelled: int, matched: int, instances: Sequence[str], left_out: dict[str, int]) -> Coverage:
    """Counts matches and explains a low share.

    Args:
        labelled: objects in the label file.
        matched: of those, the ones with an annotation.
        instances: names of the instances files; [] where they are not known any more.
        left_out: objects that were matched but not written to shards, by reason.
    """
    share = matched / labelled if labelled else 0.0
    return Coverage(
        labelled=labelled,
        matched=matched,
        share=share,
        likely_wrong=_likely_wrong(share, list(instances)) if share < GOOD_SHARE else [],
        left_out=left_out,
    )


def _likely_wrong(share: float, files: list[str]) -> list[str]:
    told = []
    parts = {part for part in _PHOTOGRAPHS for name in files if part in name}
    for part in sorted(parts):
        if not _complete(parts) and _PARTNER[part] not in parts:
            told.append(
                f"{_PARTNER[part]} is missing: only one of the two files of {part[-4:]} is given, and {part} alone holds "
                f"{_PHOTOGRAPHS[part] / _ALL:.0%} of COCO's photographs; give instances_{part}.json and instances_{_PARTNER[part]}.json together"
            )
    for name in files:
        if "keypoints" in name:
            told.append(f"{name} holds persons only; give the instances file instead")
        elif "captions" in name or "stuff" in name or "panoptic" in name:
            told.append(f"{name} is not an instances file")
        elif "lvis" in name.lower():
            told.append(f"{name}: LVIS numbers its annotations anew, so ids that match do so by accident")
    if not parts and len(files) == 1:
        told.append(
            f"only one instances file is given ({files[0]}); COCO's annotations are spread over train and val: "
            "give instances_train2017.json and instances_val2017.json together"
        )
    if not files and share < 0.9:
        told.append(
            "one of COCO's two instances files was missing: give instances_train2017.json and instances_val2017.json together"
        )
    if share < 0.9 and (not told or _complete(parts)):
        told.append(
            "an instances file is incomplete, or of another data set than the labels: COCO's annotation ids did not change from 2014 to 2017, "
            "so the year is not the reason, and two complete files match about 100 %"
        )
    elif not told:
        told.append("a few annotations are not in these files: is each of them complete?")
    return told


def _complete(parts: set[str]) -> bool:
    """Whether files of these names hold all of COCO between them; 2017's train and 2014's val do as well."""
    return any(
        set(pair) <= parts for pair in (("train2014", "val2014"), ("train2017", "val2017"), ("train2017", "val2014"))
    )
