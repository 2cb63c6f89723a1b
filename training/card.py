"""What a model that was trained here says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from napari_uniultra.core.words import counted
from napari_uniultra.model.preprocess import MEAN, STD
from napari_uniultra.training.data.importers import open_manifests
from napari_uniultra.training.data.settings import DataSettings


def make_card(description: str, base: Mapping[str, Any], data: DataSettings) -> dict[str, Any]:
    """The card of a model that learnt from ``data`` and began with one of the card ``base``.

    Raises
    ------
    ReadError
        When a manifest cannot be used.
    """
    learnt_from = [*base.get("training_data", []), *_sources(data)]
    return {
        "description": description,
        "licence": base.get("licence", "unknown"),
        "intended_use": "Research use, not a medical device",
        "training_data": list(dict.fromkeys(learnt_from)),
        "normalisation": {"mean": list(MEAN), "std": list(STD)},
    }


def _sources(data: DataSettings) -> Iterator[str]:
    cases = open_manifests(data.manifests).part("train") if data.manifests else ()
    counts = Counter(case.source or "unnamed" for case in cases)
    yield from (f"{source}: {counted(count, 'case')}" for source, count in sorted(counts.items()))
    if data.simulated_share:
        yield "Simulated ultrasound, made by this package's simulator"
