"""Table 1 of a benchmark as text, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence

from fmseg.reporting.benchmark_tables import BenchmarkTable, Cell

#: characters that mean something to LaTeX
ESCAPED = {each: f"\\{each}" for each in "%&#_${}"} | {
    "^": r"\^{}",
    "~": r"\textasciitilde{}",
    "\\": r"\textbackslash{}",
}


def table_rows(table: BenchmarkTable) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return columns and rows for people."""
    columns = ("method", *(column.title for column in table.columns))
    rows = [(row, *(_shown(table.cells.get((row, column)), "±") for column in table.columns)) for row in table.rows]
    return columns, rows


def table_text(table: BenchmarkTable) -> str:
    """Return the table as lines of equal width, its heads in three lines, and its notes."""
    _, rows = table_rows(table)
    heads = [
        (name, *parts)
        for name, parts in zip(("", "", "method"), zip(*(c.head for c in table.columns), strict=True), strict=True)
    ]
    heads = [head for head in heads if any(head)]
    widths = [max(len(line[index]) for line in (*heads, *rows)) for index in range(len(table.columns) + 1)]
    rule = "  ".join("-" * width for width in widths)
    lines = [*(_line(head, widths) for head in heads), rule, *(_line(row, widths) for row in rows)]
    return "\n".join([*lines, "", *table.notes]) + "\n"


def table_csv(table: BenchmarkTable) -> str:
    """Return the table with full precision: mean, standard error and number of splits of each column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("mean", "standard error", "splits")
    writer.writerow(("method", *(f"{column.title}, {part}" for column in table.columns for part in parts)))
    for row in table.rows:
        cells: list[object] = [row]
        for column in table.columns:
            cell = table.cells.get((row, column))
            cells += ["", "", ""] if cell is None else [cell.mean, "" if cell.error is None else cell.error, cell.count]
        writer.writerow(cells)
    return text.getvalue()


def table_latex(table: BenchmarkTable) -> str:
    """Return a tabular for the package booktabs, the best of each column in bold."""
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(["method", *(_escaped(column.title) for column in table.columns)]) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = [_escaped(row)]
        for column in table.columns:
            text = _shown(table.cells.get((row, column)), r"$\pm$")
            cells.append(rf"\textbf{{{text}}}" if table.best(column) == row else text)
        lines.append(" & ".join(cells) + r" \\")
    notes = [f"% {_escaped(note)}" for note in table.notes]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes]) + "\n"


def _shown(cell: Cell | None, sign: str) -> str:
    """Return ``74.24 ± 0.38``; with the number of splits where some are missing."""
    if cell is None:
        return "-"
    text = f"{100 * cell.mean:.2f}" + ("" if cell.error is None else f" {sign} {100 * cell.error:.2f}")
    return text if cell.count == cell.expected else f"{text} ({cell.count} of {cell.expected})"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.ljust(width) if index == 0 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()


def _escaped(text: str) -> str:
    return "".join(ESCAPED.get(letter, letter) for letter in text)
