"""The live page and the exported file in a real browser, over a real sweep at scale smoke."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import TimeoutError as TooLate

from analysis.studies.study import list_studies
from gigatok.names import quantity
from tests.dashboards.serving import ROOT, launch_command, serve, serve_actions

pytestmark = pytest.mark.slow
VIEWS = {
    "Study": "1 claim: ",
    "Scaling": "Hover over a point",
    "Curves": "a click in the legend",
    "Trial": "Reconstructions: originals above",
    "Compare": "Best of each",
}
BANDS, LEGEND = ".stVegaLiteChart .mark-area path", ".stVegaLiteChart .role-legend-label text"
STATE = "document.querySelector('[data-testid=stApp]').dataset.testScriptState"
"""What the page's script does: `notRunning` or another word."""
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def page_of(browser, size=None, scheme="light"):
    """A page that must log no error, break nowhere and ask no other machine for anything."""
    context = browser.new_context(viewport=size or DESKTOP, color_scheme=scheme)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if _is_away(request) else None)
    try:
        yield page
        assert page.get_by_test_id("stException").count() == 0
        assert wrong == []
    finally:
        context.close()


def _is_away(request) -> bool:
    near = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "file:")
    return not request.url.startswith(near)


def see(page, text: str) -> None:
    page.get_by_text(text).first.wait_for(timeout=180_000)


def fits(page) -> bool:
    """Whether nothing sticks out to the right."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.fixture(scope="module")
def live(finished):
    with serve(finished) as address:
        yield address


@pytest.mark.parametrize(
    ("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "dark-phone"]
)
def test_every_view_of_a_finished_sweep(browser, live, size, scheme):
    with page_of(browser, size, scheme) as page:
        page.goto(live)
        for view, text in VIEWS.items():
            open_view(page, view)
            see(page, text)
            see(page, "What does a larger decoder buy?")
            settled(page)
            assert fits(page)
            contrast = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}
            found = Axe().run(page, options=contrast).response["violations"]
            assert [node["html"] for one in found for node in one["nodes"]] == []
            assert weak_texts(page) == []
        background = page.evaluate("getComputedStyle(document.querySelector('.stApp')).color")
        assert (brightness(background) > 0.5) == (scheme == "dark")


def open_view(page, view: str) -> None:
    answered(page, page.get_by_test_id("stButtonGroup").get_by_text(view, exact=True))


def answered(page, place) -> None:
    """Click, and wait for the answer: a click that comes before it may be forgotten over it."""
    place.click()
    # The answer may be there before anybody looks.
    with suppress(TooLate):
        page.wait_for_function(f"{STATE} !== 'notRunning'", timeout=500)
    page.wait_for_function(f"{STATE} === 'notRunning'", timeout=180_000)
    settled(page)


def settled(page) -> None:
    page.wait_for_function("!document.querySelector('[data-stale=true]')")


def brightness(colour: str) -> float:
    """Mean of the channels of `rgb(...)`, from 0 to 1."""
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 / 255


def weak_texts(page) -> list[str]:
    """The texts of charts with a contrast below 4.5:1 to the page; axe looks at no SVG."""
    return page.evaluate(
        """() => {
        const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
          .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
          .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
        const page = light(numbers(getComputedStyle(document.querySelector(".stApp"))
          .backgroundColor));
        const texts = document.querySelectorAll(".stVegaLiteChart svg text");
        return [...texts].filter(text => text.textContent).filter(text => {
          const own = light(numbers(getComputedStyle(text).fill));
          return (Math.max(own, page) + .05) / (Math.min(own, page) + .05) < 4.5;
        }).map(text => text.textContent);
        }"""
    )


def click_in_grid(page, right: float, down: float) -> None:
    """Click on a place of the first table, which is one canvas below what scrolls it."""
    grid = page.get_by_test_id("stDataFrame").first
    # The figure above it comes later, and moves it.
    page.locator(".stVegaLiteChart svg").first.wait_for()
    grid.locator("canvas").first.wait_for()
    grid.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    box = grid.bounding_box()
    page.mouse.click(box["x"] + right, box["y"] + down)


def drag_over(page, mark) -> None:
    """Drag a small box around a mark."""
    mark.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    box = mark.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 10, y - 12)
    page.mouse.down()
    page.mouse.move(x + 10, y + 12, steps=4)
    page.mouse.up()


def test_a_row_opens_its_trial(browser, live):
    with page_of(browser) as page:
        page.goto(live)
        see(page, "1 claim: ")
        click_in_grid(page, 300, 52)  # below the head, in the first row
        see(page, "Reconstructions: originals above")
        assert page.get_by_role("combobox", name="Trial", exact=True).input_value() == "S-S seed=0"


def test_a_search_and_numbers_that_sort_as_numbers(browser, live, finished):
    (title,) = (t for t in list_studies(f"sqlite:///{finished}/mlflow.db") if t.is_search)
    with page_of(browser) as page:
        page.goto(f"{live}/?{urlencode({'study': title.name})}")
        see(page, "Best of 2 trials of the sampler grid")
        grid = page.get_by_test_id("stDataFrame").first
        heads = grid.locator("[role=columnheader]")
        heads.filter(has_text="tokenizer.steps").wait_for(state="attached")
        column = heads.all_text_contents().index("tokenizer.steps")
        seen = []
        for _ in range(2):  # ascending, then descending
            click_in_grid(page, 190, 16)
            page.wait_for_timeout(500)
            steps = grid.locator(f"[role=gridcell][aria-colindex='{column + 1}']")
            seen.append(steps.all_text_contents())
        assert seen == [["8", "12"], ["12", "8"]]
        open_view(page, "Search")
        see(page, "Best trial")
        parallel = page.locator(".stVegaLiteChart svg").first
        parallel.get_by_text("tokenizer.steps").wait_for()
        drag_over(page, parallel.locator(".mark-symbol path").first)
        pale = parallel.locator(".mark-line path[opacity='0.08']")
        pale.wait_for(state="attached")  # a level line has no height
        assert pale.count() == 1  # the other trial crosses the axis there
        see(page, "PSNR (dB) of each trial")
        page.get_by_role("button", name="Open the trial").click()
        see(page, "Reconstructions: originals above")


def test_curves_of_settings_with_bands_and_of_every_seed(browser, live):
    address = f"{live}/?view=Curves&curve=train+tokenizer%3A+train%2Floss&smoothing=0.5&log_y=true"
    with page_of(browser) as page:
        page.goto(address)
        see(page, "Band: half the range over seeds")
        chart = page.locator(".stVegaLiteChart svg")
        bands, legend = chart.locator(".mark-area path"), chart.locator(".role-legend-label text")
        legend.nth(1).wait_for()
        assert legend.all_text_contents() == ["S-S", "S-L"]
        assert bands.count() == 2
        legend.first.click()  # hides a curve, and again shows it
        page.wait_for_function(f"document.querySelectorAll('{BANDS}').length == 1")
        legend.first.click()
        page.wait_for_function(f"document.querySelectorAll('{BANDS}').length == 2")
        chart.locator(".mark-rect path").first.hover()
        tooltip = page.locator("#vg-tooltip-element.visible")
        assert "S-L" in tooltip.text_content(timeout=10_000)
        page.get_by_text("Mean", exact=True).click()
        page.wait_for_function(f"document.querySelectorAll('{LEGEND}').length == 4")
        assert bands.count() == 0
        assert "means=false" in page.url
        assert "smoothing=0.5" in page.url


def test_an_address_names_plot_axes_and_part(browser, live):
    axes = {"x": quantity("params_total").heading, "y": quantity("ar_val_loss").heading}
    with page_of(browser) as page:
        page.goto(f"{live}/?{urlencode({'view': 'Scaling', 'plot': 'Own axes', **axes})}")
        titles = page.locator(".stVegaLiteChart .role-axis-title text")
        titles.nth(1).wait_for()
        assert titles.all_text_contents() == [axes["x"], axes["y"]]
        page.goto(f"{live}/?view=Trial&trial=S-L+seed%3D1&part=Origin")
        see(page, "trial key")
        assert page.get_by_role("combobox", name="Trial", exact=True).input_value() == "S-L seed=1"


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}", 101),
        ("localhost:{port}", "http://localhost:{port}", 101),  # the far end of `ssh -L`
        ("evil.example:{port}", "http://evil.example:{port}", 403),  # DNS rebinding
        ("evil.example", "http://evil.example", 403),
        ("127.0.0.1:{port}", "http://evil.example", 403),
        ("evil.example:{port}", "http://127.0.0.1:{port}", 403),
    ],
)
def test_the_page_answers_to_its_own_names_only(live, host, origin, status):
    port = live.rpartition(":")[2]
    request = (
        "GET /_stcore/stream HTTP/1.1\r\n"
        f"Host: {host}\r\nOrigin: {origin}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as line:
        line.sendall(request.format(port=port).encode())
        assert line.recv(100).startswith(f"HTTP/1.1 {status}".encode())


def test_a_point_leads_to_its_trial(browser, live):
    with page_of(browser) as page:
        page.goto(f"{live}/?view=Scaling")
        see(page, "Hover over a point")
        # The last one is no seed's, which a mean may cover.
        page.locator(".stVegaLiteChart .mark-symbol[role=graphics-object] path").last.click()
        see(page, "Open in MLflow")
        link = page.get_by_role("link", name="Open in MLflow").get_attribute("href")
        run_id = link.rpartition("/")[2]
        assert re.match(r"http://127.0.0.1:5000/#/experiments/\d+/runs/\w+\?workflowType", link)
        page.get_by_role("button", name="Open the trial").click()
        see(page, "Reconstructions: originals above")
        link = page.get_by_role("link", name="Open in MLflow").get_attribute("href")
        assert link.endswith(run_id)


def test_what_is_looked_at_closely_stays_when_the_page_runs_again(browser, live):
    with page_of(browser) as page:
        page.goto(f"{live}/?view=Scaling")
        chart, ticks = page.locator(".stVegaLiteChart svg"), ".role-axis-label text"
        chart.locator(ticks).first.wait_for()
        settled(page)
        texts = lambda: sorted(chart.locator(ticks).all_text_contents())  # noqa: E731
        whole = texts()
        chart.hover()
        page.mouse.wheel(0, 100)  # scrolls the page
        page.wait_for_timeout(500)
        assert texts() == whole
        chart.hover()
        page.keyboard.down("Control")
        page.mouse.wheel(0, -400)
        page.keyboard.up("Control")
        page.wait_for_timeout(1000)
        settled(page)
        close = texts()
        assert close != whole
        # The chart is another: with a series more.
        page.get_by_text("Front", exact=True).click()
        chart.get_by_text("Pareto front").wait_for(timeout=180_000)
        assert texts() == close


def test_the_paper_is_drawn_and_a_fit_to_two_sizes_refused(browser, live):
    with page_of(browser) as page:
        page.goto(f"{live}/?view=Scaling&plot=Latent+complexity&paper=true")
        see(page, "Hover over a point")
        see(page, "paper Figure 7 1D +reg")
        page.get_by_role("combobox").nth(2).click()
        page.get_by_text("Power law").click()
        see(page, "A fit needs 3 different values")


def test_parts_of_a_trial(browser, live):
    shown = {
        "Curves": "text=train tokenizer",
        "Codebook": "text=How many codes are used how often",
        "Results": "[data-testid=stDataFrame]",
        "Origin": "text=trial key",
        "Diff": "text=Against",
    }
    with page_of(browser) as page:
        page.goto(f"{live}/?view=Trial")
        for tab, what in shown.items():
            answered(page, page.get_by_role("tab", name=tab))
            # Only what stands in the open part: the name of a part is always visible.
            part = page.locator("[role=tabpanel]:visible")
            part.locator(what).first.wait_for(timeout=180_000)


def test_a_slider_goes_over_the_steps_of_pictures(browser, live):
    with page_of(browser) as page:
        page.goto(f"{live}/?view=Trial")
        see(page, "Step of train tokenizer")
        settled(page)
        # The last of the page: those of the training stand below the others.
        shown = "[...document.querySelectorAll('[data-testid=stImage] img')].at(-1).src"
        newest = page.evaluate(shown)
        page.get_by_role("slider").last.press("ArrowLeft")
        page.wait_for_function(f"newest => {shown} != newest", arg=newest, timeout=180_000)
        assert "step_train_tokenizer_reconstructions=" in page.url


def test_files_are_made_when_asked_for(browser, live):
    with page_of(browser) as page:
        page.goto(f"{live}/?view=Scaling")
        see(page, "Hover over a point")
        for button, start in (("PDF", b"%PDF"), ("CSV", b"chart,series")):
            with page.expect_download(timeout=120_000) as download:
                page.get_by_role("button", name=button, exact=True).click()
            with open(download.value.path(), "rb") as file:
                assert file.read(len(start)) == start


def test_the_page_follows_a_running_sweep(browser, tmp_path):
    command, environment = launch_command(tmp_path)
    # Long enough for a look at every view.
    command += ["--set", "tokenizer.steps=300"]
    runs = tmp_path / "runs"
    with serve(runs) as address, page_of(browser) as page:
        page.goto(address)
        see(page, "Nothing to show")
        see(page, "no tracking database")
        launch = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        try:
            see(page, "Running now")
            see(page, "Time left: ")
            see(page, "spent ")  # the launcher's own sentence
            for view in ("Scaling", "Trial", "Compare", "Study"):
                open_view(page, view)
                settled(page)
            see(page, "Running now")
            assert launch.wait(900) == 0
            see(page, "stages complete: 4 trials")
            see(page, "at scale smoke · complete")
        finally:
            if launch.poll() is None:
                launch.send_signal(signal.SIGINT)
                launch.wait(60)


def stop(page) -> None:
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Stop the sweep").click()


def test_a_sweep_is_stopped_and_retried_with_the_token_alone(browser, tmp_path):
    command, environment = launch_command(tmp_path, "long")
    launch = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        with serve_actions(tmp_path / "runs") as (address, token), page_of(browser) as page:
            page.set_default_timeout(180_000)
            page.goto(f"{address}/?token=guessed")
            see(page, "Running now")
            assert page.get_by_role("button", name="Stop").count() == 0
            page.goto(f"{address}/?token={token}")
            stop(page)
            assert "token" not in page.url
            see(page, "stages cancelled")
            assert launch.wait(300) == 130
            retry = page.get_by_role("button", name="Retry what did not complete")
            retry.click()
            see(page, "A launch has begun")
            see(page, "Running now")
            stop(page)  # the launch is the page's: it would go on behind the test
            retry.wait_for()
    finally:
        if launch.poll() is None:
            launch.send_signal(signal.SIGINT)
            launch.wait(60)


def test_a_failure_shows_its_log(browser, tmp_path):
    command, environment = launch_command(tmp_path)
    command += ["--set", "tokenizer.lr=1e30"]
    failed = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
    assert failed.returncode == 1
    with serve(tmp_path / "runs") as address, page_of(browser) as page:
        page.goto(address)
        see(page, "Failures (4)")
        see(page, "upstream failed")
        page.get_by_text("Last log lines").first.click()
        log = page.get_by_test_id("stCode").filter(has_text="NonFiniteLoss: loss is nan")
        log.first.wait_for(timeout=180_000)


def test_files_outside_the_runs_directory_are_not_shown(browser, runs_copy, tmp_path):
    """A link in a runs directory that somebody gave us shows nothing else of this machine."""
    (runs_copy / "mlartifacts").rename(tmp_path / "elsewhere")
    (runs_copy / "mlartifacts").symlink_to(tmp_path / "elsewhere")
    with serve(runs_copy) as address, page_of(browser) as page:
        page.goto(f"{address}/?view=Trial")
        see(page, "lies outside")
        assert page.get_by_test_id("stImage").count() == 0


def test_a_server_that_is_away(browser, tmp_path):
    with (
        serve(tmp_path, "--tracking-uri", "http://127.0.0.1:9") as address,
        page_of(browser) as page,
    ):
        page.goto(address)
        see(page, "no tracking server answers")


def test_the_exported_file_needs_nothing_else(browser, finished, tmp_path):
    file = tmp_path / "study.html"
    command = [*launch_command(tmp_path)[0][:2], "dashboards", "export", "study"]
    subprocess.run(
        [*command, "--runs-dir", str(finished), "--out", str(file)], cwd=ROOT, check=True
    )
    assert file.read_text().count("window.vegaEmbed") == 1
    for size in (DESKTOP, PHONE):
        with page_of(browser, size) as page:
            page.goto(file.as_uri())
            page.locator("summary", has_text="S-L seed=0").first.click()
            curves = page.locator("details[open] .grid .chart svg")
            curves.first.wait_for()
            assert page.locator(".chart svg").count() > curves.count() > 2
            assert page.locator("img").count() == 8
            assert fits(page)
