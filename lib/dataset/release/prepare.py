"""The people of a release, MPII's or another, split into sets and written as MPII's annotation."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from lib.dataset.release.mpii import Person, Release
from lib.utils.errors import UserError
from lib.utils.files import replacing
from lib.utils.mat import write_mat

# What gt_valid.mat calls the joints.
GT_NAMES = (
    "rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor",
    "neck", "head", "rwri", "relb", "rsho", "lsho", "lelb", "lwri",
)  # fmt: skip

# People of the published valid.json, of all annotated ones (bearpaw/pytorch-pose, issue 25).
VALID_SHARE = 2958 / 28883

FILES = ("train.json", "valid.json", "trainval.json", "test.json", "gt_valid.mat")


def prepare(
    mat: Path,
    images: Path,
    out: Path,
    *,
    read: Callable[[Path], Release],
    valid: Path | None = None,
    separate_images: bool = False,
    allow_missing: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Make a folder `out` of MPII's layout from a release's .mat file and images (folder or .zip).

    Writes annot/{train,valid,trainval,test}.json (test where the release has test people) and
    annot/gt_valid.mat, and links the images. `read` reads the .mat file, such as `read_apart` that
    of MPII and `read_lspet` that of LSPET.
    `valid` names the people to validate on, everybody else trains; without it videos are drawn.
    `separate_images` leaves those out of train who share an image with a person of valid, as the
    published train.json does. `allow_missing` leaves out people whose image is missing.
    `overwrite` replaces annotation that is there, and removes what the release has no people for.
    `say` takes the report, a line a call. UserError, with nothing written, on any bad input.
    """
    present = image_names(images)
    link = _link_for(out, images)
    _check_unwritten(out, overwrite)
    release = read(mat)
    if valid is None:
        chosen = split_by_video(release.train)
        say(
            "warning: this validation split is our own, and its scores do not compare with "
            "published ones; --valid FILE takes the people of a valid.json"
        )
    else:
        chosen = match_people(release.train, valid)
    sets = _make_sets(release, chosen, separate_images, say)
    sets = _only_present(sets, present, images, allow_missing, say)
    if not sets["valid"]:
        raise UserError(f"{images} holds no image of the people to validate on: mend --images")
    for person in sets["valid"]:
        if not person.head_box:
            raise UserError(
                f"{mat}: a person on {person.image} at {person.center} is to validate on but has "
                f"no head box, which PCKh needs: take the person out of {valid}"
            )
    _write(out, sets, link, images, say)
    for reason, count in release.left_out.items():
        say(f"left out: {count} {reason}")
    counts = ", ".join(f"{name} {len(people)}" for name, people in sets.items())
    say(f"wrote {out / 'annot'}, people: {counts}")


def split_by_video(people: Sequence[Person], share: float = VALID_SHARE) -> list[int]:
    """Choose whole videos that hold about `share` of the people: the indices of their people.

    The same people give the same choice, in any order of videos. A video goes in only where each of
    its people has a head box, without which PCKh cannot be computed; people of unknown video never
    do. UserError where fewer than two videos are there.
    """
    videos: dict[int, list[int]] = {}
    for index, person in enumerate(people):
        if person.video is not None:
            videos.setdefault(person.video, []).append(index)
    whole = {
        video: members
        for video, members in videos.items()
        if all(people[index].head_box for index in members)
    }
    if len(videos) < 2 or not whole:
        raise UserError(
            f"the release names {len(videos)} videos (vididx) of training people, "
            f"{len(whole)} with all head boxes, too few to split: give --valid FILE"
        )
    chosen: list[int] = []
    # A hash as order: as good as random, and the same on every machine.
    for video in sorted(whole, key=lambda video: hashlib.sha256(b"%d" % video).digest()):
        if len(chosen) + len(whole[video]) <= share * len(people):
            chosen += whole[video]
    return sorted(chosen or min(whole.values(), key=len))


def match_people(people: Sequence[Person], path: Path, tolerance: float = 1.0) -> list[int]:
    """Find the people of an annotation file (annot/valid.json): their indices, in its order.

    A person is known by image and by center, to `tolerance` pixels. UserError where the file is not
    such a list, or where one of its people is not among `people`.
    """
    listed = _read_listed(path)
    by_image: dict[str, set[int]] = {}
    for index, person in enumerate(people):
        by_image.setdefault(person.image, set()).add(index)
    found: list[int] = []
    lost: list[str] = []
    for image, center, scale in listed:
        near = [
            (distance, abs(people[index].scale - scale), index)
            for index in by_image.get(image, ())
            if (distance := np.hypot(*np.subtract(people[index].center, center))) <= tolerance
        ]
        if near:
            found.append(min(near)[-1])
            by_image[image].remove(found[-1])
        else:
            lost.append(image)
    if lost:
        raise UserError(
            f"{path}: {len(lost)} of {len(listed)} people are not annotated training people of the "
            f"release, or are listed twice, the first on {lost[0]}: take them out"
        )
    return found


def _read_listed(path: Path) -> list[tuple[str, tuple[float, float], float]]:
    """Read image, center and scale of each entry of an annotation file."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): mend --valid") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}): give annot/valid.json") from error
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} is not a list of people: give annot/valid.json")
    listed = []
    for number, entry in enumerate(entries):
        try:
            x, y = entry["center"]
            listed.append((str(entry["image"]), (float(x), float(y)), float(entry["scale"])))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: entry {number} (from 0) lacks image, center [x, y] or scale: mend it"
            ) from error
    return listed


def ground_truth(
    joints: np.ndarray, annotated: np.ndarray, head_boxes: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what gt_<set>.mat holds of N people, for PCKh.

    Takes joints [N, 16, 2], annotated bool [N, 16] and head_boxes [N, 2, 2] of (x1, y1), (x2, y2),
    1-based pixels. Gives dataset_joints object [1, 16], jnt_missing uint8 [16, N], pos_gt_src
    float64 [16, 2, N] (0 where missing) and headboxes_src float64 [2, 2, N].
    """
    return {
        "dataset_joints": np.array([GT_NAMES], dtype=object),
        "jnt_missing": (~annotated).astype(np.uint8).T,
        "pos_gt_src": np.where(annotated[..., None], joints, 0.0).transpose(1, 2, 0),
        "headboxes_src": head_boxes.astype(np.float64).transpose(1, 2, 0),
    }


def write_annotation(out: Path, sets: dict[str, list[Person]]) -> None:
    """Write annot/<set>.json of each set, and annot/gt_valid.mat, into the folder `out`.

    Each file is whole or not there, and none is there unless all could be written aside. Everyone
    in `valid` has a head box. UserError where a file cannot be written.
    """
    folder, valid = out / "annot", sets["valid"]
    folder.mkdir(exist_ok=True)
    truth = ground_truth(
        np.stack([person.joints for person in valid]),
        np.stack([person.annotated for person in valid]),
        np.array([person.head_box for person in valid]).reshape(-1, 2, 2),
    )
    with ExitStack() as stack:
        for name, people in sets.items():
            aside = stack.enter_context(replacing(folder / f"{name}.json"))
            aside.write_text(json.dumps([person.record() for person in people]), encoding="utf-8")
        write_mat(folder / "gt_valid.mat", truth)


def image_names(images: Path) -> set[str]:
    """Return the names of the files in a folder, or of the entries of a .zip; UserError if none."""
    try:
        if images.is_dir():
            with os.scandir(images) as entries:
                return {entry.name for entry in entries if entry.is_file()}
        with zipfile.ZipFile(images) as archive:
            return set(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{images} is neither a folder nor a whole .zip ({error}): mend --images"
        ) from error


def _link_for(out: Path, images: Path) -> Path | None:
    """Return where a link to the images must be made, None where they lie in their place."""
    place = out / ("images" if images.is_dir() else "images.zip")
    if place.exists() and place.samefile(images):
        return None
    if os.path.lexists(place):
        raise UserError(f"{place} exists and is not {images}: remove it, or give it as --images")
    return place


def _write(
    out: Path,
    sets: dict[str, list[Person]],
    link: Path | None,
    images: Path,
    say: Callable[[str], None],
) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if link:
            link.symlink_to(images.resolve())
            say(f"linked {link} -> {images.resolve()}")
        write_annotation(out, sets)
        for name in FILES:
            if name.endswith(".json") and Path(name).stem not in sets:
                (out / "annot" / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error}): mend --out") from error


def _check_unwritten(out: Path, overwrite: bool) -> None:
    written = [name for name in FILES if os.path.lexists(out / "annot" / name)]
    if written and not overwrite:
        raise UserError(f"{out / 'annot'} has {', '.join(written)} already: give --overwrite")


def _make_sets(
    release: Release, chosen: list[int], separate_images: bool, say: Callable[[str], None]
) -> dict[str, list[Person]]:
    """Return the people of train, valid, trainval and test; `chosen` of release.train validate."""
    valid = [release.train[index] for index in chosen]
    taken, shared = set(chosen), {person.image for person in valid}
    train = [person for index, person in enumerate(release.train) if index not in taken]
    alone = [person for person in train if person.image not in shared]
    if len(alone) < len(train):
        say(
            f"{len(train) - len(alone)} training people share an image with a person of valid: "
            + ("left out of train" if separate_images else "--separate-images leaves them out")
        )
    sets = {
        "train": alone if separate_images else train,
        "valid": valid,
        "trainval": release.train,
    }
    return sets | ({"test": release.test} if release.test else {})


def _only_present(
    sets: dict[str, list[Person]],
    present: set[str],
    images: Path,
    allow_missing: bool,
    say: Callable[[str], None],
) -> dict[str, list[Person]]:
    """Return the sets without people whose image is missing; UserError unless that is allowed."""
    wanted = {person.image for people in sets.values() for person in people}
    missing = sorted(wanted - present)
    if not missing:
        return sets
    first = ", ".join(missing[:3])
    if not allow_missing:
        raise UserError(
            f"{images} lacks {len(missing)} of {len(wanted)} images at its top, the first {first}: "
            "add them, or give --allow-missing to leave their people out"
        )
    kept = {
        name: [person for person in people if person.image in present]
        for name, people in sets.items()
    }
    lost = ", ".join(f"{name} {len(sets[name]) - len(kept[name])}" for name in sets)
    say(f"left out: people on {len(missing)} missing images ({first}, ...): {lost}")
    return kept
