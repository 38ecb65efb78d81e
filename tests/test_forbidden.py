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
#: what can reach a network -> modules that may import it: the two commands that are made for it, servers of this
#: machine, a cluster that somebody names, and the name of this host
NETWORK: dict[str, set[str]] = {
    "huggingface_hub": {"stages/hub.py", "networks/cnn.py", "networks/sources/timm_files.py"},
    "distributed": {"sampling/cluster.py"},
    "socket": {"files.py", "stages/serve/__init__.py", "stages/view/__init__.py"},
    "uvicorn": {"stages/serve/__init__.py", "stages/view/__init__.py"},
    **{key: set() for key in ("urllib", "http", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "websockets")},
}
#: of huggingface_hub, elsewhere than in stages/hub.py: looks into the cache on the disk
LOOKS_ON_DISK = {"try_to_load_from_cache"}
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


def ways_out(source: str, name: str) -> list[str]:
    """Return how a file could reach a network, though it may not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names]
        rooms = names if isinstance(node, ast.Import) else [node.module or ""]
        for room in (each.split(".")[0] for each in rooms):
            is_look = room == "huggingface_hub" and set(names) <= LOOKS_ON_DISK
            if name not in NETWORK.get(room, {name}) or (
                room == "huggingface_hub" and name != "stages/hub.py" and not is_look
            ):
                found.append(f"{node.lineno}: {room}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_reaches_a_network_unasked(path):
    source = path.read_text()
    assert ways_out(source, str(path.relative_to(PACKAGE))) == []
    assert not any(word in source for word in ("pretrained=True", ".from_pretrained(", "torch.hub.")), path


def test_each_way_out_would_be_noticed():
    for source in ("import requests", "from urllib.request import urlopen", "import http.client", "import socket"):
        assert ways_out(source, "somewhere.py")
    assert ways_out("from huggingface_hub import HfApi", "networks/cnn.py")
    assert not ways_out("from huggingface_hub import try_to_load_from_cache", "networks/cnn.py")


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
