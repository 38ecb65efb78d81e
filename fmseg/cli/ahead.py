"""What a pretraining would take and bring, for people and for machines."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fmseg.cli.data_commands import would
from fmseg.cli.frame import Output
from fmseg.console import duration, print_line, print_table

if TYPE_CHECKING:
    from fmseg.stages.pretrain import Preview


def look_ahead(reads: list[Path], found: "list[Preview]") -> Output:
    """Return what ``pretrain --dry-run`` prints: files, and what it takes and brings."""
    files = would(reads, [each.folder for each in found])
    columns = ("checkpoint", "network", "images", "samples seen", "time", "memory GB", "disk GB", "images/s")
    rows = [
        (
            *(each.folder.name, each.network, each.num_images, each.cost.samples_seen, duration(each.cost.seconds)),
            *(round(each.cost.memory_gb, 1), round(each.cost.disk_gb, 2), round(each.cost.images_per_s, 1)),
        )
        for each in found
    ]
    costs = [
        {"checkpoint": each.folder.name, "modality": each.modality, "network": each.network, "benefit": each.benefit}
        | asdict(each.cost)
        for each in found
    ]

    def show() -> None:
        files.show()
        print_table("By rule of thumb, on one device", columns, rows)
        for each in found:
            print_line(f"{each.folder.name}: {each.benefit}.")

    return Output(files.value | {"costs": costs}, show)
