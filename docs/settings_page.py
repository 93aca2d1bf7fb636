"""The page of all settings, made from the configuration's classes while the site is built (an mkdocs
hook).

What it says of a key (what it means, its default, what it may be) is what pydantic knows of the field,
as JSON schema. Nothing on the page is written by hand but the introduction.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from search.config import SearchConfig

PAGE = "configuration.md"
INTRODUCTION = """\
# Every setting

Each key with what it may be, its default, and what it means. This page is made from the code when the
site is built, so it is that of the version you have.

A file gives what differs from the defaults; `--set` changes one key of it. Both may name any key below:

```yaml
# my.yaml, for --config my.yaml
epochs: 30
loss: {name: dice_focal, gamma: 1.5}
search: {trials: 40}
```

```
python launch.py search --data DIR --config my.yaml --set optim.decoder_lr=5e-4
```

Keys of the sections `search`, `tta` and `crf`, `selection_per_class`, `logit_adjustment` and `by_object`
belong to a search and what follows it; `launch.py train` knows all others. A section with a `name`
comes in variants, each with keys of its own: where another variant is chosen, what both have in common
stays as it was.
"""

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Key:
    """One setting; `variants` are those of its section that have it, all if empty."""

    path: str
    kind: str
    default: str
    meaning: str
    variants: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """A section: the dotted path to it, what it is, and by variant what that is."""

    path: str
    meaning: str
    keys: tuple[Key, ...]
    variants: Mapping[str, str] = field(default_factory=dict)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site."""
    files.append(File.generated(config, PAGE, content=settings_page()))
    return files


def settings_page() -> str:
    """Markdown of all sections, each key under a heading that has the key as its anchor."""
    return "\n\n".join([INTRODUCTION, *(_group_text(group) for group in all_groups())]) + "\n"


def all_groups() -> list[Group]:
    """Every section in the order of the classes, sections within sections after the one they are in."""
    schema = SearchConfig.model_json_schema()
    values = SearchConfig().model_dump(mode="json")
    return list(_groups("", "", {"": schema}, values, schema["$defs"]))


def _groups(
    path: str, meaning: str, variants: Mapping[str, Schema], values: Mapping[str, Any], defs: Schema
) -> Iterator[Group]:
    """The section at `path` and those within it; `variants` by name, a single one under "". `values` are
    the defaults, of the default variant where there are several."""
    described = {name: schema.get("description", "") for name, schema in variants.items() if name}
    yield Group(path, meaning, tuple(_keys(path, variants, values, defs)), described)
    for schema in variants.values():
        for name, node in schema["properties"].items():
            if sections := _sections(node, defs):
                about = "\n\n".join(filter(None, (node.get("description"), _description(sections))))
                yield from _groups(_below(path, name), about, sections, values[name], defs)


def _keys(
    path: str, variants: Mapping[str, Schema], values: Mapping[str, Any], defs: Schema
) -> Iterator[Key]:
    """The keys of a section; equal ones of several variants are one."""
    if "" not in variants:
        choices = "one of " + _listed(variants)
        yield Key(_below(path, "name"), choices, _as_yaml(values["name"]), "")
    found: dict[Key, tuple[str, ...]] = {}  # the key without its variants, and these
    for variant, schema in variants.items():
        is_default = variant in ("", values.get("name"))
        for name, node in schema["properties"].items():
            if _sections(node, defs) or (variant and name == "name"):
                continue
            default = values.get(name) if is_default else node.get("default", ...)
            about = node.get("description", "")
            key = Key(_below(path, name), kind_of(node), _as_yaml(default), about)
            found[key] = (*found.get(key, ()), variant)
    for key, names in found.items():
        yield replace(key, variants=names if all(names) else ())


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _sections(node: Schema, defs: Schema) -> dict[str, Schema]:
    """The sections that a property may hold, by variant; none if it is a key."""
    if "$ref" in node:
        return {"": _defined(node, defs)}
    if "discriminator" in node:
        variants = [_defined(option, defs) for option in node["oneOf"]]
        return {variant["properties"]["name"]["const"]: variant for variant in variants}
    return {}


def _defined(node: Schema, defs: Schema) -> Schema:
    definition: Schema = defs[node["$ref"].rpartition("/")[2]]
    return definition


def _description(sections: Mapping[str, Schema]) -> str | None:
    """That of a section's class; variants are described one by one."""
    return sections[""].get("description") if "" in sections else None


def kind_of(node: Schema) -> str:
    """What a value may be, in words: `whole number, 1 or more`."""
    if "enum" in node:
        return "one of " + _listed(node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(kind_of(option) for option in node["anyOf"]))
    if node["type"] == "array":
        return f"list of{' one or more' * bool(node.get('minItems'))}: {kind_of(node['items'])}"
    words = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "`true` or `false`",
        "null": "`null`",
    }
    return words[node["type"]] + _limits(node)


def _limits(node: Schema) -> str:
    least, above = node.get("minimum"), node.get("exclusiveMinimum")
    if above is not None and node["type"] == "integer":
        least, above = above + 1, None
    most, below = node.get("maximum"), node.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f", {least:g} to {most:g}"
    worded = {"{:g} or more": least, "above {:g}": above, "at most {:g}": most, "below {:g}": below}
    limits = [words.format(limit) for words, limit in worded.items() if limit is not None]
    return "".join(f", {limit}" for limit in limits)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _as_yaml(value: object) -> str:
    """As it stands in a file; `...` is a key that has no default."""
    if value is ...:
        return "none, it must be given"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return "`" + text.removesuffix("...\n").strip() + "`"


def _group_text(group: Group) -> str:
    heading = f"## `{group.path}`" if group.path else "## A training"
    keys = [_key_text(key, group) for key in group.keys]
    variants = [f"- `{name}`: {text}" for name, text in group.variants.items()]
    if variants:
        keys[0] += "\n\n" + "\n".join(variant.replace("\n", "\n    ") for variant in variants)
    return "\n\n".join(part for part in (heading, group.meaning, *keys) if part)


def _key_text(key: Key, group: Group) -> str:
    facts = [key.kind, f"default {key.default}"]
    if key.variants and len(key.variants) < len(group.variants):
        facts.append(f"with `{group.path}.name` {_listed(key.variants)}")
    line = " · ".join(facts)
    text = f"### `{key.path}` {{ #{key.path} }}\n\n{line}\n{{: .kind }}"
    return f"{text}\n\n{key.meaning}" if key.meaning else text
