"""The cases of `uniultra bench`; installed as `napari_uniultra.benchmarks`."""

from napari_uniultra.benchmarks.suite import run_benchmarks

__all__ = ["run_benchmarks"]
