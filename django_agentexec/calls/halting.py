"""`Halts`: the runs of an attempt that may not continue, since their next call of a model exceeds a budget or waits."""

from __future__ import annotations

from .paths import is_inside


class Halted(Exception):
    """Raised in place of a call of a model that exceeds a budget or waits; the runner raises `outcome` in its place."""

    def __init__(self, outcome: BaseException, text: str = "This call exceeds a budget; the run ends here.") -> None:
        super().__init__(text)
        self.outcome = outcome

    @property
    def is_suspension(self) -> bool:
        """Whether the activity is suspended; otherwise the run has failed."""
        return not isinstance(self.outcome, Exception)


class Halts:
    """The halted runs by path. Frameworks and tools may catch `Halted`, so later calls ask here."""

    def __init__(self) -> None:
        self._halted: dict[str, Halted] = {}

    def add(self, path: str, outcome: BaseException, *text: str) -> Halted:
        """Note that the run at `path` may not continue, and return the exception to raise."""
        self._halted[path] = Halted(outcome, *text)
        return self._halted[path]

    def of(self, path: str) -> Halted | None:
        """Return why the run at `path` may not continue, or None.

        After a suspension no run of the attempt makes a further call; after a failure, those around the failed run do
        not.
        """
        for halted_path, halted in self._halted.items():
            if halted.is_suspension or path == halted_path or is_inside(path, halted_path):
                return halted
        return None

    def inside(self, scope: str) -> Halted | None:
        """Return the halt of a run that began in a scope, or inside such a run, or None."""
        inner = (f"{scope}~", f"{scope}/", f"{scope}^", f"{scope}+")
        return next((halted for path, halted in self._halted.items() if path == scope or path.startswith(inner)), None)
