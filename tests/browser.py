"""Chromium without a window, driven by the WebDriver protocol (https://www.w3.org/TR/webdriver2/) through chromedriver,
both from Debian. Nothing but the standard library is needed."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = [name for name, found in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if found is None]
_ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--disable-dev-shm-usage",
)  # fmt: skip
_PATIENCE = 30.0  # seconds


class Browser:
    """A session of chromedriver at `address`. `open` shows a file; `run` evaluates JavaScript in it."""

    def __init__(self, address: str, profile: Path) -> None:
        options = {"binary": CHROMIUM, "args": [*_ARGUMENTS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        made = _call("POST", f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"{address}/session/{made['sessionId']}"

    def open(self, page: Path, width: int = 1280, dark: bool = False) -> None:
        """Show a file at `width` pixels, and wait until all charts are drawn."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", features=scheme)
        self._post("url", url=page.resolve().as_uri())
        end = time.monotonic() + _PATIENCE
        while self.run("return document.documentElement.dataset.ready") != "yes" and time.monotonic() < end:
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """What a script returns."""
        return self._post("execute/sync", script=script, args=[])

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of Chrome's own protocol."""
        return self._post("goog/cdp/execute", cmd=command, params=parameters)

    def console(self) -> list[str]:
        """What was written to the console since the last call."""
        return [one["message"] for one in self._post("se/log", type="browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        events = (json.loads(one["message"])["message"] for one in self._post("se/log", type="performance"))
        sent = "Network.requestWillBeSent"
        return [one["params"]["request"]["url"] for one in events if one["method"] == sent]

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def _post(self, what: str, **data: Any) -> Any:
        return _call("POST", f"{self._session}/{what}", data)

    def close(self) -> None:
        """End the session, and the browser with it."""
        _call("DELETE", self._session)


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser whose profile is in `folder`."""
    assert DRIVER is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([DRIVER, f"--port={port}"], **quiet) as driver:  # type: ignore[call-overload]
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address)
            browser = Browser(address, folder / "profile")
            try:
                yield browser
            finally:
                browser.close()
        finally:
            driver.terminate()


def _wait_for(address: str) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            _call("GET", f"{address}/status")
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _call(method: str, address: str, data: Any = None) -> Any:
    body = None if data is None else json.dumps(data).encode()
    asked = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method=method)
    try:
        with _OPENER.open(asked, timeout=2 * _PATIENCE) as answer:
            return json.loads(answer.read())["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"chromedriver: {error.read().decode()[:500]}") from error


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # nothing here leaves the machine
