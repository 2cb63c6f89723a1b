"""The paper's tables: presets, what is counted and measured, and every table from its preset to its page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_uniultra.cli import main
from napari_uniultra.core.settings import ConfigError
from napari_uniultra.core.stop_file import STOP
from napari_uniultra.model.build import build_network
from napari_uniultra.model.config import AdapterConfig, architecture
from napari_uniultra.model.device import copied_to
from napari_uniultra.training.ablation.cost import (
    LiveTensors,
    count_operations,
    measure,
    parameter_count,
)
from napari_uniultra.training.ablation.estimate import estimate_table
from napari_uniultra.training.ablation.make import Stopped, Workshop
from napari_uniultra.training.ablation.plan import Asked, plan_row, plans_of, training_cases
from napari_uniultra.training.ablation.presets import TABLES, RowSettings, read_data_sets, read_recipes, read_table
from napari_uniultra.training.ablation.quick import quick_start
from napari_uniultra.training.ablation.report import Result, mean_of, report_table
from napari_uniultra.training.ablation.run import run_table
from napari_uniultra.training.ablation.scores import chosen_sets, score_masks, score_settings
from napari_uniultra.training.ablation.shapes import count_parameters
from napari_uniultra.training.data.importers import open_manifest
from napari_uniultra.training.data.manifest import Case, Manifest

# Presets


@pytest.mark.parametrize("name", TABLES)
def test_a_preset_fits_its_recipes(name: str) -> None:
    table, recipes, sets = read_table(name), read_recipes(), read_data_sets()
    assert table.rows
    assert len({row.label for row in table.rows}) == len(table.rows)
    assert set(table.data_sets) <= set(sets)
    for row in table.rows:
        assert row.model is None or row.model in recipes
        assert set(row.paper) <= {*table.data_sets, "mean", *table.columns}
    plans = plans_of(table, Asked(Manifest(())))  # reads every setting
    assert any(plan.kind != "base" for plan in plans)


def paper(table: str, label: str) -> Mapping[str, object]:
    return next(row.paper for row in read_table(table).rows if row.label == label)


@pytest.mark.parametrize("model", ("UniUltra-L", "UniUltra-mini", "SAM2", "MedSAM"))
def test_the_papers_tables_agree_with_each_other(model: str) -> None:
    """Table III's Dice is the mean over the eight data sets of Tables I and II."""
    dice = [values[0] for table in ("table1", "table2") for values in paper(table, model).values()]
    assert len(dice) == 8
    assert np.mean(dice) == pytest.approx(paper("table3", model)["mean"][0], abs=0.006)


@pytest.mark.parametrize(
    ("model", "others"),
    [
        ("UniUltra-L", [("table5", "CH-Adapter"), ("table6", "all four")]),
        ("UniUltra-mini", [("table7", "integration, Hiera, CH-Adapter")]),
    ],
)
def test_the_ablations_last_rows_are_means_of_table_1(model: str, others: list[tuple[str, str]]) -> None:
    """So Table VII is about the internal data, whatever its caption says."""
    means = np.mean(list(paper("table1", model).values()), axis=0)
    for table, label in others:
        assert means == pytest.approx(paper(table, label)["mean"], abs=0.01)
    for table, label in (("table8", "Sobel"), ("table9", "1 bbox")) if model == "UniUltra-L" else ():
        assert paper(table, label) == paper("table1", model)


def write_case(folder: Path, source: str, number: int, part: str) -> Case:
    """Of files that nobody looks into; no two are alike, as no two pictures of different parts may be."""
    file = folder / f"{source} {number}.png"
    file.write_text(file.name)
    return Case(file.stem, file, (file,), source=source, part=part)


def test_steps_follow_from_epochs_and_the_papers_internal_data_alone_are_trained_on(tmp_path: Path) -> None:
    cases = [
        write_case(tmp_path, source, number, part)
        for source in ("busi", "ddti", "fugc", "mine")
        for number, part in enumerate(("train",) * 5 + ("val", "test"))
    ]
    asked = Asked(Manifest(tuple(cases)))
    assert {case.source for case in training_cases(asked.manifest)} == {"busi", "ddti"}
    plan = plan_row(RowSettings("", model="uniultra-l"), asked)
    assert (plan.settings.run.steps, plan.settings.optimiser.decay_every) == (200 * 3, 3)
    internal = chosen_sets(read_table("table1").data_sets, asked)
    assert {name: len(own) for name, own in internal.items()} == {"BUSI": 1, "DDTI": 1}
    external = chosen_sets(read_table("table2").data_sets, asked)
    assert {name: len(own) for name, own in external.items()} == {"FUGC-AL": 7, "FUGC-PL": 7}
    only_mine = Asked(Manifest(tuple(case for case in cases if case.source == "mine")))
    assert len(training_cases(only_mine.manifest)) == 6
    assert list(chosen_sets(read_table("table1").data_sets, only_mine)) == ["mine"]


def test_a_fingerprint_follows_what_decides_the_result() -> None:
    asked = Asked(Manifest(()))
    row = RowSettings("", model="uniultra-mini")
    plan = plan_row(row, asked)
    assert plan_row(replace(row, label="other"), replace(asked, device="cpu")) == replace(
        plan,
        settings=replace(plan.settings, run=replace(plan.settings.run, device="cpu")),
        teacher=plan_row(RowSettings("", model="uniultra-l"), replace(asked, device="cpu")),
    )
    for changes in ({"run.steps": 7}, {"model.image_size": 512}, {"match.stages": [3]}):
        changed = plan_row(row, replace(asked, changes=changes))
        assert changed.fingerprint != plan.fingerprint, changes
    assert plan_row(row, replace(asked, changes={"model.image_size": 512})).settings == plan.settings
    with pytest.raises(ConfigError, match="Its first part"):
        plan_row(row, replace(asked, changes={"steps": 7}))
    with pytest.raises(ConfigError, match="mixer"):
        plan_row(row, replace(asked, changes={"match.mixer": True}))


# Costs


def test_table_5s_parameters_that_reproduce() -> None:
    rows = {row.label: row for row in read_table("table5").rows}
    for label in ("Decoder only", "LoRA", "Adapter", "Adapter + LoRA", "CH-Adapter"):
        counts = count_parameters(plan_row(rows[label], Asked(Manifest(()))))
        assert counts.trained / 1e6 == pytest.approx(rows[label].paper["trainable"], abs=0.01), label
        assert 100 * counts.share == pytest.approx(rows[label].paper["ratio"], abs=0.01), label


def test_multiplications_with_attention() -> None:
    """10.74 G in all, of which the layer norms, which multiply nothing here, are 0.04."""
    config = architecture("uniultra-mini", version="2.0", image_size=1024, adapter=AdapterConfig(layout="released"))
    assert count_operations(build_network(config))[1] / 1e9 == pytest.approx(10.70, abs=0.03)


def test_live_tensors_by_hand() -> None:
    with LiveTensors() as live:
        first = torch.zeros(1000)
        second = first + 1
        view = second.view(10, 100)
        del first
        third = view * 2
        assert live.peak == 8000
        fourth = torch.cat([third, third])
        del second, view
        third.sum()
    assert live.peak == 4000 * (1 + 1 + 2)
    assert fourth.shape == (20, 100)


def test_what_a_network_costs() -> None:
    network = build_network(architecture("uniultra-mini", image_size=128))
    assert parameter_count(network.image_encoder) == 857_608
    measured = measure(network, torch.device("cpu"), repeats=2)
    assert measured.peak_bytes > 4 * parameter_count(network)
    assert measured.frames_per_second > 0
    shapes = copied_to(network, "meta")
    assert {parameter.device.type for parameter in shapes.parameters()} == {"meta"}
    assert count_operations(shapes) == count_operations(network)


# Runs


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the paper's data sets, one of them external, with a tiny image for each part."""
    folder = tmp_path_factory.mktemp("data")
    lines = ["frames,masks,source,part,name,labels"]
    y, x = np.mgrid[0:48, 0:56]
    for number, (source, part) in enumerate(
        [("busi", "train"), ("busi", "val"), ("busi", "test"), ("fugc", ""), ("jnu_ifm", "")]
    ):
        left, right = ((y - 24) ** 2 + (x - middle) ** 2 < (8 + number) ** 2 for middle in (16, 42))
        labels = np.where(left, 1, np.where(right, 2, 0)).astype(np.uint8)
        Image.fromarray((60 + 60 * labels + 2 * number).astype(np.uint8)).save(folder / f"{number}.png")
        Image.fromarray(labels if source != "busi" else labels * 127).save(folder / f"{number}_mask.png")
        names = {"fugc": "1=anterior lip;2=posterior lip", "jnu_ifm": "1=pubic symphysis;2=fetal head"}.get(source, "")
        lines.append(f"{number}.png,{number}_mask.png,{source},{part},case {number},{names}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tables, so that they share models."""
    return tmp_path_factory.mktemp("tables")


def asked_of(manifest: Path, out: Path) -> Asked:
    return Asked(open_manifest(manifest), start=quick_start(out), device="cpu")


@pytest.mark.parametrize("name", TABLES)
def test_every_table_runs_through(name: str, manifest: Path, out: Path) -> None:
    asked, table = asked_of(manifest, out), read_table(name)
    page = run_table(name, asked, out).read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(table.rows)
    for row, line in zip(table.rows, lines[2:], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == row.label
        has_numbers = any(cell[0].isdigit() for cell in cells[1:])
        assert has_numbers == (row.model is not None)
        if row.paper:
            assert any(cell.endswith(")") for cell in cells[1:])
    assert "mean nothing" in page


def test_what_is_finished_is_not_done_again(manifest: Path, out: Path) -> None:
    asked, told = asked_of(manifest, out), []
    run_table("table8", asked, out)
    before = (out / "table8-quick.md").read_text(encoding="utf-8")
    run_table("table8", asked, out, on_row=lambda *what: told.append(what))
    assert told == []
    assert (out / "table8-quick.md").read_text(encoding="utf-8") == before
    assert list(out.rglob("*.safetensors"))
    assert not list(out.rglob("last.pt"))  # states that nothing goes on from
    teacher = plan_row(read_table("table1").rows[-1], asked).teacher
    assert teacher == plan_row(read_table("table8").rows[-1], asked)  # Sobel is UniUltra-L


def test_a_page_holds_the_scores_of_its_models(manifest: Path, out: Path) -> None:
    asked = asked_of(manifest, out)
    run_table("table2", asked, out)
    workshop, table = Workshop(out, training_cases(asked.manifest)), read_table("table2")
    row = next(row for row in table.rows if row.label == "UniUltra-mini")
    plan = plan_row(row, asked)
    assert workshop.open(plan).config.image_size == 64
    files = sorted(workshop.place(plan).glob("scores-*.json"))
    scores = next(
        found for found in map(json.loads, (f.read_text() for f in files)) if set(found) == set(table.data_sets)
    )
    line = next(line for line in (out / "table2-quick.md").read_text().splitlines() if "UniUltra-mini" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == f"{scores['FUGC-AL']['dice']:.2f} (74.33)"
    assert mean_of({"a": {"dice": 1.0}, "b": {"dice": 3.0}, "c": {}}, "dice") == 2.0


def test_another_tools_masks_stand_in_its_row(manifest: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "case 2.png").write_bytes((manifest.parent / "2_mask.png").read_bytes())
    asked = asked_of(manifest, out)
    page = run_table("table1", asked, out, predictions={"MedSAM": tmp_path}).read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if "MedSAM" in line)
    assert "100.00 (93.11)" in line
    with pytest.raises(ConfigError, match="no row 'Other'"):
        run_table("table1", asked, out, predictions={"Other": tmp_path})


def test_images_that_cannot_be_read_are_counted_on_the_page(manifest: Path, out: Path, tmp_path: Path) -> None:
    cases = open_manifest(manifest).cases
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    test = next(case for case in cases if case.part == "test")
    damaged = Manifest((*cases, replace(test, name="broken", frames=broken)))
    tool = tmp_path / "tool"
    tool.mkdir()
    (tool / f"{test.name}.png").write_bytes(test.masks[0].read_bytes())
    pages = []
    for own in (Manifest(cases), damaged):
        asked = replace(asked_of(manifest, out), manifest=own)
        sets = chosen_sets(read_table("table1").data_sets, asked)
        result = Result(score_masks(tool, sets, score_settings(asked)))
        table = read_table("table1")
        pages.append(report_table(table, [result] * len(table.rows), asked))
    assert "in no mean" not in pages[0]
    assert "in no mean: BUSI 1." in pages[1]
    assert "of the part 'test': BUSI 1." in pages[1]


def test_a_stopped_training_goes_on(manifest: Path, tmp_path: Path) -> None:
    asked = replace(asked_of(manifest, tmp_path), changes={"run.steps": 3, "run.log_every": 1})
    plan = plan_row(RowSettings("", model="uniultra-l"), asked)
    cases = training_cases(asked.manifest)

    def stop(event: Mapping[str, object]) -> None:
        if event["event"] == "step" and event["step"] == 1:
            (tmp_path / "models" / plan.folder / "run" / STOP).touch()

    with pytest.raises(Stopped, match="same command"):
        Workshop(tmp_path, cases, [stop]).make(plan)
    started = []
    workshop = Workshop(tmp_path, cases, [lambda event: started.append(event) if event["event"] == "start" else None])
    assert not workshop.is_made(plan)
    workshop.make(plan)
    assert [0 < event["step"] < 3 for event in started] == [True]
    assert workshop.is_made(plan)


@pytest.mark.parametrize("name", ("table1", "table5"))
def test_estimates_know_every_model(name: str, manifest: Path, out: Path, tmp_path: Path) -> None:
    asked = asked_of(manifest, out)
    estimates = estimate_table(read_table(name), asked, Workshop(tmp_path, training_cases(asked.manifest)))
    assert [own.plan for own in estimates] == plans_of(read_table(name), asked)
    assert all(own.seconds > 0 and own.steps == 2 for own in estimates if own.plan.kind != "base")
    assert [own.is_made for own in estimates] == [own.plan.kind == "base" for own in estimates]
    for own in estimates:
        assert 0 <= own.counts.share < 1
        assert (own.counts.trained == 0) == (own.plan.kind == "base")


def test_the_papers_way_of_scoring() -> None:
    settings = score_settings(Asked(Manifest(())), "point")
    assert (settings.canvas, settings.smooth, settings.drop_infinite, settings.jitter) == (1024, 1.0, True, 20.0)
    assert (settings.part, settings.prompts) == ("test", ("point",))


def test_the_command_lists_what_a_table_takes(manifest: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["ablate", "table10", "--data", str(manifest), "--out", str(out), "--quick", "--device", "cpu"]
    assert main([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert sum("| distil " in line for line in printed.splitlines()) == 3
    assert "(teacher)" in printed
    assert "2 stages" in printed
    assert "BUSI (1)" in printed
    assert main(arguments) == 0
    assert "Table X" in capsys.readouterr().out
    assert main([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "to do" not in printed
    assert main(["ablate", "table11", "--data", str(manifest), "--out", str(out)]) != 0
    assert "table10" in capsys.readouterr().err
