"""A table from its preset to its Markdown page: make each model, score it, measure it, collect."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.core.settings import ConfigError
from napari_uniultra.model.device import choose_device
from napari_uniultra.training.ablation.cost import count_operations, measure, parameter_count
from napari_uniultra.training.ablation.make import Workshop
from napari_uniultra.training.ablation.plan import Asked, Plan, plan_row, training_cases
from napari_uniultra.training.ablation.presets import RowSettings, TableSettings, read_table
from napari_uniultra.training.ablation.report import Result, report_table
from napari_uniultra.training.ablation.scores import (
    SetScores,
    chosen_sets,
    kept,
    read_scores,
    score_masks,
    score_model,
    score_settings,
    write_kept,
)
from napari_uniultra.training.ablation.shapes import count_parameters, untrained
from napari_uniultra.training.events import Listener

_REPEATS, _QUICK_REPEATS = 10, 2


def run_table(
    name: str,
    asked: Asked,
    out: str | Path,
    predictions: Mapping[str, str | Path] | None = None,
    listeners: Sequence[Listener] = (),
    on_row: Callable[[str, str], None] | None = None,
) -> Path:
    """Make what a table needs, score it, and write ``NAME.md`` into a folder.

    What is finished there, models and scores, is taken as it is, by whichever table it was made for; a training that
    was stopped goes on.

    Parameters
    ----------
    name : str
        One of `presets.TABLES`.
    asked : Asked
    out : path
    predictions : mapping, optional
        Row labels to folders with another tool's masks, as `uniultra evaluate --predictions` takes them.
    listeners : sequence of callable
        Of the trainings.
    on_row : callable, optional
        Is told a row's label and what is being done for it.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    UniUltraError
    """
    table, out = read_table(name), Path(out)
    workshop = Workshop(out, training_cases(asked.manifest), listeners)
    run = _Run(table, asked, workshop, on_row or (lambda _label, _what: None))
    run.check_labels(predictions or {})
    results = [run.row(row, (predictions or {}).get(row.label)) for row in table.rows]
    path = out / f"{name}{'-quick' if asked.is_quick else ''}.md"
    with atomic_path(path) as temporary:
        temporary.write_text(report_table(table, results, asked), encoding="utf-8")
    return path


class _Run:
    """One table's rows, in turn."""

    def __init__(
        self, table: TableSettings, asked: Asked, workshop: Workshop, on_row: Callable[[str, str], None]
    ) -> None:
        self.table, self.asked, self.workshop, self.tell = table, asked, workshop, on_row
        self.sets = chosen_sets(table.data_sets, asked) if table.metrics else {}

    def check_labels(self, predictions: Mapping[str, str | Path]) -> None:
        """Refuse masks for a row that there is not."""
        labels = [row.label for row in self.table.rows]
        unknown = [label for label in predictions if label not in labels]
        if unknown:
            raise ConfigError(f"The table has no row {unknown[0]!r}", fix=f"Its rows are {', '.join(labels)}")

    def row(self, row: RowSettings, masks: str | Path | None) -> Result:
        """A row's scores and columns."""
        plan = plan_row(row, self.asked)
        if masks is not None:
            self.tell(row.label, "scoring masks")
            scores = score_masks(masks, self.sets, score_settings(self.asked)) if self.sets else None
            return Result(scores)
        if plan is None:
            return Result()
        return Result(self._scores(row, plan) if self.sets else None, self._columns(row, plan))

    def _scores(self, row: RowSettings, plan: Plan) -> SetScores:
        settings = score_settings(self.asked, row.prompt)
        path = kept(self.workshop.place(plan), self.sets, settings)
        found = read_scores(path) if self.workshop.is_made(plan) else None
        if found is None:
            self.tell(row.label, "training" if plan.kind != "base" else "loading")
            self.workshop.make(plan)
            self.tell(row.label, "scoring")
            found = score_model(self.workshop.open(plan), self.sets, settings)
            write_kept(path, found)
        return found

    def _columns(self, row: RowSettings, plan: Plan) -> dict[str, float]:
        wanted, found = set(self.table.columns), {}
        if wanted & {"trainable", "ratio"}:
            counts = count_parameters(plan)
            found.update(trainable=counts.trained, ratio=counts.share)
        if wanted & {"encoder_parameters", "operations", "encoder_multiplications"}:
            network = untrained(plan, with_values=False)
            operations, multiplications = count_operations(network)
            found.update(
                encoder_parameters=parameter_count(network.image_encoder),
                operations=operations,
                encoder_multiplications=multiplications,
            )
        if wanted & {"frames_per_second", "memory"}:
            found.update(self._measured(row, plan))
        return found

    def _measured(self, row: RowSettings, plan: Plan) -> dict[str, float]:
        """Speed and memory on this device, kept beside the model."""
        device = choose_device(self.asked.device)
        path = self.workshop.place(plan) / f"measured-{device.type}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.tell(row.label, "measuring")
        measured = measure(untrained(plan), device, _QUICK_REPEATS if self.asked.is_quick else _REPEATS)
        found = {"frames_per_second": measured.frames_per_second, "memory": measured.peak_bytes}
        write_kept(path, found)
        return found
