"""Decoder only: the image encoder stays as it is (the baseline of Table V)."""

from __future__ import annotations

from napari_uniultra.training.peft_methods.method import Method


class DecoderOnly(Method):
    """Trains everything outside the image encoder."""

    title = "Decoder only"


METHOD = DecoderOnly
