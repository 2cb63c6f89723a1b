"""The cases of `uniultra bench`, a module each; installed as `napari_uniultra.benchmarks`."""
