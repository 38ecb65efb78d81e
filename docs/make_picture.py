"""Take the picture of README.md from a finished demo: ``python docs/make_picture.py fmseg_demo``.

Report and viewer of the demo's phantoms, side by side, as a browser shows them. It needs Playwright and Chromium.
"""

import io
import shutil
import sys
import threading
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from fmseg.planning.planner import DEFAULT_NAME
from fmseg.stages.report import report
from fmseg.stages.view import dataset_source
from fmseg.stages.view.app import make_app
from fmseg.workspace import Workspace

TARGET = Path(__file__).parent / "pictures" / "report-and-view.png"
DATASET, TOKEN = "Dataset901_Phantoms", "picture"
SIZE = {"width": 1150, "height": 860}
#: of the finished picture, and its colours: small enough for a repository
WIDTH_PX, GAP_PX, NUM_COLOURS = 1500, 24, 96


def main(folder: Path) -> None:
    """Write the picture. folder: of the demo."""
    workspace = Workspace.find(folder)
    page_file = report(workspace, DATASET, plans_name=DEFAULT_NAME)
    server = uvicorn.Server(
        uvicorn.Config(make_app(dataset_source(workspace, DATASET), TOKEN), port=0, log_level="error")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        left = browser.new_page(viewport=SIZE, color_scheme="light")
        left.goto(page_file.as_uri())
        right = browser.new_page(viewport=SIZE, color_scheme="dark")
        right.goto(f"http://127.0.0.1:{port}/?token={TOKEN}")
        right.select_option("#order", "")
        right.locator(".row").first.click()
        right.wait_for_load_state("networkidle")
        shots = [_shot(left), _shot(right)]
        browser.close()
    server.should_exit = True
    thread.join()
    width = sum(shot.width for shot in shots) + GAP_PX
    sheet = Image.new("RGBA", (width, shots[0].height))
    sheet.paste(shots[0], (0, 0))
    sheet.paste(shots[1], (shots[0].width + GAP_PX, 0))
    small = sheet.resize((WIDTH_PX, round(sheet.height * WIDTH_PX / width)), Image.Resampling.LANCZOS)
    TARGET.parent.mkdir(exist_ok=True)
    small.quantize(NUM_COLOURS, Image.Quantize.FASTOCTREE).save(TARGET, optimize=True)


def _shot(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot())).convert("RGBA")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
