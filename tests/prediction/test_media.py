"""Files, folders and patterns as inputs."""

import os
from pathlib import Path

import pytest

from lib.dataset.images import read_image
from lib.prediction.media import find_sources
from lib.prediction.output import plan_outputs
from lib.prediction.video import Video
from lib.utils.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "c.mp4", "notes.txt", ".hidden.jpg", "sub/d.jpg", "x[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(*inputs: object) -> list[str]:
    return [source.name for source in find_sources(map(str, inputs))]


def test_a_folder_means_its_images_and_videos(folder: Path) -> None:
    assert names(folder) == ["a.png", "b.JPG", "c.mp4", "x[1].jpg"]
    kinds = [source.kind for source in find_sources([str(folder)])]
    assert kinds == ["image", "image", "video", "image"]


def test_a_pattern_means_the_files_that_match(folder: Path) -> None:
    assert names(f"{folder}/*.JPG") == ["b.JPG"]
    assert names(f"{folder}/**/*.jpg") == ["sub/d.jpg", "x[1].jpg"]
    assert names(f"{folder}/s*/d.jpg") == ["sub/d.jpg"]
    assert names(f"{folder}/x[1].jpg") == ["x[1].jpg"]  # a file of that name exists


@pytest.mark.parametrize("name", ["none.jpg", "none*.jpg", "empty"])
def test_an_input_without_images_is_an_error(folder: Path, name: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="--input"):
        find_sources([str(folder), str(folder / name)])


def test_folders_in_a_folder_are_searched_on_request(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out/a.png").touch()
    sources = find_sources([str(folder)], recursive=True, exclude=folder / "out")
    assert [source.name for source in sources] == [
        "a.png", "b.JPG", "c.mp4", "sub/d.jpg", "x[1].jpg",
    ]  # fmt: skip
    (folder / "deep/sub").mkdir(parents=True)
    (folder / "deep/sub/e.jpg").touch()
    with pytest.raises(UserError, match="--recursive"):
        find_sources([str(folder / "deep")])
    assert [source.name for source in find_sources([str(folder / "deep")], True)] == ["sub/e.jpg"]


@pytest.mark.skipif(os.name != "posix", reason="its file names are bytes")
def test_names_that_are_not_utf8_are_printable(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/\xff\xe9.jpg")).touch()
    except OSError:
        pytest.skip("a file system that takes only UTF-8")
    (source,) = find_sources([str(tmp_path)])
    assert source.name == r"\xff\xe9.jpg"
    assert os.path.exists(source.path)


def test_repeated_files_are_read_once(folder: Path) -> None:
    path = folder / "a.png"
    assert names(path, folder / "../" / folder.name / "a.png", path, folder / "b.JPG", path) == [
        "a.png", "b.JPG",
    ]  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="pipes and links")
def test_broken_links_and_pipes_are_reported_not_waited_for(tmp_path: Path) -> None:
    names = ("broken.jpg", "loop.jpg", "pipe.jpg", "pipe.mp4", "zero.heic")
    for name in names:
        target = {"loop.jpg": name, "zero.heic": "/dev/zero"}.get(name, "missing")
        link = tmp_path / name
        os.mkfifo(link) if name.startswith("pipe") else link.symlink_to(target)
    (tmp_path / "folder.jpg").mkdir()
    sources = find_sources([str(tmp_path)], recursive=True, exclude=tmp_path / "out")
    assert [source.name for source in sources] == list(names)
    assert len(plan_outputs(sources, tmp_path / "out", None, None)) == len(names)
    for source in sources:
        with pytest.raises(UserError, match=source.name):
            Video(source) if source.kind == "video" else read_image(source.path)
