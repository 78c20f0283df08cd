"""A small, safe subset of Markdown for results: all text is escaped before the first tag is written.

Paragraphs, headings, lists, quotes, tables, fenced code, `code`, **strong**, *emphasis*, and links to http, https and
mailto.
Anything else stays the text that it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

_FENCE = re.compile(r"^\s*(```|~~~)")
_HEADING = re.compile(r"^(#{1,6})\s+(\S.*)$")
_BULLET = re.compile(r"^\s*[-*+]\s+(.*)$")
_NUMBER = re.compile(r"^\s*\d{1,9}[.)]\s+(.*)$")
_QUOTE = re.compile(r"^\s*>\s?(.*)$")
_RULE = re.compile(r":?-+:?")
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[([^\[\]\n]+)\]\(((?:https?://|mailto:)[^\s()]+)\)")
_STRONG = re.compile(r"\*\*(?=\S)((?:(?!\*\*).)+)(?<=\S)\*\*")
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=\S)\*(?![\w*])")

FIRST_LEVEL = 3  # of headings: the page has the first level, and each card the second


def render(text: str) -> SafeString:
    """Return HTML for a text that may be Markdown."""
    lines = text.replace("\r\n", "\n").split("\n")
    return mark_safe("\n".join(_blocks(lines)))  # every part is escaped in `_inline` or `_code`


def _blocks(lines: list[str]) -> Iterator[str]:
    position = 0
    while position < len(lines):
        line = lines[position]
        if not line.strip():
            position += 1
        elif _FENCE.match(line):
            end = _end_of_fence(lines, position + 1)
            yield f'<pre tabindex="0">{escape(chr(10).join(lines[position + 1 : end]))}</pre>'
            position = end + 1
        elif heading := _HEADING.match(line):
            level = min(FIRST_LEVEL + len(heading[1]) - 1, 6)
            # Not by the expression: its time would grow with the square of the line's length.
            title = heading[2].rstrip().rstrip("#").rstrip()
            yield f"<h{level}>{_inline(title)}</h{level}>"
            position += 1
        else:
            html, position = _group(lines, position)
            yield html


def _group(lines: list[str], start: int) -> tuple[str, int]:
    """Return the HTML of a table, a list, a quote or a paragraph, and the position after it."""
    if table := _table(lines, start):
        return table
    for pattern, tag in ((_BULLET, "ul"), (_NUMBER, "ol"), (_QUOTE, "blockquote")):
        if pattern.match(lines[start]):
            end, found = start, list[str]()
            while end < len(lines) and (item := pattern.match(lines[end])):
                found.append(_inline(item[1]))
                end += 1
            if tag == "blockquote":
                return f"<blockquote>{'<br>'.join(found)}</blockquote>", end
            items = "".join(f"<li>{item}</li>" for item in found)
            return f"<{tag}>{items}</{tag}>", end
    end = start + 1
    while end < len(lines) and lines[end].strip() and not _starts_block(lines[end]) and not _table(lines, end):
        end += 1
    return f"<p>{'<br>'.join(_inline(line) for line in lines[start:end])}</p>", end


def _table(lines: list[str], start: int) -> tuple[str, int] | None:
    """Return the HTML of a table of `| a | b |` lines and the position after it; None if there is no table."""
    head, rule = _cells(lines[start]), _cells(lines[start + 1] if start + 1 < len(lines) else "")
    if not head or len(head) != len(rule) or not all(map(_RULE.fullmatch, rule)):
        return None
    end, rows = start + 2, list[str]()
    while end < len(lines) and (cells := _cells(lines[end])):
        # As many cells as the head has.
        rows.append("".join(f"<td>{_inline(cell)}</td>" for cell in (cells + [""] * len(head))[: len(head)]))
        end += 1
    titles = "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in head)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="ae-scroll" tabindex="0">{table}</div>', end


def _cells(line: str) -> list[str]:
    text = line.strip()
    if len(text) < 3 or text[0] != "|" or text[-1] != "|":
        return []
    return [cell.strip() for cell in text[1:-1].split("|")]


def _starts_block(line: str) -> bool:
    return any(pattern.match(line) for pattern in (_FENCE, _HEADING, _BULLET, _NUMBER, _QUOTE))


def _end_of_fence(lines: list[str], start: int) -> int:
    return next((index for index in range(start, len(lines)) if _FENCE.match(lines[index])), len(lines))


def _inline(text: str) -> str:
    """Return a line with its marks; between backquotes nothing is a mark."""
    parts = _CODE.split(text)
    return "".join(f"<code>{escape(part)}</code>" if index % 2 else _marks(part) for index, part in enumerate(parts))


def _marks(text: str) -> str:
    safe = str(escape(text))
    safe = _LINK.sub(r'<a href="\2" rel="noopener noreferrer nofollow">\1</a>', safe)
    return _EMPHASIS.sub(r"<em>\1</em>", _STRONG.sub(r"<strong>\1</strong>", safe))
