"""The cases of `uniultra bench`; installed as `napari_uniultra.benchmarks`."""
