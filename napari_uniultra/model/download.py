"""The official SAM2 weights: where they are, what they must be, and how to get them."""

from __future__ import annotations

import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from napari_uniultra.core.atomic import write_error
from napari_uniultra.core.digest import sha256_of
from napari_uniultra.core.lock import locked
from napari_uniultra.errors import CheckpointError, ResourceError

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30.0
_SPARE_BYTES = 100 << 20


@dataclass(frozen=True)
class Download:
    """A file on a server: its URL, size in bytes, SHA-256, licence, and how many parameters its network has."""

    url: str
    size: int
    sha256: str
    parameters: int = 0
    licence: str = "Apache-2.0"


def _official(path: str, size: int, sha256: str, parameters: int) -> Download:
    return Download(f"https://dl.fbaipublicfiles.com/segment_anything_2/{path}", size, sha256, parameters)


# As Meta publishes them; the sizes and hashes are those that several public projects record for these files.
DOWNLOADS: dict[str, Download] = {
    "sam2-tiny": _official(
        "072824/sam2_hiera_tiny.pt",
        155_906_050,
        "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
        parameters=38_945_986,
    ),
    "sam2-small": _official(
        "072824/sam2_hiera_small.pt",
        184_309_650,
        "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
        parameters=46_043_842,
    ),
    "sam2-base-plus": _official(
        "072824/sam2_hiera_base_plus.pt",
        323_493_298,
        "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
        parameters=80_833_666,
    ),
    "sam2-large": _official(
        "072824/sam2_hiera_large.pt",
        897_952_466,
        "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
        parameters=224_430_130,
    ),
    "sam2.1-tiny": _official(
        "092824/sam2.1_hiera_tiny.pt",
        156_008_466,
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        parameters=38_962_498,
    ),
    "sam2.1-small": _official(
        "092824/sam2.1_hiera_small.pt",
        184_416_285,
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        parameters=46_060_354,
    ),
    "sam2.1-base-plus": _official(
        "092824/sam2.1_hiera_base_plus.pt",
        323_606_802,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        parameters=80_850_178,
    ),
    "sam2.1-large": _official(
        "092824/sam2.1_hiera_large.pt",
        898_083_611,
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        parameters=224_446_642,
    ),
}


def fetch(
    download: Download,
    target: Path,
    progress: Callable[[int, int], None] | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> Path:
    """Download to ``target``, going on where an earlier try stopped, and check size and SHA-256.

    Until it is complete and checked the file has another name (``target`` with ".part" added). The folder is for this
    one download, which keeps other processes out of it meanwhile.

    Raises
    ------
    ResourceError
        When the network, the server or the disk do not allow it. What has come so far is kept.
    CheckpointError
        When what came is not the expected file. It is deleted.
    WriteError
        When it cannot be written, or is being downloaded already.
    """
    part = _part_of(target)
    with locked(target.parent):
        try:
            if target.exists() and _is_expected(target, download):
                return target
            have = received(target)
            _check_space(part.parent, download.size - have)
            if have < download.size:
                _receive(download, part, have, progress, timeout_s)
            if not _is_expected(part, download):
                part.unlink()
                raise CheckpointError(
                    f"What {download.url} sent is not the expected file",
                    "its size or SHA-256 is another",
                    "Try again; if it happens again, get the file elsewhere and use `uniultra weights add`",
                )
            os.replace(part, target)
        except OSError as error:
            raise write_error(part, error) from error
    return target


def _is_expected(file: Path, download: Download) -> bool:
    return file.stat().st_size == download.size and sha256_of(file) == download.sha256


def received(target: Path) -> int:
    """Bytes that earlier tries to `fetch` a file have left."""
    part = _part_of(target)
    return part.stat().st_size if part.exists() else 0


def _part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise ResourceError(
            f"The disk of {folder} is too full",
            f"{free / 1e6:,.0f} MB are free and {(needed + _SPARE_BYTES) / 1e6:,.0f} MB are needed",
            "Free some space, or set NAPARI_UNIULTRA_HOME to a folder on another disk",
        )


def _receive(
    download: Download, part: Path, have: int, progress: Callable[[int, int], None] | None, timeout_s: float
) -> None:
    headers = {"User-Agent": "napari-uniultra", **({"Range": f"bytes={have}-"} if have else {})}
    request = urllib.request.Request(download.url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            if have and response.status != http.client.PARTIAL_CONTENT:  # a server that cannot resume sends it all
                have = 0
            for chunk in iter(lambda: response.read1(_CHUNK_BYTES), b""):
                have = _append(part, chunk, have)
                if have > download.size:
                    break
                if progress is not None:
                    progress(have, download.size)
    except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        raise ResourceError(
            f"{download.url} cannot be downloaded", _reason(error), "Check the network and try again: it will go on"
        ) from error
    if have < download.size:
        raise ResourceError(
            f"{download.url} was cut short",
            f"{have:,} of {download.size:,} bytes came",
            "Try again: it will go on where it stopped",
        )


def _append(part: Path, chunk: bytes, have: int) -> int:
    """Write what came after the ``have`` bytes there are; the new number of bytes."""
    try:
        with open(part, "ab" if have else "wb") as file:
            file.write(chunk)
    except OSError as error:
        raise write_error(part, error) from error
    return have + len(chunk)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, TimeoutError):
        return "the server did not answer in time"
    return str(getattr(error, "reason", error)) or type(error).__name__
