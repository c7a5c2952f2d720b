"""What random numbers of a key are for, so that the draws of one purpose are independent of those of another."""

from enum import IntEnum


class Stream(IntEnum):
    """A word of the key beside seed, epoch and sample. Numbers never change: runs that go on draw what they would have drawn."""

    FLIP = 1
    JITTER = 2
    ROTATION = 3
    SCALE = 4
    POLICY = 5
    ERASING = 6
    MIXING = 7
    CATEGORY = 8
    SPACING = 9
