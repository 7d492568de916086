"""Reading clips: video files, folders of frames, pipes and cameras.

All but the folders need PyAV. A clip is an iterable of frames. Packets of its sound lie between
them and pass through unchanged.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from stylenet import images
from stylenet.applying.clips import hdr
from stylenet.errors import DataError, UsageError, WeightsError, one_line

INPUT_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts"),
    *(".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"),
)
ANIMATED_SUFFIXES = (".gif", ".webp", ".png", ".avif")
EXTRAS = "pip install -r requirements-video.txt"
PIPE = "-"
DEFAULT_FPS = Fraction(25)
UNTAGGED = 2  # FFmpeg's number for a colour matrix that is not named
# from this height on a clip that names no colour matrix counts as BT.709, as in players
UNTAGGED_HD_LINES = 577
MISSING_S = 0.5  # a file that ends so much before its announced end is damaged
# FFmpeg's flags for bilinear, full chroma in and out, rounding; its default conversions are up to
# 3 of 255 too dark
EXACT = 0x2 | 0x2000 | 0x4000 | 0x40000
TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}


class Frame(NamedTuple):
    """One picture of a clip."""

    pixels: Tensor  # uint8, [3, H, W] as read, [H, W, 3] to be written
    time: Fraction  # seconds from the start of the clip
    duration: Fraction  # seconds


def import_av() -> ModuleType:
    """The PyAV module, which includes its own FFmpeg.

    Raises WeightsError if it is missing, as for the other optional packages.
    """
    try:
        import av
    except ImportError:
        raise WeightsError(
            "expected the package av (PyAV) for video files, pipes and cameras, but it is "
            f"missing; {EXTRAS}"
        ) from None
    av.logging.set_level(av.logging.PANIC)  # what is wrong with a clip is said once, in our words
    return av


def is_camera(name: str) -> bool:
    """Whether the name is a camera's: /dev/video0 or camera:0."""
    return name.startswith(("camera:", "/dev/video"))


def is_clip(names: Sequence[str], is_forced: bool = False) -> bool:
    """Whether the content is one clip. Raises UsageError for a clip among other contents."""
    clips = [
        name
        for name in names
        if name == PIPE or is_camera(name) or Path(name).suffix.lower() in INPUT_SUFFIXES
    ]
    if (clips or is_forced) and len(names) > 1:
        raise UsageError(
            f"expected one clip as --content, but {len(names)} names came "
            f"({' '.join(names)[:200]}); give one at a time"
        )
    return bool(clips) or is_forced


def natural(path: Path) -> list[str | int]:
    """The sort key that puts frame2.png before frame10.png."""
    parts = re.split(r"(\d+)", path.as_posix())  # every second one is a number
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def open_source(
    name: str, size_px: int = 0, fps: Fraction | None = None
) -> FolderSource | StreamSource | AnimatedSource:
    """The clip of that name, with its frames' shortest side at `size_px`.

    A `size_px` of 0 keeps the size. Raises DataError and UsageError.
    """
    if Path(name).is_dir():
        return FolderSource(Path(name), size_px, fps or DEFAULT_FPS)
    if Path(name).suffix.lower() in ANIMATED_SUFFIXES and Path(name).is_file():
        if fps:
            raise UsageError(
                f"expected --fps with a folder of frames, a pipe or a camera, but {name} has its "
                "own frame times"
            )
        return AnimatedSource(Path(name), size_px)
    return StreamSource(name, size_px, fps)


class FolderSource:
    """A folder of pictures as the frames of one clip, in the natural order of their names."""

    aspect, sound, is_live, is_endless = Fraction(1), (), False, False

    def __init__(self, folder: Path, size_px: int, fps: Fraction) -> None:
        self.name, self.rate, self.time_base, self.size_px = str(folder), fps, 1 / fps, size_px
        self.paths = sorted(images.list_images(folder), key=natural)
        if not self.paths:
            raise DataError(images.no_images_message(folder))
        self.n_frames, self.damage, self.size = len(self.paths), "", None

    def __iter__(self) -> Iterator[Frame]:
        """The frames; one that does not decode is left out, and `damage` says so."""
        for i, path in enumerate(self.paths):
            try:
                image = images.open_rgb(path)
            except DataError as error:
                self.damage = self.damage or str(error)
                continue
            yield Frame(fitted(self, image), i / self.rate, 1 / self.rate)


class StreamSource:
    """A video file, a pipe or a camera, decoded by PyAV.

    Frames are upright, in the colours that the clip's matrix and range mean.
    """

    def __init__(self, name: str, size_px: int, fps: Fraction | None) -> None:
        self.name, self.size_px, self.size, self.damage = (
            "standard input" if name == PIPE else name,
            size_px,
            None,
            "",
        )
        self.is_live = is_camera(name)
        self.is_endless = self.is_live or name == PIPE
        if fps and not self.is_endless:
            raise UsageError(
                f"expected --fps with a folder of frames, a pipe or a camera, but {name} has its "
                "own frame times"
            )
        self.av = import_av()
        self.container = self.opened(name, fps)
        self.video, self.sound = (
            self.container.streams.best("video"),
            tuple(self.container.streams.audio),
        )
        if self.video is None:
            raise DataError(f"{self.name}: expected a video, but it has no picture track")
        self.video.thread_type = "AUTO"
        self.time_base = self.video.time_base
        self.rate = fps or self.video.average_rate or self.video.guessed_rate or DEFAULT_FPS
        self.n_frames = (
            None
            if self.is_endless
            else self.video.frames or round(self.length_s() * self.rate) or None
        )
        # a late start moves to 0; an early one (the run-in of AAC) stays as it is
        self.start = max(Fraction(0), Fraction(self.container.start_time or 0, self.av.time_base))
        self.aspect = self.video.sample_aspect_ratio or Fraction(1)
        self.n_broken, self.end, self.next_time, self.last_time = 0, Fraction(0), Fraction(0), None
        self.progressive: Progressive | None = None  # from the first interlaced frame on

    def opened(self, name: str, fps: Fraction | None) -> Any:
        """The open container. Raises DataError if it cannot be read."""
        place, kind = (
            camera_address(name)
            if self.is_live
            else ("pipe:0" if name == PIPE else f"file:{name}", None)
        )
        try:
            with interruptible():
                return self.av.open(
                    place, format=kind, options={"framerate": str(fps)} if fps else {}
                )
        except FileNotFoundError:
            raise DataError(f"expected a clip, but there is no {name}; check the path") from None
        except (self.av.FFmpegError, OSError, ValueError) as error:
            raise DataError(
                f"{self.name}: expected a video, but it cannot be read ({one_line(error)})"
            ) from None

    def length_s(self) -> Fraction:
        """The announced length of the file in seconds; 0 if it announces none."""
        return Fraction(self.container.duration or 0, self.av.time_base)

    def __iter__(self) -> Iterator[Any]:
        """Frames, and packets of sound in between; `damage` then says what is missing."""
        for packet in self.packets():
            if packet.stream is self.video:
                yield from map(self.made, self.whole(self.decoded(packet)))
            elif packet.size:  # an empty packet marks the end
                self.end = max(
                    self.end,
                    ((packet.pts or 0) + (packet.duration or 0)) * packet.time_base - self.start,
                )
                yield self.moved(packet)
        yield from map(self.made, self.whole(None))
        if self.n_broken:
            self.damage = (
                f"{self.name}: expected a whole video, but {self.n_broken} of its parts "
                "do not decode"
            )
        elif self.end < self.length_s() - MISSING_S and not self.is_endless:
            self.damage = (
                f"{self.name}: expected {float(self.length_s()):.1f} s, but it ends "
                f"after {float(self.end):.1f} s"
            )

    def packets(self) -> Iterator[Any]:
        """The packets of the file, until it ends or cannot be read further."""
        try:
            yield from self.container.demux(self.video, *self.sound)
        except self.av.FFmpegError:
            self.n_broken += 1

    def decoded(self, packet: Any) -> list[Any]:
        """The packet's frames; none if it is damaged."""
        try:
            frames = packet.decode()
        except self.av.FFmpegError:
            self.n_broken += 1
            return []
        self.n_broken += sum(frame.is_corrupt for frame in frames)
        return frames

    def whole(self, frames: list[Any] | None) -> list[Any]:
        """The frames, without the comb of interlacing; None ends the clip."""
        if self.progressive is None and any(frame.interlaced_frame for frame in frames or ()):
            self.progressive = Progressive(self.av, self.video)
        return self.progressive(frames) if self.progressive else frames or []

    def made(self, frame: Any) -> Frame:
        """A decoded frame as a Frame.

        Times grow strictly, whatever the file says, since no container takes others.
        """
        if self.is_live and self.last_time is None:
            # a camera counts from the start of the machine
            self.start = (frame.pts or 0) * self.time_base
        tick = frame.time_base or self.time_base  # a filter has its own
        duration = (frame.duration or 0) * tick or 1 / self.rate
        time = self.next_time if frame.pts is None else frame.pts * tick - self.start
        time = max(time, self.last_time + self.time_base) if self.last_time is not None else time
        # a quarter turn swaps the sides of a pixel too
        if self.last_time is None and frame.rotation % 180:
            self.aspect = 1 / self.aspect
        self.last_time, self.next_time = time, time + duration
        self.end = max(self.end, self.next_time)
        return Frame(fitted(self, upright_rgb(frame)), time, duration)

    def moved(self, packet: Any) -> Any:
        """A packet of sound in the time of the clip, which begins at 0."""
        ticks = round(self.start / packet.time_base)
        packet.pts, packet.dts = (
            None if stamp is None else stamp - ticks for stamp in (packet.pts, packet.dts)
        )
        return packet


class Progressive:
    """FFmpeg's deinterlacer (bwdif), which passes progressive frames as they are."""

    def __init__(self, av: ModuleType, video: Any) -> None:
        self.av, self.graph = av, av.filter.Graph()
        chain = (
            self.graph.add_buffer(template=video),
            self.graph.add("bwdif", "mode=send_frame:deint=interlaced"),
            self.graph.add("buffersink"),
        )
        for before, after in itertools.pairwise(chain):
            before.link_to(after)
        self.graph.configure()

    def __call__(self, frames: list[Any] | None) -> list[Any]:
        """The frames that are ready after these; None ends the clip."""
        ready = []
        for frame in frames if frames is not None else [None]:
            self.graph.push(frame)
            with contextlib.suppress(self.av.error.BlockingIOError, self.av.error.EOFError):
                while True:
                    ready.append(self.graph.pull())
        return ready


class AnimatedSource:
    """The frames of an animated picture (GIF, WebP, APNG), which has the time of each."""

    aspect, sound, is_live, is_endless = Fraction(1), (), False, False
    time_base = Fraction(1, 1000)  # Pillow counts in milliseconds

    def __init__(self, path: Path, size_px: int) -> None:
        self.name, self.size_px, self.path = str(path), size_px, path
        self.damage, self.size = "", None
        self.durations = []
        try:
            self.durations += (duration for _, duration in images.animation(path))
        except DataError as error:
            if not self.durations:
                raise
            self.damage = str(error)
        self.n_frames = len(self.durations)
        self.rate = self.n_frames / sum(self.durations)

    def __iter__(self) -> Iterator[Frame]:
        time = Fraction(0)
        whole = itertools.islice(images.animation(self.path), self.n_frames)
        for image, duration in whole:
            yield Frame(fitted(self, image), time, duration)
            time += duration


Source = FolderSource | StreamSource | AnimatedSource


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Context in which Ctrl-C ends the process at once.

    Otherwise Python cannot act on it while it waits for a pipe's first bytes.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_DFL) if is_main else None
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)


def camera_address(name: str) -> tuple[str, str]:
    """FFmpeg's address of the camera on this system, and its name of the device's kind."""
    number = name.removeprefix("camera:")
    if sys.platform == "darwin":
        return number, "avfoundation"
    if sys.platform == "win32":
        return f"video={number}", "dshow"
    return (f"/dev/video{number}" if number.isdigit() else number), "v4l2"


def upright_rgb(frame: Any) -> Image.Image:
    """A decoded frame as RGB, turned as its display matrix says.

    Telephones film in one position and note the other. HDR is converted to an ordinary screen's
    colours.
    """
    guess = "ITU709" if frame.height >= UNTAGGED_HD_LINES else "ITU601"
    matrix = guess if frame.colorspace == UNTAGGED else None
    curve = hdr.CURVES.get(frame.color_trc)
    # swscale's own 48-bit format has wrong colours for 10-bit clips
    kind = "gbrp16le" if curve else "rgb24"
    pixels = frame.reformat(format=kind, interpolation=EXACT, src_colorspace=matrix).to_ndarray()
    image = Image.fromarray(hdr.to_sdr(pixels, curve) if curve else pixels)
    turn = TURNS.get(frame.rotation % 360)
    return image.transpose(turn) if turn is not None else image


def fitted(source: Source, image: Image.Image) -> Tensor:
    """The frame as uint8 [3, H, W] in the chosen size; later frames get the first one's size."""
    if source.size is None:
        source.size = (
            images.resize_shortest(image, source.size_px) if source.size_px else image
        ).size
    return images.to_bytes_tensor(
        image if image.size == source.size else image.resize(source.size, Image.Resampling.BILINEAR)
    )
