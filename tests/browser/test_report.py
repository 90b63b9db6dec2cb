"""The report and the page of a comparison in a browser: every plot is drawn, nothing is fetched, nothing of a model's runs.

Debian: ``apt-get install chromium chromium-driver`` and ``pip install selenium``. CHROMIUM and CHROMEDRIVER name others.
"""

import json
import os
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from quatrain.diagnostics.comparison import Comparison, Metric, Outcome
from quatrain.diagnostics.report import write_report
from tests.diagnostics.synthetic import HOSTILE, make_run

WIDTHS = {"laptop": 1280, "phone": 390}

DRAWN = """
const visible = path => {
  const box = path.getBoundingClientRect();
  return path.getAttribute("d").length > 4 && box.width + box.height > 0;
};
return [...document.querySelectorAll(".plotly-graph-div")].map(plot => ({
  title: plot.getAttribute("aria-label"),
  width: plot.getBoundingClientRect().width,
  lines: [...plot.querySelectorAll(".scatterlayer path.js-line, .scatterlayer path.point")].filter(visible).length,
  ticks: plot.querySelectorAll(".xtick text").length,
}));
"""


def program(variable: str, *names: str) -> str:
    found = os.environ.get(variable) or next((path for path in map(shutil.which, names) if path), None)
    if not found:
        pytest.fail(
            f"the browser tests need {names[0]}: apt-get install chromium chromium-driver, or name one in ${variable}",
            pytrace=False,
        )
    return found


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = program("CHROMIUM", "chromium", "chromium-browser", "google-chrome")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(program("CHROMEDRIVER", "chromedriver")))
    yield driver
    driver.quit()


PLOTS = {"one run": 18, "two runs": 18, "a comparison": 5}
"""What pages there are, and how many plots they have at least."""


@pytest.fixture(scope="module", params=list(PLOTS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def page(kind, tmp_path_factory):
    """The path of a report on one run or on two, or of a comparison."""
    folder = tmp_path_factory.mktemp("runs")
    if kind == "a comparison":
        arms = {HOSTILE: "grpo", "dapo": "dapo"}
        found = [
            Outcome.of(arm, seed, make_run(folder / f"{method}-{seed}", method=method, seed=seed))
            for arm, method in arms.items()
            for seed in range(3)
        ]
        Comparison(found, Metric()).write(folder / "report.html", HOSTILE, [{"verdict": "held", "text": HOSTILE}])
        return folder / "report.html"
    runs = [make_run(folder / "grpo-1")]
    if kind == "two runs":
        runs.append(make_run(folder / "dapo-1", method="dapo", seed=1))
    write_report(runs, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(params=list(WIDTHS))
def width(request, browser, page):
    """The page is open in a window of this width and has been drawn."""
    wide = WIDTHS[request.param]
    size = {"width": wide, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(page.as_uri())
    WebDriverWait(browser, 30).until(lambda driver: driver.execute_script("return document.documentElement.dataset.drawn"))
    return wide


def test_every_plot_is_drawn(browser, width, kind):
    plots = browser.execute_script(DRAWN)
    assert len(plots) >= PLOTS[kind]
    assert not [plot for plot in plots if not plot["lines"] or not plot["ticks"]]
    assert all(200 < plot["width"] <= width for plot in plots)


def test_nothing_sticks_out(browser, width):
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_console_is_silent(browser, width):
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_nothing_is_fetched(browser, width, page):
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked
    assert [url for url in asked if url != page.as_uri() and not url.startswith(("data:", "blob:"))] == []


def test_what_a_model_wrote_is_shown_and_does_not_run(browser, width, kind):
    assert browser.execute_script("return document.images.length") == 0
    where = "h1" if kind == "a comparison" else "pre.text"
    shown = browser.execute_script(f"return [...document.querySelectorAll('{where}')].map(element => element.textContent)")
    assert HOSTILE in shown


def test_runs_can_be_hidden(browser, width, page):
    buttons = browser.execute_script("return [...document.querySelectorAll('.runs button')]")
    if not buttons:
        pytest.skip("a report on one run has no such buttons")
    count = "return document.querySelector('.plotly-graph-div').querySelectorAll('.scatterlayer .trace path.js-line').length"
    before = browser.execute_script(count)
    browser.execute_script("arguments[0].click()", buttons[1])
    WebDriverWait(browser, 10).until(lambda driver: driver.execute_script(count) < before)
    assert buttons[1].get_attribute("aria-pressed") == "false"


def test_the_plots_follow_the_color_scheme(browser, width):
    read = "return getComputedStyle(document.querySelector('.xtick text')).fill"
    light = browser.execute_script(read)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    try:
        WebDriverWait(browser, 10).until(lambda driver: driver.execute_script(read) != light)
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
