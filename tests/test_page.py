"""The page of a sweep, opened from disk in Chromium as a reader would; and pages of odd sweeps."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from shared import TINY, Swept, run_command
from written_runs import write_curves, write_figures, write_grid, write_run

from vae_lightning.report import compare
from vae_lightning.runs import Run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
TOLERANCE = 6  # grey values of 255, in the mean over pixels: what blending and WebP may change


@pytest.fixture(scope="module")
def sweep(swept: Swept) -> Path:
    assert f"page       multirun/{swept.folder.name}/report/index.html" in swept.printed
    return swept.folder


@pytest.fixture(scope="module")
def browser() -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


@pytest.fixture
def page(browser, sweep: Path) -> Iterator:
    with opened(browser, sweep) as found:
        yield found


class opened:  # noqa: N801
    """A page that must neither complain nor ask for anything."""

    def __init__(self, browser, sweep: Path, width: int = 1280) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
        self.complaints: list[str] = []
        self.page.on("console", self.said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.complaints.append(request.url) if "://" in request.url else None)
        self.page.goto(f"file://{sweep}/report/index.html")
        self.complaints.remove(f"file://{sweep}/report/index.html")

    def said(self, message) -> None:
        if "willReadFrequently" not in message.text:  # it is the tests that read the canvases
            self.complaints.append(message.text)

    def __enter__(self):
        return self.page

    def __exit__(self, *_: object) -> None:
        self.page.close()
        assert self.complaints == []


def canvas(page, name: str) -> np.ndarray:
    """Pixels `(H, W)` of a canvas."""
    script = """name => { const c = document.getElementById(name);
        return [c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"""
    width, *values = page.evaluate(script, name)
    return np.array(values).reshape(-1, width, 4)[..., 0]


def ready(page) -> None:
    page.wait_for_function("window.latentExplorer && window.latentExplorer.ready()")


@in_browser
def test_the_explorer_shows_what_the_model_decodes(page, sweep: Path) -> None:
    ready(page)
    run = Run(next(sweep.glob("latent_dim-2_seed-0")))
    model = instantiate(OmegaConf.create(run.config["model"]), _convert_="all").eval()
    model.load_state_dict(torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    with np.load(run.explorer_file) as arrays:
        (left, bottom), (right, top) = arrays["box"].tolist()
    page.locator("#map").scroll_into_view_if_needed()
    bounds = page.locator("#map").bounding_box()
    seen = []
    for across, up in [(0.2, 0.3), (0.5, 0.52), (0.83, 0.71)]:
        page.mouse.move(bounds["x"] + across * bounds["width"], bounds["y"] + (1 - up) * bounds["height"])
        x, y = (float(v) for v in re.findall(r"= ([-\d.]+)", page.inner_text("#position").replace("−", "-")))
        assert x == pytest.approx(left + across * (right - left), abs=0.02 * (right - left))
        assert y == pytest.approx(bottom + up * (top - bottom), abs=0.02 * (top - bottom))
        with torch.no_grad():
            expected = model.decode(torch.tensor([[x, y]])).mean[0, 0].numpy() * 255
        seen.append(canvas(page, "decoded"))
        assert np.abs(seen[-1] - expected).mean() < TOLERANCE
    assert not np.array_equal(seen[0], seen[1])
    assert "nearest test image: " in page.inner_text("#nearest-class")


@in_browser
def test_dragging_interpolates(page) -> None:
    ready(page)
    page.locator("#map").scroll_into_view_if_needed()
    bounds = page.locator("#map").bounding_box()
    page.mouse.move(bounds["x"] + 60, bounds["y"] + 60)
    page.mouse.down()
    page.mouse.move(bounds["x"] + 260, bounds["y"] + 200, steps=4)
    page.mouse.up()
    strip, decoded = canvas(page, "strip"), canvas(page, "decoded")
    assert strip.shape == (28, 9 * 28)
    assert np.array_equal(strip[:, -28:], decoded)
    assert not np.array_equal(strip[:, :28], decoded)


@in_browser
def test_by_keyboard(page) -> None:
    ready(page)
    page.focus("#map")
    before = page.inner_text("#position")
    page.keyboard.press("Enter")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert page.inner_text("#position") != before
    assert not np.array_equal(canvas(page, "strip")[:, :28], canvas(page, "strip")[:, -28:])
    page.focus("#theme")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@in_browser
def test_classes_can_be_switched_off(page) -> None:
    ready(page)
    box = page.locator("#map")
    before = box.screenshot()
    boxes = page.locator("#classes input")
    assert boxes.count() == 10
    for number in range(9):
        boxes.nth(number).uncheck()
    assert box.screenshot() != before
    assert page.inner_text("#nearest-class").endswith(page.locator("#classes label").nth(9).inner_text().strip())
    boxes.nth(9).uncheck()
    assert page.inner_text("#nearest-class") == "every class is switched off"


@in_browser
def test_beyond_two_dimensions_there_are_sliders(page) -> None:
    ready(page)
    assert page.locator("#sliders").is_hidden()
    page.select_option("#explored", index=2)
    ready(page)
    assert "two leading principal components" in page.inner_text("#plane")
    sliders = page.locator("#slider-list input")
    assert sliders.count() == 3
    page.wait_for_function("document.getElementById('slide').width === 28")
    before = canvas(page, "slide")
    sliders.nth(0).fill("24")
    page.wait_for_timeout(100)
    assert not np.array_equal(canvas(page, "slide"), before)
    sliders.nth(1).fill("0")
    assert sliders.nth(0).input_value() == "12"  # one at a time


@in_browser
def test_the_slider_goes_through_the_training(page) -> None:
    pictures = page.locator("#grids img")
    assert pictures.count() == 4
    last = pictures.first.get_attribute("src")
    page.fill("#step", "0")
    assert page.inner_text("#step-of") == "step 3"
    assert pictures.first.get_attribute("src") != last


@in_browser
def test_the_table_can_be_sorted_and_explains_itself(page) -> None:
    def column(number: int) -> list[float]:
        cells = page.locator(f"#metrics tbody tr td:nth-child({number + 1})").all()
        return [float(cell.get_attribute("data-value")) for cell in cells]

    head = page.locator("#metrics th", has_text="distortion").first
    button = head.locator("button")
    number = head.evaluate("cell => cell.cellIndex")
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(number) == sorted(column(number))
    button.click()
    assert column(number) == sorted(column(number), reverse=True)
    assert "what reconstruction costs" in page.inner_text("#meaning")
    assert "±" in page.inner_text("#metrics tbody")


def many(folder: Path, count: int) -> None:
    """Runs that differ in their dimension and seed, the last one by a value that a spreadsheet would calculate."""
    runs = [
        write_run(folder / str(number), {"test/elbo": -300.0 + number, "test/mse": 0.5 / (1 + number),
                                         "test/knn_accuracy_pixels": 0.9},
                  model__latent_dim=2 + number, data__name="=1+1" if number == count - 1 else "glyphs")
        for number in range(count)
    ]  # fmt: skip
    compare(runs, folder / "report")


@in_browser
def test_runs_columns_and_axes_are_chosen_and_a_link_keeps_them(browser, tmp_path: Path) -> None:
    many(tmp_path, 5)
    with opened(browser, tmp_path) as page:
        assert page.input_value("#across") == "test/rate"
        assert "as logged by the run" not in page.content()  # latent_dim is a key, and no metric
        page.locator("summary", has_text="Columns").click()
        for name in ("distortion", "knn, pixels"):
            page.locator("#columns label", has_text=name).locator("input").uncheck()
        page.locator("#metrics th", has_text="mse").locator("button").click()
        page.select_option("#across", "model.latent_dim")
        page.select_option("#up", "test/elbo")
        page.fill("#filter", "Glyphs")
        page.wait_for_url("**runs=Glyphs**")
        link = page.url
    found = opened(browser, tmp_path)
    with found as page:
        with page.expect_event("load"):  # opened where the page is shown
            page.goto(link)
        found.complaints.clear()  # of the addresses themselves
        assert page.inner_text("#filtered") == "4 of 5"
        assert page.locator("#metrics tbody tr:visible").count() == 4
        for name in ("distortion", "knn, pixels"):
            assert not page.locator("#metrics th", has_text=name).is_visible()
        assert page.locator("#metrics th", has_text="mse").get_attribute("aria-sort") == "ascending"
        assert page.locator("#any circle").count() == 5
        assert "elbo against latent_dim" in page.inner_text("#any h3")
        with page.expect_download() as download:
            page.click("#csv")
        table = pd.read_csv(download.value.path())
        assert "distortion" not in table
        assert table["mse"].tolist() == pytest.approx([0.125, 1 / 6, 0.25, 0.5])
        page.fill("#filter", "")
        page.locator("summary", has_text="Columns").click()
        page.click("#columns button:has-text('none')")
        assert [cell.inner_text() for cell in page.locator("#metrics th:visible").all()] == ["name", "latent_dim"]
        with page.expect_download() as download:
            page.click("#csv")
        assert '"\'=1+1"' in Path(download.value.path()).read_text()
        page.click("#columns button:has-text('all')")
        assert page.locator("#metrics th", has_text="distortion").is_visible()
        assert "without" not in page.url
        page.set_viewport_size({"width": 360, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.slow
@in_browser
def test_an_option_called_as_a_metric_and_one_that_some_runs_lack(browser, tmp_path: Path) -> None:
    for number, stages in enumerate([10, None, 4, 2]):
        write_run(
            tmp_path / f"{number}", {"test/mse": 0.25 - number / 100}, model__latent_dim=2 + number,
            model__encoder__mse=number, model__encoder__width=stages,
        )  # fmt: skip
    compare(tmp_path)
    with opened(browser, tmp_path) as page:
        assert " 2 4 10 – " in " ".join(page.locator("#parallel text").all_text_contents())
        page.locator("summary", has_text="Columns").click()
        boxes = page.locator("#columns label")
        assert [text.strip() for text in boxes.all_text_contents()].count("mse") == 1
        boxes.get_by_text("mse (metric)", exact=True).locator("input").uncheck()
        heads = page.locator("#metrics th:visible").all_inner_texts()
        assert heads.count("mse") == 1


@pytest.mark.slow
@in_browser
def test_parallel_coordinates_and_charts_as_pictures(browser, tmp_path: Path) -> None:
    many(tmp_path, 8)
    with opened(browser, tmp_path) as page:
        axes = page.locator("#parallel text.name").all_text_contents()
        assert axes == ["name", "latent_dim", "elbo", "rate"]
        assert page.locator("#parallel path:not(.picked)").count() == 8
        box = page.locator("#parallel svg").bounding_box()
        page.locator("#parallel svg").hover(position={"x": box["width"] * 0.6, "y": box["height"] * 0.4})
        assert page.locator("#parallel .picked").is_visible()
        assert "elbo −" in page.inner_text("#parallel [aria-live]")
        chart = page.locator("#any .chart")
        chart.hover()
        with page.expect_download() as download:
            chart.locator("button.save").click()
        picture = Image.open(download.value.path())
        assert download.value.suggested_filename == "mse_against_rate.png"
        assert (picture.format, picture.width) == ("PNG", 1080)
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50


@in_browser
@pytest.mark.slow
def test_a_thousand_runs_stay_fluid(browser, tmp_path: Path) -> None:
    many(tmp_path, 1000)
    timed = """(act) => { const from = performance.now(); eval(act); return performance.now() - from; }"""
    acts = [
        "const f = document.getElementById('filter'); f.value = '12'; f.dispatchEvent(new Event('input'))",
        "document.querySelector('#columns input').click()",
        "document.querySelectorAll('#metrics th button')[2].click()",
        "const u = document.getElementById('up'); u.value = 'test/elbo'; u.dispatchEvent(new Event('change'))",
    ]
    page = browser.new_page(bypass_csp=True)  # for eval
    page.goto(f"file://{tmp_path}/report/index.html")
    taken = [min(page.evaluate(timed, act) for _ in range(3)) for act in acts]
    page.close()
    assert max(taken) < 50, taken


@in_browser
def test_charts_show_values(page) -> None:
    charts = page.locator("#curves .chart")
    assert charts.count() == 3
    charts.first.locator("svg").hover()
    assert "latent_dim = 2, seed = 0" in charts.first.locator(".tip").inner_text()


@in_browser
@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_is_wider_than_the_window(browser, sweep: Path, width: int) -> None:
    with opened(browser, sweep, width) as page:
        ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.slow
@in_browser
def test_a_conditional_decoder_has_a_switch_of_classes(browser, tmp_path: Path) -> None:
    """By keyboard as well; the switch decodes the map's point and the slider's with another class."""
    (tmp_path / "report").mkdir()
    grey = np.array([0, 200], np.uint8).repeat(3).reshape(6, 1, 1, 1, 1)
    conditional = {
        "lattice": np.broadcast_to(grey, (6, 3, 1, 4, 4)),
        "slides": np.broadcast_to(grey[[0, 0, 3, 3]], (4, 3, 1, 4, 4)),
        "decoded_classes": np.array([0, 2]),
    }
    for name, arrays in [("plain", {}), ("conditional", conditional)]:
        run = write_run(tmp_path / name, model__latent_dim=3, seed=len(arrays))
        write_figures(run, exact=np.array(False), **arrays)
    compare(tmp_path)
    with opened(browser, tmp_path) as page:
        ready(page)
        seen = {}
        for index in range(2):
            page.select_option("#explored", index=index)
            ready(page)
            seen[page.locator("#kinds").is_visible()] = index
        page.select_option("#explored", index=seen[True])
        ready(page)
        assert set(seen) == {False, True}
        assert page.locator("#kind option").all_inner_texts() == ["o", "su"]
        page.wait_for_function("document.getElementById('slide').width === 4")
        assert canvas(page, "decoded").max() < TOLERANCE
        assert canvas(page, "slide").max() < TOLERANCE
        page.focus("#kind")
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(100)
        assert page.locator("#kind").input_value() == "2"
        assert np.abs(canvas(page, "decoded") - 200.0).max() < TOLERANCE
        assert np.abs(canvas(page, "slide") - 200.0).max() < TOLERANCE
        page.locator("#slider-list input").nth(1).fill("2")  # keeps the class
        page.wait_for_timeout(100)
        assert np.abs(canvas(page, "slide") - 200.0).max() < TOLERANCE
        page.select_option("#explored", index=seen[False])
        ready(page)
        assert page.locator("#kinds").is_hidden()
        assert canvas(page, "decoded").max() < TOLERANCE


@pytest.mark.slow
@in_browser
def test_odd_runs_are_shown(browser, tmp_path: Path) -> None:
    """Curves of a single point, a term that only one run has, a run without grids, codes without labels."""
    (tmp_path / "report").mkdir()
    for dimension in (2, 3):
        run = write_run(tmp_path / f"d-{dimension}", model__latent_dim=dimension)
        write_curves(run, loss=[9.0], rate=[1.0], **({"critic_loss": [0.5]} if dimension == 3 else {}))
        write_figures(run, labelled=False, exact=np.array(dimension == 2))
    write_grid(run, 1)
    compare(tmp_path)
    with opened(browser, tmp_path) as page:
        ready(page)
        charts = page.locator("#curves .chart")
        assert [chart.locator("h3").inner_text() for chart in charts.all()] == ["loss nats", "rate nats", "critic loss"]
        assert [chart.locator("circle").count() for chart in charts.all()] == [2, 2, 1]
        assert charts.first.locator("text", has_text=re.compile("^1$")).count() == 1
        assert page.locator("#grids figcaption").all_inner_texts() == ["latent_dim = 2", "latent_dim = 3"]
        assert page.locator("#grids .none").inner_text() == "no samples were drawn during training"
        assert page.locator("#classes").is_hidden()
        assert page.inner_text("#plane") == "The latent plane: codes of test images."
        assert page.inner_text("#nearest-class") == "nearest test image"
        assert page.locator("#sliders").is_hidden()
        page.select_option("#explored", index=1)
        ready(page)
        assert "50 % and 20 % of their variance" in page.inner_text("#plane")
        assert page.locator("#slider-list input").count() == 2


@in_browser
def test_numbers_on_an_axis_differ(browser, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    for dimension in (2, 3):
        write_curves(write_run(tmp_path / f"d-{dimension}", model__latent_dim=dimension), loss=[1.62, 1.42, 1.6])
    compare(tmp_path)
    with opened(browser, tmp_path) as page:
        numbers = page.locator("#curves .chart").first.locator("text[text-anchor=end]").all_text_contents()[:-1]
        assert numbers == ["1.45", "1.5", "1.55", "1.6"]
    for number, (elbo, rate) in enumerate([(-217.2, 1.2), (-217.1, 1.5), (-216.8, 2.1)]):
        write_run(tmp_path / "more" / f"{number}", {"test/elbo": elbo, "test/rate": rate}, model__latent_dim=2 + number)
    compare(tmp_path / "more")
    with opened(browser, tmp_path / "more") as page:
        page.select_option("#across", "test/elbo")
        page.select_option("#up", "test/rate")
        numbers = page.locator("#any text[text-anchor=middle]").all_text_contents()
        assert numbers == ["−217.2", "−217.1", "−217", "−216.9", "−216.8"]


@in_browser
def test_one_of_many_curves_does_not_flatten_the_others(browser, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    for dimension in range(2, 8):
        loss = [1e7, 2e7, 3e7] if dimension == 7 else [104.0, 98.0 + dimension, 92.0]
        write_curves(write_run(tmp_path / f"d-{dimension}", model__latent_dim=dimension), loss=loss)
    compare(tmp_path)
    with opened(browser, tmp_path) as page:
        chart = page.locator("#curves .chart").first
        assert chart.locator("h3").text_content().startswith("loss (1 outside)")
        assert chart.locator("text[text-anchor=end]").all_text_contents()[:-1] == ["95", "100"]


@in_browser
def test_kinds_of_models_are_apart_in_the_table(browser, tmp_path: Path) -> None:
    """The best of each is marked, and sorting leaves them apart."""
    (tmp_path / "report").mkdir()
    for dimension, kind in [(2, "prior"), (3, ""), (4, "prior"), (5, "")]:
        write_run(tmp_path / f"d-{dimension}", model__latent_dim=dimension, kind=kind)
    assert compare(tmp_path).table["kind"].tolist() == ["prior", "", "prior", ""]
    with opened(browser, tmp_path) as page:
        assert page.locator("#metrics tr.kind").all_inner_texts() == ["prior", "other"]

        def rows() -> list[list[str]]:
            return [body.locator("td.key").all_inner_texts() for body in page.locator("#metrics tbody").all()]

        assert rows() == [["2", "4"], ["3", "5"]]
        assert page.locator("#metrics td.best").first.inner_text() == "−102.00"
        assert page.locator("#metrics td.best").count() == 2
        page.locator("#metrics th button", has_text="elbo").first.click()
        assert rows() == [["4", "2"], ["5", "3"]]
        assert page.locator("#metrics tr.kind").all_inner_texts() == ["prior", "other"]


def copy(sweep: Path, folder: Path) -> Path:
    return Path(shutil.copytree(sweep, folder / "copy", ignore=shutil.ignore_patterns("report")))


def html(sweep: Path) -> str:
    compare(sweep)
    return (sweep / "report" / "index.html").read_text()


@in_browser
def test_names_are_inert(browser, sweep: Path, tmp_path: Path) -> None:
    """Tags in class names, in a run's option, in an error, in the environment: text, wherever it comes from."""
    hostile = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
    folder = copy(sweep, tmp_path)
    runs = [Run(path) for path in sorted(folder.glob("latent_dim-*"))]
    arrays = dict(np.load(runs[0].explorer_file)) | {"class_names": np.array([hostile] * 10)}
    np.savez(runs[0].explorer_file, **arrays)
    runs[1].metrics_file.unlink()
    runs[1].error_file.write_text(hostile)
    runs[0].environment_file.write_text(json.dumps({"command": [hostile], hostile: hostile}))
    config = OmegaConf.load(runs[2].config_file)
    config.data.name = hostile
    OmegaConf.save(config, runs[2].config_file)
    metrics = json.loads(runs[2].metrics_file.read_text()) | {hostile: 1.0}
    runs[2].metrics_file.write_text(json.dumps(metrics))
    compare(folder)
    with opened(browser, folder) as page:
        ready(page)
        assert page.evaluate("window.hacked") is None
        assert hostile in page.inner_text("#classes")
        assert page.locator("img[src=x]").count() == 0


def test_a_page_of_what_is_there(sweep: Path, tmp_path: Path) -> None:
    """A failed run, one without curves, one with a damaged explorer, one without figures."""
    folder = copy(sweep, tmp_path)
    first, second, third, fourth = (Run(path) for path in sorted(folder.glob("latent_dim-*")))
    first.metrics_file.unlink()
    first.error_file.write_text("Traceback …\nRuntimeError: it broke")
    second.curves_file.unlink()
    third.explorer_file.write_bytes(b"nothing")
    shutil.rmtree(fourth.figures)
    text = html(folder)
    assert "RuntimeError: it broke" in text
    assert text.count("<details>") == 4  # the runs, and the columns of the table
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    assert [bool(run["explorer"]) for run in data["runs"]] == [True, False, False]
    assert [bool(run["curves"]) for run in data["runs"]] == [False, True, False]
    assert [bool(run["grids"]) for run in data["runs"]] == [True, True, False]


def test_a_page_without_a_finished_run(sweep: Path, tmp_path: Path) -> None:
    folder = copy(sweep, tmp_path)
    for path in folder.glob("*/metrics.json"):
        path.unlink()
    assert html(folder).count("has no metrics: not finished") == 4
    assert "No run has finished." in html(folder)


def test_a_page_of_a_single_run(sweep: Path, tmp_path: Path) -> None:
    folder = copy(sweep, tmp_path)
    for path in sorted(folder.glob("latent_dim-*"))[1:]:
        shutil.rmtree(path)
    assert "The test elbo is −" in html(folder)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["model.latent_dim=1"], ["model=mlp", "model.latent_dim=2"]])
def test_other_sweeps(tmp_path: Path, options: list[str]) -> None:
    tiny = [option for option in TINY if "width" not in option or "model=mlp" not in options]
    done = run_command(
        "vae_lightning.cli", *tiny, *options, "--multirun", "model.optimizer.lr=0.001,0.01", "hydra.sweep.dir=sweep",
        "trainer.max_epochs=1", "callbacks.grids.every_n_batches=3",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "sweep" / "report" / "index.html").read_text()
    assert "lr = 0.01" in text
    assert len(text) < 3e6
