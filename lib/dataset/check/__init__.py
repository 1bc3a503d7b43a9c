"""Checks of a whole data set: people and joints are counted, and faults are found and drawn."""

import dataclasses
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from yacs.config import CfgNode

from lib.dataset import PoseDataset, build_dataset, build_skeleton
from lib.dataset.check.images import Scan, scan_images, shared_pictures
from lib.dataset.check.people import coco_faults, people_faults
from lib.dataset.coco import read_coco
from lib.dataset.registry import dataset_spec
from lib.utils.drawing import draw_batch, save_image
from lib.utils.errors import UserError
from lib.utils.files import write_bytes
from lib.utils.text import counted, markdown_table

MAX_SHOWN = 5  # findings of a kind in the report; the file has all
MAX_PEOPLE = 48  # on a contact sheet
TILE = 256  # pixels


@dataclass(frozen=True)
class Finding:
    """A fault, or what may be one; `person` counts from 0, in the order of the annotation."""

    kind: str
    image_set: str
    image: str
    person: int | None
    text: str

    def __str__(self) -> str:
        person = "" if self.person is None else f", person {self.person}"
        return f"{self.image_set} {self.image}{person}: {self.text}"


@dataclass(eq=False)
class Report:
    """What was found; the sets, by name, are those that could be read."""

    datasets: dict[str, PoseDataset] = field(default_factory=dict)
    scans: dict[str, dict[str, Scan]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        """Return counts, and the first findings of each kind, as lines."""
        lines, joints = [], {}
        for name, dataset in self.datasets.items():
            joints[name] = np.sum([record.visible > 0 for record in dataset.records], axis=0)
            size, images = len(dataset), len(self.scans[name])
            people = f"{counted(images, 'image')}, {counted(size, 'person', 'people')}"
            total = size * dataset.skeleton.num_joints
            lines.append(f"{name}: {people}, {joints[name].sum()} of {total} joints annotated")
        names = next(iter(self.datasets.values())).skeleton.names
        rows = [[name, *(str(n[i]) for n in joints.values())] for i, name in enumerate(names)]
        lines.append(markdown_table(["joint", *joints], rows))
        kinds: defaultdict[str, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            kinds[finding.kind].append(finding)
        for kind, found in kinds.items():
            lines += [f"{kind}: {len(found)}", *(f"  {finding}" for finding in found[:MAX_SHOWN])]
            lines += [f"  ... and {len(found) - MAX_SHOWN} more"] * (len(found) > MAX_SHOWN)
        return "\n".join(lines)

    def save(self, folder: Path, image_size: tuple[int, int]) -> list[Path]:
        """Write findings.json and a contact sheet of each set; return the files.

        People with findings are first on a sheet, then others, evenly spaced. Tiles have the aspect
        ratio of `image_size`. UserError if a file cannot be written.
        """
        path = folder / "findings.json"
        content = [dataclasses.asdict(finding) for finding in self.findings]
        write_bytes(path, json.dumps(content, indent=2).encode())
        paths = [path]
        for name, dataset in self.datasets.items():
            size = tuple(round(TILE * side / max(image_size)) for side in image_size)
            plain = dataclasses.replace(
                dataset, augmentation=None, image_size=size, smooth=True, color_rgb=True
            )
            found = [
                f.person for f in self.findings if f.image_set == name and f.person is not None
            ]
            even = np.linspace(0, len(dataset) - 1, MAX_PEOPLE).round().astype(int).tolist()
            order = [*dict.fromkeys(found)][: MAX_PEOPLE // 2] + even
            usable = (
                i
                for i in dict.fromkeys(order)
                if not self.scans[name][plain.records[i].image].fault
            )
            samples = [plain[index] for index in [*usable][:MAX_PEOPLE]]
            if samples:
                keys = ("image", "joints", "visible")
                columns = (np.stack([sample[key] for sample in samples]) for key in keys)
                paths.append(folder / f"{name}.jpg")
                save_image(paths[-1], draw_batch(*columns, plain.skeleton, MAX_PEOPLE))
        return paths


def check_data(cfg: CfgNode) -> Report:
    """Read DATASET.TRAIN_SET and TEST_SET whole, every image of them too, and look for faults.

    UserError if neither set can be read, or a key is wrong; one that cannot be read is a finding.
    """
    options, report, error = cfg.DATASET, Report(), None
    skeleton, spec = build_skeleton(cfg), dataset_spec(cfg)

    def add(kind: str, image_set: str, image: str, person: int | None, text: str) -> None:
        report.findings.append(Finding(kind, image_set, image, person, text))

    for split, name in {"test": options.TEST_SET, "train": options.TRAIN_SET}.items():
        if name in report.datasets:
            continue
        try:
            report.datasets[name] = dataset = build_dataset(cfg, split)
        except UserError as reason:
            error = reason
            add("annotation", name, "", None, str(reason))
            continue
        annotation = dataset.annotation
        scans = scan_images(dataset.images, annotation.images, options.MAX_PIXELS, cfg.WORKERS)
        report.scans[name] = scans
        for image, scan in scans.items():
            if scan.fault:
                add(
                    "missing image" if scan.is_missing else "broken image",
                    name,
                    image,
                    None,
                    scan.fault,
                )
        if spec.read is read_coco:
            for fault in coco_faults(annotation.path, scans, skeleton):
                add(fault[0], name, *fault[1:])
        for fault in people_faults(annotation, scans, skeleton):
            add(fault[0], name, *fault[1:])
    if error and not report.datasets:
        raise error
    if len(report.scans) == 2:
        for theirs, ours, equal in shared_pictures(
            report.scans[options.TRAIN_SET], report.scans[options.TEST_SET]
        ):
            kind = "same file in both sets" if equal else "same picture in both sets"
            add(kind, options.TEST_SET, theirs, None, f"also {ours} of {options.TRAIN_SET}")
    return report
