"""`data check`: a table, a page that asks for nothing, and an exit code that says how it is."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import launch
from tests.trashseg.data.defects import Spoiled, spoil_with_errors, spoil_with_warnings
from tests.trashseg.trained_folds import train_tiny


def check(*arguments: object) -> tuple[int, str]:
    given = ["data", "check", *map(str, arguments), "--set", "data.image_size=32"]
    result = CliRunner().invoke(launch.app, given, env={"COLUMNS": "140"})
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


class Page(HTMLParser):
    """What a page shows, and everything that it would load."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.text = file.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if tag == "section" and name == "id":
                self.sections.append(value or "")
            if name in ("src", "href", "srcset", "data", "action"):
                self.sources.append(value or "")


@pytest.fixture
def broken(sample: Path, tmp_path: Path) -> Spoiled:
    data = Spoiled(sample, tmp_path / "data")
    spoil_with_warnings(data)
    spoil_with_errors(data)
    data.tree["images"][10]["file_name"] = "photos/<b>.jpg"
    data.file(10).rename(data.folder / "photos/<b>.jpg")
    data.write()
    return data


def test_broken_data_give_exit_code_1_and_a_row_for_every_kind(
    broken: Spoiled, tmp_path: Path
) -> None:
    code, output = check(broken.folder, "--report", tmp_path / "page.html")
    assert code == 1
    for kind in broken.expected:
        assert f"({kind})" in output.replace("\n", "")
    assert "16 errors" in output


def test_the_page_shows_every_kind_with_its_ids_and_loads_nothing(
    broken: Spoiled, tmp_path: Path
) -> None:
    check(broken.folder, "--report", tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert set(page.sections) == {*broken.expected, "balance"}
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    # 5 pairs of photos (3 sorts of repeats, 2 of copies), 2 single photos, 8 objects
    assert len(page.sources) == 20
    assert not page.tags & {"script", "link", "iframe", "b"}
    assert "url(" not in page.text
    assert "default-src 'none'" in page.text
    for kind, ids in broken.expected.items():
        section = page.text.split(f'id="{kind}"')[1].split("</section>")[0]
        for name in ids:
            assert name in section
    shown = [base64.b64decode(source.split(",")[1]) for source in page.sources]
    for picture in shown:
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape[0] == 160


def test_clean_data_give_exit_code_0_and_a_table_of_classes(sample: Path, tmp_path: Path) -> None:
    code, output = check(sample, "--report", tmp_path / "page.html")
    assert code == 0
    assert "20 photos: 0 errors" in output
    page = Page(tmp_path / "page.html")
    tree = json.loads((sample / "train_all.json").read_text())
    for category in tree["categories"]:
        held = [a for a in tree["annotations"] if a["category_id"] == category["id"]]
        row = re.search(rf"<tr><td>{category['name']}</td>\s*<td>(\d+)</td>", page.text)
        assert row is not None
        assert int(row[1]) == len(held)


def test_without_a_name_the_page_lies_in_the_working_folder(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check(sample)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["data_check.html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "none: no such folder: check --data"),
        (["empty"], "empty: has neither train_all.json nor train.json and val.json: add one"),
        (["data", "--run", "empty"], "empty: holds no finished fold: train some with launch.py"),
        (["data", "--config", "no.yaml"], "no.yaml: no such file: check the path"),
    ],
)
def test_a_mistake_of_the_user_gives_exit_code_2_and_no_page(
    sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sample, "data")
    Path("empty").mkdir()
    code, output = check(*arguments)
    assert code == 2
    assert output.startswith(f"error: {message}")
    assert not Path("data_check.html").exists()


@pytest.mark.slow
def test_the_folds_of_a_run_are_the_ones_that_are_looked_at(sample: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_tiny(sample, run)
    code, _ = check(sample, "--run", run, "--report", tmp_path / "page.html")
    assert code == 0
    text = (tmp_path / "page.html").read_text()
    assert "fold 1<" in text  # it has two, not the configuration's five
    assert "fold 2<" not in text
