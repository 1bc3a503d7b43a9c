"""Checks of a whole data set: people and joints are counted, faults are found and drawn."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from yacs.config import CfgNode

from lib.dataset import PoseDataset, build_dataset, build_skeleton
from lib.dataset.boxes import person_category
from lib.dataset.check.images import Scan, scan_images, shared_pictures
from lib.dataset.check.people import Fault, people_faults
from lib.dataset.coco import read_coco
from lib.dataset.registry import dataset_spec
from lib.dataset.skeleton import Skeleton
from lib.utils.drawing import draw_batch, save_image
from lib.utils.errors import UserError
from lib.utils.files import read_json, write_bytes
from lib.utils.text import counted, markdown_table

MAX_SHOWN = 5  # findings of a kind in the report; the file has all
MAX_PEOPLE = 48  # on a contact sheet
TILE = 256  # pixels
_DRAWN = ("image", "joints", "visible")


class Finding(NamedTuple):
    """A fault, or what may be one; `person` counts from 0, in the order of the annotation."""

    image_set: str
    kind: str
    image: str
    person: int | None
    text: str

    def __str__(self) -> str:
        person = "" if self.person is None else f", person {self.person}"
        return f"  {self.image_set} {self.image}{person}: {self.text}"


@dataclass(frozen=True, eq=False)
class Report:
    """The sets that could be read, by name, their images, and what was found."""

    datasets: dict[str, PoseDataset]
    scans: dict[str, dict[str, Scan]]
    findings: list[Finding]

    def __str__(self) -> str:
        """Return counts and, by kind, the first findings, as lines."""
        lines, joints, kinds = [], [], defaultdict(list)
        for name, dataset in self.datasets.items():
            joints.append(np.sum([record.visible > 0 for record in dataset.records], axis=0))
            people = f"{counted(len(dataset), 'person', 'people')}, {joints[-1].sum()}"
            total = f"{people} of {len(dataset) * len(joints[-1])} joints annotated"
            lines.append(f"{name}: {counted(len(self.scans[name]), 'image')}, {total}")
        rows = zip(dataset.skeleton.names, *(map(str, column) for column in joints), strict=True)
        lines.append(markdown_table(["joint", *self.datasets], rows))
        for finding in self.findings:
            kinds[finding.kind].append(str(finding))
        for kind, found in kinds.items():
            lines += [f"{kind}: {len(found)}", *found[:MAX_SHOWN]]
            lines += [f"  and {len(found) - MAX_SHOWN} more"] * (len(found) > MAX_SHOWN)
        return "\n".join(lines)

    def save(self, folder: Path) -> list[str]:
        """Write findings.json, and a contact sheet of each set; return the files.

        A sheet begins with people who have findings. UserError if a file cannot be written.
        """
        content = json.dumps([finding._asdict() for finding in self.findings], indent=2)
        write_bytes(folder / "findings.json", content.encode())
        files = [folder / "findings.json"]
        for name, dataset in self.datasets.items():
            width, height = (TILE * s // max(dataset.image_size) for s in dataset.image_size)
            plain = replace(
                dataset, augmentation=None, image_size=(width, height), smooth=True, color_rgb=True
            )
            found = dict.fromkeys(f.person for f in self.findings if f.image_set == name)
            evenly = np.linspace(0, len(plain) - 1, MAX_PEOPLE).astype(int).tolist()
            order = dict.fromkeys([i for i in found if i is not None][: MAX_PEOPLE // 2] + evenly)
            people = [i for i in order if not self.scans[name][plain.records[i].image].fault]
            samples = [plain[index] for index in people[:MAX_PEOPLE]]
            if samples:
                images, joints, visible = (np.stack([s[k] for s in samples]) for k in _DRAWN)
                sheet = draw_batch(images, joints, visible, plain.skeleton, MAX_PEOPLE)
                files.append(folder / f"{Path(name).name}.jpg")
                save_image(files[-1], sheet)
        return [str(file) for file in files]


def check_data(cfg: CfgNode) -> Report:
    """Read DATASET.TRAIN_SET and TEST_SET, every image of them too, and look for faults.

    A set that cannot be read is a finding. UserError if that is so for both, or a key is wrong.
    """
    train, test = cfg.DATASET.TRAIN_SET, cfg.DATASET.TEST_SET
    splits: dict[str, Literal["train", "test"]] = {test: "test", train: "train"}
    report, error = Report({}, {}, []), None
    build_skeleton(cfg)
    for name, split in splits.items():
        try:
            dataset = build_dataset(cfg, split)
        except UserError as reason:
            error = reason
            report.findings.append(Finding(name, "annotation", "", None, str(reason)))
            continue
        images = dataset.annotation.images
        scans = scan_images(dataset.images, images, dataset.max_pixels, cfg.WORKERS)
        report.datasets[name], report.scans[name] = dataset, scans
        faults = _faults(dataset, scans, is_coco=dataset_spec(cfg).read is read_coco)
        report.findings.extend(Finding(name, *fault) for fault in faults)
    if error and not report.datasets:
        raise error
    if len(report.scans) == 2:
        for kind, image, other in shared_pictures(report.scans[train], report.scans[test]):
            report.findings.append(Finding(test, kind, image, None, f"also {other} of {train}"))
    return report


def _faults(dataset: PoseDataset, scans: Mapping[str, Scan], is_coco: bool) -> Iterator[Fault]:
    for image, scan in scans.items():
        if scan.fault:
            yield scan.fault[0], image, None, scan.fault[1]
    if is_coco:
        yield from _coco_faults(dataset.annotation.path, scans, dataset.skeleton)
    yield from people_faults(dataset.annotation, scans, dataset.skeleton)


def _coco_faults(path: Path, scans: Mapping[str, Scan], skeleton: Skeleton) -> Iterator[Fault]:
    """Yield what the reader corrects or leaves out: names of joints, sizes of images, boxes."""
    content = read_json(path)
    person, images = person_category(content), {image["id"]: image for image in content["images"]}
    for category in content.get("categories", []):
        names = category.get("keypoints")
        is_list = isinstance(names, list) and category.get("id") == person
        if is_list and tuple(names) != skeleton.names:
            text = f"{path} has {', '.join(map(str, names))}, not {', '.join(skeleton.names)}"
            yield "names of joints", "", None, text
    for image in images.values():
        size = scans.get(image["file_name"], Scan()).size
        stated = image.get("width", size[0]), image.get("height", size[1])
        if min(size) > 0 and stated != size:
            text = f"the annotation says {stated[0]}×{stated[1]}, the file is {size[0]}×{size[1]}"
            yield "size of the image", image["file_name"], None, text
    for index, entry in enumerate(content.get("annotations", [])):
        if entry.get("category_id", person) == person:
            image, (x, y, width, height) = images[entry["image_id"]], entry["bbox"]
            right, bottom = image.get("width", np.inf), image.get("height", np.inf)
            outside = min(x, y) < -1 or x + width > right + 1 or y + height > bottom + 1
            if outside or min(width, height) <= 0:
                kind = "box outside the image" if outside else "box is empty"
                text = f"annotation {entry.get('id', index)}, {entry['bbox']} of {right}×{bottom}"
                yield kind, image["file_name"], None, text
