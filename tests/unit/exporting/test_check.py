"""When an exported file is refused."""

import pytest

from attrtrain.errors import ExportError
from attrtrain.exporting.check import Agreement

NAN = float("nan")


@pytest.mark.parametrize(
    ("largest", "usual", "resizes", "passes"),
    [
        (9e-4, 9e-4, False, True),
        (2e-3, 2e-3, False, False),
        (5e-2, 9e-3, True, True),  # a pixel of one crop was rounded to the level beside
        (5e-2, 2e-2, True, False),  # most crops differ
        (2e-1, 1e-5, True, False),
        (NAN, NAN, False, False),
        (NAN, 1e-5, True, False),
    ],
)
def test_a_file_may_differ_by_rounding_and_no_more(largest: float, usual: float, resizes: bool, passes: bool) -> None:
    agreement = Agreement(64, largest, usual, 1e-2 if resizes else 1e-3, (0.1, 0.01) if resizes else None)
    if passes:
        agreement.require()
    else:
        with pytest.raises(ExportError, match="nothing was written"):
            agreement.require()
