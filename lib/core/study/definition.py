"""What a study is: variants of one configuration, which share seeds and budget."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from lib.config import load_cfg
from lib.config.load import read_yaml
from lib.utils.errors import UserError

_KEYS = {"CFG", "SEEDS", "BASELINE", "VARIANTS", "RETESTS"}


@dataclass(frozen=True)
class Variant:
    """One row of a study: what it changes, and whose weights it tests if not its own."""

    name: str
    changes: dict[str, Any]
    weights_of: str | None = None


@dataclass(frozen=True)
class Study:
    """What to train and test; `cfg` is the configuration that all variants build upon."""

    path: Path
    cfg: Path
    seeds: tuple[int, ...]
    baseline: str
    variants: dict[str, Variant]

    def configuration(self, variant: Variant, seed: int, opts: list[str]) -> CfgNode:
        """Return the configuration of a variant, `KEY VALUE ...` of the command line on top."""
        changes = [
            word.replace("{seed}", str(seed)) if isinstance(word, str) else word
            for change in variant.changes.items()
            for word in change
        ]
        return load_cfg(self.cfg, [*changes, "SEED", seed, "AUTO_RESUME", True, *opts])

    def retests_of(self, name: str) -> list[Variant]:
        """Those that test the weights of a variant."""
        return [variant for variant in self.variants.values() if variant.weights_of == name]

    def check_name(self, name: str) -> None:
        """UserError where there is no such variant."""
        if name not in self.variants:
            known = ", ".join(repr(known) for known in self.variants)
            raise UserError(f"{self.path}: there is no variant {name!r}, only {known}")

    def folder(self, cfg: CfgNode, variant: Variant | None = None, seed: int = 0) -> Path:
        """Where the study's results lie, or those of a variant and seed."""
        folder = Path(cfg.OUTPUT_DIR) / cfg.DATASET.DATASET / cfg.MODEL.NAME / self.path.stem
        if variant is None:
            return folder
        return folder / _folder_name(variant) / f"seed_{seed}"


def load_study(path: str | Path) -> Study:
    """Read a study file; UserError, one line, names what is wrong with it.

    `CFG`, the configuration, is relative to the file. `VARIANTS` maps names to `{KEY: value}`, in
    whose texts `{seed}` stands for the seed, so that each can start from weights of its own;
    `RETESTS` too, with `OF` a variant whose weights are tested otherwise. `BASELINE` is the variant
    that all are compared with, each seed of `SEEDS` with its own.
    """
    path = Path(path)
    content = read_yaml(path)
    if not {"CFG", "VARIANTS"} <= content.keys() <= _KEYS:
        raise UserError(f"{path}: a study holds CFG, VARIANTS, and of {', '.join(sorted(_KEYS))}")
    variants = {
        variant.name: variant
        for section in ("VARIANTS", "RETESTS")
        for variant in _variants(content.get(section) or {}, f"{path}: {section}")
    }
    folders = [_folder_name(variant) for variant in variants.values()]
    if len(set(folders)) < len(folders):
        raise UserError(f"{path}: two variants would share a folder; name them less alike")
    trained = [name for name, variant in variants.items() if variant.weights_of is None]
    seeds = content.get("SEEDS", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise UserError(f"{path}: SEEDS should be a list of whole numbers, it is {seeds!r}")
    baseline = content.get("BASELINE", next(iter(trained), None))
    for name in (baseline, *(v.weights_of for v in variants.values() if v.weights_of)):
        if name not in trained:
            raise UserError(f"{path}: there is no variant {name!r}, only {', '.join(trained)}")
    return Study(path, path.parent / str(content["CFG"]), tuple(seeds), baseline, variants)


def _folder_name(variant: Variant) -> str:
    """Letters, digits, _ and - alone, so that it stays where it is made."""
    return re.sub(r"[^\w-]+", "_", variant.name)[:100]


def _variants(section: Any, where: str) -> Iterator[Variant]:
    if not isinstance(section, Mapping):
        raise UserError(f"{where} should map names to changes")
    for name, changes in section.items():
        if not isinstance(changes, Mapping):
            raise UserError(f"{where}: {name} should hold KEY: value, or {{}}")
        changes = dict(changes)
        yield Variant(str(name), {k: v for k, v in changes.items() if k != "OF"}, changes.get("OF"))
