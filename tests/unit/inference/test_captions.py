import pytest

from attrtrain.inference.captions import MOST, article, caption, present


@pytest.mark.parametrize(
    ("names", "category", "line"),
    [
        (["furry", "sleeping"], "dog", "a furry, sleeping dog"),
        ([], "elephant", "an elephant"),
        (["old"], "person", "an old person"),
        (["wet / damp"], "", "a wet object"),
        (["black/white"], "cat", "a black/white cat"),
        (["left_hand_visible"], "person", "a left hand visible person"),
        ([], "", "an object"),
        ([f"a{n}" for n in range(9)], "cat", "an " + ", ".join(f"a{n}" for n in range(MOST)) + " cat"),
    ],
)
def test_a_caption_names_what_is_present_and_what_it_is(names, category, line):
    assert caption(names, category) == line


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("umbrella", "an"), ("unicycle", "a"), ("uniform", "a"), ("unimportant", "an"), ("uninteresting", "an"), ("unhappy", "an"),
        ("used", "a"), ("useful", "a"), ("usual", "a"), ("ugly", "an"), ("upright", "an"), ("utensil", "a"), ("utter", "an"),
        ("European", "a"), ("one-eyed", "a"), ("oven", "an"), ("orange", "an"), ("Open", "an"), ("hour", "an"), ("honest", "an"),
        ("house", "a"), ("hot", "a"), ("dry", "a"), ("ear", "an"), ("3d", "a"),
        ("usable", "a"), ("using", "a"), ("utility", "a"), ("ewe", "a"), ("once", "a"), ("ubiquitous", "a"),
    ],
)  # fmt: skip
def test_the_article_goes_by_sound(word, expected):
    assert article(word) == expected


def test_present_is_what_reaches_its_own_threshold_the_likeliest_first():
    assert present([0.5, 0.2, 0.9, 0.9, 0.499], [0.5, 0.2, 0.95, 0.1, 0.5]) == [3, 0, 1]
    assert present([0.3, 0.3], [0.1, 0.1]) == [0, 1]
    assert present([1.0, 1.0], [1.0, 0.99]) == [1]  # 1: never
