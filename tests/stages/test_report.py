import re
import time
from html.parser import HTMLParser

import finished
import numpy as np
import pytest
import tiny_run
from PIL import Image

from fmseg.cli import frame
from fmseg.errors import NotReady, UnknownName
from fmseg.imaging.metrics import score_case
from fmseg.imaging.readers import read_label
from fmseg.inference.outcome import Outcome
from fmseg.records.dataset import Dataset
from fmseg.records.foundation import CARD, Foundation
from fmseg.records.run import Provenance, RunConfig
from fmseg.stages.report import report, report_foundation
from fmseg.workspace import Workspace

PLANS = "fmsegPlans"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return finished.write_finished(tmp_path_factory.mktemp("finished"))


class Reader(HTMLParser):
    """Collects what a browser would load, and what a screen reader needs."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.images, self.headings, self.ids, self.targets = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.loads += [values[key] for key in ("src", "data", "srcset", "poster", "action") if values.get(key)]
        self.loads += [values["href"]] if tag == "link" else []
        self.targets += [values["href"][1:]] if tag == "a" else []
        self.images += [values.get("alt" if tag == "img" else "aria-label")] if tag in ("img", "svg") else []
        self.headings += [tag] if re.fullmatch("h[1-6]", tag) else []
        self.ids += [values["id"]] if "id" in values else []


def page_of(workspace, name):
    return report(workspace, name, plans_name=PLANS).read_text()


@pytest.mark.parametrize("name", [finished.SEGMENTED, finished.CLASSIFIED])
def test_a_page_carries_all_it_shows_and_says_it_to_all(workspace, name):
    text = page_of(workspace, name)
    page = Reader(text)
    assert page.loads and all(each.startswith("data:") for each in page.loads)
    assert "@import" not in text and not re.search(r"url\((?!data:)", text)
    assert all(page.images), "a picture without words"
    assert page.headings[0] == "h1" and page.headings.count("h1") == 1
    assert len(set(page.ids)) == len(page.ids) and set(page.targets) <= set(page.ids)
    assert str(workspace.raw) not in text and str(workspace.results) not in text


@pytest.mark.parametrize("name", [finished.SEGMENTED, finished.CLASSIFIED])
def test_the_worst_case_is_shown_first_and_all_chapters_are_there(workspace, name):
    text = page_of(workspace, name)
    titles = re.findall(r'<h2 id="([a-z-]+)-title">', text)
    assert titles == ["data", "plan", "training", "scores", "cases", "seen-before", "run-record", "how-to-cite"]
    assert re.search(r'<h4 title="(\w+)"', text)[1] == "p0"
    assert "11" in text and "12" in text


def test_equal_results_make_equal_pages(workspace):
    assert page_of(workspace, finished.SEGMENTED) == page_of(workspace, finished.SEGMENTED)


def test_a_page_grows_with_the_work(tmp_path):
    workspace = Workspace.find(tmp_path)
    tiny_run.write_dataset(workspace.raw_dataset(finished.SEGMENTED), finished.NAMES)
    with pytest.raises(NotReady, match="plan_and_preprocess -d 501"):
        report(workspace, finished.SEGMENTED, plans_name=PLANS)
    (tmp_path / "half").mkdir()
    half = finished.write_finished(tmp_path / "half", chosen=False)
    for name in (finished.SEGMENTED, finished.CLASSIFIED):
        assert "Not all is trained and chosen yet" in page_of(half, name)
        (half.prepared(name) / "plans.json").unlink()
        for run in half.results_of(name).glob("*/fold_*/finished.json"):
            run.unlink()
        text = page_of(half, name)
        assert "Nothing is trained yet" in text and "Not planned yet" in text


def test_missing_images_are_told_and_end_nothing(tmp_path):
    workspace = finished.write_finished(tmp_path)
    (workspace.raw_dataset(finished.SEGMENTED) / "imagesTr" / "p0_0000.png").unlink()
    (workspace.raw_dataset(finished.SEGMENTED) / "imagesTr" / "p1_0000.png").write_bytes(b"no image")
    text = page_of(workspace, finished.SEGMENTED)
    assert 'p0">' not in text and 'p1">' not in text and 'p2">' in text


def test_out_of_fold_maps_are_those_that_were_scored(workspace):
    outcome = Outcome.load(workspace.results_of(finished.SEGMENTED))
    cases = {case.name: case for case in Dataset.load(workspace.raw_dataset(finished.SEGMENTED)).training_cases()}
    assert outcome.fold_of == {name: int(name in finished.FOLDS[1].val) for name in finished.NAMES}
    for scored in outcome.pooled.cases:
        label, _ = read_label(cases[scored.case].label)
        found = outcome.label_map(outcome.probabilities(scored.case), label.shape)
        assert score_case(found, label, outcome.scheme, None, 2.0)["disc"].dice == scored.classes["disc"].dice


def test_a_foundation_has_a_page_of_its_own(tmp_path):
    workspace = Workspace.find(tmp_path)
    folder = workspace.foundation("ultrasound", "mine<b>")
    tiny_run.write_foundation(folder, "mine<b>", ["ab" * 16])
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "attention.png")
    (folder / "metrics.jsonl").write_text(
        "".join(f'{{"step": {step}, "loss": {9 - step}, "probe_d501_dice": 0.{step}}}\n' for step in range(1, 5))
    )
    made = Provenance(fmseg="0", commit="", packages={}, command="", device="cuda", num_devices=2)
    Foundation.load(folder / CARD).evolve(seconds=3600.0, provenance=made).save(folder / CARD)
    text = report_foundation(workspace, "mine<b>").read_text()
    assert "about 1 kWh, if the machine drew 1,000 W" in text and "2 x cuda" in text
    assert "mine&lt;b&gt;" in text and "mine<b>" not in text
    assert "data:image/webp" in text and "Probe of d501 dice" in text
    with pytest.raises(UnknownName, match="Did you mean 'mine<b>'"):
        report_foundation(workspace, "mine<b")


def test_two_checkpoints_are_two_chapters(tmp_path):
    workspace = finished.write_finished(tmp_path)
    for name in ("one", "two"):
        tiny_run.write_foundation(workspace.foundation("ultrasound", name), name, ["ab" * 16])
    runs = sorted(workspace.results_of(finished.SEGMENTED).glob("*/fold_*/run.json"))
    for path, name in zip(runs, ("one", "two"), strict=True):
        init = {"name": name, "sha256": f"weights of {name}", "because": "a test"}
        RunConfig.load(path).evolve(init=init).save(path)
    page = Reader(page_of(workspace, finished.SEGMENTED))
    assert {"pretraining-of-one", "pretraining-of-two"} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids) and set(page.targets) <= set(page.ids)


def test_the_command_wants_one_of_two(workspace, capsys):
    root = str(workspace.raw.parent)
    for wrong in ((), ("501", "--foundation", "x")):
        with pytest.raises(SystemExit, match="2"):
            frame.main(["--root", root, "report", *wrong])
    with pytest.raises(SystemExit, match="0"):
        frame.main(["--root", root, "report", "501", "--json"])
    assert "report.html" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", [finished.SEGMENTED, finished.CLASSIFIED])
def test_of_a_thousand_cases_it_is_made_in_a_minute_and_is_small(many, name):
    start = time.process_time()  # of this process: others on the machine do not count
    path = report(many, name, plans_name=PLANS)
    assert time.process_time() - start < 60
    assert path.stat().st_size < 15e6
    text = path.read_text()
    assert "1,000" in text and text.count("data:image/") >= 7


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A thousand cases, finished."""
    names = [f"p{index:04d}" for index in range(1000)]
    return finished.write_finished(tmp_path_factory.mktemp("many"), names=names, size=(240, 320))


@pytest.mark.slow
def test_in_a_browser_nothing_is_wrong_nothing_is_asked_for_and_tables_sort(workspace, tmp_path):
    browser = pytest.importorskip("browser_page")
    path = report(workspace, finished.CLASSIFIED, plans_name=PLANS)
    for width in (1400, 400):
        with browser.opened(path.as_uri(), width=width) as (page, troubles, requests):
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("h1").inner_text() == "Bright"
            table = page.get_by_role("region", name="Class by class")
            table.get_by_role("button", name="F1").click()
            values = [float(text) for text in table.locator("td[data-value]:nth-child(3)").all_inner_texts()]
            assert values == sorted(values) and len(values) > 1
            table.get_by_role("button", name="F1").press("Enter")
            values = [float(text) for text in table.locator("td[data-value]:nth-child(3)").all_inner_texts()]
            assert values == sorted(values, reverse=True)
        assert troubles == [] and requests == [path.as_uri()]
