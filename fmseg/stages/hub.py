"""Hand a .fmseg file to the Hugging Face hub, and fetch one: the only part of fmseg that asks a network for anything.

A file that was fetched is opened like any other from elsewhere, by ``import``, and can do no more.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fmseg.archive import read_first
from fmseg.errors import BadData, EnvironmentProblem, UsageError
from fmseg.inference.bundles import read_manifest
from fmseg.records.bundle import ALLOWED, ENDING, MODEL_CARD

T = TypeVar("T")


def upload(path: Path, repository: str, *, is_public: bool = False) -> str:
    """Put a .fmseg file and its card into a repository, ``owner/name``, made if need be; return its address.

    Raises EnvironmentProblem if the hub cannot be reached or refuses, UsageError for a name that is none.
    """
    bundle = read_manifest(path)
    head = f"---\nlibrary_name: fmseg\nlicense: other\nlicense_name: {bundle.licence!r}\ntags: [{bundle.task}]\n---\n\n"
    card = head.encode() + read_first(path, MODEL_CARD, ALLOWED)

    def work(hub: Any) -> str:
        place = hub.create_repo(repository, private=not is_public, exist_ok=True)
        for content, name in ((str(path), f"{bundle.name}{ENDING}"), (card, "README.md")):
            hub.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repository)
        return str(place)

    return _asked(repository, work)


def download(repository: str, folder: Path, revision: str | None = None) -> Path:
    """Fetch the .fmseg file of a repository into a folder; return its path.

    revision: branch, tag or commit. Raises BadData unless there is exactly one, EnvironmentProblem and UsageError as
    ``upload`` does.
    """

    def work(hub: Any) -> Path:
        listed = hub.list_repo_files(repository, revision=revision)
        names = [name for name in listed if name.endswith(ENDING) and name == Path(name).name]  # no folders
        if len(names) != 1:
            found = f"these {ENDING} files: {', '.join(sorted(names))}" if names else f"no {ENDING} file"
            raise BadData(f"{repository} holds {found}. Take the file you want by hand, and import it.")
        return Path(hub.hf_hub_download(repository, names[0], revision=revision, local_dir=folder))

    return _asked(repository, work)


def _asked(repository: str, work: Callable[[Any], T]) -> T:
    """Run ``work`` with a client of the hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    try:
        return work(HfApi())
    except BadData:
        raise
    except HFValidationError as error:
        raise UsageError(f"{repository!r} names no repository. Type it as owner/name.") from error
    except Exception as error:  # the kinds of its errors change with the library that it speaks HTTP with
        problem = " ".join(str(error).split()) or type(error).__name__
        raise EnvironmentProblem(
            f"{repository}: the hub gave no answer, or refused ({problem[:300]}). Is there a network, and have you "
            "typed 'hf auth login'? Without one, copy the file that 'fmseg export' writes."
        ) from error
