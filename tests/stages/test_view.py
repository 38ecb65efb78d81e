import csv
import io
import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import finished
import numpy as np
import pytest
from PIL import Image

from fmseg.errors import BadData, UsageError
from fmseg.imaging.readers import read_label
from fmseg.reporting.case_pictures import EXTRA, MISSED
from fmseg.reporting.layers import DOUBT, layer_png
from fmseg.reporting.overlays import PALETTE
from fmseg.stages.view import dataset_source, folder_source, open_source
from fmseg.stages.view.app import Kept, make_app
from fmseg.stages.view.marks import COLUMNS, Marks

httpx = pytest.importorskip("httpx")
testclient = pytest.importorskip("starlette.testclient")
TOKEN = "a secret"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return finished.write_finished(tmp_path_factory.mktemp("finished"))


def client_of(source):
    client = testclient.TestClient(make_app(source, TOKEN), base_url="http://127.0.0.1")
    client.params = {"token": TOKEN}
    return client


@pytest.fixture
def client(workspace):
    return client_of(dataset_source(workspace, finished.SEGMENTED))


def number_of(client, case):
    return [row["case"] for row in client.get("/cases").json()["rows"]].index(case)


def decoded(answer, kind):
    assert answer.status_code == 200 and answer.headers["content-type"] == kind
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_nothing_is_answered_without_the_token_or_to_another_name(workspace):
    app = make_app(dataset_source(workspace, finished.SEGMENTED), TOKEN)
    stranger = testclient.TestClient(app, base_url="http://127.0.0.1")
    for path in ("/", "/cases", "/case/0", "/thumbnail/0", "/image/0/0", "/layer/0/label/0", "/marks.csv"):
        assert stranger.get(path).status_code == 403, path
        assert stranger.get(path, params={"token": TOKEN + "x"}).status_code == 403, path
        assert stranger.get(path, params={"token": TOKEN}).status_code == 200, path
        elsewhere = {"host": "evil.example"}
        assert stranger.get(path, params={"token": TOKEN}, headers=elsewhere).status_code == 400, path
    assert stranger.put("/mark/0").status_code == 403 and stranger.delete("/mark/0").status_code == 403


def test_cases_are_listed_with_fold_score_and_what_they_show(client):
    rows = {row["case"]: row for row in client.get("/cases").json()["rows"]}
    assert list(rows) == finished.NAMES
    assert rows["p0"]["score"] == 0 and rows["p1"]["score"] > 0.9
    assert (rows["p0"]["fold"], rows["p6"]["fold"]) == (0, 1)
    assert all(row["shows"] == ["disc"] for row in rows.values())


def test_layers_show_the_label_and_where_the_prediction_differs(workspace, client):
    number = number_of(client, "p0")
    assert client.get(f"/case/{number}").json() == {
        "depth": 1, "height": 40, "width": 52, "layers": ["label", "prediction", "difference", "doubt"],
    }  # fmt: skip
    label = read_label(workspace.raw_dataset(finished.SEGMENTED) / "labelsTr" / "p0.png")[0][0]
    shown = decoded(client.get(f"/layer/{number}/label/0"), "image/png")
    assert np.array_equal(shown[..., 3] > 0, label > 0)
    assert not decoded(client.get(f"/layer/{number}/prediction/0"), "image/png")[..., 3].any()
    missed = decoded(client.get(f"/layer/{number}/difference/0"), "image/png")
    assert np.array_equal((missed == (*MISSED, 200)).all(-1), label > 0)
    image = decoded(client.get(f"/image/{number}/0"), "image/webp")
    assert image.shape[:2] == (40, 52)
    assert max(decoded(client.get(f"/thumbnail/{number}"), "image/webp").shape[:2]) <= 144


def test_differences_have_colours_of_their_own():
    assert not {MISSED, EXTRA, DOUBT} & set(PALETTE) and len({MISSED, EXTRA, DOUBT}) == 3


def test_differences_are_what_is_missed_and_what_is_extra():
    label, prediction = np.array([[0, 1, 1, 2]]), np.array([[1, 0, 1, 1]])
    drawn = np.asarray(Image.open(io.BytesIO(layer_png("difference", {"label": label, "prediction": prediction}))))
    assert [tuple(pixel[:3]) if pixel[3] else None for pixel in drawn[0].tolist()] == [EXTRA, MISSED, None, MISSED]


def test_what_is_not_there_is_said(client):
    for path in ("/case/99", "/thumbnail/99", "/image/99/0", "/layer/0/nothing/0"):
        assert client.get(path).status_code == 404
    assert client.get("/image/0/7").status_code == 200  # the last slice there is


def test_a_damaged_image_is_told_and_the_others_are_shown(tmp_path):
    workspace = finished.write_finished(tmp_path)
    (workspace.raw_dataset(finished.SEGMENTED) / "imagesTr" / "p0_0000.png").write_bytes(b"no image")
    client = client_of(dataset_source(workspace, finished.SEGMENTED))
    answer = client.get(f"/image/{number_of(client, 'p0')}/0")
    assert answer.status_code == 404 and "p0_0000.png" in answer.text
    assert client.get(f"/image/{number_of(client, 'p1')}/0").status_code == 200


def test_marks_are_on_the_disk_at_once_and_come_back(workspace, client):
    number = number_of(client, "p3")
    assert client.put(f"/mark/{number}", params={"note": 'edge, "left"\nside'}).status_code == 204
    assert client.put(f"/mark/{number_of(client, 'p10')}").status_code == 204
    path = workspace.results_of(finished.SEGMENTED) / "marks.csv"
    assert client.get("/marks.csv").text == path.read_text()
    rows = list(csv.DictReader(path.open()))
    assert [(row["case"], row["mark"], row["note"]) for row in rows] == [
        ("p3", "check label", 'edge, "left" side'),
        ("p10", "check label", ""),
    ]
    again = client_of(dataset_source(workspace, finished.SEGMENTED))
    assert again.get("/cases").json()["marks"] == {str(number): 'edge, "left" side', str(number_of(again, "p10")): ""}
    assert again.delete(f"/mark/{number}").status_code == 204
    assert [row["case"] for row in csv.DictReader(path.open())] == ["p10"]


def test_marks_of_many_threads_are_all_kept(tmp_path):
    marks = Marks.open(tmp_path / "marks.csv")
    threads = [threading.Thread(target=marks.set, args=(f"p{index}", "")) for index in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Marks.open(tmp_path / "marks.csv").all()) == {f"p{index}" for index in range(20)}


def test_another_table_is_not_taken_for_marks(tmp_path):
    (tmp_path / "marks.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadData, match=f"the column '{COLUMNS[0]}' is missing"):
        Marks.open(tmp_path / "marks.csv")


def test_classes_of_whole_cases_are_listed_with_their_labels(workspace):
    client = client_of(dataset_source(workspace, finished.CLASSIFIED))
    row = client.get("/cases").json()["rows"][0]
    assert (row["case"], row["label"], row["predicted"], row["score"]) == ("p0", "dark", "bright", 0.0)
    assert client.get("/case/0").json()["layers"] == []


def test_a_folder_of_images_is_shown_with_its_predictions(workspace, tmp_path):
    images = workspace.raw_dataset(finished.SEGMENTED) / "imagesTr"
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    label = np.zeros((40, 52), np.uint8)
    label[10:20, 10:20] = 1
    cv2.imwrite(str(predictions / "p2.png"), label)
    line = "case,file,confidence,disagreement,share_disc,seen,note\np2,p2.png,0.91,0.2,0.05,no,\n"
    (predictions / "report.csv").write_text(line)
    client = client_of(folder_source(images, predictions))
    found = client.get("/cases").json()
    assert [each["name"] for each in found["classes"]] == ["disc"]
    rows = {row["case"]: row for row in found["rows"]}
    assert list(rows) == finished.NAMES and rows["p1"] == {"case": "p1"}
    assert rows["p2"] == {"case": "p2", "confidence": 0.91, "disagreement": 0.2, "seen": "no", "shows": ["disc"]}
    number = list(rows).index("p2")
    assert client.get(f"/case/{number}").json()["layers"] == ["prediction"]
    shown = decoded(client.get(f"/layer/{number}/prediction/0"), "image/png")
    assert np.array_equal(shown[..., 3] > 0, label > 0)


def test_one_must_say_what_to_look_at(workspace):
    for wrong in ((None, None, None), (finished.SEGMENTED, Path("x"), None), (finished.SEGMENTED, None, Path("x"))):
        with pytest.raises(UsageError):
            open_source(workspace, *wrong)


def test_only_so_many_pictures_are_kept():
    made = []
    kept = Kept(lambda key: made.append(key) or key, 2)
    assert [kept(key) for key in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert made == [1, 2, 3, 2]


@pytest.mark.slow
def test_it_listens_to_this_machine_alone_and_ctrl_c_ends_it_well(workspace):
    pytest.importorskip("uvicorn")
    command = [sys.executable, "-m", "fmseg", "--root", str(workspace.raw.parent), "view", "501", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stderr.readline().removeprefix("Open ").strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", address)
        assert httpx.get(address).status_code == 200
        assert httpx.get(address[:-1]).status_code == 403
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert json.loads(out)["marks"].endswith("marks.csv")


class Many:
    """Ten thousand cases of one picture each."""

    title, classes = "Many", []

    def __init__(self, marks):
        self.marks = marks
        self.rows = [{"case": f"case{index:05d}", "score": (index * 37 % 1000) / 1000, "fold": index % 5}
                     for index in range(10_000)]  # fmt: skip
        self.numbers = {row["case"]: number for number, row in enumerate(self.rows)}

    def volume(self, case):
        from fmseg.stages.view.sources import Volume

        voxels = np.full((1, 5, 32, 32), int(case[4:]) % 255, np.uint8)
        return Volume(voxels, {"label": (voxels[0] > 100).astype(np.uint8)})


@pytest.mark.slow
def test_in_a_browser_ten_thousand_cases_are_browsed_filtered_and_marked(tmp_path):
    browser = pytest.importorskip("browser_page")
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(make_app(Many(tmp_path / "marks.csv"), TOKEN), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    home = f"http://127.0.0.1:{port}/"
    with browser.opened(f"{home}?token={TOKEN}") as (page, troubles, requests):
        count, name = page.locator("#count"), page.locator("#name")
        browser.sync.expect(count).to_have_text("10,000 of 10,000 cases")
        browser.sync.expect(name).to_have_text("case00000")  # the worst
        assert page.locator(".row").count() < 60
        page.locator("#scroller").evaluate("each => each.scrollTop = each.scrollHeight")
        browser.sync.expect(page.locator(".row").last).to_contain_text("Dice 0.999")
        assert page.locator(".row").count() < 60
        page.keyboard.press("j")
        browser.sync.expect(name).to_have_text("case01000")
        page.keyboard.press("m")
        browser.sync.expect(count).to_have_text("10,000 of 10,000 cases, 1 marked")
        browser.sync.expect(page.get_by_role("button", name="Check label")).to_have_attribute("aria-pressed", "true")
        assert "case01000,check label" in (tmp_path / "marks.csv").read_text()
        before = page.locator("#image").get_attribute("src")
        page.keyboard.press(" ")
        page.wait_for_function("src => document.querySelector('#image').getAttribute('src') !== src", arg=before)
        page.keyboard.press(" ")
        page.select_option("#fold", "3")
        browser.sync.expect(count).to_have_text("2,000 of 10,000 cases, 1 marked")
        page.keyboard.press("/")
        page.keyboard.type("case00003")
        browser.sync.expect(count).to_have_text("1 of 10,000 cases, 1 marked")
        page.locator(".row").click()
        browser.sync.expect(name).to_have_text("case00003")
        page.wait_for_load_state("networkidle")
        assert troubles == [] and all(each.startswith(home) for each in requests)
    server.should_exit = True
    thread.join(5)
