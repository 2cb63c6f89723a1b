"""Batches for a training, made ahead by processes that leave it to the training to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from napari_uniultra.errors import UniUltraError
from napari_uniultra.training.data.samples import Batch
from napari_uniultra.training.launch import STOPS


@contextmanager
def batches_of(
    samples: Dataset[Batch], numbers: range, workers: int, *, pin_memory: bool = False
) -> Iterator[Iterator[Batch]]:
    """The samples of these numbers, in order; the processes that make them end with the block.

    Raises
    ------
    UniUltraError
        As the samples raise it, also where another process makes them.
    """
    others = set(active_children())
    with _deaf_children():
        answers = iter(make_loader(samples, numbers, workers, pin_memory=pin_memory))
    own = set(active_children()) - others
    try:
        yield map(_raised, answers)
    finally:
        if own:
            answers._shutdown_workers()  # as when it is collected, which an error's traceback would put off
        for worker in own:
            worker.kill()  # one that hangs: it is deaf to torch's SIGTERM


def make_loader(samples: Dataset[Batch], numbers: range, workers: int, *, pin_memory: bool = False) -> DataLoader:
    """What makes the samples, or the errors that stand for them; in this process without ``workers``."""
    return DataLoader(
        _Answers(samples),
        batch_size=None,
        sampler=_Numbers(numbers),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_begin_worker if workers else None,
        # A forked process would inherit what libraries lock in threads of this one (such as video decoders), and hang.
        multiprocessing_context="spawn" if workers else None,
        pin_memory=pin_memory,
    )


class _Numbers(Sampler[int]):
    """The numbers as they are."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


class _Answers(Dataset["Batch | UniUltraError"]):
    """Batches, or why one cannot be had: torch would make a traceback in text of an error in another process."""

    def __init__(self, samples: Dataset[Batch]) -> None:
        self._samples = samples

    def __getitem__(self, number: int) -> Batch | UniUltraError:
        try:
            return self._samples[number]
        except UniUltraError as error:
            return error


def _raised(answer: Batch | UniUltraError) -> Batch:
    if isinstance(answer, UniUltraError):
        raise answer
    return answer


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that are started within the block hear no signal to stop until they `_begin_worker`.

    Ctrl-C in a terminal, and many a cluster, reach all processes of a run. Those that prepare its data have to live
    until its last step is done, and end with it. This process hears what comes meanwhile when the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # what starts it lets the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(_worker: int) -> None:
    """Leave it to the process that started this one to stop."""
    torch.set_num_threads(1)
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
