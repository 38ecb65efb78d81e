"""What the documents say is so: links, commands and snippets work, files and tests that they name exist."""

import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fmseg.cli import frame
from fmseg.records.dataset import Dataset
from fmseg.workspace import Workspace

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("fmseg_*/README.md"), *ROOT.glob("docs/**/*.md")])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HOW_TOS = sorted((ROOT / "docs" / "how-to").glob("*.md"))
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)


def blocks(document: Path, language: str) -> list[str]:
    return [body for kind, body in FENCED.findall(document.read_text()) if kind == language]


def lines_of_code(document: Path) -> list[str]:
    """Return all lines of code blocks, fenced or indented, and all inline code; continued lines are joined."""
    text = document.read_text()
    fenced = "\n".join(body for _, body in FENCED.findall(text))
    rest = FENCED.sub("", text)
    indented = re.findall(r"^    (.+)$", rest, re.MULTILINE)
    inline = [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", rest)]
    return re.sub(r"\\\n\s*", " ", fenced).splitlines() + indented + inline


def typed(document: Path) -> list[list[str]]:
    """Return the arguments of every fmseg command line."""
    found, text = [], document.read_text().replace("\n", " ")
    for line in lines_of_code(document):
        match = re.match(r"(?:\$ )?(?:\w+=\S+ )*(?:torchrun .*-m )?fmseg (.+)", line.strip())
        if match:
            arguments = shlex.split(match[1], comments=True)
            # a command that is only named in a sentence
            found.append([*arguments, "--help"] if len(arguments) == 1 and f"`{line}`" in text else arguments)
    return found


@pytest.fixture
def exit_code(monkeypatch, capsys):
    """Return a function that parses a command line as ever, runs nothing, and returns exit code and message."""
    monkeypatch.setattr(frame, "execute", lambda *_: 0)

    def parse(arguments: list[str]) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            frame.main(arguments)
        return left.value.code, capsys.readouterr().err

    return parse


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@documents
def test_links_lead_somewhere(document):
    text = FENCED.sub("", document.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), target
        if anchor:
            assert anchor in map(slug, re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)), target


@documents
def test_commands_are_of_the_command_line(document, exit_code):
    for arguments in typed(document):
        assert exit_code(arguments) == (0, ""), arguments


def test_wrong_commands_would_be_noticed(exit_code):
    for arguments in (["trian", "501"], ["train", "501", "--resume"], ["predict", "-i", "in"]):
        assert exit_code(arguments)[0] == 2


@documents
def test_files_and_tests_that_are_named_exist(document):
    for name in re.findall(r"`((?:fmseg|tests|docs|examples|benchmarks)/[^`\s:]+)(?:::\w+)?`", document.read_text()):
        assert list(ROOT.glob(name.rstrip("/"))), name
    for file, test in re.findall(r"`(tests/[^`\s:]+)::(\w+)`", document.read_text()):
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


@documents
def test_make_targets_exist(document):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    used = {line.split()[1] for line in lines_of_code(document) if re.match(r"make [a-z]", line)}
    assert used <= set(targets)


#: the page on Python needs trained models: tests/test_api.py runs it
@pytest.mark.parametrize("document", [path for path in HOW_TOS if path.stem != "python"], ids=lambda path: path.stem)
def test_python_snippets_run(document, monkeypatch):
    keep_registries(monkeypatch)
    namespace: dict[str, object] = {"__name__": "snippet"}
    for snippet in blocks(document, "python"):
        exec(compile(snippet, str(document), "exec"), namespace)


def load(path: Path):
    """Import a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def keep_registries(monkeypatch):
    """Let parts be registered for the time of one test."""
    from fmseg.imaging.readers import readers
    from fmseg.networks.decoders import decoders
    from fmseg.records import endings
    from fmseg.records.recipe import recipes

    monkeypatch.setattr(endings, "_image_endings", list(endings.image_endings()))
    for registry in (decoders, readers, recipes):
        monkeypatch.setattr(registry, "_items", dict(registry._items))


@documents
def test_json_and_toml_snippets_are_accepted(document, tmp_path):
    for number, snippet in enumerate(blocks(document, "json")):
        value = json.loads(snippet)
        if isinstance(value, dict) and "channel_names" in value:
            folder = tmp_path / f"Dataset{number + 1:03d}_Snippet"
            folder.mkdir()
            (folder / "dataset.json").write_text(snippet)
            assert Dataset.load(folder).modality
    for snippet in blocks(document, "toml"):
        (tmp_path / "fmseg.toml").write_text(snippet)
        assert Workspace.find(tmp_path)


def test_the_reference_of_commands_is_up_to_date():
    maker = load(ROOT / "docs" / "make_commands.py")
    assert maker.TARGET.read_text() == maker.page(), "run: python docs/make_commands.py"


@pytest.mark.parametrize("name", ["make_records", "make_architecture", "make_weights"])
def test_what_is_made_from_the_code_is_up_to_date(name):
    maker = load(ROOT / "docs" / f"{name}.py")
    assert maker.TARGET.read_text() == maker.page(), f"run: make reference, or python docs/{name}.py"


def test_every_record_on_disk_is_in_the_reference():
    page = load(ROOT / "docs" / "make_records.py").page()
    for key in ("seen_count", "temperature", "class_weights", "mirror_axes", "calibration_error"):
        assert f"| `{key}` |" in page
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert set(re.findall(r"\(#([\w-]+)\)", page)) <= set(map(slug, headings))
    assert len(set(headings)) == len(headings)
    classes = [
        node.name
        for path in (ROOT / "fmseg" / "records").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and {"Record", "RunRecord"} & {ast.unparse(base) for base in node.bases}
    ]
    assert set(classes) - {"RunRecord"} <= set(headings) and len(classes) > 8


def test_links_of_the_site_lead_to_its_pages():
    site = load(ROOT / "docs" / "make_site.py")
    pages = {*site.OUTSIDE.values(), "tutorial.md", "how-to/classify.md"}
    text = "[a](docs/how-to/classify.md#top) [b](LICENSE) [c](https://x.y) [d](#e) ![f](docs/nothing.png)"
    assert site.rewritten(text, "index.md", pages) == "[a](how-to/classify.md#top) b [c](https://x.y) [d](#e) f"
    text = "[a](../../fmseg_raw/README.md#keys) [b](../tutorial.md) [c](../../README.md)"
    wanted = "[a](../fmseg_raw/README.md#keys) [b](../tutorial.md) [c](../index.md)"
    assert site.rewritten(text, "how-to/classify.md", pages) == wanted
    assert site.rewritten("[a](../docs/tutorial.md)", "fmseg_raw/README.md", pages) == "[a](../tutorial.md)"


def test_every_page_is_in_the_sites_navigation_and_every_how_to_in_readme():
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages <= set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    readme = (ROOT / "README.md").read_text()
    assert not [page for page in pages if page.startswith("how-to/") and f"(docs/{page})" not in readme]


@pytest.mark.slow
def test_the_site_builds_and_asks_for_nothing(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert {"index.html", "tutorial.html", "CHANGELOG.html"} <= {page.name for page in pages}
    for page in pages:
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=.?(https?://[^\s\"'>]+)", page.read_text())
        loaded += re.findall(r"<link[^>]*rel=.?stylesheet[^>]*href=.?(https?://[^\s\"'>]+)", page.read_text())
        assert not loaded, (page, loaded)


def test_the_how_to_shows_the_example():
    example = (ROOT / "examples" / "sum_decoder.py").read_text()
    assert example in blocks(ROOT / "docs" / "how-to" / "add-a-decoder.md", "python")


def test_the_example_keeps_the_contract_of_decoders(monkeypatch):
    keep_registries(monkeypatch)
    load(ROOT / "examples" / "sum_decoder.py")
    contract = load(ROOT / "tests" / "networks" / "test_decoders.py")
    contract.test_logits_cover_any_grid("sum", (7, 5), True)
    contract.test_gradients_reach_every_parameter_and_every_tap("sum")
    contract.test_images_of_a_batch_do_not_mix_in_evaluation("sum")
    contract.test_weights_are_a_function_of_the_seed("sum")
    contract.test_a_weak_head_starts_near_even_odds("sum")


@pytest.mark.slow
def test_the_contract_takes_decoders_of_ones_own():
    (line,) = [line for line in lines_of_code(HOW_TOS[0]) if line.startswith("python -m pytest")]
    command = [sys.executable, *shlex.split(line)[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"1\d passed", done.stdout)
