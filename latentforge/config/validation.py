"""Validates plain values against a config dataclass, and describes its fields.

Every fault is collected with its key path, so that a user can fix all of them at once. pydantic is
imported only when something is validated.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from latentforge.errors import LatentForgeError, PluginError, did_you_mean, one_line
from latentforge.io.text import counted
from latentforge.options import FACTOR_NAME


@dataclass
class Faults:
    """Collects faults. `origins` maps the key path of a value to its source, such as `--epochs`."""

    origins: Mapping[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)  # of --set KEY=TEXT, by key

    def text_of(self, path: str) -> str | None:
        """The text of a value that was given as --set KEY=TEXT, before it was parsed."""
        origin = self.origins.get(path, "")
        if origin.startswith("--set "):
            return origin.partition("=")[2].strip()
        return self.texts.get(path.partition(".")[2])

    def add(self, path: str, message: str) -> None:
        key = path
        while key and key not in self.origins:  # the outer key of hidden[0] or options.eps
            key = re.sub(r"(^|\.|\[)[^.\[]*$", "", key)
        origin = self.origins.get(key)
        self.lines.append(f"{path} (from {origin}): {message}" if origin else f"{path}: {message}")


def check(
    cls: type[Any],
    options: Mapping[str, Any],
    path: str,
    faults: Faults,
    *,
    owner: str = "",
    other_keys: Sequence[str] = (),
) -> Any:
    """Create an instance of the dataclass `cls` from `options`. If they are invalid, return None
    and add the reasons to `faults`.

    `owner` names the owner of the options, such as "loss 'elbo'", if the section does not show it.
    `other_keys` are other keys of the section, which are checked elsewhere.

    Unknown keys, a bool for an int, infinity and NaN are faults; bounds are checked inside lists
    too. A ValueError raised by `cls.__post_init__` is a fault of the whole section.
    """
    fault_count = len(faults.lines)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    annotations = _annotations(cls)
    values = {}
    for key, value in options.items():
        key_path = f"{path}.{key}" if path else key
        is_nested = key in fields and dataclasses.is_dataclass(annotations[key])
        if key not in fields:
            allowed = [*fields, *other_keys]
            known = f"known options: {', '.join(allowed) or 'none'}"
            hint = did_you_mean(str(key), allowed) or known
            faults.add(key_path, f"no such option{f' of {owner}' if owner else ''}; {hint}")
        elif is_nested and isinstance(value, Mapping):
            values[key] = check(annotations[key], value, key_path, faults)
        elif is_nested:
            inner = f"{key_path}.{dataclasses.fields(annotations[key])[0].name}"
            faults.add(key_path, f"must be a table; write {inner}=..., got {_format_value(value)}")
        else:
            values[key] = _check_value(annotations[key], value, key_path, faults, fields[key])
    for name, spec in fields.items():
        if name not in options and _is_required(spec):
            faults.add(f"{path}.{name}", "is required")
    if len(faults.lines) > fault_count:
        return None
    try:
        return cls(**values)
    except ValueError as error:
        faults.add(path, str(error))
        return None
    except LatentForgeError:
        raise
    except Exception as error:
        raise PluginError(
            f"config {cls.__name__} cannot be created: {one_line(error)}",
            hint="raise ValueError in __post_init__ to report an invalid value to the user",
        ) from error


def accepts(
    cls: type[Any], option: Mapping[str, Any], path: str, faults: Faults | None = None
) -> bool:
    """Whether a config has the only key of `option`, and its value is valid by its type. `faults`
    has the sources of values."""
    [key] = option
    found = Faults(faults.origins, texts=faults.texts) if faults else Faults()
    check(cls, option, path, found)
    return not any(line.startswith(f"{path}.{key}") for line in found.lines)


def vary_options(options: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the name and the value, as it is written with --set, of each other choice of an option
    that is a Literal or a bool, and the options with it. Choices that do not go with the other
    options are left out."""
    annotations = typing.get_type_hints(type(options))
    for name in (option.name for option in dataclasses.fields(options)):
        for choice in list_choices(annotations[name]):
            if choice == getattr(options, name):
                continue
            try:
                changed = dataclasses.replace(options, **{name: choice})
            except ValueError:  # it does not go with the other options
                continue
            text = str(choice)
            yield name, text.lower() if isinstance(choice, bool) else text, changed


def list_choices(annotation: Any) -> Sequence[Any]:
    """Return the values of a Literal, a bool, or a union that contains one."""
    if typing.get_origin(annotation) is Literal:
        return typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [choice for part in typing.get_args(annotation) for choice in list_choices(part)]
    return (False, True) if annotation is bool else ()


def _annotations(cls: type[Any]) -> dict[str, Any]:
    """The types of a config's fields. Raises PluginError if one cannot be resolved."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise PluginError(
            f"the types of config {cls.__name__} cannot be read: {one_line(error)}",
            hint=f"import them in {cls.__module__}, outside `if TYPE_CHECKING:`",
        ) from error


def find_factor_names(options: Any) -> dict[str, list[str]]:
    """The names of factors in the options of a config whose type contains FactorName, by option."""

    def is_name(annotation: Any) -> bool:
        marks = getattr(annotation, "__metadata__", ())
        return FACTOR_NAME in marks or any(map(is_name, typing.get_args(annotation)))

    keys = [key for key, annotation in _annotations(type(options)).items() if is_name(annotation)]
    values = {key: getattr(options, key) for key in keys}
    return {k: [v] if isinstance(v, str) else [*v] for k, v in values.items() if v is not None}


def absolute_path(value: Any) -> Any:
    """Return a path as an absolute one, so that a run finds the file from another folder. Other
    values are unchanged."""
    if not isinstance(value, Path):
        return value
    with suppress(RuntimeError):  # a name like ~x that is no user
        value = value.expanduser()
    return value.absolute()


def _check_value(
    annotation: Any, value: Any, path: str, faults: Faults, spec: dataclasses.Field[Any]
) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    # Through JSON, because strict mode then accepts a list for a tuple, as TOML writes it.
    adapter = TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))
    try:
        text = json.dumps(value, default=_as_json)
        validated = adapter.validate_json(text)
        if isinstance(validated, Path) and not value:
            faults.add(path, "is empty, but it must be a path")
        return absolute_path(validated)
    except ValidationError as error:
        given = faults.text_of(path)
        if given is not None and not isinstance(value, str):  # a folder may be called 2024
            with suppress(ValidationError):
                return absolute_path(adapter.validate_json(json.dumps(given)))
        if type(value) is int:  # in a config file
            with suppress(ValidationError):
                if isinstance(folder := adapter.validate_json(f'"{value}"'), Path):
                    return absolute_path(folder)
        for location, message, input_value in _fault_messages(error.errors(), json.loads(text)):
            if message == "must be a list" and not location:
                message += _example(adapter, value, _default(spec), path, faults.origins.get(path))
            if value in ("null", "none", "None") and not location and not _is_required(spec):
                message += "; for the default, leave the option out"
            faults.add(path + location, f"{message}, got {_format_value(input_value)}")
    except (TypeError, RecursionError) as error:
        faults.add(path, f"cannot be read: {error}")
    return None


def _example(adapter: Any, value: Any, default: Any, path: str, origin: str | None) -> str:
    """Return an example of a list, for the message about a value that is not a list. The example
    contains the given value if that is valid, or else the default."""
    from pydantic import ValidationError

    from latentforge.io.toml import format_toml_value

    parts = [value]
    if isinstance(value, str):  # also a list whose strings lack their quotes
        inside = value.removeprefix("[").removesuffix("]") if value[:1] == "[" else value
        parts = [part.strip().strip("'\"") for part in inside.split(",")]
    numbers = [_number(part) if isinstance(part, str) else part for part in parts]
    pair = [*numbers, 1 + numbers[-1]] if type(numbers[-1]) in (int, float) else []
    for guess in (numbers, parts, default, pair):
        try:
            adapter.validate_json(json.dumps(guess, default=_as_json))
        except (ValidationError, TypeError):
            continue
        if isinstance(guess, list | tuple) and guess:
            written = format_toml_value(list(guess))
            typed = (origin is None or origin.startswith("--set")) and "[" not in path
            return f", as in --set '{path}={written}'" if typed else f", such as {written}"
    return ""


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _as_json(value: Any) -> Any:
    """Convert a NumPy number or array to its Python value, and anything else to a string."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _fault_messages(errors: Sequence[Any], value: Any) -> list[tuple[str, str, Any]]:
    """Return the location inside the value, the message and the input of each fault. The faults of
    a union's branches are merged into one."""
    merged: dict[str, tuple[list[str], Any]] = {}
    for error in errors:
        location = _format_location(error["loc"], value)
        message = error["msg"].replace("Input should be", "must be")
        # pydantic uses JSON's terms; the user writes TOML
        message = message.replace("a valid array", "a list").replace("an object", "a table")
        if error["type"] == "missing":  # too few values; the last missing index gives the number
            location, size = _format_location(error["loc"][:-1], value), error["loc"][-1] + 1
            merged[location] = [f"must have {counted(size, 'value')}"], error["input"]
            continue
        if error["type"] in ("too_short", "too_long"):
            bound, key = ("at least", "min") if error["type"] == "too_short" else ("at most", "max")
            limit = error["ctx"][key + "_length"]
            message = f"must have {bound} {counted(limit, 'value')}"
        elif error["type"] == "literal_error":
            expected = error["ctx"]["expected"].replace(" or ", ", ").split(", ")
            choices = [part.strip("'") for part in expected]
            hint = did_you_mean(str(error["input"]), choices)
            message = f"must be one of {', '.join(choices)}" + (f" ({hint})" if hint else "")
        messages, _ = merged.setdefault(location, ([], error["input"]))
        messages.append(message)
    return [
        (location, " or ".join(dict.fromkeys(messages)), input_value)
        for location, (messages, input_value) in merged.items()
        # in a union, the branch with a fault further inside is the one that was meant
        if not any(other.startswith((f"{location}[", f"{location}.")) for other in merged)
    ]


def _format_location(loc: Sequence[int | str], value: Any) -> str:
    """Format a path into the value as `[2].key`, without the names of a union's branches."""
    location = ""
    for part in loc:
        if isinstance(value, dict) and part in value:
            location, value = f"{location}.{part}", value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            location, value = f"{location}[{part}]", value[part]
    return location


def _format_value(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_required(spec: dataclasses.Field[Any]) -> bool:
    return _default(spec) is dataclasses.MISSING


def _default(spec: dataclasses.Field[Any]) -> Any:
    if spec.default_factory is dataclasses.MISSING:
        return spec.default
    try:
        return spec.default_factory()
    except LatentForgeError:
        raise
    except Exception as error:
        raise PluginError(f"the default of {spec.name!r} raises: {one_line(error)}") from error


def find_default_faults(cls: type[Any]) -> list[str]:
    """Return the faults of a config's defaults, which its author must fix, not the user."""
    faults = Faults()
    try:
        check(cls, plain(cls()), cls.__name__, faults)
    except PluginError as error:
        return [error.message]
    except Exception as error:  # a default factory or __post_init__ that raises
        return [f"{cls.__name__}(): {one_line(error)}"]
    return faults.lines


def plain(config: Any) -> dict[str, Any]:
    """Convert a config dataclass to JSON-compatible values; tuples become lists."""
    value: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return value


@dataclass(frozen=True)
class Option:
    """One field of a config, as users see it."""

    name: str
    type: str
    default: Any


def describe(cls: type[Any]) -> list[Option]:
    """List the options of a config dataclass, in order. Nested options are named `outer.inner`."""
    annotations = _annotations(cls)
    options = []
    for spec in dataclasses.fields(cls):
        annotation = annotations[spec.name]
        if dataclasses.is_dataclass(annotation):
            nested = describe(typing.cast("type[Any]", annotation))
            options += [dataclasses.replace(o, name=f"{spec.name}.{o.name}") for o in nested]
        else:
            options.append(Option(spec.name, type_name(annotation), _default(spec)))
    return options


def type_name(annotation: Any) -> str:
    """Format a type for users: `int > 0`, `list of int > 0`, `relu | tanh`."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        bounds = [_bound(mark) for mark in args[1:]]
        return " ".join([type_name(args[0]), " and ".join(b for b in bounds if b)]).strip()
    if origin is Literal:
        return " | ".join(str(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        return " | ".join("none" if a is type(None) else type_name(a) for a in args)
    if origin in (tuple, list):
        if args and args[-1] is not Ellipsis and len(args) > 1:
            return f"[{', '.join(type_name(a) for a in args)}]"
        return f"list of {type_name(args[0])}" if args else "list"
    return str(getattr(annotation, "__name__", annotation))


def _bound(mark: Any) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return "".join(f"{sign} {getattr(mark, k)}" for k, sign in signs.items() if hasattr(mark, k))
