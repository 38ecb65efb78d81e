"""card.md of trained models: what they are, how good, what from, and what one may do with them."""

from collections.abc import Sequence

from fmseg.records.bundle import ENDING, Bundle
from fmseg.records.labels import ClassScheme
from fmseg.records.run import RunConfig
from fmseg.records.selection import Selection
from fmseg.reporting.model_card import METHOD, PAPER


def bundle_card(
    bundle: Bundle, configs: Sequence[RunConfig], selection: Selection | None, weights: Sequence[str]
) -> str:
    """Return the Markdown. configs: of all networks; weights: SHA-256 of each."""
    parts = [_what(bundle, configs), _worth(selection), _origin(bundle, configs), _use(bundle), _rights(bundle)]
    hashes = "\n".join(f"- `{digest}`" for digest in weights)
    return "\n\n".join([*parts, f"## Weights\n\nSHA-256 of each network:\n\n{hashes}"]) + "\n"


def _what(bundle: Bundle, configs: Sequence[RunConfig]) -> str:
    plans = configs[0].plans
    assert plans.labels is not None, "a trained network has outputs"
    names = ", ".join(plans.labels.names)
    height, width = plans.preprocessing.image_size
    answers = f"draws label maps of {names}"
    if isinstance(plans.labels, ClassScheme):
        number = "one of the classes" if plans.labels.is_exclusive else "any number of the classes"
        answers = f"tells of which class a whole image is, {number} {names}"
    number = "One network" if len(configs) == 1 else f"The mean of {len(configs)} networks"
    recipes = ", ".join(sorted({config.recipe.name for config in configs}))
    networks = ", ".join(sorted({_network(config) for config in configs}))
    return (
        f"# {bundle.name}: {bundle.task} of {bundle.modality}\n\n"
        f"{number} ({recipes}; {networks}) that {answers}. Images are scaled to {height} x {width} pixels, "
        f"{plans.preprocessing.channels} channel(s); `plans.json` has every number with its reason."
    )


def _network(config: RunConfig) -> str:
    if config.recipe.network != "vit":
        return config.recipe.network
    return f"{config.architecture.name} with patches of {config.architecture.patch_size} pixels"


def _worth(selection: Selection | None) -> str:
    if selection is None:
        return "## How good it is\n\nNobody has scored it out of fold: `fmseg find_best` was not run before the export."
    score = selection.score
    rows = "\n".join(
        f"| {each.name} | {each.score.mean:.3f} | {each.score.low:.3f} to {each.score.high:.3f} |"
        for each in selection.candidates
    )
    text = (
        f"## How good it is\n\n{selection.measure} {score.mean:.3f} ({score.low:.3f} to {score.high:.3f}, over "
        "patients), each case predicted by networks that were not trained on it; on data from elsewhere expect less. "
        f"{selection.because}.\n\n| candidate | {selection.measure} | interval |\n|---|--:|---|\n{rows}"
    )
    return f"{text}\n\n{selection.seen.sentence}" if selection.seen else text


def _origin(bundle: Bundle, configs: Sequence[RunConfig]) -> str:
    cases = {case for config in configs for case in (*config.cases.train, *config.cases.val)}
    starts = ", ".join(f"`{origin.name}` (weights `{origin.sha256[:12]}`)" for origin in bundle.origins)
    return (
        f"## What it was trained on\n\n{len(cases)} labelled cases, starting from {starts or 'random weights'}. "
        "`seen_in_training.npy` and `seen_in_pretraining.npy` hold a hash of each image, so that fmseg can say which "
        "images of a test set are among them; nothing of an image can be read from it, but who has an image can tell "
        "whether it is among them."
    )


def _use(bundle: Bundle) -> str:
    file = f"{bundle.name}{ENDING}"
    return (
        f"## How to use it\n\n    fmseg predict -m {file} -i images -o predictions\n    fmseg import {file}\n\n"
        "The first needs no more than this file. In Python:\n\n"
        f'```python\nfrom fmseg import Predictor\n\nanswer = Predictor.from_bundle("{file}").predict("image.png")\n```'
    )


def _rights(bundle: Bundle) -> str:
    origins = "\n".join(f"- `{origin.name}`: {origin.licence}" for origin in bundle.origins)
    parents = f" Of the checkpoints that it started from:\n\n{origins}" if origins else ""
    return (
        f"## Licence and citation\n\nLicence: {bundle.licence}.{parents}\n\n"
        "It is made for research, and is no medical device: a person must judge what it says. Cite the recipe and the "
        f"method:\n\n- {PAPER}\n- {METHOD}"
    )
