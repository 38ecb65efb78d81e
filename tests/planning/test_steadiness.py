import pytest

from fmseg.planning.steadiness import steady
from fmseg.records.plans import Preprocessing, Reason

CT = Preprocessing(
    size_mode="spacing",
    image_size=(256, 320),
    spacing_mm=(0.7, 0.7),
    channels=1,
    intensity="fixed_window",
    window=((-160.0, 240.0),),
    mean=(0.4,),
    std=(0.2,),
    store_dtype="float16",
)
WHY = tuple(Reason(key=f"preprocessing.{name}", because="a rule") for name in ("spacing_mm", "window", "mean"))


def test_small_moves_keep_what_is_prepared_and_say_so():
    moved = CT.evolve(spacing_mm=(0.71, 0.69), window=((-150.0, 250.0),), mean=(0.45,))
    kept, why = steady(moved, WHY, CT)
    assert kept == CT.evolve(mean=(0.45,))  # mean and spread are applied later, and may follow
    assert ["prepared already" in each.because for each in why] == [True, True, False]


@pytest.mark.parametrize(
    "change",
    [{"spacing_mm": (0.8, 0.7)}, {"image_size": (256, 368)}, {"window": ((-160.0, 290.0),)}, {"channels": 3}],
    ids=str,
)
def test_large_moves_are_followed(change):
    assert steady(CT.evolve(**change), WHY, CT) == (CT.evolve(**change), WHY)


def test_nothing_prepared_holds_nothing_back():
    assert steady(CT, WHY, None) == (CT, WHY)
    assert steady(CT, WHY, CT) == (CT, WHY)
