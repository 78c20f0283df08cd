"""Records the README's animation: `make animation`, or `python -m tests.browser.animation`.

Two terminals with real commands on the example project: above `agentexec monitor`, below a shell that enqueues, kills
the worker process, approves a letter and prints the trace. Chromium draws the screens, Pillow writes the GIF. Needs
the dependency group `pictures`.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import html
import io
import json
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyte
from PIL import Image

from tests.browser.chromium import Tab, chromium, find_chromium
from tests.browser.example import MANAGE, PATIENCE, Example
from tests.browser.screenshots import FOLDER

COLUMNS, ROWS_ABOVE, ROWS_BELOW = 100, 13, 10
LINE = 17  # pixels
WIDTH, HEIGHT = 888, (ROWS_ABOVE + ROWS_BELOW) * LINE + 110
TYPING = 0.016  # seconds per character
COMMAND = 0.9  # seconds that a command takes, at most: it imports Django first
TICK = 0.04  # seconds between two looks at the screens
SHORTEST = 0.06  # seconds that a frame is shown, at least
LAST = 2.4  # seconds
COLORS = 48
CSS_COLORS = {"red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "blue": "#79c0ff", "magenta": "#d2a8ff"}
CSS_COLORS |= {"cyan": "#76e3ea", "black": "#8b949e", "white": "#f0f6fc", "brightblack": "#8b949e"}
PAGE = """<!doctype html><style>
body { margin: 0; padding: 12px; background: #21262d; font: 14px/LINEpx "DejaVu Sans Mono", monospace; }
p { margin: 0; padding: 4px 10px; background: #30363d; color: #8b949e; font-size: 12px; border-radius: 6px 6px 0 0; }
pre { margin: 0 0 12px; padding: 6px 10px; background: #0d1117; color: #e6edf3; font: inherit; overflow: hidden;
  border-radius: 0 0 6px 6px; }
#above { height: ABOVEpx; } #below { height: BELOWpx; }
</style><p>manage.py agentexec monitor</p><pre id="above"></pre><p>shell</p><pre id="below"></pre>"""
PAGE = PAGE.replace("LINE", str(LINE)).replace("ABOVE", str(ROWS_ABOVE * LINE)).replace("BELOW", str(ROWS_BELOW * LINE))


class Terminal:
    """A process in a terminal of a given height, and what its screen shows."""

    def __init__(self, command: list[str], rows: int, environ: dict[str, str], folder: Path) -> None:
        self._screen = pyte.Screen(COLUMNS, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environ, cwd=folder, start_new_session=True
        )
        os.close(slave)

    def read(self) -> None:
        """Show what the process has written."""
        while select.select([self._master], [], [], 0)[0]:
            try:
                self._stream.feed(os.read(self._master, 65_536))
            except OSError:  # the process has ended
                return

    def write(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def text(self) -> str:
        """Return the screen as text."""
        return "\n".join(self._screen.display)

    def html(self) -> str:
        """Return the screen as HTML."""
        lines = (self._screen.buffer[row] for row in range(self._screen.lines))
        return "\n".join("".join(_html_of(line[column]) for column in range(COLUMNS)).rstrip() for line in lines)

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        os.close(self._master)


def _html_of(char: pyte.screens.Char) -> str:
    text = html.escape(char.data)
    color = CSS_COLORS.get(char.fg, "" if char.fg == "default" else f"#{char.fg}")
    style = (f"color:{color};" if color else "") + ("font-weight:bold;" if char.bold else "")
    return f'<span style="{style}">{text}</span>' if style and text.strip() else text


@dataclass
class Recording:
    """The frames: the HTML of both screens, and the seconds that each is shown."""

    above: Terminal
    below: Terminal
    frames: list[tuple[str, str, float]] = field(default_factory=list)

    def watch(self, until: Callable[[], bool], at_most: float) -> None:
        """Record until a condition is true; the animation is faster where this takes longer than `at_most` seconds."""
        first, began = len(self.frames), time.monotonic()
        while not until() or len(self.frames) == first:
            time.sleep(TICK)
            self._note(TICK)
            assert time.monotonic() < began + PATIENCE, f"{self.above.text()}\n{self.below.text()}"
        passed = time.monotonic() - began
        self.frames[first:] = [(*screens, s * min(1.0, at_most / passed)) for *screens, s in self.frames[first:]]

    def watch_for(self, seconds: float) -> None:
        """Record for some seconds."""
        end = time.monotonic() + seconds
        self.watch(lambda: time.monotonic() > end, seconds)

    def type(self, command: str) -> None:
        """Clear the shell, type a command, and record until the prompt is back."""
        self.below.write("\x0c")
        self.watch_for(0.2)
        for start in range(0, len(command), 4):
            self.below.write(command[start : start + 4])
            time.sleep(TICK)
            self._note(4 * TYPING)
        self.below.write("\r")
        self.watch(lambda: self.below.text().rstrip().endswith("\n$"), COMMAND)

    def _note(self, seconds: float) -> None:
        self.above.read()
        self.below.read()
        self.frames.append((self.above.html(), self.below.html(), seconds))

    def merged(self) -> list[tuple[str, str, float]]:
        """Return the frames without repetitions and without those that are shown too briefly."""
        merged: list[tuple[str, str, float]] = []
        for above, below, seconds in self.frames:
            if merged and (merged[-1][:2] == (above, below) or merged[-1][2] < SHORTEST):
                seconds += merged.pop()[2]
            merged.append((above, below, seconds))
        return merged


def play(site: Example, recording: Recording) -> None:
    """Run the commands."""
    workers = json.loads(site.manage("agentexec", "workers", "--json"))
    recording.type("manage.py agentexec enqueue contract_letter @letter.json")
    letter = recording.below.text().split()[-2]
    recording.type("manage.py agentexec enqueue review_contract @contract.json")
    recording.watch_for(1.5)
    recording.type(f"kill -9 {workers[0]['pid']}   # the worker process")
    recording.watch(lambda: "quarantine" in recording.above.text(), 1.0)
    recording.watch_for(2.0)
    found = json.loads(site.manage("agentexec", "approvals", "list", "--json"))
    recording.type(f"manage.py agentexec approvals approve {found[0]['id'][:18]}")
    recording.watch_for(1.0)
    site.manage("agentexec", "result", letter, "--timeout", "60")
    recording.type(f"manage.py agentexec show {letter[:18]} --calls | tail -8   # replayed: not called again")


def prepare(folder: Path) -> None:
    """Write the contexts."""
    document = {"document": "master-services-agreement.md"}
    (folder / "contract.json").write_text(json.dumps(document))
    (folder / "letter.json").write_text(json.dumps({**document, "recipient": "Marlowe & Pike"}))


@contextmanager
def recording_of(site: Example, folder: Path) -> Iterator[Recording]:
    """Open both terminals inside the block."""
    environ = {**site.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "PS1": "$ "}
    start = folder / "bashrc"
    start.write_text(f'manage.py() {{ "{sys.executable}" "{MANAGE}" "$@"; }}\nPS1="$ "\n')
    monitor = [sys.executable, str(MANAGE), "agentexec", "monitor", "--interval", "0.3"]
    above = Terminal(monitor, ROWS_ABOVE, environ, folder)
    below = Terminal(["bash", "--noprofile", "--rcfile", str(start), "-i"], ROWS_BELOW, environ, folder)
    recording = Recording(above, below)
    try:
        recording.watch(lambda: "alive" in above.text() and "$" in below.text(), PATIENCE)
        recording.frames.clear()
        yield recording
    finally:
        above.end()
        below.end()


def draw(tab: Tab, recording: Recording) -> Iterator[tuple[Image.Image, float]]:
    """Yield a picture of each frame, and the seconds that it is shown."""
    tab.resize(WIDTH, HEIGHT)
    tab.open("data:text/html;base64," + base64.b64encode(PAGE.encode()).decode())
    for above, below, seconds in recording.merged():
        for name, text in (("above", above), ("below", below)):
            tab.evaluate(f"document.getElementById('{name}').innerHTML = {json.dumps(text)}; 0")
        answer = tab.call("Page.captureScreenshot", format="png")
        yield Image.open(io.BytesIO(base64.b64decode(answer["data"]))).convert("RGB"), seconds


def write(frames: list[tuple[Image.Image, float]], path: Path) -> None:
    """Write a GIF of the frames, which share their colors."""
    samples = [picture for picture, _ in frames[:: max(1, len(frames) // 10)]]
    strip = Image.new("RGB", (WIDTH, HEIGHT * len(samples)))
    for number, picture in enumerate(samples):
        strip.paste(picture, (0, HEIGHT * number))
    palette = strip.quantize(COLORS)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture, _ in frames]
    times = [max(20, round(seconds * 100) * 10) for _, seconds in frames]
    times[-1] = round(1000 * LAST)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=times, loop=0, optimize=True)
    print(f"{path}: {len(frames)} frames, {sum(times) / 1000:.1f} s, {path.stat().st_size:,} bytes")


def main(arguments: list[str]) -> int:
    """Record the animation; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--path", type=Path, default=FOLDER / "demo.gif", help="the file (docs/screenshots/demo.gif)")
    options = parser.parse_args(arguments)
    executable = find_chromium()
    if executable is None:
        print("No Chromium was found. Install one, or name it: CHROMIUM=/path/to/chromium", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="agentexec-animation-"))
    site = Example(folder)
    try:
        site.prepare()
        prepare(folder)
        site.start_pool()
        with recording_of(site, folder) as recording:
            play(site, recording)
    finally:
        site.stop()
        shutil.rmtree(folder, ignore_errors=True)
    with chromium(executable) as browser, browser.tab() as tab:
        write(list(draw(tab, recording)), options.path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
