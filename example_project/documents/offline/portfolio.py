"""Rules by which the offline model finds companies and compares their briefs."""

from __future__ import annotations

import re

from example_project.documents.research import Briefs, Candidates, CompanyLine, PortfolioReport
from example_project.documents.schemas import CompanyBrief, ResearchContext

from .conversation import Conversation, ToolCall, Turn

COMPANY = re.compile(r"(?:[A-Z][\w'-]+ (?:& )?)+(?:Corporation|plc|DAC|Inc|Ltd|SE|AG)\b")
REPORT = re.compile(r"annual report|trading update|credit memorandum", re.IGNORECASE)
REVENUE = ("Revenue", "Lease revenue")


class Scout:
    """Planner of the scout: reads the openings, then names the companies of the reports."""

    def next_turn(self, conversation: Conversation) -> Turn:
        """Return the call, or the companies."""
        openings = conversation.outputs("read_openings")
        if not openings:
            return [ToolCall("read_openings", {})]
        found = []
        for opening in openings[-1].split("\n\n"):
            document, _, text = opening.partition(": ")
            company = COMPANY.search(text)
            if company and REPORT.search(text):
                found.append(ResearchContext(company=company[0], document=document))
        return Candidates(companies=found)


class Editor:
    """Planner of the editor."""

    def next_turn(self, conversation: Conversation) -> Turn:
        """Return the comparison."""
        briefs = Briefs.model_validate_json(conversation.request).briefs
        lines = [_line(brief) for brief in briefs]
        known = sorted((line for line in lines if line.revenue_change), key=lambda line: _number(line.revenue_change))
        headline = f"{len(lines)} companies"
        if len(known) > 1:
            headline += (
                f": revenue grew most at {known[-1].company} ({known[-1].revenue_change}), "
                f"least at {known[0].company} ({known[0].revenue_change})"
            )
        return PortfolioReport(headline=f"{headline}.", companies=lines)


def _line(brief: CompanyBrief) -> CompanyLine:
    change = next((figure.change for figure in brief.figures if figure.name in REVENUE and figure.change), "")
    risk = brief.risks[0].name if brief.risks else ""
    return CompanyLine(company=brief.company, revenue_change=change, gravest_risk=risk)


def _number(change: str) -> float:
    return float(re.sub(r"[^\d.+-]", "", change))
