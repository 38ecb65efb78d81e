"""What no file of fmseg may do, so that no file that fmseg opens can run code or write elsewhere.

Where one module may, it stands here by name: one place that reads foreign weights, one that reads tensors, one that
imports plugins, one that unpacks archives.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fmseg"
#: modules that turn bytes into objects of any kind
MODULES = {"pickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "pydoc", "imp", "code"}
#: call -> modules that may make it
CALLS: dict[str, set[str]] = {
    "eval": set(),
    "exec": set(),
    "compile": set(),
    "__import__": set(),
    "os.system": set(),
    "os.popen": set(),
    "yaml.load": set(),
    "yaml.unsafe_load": set(),
    "yaml.full_load": set(),
    "torch.load": {"networks/foreign_files.py"},
    "torch.jit.load": set(),
    "torch.hub.load": set(),
    "shutil.unpack_archive": set(),
    "load_file": {"networks/tensors.py"},
    "safe_open": {"networks/tensors.py"},
    "importlib.import_module": {"registry.py"},
    "import_module": set(),
    "zipfile.ZipFile": {"archive.py", "stages/embed.py"},  # the latter writes .npz files, and reads none
    "ZipFile": set(),
    "tarfile.open": set(),
}
#: methods, of whatever object
METHODS = {"extractall", "extract", "locate", "instantiate", "get_parsed_content"}
FILES = sorted(PACKAGE.rglob("*.py"))


def sins(source: str, name: str) -> list[str]:
    """Return what a file does that it may not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"{node.lineno}: import {each}" for each in names if each.split(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            found += [f"{node.lineno}: {each}" for each in _sins_of_call(node, name)]
    return found


def _sins_of_call(node: ast.Call, name: str) -> list[str]:
    call = ast.unparse(node.func)
    keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
    found = []
    if name not in CALLS.get(call, {name}):
        found.append(call)
    if call == "torch.load" and keywords.get("weights_only") != "True":
        found.append("torch.load without weights_only=True")
    if call in ("np.load", "numpy.load") and keywords.get("allow_pickle") != "False":
        found.append("np.load without allow_pickle=False")
    if keywords.get("allow_pickle") == "True" or keywords.get("shell", "False") != "False":
        found.append(f"{call} with allow_pickle or shell")
    if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        found.append(f".{node.func.attr}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_unpickled_evaluated_or_unpacked(path):
    assert sins(path.read_text(), str(path.relative_to(PACKAGE))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.externals",
        "torch.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "np.save(path, x, allow_pickle=True)",
        "yaml.load(text)",
        "eval(text)",
        "exec(text)",
        "archive.extractall(folder)",
        "pydoc.locate(name)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "importlib.import_module(name)",
        "load_file(path)",
    ],
)
def test_each_sin_would_be_noticed(source):
    assert sins(source, "somewhere.py")


def test_the_one_place_for_foreign_weights_must_be_careful():
    assert sins("torch.load(path, map_location='cpu')", "networks/foreign_files.py")
    assert sins("torch.load(path, weights_only=False)", "networks/foreign_files.py")
    assert not sins("torch.load(path, weights_only=True)", "networks/foreign_files.py")


def test_what_is_harmless_is_allowed():
    for source in ("model.eval()", "re.compile(text)", "torch.compile(model)", "yaml.safe_load(text)"):
        assert not sins(source, "somewhere.py")
    assert not sins("np.load(path, allow_pickle=False)", "somewhere.py")
