"""All that is done otherwise here than the documents say, and why. Nothing else is changed in what is typed."""

import re
from typing import NamedTuple


class NotRun(NamedTuple):
    """Lines that are parsed, and not run. A test fails where no page has them any more."""

    page: str
    #: what the lines begin with
    line: str
    because: str


NOT_RUN = (
    NotRun("README.md", "make ", "installs everything, or runs all tests; make demo: tests/cli/test_demo.py"),
    NotRun("README.md", "source .venv/bin/activate", "of what make setup has made"),
    NotRun("CONTRIBUTING.md", "make ", "installs everything, or runs all tests"),
    NotRun("docs/tutorial.md", "fmseg demo", "some minutes; in small by tests/cli/test_demo.py"),
    NotRun("docs/how-to/benchmark.md", "fmseg benchmark fass", "trains for hours, as the published protocol says"),
    NotRun("docs/how-to/benchmark.md", "fmseg benchmark fetal_planes", "trains for hours, as its protocol says"),
    NotRun("docs/how-to/share-models.md", "hf auth login", "asks a hub for an account"),
    NotRun("docs/how-to/share-models.md", "fmseg push", "asks a hub; tests/stages/test_hub.py plays one"),
    NotRun("docs/how-to/share-models.md", "fmseg pull", "asks a hub; tests/stages/test_hub.py plays one"),
    NotRun(
        "docs/explanation/pretraining-regimes.md",
        "python -m benchmarks.pretraining.rig",
        "takes days; in small by tests/test_benchmark.py",
    ),
)

#: pages that are read in the quick tests: those on which nothing, or little, is trained
QUICK = (
    "README.md",
    "docs/explanation/planning.md",
    "docs/how-to/add-a-reader.md",
    "docs/how-to/check-a-dataset.md",
    "docs/how-to/convert.md",
    "docs/how-to/dicom.md",
    "docs/how-to/nnunet-dataset.md",
    "docs/how-to/ultrasound.md",
    "fmseg_raw/README.md",
)

#: in every block, wherever it stands: {data} is a folder, {port} and {other_port} are free
PLACES = (
    (re.compile(r"(?<![\w./])/data/"), "{data}/"),
    (re.compile(r"(?<![\w./])/archive\b"), "{data}/archive"),
    (re.compile(r"(?<=[ :])8000\b"), "{port}"),
    (re.compile(r"^dask scheduler"), "dask scheduler --no-dashboard --port {other_port}"),
    (re.compile(r"tcp://10\.0\.0\.1:8786"), "tcp://127.0.0.1:{other_port}"),
    # one machine of two cores
    (re.compile(r"--nworkers 32"), "--nworkers 1"),
    (re.compile(r"--gpus [48]\b"), "--gpus 2"),
    (re.compile(r"--nproc_per_node=8"), "--nproc_per_node=2"),
    (re.compile(r"--budget \w+"), "--budget 1s"),
    # of a benchmark, which trains dozens of networks
    (re.compile(r"\{n=20: 5, 25%: 3, full: 3\}"), "{{n=20: 1, full: 1}}"),
    (re.compile(r"starts: \[scratch, d503\]"), "settings: {{iterations: 2, batch_size: 2}}\nstarts: [scratch, d503]"),
    (re.compile(r"iterations: 500"), "iterations: 2"),
    (re.compile(r"splits: 3"), "splits: 1"),
    (re.compile(r"n=20 25% full"), "n=20 full"),
)

#: how a command begins -> what is typed behind it, so that it takes seconds and no further processes
SHORTER = {
    "plan_and_preprocess": "-np 0",
    "pretrain": "--set iterations=4 --set batch_size=4 --num-workers 0 -np 0",
    "train": "--set iterations=2 --set batch_size=2 --num-workers 0",
    "benchmark -d": "--set iterations=2 --set batch_size=2 --num-workers 0 --splits 1",
    "benchmark ours.yaml": "--num-workers 0",
}

#: page, language, number among its blocks -> file that it is the content of, and what then must read it
FILES = {
    ("docs/how-to/add-a-decoder.md", "python", 0): ("my_decoders.py", "fmseg list decoders --plugin my_decoders"),
    ("docs/how-to/add-a-decoder.md", "toml", 0): ("fmseg.toml", "fmseg list decoders"),
    ("docs/how-to/add-a-reader.md", "python", 0): ("my_readers.py", None),
    ("docs/how-to/add-a-reader.md", "toml", 0): ("fmseg.toml", "fmseg doctor -d 501"),
    ("docs/how-to/add-a-recipe.md", "python", 0): ("my_recipes.py", "fmseg list recipes --plugin my_recipes"),
    ("docs/how-to/benchmark.md", "yaml", 0): ("ours.yaml", "fmseg benchmark ours.yaml --dry-run"),
    ("docs/how-to/classify.md", "csv", 0): ("fmseg_raw/Dataset502_Planes/labelsTr.csv", None),
    ("docs/how-to/classify.md", "json", 0): ("fmseg_raw/Dataset502_Planes/dataset.json", "fmseg doctor -d 502"),
    ("docs/how-to/convert.md", "json", 0): ("/data/liver/dataset.json", "fmseg convert masks /data/liver -d 505"),
    ("docs/how-to/nnunet-dataset.md", "toml", 0): ("fmseg.toml", "fmseg list"),
    ("docs/how-to/ultrasound.md", "csv", 0): ("fmseg_raw/Dataset503_Planes/spacings.csv", "fmseg doctor -d 503"),
    ("docs/how-to/unlabelled-images.md", "json", 0): (
        "by_hand/fmseg_raw/Dataset920_Archive/dataset.json",
        "fmseg --root by_hand doctor -d 920",
    ),
    ("fmseg_raw/README.md", "json", 0): ("fmseg_raw/Dataset501_Heads/dataset.json", "fmseg doctor -d 501"),
    ("fmseg_raw/README.md", "json", 1): ("fmseg_raw/Dataset920_Archive/dataset.json", "fmseg doctor -d 920"),
}
