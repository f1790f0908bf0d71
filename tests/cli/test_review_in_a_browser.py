"""A review in a real browser: what is pressed and clicked is what is decided."""

import shutil

import pytest
from reviewing import Server

from robustdiff.review.decisions import Decision, Decisions
from robustdiff.runs.folder import Run

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no Chromium here")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1200,900",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """The page of a review, and what it has decided so far."""

    def __init__(self, browser, server):
        self.browser, self.server = browser, server
        self.expected = {}
        self.items = server.ask("/api/page?size=200")["items"]
        browser.get(server.address)
        browser.execute_script("localStorage.clear()")
        browser.get(server.address)
        self.wait(lambda: self.text("place") == "1 of 20")

    def find(self, name):
        return self.browser.find_element(By.ID, name)

    def text(self, name):
        return self.find(name).text

    def wait(self, condition):
        """Wait until something is so; the page draws elements anew meanwhile."""
        waiting = WebDriverWait(
            self.browser, 10, 0.02, ignored_exceptions=[StaleElementReferenceException]
        )
        return waiting.until(lambda _: condition())

    def press(self, *keys):
        self.browser.switch_to.active_element.send_keys(*keys)

    def expect(self, item, action, label=None):
        """The page shows as many decisions as there should be, and disk holds these."""
        self.expected[item["number"]] = Decision(item["number"], action, label)
        self.check()

    def check(self):
        wanted = f"{len(self.expected)} of 20 suspects decided"
        self.wait(lambda: self.text("progress").startswith(wanted))
        with Decisions(Run(self.server.run)) as decisions:
            assert decisions.latest() == self.expected


@pytest.fixture(scope="module")
def server(audited, tmp_path_factory):
    audit = shutil.copytree(audited[1], tmp_path_factory.mktemp("review") / "audit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(audited[0].parent / "cache"))
        server = Server(audit)
    yield server
    server.end()


@pytest.fixture
def page(browser, server):
    with Decisions(Run(server.run)) as decisions:
        while decisions.undo():
            pass
    yield Page(browser, server)
    # A name that was taken for markup, or content from elsewhere, would show here.
    assert [entry for entry in browser.get_log("browser") if "410" not in entry["message"]] == []


def test_a_person_decides_by_keys_and_clicks(page):
    items = page.items
    assert page.browser.current_url == page.server.root + "/"
    assert page.browser.find_elements(By.CSS_SELECTOR, "#names bdi")[0].text == "<script>alert(1)<"

    page.press("s")
    page.expect(items[0], "relabel", items[0]["predicted"])
    page.wait(lambda: page.text("place") == "2 of 20")

    page.press("c")
    page.wait(lambda: page.find("chooser").is_displayed())
    page.press("quotes")
    page.wait(lambda: len(page.browser.find_elements(By.CSS_SELECTOR, "#classes li")) == 1)
    page.press(Keys.ENTER)
    quotes = page.server.ask("/api/start")["classes"].index('with "quotes" & more')
    page.expect(items[1], "relabel", quotes)

    page.find("remove").click()
    page.expect(items[2], "remove")
    page.press("k")
    page.expect(items[3], "keep")
    page.press("u")
    page.expect(items[4], "unsure")

    page.press("z")
    del page.expected[items[4]["number"]]
    page.check()
    page.wait(lambda: page.text("place") == "5 of 20")
    page.press(Keys.ARROW_LEFT, "r")
    page.expect(items[3], "remove")
    page.press("z")
    page.expect(items[3], "keep")

    page.find("undecided").click()
    page.wait(lambda: page.text("place") == "1 of 16")
    page.press("k")
    page.expect(items[4], "keep")


def test_filters_and_the_threshold(page):
    page.press("g")
    page.wait(lambda: page.text("place") == "1 to 20 of 20")
    page.browser.find_elements(By.CSS_SELECTOR, "#pairs button")[1].click()
    page.wait(lambda: page.text("place") == "1 to 4 of 4")
    pair = page.server.ask("/api/pairs")[1]
    shown = [item for item in page.items if item["given"] == pair["given"]]
    cards = page.browser.find_elements(By.CSS_SELECTOR, ".card")
    assert [int(card.get_attribute("data-number")) for card in cards] == [
        item["number"] for item in shown
    ]
    cards[2].click()
    page.find("keep").click()
    page.expect(shown[2], "keep")
    page.find("words").send_keys("nowhere")
    page.wait(lambda: len(page.browser.find_elements(By.CSS_SELECTOR, "#pairs button")) == 1)
    page.browser.find_element(By.CSS_SELECTOR, "#pairs button").click()  # all pairs
    page.wait(lambda: page.text("place") == "1 to 20 of 20")

    page.find("below").send_keys(Keys.HOME)
    page.wait(lambda: page.text("below-value") == "0 %")
    page.wait(lambda: (page.text("low-labels"), page.text("high-labels")) == ("0", "150"))
    page.wait(lambda: page.find("empty").is_displayed())
    for below in (0, 0.5):
        sides = page.server.ask(f"/api/threshold?below={below}")
        page.browser.execute_script(
            "const slider = document.getElementById('below'); slider.value = arguments[0];"
            "for (const kind of ['input', 'change']) slider.dispatchEvent(new Event(kind))",
            1000 * below,
        )
        wanted = f"{sides['above']['wrong']:.0f}"
        page.wait(lambda wanted=wanted: page.text("high-wrong") == wanted)
        assert page.text("low-labels") == str(sides["below"]["labels"])


def test_two_tabs_a_narrow_page_and_themes(page):
    first = page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    page.browser.get(page.server.address)
    page.wait(lambda: page.text("place") == "1 of 20")
    page.press("k")
    page.expect(page.items[0], "keep")
    page.browser.close()
    page.browser.switch_to.window(first)
    page.browser.execute_script("window.dispatchEvent(new Event('focus'))")
    page.check()
    page.press("r")  # the first image, which the other tab has kept
    page.expect(page.items[0], "remove")

    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        for grid in (False, True):
            wide = page.browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= 360, grid
            for name in ("keep", "suggestion", "choose", "remove", "unsure", "undo"):
                place = page.find(name).rect
                assert place["x"] >= 0
                assert place["x"] + place["width"] <= 360
                assert place["y"] + place["height"] <= 640
            page.find("layout").click()
        ground = page.find("one").value_of_css_property("color")
        page.find("theme").click()
        assert page.find("one").value_of_css_property("color") != ground
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_decision_that_is_refused_is_said_and_the_image_stays(page, audited, tmp_path):
    file = audited[0] / page.items[0]["file"]
    file.rename(tmp_path / "away")
    try:
        page.press("k")
        page.wait(lambda: "is gone" in page.text("alert"))
        assert page.text("place") == "1 of 20"
    finally:
        (tmp_path / "away").rename(file)
    page.press("k")
    page.expect(page.items[0], "keep")


def test_a_server_that_is_gone_is_said(browser, audit):
    page = Page(browser, Server(audit))
    page.server.end()
    page.press("k")
    page.wait(lambda: "robustdiff does not answer" in page.text("alert"))
    assert page.text("place") == "1 of 20"
    browser.get_log("browser")  # the connection that was refused
