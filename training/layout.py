"""What lies where in the folder of a run. No torch: the viewer looks into these folders too."""

from __future__ import annotations

CHECKPOINT = "last.pt"  # the state, to go on from
SETTINGS = "settings.yaml"  # with which the run was last started
EVENTS, TENSORBOARD, OVERLAYS = "events.jsonl", "tensorboard", "overlays"
MODEL, ADAPTER = "model.safetensors", "adapter.safetensors"
STUDENT = "student.safetensors"
MATCHED = "matched.safetensors"  # the student before its joint stage, where there is one
JOINT = "joint"  # the folder of a distillation's second stage, a run of its own
