"""card.md of other people's weights: where they come from, what may be done with them, what was changed."""

from fmseg.records.foundation import WEIGHTS, Foundation


def foreign_card(card: Foundation) -> str:
    """Return the Markdown of an imported checkpoint."""
    vit, origin = card.architecture, card.origin
    assert origin is not None
    height, width = vit.image_size
    loud = "\n\n**No commercial use**, neither of it nor of what is made from it." if origin.commercial is False else ""
    dropped = "\n".join(f"- `{name}`: {reason}" for name, reason in origin.dropped) or "Every tensor was taken."
    notes = "\n".join(f"- {note}" for note in origin.notes) or "Nothing."
    return f"""# {card.name}: {origin.title}

These weights were not made here. fmseg has read them from `{origin.file}`
(SHA-256 `{origin.sha256}`), and checked that each tensor found its place.

| | |
|---|---|
| network | {vit.name}, patches of {vit.patch_size} px, width {vit.width}, {vit.depth} blocks, {vit.num_heads} heads |
| images | {vit.channels} channel(s); positions for {height} x {width} pixels; trained on {origin.input_px} |
| mean, std of the images in [0, 1] | {_numbers(card.mean)}; {_numbers(card.std)} |
| published at | {origin.where} |

## Licence

{origin.licence}.{loud} It is carried into all that fmseg trains from these weights. Cite their authors.

## What was not taken

{dropped}

## What was added or changed

{notes}

## How to use it

    fmseg train 501 --init {card.name}
    fmseg pretrain --init {card.name} -d 501

What images it was trained on is not known here, so nobody can say whether test images are among them.
`{WEIGHTS}`: SHA-256 `{card.weights_sha256}`.
"""


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
