"""A served model says what predict says, and bears whatever is sent to it."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request

import numpy as np
import pytest
import tiny_run
from PIL import Image
from starlette.testclient import TestClient

from fmseg.errors import UsageError
from fmseg.imaging.case import Geometry
from fmseg.imaging.readers import read_label, write_label
from fmseg.inference.choice import load_choice
from fmseg.stages.export import export_models
from fmseg.stages.predict import predict
from fmseg.stages.serve import is_loopback
from fmseg.stages.serve.app import Service, make_app
from fmseg.workspace import Workspace

NAME = "Dataset501_Discs"


@pytest.fixture
def place(tmp_path):
    workspace = Workspace(tmp_path / "raw", tmp_path / "prepared", tmp_path / "results")
    tiny_run.write_run(workspace.results_of(NAME) / "linear__plans" / "fold_0", tiny_run.config())
    return workspace


def client(place, *, max_bytes=100_000, token=None, max_waiting=4):
    networks = load_choice(place.results_of(NAME)).predictor(mirror=True)
    service = Service(networks, NAME, max_waiting)
    app = make_app(service, max_bytes=max_bytes, token=token)
    return TestClient(app, "http://127.0.0.1", raise_server_exceptions=False), service


def picture(size=(40, 50)):
    file = io.BytesIO()
    Image.fromarray(tiny_run.disc(np.random.default_rng(0), size)[0]).save(file, format="PNG")
    return file.getvalue()


def post(web, content, kind="image/png", **keywords):
    return web.post("/predict", content=content, headers={"content-type": kind} | keywords)


def test_a_label_map_comes_back_as_predict_writes_it(place, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture())
    predict(place, tmp_path / "in", tmp_path / "out")
    web, _ = client(place)
    answer = post(web, picture())
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert answer.content == (tmp_path / "out" / "a.png").read_bytes()
    assert 0 < float(answer.headers["x-confidence"]) <= 1 and answer.headers["x-classes"] == '{"1": "disc"}'


def test_a_volume_comes_back_on_its_grid(place, tmp_path):
    stack = np.stack([tiny_run.disc(np.random.default_rng(i), (40, 50))[0] for i in range(2)])
    write_label(stack, Geometry((2.0, 0.5, 0.25)), tmp_path / "v.nii.gz")
    web, _ = client(place)
    answer = web.post("/predict?ending=.nii.gz", content=(tmp_path / "v.nii.gz").read_bytes())
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/gzip"
    (tmp_path / "back.nii.gz").write_bytes(answer.content)
    labels, geometry = read_label(tmp_path / "back.nii.gz")
    assert labels.shape == stack.shape and geometry.spacing_mm == pytest.approx((2.0, 0.5, 0.25))


def test_classes_come_back_with_probabilities(tmp_path):
    workspace = Workspace(tmp_path / "raw", tmp_path / "prepared", tmp_path / "results")
    tiny_run.write_run(workspace.results_of(NAME) / "finetune__plans" / "fold_0", tiny_run.class_config())
    web, _ = client(workspace)
    value = post(web, picture()).json()
    assert sum(value["probabilities"].values()) == pytest.approx(1) and value["classes"][0] in ("dark", "bright")


def test_health_metrics_and_what_the_model_is(place):
    web, _ = client(place)
    assert web.get("/health").json() == {"status": "ok", "model": NAME, "waiting": 0}
    about = web.get("/model").json()
    assert (about["task"], about["classes"], about["networks"]) == ("segmentation", {"1": "disc"}, 1)
    post(web, picture())
    post(web, b"nothing")
    text = web.get("/metrics").text
    assert 'fmseg_requests_total{status="200"} 1\n' in text and 'fmseg_requests_total{status="422"} 1\n' in text
    assert float(re.search(r"fmseg_model_seconds_total ([\d.]+)", text)[1]) > 0 and "fmseg_waiting 0" in text


@pytest.mark.parametrize(
    ("content", "kind", "code", "says"),
    [
        (b"", "image/png", 400, "no image"),
        (b"not a picture", "image/png", 422, "no PNG, JPEG"),
        (picture()[:-200], "image/png", 422, "ends too early"),
        (picture(), "text/html", 415, "Content-Type"),
        (picture(), "", 415, "Content-Type"),
        (bytes(100_001), "image/png", 413, "more than 100,000 bytes"),
    ],
)
def test_clear_errors_without_paths(place, content, kind, code, says):
    web, service = client(place)
    answer = post(web, content, kind)
    assert answer.status_code == code and says in answer.json()["error"]
    assert "/tmp" not in answer.text and "fmseg_" not in answer.text
    assert service.waiting == 0 and service.requests[code] == 1


def test_a_body_without_a_length_is_cut_off_at_the_limit(place):
    web, service = client(place)
    assert post(web, (bytes(10_000) for _ in range(1000))).status_code == 413
    assert service.waiting == 0


@pytest.mark.parametrize("ending", ["../../x.png", ".svg", "png", ".png/../x", "\x00.png"])
def test_endings_are_chosen_from_a_list(place, ending):
    web, _ = client(place)
    assert web.post("/predict", params={"ending": ending}, content=picture()).status_code == 415


def test_more_than_may_wait_are_told_to_come_again(place):
    web, service = client(place, max_waiting=1)
    go_on, entered = threading.Event(), threading.Event()
    ask = service.networks.predict_case

    def slow(case):
        entered.set()
        assert go_on.wait(20)
        return ask(case)

    service.networks.predict_case = slow
    answers = []
    first = threading.Thread(target=lambda: answers.append(post(web, picture())))
    first.start()
    assert entered.wait(20)
    busy = post(web, picture())
    assert busy.status_code == 503 and busy.headers["retry-after"] == "5"
    assert web.get("/health").json()["waiting"] == 1
    go_on.set()
    first.join()
    assert answers[0].status_code == 200


def test_a_fault_is_told_without_its_details_and_the_next_request_is_answered(place, monkeypatch):
    web, service = client(place)
    ask = service.networks.predict_case
    service.networks.predict_case = lambda case: 1 / 0
    answer = post(web, picture())
    assert answer.status_code == 500 and answer.json()["error"].startswith("The model failed (ZeroDivisionError)")
    service.networks.predict_case = ask
    assert post(web, picture()).status_code == 200 and service.waiting == 0
    assert service.requests == {500: 1, 200: 1}


def test_other_names_of_this_machine_and_other_tokens_are_refused(place):
    web, _ = client(place)
    assert web.get("/health", headers={"host": "evil.example"}).status_code == 400
    web, _ = client(place, token="secret")
    assert web.get("/health").status_code == 200
    for path in ("/model", "/metrics"):
        assert web.get(path).status_code == 401
        assert web.get(path, headers={"authorization": "Bearer secret"}).status_code == 200
    assert post(web, picture()).status_code == 401
    assert post(web, picture(), authorization="Bearer wrong").status_code == 401
    assert post(web, picture(), authorization="Bearer secret").status_code == 200


def test_addresses_of_this_machine_are_known():
    assert is_loopback("127.0.0.1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("192.168.1.2")
    with pytest.raises(UsageError, match="type an IPv4 address"):
        is_loopback("example.org")


@pytest.mark.slow
def test_the_command_serves_a_bundle_until_it_is_stopped(place, tmp_path):
    path = export_models(place, None, tmp_path / "m.fmseg").path
    command = [sys.executable, "-m", "fmseg", "--root", str(tmp_path), "serve", "-m", str(path), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    )
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        request = urllib.request.Request(f"{address}/predict", picture(), {"Content-Type": "image/png"})
        assert urllib.request.urlopen(request, timeout=60).headers["X-Confidence"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait(30)
