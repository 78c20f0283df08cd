"""The names of the tools that a run can call, to find misspelled names in the options of its runner."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from agents import Agent, Handoff

from django_agentexec.exceptions import InvalidOption

logger = logging.getLogger(__name__)

MAX_NAMES = 20  # of tools in a message


class ToolNames:
    """Checks the names of tools in `in_doubt` against the tools of the agents that a runner runs.

    A run knows the tools of its agent, of its handoffs and of agents used as tools. The tools of an MCP server are
    known when its agent has listed them. Names are not compared with tools that cannot be known: those behind a
    handoff without an agent, an MCP server with a filter function, or an MCP server of an agent used as a tool.
    """

    def __init__(self, named: Iterable[str]) -> None:
        self._unknown = {name for name in named if name}
        self._known: set[str] = set()
        self._unlisted: dict[int, str] = {}
        """Names of the agents whose MCP servers have not listed their tools, by the id of the agent."""
        self._reached: set[int] = set()
        self._is_open = False

    def begin(self, agent: Agent[Any], recorded: Collection[str] = ()) -> None:
        """Check the names at the start of a run. `recorded` are the names of recorded calls, whose tools may be gone.

        Raises `InvalidOption` for a name that is certainly none of a tool.
        """
        if not self._unknown:
            return
        self._add(recorded)
        self._reach(agent)
        self._check(agent.name)
        if self._unknown and not self._unlisted:
            logger.warning(
                "in_doubt names %s: no known tool of agent %r. It may be a tool that the start of a run cannot know.",
                _listed(self._unknown),
                agent.name,
            )

    def listed(self, agent: Agent[Any], tools: Iterable[str]) -> None:
        """Check the names when an agent has listed all its tools. Raises `InvalidOption`."""
        if not self._unknown:
            return
        self._add(tools)
        if self._unlisted.pop(id(agent), None) is not None:
            self._check(agent.name)

    def _add(self, names: Iterable[str]) -> None:
        self._known.update(names)
        self._unknown -= self._known

    def _check(self, agent: str) -> None:
        if not self._unknown or self._unlisted or self._is_open:
            return
        name = min(self._unknown)
        similar = difflib.get_close_matches(name, self._known, 1)
        hint = f" Did you mean {similar[0]!r}?" if similar else ""
        tools = f"has {_listed(self._known)}" if self._known else "has no tools"
        raise InvalidOption(
            f"OpenAIRunner(in_doubt=...) names {name!r}, but agent {agent!r}, with its handoffs and agents used as "
            f"tools, {tools}.{hint} If another agent of the handler has this tool, give that agent a separate runner."
        )

    def _reach(self, agent: Agent[Any], *, is_nested: bool = False) -> None:
        """Collect the tools of an agent and of the agents behind it."""
        if id(agent) in self._reached:
            return
        self._reached.add(id(agent))
        self._add(str(tool.name) for tool in agent.tools)
        if agent.mcp_servers or type(agent).get_all_tools is not Agent.get_all_tools:
            if is_nested or _is_filtered(agent.mcp_servers):
                self._is_open = True
            else:
                self._unlisted[id(agent)] = agent.name
        for tool in agent.tools:
            inner = getattr(tool, "_agent_instance", None)
            if inner is not None:
                self._reach(inner, is_nested=True)
        for target in agent.handoffs:
            found = _target(target)
            if found is None:
                self._is_open = True
            else:
                self._reach(found, is_nested=is_nested)


def _target(target: Agent[Any] | Handoff[Any, Any]) -> Agent[Any] | None:
    """Return the agent of a handoff, or None if only its function knows it."""
    if isinstance(target, Agent):
        return target
    found = target._agent_ref() if target._agent_ref is not None else None
    return found if isinstance(found, Agent) else None


def _is_filtered(servers: Sequence[Any]) -> bool:
    """Return whether the tools of a server depend on the moment at which they are listed."""
    return any(callable(getattr(server, "tool_filter", None)) for server in servers)


def _listed(names: Collection[str]) -> str:
    shown = [repr(name) for name in sorted(names)]
    rest = len(shown) - MAX_NAMES
    return ", ".join(shown[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
