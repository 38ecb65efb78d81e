"""Write docs/reference/weights.md from the table of sources itself: python docs/make_weights.py."""

from pathlib import Path

from fmseg.networks.sources import Source, sources

TARGET = Path(__file__).parent / "reference" / "weights.md"

HEAD = """\
# Other people's weights

Written by `docs/make_weights.py` from the declarations in `fmseg/networks/sources`; `fmseg list sources` says it in
short. How to use them: [Start from other people's weights](../how-to/use-other-weights.md).

`fmseg import_weights FILE` tells the source by the tensors' names and shapes, by what lies beside the file, and, where
nothing else differs, by the file's name. Where that leaves a doubt it asks for `--format`, `--heads`, `--mean` and
`--std`; it does not guess. Every tensor of the file is used, or named with the reason why not. A tensor that is
missing, misshapen, renamed or not finite ends the import with its name, and nothing is written.

**Exact** means: small models with random weights under the source's own names give the features of the implementation
in the column *verified against* within 1e-4, on images of the size that they were made for and of another one, in
colour and for grey images with the normalisation folded in, as the tests show
(`tests/networks/test_weight_sources.py`). For these tests no published file was at hand: only names and layouts were.
One published network, a DINOv2 ViT-S/14 inside another package, was tried besides: its tokens are those of onnxruntime
within 2e-5 (`benchmarks/dinov2_weights.py`).

"""

COLUMNS = ("`--format`", "what", "where", "licence", "commercial use", "verified against", "not exact")

FOOT = """
## What is changed on the way

| change | when | exact |
|---|---|---|
| queries, keys and values as one layer, their biases as one, zeros for biases that are not there | import | yes |
| a masked bias of keys as a bias of zero (DINOv3) | import | yes |
| a position of zero for the class token where only patches have one | import | yes |
| a mask token of zeros where there is none | import | yes; only pretraining uses it |
| one table of biases for all blocks as one for each | import | yes; finetuned they may part |
| three channels to one: the stem summed, mean and std folded into it | at use, or `--channels 1` | for grey images |
| one channel to three | at use, or `--channels 3` | for grey images; of others the mean of the channels is seen |
| patches of another size: the pseudo-inverse of scaling | `--patch 16` | no: close |
| another image size | at use | as the source itself resamples its positions |

Pooling behind the blocks (`fc_norm`, projections to texts, necks of decoders) is left out, and named: fmseg's heads and
decoders read the tokens.

CNNs of timm (`resnet18`, `resnet50`, `tf_efficientnetv2_s`) are networks of their own, not backbones: `fmseg list
networks`, and `fmseg train 501 -r resnet50 --init timm`, after `fmseg import_weights model.pth --format timm:resnet50`
where timm has not downloaded them. Their stem is summed for grey images, and mean and std are those of ImageNet: close,
not exact.
"""


def page() -> str:
    """Return the whole page."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(row(name, sources[name]) for name in sources)]
    return HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in rows) + FOOT


def row(name: str, source: Source) -> tuple[str, ...]:
    """Return what is said of one source."""
    commercial = {True: "yes", False: "**no**", None: "depends"}[source.commercial]
    if source.refusal:
        return name, source.title, source.where, source.licence, commercial, "", f"cannot be used: {source.refusal}"
    return name, source.title, source.where, source.licence, commercial, source.verified, source.inexact or "-"


if __name__ == "__main__":
    TARGET.write_text(page())
