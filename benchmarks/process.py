"""One measurement in a process of its own; prints JSON. Run by the suite."""

from __future__ import annotations

import json
import sys
import time


def main(task: str, contender_name: str, model: str, frames: str = "0") -> dict[str, float]:
    """Load a model, or track one object through a loop of some frames."""
    start = time.perf_counter()
    from napari_uniultra.benchmarks import contenders
    from napari_uniultra.model.zoo import load_model

    contender = getattr(contenders, contender_name)(load_model(model, device="cpu"))
    if task == "load":
        return {"seconds": time.perf_counter() - start}

    from napari_uniultra.benchmarks.suite import SyntheticLoop, boxes

    contender.open(SyntheticLoop(int(frames)))
    contenders.prompt(contender, boxes(1))
    for _ in contender.propagate():
        pass
    return {"peak_mb": peak_megabytes()}


def peak_megabytes() -> float:
    """The largest resident memory of this process so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
