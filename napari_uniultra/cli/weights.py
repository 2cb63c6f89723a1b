"""`uniultra weights`: which models there are, and adding, removing and downloading them."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add this command and its own commands to the command line."""
    parser = commands.add_parser("weights", help="list, add, inspect, remove and download models")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    listing = actions.add_parser("list", help="which models there are")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_list)

    add = actions.add_parser("add", help="copy a checkpoint into your models, after a full check")
    add.add_argument("path", type=Path, metavar="PATH", help="safetensors file, folder of shards, or official .pt file")
    add.add_argument("--name", help="how to call it (default: made from the file's name)")
    add.set_defaults(run=_add)

    info = actions.add_parser("info", help="what a model is and what it was trained on")
    info.add_argument("model", metavar="NAME|PATH")
    info.set_defaults(run=_info)

    remove = actions.add_parser("remove", help="delete an added model")
    remove.add_argument("name", metavar="NAME")
    remove.set_defaults(run=_remove)

    download = actions.add_parser("download", help="get official SAM2 weights from Meta (Apache-2.0)")
    download.add_argument("name", metavar="NAME", help="such as sam2.1-tiny")
    download.set_defaults(run=_download)


def _list(arguments: argparse.Namespace) -> int:
    from napari_uniultra.model.catalogue import as_dict, list_models

    models = list_models()
    if arguments.json:
        print(json.dumps([as_dict(info) for info in models], indent=1))
        return 0
    rows = [("NAME", "WHERE", "INPUT", "SIZE", "LICENCE", "DESCRIPTION")] + [
        (info.name, info.origin, f"{info.image_size} px", _size(info.size_bytes), info.licence, info.description)
        for info in models
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _add(arguments: argparse.Namespace) -> int:
    from napari_uniultra.model.zoo import add_model

    info = add_model(arguments.path, arguments.name)
    print(f"Added {info.name!r} ({info.architecture}, {_size(info.size_bytes)}) at {info.path}")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from napari_uniultra.model.load import load_model

    model = load_model(arguments.model, device="cpu")
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    facts = {
        "name": model.name,
        "sha256": model.sha256,
        "parameters": parameters,
        "config": model.config.to_dict(),
        "card": model.card,
    }
    print(json.dumps(facts, indent=1, ensure_ascii=False))
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    from napari_uniultra.model.zoo import remove_model

    remove_model(arguments.name)
    print(f"Removed {arguments.name!r}")
    return 0


def _download(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from napari_uniultra.model.zoo import download_model

    with ExitStack() as stack:
        bar: Any = None

        def show(have: int, total: int) -> None:
            nonlocal bar
            if bar is None:  # what goes wrong before the first byte is one line, without a bar above it
                bar = stack.enter_context(tqdm(total=total, unit="B", unit_scale=True, desc=arguments.name))
            bar.update(have - bar.n)

        info = download_model(arguments.name, progress=show)
    print(f"Added {info.name!r} ({_size(info.size_bytes)}, {info.licence}) at {info.path}")
    return 0


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
