"""What the agents are asked for, and what they answer."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Severity = Literal["low", "medium", "high"]


class ResearchContext(BaseModel):
    """A company to research, and the document of the library that tells about it."""

    company: str
    document: str


class ContractContext(BaseModel):
    """A contract of the library to review."""

    document: str


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
    """What one should know about a company after reading its report."""

    company: str
    period: str
    headline: str = Field(description="One sentence for somebody in a hurry.")
    unit: str = Field(description="What the figures are counted in.")
    figures: list[Figure]
    risks: list[CompanyRisk]
    outlook: str
    pages_read: int


class Party(BaseModel):
    """Who signs a contract, and as what."""

    name: str
    role: str


class KeyDate(BaseModel):
    """A date on which something begins, ends or is due."""

    date: str = Field(description="ISO 8601, for example 2028-03-31.")
    meaning: str
    quote: str = Field(description="The sentence, word for word.")


class Amount(BaseModel):
    """A sum of money that a contract names."""

    value: str = Field(description="As printed, with its currency.")
    meaning: str
    quote: str = Field(description="The sentence, word for word.")


class RiskyClause(BaseModel):
    """A clause that whoever signs should think about."""

    kind: str
    severity: Severity
    clause: str = Field(description="Its number.")
    reason: str
    quote: str = Field(description="The sentence, word for word.")


class ContractReview(BaseModel):
    """What one should know before signing a contract."""

    title: str
    headline: str = Field(description="One sentence for somebody in a hurry.")
    parties: list[Party]
    dates: list[KeyDate]
    amounts: list[Amount]
    risky_clauses: list[RiskyClause]


class CheckedReview(ContractReview):
    """A review whose quotes were compared with the contract."""

    unverified_quotes: list[str] = Field(description="Quotes that do not stand in the contract.")
