"""Times in words, to the unit that matters."""

from __future__ import annotations

import pytest

from napari_uniultra.core.duration import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (9000, "2.5 h"), (3 * 86_400, "3 days")],
)
def test_times_have_the_unit_that_matters(seconds: float, words: str) -> None:
    assert duration(seconds) == words
