"""Split the people of a release, MPII's or another, into sets and write them in MPII's layout."""

import hashlib
import json
import os
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from lib.dataset import mpii
from lib.dataset.release.mpii import JOINTS, Person, Release
from lib.utils.errors import UserError, as_user_error
from lib.utils.files import atomic_write, new_folder
from lib.utils.mat import write_mat
from lib.utils.text import join_names

# People of the published valid.json, of all annotated ones (bearpaw/pytorch-pose, issue 25).
VALID_SHARE = 2958 / 28883

Sets = dict[str, list[Person]]
Log = Callable[[str], None]


def prepare(
    mat: Path,
    images: Path,
    out: Path,
    *,
    read: Callable[[Path], Release],
    valid: Path | None = None,
    separate_images: bool = False,
    overwrite: bool = False,
    log: Log = lambda line: None,
) -> None:
    """Make a folder `out` of MPII's layout from a release's .mat file and images (folder or .zip).

    Writes annot/{train,valid,trainval,test}.json (test if the release has test people) and
    annot/gt_valid.mat, and links the images. `read` reads the .mat file. `valid` lists the people
    to validate on, all others train; without it whole videos are drawn. `separate_images` excludes
    training people who share an image with a person of valid, as the published train.json does.
    `overwrite` replaces existing annotation. `log` takes a line of the report. UserError, with
    nothing written, on bad input or if an image is missing.
    """
    present = image_names(images)
    link, annot = out / ("images" if images.is_dir() else "images.zip"), out / "annot"
    linked = link.exists() and link.samefile(images)
    if os.path.lexists(link) and not linked:
        raise UserError(f"{link} exists and is not {images}: remove it, or pass it as --images")
    if not overwrite and annot.exists() and any(annot.iterdir()):
        raise UserError(f"{annot} is not empty: pass --overwrite")
    release = read(mat)
    chosen = split_by_video(release.train) if valid is None else match_people(release.train, valid)
    sets = _make_sets(release, chosen, separate_images)
    needed = {person.image for people in sets.values() for person in people}
    if missing := sorted(needed - present):
        lacks = f"{images} lacks {len(missing)} of {len(needed)} images at its top"
        raise UserError(f"{lacks}: add {join_names(missing)}")
    if valid is None:
        log("warning: scores on this split do not compare with published ones; see --valid FILE")
    with as_user_error(f"cannot write to {out}: correct --out"), new_folder(out):
        if not linked:
            link.symlink_to(images.resolve())
            log(f"linked {link} -> {images.resolve()}")
    write_annotation(out, sets)
    for reason, count in release.excluded.items():
        log(f"excluded: {count} {reason}")
    counts = ", ".join(f"{name} {len(people)}" for name, people in sets.items())
    log(f"wrote {annot}, people: {counts}")


def split_by_video(people: Sequence[Person], share: float = VALID_SHARE) -> list[int]:
    """Choose whole videos that hold about `share` of the people; return their people's indices.

    The choice is the same for the same people, in any order. All people of a chosen video have a
    head box, which PCKh needs. UserError if there are fewer than two such videos.
    """
    videos: defaultdict[int | None, list[int]] = defaultdict(list)
    for index, person in enumerate(people):
        videos[person.video].append(index)
    eligible = videos.keys() - {person.video for person in people if not person.head_box} - {None}
    if len(eligible) < 2:
        raise UserError("too few videos (vididx) with head boxes to split: pass --valid FILE")
    chosen: list[int] = []
    # Ordered by hash: as good as random, and the same on every machine.
    for video in sorted(eligible, key=lambda video: hashlib.sha256(str(video).encode()).digest()):
        if not chosen or len(chosen) + len(videos[video]) <= share * len(people):
            chosen += videos[video]
    return sorted(chosen)


def match_people(people: Sequence[Person], path: Path, tolerance: float = 1.0) -> list[int]:
    """Find the people of an annotation file (annot/valid.json); return their indices, in its order.

    They match people with a head box, which PCKh needs, by image and center, to `tolerance` pixels.
    UserError if the file is damaged or one of its people is not in `people`.
    """
    listed = mpii.read_records(path, JOINTS, with_joints=False)
    by_image: defaultdict[str, dict[int, np.ndarray]] = defaultdict(dict)
    for index, person in enumerate(people):
        if person.head_box:
            by_image[person.image][index], _ = mpii.position_to_box(person.center, person.scale)
    matched, unmatched = [], []
    for record in listed:
        centers = by_image[record.image]
        distances = [(np.hypot(*(centers[i] - record.center)), i) for i in centers]
        distance, index = min(distances, default=(np.inf, -1))
        if distance <= tolerance:
            matched.append(index)
            del centers[index]
        else:
            unmatched.append(record.image)
    if unmatched:
        raise UserError(
            f"{path}: {len(unmatched)} of {len(listed)} people are no training people with a head "
            f"box, or are listed twice, the first on {unmatched[0]}: remove them"
        )
    return matched


def write_annotation(out: Path, sets: Sets) -> None:
    """Write annot/<set>.json of all sets and annot/gt_valid.mat, all or none of them."""
    columns = zip(*((p.joints, p.annotated, p.head_box) for p in sets["valid"]), strict=True)
    joints, annotated, boxes = map(np.array, columns)
    truth = mpii.ground_truth(joints, annotated, boxes.reshape(-1, 2, 2))
    with ExitStack() as stack:
        for name, people in sets.items():
            temporary = stack.enter_context(atomic_write(mpii.set_paths(out, name)[0]))
            temporary.write_text(json.dumps([person.record() for person in people]))
        write_mat(mpii.set_paths(out, "valid")[1], truth)


def image_names(images: Path) -> set[str]:
    """Return the names of the files in a folder, or of the entries of a .zip; UserError if none."""
    with as_user_error(f"{images} is neither a folder nor a complete .zip: correct --images"):
        if images.is_dir():
            with os.scandir(images) as entries:
                return {entry.name for entry in entries if entry.is_file()}
        with zipfile.ZipFile(images) as archive:
            return set(archive.namelist())


def _make_sets(release: Release, chosen: list[int], separate_images: bool) -> Sets:
    """Return the people of each set; those of release.train with index in `chosen` validate."""
    valid = [release.train[index] for index in chosen]
    validates = set(chosen)
    train = [person for index, person in enumerate(release.train) if index not in validates]
    if separate_images:
        shared = {person.image for person in valid}
        train = [person for person in train if person.image not in shared]
    sets = {"train": train, "valid": valid, "trainval": release.train}
    return sets | ({"test": release.test} if release.test else {})
