"""Search spaces: YAML to typed parameters, and a point of the space to a TrainConfig.

A file maps the dotted path of a configuration key to what it may be:

    loss.name: {choice: [cross_entropy, focal]}
    loss.gamma: {float: [0.5, 5.0], when: {loss.name: [focal]}}
    optim.decoder_lr: {float: [1e-4, 1e-2], log: true}
    schedule.step_size: {int: [1, 10]}

`when` names keys above it; the parameter exists only where all of them have a listed value. A key
that may be other things under other conditions stands there again, as KEY@NAME:

    model.arch: {choice: [fpn, unet, dpt]}
    model.encoder: {choice: [resnet34, resnet101], when: {model.arch: [fpn, unet]}}
    model.encoder@vit: {choice: [tu-vit_base_patch16_224], when: {model.arch: [dpt]}}

`include: [NAME, ...]` starts from the parameters of other spaces. `first: [{KEY: value, ...}, ...]` are
changes of the hand-tuned configuration that are tried right after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from pydantic import Field, ValidationError, model_validator

from trashseg.config import TrainConfig
from trashseg.config_file import (
    get_path,
    merge,
    nearest,
    read_yaml,
    sections_of,
    set_path,
    validate,
)
from trashseg.errors import ConfigError
from trashseg.sections import Section

SPACES = Path(__file__).parent.parent / "configs" / "spaces"
Value = str | int | float | bool
Point = dict[str, Value]


class Parameter(Section):
    """One searched key: exactly one of `choice`, `float` and `int`."""

    choice: tuple[Value, ...] | None = None
    float_range: tuple[float, float] | None = Field(default=None, alias="float")
    int_range: tuple[int, int] | None = Field(default=None, alias="int")
    log: bool = False
    step: float | None = None
    when: Mapping[str, tuple[Value, ...]] = {}

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Parameter":
        given = [
            kind for kind in (self.choice, self.float_range, self.int_range) if kind is not None
        ]
        if len(given) != 1:
            raise ValueError("needs exactly one of choice, float and int")
        if self.choice is not None:
            if len(set(self.choice)) < len(self.choice) or not self.choice:
                raise ValueError("choice needs different values, at least one")
            if self.log or self.step is not None:
                raise ValueError("log and step do not go with choice")
            return self
        low, high = self.float_range or self.int_range or (0, 0)
        if low >= high:
            raise ValueError(
                f"its range [{low:g}, {high:g}] is empty: the first must be the lesser"
            )
        if self.log and (low <= 0 or self.step is not None):
            raise ValueError("log needs a range above 0 and no step")
        if self.step is not None and not _divides(self.step, low, high, bool(self.int_range)):
            raise ValueError(f"step {self.step:g} does not lead from {low:g} to {high:g}")
        return self

    def suggest(self, trial: optuna.trial.BaseTrial, path: str) -> Value:
        if self.choice is not None:
            chosen: Value = trial.suggest_categorical(path, self.choice)  # type: ignore[assignment]
            return chosen
        if self.int_range is not None:
            return trial.suggest_int(path, *self.int_range, log=self.log, step=int(self.step or 1))
        assert self.float_range is not None, "validated: one of the three kinds"
        return trial.suggest_float(path, *self.float_range, log=self.log, step=self.step)

    def contains(self, value: Any) -> bool:
        if self.choice is not None:
            return value in self.choice
        low, high = self.float_range or self.int_range or (0, 0)
        return isinstance(value, int | float) and low <= value <= high


def _divides(step: float, low: float, high: float, whole: bool) -> bool:
    """Optuna would shorten the range to fit, and cut a fractional step of whole numbers."""
    if step <= 0 or (whole and step != int(step)):
        return False
    steps = (high - low) / step
    return abs(steps - round(steps)) < 1e-9


@dataclass(frozen=True)
class Space:
    """Parameters by dotted path (with its @NAME, if any), in the order in which they are decided."""

    name: str
    parameters: dict[str, Parameter]
    first: tuple[Point, ...] = ()
    """By configuration key."""

    def active(self, path: str, point: Mapping[str, Value]) -> bool:
        conditions, values = self.parameters[path].when, by_key(point)
        return all(values.get(key) in allowed for key, allowed in conditions.items())

    def sample(self, trial: optuna.trial.BaseTrial) -> Point:
        """Ask `trial` for every active parameter (define by run: conditions just work)."""
        point: Point = {}
        for path, parameter in self.parameters.items():
            if self.active(path, point):
                point[path] = parameter.suggest(trial, path)
        return point

    def point_of(self, config: TrainConfig) -> Point:
        """The point at which `config` lies: the hand-tuned first trial.

        Raises ConfigError where a value lies outside the space.
        """
        tree = config.model_dump()
        point: Point = {}
        for path, parameter in self.parameters.items():
            if not self.active(path, point):
                continue
            try:
                value = get_path(tree, key_of(path))
            except KeyError:
                problem = (
                    f"the configuration has no such key: give it a `when` in space {self.name}"
                )
                raise ConfigError(f"{path}: {problem}") from None
            if not parameter.contains(value):
                raise ConfigError(
                    f"{path}: the configuration's {value!r} lies outside the space {self.name}: "
                    "widen the space or change the configuration, it is the first trial"
                )
            point[path] = value
        return point

    def first_points(self, config: TrainConfig) -> list[Point]:
        """What a search begins with: where `config` lies, then each of `first`, no point twice.

        Raises ConfigError where one lies outside the space.
        """
        points = [self.point_of(config)]
        for changes in self.first:
            where = f"space {self.name}: first: {changes}"
            other = changed(config, changes, where)
            try:
                point = self.point_of(other)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
            if point not in points:
                points.append(point)
        return points

    def check(self, base: TrainConfig) -> None:
        """ConfigError with every choice and end of a range that no configuration can have: found
        before the search, not by a trial in the middle of it."""
        problems: list[str] = []
        for path, parameter in self.parameters.items():
            for value in parameter.choice or parameter.float_range or parameter.int_range or ():
                try:
                    self.apply(base, self._example({**self._way_to(path), path: value}))
                except ConfigError as error:
                    problems.append(str(error))
        if problems:
            raise ConfigError("; ".join(dict.fromkeys(problems)))

    def _way_to(self, path: str) -> Point:
        """Values with which the conditions of `path` hold."""
        point: Point = {}
        for key, values in self.parameters[path].when.items():
            other = next(
                name
                for name, parameter in self.parameters.items()
                if key_of(name) == key and parameter.contains(values[0])
            )
            point |= {**self._way_to(other), other: values[0]}
        return point

    def _example(self, fixed: Point) -> Point:
        """A point with the `fixed` values, and any for the rest."""
        point: Point = {}
        for path, parameter in self.parameters.items():
            if self.active(path, point):
                some = parameter.choice or parameter.float_range or parameter.int_range or ("",)
                point[path] = fixed.get(path, some[0])
        return point

    def apply(self, base: TrainConfig, point: Mapping[str, Value]) -> TrainConfig:
        """`base` with the point's values: the only way from a proposal to a configuration."""
        return changed(base, by_key(point), where=f"space {self.name}")


def key_of(path: str) -> str:
    """The configuration key that a parameter decides: its path without @NAME."""
    return path.partition("@")[0]


def by_key(point: Mapping[str, Value]) -> Point:
    """The point's values by configuration key; no key has two, `load_space` sees to that."""
    return {key_of(path): value for path, value in point.items()}


def changed(base: TrainConfig, values: Mapping[str, Value], where: str) -> TrainConfig:
    """`base` with other values of some keys, by dotted path; ConfigError, beginning with `where`."""
    changes: dict[str, Any] = {}
    for key, value in values.items():
        set_path(changes, key, value)
    return validate(TrainConfig, merge(base.model_dump(), changes), where)


def load_space(name_or_path: str, inside: tuple[Path, ...] = ()) -> Space:
    """A space of configs/spaces by name, or a file. ConfigError lists every problem at once."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = SPACES / f"{name_or_path}.yaml"
        if not path.is_file():
            known = [file.stem for file in SPACES.glob("*.yaml")]
            raise ConfigError(
                f"--space {name_or_path}: unknown value{nearest(name_or_path, known)}"
            )
    if path.resolve() in inside:
        raise ConfigError(f"{path}: includes itself: remove one include")
    tree = read_yaml(path)
    parameters: dict[str, Parameter] = {}
    includes = tree.pop("include", [])
    if not isinstance(includes, list):
        raise ConfigError(f"{path}: include: write a list of spaces, [aug_loss, optim]")
    for included in includes:
        parameters.update(load_space(str(included), (*inside, path.resolve())).parameters)
    first = tree.pop("first", [])
    problems: list[str] = []
    for key, entry in tree.items():
        try:
            parameters[key] = Parameter.model_validate(entry)
        except ValidationError as error:
            problems += [_describe(key, problem) for problem in error.errors()]
        else:
            problems += _problems(key, parameters)
    if not parameters and not problems:
        problems.append("has no parameters: add one")
    problems = problems or _problems_of_first(first, parameters)
    if problems:
        raise ConfigError(f"{path}: " + "; ".join(problems))
    return Space(path.stem, parameters, tuple(first))


def _describe(key: str, problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        entry_keys = ("choice", "float", "int", "log", "step", "when")
        unknown = str(problem["loc"][-1])
        return f"{key}.{unknown}: unknown key{nearest(unknown, entry_keys)}"
    inner = "".join(f".{part}" for part in problem["loc"])
    return f"{key}{inner}: {problem['msg'].removeprefix('Value error, ')}"


def _problems(path: str, above: Mapping[str, Parameter]) -> list[str]:
    """What is wrong with the parameter at `path`, given those above it (and itself)."""
    known, key = known_paths(), key_of(path)
    meant = f"{key}.name" if f"{key}.name" in known else key  # a section is chosen by its name
    problems = [] if key in known else [f"{path}: unknown key{nearest(meant, known)}"]
    for other, values in above[path].when.items():
        others = [p for name, p in above.items() if key_of(name) == other != key]
        if not others:
            problems.append(f"{path}: when.{other} is not a parameter above it")
            continue
        unknown = [value for value in values if not any(p.contains(value) for p in others)]
        if unknown:
            problems.append(f"{path}: when.{other} can never be {unknown[0]!r}")
    for name, twin in above.items():
        if key_of(name) == key and name != path and not _exclude(above[path].when, twin.when):
            problems.append(
                f"{path}: {name} may hold at the same time: give both a `when` with other values "
                "of one key"
            )
    return problems


def _problems_of_first(first: Any, parameters: Mapping[str, Parameter]) -> list[str]:
    if not isinstance(first, list) or not all(isinstance(changes, dict) for changes in first):
        return ["first: write a list of changes, [{loss.name: focal}, ...]"]
    problems = []
    for key, value in ((key, value) for changes in first for key, value in changes.items()):
        own = [parameter for path, parameter in parameters.items() if key_of(path) == key]
        if not own:
            problems.append(
                f"first: {key} is no parameter{nearest(str(key), map(key_of, parameters))}"
            )
        elif not any(parameter.contains(value) for parameter in own):
            problems.append(f"first: {key} can never be {value!r}")
    return problems


def _exclude(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two conditions can never hold together."""
    return any(not set(one[key]) & set(other[key]) for key in one.keys() & other.keys())


def known_paths() -> set[str]:
    """Every key that a TrainConfig can have, in any variant of its sections."""
    return set(_paths(TrainConfig, ""))


def _paths(model: Any, prefix: str) -> list[str]:
    found: list[str] = []
    for name, field in model.model_fields.items():
        sections = sections_of(field.annotation)
        for section in sections.values():
            found += _paths(section, f"{prefix}{name}.")
        if not sections:
            found.append(prefix + name)
    return found
