"""Configurations to and from YAML and `--set a.b=c`: merging, and errors that name the nearest key."""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from trashseg.config import TrainConfig
from trashseg.errors import ConfigError
from trashseg.files import write_text

Model = TypeVar("Model", bound=BaseModel)
Tree = dict[str, Any]


def load_train_config(path: Path | None, overrides: Iterable[str] = ()) -> TrainConfig:
    """The defaults, changed by the file, changed by `a.b=c` overrides.

    Raises ConfigError with every unknown key and bad value at once.
    """
    tree = merge(TrainConfig().model_dump(), read_yaml(path) if path else {})
    tree = merge(tree, parse_overrides(overrides))
    return validate(TrainConfig, tree, where=str(path or "command line"))


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file; ConfigError if it cannot be read or is not a mapping."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file: check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}): check the file") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{path}: is not YAML ({problem}): mend that line") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds a {type(tree).__name__}, not keys and values: mend it")
    return tree


def write_yaml(path: Path, tree: Mapping[str, Any]) -> None:
    """Write atomically, keys in the given order."""
    write_text(path, to_yaml(tree))


def to_yaml(tree: Mapping[str, Any]) -> str:
    """With libyaml where PyYAML has it: a search writes the configuration of every trial."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(dict(tree), Dumper=dumper, sort_keys=False, allow_unicode=True))


def parse_overrides(overrides: Iterable[str]) -> Tree:
    """`["loss.name=focal"]` to `{"loss": {"name": "focal"}}`; values are read as YAML."""
    tree: Tree = {}
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {override}: has no '=': write --set section.key=value")
        set_path(tree, key.strip(), _read_value(override, value))
    return tree


def _read_value(override: str, text: str) -> Any:
    if re.fullmatch(r"[+-]?\d+(\.\d*)?e[+-]?\d+", text.strip(), re.IGNORECASE):
        return float(text)  # YAML 1.1 reads 1e-3 as a string
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not YAML: quote it") from None


def get_path(tree: Mapping[str, Any], dotted: str) -> Any:
    """The value at `a.b.c`; KeyError if any part is missing."""
    value: Any = tree
    for part in dotted.split("."):
        if not isinstance(value, Mapping):
            raise KeyError(dotted)
        value = value[part]
    return value


def set_path(tree: Tree, dotted: str, value: Any) -> None:
    """Set `a.b.c` in place, making the sections on the way."""
    *sections, key = dotted.split(".")
    for section in sections:
        below = tree.setdefault(section, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{dotted}: {section} is a value, not a section: name its own key")
        tree = below
    tree[key] = value


def merge(base: Tree, changes: Mapping[str, Any], model: type[BaseModel] = TrainConfig) -> Tree:
    """`base` changed by `changes`, section by section.

    Where `changes` picks another variant (`loss.name`), the base's keys that this variant does not
    have go: they belonged to the variant that was left. Keys in `changes` are all kept, for
    `validate` to judge.
    """
    merged = dict(base)
    for key, change in changes.items():
        old = merged.get(key)
        if not (isinstance(old, dict) and isinstance(change, Mapping)):
            merged[key] = change
            continue
        field = model.model_fields.get(key)
        section = sections_of(field.annotation) if field else {}
        has_variants = None not in section  # in `search`, name is a key like any other
        if has_variants and not isinstance(change.get("name", ""), str):
            merged[key] = change  # for validate to refuse
            continue
        if has_variants and change.get("name", old.get("name")) != old.get("name"):
            variant = section.get(change["name"])
            known = variant.model_fields if variant else {}
            old = {name: value for name, value in old.items() if name in known}
        inner = section.get(change.get("name", old.get("name"))) or section.get(None)
        merged[key] = merge(old, change, inner or BaseModel)
    return merged


def sections_of(annotation: Any) -> dict[str | None, type[BaseModel]]:
    """The section classes that an annotation allows, by variant name (None: no variants)."""
    found: dict[str | None, type[BaseModel]] = {}
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            name = kind.model_fields.get("name")
            found[name.default if name and get_args(name.annotation) else None] = kind
    return found


def validate(model: type[Model], tree: Mapping[str, Any], where: str) -> Model:
    """Build `model` from `tree`, or raise one ConfigError that lists every problem."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = [_describe(model, problem) for problem in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(problems)) from None


def _describe(model: type[BaseModel], problem: Any) -> str:
    path, keys = _locate(model, problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key{nearest(path.rpartition('.')[2], keys)}"
    if problem["type"] == "union_tag_invalid":
        tag, options = (
            problem["ctx"]["tag"],
            re.findall(r"'(\w+)'", problem["ctx"]["expected_tags"]),
        )
        return f"{path}.name: unknown value {tag!r}{nearest(tag, options)}"
    if problem["type"] == "literal_error":
        options = re.findall(r"'(\w+)'", problem["ctx"]["expected"])
        return (
            f"{path}: unknown value {problem['input']!r}{nearest(str(problem['input']), options)}"
        )
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if isinstance(problem["input"], str | int | float | bool | None):
        return f"{path}: {message}, got {problem['input']!r}"
    return f"{path}: {message}"


def _locate(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """The dotted path without variant tags, and the keys that the innermost section has."""
    parts: list[str] = []
    section: type[BaseModel] | None = model
    keys = list(model.model_fields)
    variants: dict[str | None, type[BaseModel]] = {}
    for part in map(str, loc):
        if part in variants and part is not None:
            section = variants[part]
            keys, variants = list(section.model_fields), {}
            continue
        field = section.model_fields.get(part) if section else None
        parts.append(part)
        variants = sections_of(field.annotation) if field else {}
        section = variants.pop(None, None)
        if section:
            keys = list(section.model_fields)
    return ".".join(parts), keys


def nearest(word: str, options: Iterable[str]) -> str:
    """`, did you mean 'x'?`, or the options where nothing is near."""
    options = sorted(options)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else f", choose one of {', '.join(options)}"
