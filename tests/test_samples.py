"""The procedural pictures."""

import pytest
import samples

from stylenet import images
from stylenet.errors import UsageError


def test_samples_are_deterministic_varied_and_usable(tmp_path):
    for name in ("a", "b"):
        assert samples.main(["--output", str(tmp_path / name), "--count", "6"]) == 0
    files = [sorted((tmp_path / name).rglob("*.png")) for name in ("a", "b")]
    assert len(files[0]) == 12
    pictures = [path.read_bytes() for path in files[0]]
    assert pictures == [path.read_bytes() for path in files[1]] and len(set(pictures)) == 12
    for path in files[0]:
        assert images.load_image(path).std() > 0.05
    assert samples.main(["--output", str(tmp_path / "c"), "--count", "1", "--seed", "1"]) == 0
    assert (tmp_path / "c/content/content_00.png").read_bytes() != pictures[0]


def test_mistakes(tmp_path):
    (tmp_path / "file").touch()
    cases = {
        "--count of 1": ["--count", "0"],
        "--seed of 0": ["--seed", "-1"],
        "can be written": ["--output", str(tmp_path / "file")],
    }
    for message, arguments in cases.items():
        with pytest.raises(UsageError, match=message):
            samples.main(["--output", str(tmp_path / "x"), *arguments])
