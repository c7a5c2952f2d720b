"""The bytes of a sample beside the standard library's."""

import json
import tarfile

import numpy as np
import pytest
from drawn import make_table

from attrtrain.shards.crop import Crop
from attrtrain.shards.sample import SampleWriter, tar_member


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 8**4, 8**5 - 1, 300_000])
@pytest.mark.parametrize("name", ["000000000001.jpg", f"{2**63 - 1}.json", "x", "y" * 100])
def test_members_are_those_of_the_standard_library(name, size):
    data = np.random.default_rng(size).bytes(size)
    header = tarfile.TarInfo(name)
    header.size = size
    member = b"".join(tar_member(name.encode(), data))
    assert member == header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-size % 512)


def test_what_ustar_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="too long for USTAR"):
        tar_member(b"x" * 101, b"")


def test_labels_are_written_with_the_fewest_digits_that_read_back_as_the_same_float32():
    table = make_table(photographs=4)
    writer = SampleWriter(table, "train")
    known = 0
    for row in range(len(table)):
        content = writer.sample(row, Crop(b"jpeg", (3, 4), (0.12345, 0, 3, 4), (30, 40)))
        decoder = json.JSONDecoder()
        text = content[512 + 512 + 512 :].rstrip(b"\0").decode()
        document, end = decoder.raw_decode(text)
        assert end == len(text)
        assert (document["crop_size"], document["source_size"]) == ([3, 4], [30, 40])
        assert document["box"] == [0.123, 0, 3, 4]
        for name, label in document["labels"].items():
            value = table.labels[row, table.vocabulary.names.index(name)]
            assert label == float(np.format_float_positional(value, unique=True))
            known += 1
    assert known == (~np.isnan(table.labels)).sum() > 0
