import numpy as np
import pytest

from attrtrain.annotations.split import apply_split, check_image_in_one_split, mend_split, set_aside_dev, split_by_image
from attrtrain.errors import LabelError
from attrtrain.keyed_random import mix64


@pytest.fixture
def photographs(make_table):
    """600 objects with 12 attributes, the rarest positive in 2 %, which cluster in photographs; a third of the labels
    unknown.
    """
    rng = np.random.default_rng(5)
    image_id = rng.integers(0, 200, 600) * 7 + 3
    rate = np.linspace(0.02, 0.4, 12)
    in_image = rng.random((200, 12)) < rate
    labels = np.where(rng.random((600, 12)) < 0.7, in_image[(image_id - 3) // 7], rng.random((600, 12)) < rate).astype(
        float
    )
    labels[rng.random(labels.shape) < 0.3] = np.nan
    return make_table(image_id, labels)


def torn(table, split) -> int:
    """Photographs with objects in more than one split, counted the slow way."""
    seen = {}
    for image, name in zip(table.image_id.tolist(), split.tolist(), strict=True):
        seen.setdefault(image, set()).add(name)
    return sum(len(names) > 1 for names in seen.values())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("val_share", [0.1, 0.2, 0.5])
def test_a_photograph_is_never_divided_and_the_share_is_kept(photographs, seed, val_share):
    split = split_by_image(photographs, val_share, seed)
    assert set(split) == {"train", "val"}
    assert torn(photographs, split) == 0
    assert abs((split == "val").mean() - val_share) < 0.04


def plain_split(table, val_share, seed):
    """Iterative stratification as its authors write it down: one attribute after the other, counted anew each time."""
    images = sorted(set(table.image_id.tolist()), key=lambda image: int(mix64(seed, image)))
    own = {image: table.labels[table.image_id == image] for image in images}
    positives = {image: (labels >= 0.5).sum(axis=0) for image, labels in own.items()}
    shares = [1 - val_share, val_share]
    wanted = [share * sum(positives.values()) for share in shares]
    wanted_objects = [share * len(table) for share in shares]
    side = {}

    def assign(image, attribute=None):
        lacks = 0 if attribute is None else wanted[1][attribute] - wanted[0][attribute]
        chosen = side[image] = int((lacks or wanted_objects[1] - wanted_objects[0]) > 0)
        wanted[chosen] = wanted[chosen] - positives[image]
        wanted_objects[chosen] -= len(own[image])

    while True:
        left = [image for image in images if image not in side]
        having = [[image for image in left if positives[image][a]] for a in range(table.labels.shape[1])]
        rarest = min((a for a in range(len(having)) if having[a]), key=lambda a: len(having[a]), default=None)
        if rarest is None:
            break
        for image in having[rarest]:
            assign(image, rarest)
    for image in left:
        assign(image)
    return [("train", "val")[side[image]] for image in table.image_id.tolist()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("val_share", [0.1, 0.2, 0.5])
def test_the_rarest_attribute_goes_first_each_time(photographs, seed, val_share):
    assert split_by_image(photographs, val_share, seed).tolist() == plain_split(photographs, val_share, seed)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("val_share", [0.2, 0.5])
def test_the_share_is_of_objects_however_unequal_photographs_are(make_table, seed, val_share):
    """Each goes where more is wanted, so that no share is off by more than half the largest photograph."""
    objects = np.repeat([50, 1], [20, 400])
    table = make_table(np.repeat(np.arange(len(objects)), objects))
    split = split_by_image(table, val_share, seed)
    assert abs((split == "val").sum() - val_share * objects.sum()) <= 25


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("vote", [0.5, 1.0])
def test_ties_are_shared_out_as_positives(make_table, seed, vote):
    labels = np.full((100, 1), np.nan)
    labels[::5] = vote
    labels[1::5] = np.nextafter(np.float32(0.5), np.float32(0))
    split = split_by_image(make_table(np.arange(100), labels), 0.2, seed)
    assert (split[::5] == "val").sum() == 4 and (split == "val").sum() == 20


def test_same_seed_same_split_whatever_the_order_of_rows(photographs):
    split = split_by_image(photographs, 0.2, 3)
    np.testing.assert_array_equal(split_by_image(photographs, 0.2, 3), split)
    assert (split_by_image(photographs, 0.2, 4) != split).any()
    shuffled = np.random.default_rng(0).permutation(len(photographs))
    np.testing.assert_array_equal(split_by_image(photographs.take(shuffled), 0.2, 3), split[shuffled])


def test_positives_are_shared_out_better_than_at_random(photographs):
    positive = photographs.labels >= 0.5

    def deviation(split) -> np.ndarray:
        return np.abs(positive[split == "val"].sum(axis=0) / positive.sum(axis=0) - 0.2)

    images = np.unique(photographs.image_id)
    stratified, random = [], []
    for seed in range(10):
        stratified.append(deviation(split_by_image(photographs, 0.2, seed)))
        drawn = np.random.default_rng(seed).permutation(images)[: len(images) // 5]
        random.append(deviation(np.where(np.isin(photographs.image_id, drawn), "val", "train")))
    assert np.mean(stratified) < 0.4 * np.mean(random)
    assert np.mean(stratified, axis=0)[:4].max() < 0.6 * np.mean(random, axis=0)[:4].min()  # the four rarest
    assert np.max(stratified) < np.max(random)


@pytest.mark.parametrize("val_share", [0.01, 0.2, 0.5, 0.99])
def test_few_photographs(make_table, val_share):
    for images in range(2, 8):
        for labels in (np.zeros((images * 2, 1)), np.ones((images * 2, 1)), np.eye(images * 2)):
            table = make_table(np.repeat(np.arange(images), 2), labels)
            split = split_by_image(table, val_share, 0)
            assert set(split) == {"train", "val"} and torn(table, split) == 0


@pytest.mark.parametrize("val_share", [0.01, 0.2, 0.99])
@pytest.mark.parametrize("rule", ["auto", "image"])
def test_one_photograph_is_trained_on_and_the_note_says_what_is_missing(make_table, val_share, rule):
    table, note = apply_split(make_table([4, 4, 4], np.ones((3, 2))), rule, val_share, 0)
    assert table.split.tolist() == ["train"] * 3
    assert note.endswith("no object is in val: all are in one photograph, which is never divided")


@pytest.mark.parametrize("seed", range(5))
def test_where_no_photograph_is_wanted_in_val_the_smallest_goes_there(make_table, seed):
    table = make_table(np.repeat([5, 6, 7, 8], [10, 12, 1, 11]))
    assert table.image_id[split_by_image(table, 0.01, seed) == "val"].tolist() == [7]
    assert table.image_id[split_by_image(table, 0.99, seed) == "train"].tolist() == [7]


def test_no_objects(make_table):
    assert split_by_image(make_table([]), 0.2, 0).shape == (0,)
    for rule in ("auto", "image", "official"):
        table, note = apply_split(make_table([]), rule, 0.2, 0)
        assert len(table) == 0 and note.endswith("; no object is in train or val")


def test_official_is_taken_as_it_is(make_table):
    table = make_table([1, 1, 2, 3], split=["train", "train", "val", "test"])
    for rule in ("official", "auto"):
        applied, note = apply_split(table, rule, 0.2, 0)
        np.testing.assert_array_equal(applied.split, table.split)
        assert note == "split: the label file's own"


def test_official_without_a_validation_set_is_said(make_table):
    _, note = apply_split(make_table([1, 2], split=["train", "train"]), "official", 0.2, 0)
    assert note == "split: the label file's own; no object is in val"
    _, note = apply_split(make_table([1, 2], split=["test", "test"]), "official", 0.2, 0)
    assert note == (
        "split: the label file's own; no object is in train or val, but in test: "
        "name what to train and judge on with --data.train_split and --data.val_split"
    )
    _, note = apply_split(make_table([1, 2, 3], split=["Train", "valid", "Train"]), "auto", 0.2, 0)
    assert "; no object is in train or val, but in Train and valid: name what" in note


def test_official_that_tears_a_photograph_is_refused(make_table):
    table = make_table([1, 2, 2, 3], split=["train", "train", "val", "val"])
    with pytest.raises(
        LabelError, match=r"photograph 2\.jpg is in two splits, 'val' and 'train' \(1 of 3 photographs is\)"
    ):
        apply_split(table, "official", 0.2, 0)


def test_a_torn_photograph_is_found_wherever_its_objects_stand_in_the_file(make_table):
    """Between the two objects of photograph 2 stand others."""
    table = make_table([2, 1, 3, 2, 1], split=["train", "train", "val", "val", "train"])
    with pytest.raises(LabelError, match=r"photograph 2\.jpg is in two splits, 'val' and 'train' \(1 of 3"):
        apply_split(table, "official", 0.2, 0)
    mended, note = apply_split(table, "auto", 0.2, 0)
    assert mended.split.tolist() == ["train", "train", "val", "train", "train"]
    assert "1 photograph was in two splits" in note and "(1 object moved)" in note


def test_official_without_a_split_is_refused(make_table):
    with pytest.raises(
        LabelError, match=r"1 object has no split in the label file \(first: object 1\); use --split image"
    ):
        apply_split(make_table([1, 2], split=["train", ""]), "official", 0.2, 0)


def test_auto_mends_and_says_so(make_table):
    table = make_table([1, 1, 1, 2, 2, 3], split=["val", "train", "val", "train", "train", "val"])
    applied, note = apply_split(table, "auto", 0.2, 0)
    assert applied.split.tolist() == ["val", "val", "val", "train", "train", "val"]
    assert "1 photograph was in two splits" in note and "(1 object moved)" in note


def test_auto_draws_where_the_file_has_no_split(make_table, photographs):
    applied, note = apply_split(photographs, "auto", 0.2, 3)
    np.testing.assert_array_equal(applied.split, split_by_image(photographs, 0.2, 3))
    assert note == "split: the label file has none, drawn by photograph with seed 3"


def test_auto_does_not_draw_over_a_split_that_some_objects_have(make_table):
    with pytest.raises(LabelError, match=r"2 of 3 objects have no split .*\(first: object \d\).*--split image"):
        apply_split(make_table([1, 2, 3], split=["train", "", ""]), "auto", 0.2, 3)
    with pytest.raises(LabelError, match="1 of 3 objects has no split"):
        apply_split(make_table([1, 2, 3], split=["train", "val", ""]), "auto", 0.2, 3)


def test_image_draws_over_the_files_own(photographs):
    own = photographs.with_split(np.full(len(photographs), "test"))
    applied, note = apply_split(own, "image", 0.2, 3)
    np.testing.assert_array_equal(applied.split, split_by_image(photographs, 0.2, 3))
    assert note == "split: drawn by photograph with seed 3"


def test_mend_split_takes_the_majority_and_of_equals_the_first_by_name(make_table):
    table = make_table([5, 5, 9, 9, 9], split=["val", "train", "train", "val", "val"])
    assert mend_split(table).tolist() == ["train", "train", "val", "val", "val"]
    check_image_in_one_split(table.with_split(mend_split(table)))


def test_dev_is_whole_photographs_of_train_and_leaves_val_alone(photographs):
    before = photographs.with_split(split_by_image(photographs, 0.2, 0))
    after, note = set_aside_dev(before, 0.1, 0)
    assert torn(after, after.split) == 0
    np.testing.assert_array_equal(after.split == "val", before.split == "val")
    dev = (after.split == "dev").sum()
    assert abs(dev / (before.split == "train").sum() - 0.1) < 0.03
    assert note == f"dev: {dev} objects of train set aside by photograph with seed 0"
    assert set_aside_dev(before, 0.1, 1)[0].split.tolist() != after.split.tolist()


def test_of_two_photographs_one_is_set_aside(make_table):
    after, _ = set_aside_dev(make_table([1, 1, 2], split=["train", "train", "train"]), 0.1, 0)
    assert sorted(set(after.split)) == ["dev", "train"]


def test_dev_needs_photographs_to_take_and_a_free_name(make_table):
    with pytest.raises(LabelError, match="fewer than two photographs"):
        set_aside_dev(make_table([1, 1], split=["train", "train"]), 0.1, 0)
    with pytest.raises(LabelError, match="has a split 'dev' of its own"):
        set_aside_dev(make_table([1, 2], split=["train", "dev"]), 0.1, 0)
