from fmseg.planning.overview import TWO_CORES
from fmseg.planning.pretraining import CorpusFacts, plan_pretraining
from fmseg.records.foundation import BestTeacher, Foundation, ProbeScore, Trouble
from fmseg.records.run import Parent, Provenance
from fmseg.reporting.model_card import model_card

RECIPE, _ = plan_pretraining(
    CorpusFacts(920, 1, (0.16,), (0.18,), "ultrasound", (540, 800)), TWO_CORES, budget_s=1200.0
)
CARD = Foundation(
    name="archive",
    modality="ultrasound",
    architecture=RECIPE.architecture,
    mean=RECIPE.mean,
    std=RECIPE.std,
    recipe=RECIPE,
    datasets=("Dataset901_Archive",),
    num_images=920,
    iterations=RECIPE.iterations,
    samples_seen=40_000,
    metrics={},
    weights_sha256="ab" * 32,
    seen_count=918,
    licence="CC BY 4.0",
    provenance=Provenance(fmseg="0.1.0", commit="", packages={}, command=""),
)


def test_the_card_says_what_it_is_what_it_is_worth_and_what_is_wrong():
    probe = ProbeScore(dataset="Dataset501_Heads", measure="Dice", score=0.61, random=0.57)
    trouble = Trouble(name="waits", text="training waits for images 40% of the time", step=30, is_over=True)
    best = BestTeacher(step=300, measure="probes", score=0.61, last_score=0.58, is_used=True)
    parent = Parent(name="first", modality="ultrasound", sha256="cd" * 32, samples_seen=60_000, keeps_heads=True)
    text = model_card(
        CARD.evolve(probes=[probe], troubles=[trouble], best=best, parent=parent, seconds=7200.0),
        ["progress", "features"],
    )
    for words in (
        "# archive: a foundation checkpoint for ultrasound",
        "920 images, chosen from 918 of different pixels",
        "| Dataset501_Heads | Dice | 0.610 | 0.570 | +0.040 |",
        "teacher of step 300",
        "- Step 30, gone at the end: training waits for images 40% of the time.",
        "100,000 in all",
        "in 2 h 0 min of training",
        "(features.png)",
        "CC BY 4.0",
        "ab" * 32,
        "--init archive",
        "2506.19552",
    ):
        assert words in text, words
    assert "attention.png" not in text


def test_the_card_has_a_run_record_with_time_and_energy():
    made = Provenance(fmseg="0.1.0", commit="ef" * 20, packages={"torch": "2.10.0"}, command="fmseg pretrain",
                      deterministic=True, device="cpu", num_devices=1)  # fmt: skip
    text = model_card(CARD.evolve(provenance=made, seconds=7200.0), [])
    record = text.partition("## Run record")[2].partition("## How to use it")[0]
    for row in (
        "| fmseg | 0.1.0, commit efefefefefef |",
        "| packages | torch 2.10.0 |",
        "| algorithms | deterministic |",
        "| training | 2 h 0 min |",
        "| energy, estimated | about 0.2 kWh, if the machine drew 100 W |",
        f"`{'ab' * 32}` |",
    ):
        assert row in record, row


def test_what_is_not_known_is_not_said():
    text = model_card(CARD, [])
    assert "energy" not in text
    assert "nobody has looked" in text
    assert "None was found" in text
    assert "goes on from" not in text
    assert "## Pictures" not in text
    assert "## Recipe" not in model_card(CARD.evolve(recipe=None), [])


def test_the_card_says_what_was_asked_beyond_dinov2():
    with_contrast = CARD.evolve(recipe=RECIPE.evolve(contrast_weight=0.5, patch_contrast_weight=0.0))
    assert "telling images apart (weight 0.5)" in model_card(with_contrast, [])
    assert "patches apart" not in model_card(with_contrast, [])
    plain = CARD.evolve(recipe=RECIPE.evolve(contrast_weight=0.0, patch_contrast_weight=0.0))
    assert "DINO, iBOT and KoLeo losses |" in model_card(plain, [])
