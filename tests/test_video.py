"""Clips: what of them is kept, smoothing, scene cuts, pipes; no file stays half-written."""

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from conftest import ROOT, draw, run_python
from PIL import Image

import stylize
from stylenet import files, images
from stylenet.applying import video
from stylenet.applying.clips import hdr, reading, writing
from stylenet.applying.clips.reading import Frame, open_source
from stylenet.applying.stylizer import Stylizer
from stylenet.errors import DataError, UsageError, WeightsError
from stylenet.looks import make_look, pooled

MS = Fraction(1, 1000)
EVEN_MS = [40] * 8
UNEVEN_MS = [20, 50, 33, 100, 10, 40, 80, 137]


def pictures(n, width=64, height=48, seed=0):
    """Frames [H, W, 3] of a slow pan over a smooth picture."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    large = np.asarray(small.resize((width + 2 * n, height), Image.Resampling.BICUBIC))
    return [large[:, 2 * i : 2 * i + width] for i in range(n)]


def make_clip(
    path,
    frames,
    durations_ms=EVEN_MS,
    sound="aac",
    rotation=None,
    codec="libx264",
    start_ms=0,
    aspect=1,
):
    """A clip of these frames and durations, with a tone of the same length."""
    with av.open(str(path), "w") as out:
        track = out.add_stream(codec, rate=25, options={"crf": "4", "bf": "0"})
        track.height, track.width = frames[0].shape[:2]
        track.pix_fmt, track.codec_context.time_base = (
            "yuv420p"
            if codec == "libvpx-vp9" or frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0
            else "yuv444p",
            MS,
        )
        track.codec_context.flags |= writing.FRAME_DURATION
        track.codec_context.sample_aspect_ratio = Fraction(aspect)
        if rotation is not None:
            track.set_display_rotation(rotation)
        tone = out.add_stream(sound, rate=48000, layout="mono") if sound else None
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels), format="rgb24"
            ).reformat(format=track.pix_fmt)
            frame.pts, frame.time_base, frame.duration = (
                start_ms + sum(durations_ms[:i]),
                MS,
                durations_ms[i],
            )
            out.mux(track.encode(frame))
        out.mux(track.encode(None))
        if tone:
            add_tone(out, tone, sum(durations_ms[: len(frames)]) * 48, start_ms * 48)
    return path


def add_tone(out, tone, n_samples, first=0):
    """Add a sine of 440 Hz."""
    step = tone.codec_context.frame_size or 960
    for start in range(0, n_samples, step):
        wave = (
            np.sin(np.arange(start, start + step) * 440 * 2 * np.pi / 48000).astype(np.float32)[
                None
            ]
            * 0.3
        )
        kind = "flt" if tone.codec_context.name == "libopus" else "fltp"
        frame = av.AudioFrame.from_ndarray(wave, format=kind, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, first + start, Fraction(1, 48000)
        out.mux(tone.encode(frame))
    out.mux(tone.encode(None))


def facts(path):
    """Frame times and the end in seconds, packets of sound, size, and frames as RGB."""
    with av.open(str(path)) as clip:
        track = clip.streams.video[0]
        frames = list(clip.decode(track))
        end = (frames[-1].pts + frames[-1].duration) * track.time_base
        rgb = [frame.reformat(format="rgb24").to_ndarray() for frame in frames]
        times, size, rate = (
            [frame.pts * track.time_base for frame in frames],
            (track.width, track.height),
            track.average_rate,
        )
        rotation, aspect = frames[0].rotation, track.codec_context.sample_aspect_ratio
    with av.open(str(path)) as clip:
        sound = [
            (float(p.pts * p.time_base), bytes(p)) for p in clip.demux(clip.streams.audio) if p.size
        ]
    return SimpleNamespace(
        times=times,
        end=end,
        sound=sound,
        size=size,
        rgb=rgb,
        rate=rate,
        rotation=rotation,
        aspect=aspect,
    )


def same_frames(a, b, numbers):
    """Whether two folders agree in each of the frames."""
    names = [f"frame_{i:06d}.png" for i in numbers]
    return [(a / name).read_bytes() == (b / name).read_bytes() for name in names]


@pytest.fixture
def style(tmp_path):
    return draw(tmp_path / "style.png", 99, 40, 40)


@pytest.fixture
def arguments(trained_run, style, tmp_path):
    """The command line of a clip, with the tiny model on the CPU."""

    def make(content, output, *extra):
        common = [
            "--style",
            style,
            "--model",
            trained_run,
            "--device",
            "cpu",
            "--size",
            "0",
            "--style-size",
            "24",
        ]
        return [str(part) for part in ["--content", content, "--output", output, *common, *extra]]

    return make


@pytest.fixture
def call(arguments):
    return lambda *given: stylize.main(arguments(*given))


@pytest.fixture
def frame_folder(tmp_path):
    """Frames 1 to 11 without leading zeros."""
    (tmp_path / "frames").mkdir()
    for i, pixels in enumerate(pictures(11), 1):
        Image.fromarray(pixels).save(tmp_path / "frames" / f"frame{i}.png")
    return tmp_path / "frames"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("durations", [EVEN_MS, UNEVEN_MS])
def test_times_duration_rate_and_sound_are_kept(call, tmp_path, suffix, durations):
    clip = make_clip(tmp_path / f"clip{suffix}", pictures(8), durations)
    assert call(clip, tmp_path / f"out{suffix}") == 0
    before, after = facts(clip), facts(tmp_path / f"out{suffix}")
    assert (
        after.times == before.times == [ms * MS for ms in [0, *itertools.accumulate(durations)][:8]]
    )
    assert after.end == before.end == sum(durations) * MS
    assert [data for _, data in after.sound] == [data for _, data in before.sound]
    assert np.allclose([at for at, _ in after.sound], [at for at, _ in before.sound], atol=0.001)
    assert after.size == before.size and after.rate == before.rate


def test_another_container_keeps_them_too(call, tmp_path):
    """A transport stream need not begin at 0.

    Its start is moved to 0, for sound and picture alike.
    """
    clip = make_clip(tmp_path / "clip.ts", pictures(8), start_ms=700)
    assert call(clip, tmp_path / "out.mp4") == 0
    before, after = facts(clip), facts(tmp_path / "out.mp4")
    steps = [b - a for a, b in itertools.pairwise(after.times)]
    assert float(before.times[0]) > 0.6
    assert steps == [40 * MS] * 7 and float(after.times[0]) < 0.1
    assert len(after.sound) == len(before.sound)
    apart = [float(facts_.times[0]) - facts_.sound[0][0] for facts_ in (before, after)]
    assert apart[0] == pytest.approx(apart[1], abs=0.002)


def test_sound_that_the_container_refuses(call, tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", pictures(2))
    with pytest.raises(
        UsageError, match=r"the clip's sound \(aac\) as it is, but .*out.webm does not; .*\.mkv"
    ):
        call(clip, tmp_path / "out.webm")
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "style.png"}


def test_webm(call, tmp_path):
    clip = make_clip(tmp_path / "clip.webm", pictures(4), sound="libopus", codec="libvpx-vp9")
    assert call(clip, tmp_path / "out.webm") == 0
    after = facts(tmp_path / "out.webm")
    assert len(after.times) == 4 and after.sound == facts(clip).sound


@pytest.mark.parametrize("width, height", [(65, 49), (64, 49), (65, 48)])
def test_odd_sides_become_even(call, tmp_path, width, height):
    clip = make_clip(tmp_path / "clip.mkv", pictures(2, width, height), sound=None)
    assert call(clip, tmp_path / "out.mkv") == 0
    assert facts(tmp_path / "out.mkv").size == (width + width % 2, height + height % 2)


@pytest.mark.parametrize("rotation, aspect", [(None, 2), (90, Fraction(1, 2)), (180, 2)])
def test_pixels_that_are_not_square_stay_so(call, tmp_path, rotation, aspect):
    """Wide pixels become tall ones if the frame is turned."""
    clip = make_clip(tmp_path / "clip.mkv", pictures(2), rotation=rotation, aspect=2)
    assert call(clip, tmp_path / "out.mp4") == 0
    assert facts(tmp_path / "out.mp4").aspect == aspect


@pytest.mark.parametrize("rotation, turns", [(90, 1), (-90, 3), (180, 2)])
def test_a_telephone_s_rotation_is_applied(call, tmp_path, rotation, turns):
    """`rotation` is counterclockwise, as in np.rot90.

    The result is upright and names no rotation.
    """
    clip = make_clip(tmp_path / "clip.mp4", pictures(1), [40], rotation=rotation)
    assert (facts(clip).rotation - rotation) % 360 == 0
    (frame,) = [item for item in reading.open_source(str(clip)) if isinstance(item, reading.Frame)]
    upright = np.rot90(pictures(1)[0], turns)
    assert np.abs(frame.pixels.permute(1, 2, 0).numpy().astype(int) - upright).mean() < 10
    assert call(clip, tmp_path / "out.mp4") == 0
    after = facts(tmp_path / "out.mp4")
    assert after.rotation == 0 and after.size == upright.shape[1::-1]


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_colours_survive(tmp_path, suffix):
    """Uniform colours return within rounding, and the file says how to read them."""
    colours = [
        (200, 60, 30),
        (30, 200, 60),
        (60, 30, 200),
        (255, 255, 255),
        (0, 0, 0),
        (128, 128, 128),
    ]
    source = SimpleNamespace(
        rate=Fraction(25), time_base=Fraction(1, 25), sound=(), aspect=Fraction(1), is_endless=False
    )
    with writing.open_target(str(tmp_path / f"out{suffix}"), source) as target:
        for i, colour in enumerate(colours):
            pixels = torch.tensor(colour, dtype=torch.uint8).expand(48, 64, 3).contiguous()
            target.add(reading.Frame(pixels, i * source.time_base, source.time_base))
    frames = list(reading.open_source(str(tmp_path / f"out{suffix}")))
    means = torch.stack([frame.pixels.float().mean((1, 2)) for frame in frames])
    assert (means - torch.tensor(colours)).abs().max() <= 1.5
    with av.open(str(tmp_path / f"out{suffix}")) as clip:
        frame = next(clip.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (1, 1)


def test_size_is_the_shortest_side(call, tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", pictures(2))
    assert call(clip, tmp_path / "out.mp4", "--size", "24") == 0
    assert facts(tmp_path / "out.mp4").size == (32, 24)


def test_the_style_is_encoded_once(call, frame_folder, tmp_path, monkeypatch):
    calls = []
    original = Stylizer.encode_style
    monkeypatch.setattr(
        Stylizer, "encode_style", lambda self, image: calls.append(1) or original(self, image)
    )
    assert call(frame_folder, tmp_path / "out", "--video") == 0 and len(calls) == 1


def test_without_smoothing_the_frames_are_the_pictures(
    call, frame_folder, tmp_path, style, trained_run
):
    assert call(frame_folder, tmp_path / "out", "--video", "--smooth", "0", "--alpha", "0.8") == 0
    assert call(frame_folder, tmp_path / "pictures", "--alpha", "0.8") == 0
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        f"frame_{i:06d}.png" for i in range(1, 12)
    ]
    for i in range(1, 12):  # in the natural order of names
        frame, picture = (
            tmp_path / f"out/frame_{i:06d}.png",
            tmp_path / f"pictures/frame{i}__style.png",
        )
        assert np.array_equal(np.asarray(Image.open(frame)), np.asarray(Image.open(picture)))


def test_smoothing_changes_all_but_the_first_frame_and_goes_with_mixtures(
    call, frame_folder, tmp_path, style, monkeypatch
):
    """Only the statistics are smoothed: the exposure is not changed here."""
    monkeypatch.setattr(video.Smoother, "evened", lambda self, pixels: images.to_unit(pixels))
    other = draw(style.parent / "other.png", 98)
    for name, smooth in (("off", "0"), ("on", "0.5")):
        options = ["--video", "--smooth", smooth, "--style", style, other, "--weights", "1,2"]
        assert call(frame_folder, tmp_path / name, *options) == 0
    assert same_frames(tmp_path / "off", tmp_path / "on", range(1, 12)) == [True] + [False] * 10


def test_frame_folders_need_no_pyav_and_the_rest_says_so(
    arguments, frame_folder, tmp_path, monkeypatch
):
    """With the import blocked, folder to folder works, and a file is refused in one line."""
    code = (
        "import sys; sys.modules['av'] = None; import stylize; sys.exit(stylize.main(sys.argv[1:]))"
    )
    done = run_python("-c", code, *arguments(frame_folder, tmp_path / "out", "--video"))
    assert done.returncode == 0 and len(list((tmp_path / "out").iterdir())) == 11, done.stderr
    monkeypatch.setitem(sys.modules, "av", None)
    for content, output in (("clip.mp4", "out"), (frame_folder, "out.mp4"), ("-", "out")):
        with pytest.raises(
            WeightsError, match="expected the package av .* pip install -r requirements-video.txt"
        ):
            stylize.main(arguments(content, tmp_path / "x" / output, "--video"))


def test_a_folder_becomes_a_video_at_the_rate_asked_for(call, frame_folder, tmp_path, capsys):
    assert call(frame_folder, tmp_path / "out.mp4", "--video", "--fps", "30000/1001") == 0
    after = facts(tmp_path / "out.mp4")
    assert after.times == [i * Fraction(1001, 30000) for i in range(11)] and after.rate == Fraction(
        30000, 1001
    )
    assert re.search(
        r"wrote \S+out.mp4: 11 frames in [\d.]+ s, [\d.]+ frames/s, scene cuts: 0\n",
        capsys.readouterr().out,
    )


def stats(value):
    return (torch.full((1, 3, 1, 1), float(value)), torch.full((1, 3, 1, 1), float(value) / 2))


GREY = torch.full((3, 48, 64), 100, dtype=torch.uint8)


def averaged(smoother, own):
    """The statistics that align a frame with these of its own."""
    smoother.note(smoother.steady(make_look([own])).settled(own))
    return smoother.average


def averages(smoother, values, fps=25, frames=None):
    """The smoothed mean after each of the values."""
    found = []
    for i, value in enumerate(values):
        smoother.see(frames[i] if frames else GREY, i / fps)
        found.append(float(averaged(smoother, stats(value))[0][0, 0]))
    return found


def test_smoothing_of_a_constant_is_the_constant():
    smoother, constant = video.Smoother(0.2), (torch.rand(1, 8, 1, 1), torch.rand(1, 8, 1, 1))
    for i in range(5):
        smoother.see(GREY, i / 25)
        assert all(
            torch.equal(a, b) for a, b in zip(averaged(smoother, constant), constant, strict=True)
        )
        assert torch.equal(smoother.evened(GREY), images.to_unit(GREY))


@pytest.mark.parametrize("fps", [10, 25, 60])
def test_smoothing_closes_a_step_by_its_time_constant_at_any_rate(fps):
    assert averages(video.Smoother(0.5), [0] + [1] * fps, fps)[-1] == pytest.approx(
        1 - np.exp(-1 / 0.5), abs=1e-5
    )


def test_smoothing_begins_anew_at_a_cut_and_zero_is_off():
    frames = [as_bytes(pixels) for pixels in itertools.chain(*two_shots(2))]
    assert averages(video.Smoother(10), [0, 1, 5, 5], frames=frames) == [
        0,
        pytest.approx(0.004, abs=1e-4),
        5,
        5,
    ]
    assert averages(video.Smoother(0), [0, 1, 2]) == [0, 1, 2]


def test_a_changing_exposure_is_evened_and_an_object_is_not_taken_for_one():
    smoother, scene = video.Smoother(0.2), as_bytes(pictures(1)[0] // 2 + 40)
    for i, factor in enumerate((1, 1.15, 0.9, 1.1, 1)):
        frame = (scene * factor).round().to(torch.uint8)
        smoother.see(frame, i / 25)
        assert (smoother.evened(frame) * 255 - scene).abs().mean() < 0.05 * float(
            scene.float().mean()
        ) * abs(factor - 1) + 3
    lamp = scene.clone()
    lamp[:, :20, :20] = 250
    smoother.see(lamp, 0.2)
    assert smoother.level == pytest.approx(0, abs=0.01)


def test_frames_of_one_colour_pool_with_what_follows(call, tmp_path):
    """Their deviation is next to none: what their means differ by is part of the pooled one."""
    flat = [torch.full((1, 4, 1, 1), value) for value in (0.2, 0.003, 0.3, 0.003)]
    mean, deviation = pooled(tuple(flat[:2]), tuple(flat[2:]), 0.25)
    both = torch.tensor([0.2, 0.2, 0.2, 0.3])
    torch.testing.assert_close(mean, both.mean().expand(1, 4, 1, 1))
    spread = (both.var(unbiased=False) + 0.003**2).sqrt()
    torch.testing.assert_close(deviation, spread.expand(1, 4, 1, 1))
    (tmp_path / "fade").mkdir()
    for i in range(6):
        Image.new("RGB", (48, 32), (100 + 2 * i, 60, 60)).save(tmp_path / f"fade/{i}.png")
    Image.fromarray(pictures(1)[0]).save(tmp_path / "style.png")
    arguments = ["--content", tmp_path / "fade", "--video", "--style", tmp_path / "style.png"]
    sizes = ["--size", "32", "--style-size", "32", "--device", "cpu"]
    assert stylize.main([*map(str, arguments), "--output", str(tmp_path / "out"), *sizes]) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 6


@pytest.mark.parametrize("place", ["link", "real", "."])
def test_an_empty_folder_takes_the_frames_wherever_it_lies(
    call, frame_folder, tmp_path, place, monkeypatch
):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/.writing-left").mkdir()  # of a process that was killed
    if place == ".":
        monkeypatch.chdir(tmp_path / "real")
    assert call(frame_folder, "." if place == "." else tmp_path / place, "--video") == 0
    assert len(list((tmp_path / "real").glob("*.png"))) == 11
    assert {path.name for path in (tmp_path / "real").glob(".*")} == {".writing-left"}


def as_bytes(pixels):
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def two_shots(n):
    """Two shots, the second darker and with other shapes."""
    return pictures(n, seed=1), [pixels // 3 for pixels in pictures(n, seed=2)]


def test_cuts_are_found_and_pans_and_flashes_are_none():
    shots = two_shots(6)
    flash = (shots[1][2] * 0.4 + 153).astype(np.uint8)
    frames = [*shots[0], *shots[1][:2], flash, *shots[1][3:]]
    seen = [video.glimpse(as_bytes(pixels)) for pixels in frames]
    assert [i for i in range(1, 12) if video.is_cut(seen[i - 1], seen[i])] == [6]


def test_cuts_on_real_photos(real):
    """A pan by an eighth of the width is no cut.

    Another photo is one, in at least eight of ten pairs.
    """
    paths = images.list_images(real("content"))
    paths = paths[:: max(1, len(paths) // 60)][:60]
    if len(paths) < 20:
        pytest.skip(f"{len(paths)} photos are too few for a share of them; this test needs 20")
    photos = [images.load_bytes(path, 256) for path in paths]
    crops = [photo[:, :224, :224] for photo in photos]
    panned = [photo[:, 20:244, 28:252] for photo in photos]
    assert sum(is_cut(a, b) for a, b in itertools.pairwise(crops)) >= 0.8 * (len(crops) - 1)
    assert sum(is_cut(a, b) for a, b in zip(crops, panned, strict=True)) == 0


def is_cut(before, now):
    return video.is_cut(video.glimpse(before), video.glimpse(now))


def test_a_cut_resets_the_statistics(call, tmp_path, capsys):
    """The first frame after a cut equals the frame-wise picture.

    The one before the cut does not.
    """
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, pixels in enumerate(itertools.chain(*two_shots(4))):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    for name, smooth in (("off", "0"), ("on", "1")):
        assert call(folder, tmp_path / name, "--video", "--smooth", smooth) == 0
    assert capsys.readouterr().out.count("scene cuts: 1") == 2
    assert same_frames(tmp_path / "off", tmp_path / "on", (4, 5, 6)) == [False, True, False]


def run_piped(arguments, data):
    return subprocess.run(
        [sys.executable, "stylize.py", *arguments],
        cwd=ROOT,
        input=data,
        capture_output=True,
        timeout=120,
    )


def test_pipe_in_and_out(arguments, tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", pictures(8), UNEVEN_MS)
    done = run_piped(arguments("-", "-"), clip.read_bytes())
    assert done.returncode == 0, done.stderr
    (tmp_path / "out.mkv").write_bytes(done.stdout)  # a video and nothing else
    before, after = facts(clip), facts(tmp_path / "out.mkv")
    assert after.times == before.times and [data for _, data in after.sound] == [
        data for _, data in before.sound
    ]
    assert re.fullmatch(
        rb"wrote -: 8 frames in [\d.]+ s, [\d.]+ frames/s, scene cuts: 0\n", done.stderr
    )


def start(arguments, **options):
    return subprocess.Popen(
        [sys.executable, "stylize.py", *arguments], cwd=ROOT, stderr=subprocess.PIPE, **options
    )


def wait_for(condition, process):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until and process.poll() is None, process.stderr.read()
        time.sleep(0.05)


@pytest.mark.parametrize(
    "output, number, code", [("out.mp4", signal.SIGINT, 130), ("out", signal.SIGTERM, 143)]
)
def test_an_interrupted_file_leaves_nothing(arguments, tmp_path, output, number, code):
    clip = make_clip(tmp_path / "clip.mkv", pictures(8) * 200, EVEN_MS * 200, sound=None)
    place = tmp_path / "made"
    process = start(arguments(clip, place / output))
    wait_for(lambda: place.exists() and any(place.iterdir()), process)
    time.sleep(2)  # until frames are being made
    process.send_signal(number)
    assert process.wait(30) == code and list(place.iterdir()) == []
    assert process.stderr.read() in (b"interrupted; no file was written\n", b"interrupted\n")


def test_an_interrupted_pipe_is_finished(arguments, tmp_path):
    """The writer stays open, as a camera's program does.

    Ctrl-C still ends the video properly.
    """
    clip = make_clip(tmp_path / "clip.mkv", pictures(8) * 50, EVEN_MS * 50, sound=None).read_bytes()
    out = tmp_path / "out.mkv"
    with out.open("wb") as file:
        process = start(arguments("-", "-"), stdin=subprocess.PIPE, stdout=file)
    threading.Thread(
        target=feed, args=(process.stdin, clip[: len(clip) * 9 // 10]), daemon=True
    ).start()
    wait_for(lambda: out.stat().st_size > 5000, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0, process.stderr.read()
    assert 1 <= len(facts(out).times) < 400 and re.match(
        rb"wrote -: \d+ frames", process.stderr.read()
    )


def feed(pipe, data):
    pipe.write(data)
    pipe.flush()


def test_a_viewer_that_leaves_ends_it(arguments, tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", pictures(8) * 200, EVEN_MS * 200, sound=None)
    process = start(arguments(clip, "-"), stdout=subprocess.PIPE)
    assert process.stdout.read(100)
    process.stdout.close()
    assert process.wait(30) == 0
    assert re.match(rb"wrote -: \d+ frames", process.stderr.read())


@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
def test_of_a_damaged_clip_the_rest_is_kept(call, tmp_path, capsys, damage):
    clip = make_clip(tmp_path / "clip.mkv", pictures(8) * 10, EVEN_MS * 10)
    data = bytearray(clip.read_bytes())
    if damage == "cut off":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 3 : len(data) // 2] = os.urandom(len(data) // 2 - len(data) // 3)
    clip.write_bytes(data)
    assert call(clip, tmp_path / "out.mkv") == DataError.exit_code
    assert 10 < len(facts(tmp_path / "out.mkv").times) <= 80
    err = capsys.readouterr().err
    assert re.fullmatch(
        r"error: [^\n]*clip.mkv: expected [^\n]*; what could be decoded is kept\n", err
    ), err


def test_a_frame_that_does_not_decode_is_left_out(call, frame_folder, tmp_path, capsys):
    (frame_folder / "frame3.png").write_bytes(b"broken")
    assert call(frame_folder, tmp_path / "out", "--video") == DataError.exit_code
    assert len(list((tmp_path / "out").iterdir())) == 10 and "frame3.png" in capsys.readouterr().err


def test_mistakes(call, frame_folder, tmp_path, style):
    clip = make_clip(tmp_path / "clip.mp4", pictures(1), [40])
    (tmp_path / "empty").mkdir()
    (tmp_path / "noise.mp4").write_bytes(b"noise" * 1000)
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        add_tone(out, out.add_stream("aac", rate=48000, layout="mono"), 4800)
    cases = [
        ((tmp_path / "absent.mp4", "out.mp4"), DataError, "there is no .*absent.mp4"),
        (
            (tmp_path / "noise.mp4", "out.mp4"),
            DataError,
            "noise.mp4: expected a video, but it cannot be read",
        ),
        ((tmp_path / "sound.mp4", "out.mp4"), DataError, "no picture track"),
        ((tmp_path / "empty", "out", "--video"), DataError, "there are none"),
        ((clip, "out.png"), UsageError, r"expected a video \(.mp4.*out.png came"),
        ((clip, "out.avi"), UsageError, r"expected a video \(.mp4.*out.avi came"),
        ((clip, "empty/../frames"), UsageError, "a new or an empty folder"),
        ((clip, "style.png/out.mp4"), UsageError, "folder that can be written"),
        ((clip, "out.mp4", "--fps", "30"), UsageError, "has its own frame times"),
        ((clip, "out.mp4", "--fps", "1/0"), UsageError, "invalid rate value"),
        ((clip, "out.mp4", "--smooth", "-1"), UsageError, "invalid seconds value"),
        ((clip, "out.mp4", "--alpha", "2"), UsageError, "alpha in"),
        ((clip, "out.mp4", "--weights", "1,2"), UsageError, "1 weights"),
        (
            (clip, "out.mp4", "--content", clip, clip),
            UsageError,
            "expected one clip as --content, but 2 names",
        ),
        (
            (clip, "out.mp4", "--style", style, style),
            UsageError,
            "expected one style for a clip, but 2",
        ),
        ((clip, "clip.mp4"), UsageError, "another name than the content's"),
        (("camera:97", "out.mp4"), DataError, "camera:97"),
        ((style, "out.png", "--smooth", "1"), UsageError, "expected a clip for --smooth"),
    ]
    for (content, output, *extra), kind, message in cases:
        with pytest.raises(kind, match=message):
            call(content, tmp_path / output, *extra)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(files.UNFINISHED)]


def test_a_transform_that_cannot_be_smoothed_says_so(
    frame_folder, tmp_path, style, trained_run, capsys
):
    from stylenet.transforms import TRANSFORMS

    stylizer = Stylizer.load(trained_run, device="cpu")
    stylizer.net.transform = TRANSFORMS["efdm"]
    source = reading.open_source(str(frame_folder))
    with writing.open_target(str(tmp_path / "out"), source) as target:
        look = make_look([stylizer.encode_style(str(style))])
        video.stylise(source, target, stylizer, lambda frame: look)
    assert (
        "to be smoothed; each frame is by itself" in capsys.readouterr().err
        and len(list((tmp_path / "out").iterdir())) == 11
    )


def test_reading_ahead_is_bounded_and_passes_errors_on():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i
        raise DataError("at the end")

    taken = video.ahead(items(), lambda: False)
    assert next(taken) == 0
    time.sleep(0.3)
    assert len(made) <= video.AHEAD + 3
    with pytest.raises(DataError, match="at the end"):
        assert list(taken) == []


def test_a_camera_gives_its_newest_frame():
    """During one frame's computation all newer frames but the last are dropped.

    The frames of a file are never dropped.
    """

    def items():
        for i in range(20):
            time.sleep(0.02)
            yield i

    def slowly(keeps_newest):
        for item in video.ahead(items(), lambda: False, keeps_newest):
            time.sleep(0.1)
            yield item

    newest = list(slowly(True))
    assert 2 <= len(newest) < 10 and newest == sorted(set(newest)) and newest[-1] == 19
    assert list(slowly(False)) == list(range(20))


def test_what_is_a_clip():
    for name in ("-", "camera:0", "/dev/video1", "a.mp4", "b/C.MKV"):
        assert reading.is_clip([name])
    assert not reading.is_clip(["photo.jpg", "folder"]) and reading.is_clip(
        ["folder"], is_forced=True
    )


@pytest.mark.parametrize(
    "extra",
    [["--pairs", "all"], ["--format", "jpg"], ["--batch", "2"], ["--workers", "2"], ["--crop"]],
)
def test_options_of_pictures_are_refused_for_clips(call, frame_folder, tmp_path, extra):
    with pytest.raises(UsageError, match=f"expected pictures for {extra[0]}, but a clip came"):
        call(frame_folder, tmp_path / "out", "--video", *extra)


@pytest.mark.parametrize("fps", ["1e-30", "1e12", "0", "1/0"])
def test_rates_that_no_container_takes_are_refused(call, frame_folder, tmp_path, fps):
    with pytest.raises(UsageError, match="--fps"):
        call(frame_folder, tmp_path / "out", "--video", "--fps", fps)


def hdr_clip(path, pixels, curve):
    """A 10-bit clip of BT.2020 with an HDR curve, from 16-bit RGB of the same colours."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, curve, 9
        context.color_range = 1
        # with B-frames, libx265 gives the only frame of a clip an undefined decoding time
        stream.options = {"crf": "4", "x265-params": "log-level=none:bframes=0"}
        frame = av.VideoFrame.from_ndarray(pixels, format="gbrp16le")
        frame = frame.reformat(format="yuv420p10le", dst_colorspace=9, dst_color_range=1)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("curve, number", [("pq", 16), ("hlg", 18)])
def test_hdr_clips_have_the_colours_of_an_ordinary_screen(tmp_path, curve, number):
    """What an ordinary screen shows as grey 0.5 and white comes back as that."""
    levels = np.arange(2**16)
    light = hdr.decoding(curve)
    if curve == "hlg":
        light = light**hdr.HLG_GAMMA * hdr.HLG_PEAK_NITS / hdr.WHITE_NITS
    signals = [int(levels[np.searchsorted(light, wanted)]) for wanted in (0.214, 0.7)]
    pixels = np.zeros((64, 64, 3), dtype=np.uint16)
    pixels[:, :32], pixels[:, 32:] = signals
    hdr_clip(tmp_path / "c.mp4", pixels, number)
    (frame,) = (item for item in open_source(str(tmp_path / "c.mp4")) if isinstance(item, Frame))
    for column, expected in ((8, 127), (56, 218)):
        assert (frame.pixels[:, 32, column].int() - expected).abs().max() <= 2


def test_hdr_highlights_stay_below_white_and_in_order():
    light = np.linspace(0, 1, 2**16).astype(np.float32)
    shown = hdr.to_sdr(np.round(light * 65535).astype(np.uint16)[None, :, None].repeat(3, 2), "pq")
    assert shown.max() == 255 and (np.diff(shown[0, :, 0].astype(int)) >= 0).all()


def test_interlaced_clips_are_deinterlaced(tmp_path):
    """Two fields of a moving edge make a comb, which is gone; times stay."""
    av = pytest.importorskip("av")
    frames = []
    for i in range(8):
        pixels = np.zeros((64, 64, 3), dtype=np.uint8)
        for field in (0, 1):  # the edge moves from field to field
            pixels[field::2, : 4 * (2 * i + field) + 2] = 255
        frames.append(pixels)
    with av.open(str(tmp_path / "i.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "4", "x264-params": "tff=1"}
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    read = [item for item in open_source(str(tmp_path / "i.mp4")) if isinstance(item, Frame)]
    assert [float(item.time) for item in read] == pytest.approx([i / 25 for i in range(8)])
    comb = [(np.diff(pixels[..., 0].astype(int), axis=0) != 0).mean() for pixels in frames]
    after = [
        (np.abs(np.diff(item.pixels[0].numpy().astype(int), axis=0)) > 100).mean() for item in read
    ]
    assert np.mean(after[2:-2]) < 0.3 * np.mean(comb[2:-2])


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".avif"])
def test_animated_pictures_are_clips_with_their_times(tmp_path, suffix):
    colours, durations = ((200, 0, 0), (0, 200, 0), (0, 0, 200)), [100, 300, 50]
    images_ = [Image.new("RGB", (32, 32), colour) for colour in colours]
    images_[0].save(
        tmp_path / f"a{suffix}", save_all=True, append_images=images_[1:], duration=durations
    )
    source = open_source(str(tmp_path / f"a{suffix}"))
    read = list(source)
    assert source.n_frames == 3 and [item.pixels[:, 9, 9].argmax().item() for item in read] == [
        0,
        1,
        2,
    ]
    assert [float(item.time) for item in read] == pytest.approx([0, 0.1, 0.4], abs=0.011)
    assert images.is_animated(tmp_path / f"a{suffix}")
    images_[0].save(tmp_path / f"b{suffix}")
    assert not images.is_animated(tmp_path / f"b{suffix}")


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_a_damaged_animation_keeps_what_decodes(call, tmp_path, suffix, capsys):
    frames = [Image.fromarray(pixels) for pixels in pictures(6)]
    place = tmp_path / f"a{suffix}"
    frames[0].save(place, save_all=True, append_images=frames[1:], duration=100)
    content = place.read_bytes()
    place.write_bytes(content[: len(content) * 2 // 3])
    assert call(place, tmp_path / "out", "--video") == 3
    assert 1 <= len(list((tmp_path / "out").glob("*.png"))) < 6
    assert "what could be decoded is kept" in capsys.readouterr().err


def test_an_animation_is_turned_as_a_photo_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.fromarray(pixels) for pixels in pictures(2)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], exif=exif)
    (frame, _) = list(open_source(str(tmp_path / "a.webp")))
    assert tuple(frame.pixels.shape[-2:]) == frames[0].size


def test_frames_that_are_shorter_than_a_tick_follow_each_other(call, tmp_path):
    frames = [Image.fromarray(pixels) for pixels in pictures(4)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=0.1)
    assert call(tmp_path / "a.png", tmp_path / "out.mp4", "--video") == 0
    assert len(facts(tmp_path / "out.mp4").times) == 4
