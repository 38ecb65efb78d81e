"""Clean-up of label maps: rules for one class or region each, kept by ``find_best`` where they help."""

from collections.abc import Mapping, Sequence

import numpy as np

from fmseg.inference.ensemble import MIN_GAIN, dice_of_case
from fmseg.inference.scoring import column_means, mean_over_classes
from fmseg.records.labels import LabelScheme
from fmseg.records.selection import CleanUp

_DROPPING = {"largest_component", "remove_small"}


def apply_clean_up(labels: np.ndarray, rules: Sequence[CleanUp], scheme: LabelScheme) -> np.ndarray:
    """Return the label map after all rules, one after the other.

    labels: (Z, Y, X). What a rule takes from a region falls to the region painted before it, else to the
    background; holes are filled where they are background.
    """
    cleaned = labels.copy()
    for rule in rules:
        output = scheme.names.index(rule.output)
        mask = np.isin(cleaned, scheme.values[output])
        if not mask.any():
            continue
        if rule.rule == "fill_holes":
            cleaned[_holes(mask) & (cleaned == 0)] = scheme.painted[output]
        else:
            dropped = mask & ~_kept(mask, rule)
            cleaned[dropped] = _value_below(output, scheme)[cleaned[dropped]]
    return cleaned


def choose_clean_up(
    label_maps: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray], scheme: LabelScheme
) -> list[CleanUp]:
    """Return the rules that raise the mean out-of-fold Dice without lowering that of any class.

    label_maps, references: case -> (Z, h, w) on one grid. Rules are tried one after the other, each on what the
    ones before it have left.
    """
    chosen: list[CleanUp] = []
    current = dict(label_maps)
    reached = _class_dice(current, references, scheme)
    for rule in candidate_rules(scheme, references):
        if any(other.output == rule.output and {other.rule, rule.rule} <= _DROPPING for other in chosen):
            continue  # one way to drop components is enough for a class
        changed = {case: apply_clean_up(labels, [rule], scheme) for case, labels in current.items()}
        found = _class_dice(changed, references, scheme)
        if mean_over_classes(found) > mean_over_classes(reached) + MIN_GAIN and not (found < reached).any():
            chosen.append(rule)
            current, reached = changed, found
    return chosen


def candidate_rules(scheme: LabelScheme, references: Mapping[str, np.ndarray]) -> list[CleanUp]:
    """Return every rule to be tried, in order.

    A component counts as small below half, or a quarter, of the area that 95 % of the true masks exceed.
    """
    rules = []
    for name, values in zip(scheme.names, scheme.values, strict=True):
        shares = np.array([np.isin(labels, values).mean() for labels in references.values()])
        rules.append(CleanUp(output=name, rule="largest_component", min_share=0.0))
        if (shares > 0).any():
            small = float(np.percentile(shares[shares > 0], 5))
            # six digits suffice, and read better in selection.json
            rules += [CleanUp(output=name, rule="remove_small", min_share=round(small / k, 6)) for k in (2, 4)]
        rules.append(CleanUp(output=name, rule="fill_holes", min_share=0.0))
    return rules


def _class_dice(
    label_maps: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray], scheme: LabelScheme
) -> np.ndarray:
    table = np.array([dice_of_case(labels, references[case], scheme) for case, labels in label_maps.items()])
    return column_means(table, ["one patient"] * len(table))


def _kept(mask: np.ndarray, rule: CleanUp) -> np.ndarray:
    from scipy import ndimage

    components, count = ndimage.label(mask)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    sizes[0] = 0
    if rule.rule == "largest_component":
        return components == sizes.argmax()
    return mask & (sizes >= rule.min_share * mask.size)[components]


def _holes(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    # a single slice has no inside in 3D: its holes are those of the plane
    filled = ndimage.binary_fill_holes(mask[0])[None] if mask.shape[0] == 1 else ndimage.binary_fill_holes(mask)
    return filled & ~mask


def _value_below(output: int, scheme: LabelScheme) -> np.ndarray:
    """Return, for each value of region ``output``, the value painted where that region is taken away."""
    table = np.zeros(scheme.declared[-1] + 1, dtype=np.uint8)
    for value in scheme.values[output]:
        below = [index for index in range(output) if value in scheme.values[index]]
        table[value] = scheme.painted[below[-1]] if below else 0
    return table
