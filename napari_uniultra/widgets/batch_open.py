"""A loop of a batch in the viewer, with its session: from the panel, or as a program of its own for the shell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from napari_uniultra.batch.corrections import find_task, hand_out, has_changed, take_in, work_file
from napari_uniultra.batch.settings import JobSettings, read_job, with_absolute_paths
from napari_uniultra.batch.task import LoopTask
from napari_uniultra.cli.exit_codes import exit_code
from napari_uniultra.errors import UniUltraError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.plugin.reader import image_layer
from napari_uniultra.segment.autosave import autosave_folder
from napari_uniultra.widgets.docks import open_panel


def open_loop(viewer: Any, job: JobSettings, name: str) -> tuple[LoopTask, Any]:
    """Show a loop of a job in the segment panel, with the marks and masks of its results; the task and its layer.

    Raises
    ------
    UniUltraError
        When the job has no such loop, it has no results yet, or cannot be read.
    """
    task = find_task(job, name)
    path = hand_out(task, autosave_folder())
    data, keywords, _ = image_layer(read_cine(path), name)
    layer = viewer.add_image(data, **keywords)
    panel = open_panel(viewer, "Segment loop")
    panel.model_box.choose(job.model.name)
    control = panel.controller

    def restore_once() -> None:
        if control.image == layer and control.restorable:  # napari hands plugins a proxy of a layer
            control.changed.disconnect(restore_once)
            control.review.restore()

    control.changed.connect(restore_once)
    panel.choose_image(layer)
    restore_once()
    return task, layer


def main(job_file: str, name: str) -> int:
    """Open a loop; when the viewer is closed, what was changed goes into the results."""
    import napari

    try:
        job = with_absolute_paths(read_job(Path(job_file)))
        viewer = napari.Viewer(title=f"Batch: {name}")
        task, _ = open_loop(viewer, job, name)
        napari.run()
        work = work_file(task, autosave_folder())
        if has_changed(task, work):
            sys.stdout.write(f"{take_in(job, name, work)}\n")
    except UniUltraError as error:
        sys.stderr.write(f"uniultra: {error}\n")
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
