"""Pages of what lies outside docs/, made while the site is built (an mkdocs hook).

README.md is the first page, CONTRIBUTING.md and CHANGELOG.md are pages too, and so is every other file
or folder of the repository that a page links to. So links in Markdown are those that work in the
repository, and the site needs no server of the sources.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
OF_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
TARGET = re.compile(r"(?<=\]\()[^)\s#:]+(?=[#)])")  # a relative one, without its anchor
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, and those of all sources that any page links to."""
    for name, page in OF_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    sources = {
        target
        for page in files.documentation_pages()
        for target in linked(source_of(page.src_uri), page.content_string)
        if target not in OF_ROOT and not target.startswith("docs/")
    }
    for source in sorted(sources):
        files.append(File.generated(config, page_of(source), content=source_page(source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the page's links to files of the repository lead to their pages."""
    source, here = source_of(page.file.src_uri), Path(page.file.src_uri).parent

    def to_page(match: re.Match[str]) -> str:
        target = in_repository(source, match[0])
        return os.path.relpath(page_of(target), here) if target else match[0]

    return TARGET.sub(to_page, markdown)


def linked(source: str, markdown: str) -> Iterator[str]:
    """What a file of the repository links to, as paths from the root; without what is not there."""
    for target in TARGET.findall(markdown):
        if found := in_repository(source, target):
            yield found


def in_repository(source: str, target: str) -> str | None:
    """A link's target as a path from the root; None where there is no such file."""
    path = (ROOT / source).parent / target
    return os.path.relpath(path, ROOT) if path.exists() else None


def source_of(page: str) -> str:
    """The file of the repository, from its root, that a page of the site is made from."""
    return {page: name for name, page in OF_ROOT.items()}.get(page, f"docs/{page}")


def page_of(source: str) -> str:
    """The page, or the picture, of the site that shows a file or a folder of the repository."""
    if source in OF_ROOT:
        return OF_ROOT[source]
    if source.startswith("docs/"):
        return source.removeprefix("docs/")
    return f"source/{source}.md"


def source_page(source: str) -> str:
    """A file's text, or that of each file in a folder, as a page that no search finds."""
    path = ROOT / source
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    texts = [f"# `{source}`"]
    for file in files:
        if path.is_dir():
            texts.append(f"## `{file.name}`")
        texts.append(f"~~~~~~ {LANGUAGES.get(file.suffix, 'text')}\n{file.read_text()}\n~~~~~~")
    return "---\nsearch: {exclude: true}\n---\n" + "\n\n".join(texts) + "\n"
