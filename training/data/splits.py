"""Splits by subject or loop: which cases are trained on, validated on and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_uniultra.errors import ConfigError
from napari_uniultra.training.data.cases import PARTS
from napari_uniultra.training.data.manifest import Manifest
from napari_uniultra.training.data.overlap import same_pictures


def split_by_subject(manifest: Manifest, shares: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 1) -> Manifest:
    """Give every case a part, all cases of a subject (or loop, where the subject is unknown) the same.

    Cases that hold the same picture under two names count as one subject's. Each source is divided by itself. What is
    in a part already stays there, such as a test set that its makers fixed. The result depends on the names of
    subjects, the shares and the seed, not on the order of the cases.

    Parameters
    ----------
    shares : sequence of float
        Of train, val and test, in any unit: (0.8, 0.1, 0.1) or (8, 1, 1).

    Raises
    ------
    ConfigError
        For shares that are none.
    ReadError
        For an overlap in what is fixed already.
    """
    if len(shares) != len(PARTS) or min(shares) < 0 or sum(shares) <= 0:
        raise ConfigError(f"{tuple(shares)} are not shares of {', '.join(PARTS)}", fix="Give three, such as 8 1 1")
    group_of = _joined_groups(manifest)
    fixed = {group_of[case.group]: case.part for case in manifest.cases if case.part}
    chosen = dict(fixed)
    for source in sorted({source for source, _ in group_of.values()}):
        groups = sorted({group for group in group_of.values() if group[0] == source})
        free = [group for group in groups if group not in fixed]
        have = [sum(fixed.get(group) == part for group in groups) for part in PARTS]
        wanted = _counts(len(groups), have, shares)
        order = np.random.default_rng([seed, *source.encode()]).permutation(len(free))
        parts = [part for part, count in zip(PARTS, wanted, strict=True) for _ in range(count)]
        chosen.update({free[index]: part for index, part in zip(order, parts, strict=True)})
    return Manifest(tuple(replace(case, part=chosen[group_of[case.group]]) for case in manifest.cases))


def _joined_groups(manifest: Manifest) -> dict[tuple[str, str], tuple[str, str]]:
    """Each group and the first of those that it shares pictures with, directly or through others."""
    group_of = {case.group: case.group for case in manifest.cases}
    for case, other, _ in same_pictures(manifest.cases):
        first, second = sorted((group_of[case.group], group_of[other.group]))
        group_of = {group: first if root == second else root for group, root in group_of.items()}
    return group_of


def _counts(total: int, have: Sequence[int], shares: Sequence[float]) -> list[int]:
    """How many more groups each part gets, as near to the shares of the total as what is fixed allows."""
    counts = [0] * len(shares)
    for _ in range(total - sum(have)):
        # Every further group goes to the part that lacks most.
        lacks = [
            share / sum(shares) * total - fixed - count
            for share, fixed, count in zip(shares, have, counts, strict=True)
        ]
        counts[int(np.argmax(lacks))] += 1
    return counts
