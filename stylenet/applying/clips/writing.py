"""Writing clips: video files, folders of frames, and standard output.

A video has the sound and the frame times of its source.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stylenet import files, images
from stylenet.applying.clips.reading import EXACT, INPUT_SUFFIXES, PIPE, Frame, Source, import_av
from stylenet.errors import UsageError, one_line

# containers that keep frame times and that browsers and players know; AVI has only one rate
OUTPUT_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts")
# FFmpeg's numbers for the colour matrix (primaries, curve) and for the range 16 to 235
BT709, LIMITED = 1, 1
FRAME_DURATION = 1 << 8  # FFmpeg's flag that gives packets the durations of their frames
# without B-frames, decoding times equal showing times: changing rates and the last frame's
# duration survive
H264 = {"crf": "18", "preset": "medium", "bf": "0"}
H264_QUICK = {"crf": "18", "preset": "veryfast", "tune": "zerolatency", "bf": "0"}
VP9 = {"crf": "24", "cpu-used": "3", "row-mt": "1"}
VP9_QUICK = {
    "crf": "24",
    "cpu-used": "8",
    "row-mt": "1",
    "deadline": "realtime",
    "lag-in-frames": "0",
}


@contextlib.contextmanager
def open_target(name: str, source: Source) -> Iterator[FolderTarget | VideoTarget]:
    """Context with the target of the frames, which is written whole or not at all.

    The name's suffix means a video, `-` standard output, and all else a folder. Raises UsageError
    for a place that cannot be written, and for a sound track that the container does not take.
    """
    suffix = Path(name).suffix.lower()
    if Path(name).exists() and Path(source.name).exists() and Path(name).samefile(source.name):
        raise UsageError(
            f"expected another name than the content's as --output, but both are {name}"
        )
    if name == PIPE:
        with VideoTarget("pipe:1", "standard output", source, "matroska") as target:
            yield target
    elif suffix in OUTPUT_SUFFIXES:
        with (
            files.replaced_file(name) as temporary,
            VideoTarget(SteadyFile(temporary), name, source) as target,
        ):
            yield target
    elif suffix in (*INPUT_SUFFIXES, *images.SUFFIXES):
        kinds = ", ".join(OUTPUT_SUFFIXES)
        raise UsageError(
            f"expected a video ({kinds}), a folder or - as --output for a clip, but {name} came"
        )
    else:
        with whole_folder(Path(name)) as folder:
            yield FolderTarget(folder)


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Context with a temporary folder, which becomes the target on success.

    An empty folder that nothing can take the place of (a link, a mount, the current one, one with
    remainders of a killed process) takes its files one by one. On failure nothing is left. Raises
    UsageError.
    """
    is_there = target.exists()
    if is_there and (not target.is_dir() or any(map(is_finished, target.iterdir()))):
        raise UsageError(
            f"expected a new or an empty folder as --output for the frames, but {target} is there "
            "and not empty"
        )
    is_fixed = is_there and (
        target.is_symlink()
        or os.path.ismount(target)
        or target.samefile(Path.cwd())
        or any(target.iterdir())
    )
    home = target if is_fixed else target.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=home, prefix=files.UNFINISHED))
    except OSError as error:
        raise UsageError(
            f"expected a folder that can be written, but {home} cannot ({error.strerror})"
        ) from None
    try:
        yield temporary
        with files.naming(target):
            if is_fixed:
                move_all(temporary, target)
                return
            temporary.chmod(0o777 & ~files.current_umask())
            if is_there:
                target.rmdir()
            temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move_all(source: Path, target: Path) -> None:
    """Move all files of a folder into another one, or none."""
    moved: list[Path] = []
    try:
        for path in sorted(source.iterdir()):
            moved.append(target / path.name)
            path.replace(moved[-1])
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        raise


def is_finished(path: Path) -> bool:
    """Whether a file or folder is no remainder of a killed process."""
    return not path.name.startswith(files.UNFINISHED)


class FolderTarget:
    """Frames as numbered PNG files, without sound."""

    is_gone = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.n_frames = folder, 0

    def add(self, item: Any) -> None:
        """Write a frame. Raises UsageError if the disk does not take it."""
        if not isinstance(item, Frame):
            return
        self.n_frames += 1
        path = self.folder / f"frame_{self.n_frames:06d}.png"
        try:
            images.to_pil(item.pixels).save(path)
        except OSError as error:
            raise UsageError(f"expected to write {path.name}, but it failed ({error})") from None


class SteadyFile:
    """A file that never fails while FFmpeg writes to it.

    FFmpeg touches a file again after a failure, and crashes the interpreter. So the first error
    waits in `error`, and what comes after it is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.name, self.error = str(path), None
        self.file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by `close`

    def write(self, content: Any) -> int:
        """Write all of the content, or keep the error."""
        rest = memoryview(content)
        try:
            while len(rest) and self.error is None:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            self.error = error
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move in the file; the new position."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """The position in the file."""
        return self.file.tell()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class VideoTarget:
    """Context with a video that PyAV encodes, with the source's frame times and sound."""

    def __init__(
        self, place: str | SteadyFile, name: str, source: Source, kind: str | None = None
    ) -> None:
        self.av, self.name, self.source, self.is_gone = import_av(), name, source, False
        self.file = place if isinstance(place, SteadyFile) else None
        # sound from before the first frame, whose size the header needs; None after that frame
        self.waiting: list[Any] | None = []
        self.at: int | None = None  # the last frame's time, in ticks
        # a viewer behind a pipe waits for whole clusters: they are cut every 100 ms
        options = {"cluster_time_limit": "100", "flush_packets": "1"} if kind else {}
        self.container = self.av.open(place, "w", format=kind, options=options)
        self.video = self.add_pictures(source, is_quick=source.is_endless or kind is not None)
        self.tracks = {track.index: self.add_sound(track) for track in source.sound}

    def __enter__(self) -> VideoTarget:
        return self

    def add_pictures(self, source: Source, is_quick: bool) -> Any:
        """The picture track: H.264, or VP9 in WebM, of visually lossless quality.

        With `is_quick` the encoder is faster and adds no delay for a viewer.
        """
        is_webm = self.name.lower().endswith(".webm")
        codec = "libvpx-vp9" if is_webm else "libx264"
        if codec not in self.av.codecs_available:
            raise UsageError(
                f"expected an encoder {codec}, but this PyAV has none; install it from PyPI, or "
                "write a folder of frames"
            )
        video = self.container.add_stream(codec, rate=source.rate)
        video.pix_fmt, video.codec_context.time_base = "yuv420p", source.time_base
        context = video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
        context.flags |= FRAME_DURATION
        if is_webm:
            context.bit_rate = 0  # or the quality would only be a limit
        context.options = (
            (VP9_QUICK if is_quick else VP9) if is_webm else (H264_QUICK if is_quick else H264)
        )
        return video

    def add_sound(self, track: Any) -> Any:
        """A sound track that takes the source's packets as they are.

        Raises UsageError if the container does not hold such sound.
        """
        try:
            return self.container.add_stream_from_template(track)
        except (self.av.FFmpegError, ValueError):
            raise UsageError(
                f"expected a container that holds the clip's sound ({track.codec_context.name}) "
                "as it is, "
                f"but {self.name} does not; give an --output ending in .mkv"
            ) from None

    def add(self, item: Any) -> None:
        """Write a frame or a packet of sound.

        Raises UsageError if that fails. A viewer that has left sets `is_gone`.
        """
        with self.failures():
            if isinstance(item, Frame):
                self.add_frame(item)
            elif self.waiting is not None:
                self.waiting.append(item)
            else:
                self.add_packet(item)

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """Context that turns FFmpeg's errors into ours.

        A viewer that has left is no error: it sets `is_gone`.
        """
        try:
            yield
            if self.file is not None and self.file.error is not None:
                raise self.file.error
        except BrokenPipeError:
            self.is_gone = True
        except (self.av.FFmpegError, OSError) as error:
            raise UsageError(
                f"expected to write {self.name}, but it failed ({one_line(error)})"
            ) from None

    def add_frame(self, frame: Frame) -> None:
        """Encode a frame uint8 [H, W, 3]; the first one fixes the size of the video."""
        height, width = frame.pixels.shape[:2]
        # 4:2:0 needs even sides: the last row and column are repeated
        pixels = np.pad(
            frame.pixels.numpy(), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"
        )
        picture = self.av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        picture = picture.reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation=EXACT
        )
        tick = self.video.codec_context.time_base
        at = round(frame.time / tick)
        self.at = at if self.at is None else max(at, self.at + 1)  # two never share a time
        picture.time_base, picture.pts = tick, self.at
        picture.duration = round(frame.duration / tick)
        if self.waiting is not None:
            self.video.height, self.video.width = pixels.shape[:2]
            self.video.codec_context.sample_aspect_ratio = self.source.aspect
        self.container.mux(self.video.encode(picture))
        waiting, self.waiting = self.waiting or [], None
        for packet in waiting:
            self.add_packet(packet)

    def add_packet(self, packet: Any) -> None:
        """Write a packet of sound."""
        packet.stream = self.tracks[packet.stream.index]
        self.container.mux(packet)

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Finish the file; after a failure, or if the viewer has left, only close it."""
        if kind is None and self.waiting is None and not self.is_gone:
            with self.failures():
                self.container.mux(self.video.encode(None))
                self.container.close()
        with contextlib.suppress(self.av.FFmpegError, OSError):
            self.container.close()
        if self.file is not None:
            self.file.close()


Target = FolderTarget | VideoTarget
