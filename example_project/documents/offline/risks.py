"""The risks in contracts that the offline model detects, each with its patterns."""

from __future__ import annotations

import re
from dataclasses import dataclass

from example_project.documents.schemas import Severity

SEVERITIES: list[Severity] = ["high", "medium", "low"]


@dataclass(frozen=True)
class Risk:
    """A kind of clause, the reason why it is a risk for the paying party, and the pattern of its sentence."""

    kind: str
    severity: Severity
    reason: str
    pattern: str


RISKS = (
    Risk(
        "automatic renewal",
        "high",
        "The contract is extended unless notice is given well before its end.",
        r"automatically renew|renews automatically",
    ),
    Risk(
        "low liability cap",
        "high",
        "What the other side pays at most may be far below the damage.",
        r"total liability .*shall not exceed|liability is limited to|liability .* is limited to",
    ),
    Risk("unlimited liability", "high", "There is no upper limit.", r"liability is unlimited"),
    Risk(
        "broad indemnity",
        "high",
        "It covers losses whatever their cause, and has no limit.",
        r"shall indemnify.*(?:whatever nature|even if caused|against all claims)",
    ),
    Risk(
        "termination by the other side",
        "high",
        "The other side may leave without a reason.",
        r"may terminate this (?:Agreement|Lease) for convenience|may terminate for convenience",
    ),
    Risk(
        "change of control",
        "high",
        "A sale of the company would give the other side a way out, or a say.",
        r"change of control",
    ),
    Risk(
        "cost of leaving early",
        "high",
        "An early end makes future or waived payments due at once.",
        r"early termination fee|becomes due at once|present value of all rent|repay the unamortized",
    ),
    Risk("personal guarantee", "high", "A person answers for the company's debts.", r"personally .*guarantees"),
    Risk(
        "rights in data",
        "high",
        "The other side may use the data for its purposes.",
        r"perpetual and irrevocable licence|publish industry benchmarks",
    ),
    Risk(
        "unilateral change",
        "medium",
        "Terms or features may change without consent.",
        r"may (?:change the features|amend these terms|retire features)|may add or replace sub-processors",
    ),
    Risk(
        "price increase",
        "medium",
        "The price rises by more than inflation, or without a limit.",
        r"may (?:increase the annual Charges|raise the fee)|rent increases by .* percent on each|no cap on",
    ),
    Risk("exclusivity", "medium", "It limits other business.", r"exclusively from|within a radius"),
    Risk("relocation", "medium", "The premises may be exchanged for others.", r"relocate Tenant to"),
    Risk(
        "transfer of personal data",
        "medium",
        "Data leaves the European Economic Area.",
        r"standard contractual clauses",
    ),
    Risk("sole remedy", "medium", "Other claims are given up.", r"sole (?:and exclusive )?remedy|only remedy"),
    Risk("holding over", "medium", "Staying longer costs a multiple.", r"two hundred percent"),
    Risk("suspension", "low", "A late payment may stop the service.", r"may suspend the"),
    Risk(
        "free assignment",
        "low",
        "One may end up with another contract partner.",
        r"may (?:assign or novate|transfer) this agreement",
    ),
)


def known_risks(sentence: str) -> list[Risk]:
    """Return the risks whose pattern `sentence` matches."""
    return [risk for risk in RISKS if re.search(risk.pattern, sentence, re.IGNORECASE)]
