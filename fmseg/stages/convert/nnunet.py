"""Datasets of nnU-Net v2, which are ours as they are, and of nnU-Net v1 and the Medical Segmentation Decathlon.

The older dataset.json has ``modality`` instead of ``channel_names``, ``labels`` from value to name, and lists of the
training and test images. nnU-Net v1 numbers channels in file names, the Decathlon keeps them in one file.
"""

from pathlib import Path
from typing import Any

from fmseg.console import track
from fmseg.errors import BadData, FmsegError
from fmseg.files import read_json, write_json
from fmseg.records.cases import group_channels, is_junk
from fmseg.records.dataset import Dataset
from fmseg.stages.convert.layout import JUNK, Layout, Skipped, all_files, ending_of, files_in, layouts, place_file
from fmseg.stages.convert.layout import rest_of as _rest


def bring(source: Path, target: Path) -> Skipped:
    """Fill ``target`` with all that a dataset of nnU-Net v2 holds."""
    Dataset.load(source).training_cases()  # refuses another layout before anything is linked
    files = [path for path in all_files(source) if not is_junk(path.name)]
    for path in track(files, "linking", len(files)):
        place_file(path, target / path.relative_to(source))
    return _rest(source, files, JUNK)


def bring_old(source: Path, target: Path) -> Skipped:
    """Fill ``target`` from an older dataset, whose dataset.json is written anew."""
    old = _old_declaration(source)
    names = {str(name): int(value) for value, name in old["labels"].items() if int(value) != 0}
    used, skipped = {source / "dataset.json"}, {}
    listed = [item["image"] for item in old["training"]]
    endings = {ending_of(Path(image)) for image in listed}
    if len(endings) != 1:
        raise BadData(f"{source / 'dataset.json'}: the training images end in {sorted(endings)}; one ending is needed.")
    ending = endings.pop()
    by_folder = {name: group_channels(files_in(source / name), ending) for name in ("imagesTr", "imagesTs")}
    (target / "imagesTr").mkdir()
    for item in track(old["training"], "linking", len(old["training"])):
        case = Path(item["image"]).name.removesuffix(ending)
        files, label = by_folder["imagesTr"].get(case), source / item["label"]
        if files is None or not label.is_file():
            missing = item["image"] if files is None else item["label"]
            skipped[missing.removeprefix("./")] = "dataset.json names it, but it is not there"
            continue
        _place_case(case, files, target / "imagesTr", used)
        place_file(label, target / "labelsTr" / f"{case}{ending}")
        used.add(label)
    for case, files in by_folder["imagesTs"].items():
        _place_case(case, files, target / "imagesTs", used)
    declaration = {
        "channel_names": old["modality"],
        "labels": {"background": 0} | dict(sorted(names.items(), key=lambda item: item[1])),
        "numTraining": len(old["training"]) - len(skipped),
        "file_ending": ending,
        "task": "segmentation",
    }
    kept = {key: old[key] for key in ("name", "description", "reference", "licence", "release") if key in old}
    write_json(target / "dataset.json", declaration | kept)
    return _rest(source, used, "dataset.json does not name it") | skipped


def _place_case(case: str, files: tuple[Path, ...], folder: Path, used: set[Path]) -> None:
    for channel, path in enumerate(files):
        # one file may hold all channels, then it is the first one
        place_file(path, folder / f"{case}_{channel:04d}{ending_of(path)}")
        used.add(path)


def _old_declaration(source: Path) -> dict[str, Any]:
    """Return the dataset.json of an older dataset. Raises BadData if it is none."""
    path = source / "dataset.json"
    old = read_json(path) if path.exists() else {}
    is_old = isinstance(old, dict) and isinstance(old.get("training"), list) and isinstance(old.get("modality"), dict)
    if not is_old or not isinstance(old.get("labels"), dict) or not old["training"]:
        raise BadData(f"{path}: this is no dataset.json of nnU-Net v1 or the Decathlon (modality, labels, training).")
    if not all(isinstance(item, dict) and {"image", "label"} <= set(item) for item in old["training"]):
        raise BadData(f"{path}: each item of 'training' must name an 'image' and a 'label'.")
    if not all(str(value).isdecimal() for value in old["labels"]):
        raise BadData(f'{path}: \'labels\' must lead from values to names, as {{"1": "liver"}}.')
    for item in old["training"]:
        inside = [(source / item[key]).resolve().is_relative_to(source.resolve()) for key in ("image", "label")]
        if not all(inside):
            raise BadData(f"{path}: {item['image']} leads out of the folder. Copy the files into it.")
    return old


def _fits(source: Path) -> bool:
    try:
        return Dataset.load(source).task == "segmentation" and (source / "imagesTr").is_dir()
    except FmsegError:
        return False


def _fits_old(source: Path) -> bool:
    try:
        return bool(_old_declaration(source))
    except FmsegError:
        return False


layouts.add("nnunet", Layout(None, bring, _fits))
layouts.add("nnunet_v1", Layout(None, bring_old, lambda source: _fits_old(source) and not _is_decathlon(source)))
layouts.add("msd", Layout(None, bring_old, lambda source: _fits_old(source) and _is_decathlon(source)))


def _is_decathlon(source: Path) -> bool:
    """Return whether the images are called as they are listed, without a channel's number."""
    return (source / _old_declaration(source)["training"][0]["image"]).is_file()
