import numpy as np
import pytest

from attrtrain.keyed_random import mix64, permute, uniform

MASK = 2**64 - 1


def reference_mix64(*words: int) -> int:
    """The same arithmetic on Python's integers, one word after the other."""
    state = 0
    for word in words:
        state = ((state + 0x9E3779B97F4A7C15) & MASK) ^ (word & MASK)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state


def reference_permute(position: int, size: int, *key: int) -> int:
    half = ((size - 1).bit_length() + 1) // 2
    while True:
        left, right = position >> half, position & ((1 << half) - 1)
        for i in range(6):
            left, right = right, left ^ (reference_mix64(*key, i, right) & ((1 << half) - 1))
        position = (left << half) | right
        if position < size:
            return position


def test_known_answers():
    """Written down so that the order of training can never change unnoticed. SplitMix64 of seed 0 begins with the first
    number.
    """
    assert int(mix64(0)) == 0xE220A8397B1DCDAF
    assert int(mix64(1, 2, 3)) == 0xEABCFA2C623C5A59
    assert permute(np.arange(10), 10, 7, 0).tolist() == [8, 2, 4, 1, 3, 6, 5, 0, 7, 9]
    assert permute([0, 1, 188_425], 188_426, 7, 3).tolist() == [120627, 123358, 82958]
    assert float(uniform(1, 2, 3)) == (0xEABCFA2C623C5A59 >> 11) / 2**53


def test_mix64_against_python_integers():
    rng = np.random.default_rng(0)
    words = rng.integers(-(2**63), 2**63, (200, 3), dtype=np.int64)
    np.testing.assert_array_equal(mix64(*words.T), [reference_mix64(*row) for row in words.tolist()])
    assert int(mix64(2**64 - 1, -5, 2**63)) == reference_mix64(2**64 - 1, -5, 2**63)
    assert int(mix64(-1)) == int(mix64(2**64 - 1)) == int(mix64(np.int64(-1))) == int(mix64(np.uint64(2**64 - 1)))


def test_mix64_broadcasts_and_takes_any_integer_type():
    rows, columns = np.arange(3)[:, None], np.arange(4, dtype=np.uint8)
    expected = [[reference_mix64(9, row, column) for column in range(4)] for row in range(3)]
    np.testing.assert_array_equal(mix64(9, rows, columns), expected)
    assert mix64(9, rows, columns).dtype == np.uint64 and mix64(9).shape == ()


def test_order_and_number_of_words_matter():
    assert len({int(mix64(*words)) for words in [(1, 2), (2, 1), (1,), (1, 2, 0), (0, 1, 2), (1, 0, 2)]}) == 6


@pytest.mark.parametrize("key", [0.5, [0.2, 0.7], "1"])
def test_keys_are_integers(key):
    with pytest.raises(TypeError, match="keys are made of integers"):
        mix64(0, key)


@pytest.mark.parametrize(
    "size", [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 63, 64, 65, 100, 255, 256, 257, 1000, 4096, 4097, 30_011]
)
def test_permute_is_a_bijection(size):
    for key in ((0,), (1, 2), (2**63, -1)):
        order = permute(np.arange(size), size, *key)
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(size))


@pytest.mark.parametrize("size", [2, 5, 64, 65, 333])
def test_permute_against_python_integers(size):
    assert permute(np.arange(size), size, 11, 4).tolist() == [reference_permute(i, size, 11, 4) for i in range(size)]


def test_permute_does_not_depend_on_how_it_is_asked():
    whole = permute(np.arange(1003), 1003, 5, 1)
    pieces = [permute(piece, 1003, 5, 1) for piece in np.array_split(np.arange(1003), 17)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    np.testing.assert_array_equal(permute(np.arange(1003)[::-1], 1003, 5, 1), whole[::-1])
    assert [int(permute(i, 1003, 5, 1)[0]) for i in range(20)] == whole[:20].tolist()
    positions = np.arange(1003, dtype=np.uint64)
    permute(positions, 1003, 5, 1)
    np.testing.assert_array_equal(positions, np.arange(1003))  # the caller's array stays what it was


def test_permute_depends_on_every_word_of_its_key():
    orders = [tuple(permute(np.arange(200), 200, *key)) for key in [(0, 0), (0, 1), (1, 0), (0,), (1, 1)]]
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize(("positions", "size"), [([3], 3), ([-1], 3), ([0], 0), ([0, 4, 2], 4)])
def test_positions_out_of_range_are_an_error(positions, size):
    with pytest.raises(ValueError, match=rf"range\({size}\)"):
        permute(positions, size, 0)


def chi_square(counts) -> float:
    """Distance of counts from equal ones; about `len(counts)` ± a few times sqrt(2 len(counts)) for fair ones."""
    return float(((counts - counts.mean()) ** 2 / counts.mean()).sum())


def test_permutations_are_fair():
    """Each element comes to each position equally often over epochs, and neighbours do not stay neighbours."""
    orders = np.array([permute(np.arange(12), 12, 0, epoch) for epoch in range(6000)])
    cells = np.array([np.bincount(column, minlength=12) for column in orders.T])
    assert 60 < chi_square(cells.ravel()) < 200  # 121 degrees of freedom
    steps = np.diff(permute(np.arange(20_000), 20_000, 0, 0))
    assert (np.abs(steps) == 1).sum() < 10
    assert len({tuple(order[:3]) for order in orders.tolist()}) > 1280  # of 1320; 6000 fair draws see about 1306


def test_uniform_numbers_are_uniform():
    numbers = uniform(3, np.arange(100_000))
    assert numbers.dtype == np.float64 and numbers.min() >= 0 and numbers.max() < 1
    assert chi_square(np.histogram(numbers, 100, (0, 1))[0]) < 160  # 99 degrees of freedom
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(numbers, uniform(4, np.arange(100_000)))[0, 1]) < 0.01
