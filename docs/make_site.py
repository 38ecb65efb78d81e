"""A hook of mkdocs: brings documents from outside docs/ into the site, and keeps links between all of them whole.

In the repository README.md and others lie where people look for them, and link to docs/ and back. In the site the
README is the first page, and a link to what is no page (a licence, a folder, an example) becomes plain text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: path in the repository -> path in the site, of documents outside docs/
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "LOG.md": "LOG.md",
    "fmseg_raw/README.md": "fmseg_raw/README.md",
    "fmseg_preprocessed/README.md": "fmseg_preprocessed/README.md",
    "fmseg_results/README.md": "fmseg_results/README.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Add pages that nobody has put into the navigation to the end of their section, so that none is lost."""
    for section in config.nav:
        (title, entries), *_ = section.items()
        folder = {"How to": "how-to", "Reference": "reference", "Explanation": "explanation"}.get(title)
        if folder is not None:
            listed = {place for entry in entries for place in entry.values()}
            found = [f"{folder}/{path.name}" for path in sorted((ROOT / "docs" / folder).glob("*.md"))]
            entries += [place for place in found if place not in listed]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the documents from outside."""
    from mkdocs.structure.files import File

    for source, target in OUTSIDE.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return a page's text with its links made those of the site."""
    return rewritten(markdown, page.file.src_uri, {file.src_uri for file in files})


def rewritten(text: str, site: str, pages: set[str]) -> str:
    """Return a document's text for its place in the site. site: that place; pages: all places that are there."""
    inside = {target: source for source, target in OUTSIDE.items()}
    folder = posixpath.dirname(inside.get(site, f"docs/{site}"))

    def link(match: re.Match[str]) -> str:
        mark, words, path, anchor = match.groups()
        target = posixpath.normpath(posixpath.join(folder, path))
        place = OUTSIDE.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
        if place not in pages:
            return words
        return f"{mark}[{words}]({posixpath.relpath(place, posixpath.dirname(site) or '.')}{anchor or ''})"

    return LINK.sub(link, text)
