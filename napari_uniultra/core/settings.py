"""Settings as frozen dataclasses: default, limits and help stand in one place and serve files, checks and forms.

A field made with `setting` carries its help text and limits. `read_settings` builds a dataclass of such fields from
nested mappings, as a YAML file gives them, and names whatever does not fit by its dotted path.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from napari_uniultra.core.atomic import atomic_path
from napari_uniultra.errors import ConfigError

T = TypeVar("T")
_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Mapping: "a group of settings"}


def setting(
    default: Any = MISSING,
    *,
    help: str,
    choices: tuple[Any, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    factory: Callable[[], Any] | None = None,
) -> Any:
    """A dataclass field with its help and limits.

    Parameters
    ----------
    default : optional
        Without one (and without ``factory``) the setting has to be given.
    help : str
        One sentence for files, forms and error messages, with the unit.
    choices : tuple, optional
    low, high : float, optional
        Inclusive limits; of every item, for a tuple.
    factory : callable, optional
        Makes the default of a group of settings.
    """
    metadata = {"help": help, "choices": choices, "low": low, "high": high}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def read_settings(kind: type[T], values: Any, where: str = "") -> T:
    """Build settings of ``kind`` from nested mappings.

    Parameters
    ----------
    kind : type
        A frozen dataclass of `setting` fields; groups are fields whose type is another one.
    values : mapping
    where : str
        The dotted path so far, for messages.

    Raises
    ------
    ConfigError
        For an unknown key (with the nearest known one), a missing one, a value of another type or out of its limits.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'The configuration'} holds no settings", fix="Write one 'name: value' a line")
    known = {item.name: item for item in fields(kind)}
    for key in values:
        if key not in known:
            _unknown(f"{where}{key}", str(key), list(known))
    hints = typing.get_type_hints(kind)
    read = {
        name: _value(hints[name], values[name], f"{where}{name}", item.metadata)
        for name, item in known.items()
        if name in values
    }
    for name, item in known.items():
        if name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"The setting {where}{name!s} is missing", fix=item.metadata.get("help", ""))
    return kind(**read)


def read_file(kind: type[T], path: str | Path, changes: Mapping[str, Any] | None = None) -> T:
    """Settings from a YAML file; paths in it are relative to the working folder.

    Parameters
    ----------
    changes : mapping, optional
        Dotted names to values that replace those of the file, as a command line gives them.

    Raises
    ------
    ConfigError
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The configuration {path} cannot be read", _why(error), "Name a YAML file") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The configuration {path} holds no settings", fix="Write one 'name: value' a line")
    for name, value in (changes or {}).items():
        *groups, last = name.split(".")
        place = values
        for group in groups:
            place[group] = {} if place.get(group) is None else place[group]  # a group may be named and left empty
            place = place[group]
            if not isinstance(place, dict):
                raise ConfigError(f"{group} in {path} holds no settings", fix="Write one 'name: value' a line below it")
        place[last] = value
    return read_settings(kind, values)


def _why(error: Exception) -> str:
    """What is wrong with a file, in words: where, for YAML."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UnicodeDecodeError):
        return "its letters are not in UTF-8"
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return "it is not YAML"
    return f"it is not YAML at line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', '')}"


def write_file(settings: Any, path: str | Path) -> None:
    """Settings as the YAML file that `read_file` reads.

    Raises
    ------
    WriteError
    """
    with atomic_path(path) as temporary:
        text = yaml.safe_dump(to_dict(settings), sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")


def to_dict(settings: Any) -> dict[str, Any]:
    """As JSON- and YAML-ready data; `read_settings` is the inverse."""
    return _plain(asdict(settings))


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain data by their dotted names, as in ``run.steps``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        is_group = isinstance(value, Mapping) and bool(value)
        found |= {f"{name}.{key}": item for key, item in flat(value).items()} if is_group else {name: value}
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _unknown(path: str, key: str, known: list[str]) -> None:
    near = difflib.get_close_matches(key, known, n=1)
    raise ConfigError(
        f"There is no setting called {path!r}",
        fix=f"Did you mean {near[0]!r}?" if near else f"Use {', '.join(known)}",
    )


def _value(kind: Any, value: Any, path: str, limits: Mapping[str, Any]) -> Any:
    if is_dataclass(kind):
        return read_settings(kind, {} if value is None else value, f"{path}.")
    if isinstance(kind, types.UnionType):
        options = typing.get_args(kind)
        if value is None and type(None) in options:
            return None
        return _value(next(option for option in options if option is not type(None)), value, path, limits)
    if typing.get_origin(kind) is typing.Literal:
        _check(value, path, {"choices": typing.get_args(kind)})
        return value
    if typing.get_origin(kind) is tuple:
        return _items(kind, value, path, limits)
    if typing.get_origin(kind) in (dict, Mapping):
        kind = Mapping
    if kind is float and (_is_whole(value) or _is_scientific(value)):
        value = float(value)
    if kind is not Any and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        name = _KINDS.get(kind, getattr(kind, "__name__", str(kind)))
        raise ConfigError(f"{path} is {value!r}", f"it should be {name}", limits.get("help", ""))
    _check(value, path, limits)
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_scientific(value: Any) -> bool:
    """Whether it is a number such as 1e-4, which YAML 1.1 takes for text since it has no point."""
    return isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value) is not None


def _items(kind: Any, value: Any, path: str, limits: Mapping[str, Any]) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{path} is {value!r}", "it should be a list", limits.get("help", ""))
    kinds = typing.get_args(kind)
    if kinds[-1] is not Ellipsis and len(kinds) != len(value):
        raise ConfigError(f"{path} has {len(value)} values", f"it takes {len(kinds)}", limits.get("help", ""))
    return tuple(
        _value(kinds[0] if kinds[-1] is Ellipsis else kinds[index], item, f"{path}[{index}]", limits)
        for index, item in enumerate(value)
    )


def _check(value: Any, path: str, limits: Mapping[str, Any]) -> None:
    choices, low, high = limits.get("choices"), limits.get("low"), limits.get("high")
    if choices is not None and value not in choices:
        near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
        listed = ", ".join(map(str, choices))
        raise ConfigError(
            f"{path} is {value!r}", fix=f"Did you mean {near[0]!r}?" if near else f"Choose one of {listed}"
        )
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        span = f"at least {low:g}" if high is None else f"at most {high:g}" if low is None else f"{low:g} to {high:g}"
        raise ConfigError(f"{path} is {value!r}", "it is out of range", f"Choose {span}")
