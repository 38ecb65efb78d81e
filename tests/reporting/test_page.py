import re

import pytest

from fmseg.reporting.page import TEMPLATES, Cases, Facts, Figure, Figures, Matrix, Page, Section, Table, Words, render

TOKENS = (TEMPLATES / "tokens.css").read_text()
EVIL = "<script>alert('1')</script>"


def luminance(colour):
    """Return WCAG's relative luminance of ``#rrggbb``."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def themes():
    """Return light, dark and print: name -> colour of what is opaque."""
    blocks = re.findall(r":root \{(.*?)\}", TOKENS, re.DOTALL)
    return [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in blocks]


@pytest.mark.parametrize("theme", themes(), ids=["light", "dark", "print"])
def test_all_text_has_the_contrast_that_wcag_asks_for(theme):
    for paper in ("paper", "raised"):
        assert contrast(theme["ink"], theme[paper]) >= 7
        assert contrast(theme["soft"], theme[paper]) >= 4.5
        assert contrast(theme["accent"], theme[paper]) >= 4.5
    assert contrast(theme["on-accent"], theme["accent"]) >= 4.5
    assert contrast(theme["ink"], theme["warn-soft"]) >= 7
    # a cell of a confusion matrix is at most 45 % accent
    mixed = "#" + "".join(
        f"{round(0.45 * int(theme['accent'][i : i + 2], 16) + 0.55 * int(theme['raised'][i : i + 2], 16)):02x}"
        for i in (1, 3, 5)
    )
    assert contrast(theme["ink"], mixed) >= 4.5


def test_what_people_write_is_text_wherever_it_stands():
    blocks = (
        Words((EVIL,)),
        Facts(((EVIL, EVIL),)),
        Figures((Figure(EVIL, EVIL, picture="data:,", alt=EVIL),)),
        Table(EVIL, (EVIL,), ((EVIL,),), EVIL),
        Matrix(EVIL, (EVIL, "b"), ((1, 2), (3, 4)), EVIL),
        Cases(EVIL, (), ((EVIL, "rgb(0, 0, 0)"),)),
    )
    page = Page(EVIL, EVIL, ((EVIL, EVIL, EVIL),), [Section(EVIL, EVIL, blocks)], "2026-01-31", (EVIL,))
    text = render(page).decode()
    assert EVIL not in text and text.count("&lt;script&gt;") > 15
    assert len(re.findall(r"<script>", text)) == 1  # our own


def test_columns_are_sorted_as_numbers_only_where_all_are_numbers():
    table = Table("t", ("a", "b", "c", "d"), (("x", 1, 0.5, None), ("y", None, "-", None)))
    assert table.numeric == (False, True, False, False)


def test_a_thousand_cases_stay_small():
    rows = tuple((f"case_{index:05d}", index % 5, index / 1000, index / 7) for index in range(2000))
    page = Page(
        "t", "s", (), [Section("Scores", "", (Table("cases", ("case", "fold", "Dice", "HD95"), rows),))], "2026-01-31"
    )
    assert len(render(page)) < 1_000_000
