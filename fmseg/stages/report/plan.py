"""The chapter on the plan: in words, and number by number with its reason."""

from fmseg.planning.explain import explain_plans
from fmseg.records.plans import Plans
from fmseg.reporting.page import Section, Table, Words
from fmseg.reporting.plan_words import plan_sentences


def section(plans: Plans | None, number: int) -> Section:
    """Return the chapter. number: of the dataset."""
    if plans is None:
        return Section("Plan", f"Not planned yet. Type: fmseg plan_and_preprocess -d {number}", ())
    rows = tuple((row.number, row.value, row.because) for row in explain_plans(plans))
    table = Table(f"All {len(rows)} numbers with their reasons", ("number", "value", "because"), rows, is_folded=True)
    lead = "Every number follows from the images and the machine; none was tuned by hand."
    return Section("Plan", lead, (Words(plan_sentences(plans)), table))
