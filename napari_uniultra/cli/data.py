"""`uniultra data`: manifests of annotated data: make one of a data set, check it, split it."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_uniultra.core.words import counted
from napari_uniultra.errors import ReadError, WriteError

if TYPE_CHECKING:
    from napari_uniultra.training.data.cases import Case
    from napari_uniultra.training.data.manifest import Manifest

_SHOWN = 10  # lines of a kind; the rest is counted


def add_parser(commands: Any) -> None:
    """Add this command and its own commands to the command line."""
    parser = commands.add_parser("data", help="list, import, check and split annotated data for training")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    listing = actions.add_parser("list", help="the data sets that can be imported, where to get them, their licences")
    listing.set_defaults(run=_list)

    importing = actions.add_parser(
        "import",
        help="make a manifest of a data set on this computer",
        description="Nothing is downloaded or copied: the manifest names the files where they are.",
    )
    importing.add_argument("importer", metavar="IMPORTER", help="such as busi, or folders; see 'uniultra data list'")
    importing.add_argument("folder", type=Path, metavar="FOLDER", help="where the data set was unpacked")
    importing.add_argument("--out", type=Path, required=True, metavar="FILE", help="the manifest: .csv or .json")
    importing.add_argument("--force", action="store_true", help="replace FILE where it exists")
    importing.set_defaults(run=_import)

    check = actions.add_parser("check", help="read every case of a manifest, and say what is wrong")
    check.add_argument("manifest", type=Path, metavar="MANIFEST")
    check.set_defaults(run=_check)

    split = actions.add_parser("split", help="divide a manifest into train, val and test by subject, and write it")
    split.add_argument("manifest", type=Path, metavar="MANIFEST")
    split.add_argument("--out", type=Path, metavar="FILE", help="default: write into the manifest itself")
    split.add_argument(
        "--shares", type=float, nargs=3, default=(8, 1, 1), metavar="N", help="train, val, test (default: 8 1 1)"
    )
    split.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    split.add_argument("--redo", action="store_true", help="also divide anew what is in a part already")
    split.set_defaults(run=_split)


def _list(_arguments: argparse.Namespace) -> int:
    from napari_uniultra.training.data.importers import IMPORTERS

    for name, importer in IMPORTERS.items():
        print(f"{name}\n  {importer.TITLE}\n  from: {importer.WHERE}\n  licence: {importer.LICENCE}")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from napari_uniultra.training.data.importers import import_data
    from napari_uniultra.training.data.manifest import Manifest, write_manifest

    out = arguments.out
    if out.is_dir():
        raise WriteError(f"{out} is a folder", fix="Name a file for the manifest: --out FILE.csv")
    if out.is_file() and not arguments.force:
        raise WriteError(f"{out} exists already", "its parts would be lost", "Name another file, or add --force")
    found = import_data(arguments.importer, arguments.folder, out.parent / out.stem)
    manifest = Manifest(found.cases)
    write_manifest(manifest, out)
    _show("left out", [f"{name}: {why}" for name, why in found.left_out])
    print(f"{out}: {_parts(manifest)}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from napari_uniultra.training.data.check import check_manifest
    from napari_uniultra.training.data.importers import open_manifest
    from napari_uniultra.training.data.overlap import same_subjects

    manifest = open_manifest(arguments.manifest)
    checked = list(tqdm(check_manifest(manifest), total=len(manifest.cases), unit="case", disable=None))
    faulty = [item for item in checked if item.problem]
    leaks = [item for item in checked if item.leaks]
    _show("cannot be used", [f"{item.case.name}: {item.problem}" for item in faulty])
    _show("in two parts", [_twice(item.case, item.leaks) for item in leaks])
    _show("twice", [_twice(item.case, item.same_as) for item in checked if item.same_as and not item.leaks])
    _show("maybe one person", list(same_subjects(manifest.cases)))
    frames, structures = (sum(getattr(item, name) for item in checked) for name in ("frames", "structures"))
    found = f"{counted(frames, 'annotated frame')}, {counted(structures, 'structure')}"
    print(f"{_parts(manifest)}; {found}")
    if faulty or leaks:
        counts = f"{len(faulty):,} of {counted(len(checked), 'case')} cannot be used, {len(leaks):,} are in two parts"
        raise ReadError(f"The manifest {arguments.manifest} has faults", counts, "See above")
    return 0


def _split(arguments: argparse.Namespace) -> int:
    from napari_uniultra.training.data.manifest import read_manifest, write_manifest
    from napari_uniultra.training.data.splits import split_by_subject

    manifest = read_manifest(arguments.manifest, without_parts=arguments.redo)
    if not any(case.subject for case in manifest.cases):
        print("No subject is named: every image or loop counts as another person's.")
    manifest = split_by_subject(manifest, arguments.shares, arguments.seed)
    out = arguments.out or arguments.manifest
    write_manifest(manifest, out)
    print(f"{out}: {_parts(manifest)}")
    return 0


def _twice(case: Case, others: Sequence[Case]) -> str:
    return f"{case.name}: a picture of {', '.join(other.name for other in others)}"


def _parts(manifest: Manifest) -> str:
    counts = Counter(case.part or "in no part" for case in manifest.cases)
    listed = ", ".join(f"{counts[part]:,} {part}" for part in ("train", "val", "test", "in no part") if counts[part])
    return f"{counted(len(manifest.cases), 'case')} ({listed})"


def _show(title: str, lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        print(f"{title}: {line}")
    if len(lines) > _SHOWN:
        print(f"{title}: {len(lines) - _SHOWN:,} more")
