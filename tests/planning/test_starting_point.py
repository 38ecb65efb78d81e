from pathlib import Path

import pytest

from fmseg.errors import UnknownName
from fmseg.planning.starting_point import choose_start
from fmseg.records.foundation import Foundation, Origin, ProbeScore
from fmseg.records.run import Parent, Provenance
from fmseg.stages.fingerprint import fingerprint


@pytest.fixture
def plans(raw_dataset, tiny_plans):
    workspace = raw_dataset("Dataset501_Discs")
    return tiny_plans(fingerprint(workspace, "Dataset501_Discs", num_processes=0))


def card(name, plans, *, samples=1000, modality="ultrasound", channels=1):
    architecture = plans.pretraining.architecture.evolve(channels=channels)
    return Path(name), Foundation(
        name=name,
        modality=modality,
        architecture=architecture,
        mean=(0.2,),
        std=(0.2,),
        recipe=None,
        datasets=(),
        num_images=10,
        iterations=10,
        samples_seen=samples,
        metrics={},
        weights_sha256=name * 2,
        seen_count=10,
        licence="",
        provenance=Provenance(fmseg="", commit="", packages={}, command=""),
    )


def test_auto_takes_the_modality_that_has_seen_most(plans):
    found = [
        card("short", plans, samples=10),
        card("long", plans, samples=1000),
        card("ct", plans, samples=10**6, modality="ct"),
        card("colour", plans, samples=10**6, channels=3),
    ]
    plans = plans.evolve(modality="ultrasound")
    chosen, init = choose_start(found, plans, "auto")
    assert chosen[1].name == init.name == "long"
    assert "pretrained longest of the 2" in init.because


def test_auto_says_clearly_that_there_is_none(plans):
    chosen, init = choose_start([card("ct", plans, modality="ct")], plans.evolve(modality="ultrasound"), "auto")
    assert chosen is None
    assert init.name == "scratch"
    assert "no foundation checkpoint for ultrasound" in init.because


def probed(pair, score):
    probe = ProbeScore(dataset="Dataset501_Discs", measure="linear map of patches, Dice", score=score, random=0.5)
    return pair[0], pair[1].evolve(probes=(probe,))


def test_auto_leaves_out_what_its_probe_found_no_better_than_random_weights(plans):
    plans = plans.evolve(modality="ultrasound")
    weak, strong = probed(card("weak", plans, samples=10**6), 0.49), probed(card("strong", plans, samples=10), 0.6)
    assert choose_start([weak, strong], plans, "auto")[0] == strong
    chosen, init = choose_start([weak], plans, "auto")
    assert chosen is None
    assert "weak has learned too little" in init.because
    assert "0.490, random weights 0.500" in init.because
    assert choose_start([weak], plans, "weak")[0] == weak


def test_scratch_and_names_are_taken_as_asked(plans):
    found = [card("long", plans)]
    assert choose_start(found, plans, "scratch")[0] is None
    assert choose_start(found, plans, "long")[0] == found[0]
    with pytest.raises(UnknownName, match=r"Did you mean 'long'.*fmseg pretrain"):
        choose_start(found, plans, "lang")


def theirs(name, plans):
    origin = Origin(
        source="dinov2",
        title="DINOv2",
        where="",
        licence="Apache-2.0",
        commercial=True,
        file="x.pth",
        sha256="",
        input_px=518,
    )
    path, made = card(name, plans, samples=0, modality="natural", channels=3)
    return path, made.evolve(origin=origin)


def test_auto_leaves_other_peoples_weights_alone_and_says_how_to_take_them(plans):
    plans = plans.evolve(modality="ultrasound")
    weak = probed(card("weak", plans), 0.49)
    for found in ([theirs("dinov2_small", plans)], [weak, theirs("dinov2_small", plans)]):
        chosen, init = choose_start(found, plans, "auto")
        assert chosen is None
        assert "--init dinov2_small" in init.because
    chosen, init = choose_start([theirs("dinov2_small", plans)], plans, "dinov2_small")
    assert chosen[1].name == "dinov2_small"
    # nobody knows how many samples they were made from, so no number is told
    assert "DINOv2" in init.because
    assert "samples" not in init.because


def test_what_goes_on_from_other_peoples_weights_counts_as_pretrained_longest(plans):
    plans = plans.evolve(modality="ultrasound")
    parent = Parent(
        name="dinov2_small", modality="natural", sha256="", samples_seen=0, keeps_heads=False, source="dinov2"
    )
    folder, made = card("ours", plans, samples=10)
    ours = (folder, made.evolve(parent=parent, recipe=plans.pretraining))
    folder, made = card("long", plans, samples=10**6)
    long = (folder, made.evolve(recipe=plans.pretraining))
    chosen, init = choose_start([long, ours], plans, "auto")
    assert chosen == ours
    assert "10 samples seen from dinov2_small on" in init.because
