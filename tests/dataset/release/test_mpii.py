"""Conversion of the official MPII release: what is kept, excluded, and rejected."""

import json
import runpy
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from lib.dataset.mpii import read_records
from lib.dataset.release.mpii import read_release
from lib.dataset.release.prepare import VALID_SHARE, match_people, split_by_video
from lib.dataset.release.prepare import prepare as prepare_any
from lib.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
EMPTY = np.zeros((0, 0))
prepare = partial(prepare_any, read=read_release)
FILES = ["gt_valid.mat", "test.json", "train.json", "trainval.json", "valid.json"]
VISIBLE = [1, "1", 0, "0", EMPTY]  # values of is_visible in the release

Fields = dict[str, Any]


def struct_array(rows: list[Fields], names: list[str]) -> np.ndarray:
    """Return a struct array as in MATLAB: every row has every field, some of them empty."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for index, row in enumerate(rows):
        for name in names:
            array[name][0, index] = row.get(name, EMPTY)
    return array


def as_structs(value: Any) -> Any:
    """Convert nested dictionaries and lists to MATLAB struct arrays."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return value
    if not value:
        return EMPTY
    rows = [{name: as_structs(field) for name, field in row.items()} for row in value]
    return struct_array(rows, list(dict.fromkeys(name for row in rows for name in row)))


def as_cells(value: Any) -> Any:
    """Keep dictionaries, which SciPy saves as structs, and lists, which it saves as cells."""
    return value


def rect(seed: int, joints: int = 16) -> Fields:
    """Return a person with that many annotated joints."""
    random = np.random.default_rng(seed)
    points = [
        {
            "x": random.uniform(1, 900),
            "y": random.uniform(1, 900),
            "id": int(joint),
            "is_visible": VISIBLE[joint % len(VISIBLE)],
        }
        for joint in random.permutation(16)[:joints]
    ]
    return {
        "x1": int(random.integers(900)),
        "y1": int(random.integers(900)),
        "x2": int(random.integers(900)),
        "y2": int(random.integers(900)),
        "annopoints": {"point": points},
        "scale": random.uniform(0.5, 5),
        "objpos": {"x": int(random.integers(900)), "y": int(random.integers(900))},
    }


def image(name: str, people: list[Fields], video: int | None, train: bool = True) -> Fields:
    entry = {"image": {"name": name}, "annorect": people, "train": train}
    return entry if video is None else entry | {"vididx": video}


def release_images(train: int = 60) -> list[Fields]:
    """Return training images, three per video, with 1 to 3 people each, and 5 test images."""
    images = []
    for number in range(train):
        people = [rect(10 * number + one, 16 - number % 5) for one in range(1 + number % 3)]
        images.append(image(f"{number:09d}.jpg", people, 1 + number // 3))
    for number in range(train, train + 5):
        people = [rect(10 * number + one) for one in range(2)]
        for person in people:
            del person["annopoints"], person["x1"]
        images.append(image(f"{number:09d}.jpg", people, None, train=False))
    return images


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes images as a release's .mat file, and files for the images."""
    (tmp_path / "images").mkdir()

    def write(images: list[Fields], form: Callable[[Any], Any] = as_structs, **change: Any) -> Path:
        for entry in images:
            (tmp_path / "images" / entry["image"]["name"]).touch()
        annolist = [{k: v for k, v in entry.items() if k != "train"} for entry in images]
        single = np.empty((len(images), 1), dtype=object)
        for index in range(len(images)):
            single[index, 0] = np.array([[2]]) if index % 2 else EMPTY
        fields = {
            "annolist": form(annolist),
            "img_train": np.array([[entry["train"] for entry in images]], dtype=np.uint8),
            "single_person": single,
            **change,
        }
        fields = {name: value for name, value in fields.items() if value is not None}
        path = tmp_path / "release.mat"
        savemat(path, {"RELEASE": fields}, do_compression=True)
        return path

    return write


def expected(entry: Fields, person: Fields) -> Fields:
    """Return the expected record of a person."""
    joints, visible = [[-1.0, -1.0] for _ in range(16)], [0] * 16
    for point in person["annopoints"]["point"]:
        joints[point["id"]], visible[point["id"]] = [point["x"], point["y"]], 1
    return {
        "image": entry["image"]["name"],
        "center": [person["objpos"]["x"], person["objpos"]["y"]],
        "scale": person["scale"],
        "joints": joints,
        "joints_vis": visible,
    }


def read(out: Path) -> dict[str, list[Fields]]:
    return {file.stem: json.loads(file.read_text()) for file in (out / "annot").glob("*.json")}


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def key(record: Fields) -> tuple[Any, ...]:
    return (record["image"], *record["center"], record["scale"])


@pytest.mark.parametrize("form", [as_structs, as_cells])
def test_annotation_is_converted(
    release: Callable[..., Path], tmp_path: Path, form: Callable[[Any], Any]
) -> None:
    images = release_images()
    prepare(release(images, form), tmp_path / "images", tmp_path / "out")
    sets = read(tmp_path / "out")
    people = [expected(one, person) for one in images if one["train"] for person in one["annorect"]]
    assert sets["trainval"] == people
    assert sorted(map(key, sets["train"] + sets["valid"])) == sorted(map(key, people))
    assert all(record in people for record in sets["train"] + sets["valid"])
    # Person 2 of every odd image, counted from 0, is in single_person.
    assert [record["image"] for record in sets["test"]] == ["000000061.jpg", "000000063.jpg"]
    single = images[61]["annorect"][1]
    assert sets["test"][0]["center"] == [single["objpos"]["x"], single["objpos"]["y"]]
    assert sets["test"][0]["scale"] == single["scale"]
    assert sets["test"][0]["joints_vis"] == [0] * 16
    assert sets["test"][0]["joints"] == [[0, 0]] * 16
    for name, records in sets.items():
        readable = read_records(tmp_path / "out" / "annot" / f"{name}.json", 16)
        assert [person.image for person in readable] == [record["image"] for record in records]


def test_ground_truth_is_of_the_validation_people(
    release: Callable[..., Path], tmp_path: Path
) -> None:
    images = release_images()
    prepare(release(images), tmp_path / "images", tmp_path / "out")
    valid = read(tmp_path / "out")["valid"]
    truth = loadmat(tmp_path / "out" / "annot" / "gt_valid.mat")
    visible = np.array([record["joints_vis"] for record in valid]).T == 1
    joints = np.array([record["joints"] for record in valid]).transpose(1, 2, 0)
    assert np.array_equal(truth["jnt_missing"], 1 - visible)
    assert np.array_equal(truth["pos_gt_src"], np.where(visible[:, None], joints, 0))
    boxes = {
        key(expected(one, person)): [[person["x1"], person["y1"]], [person["x2"], person["y2"]]]
        for one in images
        if one["train"]
        for person in one["annorect"]
    }
    for number, record in enumerate(valid):
        assert truth["headboxes_src"][..., number].tolist() == boxes[key(record)]


def test_real_annotation_survives_a_round_trip(
    release: Callable[..., Path], tmp_path: Path, shared: Path
) -> None:
    annot = shared / "data" / "mpii" / "annot"
    records = json.loads((annot / "valid.json").read_text())[:150]
    truth = loadmat(annot / "gt_valid.mat")
    images: dict[str, Fields] = {}
    for number, record in enumerate(records):
        corners = truth["headboxes_src"][..., number].ravel()
        person = dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))
        visible = np.flatnonzero(record["joints_vis"])
        points = [
            {"x": record["joints"][j][0], "y": record["joints"][j][1], "id": j} for j in visible
        ]
        center = dict(zip("xy", record["center"], strict=True))
        person |= {"annopoints": {"point": points}, "scale": record["scale"], "objpos": center}
        entry = images.setdefault(record["image"], image(record["image"], [], None))
        entry["annorect"].append(person)
    (tmp_path / "valid.json").write_text(json.dumps(records[::-1]))
    prepare(
        release(list(images.values())),
        tmp_path / "images",
        tmp_path / "out",
        valid=tmp_path / "valid.json",
    )
    assert read(tmp_path / "out")["valid"] == records[::-1]
    written = loadmat(tmp_path / "out" / "annot" / "gt_valid.mat")
    for name in ("dataset_joints", "jnt_missing", "pos_gt_src", "headboxes_src"):
        real = truth[name] if name == "dataset_joints" else truth[name][..., :150][..., ::-1]
        assert written[name].dtype == real.dtype
        assert written[name].shape == real.shape
    assert written["dataset_joints"].tolist() == truth["dataset_joints"].tolist()
    assert np.array_equal(written["jnt_missing"], truth["jnt_missing"][:, :150][:, ::-1])
    assert np.array_equal(written["headboxes_src"], truth["headboxes_src"][..., :150][..., ::-1])
    # valid.json is rounded to four decimals, gt_valid.mat is not.
    assert np.abs(written["pos_gt_src"] - truth["pos_gt_src"][..., :150][..., ::-1]).max() < 1e-4


def test_split_keeps_videos_whole(release: Callable[..., Path]) -> None:
    images = release_images()
    people = read_release(release(images)).train
    chosen = split_by_video(people)
    valid = {people[index].video for index in chosen}
    assert valid.isdisjoint(people[i].video for i in range(len(people)) if i not in set(chosen))
    assert 0.05 < len(chosen) / len(people) <= VALID_SHARE
    # The choice does not depend on the order of the release.
    backward = split_by_video(people[::-1])
    assert {people[::-1][index].video for index in backward} == valid


def test_split_has_no_people_that_cannot_be_scored(release: Callable[..., Path]) -> None:
    images = release_images()
    for entry in images[:30]:
        del entry["annorect"][0]["x2"]
    for entry in images[30:45]:
        del entry["vididx"]
    people = read_release(release(images)).train
    chosen = [people[index] for index in split_by_video(people)]
    assert chosen
    assert all(person.head_box and person.video for person in chosen)
    assert all(int(person.image[:9]) >= 45 for person in chosen)


def test_people_without_annotation_are_excluded(
    release: Callable[..., Path], tmp_path: Path
) -> None:
    odd = [rect(seed) for seed in range(11)]
    odd[0]["annopoints"] = EMPTY
    odd[1]["annopoints"] = {"point": []}
    del odd[2]["annopoints"]
    odd[3]["scale"] = EMPTY
    del odd[4]["objpos"]
    odd[5]["objpos"] = EMPTY
    odd[6]["annopoints"]["point"][3]["x"] = EMPTY  # that joint alone is not annotated
    odd[7]["annopoints"]["point"] = odd[7]["annopoints"]["point"][:1]
    for point in odd[8]["annopoints"]["point"]:
        del point["is_visible"]
    del odd[8]["x1"]
    odd[9]["scale"] = 0
    odd[10]["objpos"]["x"] = -1
    missing = odd[6]["annopoints"]["point"][3]["id"]
    names = [f"odd{number}.jpg" for number in range(11)]
    images = release_images()
    images += [image(name, [person], 99) for name, person in zip(names, odd, strict=True)]
    empty = [image("empty1.jpg", [], 98), image("empty2.jpg", [], 98) | {"annorect": EMPTY}]
    del empty[0]["annorect"]
    lines: list[str] = []
    for form in (as_structs, as_cells):
        path = release(images + empty, form)
        prepare(path, tmp_path / "images", tmp_path / "out", overwrite=True, log=lines.append)
        train = {record["image"]: record for record in read(tmp_path / "out")["train"]}
        assert [name for name in names if name in train] == ["odd6.jpg", "odd7.jpg", "odd8.jpg"]
        assert train["odd6.jpg"]["joints"][missing] == [-1, -1]
        assert train["odd6.jpg"]["joints_vis"] == [int(joint != missing) for joint in range(16)]
        assert sum(train["odd7.jpg"]["joints_vis"]) == 1
        assert sum(train["odd8.jpg"]["joints_vis"]) == 16
        assert "excluded: 3 training people without joints" in lines
        assert "excluded: 5 training people without image name, position or scale" in lines
        lines.clear()


def test_listed_people_are_the_validation_set(release: Callable[..., Path], tmp_path: Path) -> None:
    images = release_images()
    # Two people at the same position differ in scale.
    first, second = images[1]["annorect"]
    second["objpos"] = dict(first["objpos"])
    listed = [expected(images[index], images[index]["annorect"][-1]) for index in (50, 1, 8)]
    listed[0]["center"][0] += 0.4  # a file may round
    (tmp_path / "list.json").write_text(json.dumps(listed))
    path = release(images)
    lines: list[str] = []
    for separate in (False, True):
        prepare(
            path,
            tmp_path / "images",
            tmp_path / "out",
            valid=tmp_path / "list.json",
            separate_images=separate,
            overwrite=True,
            log=lines.append,
        )
        sets = read(tmp_path / "out")
        assert [record["scale"] for record in sets["valid"]] == [one["scale"] for one in listed]
        neighbours = [one for one in sets["train"] if one["image"] in {r["image"] for r in listed}]
        # Images 50, 1 and 8 hold 3, 2 and 3 people.
        assert len(neighbours) == (0 if separate else 5)
        removed = 5 if separate else 0
        assert len(sets["train"]) + len(sets["valid"]) + removed == len(sets["trainval"])
        assert not any("do not compare" in line for line in lines)


def test_listed_people_must_be_in_the_release(release: Callable[..., Path], tmp_path: Path) -> None:
    images = release_images(30)
    people = read_release(release(images)).train
    records = [person.record() for person in people[:4]]
    records[1]["center"][0] += 3
    records[2]["image"] = "other.jpg"
    file = tmp_path / "list.json"
    file.write_text(json.dumps([*records, records[0]]))
    with pytest.raises(UserError, match=r"list.json: 3 of 5 people"):
        match_people(people, file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_any_unicode_encoding_are_read(
    release: Callable[..., Path], tmp_path: Path, encoding: str
) -> None:
    """Windows writes a byte-order mark."""
    people = read_release(release(release_images(30))).train
    file = tmp_path / "list.json"
    file.write_bytes(json.dumps([people[3].record()]).encode(encoding))
    assert match_people(people, file) == [3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "not valid JSON"),
        ("\xff", "not valid JSON"),
        ("{}", "must be a list"),
        ("[]", "must be a list"),
        ('[{"image": "a.jpg", "center": [1], "scale": 2}]', "record 0"),
        ('[{"image": "a.jpg", "center": [1, 2]}]', "record 0"),
        ('["a.jpg"]', "record 0"),
    ],
)
def test_bad_lists_are_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=rf"list.json.*{message}"):
        match_people([], tmp_path / "list.json")
    with pytest.raises(UserError, match="cannot be read"):
        match_people([], tmp_path / "absent.json")


def test_own_split_warns_that_scores_do_not_compare(
    release: Callable[..., Path], tmp_path: Path
) -> None:
    lines: list[str] = []
    prepare(release(release_images(30)), tmp_path / "images", tmp_path / "out", log=lines.append)
    assert any("do not compare with published" in line for line in lines)


def test_a_missing_image_is_an_error(release: Callable[..., Path], tmp_path: Path) -> None:
    path = release(release_images())
    missing = ["000000003.jpg", "000000007.jpg", "000000011.jpg", "000000061.jpg"]
    for name in missing:
        (tmp_path / "images" / name).unlink()
    (tmp_path / "images" / "000000005.jpg").unlink()
    (tmp_path / "images" / "000000005.jpg").mkdir()  # a folder is not an image
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"5 of 62 images.* 000000003.jpg, 000000005.jpg, 0+7.jpg"):
        prepare(path, tmp_path / "images", out)
    assert not out.exists()


def test_images_are_linked_unless_in_place(release: Callable[..., Path], tmp_path: Path) -> None:
    path, images, out = release(release_images(30)), tmp_path / "images", tmp_path / "out"
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path_of_image in images.iterdir():
            file.write(path_of_image, path_of_image.name)
    prepare(path, archive, out)
    prepare(path, images, out, overwrite=True)
    assert (out / "images.zip").samefile(archive)
    assert (out / "images").samefile(images)
    prepare(path, out / "images", out, overwrite=True)  # already in place
    assert (out / "images").resolve() == images
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    with pytest.raises(UserError, match=r"other/images exists"):
        prepare(path, images, other)
    assert not (other / "annot").exists()
    archive.write_bytes(archive.read_bytes()[:-30])
    for bad in (archive, tmp_path / "absent"):
        with pytest.raises(UserError, match="--images"):
            prepare(path, bad, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_existing_annotation_is_kept_unless_overwritten(
    release: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, images, out = release(release_images(30)), tmp_path / "images", tmp_path / "out"
    (out / "annot").mkdir(parents=True)
    (out / "annot" / "valid.json").write_text("mine")
    with pytest.raises(UserError, match=r"annot is not empty: pass --overwrite"):
        prepare(path, images, out)
    assert tree(out) == {"annot/valid.json": b"mine"}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lib.utils.mat.savemat", full)
        with pytest.raises(UserError, match="No space left"):
            prepare(path, images, out, overwrite=True)
    assert tree(out / "annot") == {"valid.json": b"mine"}
    assert sorted(entry.name for entry in out.iterdir()) == ["annot", "images"]
    prepare(path, images, out, overwrite=True)
    assert sorted(tree(out / "annot")) == FILES
    assert sorted(entry.name for entry in out.iterdir()) == ["annot", "images"]


def test_truncated_files_are_an_error(release: Callable[..., Path], tmp_path: Path) -> None:
    path = release(release_images())
    whole = path.read_bytes()
    cut = tmp_path / "cut.mat"
    for size in [0, 127, 136, *range(500, len(whole), 8000), len(whole) - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cut.mat"):
            read_release(cut)


def test_other_files_are_an_error(release: Callable[..., Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.mat"
    with pytest.raises(UserError, match=r"bad.mat: no such file"):
        read_release(bad)
    bad.write_text("hello, this is text and no annotation " * 10)
    with pytest.raises(UserError, match=r"bad.mat: cannot be read"):
        read_release(bad)
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    bad.write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(UserError, match=r"bad.mat: cannot be read.* MATLAB 7.3"):
        read_release(bad)
    for content in ({"other": 1}, {"RELEASE": 1}, {"RELEASE": EMPTY}):
        savemat(bad, content, do_compression=True)
        with pytest.raises(UserError, match=r"bad.mat has no struct RELEASE"):
            read_release(bad)


def test_an_inconsistent_release_is_an_error(release: Callable[..., Path]) -> None:
    for change, counts in [
        ({"annolist": None}, "0, 11 and 11"),
        ({"img_train": None}, "11, 0 and 11"),
        ({"img_train": np.ones((1, 3))}, "11, 3 and 11"),
        ({"single_person": np.ones((3, 1))}, "11, 11 and 3"),
    ]:
        with pytest.raises(UserError, match=f"release.mat: .* have {counts} entries"):
            read_release(release(release_images(6), **change))


def test_images_without_a_name_and_unknown_joints_are_excluded(
    release: Callable[..., Path],
) -> None:
    images = release_images(6)
    for index, joint in enumerate((16, -1, 2.5)):
        images[2]["annorect"][0]["annopoints"]["point"][index]["id"] = joint
    path = release(images)
    content = loadmat(path)["RELEASE"]
    content["annolist"][0, 0]["image"][0, 4] = EMPTY
    savemat(path, {"RELEASE": content}, do_compression=True)
    people = read_release(path).train
    assert images[4]["image"]["name"] not in {person.image for person in people}
    (person, *_) = (one for one in people if one.image == images[2]["image"]["name"])
    assert person.annotated.sum() == len(images[2]["annorect"][0]["annopoints"]["point"]) - 3


def test_a_release_without_videos_needs_a_list(release: Callable[..., Path]) -> None:
    images = [entry | {"vididx": 1} for entry in release_images(6)]
    with pytest.raises(UserError, match="pass --valid FILE"):
        split_by_video(read_release(release(images)).train)


def test_a_head_box_without_size_is_none(release: Callable[..., Path]) -> None:
    """PCKh could not score its person."""
    images = release_images(30)
    images[0]["annorect"][0].update(x1=5, y1=6, x2=5, y2=6)
    images[1]["annorect"][0].update(x1=5, y1=6, x2=5, y2=7)
    people = read_release(release(images)).train
    assert people[0].head_box is None
    assert people[1].head_box == (5, 6, 5, 7)


def test_validation_people_need_a_head_box(release: Callable[..., Path], tmp_path: Path) -> None:
    images = release_images(6)
    (tmp_path / "list.json").write_text(json.dumps([expected(images[0], images[0]["annorect"][0])]))
    del images[0]["annorect"][0]["y1"]
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"1 of 1 people .* with a head box, .* 000000000.jpg"):
        prepare(release(images), tmp_path / "images", out, valid=tmp_path / "list.json")
    assert not out.exists()


def test_command(
    release: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tool = str(ROOT / "tools" / "prepare_mpii.py")
    command = [tool, "--mat", str(release(release_images()))]
    command += ["--images", str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(tool, run_name="__main__")
    assert "trainval 120, test 2" in capsys.readouterr().out
    before = tree(tmp_path / "out")
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(tool, run_name="__main__")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "--overwrite" in error
    assert tree(tmp_path / "out") == before
