"""A page to play with: python -m stylenet.page

    python -m stylenet.page --model runs/mine --port 7860

It listens on this machine only, shares nothing, and sends no statistics. Uploads are bounded, and
the files of a request are removed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from stylenet import images
from stylenet.applying.pictures import on_grid
from stylenet.applying.styles import Controls, Looks, encode, included, read
from stylenet.applying.stylizer import SHIPPED_MODEL, Stylizer, to_mask
from stylenet.errors import Parser, StylenetError, UsageError, WeightsError, one_line, run_script
from stylenet.looks import Look, Region, StyleCard

ADDRESS = "127.0.0.1"
MAX_UPLOAD = "20mb"
MAX_STYLES = 8
SIZES = (256, 384, 512, 768, 1024)
REMOVE_EVERY_S, KEPT_S = 60, 3600  # how often, and after how long a request's files are removed
COLOURS = {
    "as painted": "style",
    "the photo's": "content",
    "painting matched to the photo": "matched",
    "the painting's, without strokes": "only",
}


class Page:
    """What the page computes. One picture at a time, since a picture uses all cores."""

    def __init__(self, stylizer: Stylizer) -> None:
        self.stylizer, self.lock = stylizer, threading.Lock()
        self.cards = {StyleCard.load(path).title: path for path in self.usable()}

    def usable(self) -> list[Path]:
        """The included cards that belong to the model."""
        if self.stylizer.origin is None:
            return []
        own = self.stylizer.model_id
        return [path for path in included() if StyleCard.load(path).model == own]

    def stylise(
        self,
        content: str | None,
        uploads: Sequence[str] | None,
        cards: Sequence[str] | None,
        weights: str,
        alpha: float,
        stroke: float,
        colour: str,
        size_px: int,
        is_seamless: bool,
        region: dict[str, Any] | None,
    ) -> Image.Image:
        """The stylised picture. Raises StylenetError for inputs that make none."""
        if not content:
            raise UsageError("expected a photo, but none came; choose one")
        paths = [Path(path) for path in uploads or []]
        paths += [self.cards[title] for title in cards or []]
        if not 0 < len(paths) <= MAX_STYLES:
            raise UsageError(
                f"expected 1 to {MAX_STYLES} styles, but {len(paths)} came; choose paintings or "
                "cards"
            )
        shares = parsed(weights) if weights.strip() else None
        with self.lock, torch.inference_mode():
            pixels = images.load_bytes(content, int(size_px))
            pixels = on_grid(pixels) if is_seamless else pixels
            stroke_asked = None if stroke == 1 and self.has_cards(paths) else stroke
            controls = Controls(COLOURS[colour], stroke_asked, is_seamless=is_seamless)
            controls.check(paths)
            looks = Looks(controls, shares, 0)
            wanted = looks.wanted(paths, Path(content), min(pixels.shape[-2:]))
            codes = [encode(self.stylizer, read(item, lambda _: pixels)) for item in wanted]
            encoded = self.stylizer.encode_content(pixels, is_seamless)
            look = within(looks.make(Path(content), codes, alpha), painted(region))
            return images.to_pil(self.stylizer.render(encoded, look)[0])

    @staticmethod
    def has_cards(paths: Sequence[Path]) -> bool:
        """Whether a style is a card, whose strokes have the size that they were kept with."""
        return any(path.suffix == ".style" for path in paths)


def named(message: str, values: Sequence[Any]) -> str:
    """The message with the names of uploads, without the folders where they lie for now."""
    flat = [x for value in values for x in (value if isinstance(value, list) else [value])]
    for path in (x for x in flat if isinstance(x, str) and os.sep in x):
        message = message.replace(path, Path(path).name)
    return message


def parsed(weights: str) -> list[float]:
    """The weights of a mixture. Raises UsageError for anything but numbers."""
    try:
        return [float(part) for part in weights.replace(",", " ").split()]
    except ValueError:
        raise UsageError(f"expected weights such as 1, 2, but {weights!r} came") from None


def within(look: Look, mask: Image.Image | None) -> Look:
    """The look in the white part of a mask alone; everywhere without one."""
    if mask is None:
        return look
    region = Region(to_mask(mask.convert("RGB")), look.codes, look.mixture)
    return dataclasses.replace(look, regions=(region,), keeps_rest=True)


def painted(region: dict[str, Any] | None) -> Image.Image | None:
    """What was painted over the photo, as a grey mask; None for nothing."""
    layers = [layer for layer in (region or {}).get("layers") or [] if layer.getextrema()[3][1]]
    if not layers:
        return None
    mask = Image.new("L", layers[0].size)
    for layer in layers:
        mask.paste(255, mask=layer.getchannel("A"))
    return mask


def import_gradio() -> Any:
    """The package gradio, without its statistics. Raises WeightsError if it is missing."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError:
        raise WeightsError(
            "expected the package gradio for the page, but it is missing; run: pip install "
            '"stylenet[page]"'
        ) from None
    return gradio


def make_blocks(page: Page) -> Any:
    """The page's elements and what they do."""
    gr = import_gradio()

    def run(*values: Any) -> Image.Image:
        try:
            return page.stylise(*values)
        except StylenetError as error:
            raise gr.Error(named(one_line(error), values), print_exception=False) from None

    removal = (REMOVE_EVERY_S, KEPT_S)
    with gr.Blocks(title="stylenet", analytics_enabled=False, delete_cache=removal) as blocks:
        gr.Markdown(
            "# stylenet\nAny picture in the style of any other. Nothing leaves this machine."
        )
        with gr.Row():
            with gr.Column():
                content = gr.Image(
                    label="Photo", type="filepath", sources=["upload"], elem_id="content"
                )
                uploads = gr.File(
                    label="Paintings",
                    file_count="multiple",
                    file_types=list(images.SUFFIXES),
                    elem_id="paintings",
                )
                cards = gr.Dropdown(
                    sorted(page.cards),
                    label="Style cards",
                    multiselect=True,
                    visible=bool(page.cards),
                )
                weights = gr.Textbox(
                    label="Weights of several styles", placeholder="1, 2", elem_id="weights"
                )
                alpha = gr.Slider(0, 1, 1, step=0.05, label="Strength")
                stroke = gr.Slider(0.25, 2, 1, step=0.05, label="Stroke")
                colour = gr.Radio(list(COLOURS), value="as painted", label="Colours")
                size_px = gr.Dropdown(list(SIZES), value=512, label="Shortest side in pixels")
                is_seamless = gr.Checkbox(label="Seamless texture")
                with gr.Accordion("Only a part: paint over it", open=False):
                    region = gr.ImageEditor(
                        label="Part",
                        elem_id="part",
                        type="pil",
                        sources=(),
                        transforms=(),
                        brush=gr.Brush(default_size=40, colors=["#ff2020"], color_mode="fixed"),
                    )
            with gr.Column():
                button = gr.Button("Stylise", variant="primary", elem_id="stylise")
                output = gr.Image(label="Result", format="png", interactive=False, elem_id="result")
        content.change(lambda path: path, content, region, show_progress="hidden")
        asked = [content, uploads, cards, weights, alpha, stroke, colour, size_px]
        button.click(run, [*asked, is_seamless, region], output, concurrency_limit=1)
    return blocks


def launch(page: Page, port: int | None = None, is_waiting: bool = True) -> tuple[Any, str]:
    """Start the page; returns its blocks and its address."""
    gr = import_gradio()
    blocks = make_blocks(page)
    fonts = ["system-ui", "sans-serif"]  # none from elsewhere
    _, address, _ = blocks.launch(
        server_name=ADDRESS,
        server_port=port,
        share=False,
        max_file_size=MAX_UPLOAD,
        prevent_thread_lock=not is_waiting,
        footer_links=[],
        ssr_mode=False,
        theme=gr.themes.Default(font=fonts, font_mono=["monospace"]),
    )
    return blocks, address


def main(arguments: list[str]) -> int:
    """Exit code of one call; it runs until Ctrl-C."""
    parser = Parser(
        prog="python -m stylenet.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default=str(SHIPPED_MODEL), help="as of the stylise command")
    parser.add_argument("--encoder", metavar="FILE", help="VGG weights, where the model has none")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    options = parser.parse_args(arguments)
    import_gradio()
    stylizer = Stylizer.load(options.model, options.device, encoder_weights=options.encoder)
    if not stylizer.family.takes_styles:
        raise UsageError(
            f"expected a model for any style, but {options.model} has one of its own; use "
            "stylize.py"
        )
    with tempfile.TemporaryDirectory(prefix="stylenet-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads and results go when the page ends
        try:
            launch(Page(stylizer), options.port)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"expected a free port, but {one_line(error)}; give another --port"
            ) from None
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
