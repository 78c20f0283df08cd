"""Rules by which the offline model researches a company: tables, named risks, and the outlook."""

from __future__ import annotations

import re

from example_project.documents.schemas import CompanyBrief, CompanyRisk, Figure

from .conversation import Conversation, Turn
from .reading import MONEY, SENTENCE_END, next_reading_turn, paragraphs

QUERIES = ["risks and uncertainties", "the outlook"]
WANTED = [
    "Revenue",
    "Lease revenue",
    "Gross margin",
    "EBITDA",
    "Operating income",
    "Adjusted operating profit",
    "Net income",
    "Adjusted profit before tax",
    "Free cash flow",
    "Operating cash flow",
    "Order backlog at year end",
    "Net debt",
    "Net debt at year end",
    "Net debt to EBITDA",
]
VALUE = re.compile(r"\(?-?[\d,]*\.?\d+\)?(?:%|x|p)?")
NET_DEBT = re.compile(r"(Net debt)[^.|]*? was (£[\d.]+m) \([^:)]+: (£[\d.]+m)\)")
RISK = re.compile(r"\**(?P<name>[A-Z][\w ]{2,40})\.\**\s+(?P<quote>.+)")
PERIOD = re.compile(r"(?:fiscal year|financial year|\d+ weeks) ended [\w, ]*?\d{4}")
UNIT = re.compile(r"[Aa]mounts in (.+?) unless")


def next_turn(conversation: Conversation) -> Turn:
    """Return the next calls, or the brief when everything has been read."""
    return next_reading_turn(conversation, QUERIES) or _brief(conversation)


def _brief(conversation: Conversation) -> CompanyBrief:
    pages = conversation.pages()
    text = "\n\n".join(pages[number] for number in sorted(pages))
    company = conversation.asked("Company")
    period, unit = PERIOD.search(text), UNIT.search(text)
    figures = _figures(text)
    return CompanyBrief(
        company=company,
        period=period[0] if period else "",
        headline=_headline(company, figures),
        unit=unit[1] if unit else "",
        figures=figures,
        risks=_risks(conversation),
        outlook=_outlook(conversation),
        pages_read=len(pages),
    )


def _figures(text: str) -> list[Figure]:
    """Take the wanted rows from the tables: the first two values of a row are this year and the last."""
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [
            cell.strip(" *") for cell in (line.split("|")[1:-1] if "|" in line else re.split(r"\s{2,}", line.strip()))
        ]
        values = [cell for cell in cells[1:] if VALUE.fullmatch(cell)]
        if len(values) >= 2 and cells[0]:
            rows.setdefault(re.sub(r" \(.*\)$", "", cells[0]), values)
    if prose := NET_DEBT.search(text):
        rows.setdefault(prose[1], [prose[2], prose[3]])
    return [
        Figure(name=name, value=rows[name][0], previous=rows[name][1], change=_change(*rows[name][:2]))
        for name in WANTED
        if name in rows
    ]


def _change(value: str, previous: str) -> str:
    new, old = (float(re.sub(r"[^\d.]", "", figure)) for figure in (value, previous))
    if value.endswith("%"):
        return f"{new - old:+.1f} points"
    if value.endswith("x") or not old:
        return ""
    return f"{100 * (new / old - 1):+.1f}%"


def _headline(company: str, figures: list[Figure]) -> str:
    parts = [
        f"{figure.name.lower().replace('ebitda', 'EBITDA')} {figure.value} ({figure.change})"
        for figure in figures
        if figure.change.endswith("%")
    ]
    return f"{company}: {', '.join(parts[:3])}." if parts else f"No figures were found for {company}."


def _risks(conversation: Conversation) -> list[CompanyRisk]:
    return [
        CompanyRisk(name=risk["name"], quote=_telling_sentence(risk["quote"]))
        for paragraph in paragraphs(conversation)
        if "risk" in paragraph.heading and (risk := RISK.match(paragraph.text))
    ]


def _telling_sentence(text: str) -> str:
    """Return the first sentence that names a sum, else the first."""
    sentences = SENTENCE_END.split(text)
    return next((sentence for sentence in sentences if MONEY.search(sentence)), sentences[0])


def _outlook(conversation: Conversation) -> str:
    found = [
        sentence
        for paragraph in paragraphs(conversation)
        if "outlook" in paragraph.heading
        for sentence in paragraph.sentences
    ]
    return " ".join(found[:3])
