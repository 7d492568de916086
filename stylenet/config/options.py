"""Options as frozen dataclasses, with strict YAML and dotted overrides.

Nothing here imports torch.

Precedence: dataclass default < YAML file < command line. Every value stays text until stylenet
coerces it to the declared type. So `1e-4`, `no` and `0x1` mean the same in a file, on a command
line and in a W&B sweep.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from stylenet.errors import UsageError, at_home
from stylenet.files import parse_yaml, read_yaml_text

NONE_WORDS = ("none", "null", "~", "")
TRUE_WORDS, FALSE_WORDS = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def option(default: Any, meaning: str) -> Any:
    """A dataclass field that carries its meaning for `--help`."""
    return field(default=default, metadata={"meaning": meaning})


def require(is_valid: bool, expected: str, came: Any) -> None:
    """Raise UsageError with the expectation and the value unless `is_valid`."""
    if not is_valid:
        raise UsageError(
            f"expected {expected}, but {came!r} came; correct it in the YAML file or on the "
            "command line"
        )


def require_positive(section: Any, prefix: str, *names: str) -> None:
    """Raise UsageError unless every named option of the section is above 0."""
    for name in names:
        value = getattr(section, name)
        require(value > 0, f"{prefix}.{name} above 0", value)


def require_not_negative(section: Any, prefix: str, *names: str) -> None:
    """Raise UsageError unless every named option of the section is 0 or more."""
    for name in names:
        value = getattr(section, name)
        require(value >= 0, f"{prefix}.{name} of 0 or more", value)


@dataclass(frozen=True)
class Option:
    """One option as `--help` shows it."""

    key: str
    type: Any
    default: Any
    meaning: str


@functools.cache
def list_options(kind: type[Sections]) -> dict[str, Option]:
    """Every option by its dotted key, in declaration order."""
    options = {}
    for name, section in typing.get_type_hints(kind).items():
        hints = typing.get_type_hints(section)
        for item in dataclasses.fields(section):
            key = f"{name}.{item.name}"
            options[key] = Option(key, hints[item.name], item.default, item.metadata["meaning"])
    return options


class Sections:
    """The base of a configuration and of a protocol.

    Its fields are sections: frozen dataclasses of options.
    """

    @classmethod
    def load(cls, path: str | Path | None = None, overrides: Sequence[str] = ()) -> Self:
        """The configuration from defaults, the YAML file and `key=value` overrides.

        Later sources win. Raises UsageError for an unreadable file, an unknown or repeated key, and
        an ill-typed value.
        """
        values = flatten(read_yaml(path), str(path), cls) if path else {}
        for override in overrides:
            values |= parse_override(override, cls)
        return cls.from_flat(values)

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Self:
        """The configuration from dotted keys; the other options keep their defaults.

        Values may be text or of their own type. Raises UsageError for an unknown key or an
        ill-typed value.
        """
        options, sections = list_options(cls), {}
        for key, value in values.items():
            if key not in options:
                raise UsageError(unknown_key_message(key, cls))
            section, name = key.split(".", 1)
            sections.setdefault(section, {})[name] = coerce(value, options[key].type, key)
        kinds = typing.get_type_hints(cls)
        return cls(**{name: kinds[name](**chosen) for name, chosen in sections.items()})

    def to_flat(self) -> dict[str, Any]:
        """{dotted key: value}; tuples become lists, as in JSON and YAML."""
        plain = dataclasses.asdict(self)
        values = {
            f"{section}.{name}": value
            for section, options in plain.items()
            for name, value in options.items()
        }
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in values.items()
        }

    def to_yaml(self) -> str:
        """YAML text that `load` reads back to an equal configuration."""
        nested: dict[str, dict[str, Any]] = {}
        for key, value in self.to_flat().items():
            section, name = key.split(".", 1)
            nested.setdefault(section, {})[name] = value
        return yaml.safe_dump(
            nested, sort_keys=False, default_flow_style=None, allow_unicode=True, width=1000
        )


def differing_keys(old: Sections, new: Sections) -> list[str]:
    """Dotted keys whose values differ."""
    before, after = old.to_flat(), new.to_flat()
    return [key for key in before if before[key] != after[key]]


class StrictLoader(yaml.BaseLoader):
    """A YAML loader that keeps every scalar as text and refuses a repeated key.

    PyYAML itself lets the last of the repeated keys win.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        # str: a YAML key may be a list, which a set cannot hold.
        repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
        if repeated:
            line = node.start_mark.line + 1
            raise UsageError(
                f"expected each key once, but {', '.join(repeated)} is repeated in the block at "
                f"line {line}; remove one"
            )
        return super().construct_mapping(node, deep=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The file's mapping with all scalars as text; an empty file gives an empty mapping.

    Raises UsageError for a file that cannot be read, does not parse or holds no mapping.
    """
    try:
        content = parse_yaml(read_yaml_text(path), StrictLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"expected YAML in {path}, but it does not parse: {error}") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if content in (None, ""):
        return {}
    require(isinstance(content, dict), f"sections such as 'loss:' in {path}", content)
    return content


def flatten(tree: dict[str, Any], origin: str, kind: type) -> dict[str, Any]:
    """{section: {name: value}} as {dotted key: value}; dotted keys stay as they are.

    Raises UsageError for a repeated key.
    """
    values: dict[str, Any] = {}
    for key, value in tree.items():
        items = (
            {f"{key}.{name}": item for name, item in value.items()}
            if isinstance(value, dict)
            else {key: value}
        )
        # "loss:" without a line below it arrives as "" and changes nothing.
        empty_section = key in typing.get_type_hints(kind) and value == ""
        repeated = sorted(values.keys() & items.keys())
        if repeated:
            raise UsageError(
                f"expected each key once in {origin}, but {', '.join(repeated)} is given twice; "
                "remove one"
            )
        values |= {} if empty_section else items
    return values


def parse_override(text: str, kind: type) -> dict[str, Any]:
    """An override as {dotted key: text}.

    It is `key=value`, or `--key=value`, or `section={name: value}`, or `--key` for a switch that is
    true: W&B writes it so for ${args_no_boolean_flags}.
    """
    key, separator, value = text.removeprefix("--").partition("=")
    known = list_options(kind).get(key)
    if not separator and text.startswith("--") and known is not None and known.type is bool:
        return {key: "true"}
    if not separator:
        raise UsageError(f"expected key=value, but {text!r} came; see --help for the options")
    if key in typing.get_type_hints(kind):  # a whole section, as sweeps write it
        return flatten({key: parse_flow(value, key)}, "the command line", kind)
    return {key: value}


def parse_flow(text: str, key: str) -> Any:
    """Text in YAML's flow style, such as `[128, 64]` or `{lr: 1e-3}`, with scalars as text."""
    try:
        return parse_yaml(text, StrictLoader)
    except (yaml.YAMLError, RecursionError):
        raise UsageError(
            f"expected a value for {key} in brackets such as [a, b], but {text!r} came"
        ) from None


def coerce(value: Any, kind: Any, key: str) -> Any:
    """The value as its declared type.

    Raises UsageError that names the key, the type and the value.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # X | None
        is_none = value is None or (isinstance(value, str) and value.lower() in NONE_WORDS)
        return None if is_none else coerce(value, arguments[0], key)
    if origin is Literal:
        return _choice(value, arguments, kind, key)
    if origin is tuple:  # tuple[X, ...], written as [a, b]
        items = parse_flow(value, key) if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise UsageError(ill_typed_message(key, kind, value))
        return tuple(coerce(item, arguments[0], key) for item in items)
    return _scalar(value, kind, key)


def _choice(value: Any, choices: tuple[str, ...], kind: Any, key: str) -> str:
    # A sweep writes Python's None and False where a choice is called "none"; names stay lower case.
    text = str(value).lower()
    if text not in choices:
        raise UsageError(ill_typed_message(key, kind, value))
    return text


def _scalar(value: Any, kind: type, key: str) -> Any:
    if value is None or isinstance(value, (list, dict)):
        raise UsageError(ill_typed_message(key, kind, value))
    try:
        return {bool: _bool, int: _int, float: _float, str: _text}[kind](value)
    except ValueError:
        raise UsageError(ill_typed_message(key, kind, value)) from None


def _text(value: Any) -> str:
    return at_home(str(value))


def _bool(value: Any) -> bool:
    text = str(value).lower()
    if text not in TRUE_WORDS + FALSE_WORDS:
        raise ValueError(text)
    return text in TRUE_WORDS


def _int(value: Any) -> int:
    number = float(value)  # so that 1e5 and a sweep's 4.0 are whole numbers too
    if isinstance(value, bool) or not number.is_integer():
        raise ValueError(value)
    # Digits go straight to int: a float would round a seed above 2**53.
    return (
        int(value)
        if isinstance(value, str) and re.fullmatch(r"[+-]?[\d_]+", value)
        else int(number)
    )


def _float(value: Any) -> float:
    number = float(value)
    # number != number: NaN
    if isinstance(value, bool) or number != number or number in (float("inf"), float("-inf")):
        raise ValueError(value)
    return number


def type_name(kind: Any) -> str:
    """A type as the help shows it: `int`, `float or None`, `mean|sum`, `list of str`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "|".join(arguments)
    if origin is tuple:
        return f"list of {type_name(arguments[0])}"
    if origin in (types.UnionType, typing.Union):
        return f"{type_name(arguments[0])} or None"
    return kind.__name__


def ill_typed_message(key: str, kind: Any, value: Any) -> str:
    """The message for a value that does not fit the type of its option."""
    return f"expected {type_name(kind)} for {key}, but {value!r} came; see --help for its meaning"


def unknown_key_message(key: str, kind: type) -> str:
    """The message for an unknown key, with the nearest key by full or last name."""
    keys = list(list_options(kind))
    # A right name in the wrong or no section beats a similar spelling.
    by_name = [known for known in keys if known.split(".")[-1] == key.split(".")[-1]]
    near = by_name or difflib.get_close_matches(key, keys, n=1, cutoff=0.0)
    return (
        f"expected an option of stylenet, but {key!r} is none; did you mean {near[0]!r}? "
        "(--help lists all)"
    )


def format_options(kind: type) -> str:
    """Every option with type, default and meaning, for `--help`."""
    lines = []
    for item in list_options(kind).values():
        default = list(item.default) if isinstance(item.default, tuple) else item.default
        lines.append(f"  {item.key}: {type_name(item.type)} = {default}\n      {item.meaning}")
    return "\n".join(lines)
