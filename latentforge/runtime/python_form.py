"""Rewrites hints for the Python API: `--set data.layout=NHWC` becomes `data={'layout': 'NHWC'}`.

Hints are written as options and commands of the command line. `python_api` rewrites those of the
errors that leave a method of the API; the command line calls the same methods `in_shell`.
"""

from __future__ import annotations

import inspect
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

from latentforge.errors import LatentForgeError
from latentforge.runtime.shell import is_shell

T = TypeVar("T", bound=type)
P = ParamSpec("P")
R = TypeVar("R")

_call: ContextVar[Call | None] = ContextVar("call", default=None)

TRAIN_METHODS = ("train", "sweep", "resume", "resume_sweep")
DATA_METHODS = ("load_data", "describe_data", "fetch_data", "encode", "diagnose")
"""Methods whose argument `options` has the options of the section [data]."""
SECTIONS = {"data": "data.name", "loss": "loss.name"} | {
    key: f"train.{key}" for key in ("epochs", "batch_size", "lr", "seed", "device")
}
"""The flags of `latentforge train` that set an option of a section."""
TRAINING = SECTIONS.keys() - {"data", "device"}
SETTINGS = ("model", "loss", "train")
"""The flags and the sections of training that no other method has."""
FLAGS = (
    *("set", "data", "loss", "epochs", "batch-size", "lr", "seed", "device", "callback", "config"),
    *("preset", "run", "out", "checkpoint", "from", "with", "measure", "split", "protocol", "part"),
    *("format", "grid", "space", "search", "objective", "storage", "jobs", "retry", "quiet"),
    *("together", "no-together", "condition"),
)
"""The options of commands that are arguments of methods."""
SWITCHES = ("retry", "quiet", "together", "no-together")
NUMBERS = ("epochs", "batch-size", "lr", "seed", "protocol", "search", "jobs", "condition")
LISTS = ("measure", "callback")
PLACEHOLDERS = (
    *("RUN", "SWEEP", "MODEL", "NAME", "FILE", "FOLDER", "DIR", "IMAGE", "URL", "COLUMN"),
    *("N", "X", "VALUE", "RANGE"),
)
METHODS = {"doctor": "diagnose", "data show": "describe_data", "data fetch": "fetch_data"} | {
    name: name
    for name in ("train", "sweep", "evaluate", "explore", "report", "export", "encode", "decode")
}
"""The method for each command; other commands have none."""

ASSIGNMENT = re.compile(r"[^=.\s]+(\.[^=.\s]+)*=")
WORD = r"""(?:'[^']*'|"[^"]*"|[^\s'"`])+"""
NO_VALUE = r"(?:or|and|is|with|in|if|for|to|of|then|instead|requires)\b"
"""Words of a sentence, which are no values of options."""
OPTION = rf"--(?:{'|'.join(FLAGS)})(?![\w-])(?:[ =](?!-|{NO_VALUE}){WORD})?"
GROUP = re.compile(rf"(?<![\w-]){OPTION}(?:(?<![,;:)]) {OPTION})*")
COMMAND = re.compile(
    rf"`latentforge ([^`]*)`(?! in a shell)|(?<![\w`./-])latentforge "
    rf"((?:-p|{'|'.join(METHODS)}|list|show|runs|plugins|config)\b(?:(?<![,;:)]) "
    rf"(?!{NO_VALUE}|latentforge\b){WORD})*)"
)
SHELL = re.compile(r"(`latentforge [^`]*` in a shell)")
TORCHRUN = re.compile(r"\btorchrun .*-- latentforge ")


@dataclass(frozen=True)
class Call:
    """A call of a method of the API."""

    method: str
    arguments: Mapping[str, Any]


class Code(str):
    """Text that is a Python expression."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def python_api(cls: T) -> T:
    """Rewrite the hints of errors and warnings for Python in all public methods of a class."""
    for name, function in list(vars(cls).items()):
        if isinstance(function, FunctionType) and (name == "__init__" or name[0] != "_"):
            setattr(cls, name, python_function(function))
    return cls


def python_function(function: Callable[P, R]) -> Callable[P, R]:
    """Rewrite the hints of errors and warnings for Python in one function."""

    @wraps(function)
    def method(*args: P.args, **kwargs: P.kwargs) -> R:
        if is_shell():
            return function(*args, **kwargs)
        token = _call.set(Call(function.__name__, _arguments(function, args, kwargs)))
        try:
            return function(*args, **kwargs)
        except LatentForgeError as error:
            error.message, error.hint = python_form(error.message), python_form(error.hint)
            error.details = tuple(map(python_form, error.details))
            error.args = (error.message,)
            raise
        finally:
            _call.reset(token)

    return method


def _arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by name; those that no parameter has are included."""
    names = list(inspect.signature(function).parameters)
    return {**dict(zip(names, args, strict=False)), **kwargs}


def python_form(text: str) -> str:
    """Return a text for the user of the Python API, if it is one: options as arguments of the
    method that was called, and commands as calls."""
    if is_shell() or TORCHRUN.search(text) or not re.search("--|latentforge |-p ", text):
        return text
    call = _call.get() or Call("train", {})
    parts = SHELL.split(COMMAND.sub(_format_command, text))  # every second one is for a shell
    parts[::2] = [_format_arguments(part, call) for part in parts[::2]]
    return "".join(parts)


def _format_command(found: re.Match[str]) -> str:
    """Format a command as a call of a method. One that has no method stays a command."""
    in_quotes = found[1] is not None
    text, ending = _split_ending(found[1] if in_quotes else found[2], strip=not in_quotes)
    words = _split_words(text)
    command = next((name for name in METHODS if words[: len(name.split())] == name.split()), None)
    if words[:1] == ["-p"] and len(words) > 1 and words[2:] in ([], ["..."]):
        disabled = words[1].removeprefix("no:")
        argument = f"off=[{disabled!r}]" if disabled != words[1] else f"[{_literal(words[1])!r}]"
        return f"Forge({argument}){ending}"
    if command is None:
        return f"`latentforge {text}` in a shell{ending}"
    method = METHODS[command]
    positional, options = _read_words(words[len(command.split()) :])
    if resumed := dict(options).pop("resume", None):
        method = {"train": "resume", "sweep": "resume_sweep"}[method]
        positional, options = [resumed], [pair for pair in options if pair[0] != "resume"]
    parts = [
        repr(Code(word) if word == "..." else _literal(word, is_text=True)) for word in positional
    ]
    if method == "describe_data" and not positional:
        parts = ["data"]  # which was passed in Python, as it has no name
    parts += filter(None, [_join(_place(Call(method, {}), options))])
    return f"forge.{method}({', '.join(parts)}){ending}"


def _format_options(text: str, call: Call) -> str:
    text, ending = _split_ending(text)
    options = _read_words(_split_words(text))[1]
    if not options or ("set", "") in options:
        return text + ending
    return _join(_place(call, options)) + ending


def _format_arguments(text: str, call: Call) -> str:
    """Format plugins and options outside commands as arguments."""
    text = re.sub(r"(?<!\S)-p (no:)?([^\s,;:]+)", _format_plugin, text)
    return GROUP.sub(lambda found: _format_options(found[0], call), text)


def _format_plugin(found: re.Match[str]) -> str:
    return f"{'off' if found[1] else 'plugins'}=[{found[2]!r}]"


def _split_ending(text: str, *, strip: bool = True) -> tuple[str, str]:
    """Split off the punctuation of the sentence that follows an option or a command."""
    length = len(text.rstrip(",;:.)?")) if strip and not text.endswith("...") else len(text)
    return text[:length], text[length:]


def _split_words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quotation mark of the sentence
        return []


def _read_words(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the positional arguments of a command, and its options with their values."""
    words, positional, options = list(words), [], []
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            positional.append(word)
            continue
        flag, equals, value = word[2:].partition("=")
        if not equals and flag not in SWITCHES and words and not words[0].startswith("--"):
            value = words.pop(0)
        options.append((flag, value))
    return positional, options


def _place(call: Call, options: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the arguments of a method that correspond to options of the command line. Tables
    include what the call gives."""
    arguments: dict[str, Any] = {}
    for flag, value in options:
        if flag == "set" and not ASSIGNMENT.match(value):
            arguments[value] = Code("")
            continue
        if call.method == "explore" and flag == "set" and value.startswith("data."):
            before = arguments.get("assignments", call.arguments.get("assignments", ()))
            arguments["assignments"] = [*before, value]
            continue
        path = _path(call.method, flag, value)
        given = _literal(value, is_text=flag not in NUMBERS)
        if flag in ("with", "grid", "space") and not value:
            path = path[:1]
        elif flag in ("set", "with", "grid", "space"):
            given = _literal(value.partition("=")[2], is_text=flag == "with")
        elif flag in SWITCHES:
            given = not flag.startswith("no-")
        if not value and flag not in SWITCHES:
            given = Code("..." if len(path) > 1 else "")
        elif flag in LISTS:
            given = [*arguments.get(path[0], ()), given]
        if len(path) > 1 and path[0] not in arguments:
            arguments[path[0]] = _given(call, path[0])
        table = arguments
        for key in path[:-1]:
            table[key] = dict(table[key]) if isinstance(table.get(key), Mapping) else {}
            table = table[key]
        table[path[-1]] = given
    return arguments


def _path(method: str, flag: str, value: str) -> list[str]:
    """Return the argument of a method, and the keys in it, that an option sets."""
    key = value.partition("=")[0]
    keys = [part for part in key.split(".") if part]
    name = flag.removeprefix("no-").replace("-", "_")
    if method in DATA_METHODS and (name in TRAINING or (keys and keys[0] in SETTINGS)):
        method = "train"  # what such a method suggests for the next training
    if flag == "set" and keys[:1] == ["sampler"] and len(keys) > 1:
        return keys
    if flag == "set" and method in DATA_METHODS:
        return ["options", *(keys[1:] if keys[0] == "data" else keys)]
    if flag == "set" and method == "evaluate":
        return ["options", *keys]
    if flag == "set":
        return keys[-1:] if method == "explore" else keys
    if flag in ("grid", "space"):
        return [flag, key]
    if method in TRAIN_METHODS and name in SECTIONS:
        return SECTIONS[name].split(".")
    names = {"with": ["roles", key], "measure": ["measures"], "callback": ["callbacks"]}
    return names.get(flag, ["checkpoint" if flag == "from" else name])


def _given(call: Call, argument: str) -> dict[str, Any]:
    """What a call gives for an argument that is a table."""
    given = call.arguments.get(argument)
    if isinstance(given, str):
        return {"name": given}
    if argument == "options" and isinstance(given, list | tuple):
        assignments = [("set", str(text)) for text in given]
        given = _place(Call(call.method, {}), assignments).get("options", {})
    if argument == "options" and call.method == "evaluate" and isinstance(given, Mapping):
        return {key: value for key, value in given.items() if isinstance(value, Mapping)}
    if argument == "roles":  # a run is given as an object or by its path
        runs = given if isinstance(given, Mapping) else {}
        return {role: str(getattr(run, "path", run)) for role, run in runs.items()}
    if argument != "data" or given is None or is_section(given):
        return dict(given) if isinstance(given, Mapping) else {}
    values = dict(given) if isinstance(given, Mapping) else {"train": given}
    options = {key: value for key, value in values.items() if isinstance(value, str | int | float)}
    splits = {key: value for key, value in values.items() if key not in options}
    return {**{key: Code(text) for key, text in describe_splits(splits).items()}, **options}


def _literal(text: str, *, is_text: bool = False) -> Any:
    """Return the value of an argument as the command line reads it."""
    if text in PLACEHOLDERS:
        return Code(text)
    try:
        return text if is_text else tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _join(arguments: Mapping[str, Any]) -> str:
    return ", ".join(
        name if isinstance(value, Code) and not value else f"{name}={value!r}"
        for name, value in arguments.items()
    )


def is_section(data: Any) -> bool:
    """Whether data that was given in Python is a mapping like the section [data], and not data by
    split."""
    return (
        isinstance(data, Mapping)
        and "train" not in data
        and not any(hasattr(value, "shape") for value in data.values())
    )


def describe_splits(data: Any) -> dict[str, str]:
    """Return the splits of data that was given in Python, each as an expression: `(x, y)` if it has
    labels, or else `x`."""
    splits = data if isinstance(data, Mapping) else {"train": data}
    form = {}
    for split, value in splits.items():
        own = "" if split == "train" else f"_{split}"
        pair = getattr(value, "y", None) is not None or (
            isinstance(value, tuple) and len(value) == 2
        )
        form[str(split)] = f"(x{own}, y{own})" if pair else f"x{own}"
    return form
