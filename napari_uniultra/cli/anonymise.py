"""`uniultra anonymise`: DICOM loops in, copies without the patient's data out."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_uniultra.cli.exit_codes import OK, exit_code, fail
from napari_uniultra.core.words import counted
from napari_uniultra.errors import UniUltraError

if TYPE_CHECKING:
    from napari_uniultra.io.privacy import Pseudonyms


def add_parser(commands: Any) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "anonymise",
        help="copy DICOM files without what identifies the patient",
        description="Copies DICOM stills and loops with a pseudonym in place of the patient, other identifiers, and "
        "black outside the scan area. Beside each copy a picture of its frames is written: look at it, since text "
        "inside the scan area stays. See docs/export.md.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="DICOM files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the copies")
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="a file that keeps the secret behind the pseudonyms, made if there is none; with it, files of a later day "
        "get the same ones. Whoever has it can find out whose they are",
    )
    parser.add_argument(
        "--whole-picture", action="store_true", help="leave the pictures as they are; they may show a name"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Copy all files; one that cannot be copied is named, and the first such one gives the exit code."""

    pseudonyms = _pseudonyms(arguments.key)
    written: set[Path] = set()
    codes: list[int] = []  # of the files that could not be copied
    for file in arguments.files:
        try:
            print(_copy(file, pseudonyms, arguments, written))
        except UniUltraError as error:
            codes.append(fail(str(error), exit_code(error), arguments.traceback))
    if written:
        print("uniultra: look at the pictures beside the copies before you pass them on", file=sys.stderr)
    if codes and len(arguments.files) > 1:
        print(f"uniultra: {len(codes):,} of {counted(len(arguments.files), 'file')} were not copied", file=sys.stderr)
    return codes[0] if codes else OK


def _copy(file: Path, pseudonyms: Pseudonyms, arguments: argparse.Namespace, written: set[Path]) -> Path:
    """Write the copy of a file and the picture of its frames, and add it to those that are written."""
    from napari_uniultra.io.privacy import copy_name, write_pseudonymised
    from napari_uniultra.io.readers import read_cine
    from napari_uniultra.io.writers import write_contact_sheet

    target = _unused(arguments.out / copy_name(file, pseudonyms), written)
    write_pseudonymised(file, target, pseudonyms, whole_picture=arguments.whole_picture)
    written.add(target)
    cine = read_cine(target)
    write_contact_sheet(target.with_suffix(".png"), cine, _no_masks(cine), whole_picture=True)
    return target


def _unused(target: Path, written: set[Path]) -> Path:
    """A name of its own for each copy: two files of one call may be the same instance, stored in two ways."""
    names = (target.with_stem(f"{target.stem}_{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([target], names) if name not in written)


def _pseudonyms(key_file: Path | None) -> Pseudonyms:
    from napari_uniultra.io.privacy import Pseudonyms, read_key, write_key

    if key_file is None:
        return Pseudonyms()
    if key_file.exists():
        return Pseudonyms(read_key(key_file))
    pseudonyms = Pseudonyms()
    write_key(key_file, pseudonyms.key)
    return pseudonyms


def _no_masks(cine: Any) -> Any:
    import numpy as np

    return np.broadcast_to(np.zeros(1, np.uint8), (len(cine), *cine.shape_hw))
