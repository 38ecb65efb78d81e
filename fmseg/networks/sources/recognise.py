"""Whose weights a file holds, and which part of it is the backbone. What cannot be told is asked, never guessed."""

from fmseg.errors import BadData, UsageError
from fmseg.networks.foreign_files import ForeignFile
from fmseg.networks.sources import sources
from fmseg.networks.sources.source import Candidate


def recognise(file: ForeignFile, source: str = "auto") -> tuple[str, Candidate]:
    """Return the source of a file, and the part of it that is the backbone.

    Raises UsageError if it is of none, or may be of several: they would differ in normalisation or licence.
    """
    if source != "auto":
        found = _candidates(file, sources[source].stem)
        if not found:
            raise BadData(f"{file.path}: the tensor '{sources[source].stem}' is missing, so this is no {source} file.")
        return source, _best(file, found)
    fitting = {}
    for name in sources:
        found = [each for each in _candidates(file, sources[name].stem) if sources[name].fits(each)]
        if found and sources[name].file_name in file.path.name.lower():
            fitting[name] = found
    # what lies beside a file, and its name, tell more than its tensors
    named = {name for name in fitting if sources[name].file_name or name == "timm"}
    if len(named or fitting) != 1:
        raise UsageError(f"{file.path}: {_unclear(file, sorted(fitting))}")
    (name,) = named or fitting
    return name, _best(file, fitting[name])


def _candidates(file: ForeignFile, stem: str) -> list[Candidate]:
    """Return the backbones below each prefix that has such a stem."""
    roots = [name.removesuffix(stem) for name in file.tensors if name == stem or name.endswith(f".{stem}")]
    return [Candidate(file, root) for root in roots]


def _best(file: ForeignFile, found: list[Candidate]) -> Candidate:
    """Return the teacher, which is the average of the student, where there are both.

    Raises UsageError if two backbones are equally good.
    """
    for is_better in (lambda root: "teacher" in root, lambda root: "student" not in root, lambda root: True):
        chosen = [each for each in found if is_better(each.root)]
        if len(chosen) == 1:
            return chosen[0]
        if chosen:
            break
    roots = ", ".join(each.root + "*" for each in chosen)
    raise UsageError(f"{file.path}: there are several backbones in it ({roots}). Save the one you want by itself.")


def _unclear(file: ForeignFile, fitting: list[str]) -> str:
    if fitting:
        return f"this may be of {' or '.join(fitting)}, which differ. Say which, as in --format {fitting[0]}"
    examples = ", ".join(list(file.tensors)[:3])
    known = ", ".join(sources.names())
    return (
        f"whose weights these are cannot be told by its tensors ({examples}, ...) or its name. "
        f"If you know, type --format with one of {known}, or timm:MODEL."
    )
