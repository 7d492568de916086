"""The page: what it computes, and the page itself in a browser without a window."""

import io
import os
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw
from PIL import Image

from stylenet import Stylizer, images
from stylenet.applying.stylizer import as_seen
from stylenet.errors import DataError, UsageError
from stylenet.page import ADDRESS, Page, launch, main, named, painted, parsed

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
STANDARD = ["", 1.0, 1.0, "as painted", 256, False, None]  # from the weights on


@pytest.fixture(scope="module")
def page():
    return Page(Stylizer.load(device="cpu"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw(folder / "photo.png", 1, 330, 256)
    for i in range(2):
        draw(folder / f"s{i}.png", 10 + i, 260, 256)
    return [str(folder / name) for name in ("photo.png", "s0.png", "s1.png")]


def by_api(page, pictures, *numbers, **options):
    content = images.load_bytes(pictures[0], 256)
    styles = [images.load_bytes(pictures[i], 256) for i in numbers]
    return images.to_pil(page.stylizer(content, styles, **options))


def test_it_computes_what_the_api_computes(page, pictures):
    photo, *styles = pictures
    made = page.stylise(photo, styles[:1], None, *STANDARD)
    assert np.array_equal(made, by_api(page, pictures, 1))
    made = page.stylise(photo, styles, [], "1, 3", 0.6, 1.0, "the photo's", 256, False, None)
    expected = by_api(page, pictures, 1, 2, mixture=[1, 3], alpha=0.6, colour="content")
    assert np.abs(np.array(made).astype(int) - np.array(expected)).max() <= 1


def test_strokes_are_relative_to_the_photo(page, pictures):
    made = page.stylise(*pictures[:1], pictures[1:2], None, "", 1.0, 0.5, *STANDARD[3:])
    content = images.load_bytes(pictures[0], 256)
    small = images.load_bytes(pictures[1], 128)
    assert np.array_equal(made, images.to_pil(page.stylizer(content, small)))
    assert as_seen(small[None], content[None], "style", 0.5).shape[-2:] == (128, 130)


def test_only_the_painted_part_changes(page, pictures):
    layer = Image.new("RGBA", (660, 512))
    layer.paste((255, 0, 0, 255), (0, 0, 330, 512))
    region = {"background": None, "layers": [layer], "composite": None}
    made = np.array(page.stylise(pictures[0], pictures[1:2], None, *STANDARD[:-1], region))
    photo = images.load_bytes(pictures[0], 256).permute(1, 2, 0).numpy()
    assert np.array_equal(made[:, 170:], photo[:, 170:])
    mask = torch.zeros(256, 330)
    mask[:, :165] = 1
    content, style = (images.load_bytes(path, 256) for path in pictures[:2])
    expected = images.to_pil(page.stylizer(content, [], regions=[(mask, style)]))
    assert np.abs(made[:, :160].astype(int) - np.array(expected)[:, :160]).max() <= 2
    assert painted({"layers": [Image.new("RGBA", (5, 5))]}) is None and painted(None) is None


def test_mistakes_are_one_line(page, pictures, tmp_path):
    with pytest.raises(UsageError, match="expected a photo"):
        page.stylise(None, pictures[1:], None, *STANDARD)
    with pytest.raises(UsageError, match="1 to 8 styles"):
        page.stylise(pictures[0], [], None, *STANDARD)
    with pytest.raises(UsageError, match="weights"):
        parsed("one")
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(DataError, match="bad.png"):
        page.stylise(pictures[0], [str(tmp_path / "bad.png")], None, *STANDARD)
    with pytest.raises(UsageError, match="expected a free port"):
        main(["--port", "99999", "--device", "cpu"])


def test_messages_name_no_folder_of_the_server():
    message = named("/tmp/x/bad.png: expected an image", ("/tmp/x/bad.png", ["/tmp/y/a.png"], 1.0))
    assert message == "bad.png: expected an image"


@pytest.fixture
def address(page, tmp_path, monkeypatch):
    """The running page's address."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    blocks, place = launch(page, is_waiting=False)
    yield place
    blocks.close()


def test_it_listens_on_this_machine_only(address):
    assert address.startswith(f"http://{ADDRESS}:")
    config = urllib.request.urlopen(f"{address}config", timeout=20).read().decode()
    assert '"analytics_enabled":false' in config.replace(" ", "")
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_a_browser_gets_the_api_s_picture(address, page, pictures, width, tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": 900})
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address)
        tab.set_default_timeout(60_000)
        tab.locator("#stylise").click()
        tab.get_by_text("expected a photo, but none came").wait_for()
        tab.locator("#content input[type=file]").set_input_files(pictures[0])
        tab.locator("#content img").wait_for()
        tab.locator("#paintings input[type=file]").set_input_files(pictures[1])
        tab.get_by_text("s0").first.wait_for()
        tab.locator("#stylise").click()
        result = tab.locator("#result img")
        result.wait_for()
        source = result.get_attribute("src")
        content = tab.request.get(source).body()
        shots = Path(os.environ.get("STYLENET_TEST_SHOTS") or tmp_path)
        tab.screenshot(path=shots / f"page_{width}.png", full_page=True)
        is_wider = tab.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        browser.close()
    picture = Image.open(io.BytesIO(content))
    photo, style = (images.load_bytes(path, 512) for path in pictures[:2])
    assert picture.format == "PNG"
    assert np.array_equal(picture, images.to_pil(page.stylizer(photo, style)))
    assert not is_wider  # nothing lies beyond the screen
    assert all(url.startswith((address, "data:", "blob:")) for url in asked), asked


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_brush_marks_the_part_that_is_painted(address, pictures):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 1400})
        tab.set_default_timeout(60_000)
        tab.goto(address)
        tab.locator("#content input[type=file]").set_input_files(pictures[0])
        tab.locator("#content img").wait_for()
        tab.locator("#paintings input[type=file]").set_input_files(pictures[1])
        tab.get_by_text("s0").first.wait_for()
        tab.get_by_text("Only a part: paint over it").click()
        canvas = tab.locator("#part canvas").first
        canvas.scroll_into_view_if_needed()
        tab.wait_for_timeout(3000)  # until the photo lies in the editor, which says nothing of it
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x + 20, y + 5, steps=5)
        tab.mouse.up()
        tab.locator("#stylise").click()
        result = tab.locator("#result img")
        result.wait_for()
        made = tab.request.get(result.get_attribute("src")).body()
        browser.close()
    picture = images.to_bytes_tensor(Image.open(io.BytesIO(made)).convert("RGB")).int()
    photo = images.load_bytes(pictures[0], 512).int()
    changed = (picture - photo).abs().amax(0) > 1
    assert changed.any() and not changed[:64].any() and not changed[-64:].any()
