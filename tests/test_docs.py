"""The documentation says what is true: what it links to, quotes and names exists; the site builds."""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel
from pymdownx.slugs import slugify

import launch
from search.config import SearchConfig, load_search_config
from search.space import load_space
from search.study import StudyFile
from tests.chromium import CHROMIUM, NOT_INSTALLED, chromium
from tests.conftest import ROOT
from trashseg.config_file import sections_of, validate

DOCS = ROOT / "docs"


def hook(name: str) -> ModuleType:
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SETTINGS: str = hook("settings_page").settings_page()
GENERATED = DOCS / "configuration.md"
PAGES = {path: path.read_text() for path in [*ROOT.glob("*.md"), *sorted(DOCS.glob("*.md"))]}
PAGES[GENERATED] = SETTINGS
TROUBLES = DOCS / "troubleshooting.md"
QUOTE = re.compile(r"^- (`{1,2})(.+)\1$", re.MULTILINE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PARITY = DOCS / "parity.md"  # tests/test_parity.py reads it


def prose(path: Path) -> str:
    """A page without its blocks of code, and without messages, which name what does not work."""
    return QUOTE.sub("", FENCE.sub("", PAGES[path]))


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name)


# --- every setting -----------------------------------------------------------------------------


def keys(
    model: type[BaseModel], values: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Any]]:
    """Every key of a model, in all variants of its sections, with its default."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        default = values.get(name, field.default)
        variants = sections_of(field.annotation)
        for variant, section in variants.items():
            chosen = variant in (None, default["name"] if variant else None)
            yield from keys(section, default if chosen else {}, f"{path}.")
            if variant:
                yield f"{path}.name", default["name"]
        if not variants and not (name == "name" and path != "search.name"):
            yield path, default


def entry(key: str) -> str:
    """What the page says of a key, without the heading."""
    return SETTINGS.partition(f"\n### `{key}` {{ #{key} }}\n\n")[2].partition("\n#")[0]


def test_every_key_is_on_the_page_once_with_its_default() -> None:
    found = dict(keys(SearchConfig, SearchConfig().model_dump(mode="json"), ""))
    assert len(found) > 100
    for key, default in found.items():
        assert SETTINGS.count(f"\n### `{key}` ") == 1, key
        [said] = re.findall(r"default (?:`([^`]*)`|none)", entry(key).splitlines()[0])
        required = type(default).__name__ == "PydanticUndefinedType"
        assert (said == "") if required else (yaml.safe_load(said) == default), key
    assert len(found) == SETTINGS.count("\n### ")


def test_every_field_is_explained_in_the_words_of_the_code() -> None:
    def docs(model: type[BaseModel]) -> Iterator[str]:
        for field in model.model_fields.values():
            yield field.description or ""
            for section in sections_of(field.annotation).values():
                yield (section.__doc__ or "") if "name" in section.model_fields else ""
                yield from docs(section)

    said = " ".join(SETTINGS.split())
    for text in docs(SearchConfig):
        assert " ".join(text.split()) in said


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("search.reduction_factor", "number, above 1 · default `3.0`"),
        ("search.cpus_per_trial", "`auto` or whole number, 1 or more · default `auto`"),
        ("search.folds", "list of one or more: whole number, 0 or more · default `[0]`"),
        ("tta.scales", "list of one or more: number, 0.25 to 4 · default `[1.0]`"),
        ("data.folds_file", "text or `null` · default `null`"),
        ("augment.shift_scale_rotate.rotate", "number, 0 to 180 · default `90.0`"),
        ("loss.topk_percent", "number, above 0, at most 100 · default `10.0` · with `loss.name` "
         "`dice_topk`"),
        ("loss.per_image", "`true` or `false` · default `false` · with `loss.name` `lovasz`, `sum`"),
        ("optim.decoder_lr", "number, above 0 · default `0.001`"),
        ("pseudo.folder", "text · default none, it must be given · with `pseudo.name` `folder`"),
    ],
)  # fmt: skip
def test_what_a_key_may_be_is_said_in_words(key: str, line: str) -> None:
    assert entry(key).splitlines()[0] == line


# --- links -------------------------------------------------------------------------------------

HEADING = re.compile(r"^#+ (.+?)(?: \{ #(\S+) \})?$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
TO_SLUG = slugify(case="lower")


@cache
def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as the repository's viewer and the site make them."""
    headings = HEADING.findall(FENCE.sub("", PAGES[path]))
    return {own or TO_SLUG(re.sub(r"[`*]|\]\(.*?\)|\[", "", title), "-") for title, own in headings}


@each([path for path in PAGES if path != GENERATED])
def test_every_link_leads_to_a_file_and_an_anchor_that_exist(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", PAGES[path])):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists() or target == GENERATED, link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_only_links_to_what_the_repository_has() -> None:
    assert GENERATED.name not in PAGES[ROOT / "README.md"]


@pytest.mark.parametrize("package", ["search", "trashseg"])
def test_every_module_that_architecture_names_exists(package: str) -> None:
    text = PAGES[DOCS / "architecture.md"]
    table = text.partition(f"\n## {package}\n")[2].partition("\n## ")[0]
    modules = re.findall(r"`(\w+)`", table)
    assert len(modules) > 10
    assert [m for m in modules if not list((ROOT / package).glob(f"**/{m}*"))] == []


# --- commands ----------------------------------------------------------------------------------

OF_OTHERS = {"--env-manager", "--host", "--allowed-hosts", "--num-cpus", "--num-gpus"}
NOT_BUILT = {"--calibrate"}  # docs/performance.md says why


def in_launch(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words after launch.py name, and the rest of them."""
    command: Any = typer.main.get_command(launch.app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def options(command: Any) -> set[str]:
    """All options of a command and those within it."""
    own = {
        option
        for parameter in command.params
        for option in parameter.opts + parameter.secondary_opts
    }
    return own.union(*map(options, getattr(command, "commands", {}).values()))


def typed(path: Path) -> Iterator[list[str]]:
    """Words after launch.py of the commands in a page's blocks of code."""
    for _, block in FENCE.findall(PAGES[path]):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.findall(r"(?<!# )python launch\.py ([^'`]+)", line):
                yield [word for word in shlex.split(command, comments=True) if word != "..."]


@each([path for path in PAGES if list(typed(path))])
def test_every_command_to_type_is_one_that_launch_py_takes(path: Path) -> None:
    for words in typed(path):
        command, rest = in_launch(words)
        assert not hasattr(command, "commands"), words
        command.make_context("launch.py", list(rest))  # raises for what it does not know


@each([path for path in PAGES if path != PARITY])
def test_every_command_and_option_named_in_a_sentence_exists(path: Path) -> None:
    everything, _ = in_launch([])
    for code in re.findall(r"`([^`\n]+)`", prose(path)):
        words = code.removeprefix("python ").removeprefix("launch.py ").split()
        of_launch = "launch.py " in code
        if not of_launch and not words[0].startswith("--") and words[0] not in everything.commands:
            continue  # another program's
        command, rest = in_launch(words)
        assert not of_launch or command is not everything, code
        named = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert named <= options(command) | OF_OTHERS | NOT_BUILT, code


# --- settings in the text ----------------------------------------------------------------------

SECTIONS = [
    name for name, field in SearchConfig.model_fields.items() if sections_of(field.annotation)
]
DOTTED = re.compile(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_.@]+)(?:=[^`]*|: [^`]*)?`")


@each([path for path in PAGES if path != PARITY])
def test_every_set_option_in_a_page_validates(path: Path) -> None:
    spans = re.findall(r"`([^`\n]+)`", prose(path)) + [" ".join(words) for words in typed(path)]
    for span in spans:
        found = re.findall(r"--set (?:'([^']+)'|([^\s']+))", span)
        overrides = [quoted or bare for quoted, bare in found]
        if overrides != ["section.key=value"]:
            load_search_config(None, [override for override in overrides if "=" in override])


@each([path for path in PAGES if path != PARITY])
def test_every_key_named_in_a_sentence_exists(path: Path) -> None:
    for key in DOTTED.findall(prose(path)):
        if not key.endswith((".py", ".yaml", ".json")):
            assert f"\n### `{key.partition('@')[0]}` " in SETTINGS or f"\n## `{key}`" in SETTINGS, (
                key
            )


@each([path for path in PAGES if "\n```yaml\n" in PAGES[path]])
def test_every_yaml_file_in_a_page_works(path: Path, tmp_path: Path) -> None:
    for language, block in FENCE.findall(PAGES[path]):
        if language != "yaml":
            continue
        file, tree = tmp_path / "my.yaml", yaml.safe_load(block)
        file.write_text(block)
        if "variants" in tree:
            assert validate(StudyFile, tree, "study").configs(SearchConfig().train, "study")
        elif "include" in tree or any("." in key for key in tree):
            space = load_space(str(file))
            space.check(SearchConfig().train)
            space.point_of(SearchConfig().train)
        else:
            load_search_config(file)


# --- messages ----------------------------------------------------------------------------------

LEAST = 12  # characters of the code that a quoted message must have
SHARE = 0.2  # of its characters


@cache
def messages() -> list[tuple[int, re.Pattern[str]]]:
    """Every text in the code: how many characters it has of its own, and what it may become."""
    found = []
    for file in [
        ROOT / "launch.py",
        *(ROOT / "trashseg").rglob("*.py"),
        *(ROOT / "search").glob("*.py"),
    ]:
        for node in ast.walk(ast.parse(file.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [str(part.value) if isinstance(part, ast.Constant) else None for part in parts]
            if any(texts):
                pattern = "".join(".*" if text is None else re.escape(text) for text in texts)
                found.append((sum(len(text or "") for text in texts), re.compile(pattern)))
    return found


def test_every_message_that_is_quoted_is_in_the_code() -> None:
    quotes = [text for _, text in QUOTE.findall(PAGES[TROUBLES])]
    assert len(quotes) > 100
    for text in quotes:
        least = max(LEAST, SHARE * len(text))
        assert any(size >= least and pattern.search(text) for size, pattern in messages()), text


def test_every_quoted_message_is_there_once_and_has_a_remedy() -> None:
    quotes = [text for _, text in QUOTE.findall(PAGES[TROUBLES])]
    assert len(set(quotes)) == len(quotes)
    assert len(re.findall(r"^- `.+`\n\n    \S", PAGES[TROUBLES], re.MULTILINE)) == len(quotes)


# --- the site ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a link, an anchor or a page that is not there is an error."""
    out = tmp_path_factory.mktemp("docs") / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.mark.slow
def test_the_site_has_every_page_and_takes_nothing_from_elsewhere(site: Path) -> None:
    names = {"README.md": "index", "CONTRIBUTING.md": "contributing", "CHANGELOG.md": "changelog"}
    for path in PAGES:
        assert (site / f"{names.get(path.name, path.stem)}.html").is_file(), path
    fetched = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*(?:src|href)=\"?https?:[^>]*>")
    for page in site.rglob("*.html"):
        assert not fetched.findall(page.read_text()), page


@pytest.mark.slow
def test_the_site_is_read_and_searched_from_a_disk_on_a_phone_too(site: Path) -> None:
    if CHROMIUM is None:
        pytest.skip(NOT_INSTALLED)
    requests: list[str] = []
    complaints: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        for file in sorted(set(site.glob("*.html")) - {site / "404.html"}):  # that is a server's
            page.goto(file.as_uri())
            wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert wide <= 0, f"{file.name} is {wide} px wider than a phone"
        page.goto((site / "index.html").as_uri() + "?q=reduction_factor")
        page.wait_for_selector(".md-search-result__link[href$='#search.reduction_factor']")
    assert not [url for url in requests if not url.startswith(("file:", "data:", "about:"))]
    assert not complaints
