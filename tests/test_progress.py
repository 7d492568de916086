"""Progress: rate and time left, as lines without a terminal."""

from stylenet.progress import Progress, duration, make_bar, shown


def test_progress_says_rate_and_time_left(capsys):
    with Progress(100, "picture", every_s=0) as progress:
        for outcome in ("kept",) * 50 + ("skipped",) * 10 + ("made",) * 20:
            progress.step(outcome)
    assert progress.line(10.0) == "80/100 pictures  2.00 pictures/s  00:00:10 left"
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 80 and lines[0] == "1/100 pictures  0.00 pictures/s  ? left"
    with Progress(3, "picture", is_shown=False, every_s=0) as silent:
        silent.step("made")
    assert capsys.readouterr().err == ""


def test_items_pass_through_and_a_piped_bar_shows_nothing(capsys):
    assert list(shown(iter("abc"), 3, "letter")) == ["a", "b", "c"]
    assert make_bar(3, "step").disable and capsys.readouterr().err == ""


def test_durations():
    assert [duration(s) for s in (0, 61.4, 3600 * 30 + 59)] == ["00:00:00", "00:01:01", "30:00:59"]
