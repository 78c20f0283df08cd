"""Contexts and results of the agents."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Severity = Literal["low", "medium", "high"]


class ResearchContext(BaseModel):
    """A company to research, and the document about it."""

    company: str
    document: str


class ContractContext(BaseModel):
    """A contract of the library to review."""

    document: str


class LetterContext(BaseModel):
    """A contract, and the recipient of a letter about it."""

    document: str
    recipient: str


class Letter(BaseModel):
    """What became of a letter."""

    headline: str
    recipient: str
    was_sent: bool


class Figure(BaseModel):
    """A figure of a report, as printed there."""

    name: str
    value: str
    previous: str = Field(description="The same figure a year earlier, or empty.")
    change: str = Field(description="In percent or points, with sign, or empty.")


class CompanyRisk(BaseModel):
    """A risk that a report names."""

    name: str
    quote: str = Field(description="The sentence that says so, word for word.")


class CompanyBrief(BaseModel):
    """The main facts about a company in its report."""

    company: str
    period: str
    headline: str = Field(description="One sentence for somebody in a hurry.")
    unit: str = Field(description="What the figures are counted in.")
    figures: list[Figure]
    risks: list[CompanyRisk]
    outlook: str
    pages_read: int


class Party(BaseModel):
    """A party of a contract, and its role."""

    name: str
    role: str


class KeyDate(BaseModel):
    """A date on which a period begins or ends, or an obligation is due."""

    date: str = Field(description="ISO 8601, for example 2028-03-31.")
    meaning: str
    quote: str = Field(description="The sentence, word for word.")


class Amount(BaseModel):
    """A sum of money that a contract names."""

    value: str = Field(description="As printed, with its currency.")
    meaning: str
    quote: str = Field(description="The sentence, word for word.")


class RiskyClause(BaseModel):
    """A clause to consider before signing."""

    kind: str
    severity: Severity
    clause: str = Field(description="Its number.")
    reason: str
    quote: str = Field(description="The sentence, word for word.")


class ContractReview(BaseModel):
    """The main facts to consider before signing a contract."""

    title: str
    headline: str = Field(description="One sentence for somebody in a hurry.")
    parties: list[Party]
    dates: list[KeyDate]
    amounts: list[Amount]
    risky_clauses: list[RiskyClause]


class Checked(BaseModel):
    """The result of comparing an answer with its document."""

    unverified_quotes: list[str] = Field(default_factory=list, description="Quotes that are not in the document.")
    notes: list[str] = Field(default_factory=list, description="Further reservations about the answer.")


class CheckedBrief(CompanyBrief, Checked):
    """A brief whose quotes and figures were compared with the report."""

    unverified_figures: list[str] = Field(
        default_factory=list, description="Names of figures whose values are not in the report."
    )


class CheckedReview(ContractReview, Checked):
    """A review whose quotes were compared with the contract."""


def reservations(result: object) -> list[str]:
    """Return the reservations about a stored result, as sentences."""
    if not isinstance(result, dict):
        return []
    found = [str(note) for note in result.get("notes") or ()]
    for name, noun in (("unverified_quotes", "quote"), ("unverified_figures", "figure")):
        if number := len(result.get(name) or ()):
            found.append(f"{number} {noun}{'' if number == 1 else 's'} could not be found in the document.")
    return found
