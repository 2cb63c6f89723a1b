"""Full fine-tuning: every weight."""

from __future__ import annotations

from napari_uniultra.training.peft_methods.method import Method


class Full(Method):
    """Trains the whole network."""

    title = "Full"

    def trains(self, name: str) -> bool:
        return True


METHOD = Full
