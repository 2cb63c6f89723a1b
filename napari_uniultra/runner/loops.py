"""Corrected loops to learn from: where a loop's session is, and what of it a person accepted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_uniultra.batch.results import SESSION, correction_file, loop_folder
from napari_uniultra.batch.tables import MANIFEST
from napari_uniultra.core.csv_table import read_table
from napari_uniultra.core.types import Cine
from napari_uniultra.errors import ReadError, UniUltraError
from napari_uniultra.io.readers import read_cine
from napari_uniultra.segment.autosave import autosave_file
from napari_uniultra.segment.results import Result
from napari_uniultra.segment.session_file import SUFFIX, load_state, read_about
from napari_uniultra.segment.state import SessionState

SESSION_SUFFIXES = (SUFFIX, ".npz")
Answers = Mapping[int, Mapping[int, Result]]  # frame to object id to result


@dataclass(frozen=True)
class CorrectedLoop:
    """A loop and its session.

    Attributes
    ----------
    shown : str
        What the screen calls it. It may name a patient and is written nowhere.
    cine : Cine
    session : Path
    accepted, known : int
        Frames that a person accepted, and all that have a result.
    subject : str
        Whose it is, as a user tells subjects apart; "" for a subject of its own. Written as a number only.
    """

    shown: str
    cine: Cine
    session: Path
    accepted: int
    known: int
    subject: str = ""


@dataclass
class Found:
    """Loops that were found, and what could not be used, with the reason."""

    loops: list[CorrectedLoop] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def add(self, shown: str, cine: Cine, session: Path, subject: str = "") -> None:
        """Take a loop in, unless its content is there already."""
        if any(loop.cine.key == cine.key for loop in self.loops):
            return
        try:
            state = load_state(session, cine)
        except UniUltraError as error:
            self.problems.append((shown, str(error)))
            return
        counts = [len(answers(state, accepted_only)) for accepted_only in (True, False)]
        self.loops.append(CorrectedLoop(shown, cine, session, *counts, subject))


def answers(state: SessionState, accepted_only: bool) -> dict[int, dict[int, Result]]:
    """What is known of each frame, by object: what was accepted, or everything."""
    chosen = state.locked.items() if accepted_only else state.results()
    frames: dict[int, dict[int, Result]] = {}
    for (object_id, frame), result in chosen:
        frames.setdefault(frame, {})[object_id] = result
    return dict(sorted(frames.items()))


def find_open(cines: Iterable[tuple[str, Cine]], autosaves: Path) -> Found:
    """Loops that the viewer holds and has work on.

    Parameters
    ----------
    cines : iterable of (str, Cine)
        The layers' names and their loops.
    autosaves : Path
        Where the viewer keeps its work, by the loops' content.
    """
    found = Found()
    for shown, cine in cines:
        session = autosave_file(cine, autosaves)
        if session.is_file():
            found.add(shown, cine, session)
    return found


def find_in_files(paths: Sequence[str | Path], autosaves: Path) -> Found:
    """Loops and session files in any order, matched by content; a loop without one gets the viewer's own work on it."""
    found = Found()
    sessions = dict(_keys([Path(path) for path in paths], found))
    used = set()
    for path in map(Path, paths):
        if _is_session(path):
            continue
        try:
            cine = read_cine(path)
        except UniUltraError as error:
            found.problems.append((path.name, str(error)))
            continue
        session = sessions.get(cine.key, autosave_file(cine, autosaves))
        used.add(cine.key)
        if session.is_file():
            found.add(path.name, cine, session)
        else:
            found.problems.append((path.name, "there is no session of it: add its session file, or segment it first"))
    lone = [session.name for key, session in sessions.items() if key not in used]
    found.problems += [(name, "its loop is missing: add the loop's file too") for name in lone]
    return found


def _is_session(path: Path) -> bool:
    if path.suffix.lower() == SUFFIX:
        return True
    if path.suffix.lower() not in SESSION_SUFFIXES:
        return False
    try:
        read_about(path)
    except ReadError:
        return False  # a loop may be an .npz file as well
    return True


def _keys(paths: Iterable[Path], found: Found) -> Iterator[tuple[str, Path]]:
    for path in paths:
        if _is_session(path):
            try:
                yield read_about(path).loop.key, path
            except ReadError as error:
                found.problems.append((path.name, str(error)))


def find_in_batch(folder: str | Path) -> Found:
    """The loops of a batch's folder of results; a corrected session stands above the batch's own.

    Raises
    ------
    ReadError
        When the folder does not say which file each loop is.
    """
    folder, found = Path(folder), Found()
    try:
        rows = read_table(folder / MANIFEST).values()
        named = [(row["name"], Path(row["frames"]), row.get("subject", "")) for row in rows]
    except (ReadError, KeyError) as error:
        raise ReadError(
            f"{folder} is no folder of batch results that can be learnt from",
            f"it has no {MANIFEST}, which says where the loops are",
            "Choose the results' folder, and keep 'identifying' in it",
        ) from error
    for name, path, subject in named:
        corrected, own = correction_file(folder, name), loop_folder(folder, name) / SESSION
        try:
            found.add(name, read_cine(path), corrected if corrected.is_file() else own, subject)
        except UniUltraError as error:
            found.problems.append((name, str(error)))
    return found
