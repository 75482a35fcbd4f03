"""The page as a browser shows it: Chromium or Chrome without a screen, over its debugging protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import choreographer
import pytest
from choreographer.browsers.chromium import Chromium
from PIL import Image
from tiny_study import METRIC, complete, events, searching, tiny

from sweep.analysis.report import page, pictures
from sweep.analysis.report.page import Written
from sweep.domains import Uniform
from sweep.errors import StudyError
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.search_space import OneOf
from sweep.study import Asha
from sweep.tracking.journal import Journal

BROWSER = Chromium.find_browser(skip_local=False)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome here: apt install chromium")
DRAWN = "[...document.querySelectorAll('.plot')].map(p => !!p.querySelector('.main-svg .cartesianlayer, .parcoords'))"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@dataclass
class Seen:
    """What came of opening a page in one way."""

    drawn: list[bool]
    overflow: int  # pixels that the page is wider than its window
    background: str
    text: str
    ink: str  # of a figure's text
    complaints: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Five real trials, one of which trains within another radius."""
    defenses = OneOf(standard={}, adversarial_training={"epsilon": Uniform(0.01, 0.1), "attack": "fgsm"})
    stopping = Asha(grace_period=1, reduction_factor=2)
    study = tiny(space={"defense": defenses, "epochs": 2}, budget={"trials": 5}, early_stopping=stopping)
    root = tmp_path_factory.mktemp("small")
    with searching(root, study) as search:
        in_process.run(search)
    return page.write(StudyFolder.find(root, "tiny"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A thousand trials, told: each like the first, but for its learning rate and its value."""
    root = tmp_path_factory.mktemp("large")
    with searching(root, tiny(budget={"trials": 1_000})) as search:
        complete(search, 0.3, 0.5)
    folder = StudyFolder.find(root, "tiny")
    told = events(folder.path, "asked", "started", "reported", "ended")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda _: None)  # four thousand of which take minutes
        journal = Journal(folder.journal)
        for number in range(1, 1_000):
            for event in told:
                journal.append(**_varied(event, number))
        journal.close()
    return page.write(folder)


def _varied(event: dict[str, Any], number: int) -> dict[str, Any]:
    kept = {key: value for key, value in event.items() if key not in ("time", "trial")}
    value = 0.01 + 0.7 * (number * 0.618 % 1)  # the best in the second epoch, and never above the clean accuracy
    if event["event"] == "asked":
        kept["params"] = event["params"] | {"optimizer.learning_rate": 1e-3 * 300**value}
    for figures in (kept, kept.get("best") or {}):
        if "metrics" in figures:
            reached = value if figures["epoch"] == 2 else value / 2
            figures["metrics"] = figures["metrics"] | {METRIC: reached, "validation/clean_accuracy": 1 - value / 3}
    return {**kept, "trial": number}


async def _opened(written: Written, views: Sequence[tuple[int, str]]) -> list[Seen]:
    async with choreographer.Browser(headless=True) as browser:
        return [await _seen(browser, written.path, width, scheme) for width, scheme in views]


async def _seen(browser: Any, path: Path, width: int, scheme: str) -> Seen:
    tab = await browser.create_tab("about:blank")
    complaints, requests, loaded = [], [], asyncio.Event()

    async def complain(message: dict[str, Any]) -> None:
        params = message["params"]
        if "exceptionDetails" in params or params.get("type") == "error":
            complaints.append(str(params))

    async def request(message: dict[str, Any]) -> None:
        requests.append(message["params"]["request"]["url"])

    async def load(_: dict[str, Any]) -> None:
        loaded.set()

    for name, callback in (
        ("Runtime.exceptionThrown", complain),
        ("Runtime.consoleAPICalled", complain),
        ("Network.requestWillBeSent", request),
        ("Page.loadEventFired", load),
    ):
        tab.subscribe(name, callback)
    for domain in ("Runtime", "Network", "Page"):
        await tab.send_command(f"{domain}.enable")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    await tab.send_command("Emulation.setDeviceMetricsOverride", params=size)
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    await tab.send_command("Emulation.setEmulatedMedia", params=feature)
    await tab.send_command("Page.navigate", params={"url": path.as_uri()})
    await asyncio.wait_for(loaded.wait(), 120)

    async def of(expression: str) -> Any:
        asked = {"expression": expression, "returnByValue": True}
        return (await tab.send_command("Runtime.evaluate", params=asked))["result"]["result"]["value"]

    style = "getComputedStyle(document.body)"
    seen = Seen(
        drawn=await of(DRAWN),
        overflow=await of(OVERFLOW),
        background=await of(f"{style}.backgroundColor"),
        text=await of(f"{style}.color"),
        ink=await of("getComputedStyle(document.querySelector('.plot .xtick text')).fill"),
        complaints=complaints,
        requests=requests,
    )
    await browser.close_tab(tab.target_id)
    return seen


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("name", ["small", "large"])
def test_every_figure_draws_wide_and_narrow_in_the_light_and_in_the_dark(
    name: str, request: pytest.FixtureRequest
) -> None:
    written: Written = request.getfixturevalue(name)
    assert written.path.stat().st_size < 15e6
    views = [(1400, "light"), (400, "dark")]
    for (width, scheme), seen in zip(views, asyncio.run(_opened(written, views)), strict=True):
        assert seen.complaints == []
        assert len(seen.drawn) == sum(len(drawn.panels) for drawn in written.figures.values()) >= 5
        assert all(seen.drawn), (width, scheme)
        assert seen.overflow <= 0, f"{width} pixels: wider than the window by {seen.overflow}"
        assert (seen.background == "rgb(255, 255, 255)") == (scheme == "light")
        assert seen.ink == seen.text
        assert {address.split(":")[0] for address in seen.requests} <= {"file", "data", "blob"}


@needs_browser
def test_figures_become_pictures(small: Written) -> None:
    (small.path.parent / "report" / "gone.png").touch()
    some = {name: small.figures[name] for name in ("security-curves", "reliability")}
    written = pictures.write(small.path.parent, some, small.exhibits)
    names = ["security-curves.png", "reliability-1.png", "reliability-2.png", "examples.png"]
    assert [path.name for path in written] == names
    assert sorted((small.path.parent / "report").glob("*.png")) == sorted(written)
    with Image.open(small.path.parent / "report" / "security-curves.png") as picture:
        assert picture.width == 1500
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 50


def test_without_a_browser_it_is_said_what_to_install(small: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chromium")
    with pytest.raises(StudyError, match="install Debian's `chromium`"):
        pictures.write(small.path.parent, small.figures, small.exhibits)
