"""A headless Chromium, driven over its DevTools protocol: what the browser tests need of it, and no more.

Chromium is found as `CHROMIUM` in the environment, or by one of its usual names.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
]
NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
PATIENCE = 20.0  # seconds until a condition counts as failed
_LARGEST = 64 * 2**20  # bytes of a message: a screenshot

Json = dict[str, Any]


def find_chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page. Errors of its console and of its scripts are collected in `errors`."""

    def __init__(self, connection: ClientConnection, session: str) -> None:
        self._connection = connection
        self._session = session
        self._number = 0
        self._events: list[Json] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Json:
        """Send a command of the protocol, and return its answer."""
        self._number += 1
        message = {"id": self._number, "sessionId": self._session, "method": method, "params": parameters}
        self._connection.send(json.dumps(message))
        while True:
            answer = self._receive(PATIENCE)
            if answer.get("id") == self._number and answer.get("sessionId") == self._session:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def _receive(self, timeout: float) -> Json:
        message: Json = json.loads(self._connection.recv(timeout))
        if "method" in message:
            self._events.append(message)
            self._note_error(message["method"], message["params"])
        return message

    def _note_error(self, method: str, parameters: Json) -> None:
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(one.get("value")) for one in parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        """Go to an address, and wait until it is loaded."""
        self._events.clear()
        answer = self.call("Page.navigate", url=url)
        assert not answer.get("errorText"), f"{url}: {answer['errorText']}"
        self._wait_for_load(url)

    def _wait_for_load(self, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            assert time.monotonic() < deadline, f"not loaded: {what}"
            self._receive(PATIENCE)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def until(self, expression: str, timeout: float = PATIENCE) -> Any:
        """Return the first true value of an expression, which may also survive a change of pages."""
        deadline = time.monotonic() + timeout
        while not (value := self._try(expression)):
            if time.monotonic() > deadline:
                body = self._try("document.body.innerText.slice(0, 2000)")
                raise AssertionError(f"Not within {timeout:g} s: {expression}\nThe page says:\n{body}")
            time.sleep(0.03)
        return value

    def _try(self, expression: str) -> Any:
        try:
            # An element has no value to return; that there is one is what counts.
            return self.evaluate(f"(value => value instanceof Node || value)({expression})")
        except AssertionError:
            return None  # the page is being left, or has no such element yet

    def text(self, selector: str) -> str:
        """Return the visible text of the first element that fits."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """Click with the mouse on the middle of the first element that fits."""
        where = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return {x: r.x + r.width / 2, y: r.y + r.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where)

    def follow(self, selector: str) -> None:
        """Click, and wait for the page that this leads to."""
        self._events.clear()
        self.click(selector)
        self._wait_for_load(selector)

    def press(self, key: str) -> None:
        """Press a key: "Tab", "Enter"."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(key)
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **more)

    def resize(self, width: int, height: int = 900, *, is_phone: bool = False) -> None:
        """Give the page another size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=is_phone,
        )

    def prefer(self, **features: str) -> None:
        """Set media features: `prefer(color_scheme="dark", reduced_motion="reduce")`."""
        wanted = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=wanted)

    def set_cookie(self, name: str, value: str, url: str) -> None:
        """Set a cookie for the address."""
        self.call("Network.setCookie", name=name, value=value, url=url)

    def screenshot(self, path: Path, *, full: bool = True) -> None:
        """Write a PNG of the page, by default in full height."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(answer["data"]))


class Chromium:
    """A running browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0

    def _call(self, method: str, **parameters: Any) -> Json:
        self._number -= 1  # the tabs count upwards
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message: Json = json.loads(self._connection.recv(PATIENCE))
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        """Open a page with separate cookies, and close it in the end. One at a time."""
        context = self._call("Target.createBrowserContext")["browserContextId"]
        target = self._call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        try:
            yield Tab(self._connection, session)
        finally:
            self._call("Target.closeTarget", targetId=target)
            self._call("Target.disposeBrowserContext", browserContextId=context)


@contextmanager
def chromium(executable: str) -> Iterator[Chromium]:
    """Run a browser with an empty profile inside the block."""
    profile = Path(tempfile.mkdtemp(prefix="agentexec-chromium-"))
    process = subprocess.Popen(
        [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with connect(_address(profile, process), max_size=_LARGEST, ping_interval=None) as connection:
            yield Chromium(connection)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(profile, ignore_errors=True)


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait for the file in which Chromium writes the port it has chosen."""
    written, deadline = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, f"Chromium ended with {process.returncode}."
        lines = written.read_text().split() if written.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.02)
    raise AssertionError("Chromium did not open its port.")
