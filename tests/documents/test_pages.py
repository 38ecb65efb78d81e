"""Every code block of the documents does what it says: run here, top to bottom, in a folder made for its page."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from differences import FILES, NOT_RUN, PLACES, QUICK
from given import ALSO, FROM_NOTHING, write_data
from pages import LANGUAGES, PAGES, Block, blocks_of
from reader import Reader, is_run

from fmseg.imaging.readers import readers
from fmseg.networks.decoders import decoders
from fmseg.records import endings
from fmseg.records.recipe import recipes

BLOCKS = [block for page in PAGES for block in blocks_of(page) if block.language != "text"]
#: pages on which there is something to do
TO_READ = sorted({block.page for block in BLOCKS if any(is_run(block, line) for line in block.lines)})


def free_ports() -> tuple[int, int]:
    """Return two free ports of this machine."""
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def read(page: str, folder: Path, data: Path) -> None:
    """Do what a page says."""
    port, other_port = free_ports()
    reader = Reader(folder, {"data": str(data), "port": str(port), "other_port": str(other_port)})
    with as_it_was():
        try:
            for block in blocks_of(page):
                reader.follow(block)
            reader.leave()
        finally:
            reader.end()


@contextmanager
def as_it_was() -> Iterator[None]:
    """Take back what pages register, import, set and change."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in (decoders, readers, recipes):
            patch.setattr(registry, "_items", dict(registry._items))
        patch.setattr(endings, "_image_endings", list(endings.image_endings()))
        patch.setattr(sys, "path", list(sys.path))
        patch.chdir(Path.cwd())
        variables, modules = dict(os.environ), set(sys.modules)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(variables)
            for name in set(sys.modules) - modules:
                if name.startswith("my_"):
                    del sys.modules[name]


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Return the folder that stands for /data."""
    folder = tmp_path_factory.mktemp("disk") / "data"
    write_data(folder)
    return folder


@pytest.fixture(scope="session")
def after_readme(tmp_path_factory, data) -> Path:
    """Return the folder of someone who has done what README says."""
    folder = tmp_path_factory.mktemp("readme")
    for give in FROM_NOTHING["README.md"]:
        give(folder)
    read("README.md", folder, data)
    return folder


@pytest.mark.parametrize(
    "page", [page if page in QUICK else pytest.param(page, marks=pytest.mark.slow) for page in TO_READ]
)
def test_a_page_does_what_it_says(page, tmp_path, data, request):
    if page == "README.md":
        request.getfixturevalue("after_readme")
        return
    if page not in FROM_NOTHING:
        shutil.copytree(request.getfixturevalue("after_readme"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "data").symlink_to(data)
    for give in (*FROM_NOTHING.get(page, ()), *ALSO.get(page, ())):
        give(tmp_path)
    read(page, tmp_path, data)


def test_a_page_that_is_wrong_would_be_noticed(tmp_path):
    places = {"data": str(tmp_path), "port": "1", "other_port": "2"}
    for text in ("fmseg report 501", "no-such-program", "cat missing.txt"):
        with pytest.raises(AssertionError, match=text):
            Reader(tmp_path, places).follow(Block("page.md", 1, "console", text + "\n"))
    with pytest.raises(NameError):
        Reader(tmp_path, places).follow(Block("page.md", 1, "python", "missing\n"))
    with pytest.raises(AssertionError, match="FILES does not say"):
        Reader(tmp_path, places).follow(Block("page.md", 1, "json", "{}\n"))


def test_every_exception_is_still_needed():
    lines = [(block.page, line) for block in BLOCKS for line in block.lines]
    for each in NOT_RUN:
        assert any(page == each.page and line.startswith(each.line) for page, line in lines), each
    for pattern, _ in PLACES:
        assert any(pattern.search(line) for _, line in lines), pattern
    for page, language, number in FILES:
        assert len([block for block in BLOCKS if (block.page, block.language) == (page, language)]) > number, page
    assert set(QUICK) | set(FROM_NOTHING) | set(ALSO) <= set(TO_READ)


def test_the_list_of_what_is_not_run_is_short():
    lines = [line for block in BLOCKS for line in block.lines if block.language == "console"]
    left_out = [line for block in BLOCKS for line in block.lines if not is_run(block, line)]
    assert len(left_out) < 0.2 * len(lines)
    # of the commands of fmseg only these, whatever lines are left out
    assert {line.split()[1] for line in left_out if line.startswith("fmseg")} == {"benchmark", "demo", "push", "pull"}


def test_every_block_has_a_language_that_is_known():
    assert {block.language for page in PAGES for block in blocks_of(page)} <= LANGUAGES


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "bash"], ids=lambda block: block.page)
def test_scripts_are_parsed(block):
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


def test_blocks_are_found_whole_and_in_their_order(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("a\n\n    b  # c\n\n    d\\\n      e\n\n- f\n\n      g\n\n```json\n{}\n```\n\n    # h\n    i\n")
    monkeypatch.setattr("pages.ROOT", tmp_path)
    found = blocks_of("page.md")
    assert [(block.line, block.language, block.lines) for block in found] == [
        (3, "console", ["b  # c", "d e"]),
        (10, "console", ["g"]),
        (12, "json", ["{}"]),
        (16, "console", ["i"]),
    ]
