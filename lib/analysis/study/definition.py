"""Studies: variants of one configuration, trained and tested with the same seeds."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from lib.config import load_cfg
from lib.config.load import read_yaml
from lib.dataset import resolve_path
from lib.models import check_model
from lib.models.pretrained import is_file
from lib.utils.errors import UserError
from lib.utils.files import read_json
from lib.utils.text import expand_home

_KEYS = ("CFG", "SEEDS", "BASELINE", "VARIANTS", "RETESTS")


@dataclass(frozen=True)
class Job:
    """A variant with one seed. A retest has an `owner`: the job whose weights it tests."""

    variant: str
    seed: int
    cfg: CfgNode
    folder: Path
    owner: "Job | None" = None

    @property
    def is_done(self) -> bool:
        """Whether the folder has test results of exactly this configuration."""
        with contextlib.suppress(UserError):
            return read_json(self.folder / "results.json").get("config") == self.cfg.dump()
        return False

    @property
    def start(self) -> Path | None:
        """The weights that it tests or starts training from, if any."""
        if self.owner is not None:
            return self.owner.folder / "final_state.pth"
        pretrained = self.cfg.MODEL.PRETRAINED
        return resolve_path(self.cfg, pretrained) if is_file(pretrained) else None

    @property
    def is_ready(self) -> bool:
        """Whether `start` exists; of a retest: whether its owner is done."""
        return self.owner.is_done if self.owner else self.start is None or self.start.is_file()


@dataclass(frozen=True)
class Study:
    """What to train and test: changes of `cfg` by variant, and by retest the variant it tests."""

    path: Path
    cfg: Path
    seeds: list[int]
    baseline: str
    changes: dict[str, dict[str, Any]]
    owners: dict[str, str]

    def jobs(self, opts: Sequence[str]) -> list[Job]:
        """Return every variant with every seed, seed by seed; `opts` override all of them."""
        return [self.job(variant, seed, opts) for seed in self.seeds for variant in self.changes]

    def job(self, variant: str, seed: int, opts: Sequence[str] = ()) -> Job:
        """Return a variant with one seed; UserError if its configuration is wrong."""
        words = [word for change in self.changes[variant].items() for word in change]
        words = [w.replace("{seed}", str(seed)) if isinstance(w, str) else w for w in words]
        cfg = check_model(load_cfg(self.cfg, [*words, "SEED", seed, "AUTO_RESUME", True, *opts]))
        folder = self.folder(cfg) / _folder_name(variant) / f"seed_{seed}"
        owner = self.job(self.owners[variant], seed, opts) if variant in self.owners else None
        return Job(variant, seed, cfg, folder, owner)

    def folder(self, cfg: CfgNode) -> Path:
        """Return the folder of the study."""
        return Path(cfg.OUTPUT_DIR) / cfg.DATASET.DATASET / cfg.MODEL.NAME / self.path.stem


def load_study(path: str | Path) -> Study:
    """Read a study file; UserError if it is wrong.

    `CFG` is the configuration, relative to the file. `VARIANTS` maps names to `{KEY: value}`;
    `{seed}` in a value is replaced by the seed, so that each can start from its own weights.
    `RETESTS` test the weights of the variant `OF` with other keys. All are compared with
    `BASELINE`, for each of the `SEEDS`.
    """
    path = Path(path)
    content = read_yaml(path)
    if not {"CFG", "VARIANTS"} <= content.keys() <= set(_KEYS):
        raise UserError(f"{path}: takes the keys {', '.join(_KEYS)}, and needs CFG and VARIANTS")
    variants, retests = content["VARIANTS"], content.get("RETESTS") or {}
    for section in (variants, retests):
        is_mapping = isinstance(section, Mapping)
        if not is_mapping or not all(isinstance(entry, Mapping) for entry in section.values()):
            raise UserError(f"{path}: VARIANTS and RETESTS must map names to {{KEY: value}}")
    seeds = content.get("SEEDS", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise UserError(f"{path}: SEEDS = {seeds!r}: must be a list of whole numbers")
    changes = {str(name): dict(entry) for name, entry in (*variants.items(), *retests.items())}
    if len({_folder_name(name) for name in changes}) < len(variants) + len(retests):
        raise UserError(f"{path}: two variants share a folder; rename one of them")
    owners = {str(name): changes[str(name)].pop("OF", None) for name in retests}
    baseline = content.get("BASELINE", next(iter(variants), None))
    for name in (baseline, *owners.values()):
        if name not in variants:
            known = ", ".join(map(str, variants))
            raise UserError(f"{path}: there is no variant {name!r}, only {known}")
    cfg = path.parent / expand_home(str(content["CFG"]))
    return Study(path, cfg, seeds, str(baseline), changes, owners)


def _folder_name(variant: str) -> str:
    return re.sub(r"[^\w-]+", "_", variant)[:100]
