import io

import numpy as np
import pytest
from PIL import Image

from attrtrain.auditing import pictures
from attrtrain.auditing.pictures import Hashed, compare_pictures, hash_photographs, hash_picture, same_groups


def scene(seed, size=(320, 240)):
    """A picture of smooth blobs, as a photograph is to a hash."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def recoded(picture, scale=0.4, quality=50):
    smaller, buffer = picture.resize((int(picture.width * scale), int(picture.height * scale))), io.BytesIO()
    smaller.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def test_another_size_and_quality_is_the_same_picture_and_others_are_not():
    scenes = [scene(seed) for seed in range(40)] + [recoded(scene(seed)) for seed in (3, 17)]
    groups = same_groups([hash_picture(picture) for picture in scenes])
    assert sorted(groups) == [[3, 40], [17, 41]]


def test_pairs_are_those_of_a_plain_loop_over_all_pairs():
    rng = np.random.default_rng(0)
    hashes = [(int(p), int(d)) for p, d in rng.integers(0, 2**63, (30, 2))]
    for origin, phash_bits, dhash_bits in ((0, 4, 8), (1, 5, 0), (2, 0, 9), (3, 0, 0), (4, 1, 1)):
        flips = [sum(1 << int(bit) for bit in rng.choice(64, bits, replace=False)) for bits in (phash_bits, dhash_bits)]
        hashes.append((hashes[origin][0] ^ flips[0], hashes[origin][1] ^ flips[1]))
    expected = {
        (a, b)
        for a in range(len(hashes))
        for b in range(a)
        if bin(hashes[a][0] ^ hashes[b][0]).count("1") <= 4 and bin(hashes[a][1] ^ hashes[b][1]).count("1") <= 8
    }
    groups = same_groups([Hashed(one, (100, 100)) for one in hashes])
    assert {(max(group), min(group)) for group in groups} == expected == {(30, 0), (33, 3), (34, 4)}


def test_thousands_of_pictures_of_a_standing_camera_are_not_each_compared_with_every_other(monkeypatch):
    rng, compared = np.random.default_rng(0), []
    flips = [[sum(1 << int(bit) for bit in rng.choice(64, bits, replace=False)) for bits in (1, 2)] for _ in range(800)]
    alike = pictures._look_the_same
    monkeypatch.setattr(pictures, "_look_the_same", lambda a, b: (compared.append(1), alike(a, b))[1])
    groups = same_groups([Hashed((2**63 - 1 ^ one, 2**62 - 1 ^ other), (100, 100)) for one, other in flips])
    assert groups == [list(range(800))]
    assert len(compared) < 20 * 800  # of 319,600 pairs


@pytest.mark.parametrize("picture", [Image.new("RGB", (300, 200), "gray"), scene(0, (20, 20))])
def test_plain_and_tiny_pictures_are_not_compared(picture):
    assert hash_picture(picture).hashes is None


def test_pictures_in_several_splits_come_first_and_objects_of_one_photograph_do_not_count():
    one, two = Hashed((1, 1), (50, 50)), Hashed((2**60 - 1, 7), (50, 50))
    names = ["a", "b", "c", "d", "a"]
    found = compare_pictures("crops", names, ["train", "train", "train", "val", "train"], [one, one, two, two, one])
    assert (found.groups, found.across_splits) == (2, 1)
    assert [group.images for group in found.examples] == [["c", "d"], ["a", "b"]]
    assert found.examples[0].splits == ["train", "val"]
    alone = compare_pictures("crops", ["a", "a"], ["train", "train"], [one, one])
    assert alone.groups == 0


def test_photographs_are_found_as_sharding_finds_them_and_broken_ones_are_counted(tmp_path):
    scene(1).save(tmp_path / "COCO_val2014_000000000042.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    hashed = hash_photographs(["000000000042.jpg", "broken.jpg", "missing.jpg"], [tmp_path])
    assert hashed[0].size == (320, 240) and hashed[1:] == [None, None]
    assert compare_pictures("photographs", ["a", "b", "c"], [""] * 3, hashed).unreadable == 2
