import pytest

from fmseg.records.run import Provenance
from fmseg.reporting.run_words import WATTS, Spent, energy_words, provenance_rows, spent_rows


def test_energy_grows_with_time_and_devices_and_says_what_it_assumes():
    hour = 3600.0
    assert energy_words([Spent(hour, "cpu", 1)]) == f"about 0.1 kWh, if the machine drew {WATTS['cpu']:.0f} W"
    assert energy_words([Spent(hour, "cuda", 8)]) == "about 4 kWh, if the machine drew 4,000 W"
    assert energy_words([Spent(hour, "cuda", 1)] * 5).startswith("about 2.5 kWh")
    assert energy_words([Spent(hour, "cpu", 1), Spent(hour, "cuda", 1)]).endswith("drew 100 W or 500 W")


@pytest.mark.parametrize(
    "spent", [[], [Spent(9.0, "", 0)], [Spent(0.0, "cpu", 1)], [Spent(9, "cpu", 1), Spent(9, "", 0)]]
)
def test_nothing_is_estimated_from_what_nobody_has_noted(spent):
    assert energy_words(spent) == ""
    assert [what for what, _ in spent_rows("training", spent)] == ["training"]


def test_what_made_a_result_is_told_without_places():
    made = Provenance(
        fmseg="0.1.0",
        commit="ab" * 20,
        packages={"torch": "2.10.0", "timm": ""},
        command="fmseg pretrain --images /home/me/archive",
        deterministic=True,
        device="cuda",
        num_devices=8,
    )
    assert provenance_rows(made) == [
        ("fmseg", "0.1.0, commit abababababab"),
        ("command", "fmseg pretrain --images …/archive"),
        ("algorithms", "deterministic"),
        ("computed on", "8 x cuda"),
        ("packages", "torch 2.10.0"),
    ]
