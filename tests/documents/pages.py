"""The code blocks of the documents, in their order."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: not LOG.md and CHANGELOG.md: they tell what was once typed and changed
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("README.md", "CONTRIBUTING.md", "fmseg_*/README.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
)
#: code is what is typed or read by a program; a "text" is neither
LANGUAGES = {"console", "bash", "python", "json", "toml", "yaml", "csv", "text"}


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code. An indented one is typed into a terminal, a fenced one says its language."""

    page: str
    line: int
    language: str
    text: str

    @property
    def lines(self) -> list[str]:
        """What is typed, a command a line: continued lines are joined, comments and empty lines left out."""
        joined = re.sub(r"\\\n\s*", " ", self.text).splitlines()
        return [line.strip() for line in joined if line.strip() and not line.lstrip().startswith("#")]


def blocks_of(page: str) -> list[Block]:
    """Return the code blocks of a page."""
    found: list[Block] = []
    gathered: list[str] = []
    fence, start = None, 0
    lines = [*(ROOT / page).read_text().splitlines(), ""]
    for number, line in enumerate(lines, start=1):
        if fence is not None:
            if line == "```":
                found.append(Block(page, start, fence, "\n".join(gathered) + "\n"))
                fence, gathered = None, []
            else:
                gathered.append(line)
        elif line.startswith("    ") and (gathered or not lines[number - 2].strip()):
            start = start if gathered else number
            gathered.append(line)
        elif gathered and not line.strip() and number < len(lines):
            gathered.append("")
        else:
            if gathered:
                found.append(Block(page, start, "console", textwrap.dedent("\n".join(gathered)).rstrip() + "\n"))
                gathered = []
            if line.startswith("```"):
                fence, start = line[3:].strip(), number
    return found
