import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFont

from fmseg.reporting import charts
from fmseg.reporting.charts import Line, Span

LINE = Line("mean", np.arange(1000.0), np.linspace(3, 1, 1000))
CHARTS = {
    "histogram": lambda alt: charts.histogram([0.0, 0.5, 0.5, 1.0], alt=alt, unit="Dice"),
    "one value": lambda alt: charts.histogram([0.0], alt=alt, unit="Dice"),
    "bars": lambda alt: charts.bars(["a", "b" * 90], [0, 3], alt=alt),
    "spans": lambda alt: charts.spans([Span("a", 0.5, 0.4, 0.6), Span("b", 1.0, 1.0, 1.0, True)], alt=alt, unit="Dice"),
    "spreads": lambda alt: charts.spreads(["a"], [np.linspace(0, 1, 2000)], alt=alt, unit="Dice"),
    "lines": lambda alt: charts.lines([LINE, Line("", LINE.x, LINE.y, "quiet")], alt=alt),
    "one point": lambda alt: charts.lines([Line("mean", np.array([5.0]), np.array([0.3]))], alt=alt),
    "reliability": lambda alt: charts.reliability([0.2, 0.9], [0.1, 1.0], [3, 30], alt=alt),
}


@pytest.mark.parametrize("name", CHARTS)
def test_charts_are_well_formed_say_what_they_show_and_stay_on_the_paper(name):
    drawn = CHARTS[name]('"5 < 6" & more')
    root = ElementTree.fromstring(drawn)
    width, height = map(float, root.get("viewBox").split()[2:])
    assert root.get("role") == "img" and root.get("aria-label") == '"5 < 6" & more'
    for element in root.iter():
        for key, most in (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height), ("cy", height)):
            assert -0.1 <= float(element.get(key, 0)) <= most + 0.1, ElementTree.tostring(element)
        for pair in element.get("points", "").split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= width and 0 <= y <= height
    assert len(drawn) < 60_000


def test_what_people_write_is_text():
    drawn = charts.bars(["<script>alert(1)</script>"], [1.0], alt="<b>")
    assert "<script" not in drawn and "<b>" not in drawn


def test_bars_are_as_long_as_their_values():
    lengths = [
        float(each) for each in re.findall(r'<rect[^>]* width="([\d.]+)"', charts.bars(["a", "b"], [2, 8], alt=""))
    ]
    assert lengths[1] == pytest.approx(4 * lengths[0], rel=0.01)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(1, 8))
def test_ticks_are_round_evenly_spaced_and_inside(low, length, count):
    found = charts.ticks(low, low + length, count)
    assert len(found) <= count + 2
    assert all(low - 1e-6 * length <= each <= low + length * (1 + 1e-6) for each in found)
    assert np.allclose(np.diff(found, 2), 0, atol=1e-6 * max(abs(low), length))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=60))
def test_names_have_room_in_the_widest_font_of_a_page(name):
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 120)
    assert font.getlength(name) / 10 <= charts.text_width(name)
    text = ElementTree.fromstring(charts.bars([name, "b"], [1, 2], alt="")).find("text")
    assert float(text.get("x")) - font.getlength(text.text) / 10 >= 0
    short, _, _ = text.text.partition("…")
    assert name.startswith(short) and name.endswith(text.text.rpartition("…")[2])
    assert text.text == name or charts.text_width(name) > 170


@pytest.mark.parametrize("name", ["head", "abdomen", "mammary gland", "WWWWW", "left ventricle"])
def test_names_of_some_length_are_shown_whole(name):
    assert f">{name}<" in charts.bars([name], [1.0], alt="")
