"""Rules by which the offline model reviews a contract: parties, dates, sums, and clauses with known risks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from example_project.documents.schemas import Amount, ContractReview, KeyDate, Party, RiskyClause

from .conversation import Conversation, Turn
from .reading import MONEY, Paragraph, next_reading_turn, paragraphs
from .risks import SEVERITIES, known_risks

QUERIES = ["limits of liability", "indemnities", "renewal and notice", "termination and change of control"]
ROLES = r"Customer|Supplier|Provider|Landlord|Tenant|Guarantor"
DEFINED_ROLE = re.compile(rf'\((?:the )?"({ROLES})"\)')
COMPANY = re.compile(r"[A-Z][\w&'-]*(?: [A-Z&][\w&'-]*)*,? (?:plc|Limited|LLC|Inc\.|GmbH|AB)(?!\w)")
INDIVIDUAL = re.compile(r"[A-Z]\w+ [A-Z]\w+(?=, an individual)")
MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
DATE = re.compile(rf"\d{{1,2}} (?:{MONTHS}) \d{{4}}|(?:{MONTHS}) \d{{1,2}}, \d{{4}}")
MEANINGS = [  # the first that matches the words around a date
    ("signed", r"is dated|is made on|entered into"),
    ("last day for notice", r"received .*(?:by|no later than) |that is by"),
    ("early termination", r"at any time after|ends? before"),
    ("end of term", r"ending on|ends on|runs from .* until|Expiration"),
    ("rent starts", r"Rent Commencement Date"),
    ("start", r"from .* \(the \"(?:Commencement|Start)|Commencement Date: "),
    ("milestone", r"into live use|claimed by"),
    ("expiry of certificate", r"certificate valid"),
]
MAX_ITEMS = 12


def next_turn(conversation: Conversation) -> Turn:
    """Return the next calls, or the review when everything has been read."""
    return next_reading_turn(conversation, QUERIES) or _review(conversation)


def _review(conversation: Conversation) -> ContractReview:
    found = list(paragraphs(conversation))
    pages = conversation.pages()
    title = pages[1].partition("\n")[0].strip("# ") if 1 in pages else conversation.asked("Document")
    risky = _risky_clauses(found)
    return ContractReview(
        title=title,
        headline=_headline(risky),
        parties=_parties(" ".join(paragraph.text for paragraph in found)),
        dates=_dates(found),
        amounts=_amounts(found),
        risky_clauses=risky,
    )


def _headline(risky: list[RiskyClause]) -> str:
    high = [clause.kind for clause in risky if clause.severity == "high"]
    if not risky:
        return "No risky clause was found."
    return f"{len(risky)} risky clauses, {len(high)} of them serious: {', '.join(dict.fromkeys(high))}."


def _parties(text: str) -> list[Party]:
    """Find the name before each defined role: the first name after the previous role."""
    parties: dict[str, Party] = {}
    start = 0
    for role in DEFINED_ROLE.finditer(text):
        before = text[start : role.start()].replace("*", "")
        start = role.end()
        if name := COMPANY.search(before) or INDIVIDUAL.search(before):
            parties.setdefault(role[1], Party(name=name[0], role=role[1]))
    return list(parties.values())


def _sentences(found: list[Paragraph]) -> Iterator[tuple[Paragraph, str]]:
    for paragraph in found:
        for sentence in paragraph.sentences:
            yield paragraph, sentence


def _dates(found: list[Paragraph]) -> list[KeyDate]:
    dates: dict[tuple[str, str], KeyDate] = {}
    for paragraph, sentence in _sentences(found):
        for date in DATE.finditer(sentence):
            iso = _iso(date[0])
            meaning = _meaning(sentence[max(0, date.start() - 200) : date.end() + 40], paragraph.heading)
            dates.setdefault((iso, meaning), KeyDate(date=iso, meaning=meaning, quote=sentence))
    return sorted(dates.values(), key=lambda date: date.date)[:MAX_ITEMS]


def _meaning(words: str, heading: str) -> str:
    for meaning, pattern in MEANINGS:
        if re.search(pattern, words):
            return meaning
    return heading


def _iso(date: str) -> str:
    style = "%B %d, %Y" if "," in date else "%d %B %Y"
    return datetime.strptime(date, style).date().isoformat()


def _amounts(found: list[Paragraph]) -> list[Amount]:
    """Return the largest sums, each with the sentence that names it first, in the order of the contract."""
    amounts: dict[str, Amount] = {}
    for paragraph, sentence in _sentences(found):
        for value in MONEY.findall(sentence):
            meaning = f"{paragraph.heading} ({paragraph.clause})" if paragraph.clause else paragraph.heading
            amounts.setdefault(value, Amount(value=value, meaning=meaning, quote=sentence))
    largest = sorted(amounts.values(), key=lambda amount: -_number(amount.value))[:MAX_ITEMS]
    return [amount for amount in amounts.values() if amount in largest]


def _number(value: str) -> float:
    return float(re.sub(r"[^\d.]", "", value))


def _risky_clauses(found: list[Paragraph]) -> list[RiskyClause]:
    clauses = [
        RiskyClause(
            kind=risk.kind,
            severity=risk.severity,
            clause=paragraph.clause,
            reason=risk.reason,
            quote=sentence,
        )
        for paragraph, sentence in _sentences(found)
        if paragraph.clause
        for risk in known_risks(sentence)
    ]
    return sorted(clauses, key=lambda clause: SEVERITIES.index(clause.severity))
