#!/usr/bin/env python3
"""The page in headless Chromium at a phone's size, by the WebDriver protocol.

Skipped by name without Debian's chromium and chromium-driver. A screenshot goes
to $SACCADE_TEST_OUT (else the working folder) as page.png.
"""
import base64
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

from harness import binary, case, data, folder, main, need, Server, Skip, SLOW

PHONE = {"width": 390, "height": 844, "pixelRatio": 2.0, "mobile": True}
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name of a reference


class Browser:
    """One session of a chromedriver of our own. A context manager."""

    def __init__(self):
        driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
        if not driver or not chromium:
            raise Skip("no chromium and chromium-driver")
        self.log = open(os.path.join(folder(), "chromedriver.log"), "wb")
        self.process = subprocess.Popen([driver, "--port=0"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.base = None
        for line in self.process.stdout:
            found = re.search(r"started successfully on port (\d+)", line)
            if found:
                self.base = "http://127.0.0.1:" + found.group(1)
                break
        need(self.base, "chromedriver did not start")
        profile = os.path.join(folder(), "profile")
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic",
                     "--no-first-run", "--disable-background-networking",
                     "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
                     "--window-size=%d,%d" % (PHONE["width"], PHONE["height"]),
                     "--user-data-dir=" + profile]
        options = {"args": arguments, "binary": chromium,
                   "mobileEmulation": {"deviceMetrics": PHONE}}
        self.session = ""
        made = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.session = "/session/" + made["sessionId"]

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            self.base + (self.session if self.session else "") + path, method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode(errors="replace")[:500]) from None

    def go(self, url):
        self.call("POST", "/url", {"url": url})

    def find(self, css):
        return self.call("POST", "/element", {"using": "css selector", "value": css})[ELEMENT]

    def type_into(self, css, text):
        self.call("POST", "/element/%s/value" % self.find(css), {"text": text})

    def click(self, css):
        self.call("POST", "/element/%s/click" % self.find(css), {})

    def script(self, text):
        return self.call("POST", "/execute/sync", {"script": text, "args": []})

    def wait(self, what, text, seconds=30):
        """Waits until the script's value is true."""
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end:
            if self.script("return " + text):
                return
            time.sleep(0.1)
        raise AssertionError("%s: not within %g s; the page says: %s" % (
            what, seconds * SLOW, self.script("return document.body.innerText")))

    def console(self):
        return self.call("POST", "/se/log", {"type": "browser"})

    def screenshot(self, name):
        out = os.environ.get("SACCADE_TEST_OUT", ".")
        with open(os.path.join(out, name), "wb") as file:
            file.write(base64.b64decode(self.call("GET", "/screenshot")))

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        try:
            self.call("DELETE", "")
        except (AssertionError, OSError):
            pass
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()
        self.log.close()


FIVE_BARS = "document.querySelectorAll('#labels li .bar').length === 5"


def unexpected(entries, restarted=False):
    """Console entries that are errors. While the server was away, the browser
    itself reports the connections that it could not make; nothing else may."""
    return [e for e in entries if e["level"] in ("SEVERE", "WARNING") and not (
        restarted and e["source"] == "network" and "ERR_CONNECTION" in e["message"])]


@case("on a phone: choose a picture, five bars, a server that restarts, no console error")
def _():
    server = Server()
    port = server.port
    with Browser() as browser:
        browser.go(server.url("/"))
        browser.wait("the page is ready", "document.querySelector('#connection').dataset.state"
                                          " === 'good'")
        wide = browser.script("return document.documentElement.scrollWidth")
        need(wide <= PHONE["width"], "the page is wider than the phone:", wide)
        browser.type_into("#choose", data("images/cat.jpg"))
        browser.wait("five bars", FIVE_BARS)
        first = browser.script("return document.querySelector('#labels li .name').textContent")
        need("tabby" in first, first)
        widths = browser.script("return [...document.querySelectorAll('#labels li .percent')]"
                                ".map(e => parseFloat(e.textContent))")
        need(widths == sorted(widths, reverse=True) and widths[0] > 20, widths)
        time.sleep(0.5)  # the bars grow
        browser.screenshot("page.png")
        need(not unexpected(browser.console()), browser.console())

        need(server.stop() == 0)
        browser.type_into("#choose", data("images/fish-bike.jpg"))
        browser.wait("the page says that the server is away",
                     "document.querySelector('#connection').dataset.state === 'bad'")
        browser.screenshot("page-away.png")
        with Server(port=port):
            browser.wait("the page finds the server again", "document.querySelector("
                         "'#connection').dataset.state === 'good'")
            browser.wait("the picture that was owed has its bars", FIVE_BARS)
            entries = browser.console()
            need(not unexpected(entries, restarted=True), entries)


@case("a picture of 8 megapixels is made small before it leaves the phone")
def _():
    with Server() as server, Browser() as browser:
        browser.go(server.url("/"))
        browser.type_into("#choose", data("images/jpeg/iphonecity.jpg"))
        browser.wait("five bars", FIVE_BARS)
        sent = browser.script("return performance.getEntriesByType('resource')"
                              ".filter(e => e.name.includes('/api/classify')).length")
        need(sent == 1, sent)
        text = browser.script("return document.querySelector('#timing').textContent")
        size = re.match(r"([\d.]+) (kB|MB)", text)
        need(size and size.group(2) == "kB" and float(size.group(1)) < 600, text)
        need(not unexpected(browser.console()), browser.console())


if __name__ == "__main__":
    main()
