"""What users choose of models and devices, known before torch is there."""

from __future__ import annotations

DEFAULT_MODEL = "uniultra-mini"
DEVICES = ("auto", "cuda", "mps", "cpu")
