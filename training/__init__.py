"""Fine-tuning, distillation and evaluation; installed as `napari_uniultra.training`."""
