"""Thousands of mutated configurations and annotations: each trains a step or is a clear error."""

import copy
import json
import logging
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from desk import SMALL
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption
from hypothesis.strategies import DrawFn
from yacs.config import CfgNode

from lib.config import get_cfg
from lib.config import load as loading
from lib.config.check import value_of
from lib.core import provenance, session, training_checkpoint
from lib.core.engine import NotFiniteError
from lib.core.trainer import Trainer
from lib.dataset.synthetic.people import make_synthetic
from lib.utils.checkpoint import save_weights
from lib.utils.distributed import Distributed
from lib.utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # of extreme values, in NumPy, torch and yacs

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "1000"))  # of each kind
MIN_VALID = 0.3  # of them; with less, the mutations hardly test what follows reading
MAX_ERROR = 600  # characters

# Larger networks are skipped: they would test this machine's memory, not the code.
MAX_VALUES = {
    "MODEL.IMAGE_SIZE": 64, "MODEL.HEATMAP_SIZE": 64, "MODEL.DIM": 64,
    "MODEL.HIDDEN_HEATMAP_DIM": 4096, "MODEL.TRANSFORMER_DEPTH": 5,
    "MODEL.TRANSFORMER_MLP_RATIO": 64, "MODEL.SPARSITY.JOINT_DEPTH": 5,
}  # fmt: skip

# Valid values of every key, though not in every combination.
GOOD: dict[str, Sequence[Any]] = {
    "OUTPUT_DIR": ["output", "", "a b", "ünï"],
    "LOG_DIR": ["log", ""],
    "DATA_DIR": ["", ".", "./"],
    "GPUS": [[0], [0, 1], "(0,)", 3],
    "WORKERS": [0, 2, 8],
    "PRINT_FREQ": [1, 1000, 10**12],
    "AUTO_RESUME": [True, False],
    "PIN_MEMORY": [True, False],
    "RANK": [0, 1, -3],
    "SEED": [0, 1, 2**32 - 1],
    "CUDNN.BENCHMARK": [True, False],
    "CUDNN.DETERMINISTIC": [True, False],
    "CUDNN.ENABLED": [True, False],
    "MODEL.NAME": ["pose_tokenpose_s"],
    "MODEL.INIT_WEIGHTS": [True, False],
    "MODEL.BACKBONE": ["stem"],
    "MODEL.BACKBONE_STRIDE": [4],
    "MODEL.PRETRAINED": ["", "weights.pth", "./weights.safetensors"],
    "MODEL.NUM_JOINTS": [16],
    "MODEL.TAG_PER_JOINT": [True, False],
    "MODEL.TARGET_TYPE": ["gaussian"],
    "MODEL.IMAGE_SIZE": [[32, 32], [64, 64], [64, 32], [48, 48], [24, 40], [8, 8]],
    "MODEL.HEATMAP_SIZE": [[16, 16], [2, 2], [64, 64], [32, 16], [13, 13], [12, 20]],
    "MODEL.SIGMA": [2, 0.5, 1e-3, 1e-30, 100, 3e38, "1e-1"],
    "MODEL.DIM": [32, 64, 16, 8, 4, 12, 20, 36],
    "MODEL.PATCH_SIZE": [[2, 2], [1, 1], [4, 4], [8, 8], [2, 4], [1, 2]],
    "MODEL.TRANSFORMER_DEPTH": [3, 2, 5, 1, 4],
    "MODEL.TRANSFORMER_HEADS": [4, 1, 2, 8, 32, 3],
    "MODEL.TRANSFORMER_MLP_RATIO": [3, 1, 0.5, 0.05, 7.77, "4.0"],
    "MODEL.DROP_PATH": [0, 0.1, 0.999],
    "MODEL.POS_EMBEDDING_TYPE": ["sine-full", "sine", "learnable", "none"],
    "MODEL.ATTENTION_SCALE": ["dim", "head"],
    "MODEL.HEAD": ["mlp", "filter"],
    "MODEL.FILTER.STRIDES": [[4]],
    "MODEL.FILTER.DIM": [96, 1, 7],
    "MODEL.INIT": [True, False],
    "MODEL.HIDDEN_HEATMAP_DIM": [-1, 1, 64, 65, 200],
    "MODEL.BASE_CHANNEL": [32, 0, -5],
    "MODEL.NUM_BRANCHES": [1, 3],
    "MODEL.MULTI_TRANSFORMER_DEPTH": [[12, 12], [], [1]],
    "MODEL.MULTI_TRANSFORMER_HEADS": [[16, 16], []],
    "MODEL.MULTI_DIM": [[48, 48], [1, 2, 3]],
    "MODEL.EXTRA": [
        {}, {"PRETRAINED_LAYERS": ["conv1"]}, {"PRETRAINED_LAYERS": ["*"]},
        {"PRETRAINED_LAYERS": []}, {"STAGE4": {"B": [1, None, "x"]}}, {"STAGE2": "(1, 2)"},
    ],
    "MODEL.SPARSITY.PRUNE": ["connection", "token", "none"],
    "MODEL.SPARSITY.PRUNE_LAYERS": [[1], [], [0], [0, 1, 2], [2], [1, 3]],
    "MODEL.SPARSITY.KEEP_RATIO": [0.7, 1, 0.01, 1e-300, 0.999, 0.5],
    "MODEL.SPARSITY.JOINT_DEPTH": [1, 0, 3, 5],
    "MODEL.SPARSITY.JOINT_HOPS": [1, -1, 0, 2, 100, 2**62],
    "LOSS.USE_OHKM": [False, True],
    "LOSS.TOPK": [8, 1, 16],
    "LOSS.USE_TARGET_WEIGHT": [True, False],
    "LOSS.USE_OUTSIDE_JOINTS": [False, True],
    "LOSS.USE_DIFFERENT_JOINTS_WEIGHT": [False, True],
    "DATASET.ROOT": ["data", "./data", "data/../data/"],
    "DATASET.DATASET": ["synthetic", "mpii", "lspet"],
    "DATASET.SKELETON": ["", "mpii"],
    "DATASET.TRAIN_SET": ["train", "valid"],
    "DATASET.TEST_SET": ["valid", "train"],
    "DATASET.DATA_FORMAT": ["jpg", "zip"],
    "DATASET.HYBRID_JOINTS_TYPE": ["", "x"],
    "DATASET.SELECT_DATA": [False, True],
    "DATASET.FLIP": [True, False],
    "DATASET.SCALE_FACTOR": [0.25, 0, 0.999, 1e-300],
    "DATASET.ROT_FACTOR": [30, 0, 180, 90.5],
    "DATASET.PROB_HALF_BODY": [0, 1, 0.3, -1, -3e38],
    "DATASET.NUM_JOINTS_HALF_BODY": [8, 0, 100],
    "DATASET.COLOR": [0, 0.4, 1, 1e-300],
    "DATASET.CUTOUT": [0, 1, 0.3],
    "DATASET.SKIP_BAD_IMAGES": [0, 3],
    "DATASET.MAX_PIXELS": [200_000_000, 10**6],
    "DATASET.COLOR_RGB": [True, False],
    "DATASET.UNBIASED": [True, False],
    "TRAIN.LR": [1e-3, "1e-3", 1, 1e-300, 1e30, 3e38],
    "TRAIN.BACKBONE_LR": [0, 1e-4, 1],
    "TRAIN.FROZEN_STAGES": [0, 1],
    "TRAIN.LR_SCHEDULER": ["MultiStepLR", "CosineAnnealingLR"],
    "TRAIN.LR_STEP": [[1], [], [1, 2], [100, 2**40]],
    "TRAIN.LR_FACTOR": [0.1, 1, 1e-300],
    "TRAIN.LR_END": [1e-5, 0, 3e38],
    "TRAIN.WARMUP_STEPS": [0, 1, 1000, 2**62],
    "TRAIN.OPTIMIZER": ["adam", "adamw", "sgd"],
    "TRAIN.ADAM_EPS": [1e-8, 1e-12, 1e-300, 3e38],
    "TRAIN.MOMENTUM": [0.9, 0, 0.999999],
    "TRAIN.NESTEROV": [False, True],
    "TRAIN.WD": [1e-4, 0, 3e38],
    "TRAIN.GAMMA1": [0.99, -1],
    "TRAIN.GAMMA2": [0, 3e38],
    "TRAIN.BEGIN_EPOCH": [0, 1, 299],
    "TRAIN.END_EPOCH": [2, 300, 2**62],
    "TRAIN.RESUME": [False, True],
    "TRAIN.CHECKPOINT": ["start.pth", ""],
    "TRAIN.BATCH_SIZE_PER_GPU": [4, 1, 2, 3, 8, 2**62],
    "TRAIN.ACCUMULATE": [1, 2, 3, 2**62],
    "TRAIN.PRECISION": ["fp32", "bf16", "fp16"],
    "TRAIN.CLIP_GRAD": [0, 1, 1e-300, 3e38],
    "TRAIN.EMA_DECAY": [0, 0.9, 0.999999],
    "TRAIN.BATCH_NORM": ["own", "frozen", "sync"],
    "TRAIN.SKIP_NOT_FINITE": [0, 2],
    "TRAIN.CHECKPOINT_STEPS": [0, 1, 2**62],
    "TRAIN.CHECKPOINT_MINUTES": [0, 1e-9, 3e38],
    "TRAIN.SHUFFLE": [True, False],
    "TEST.BATCH_SIZE_PER_GPU": [16, 1, 2**62],
    "TEST.INTERVAL": [1, 3, 10**12],
    "TEST.MODEL_FILE": ["", "none.pth"],
    "TEST.PRECISION": ["fp32", "bf16", "fp16"],
    "TEST.RUNTIME": ["eager", "compiled", "openvino", "onnx"],
    "TEST.SMOOTH_CROP": [False, True],
    "TEST.FLIP_TEST": [True, False],
    "TEST.SHIFT_HEATMAP": [False, True],
    "TEST.POST_PROCESS": [True, False],
    "TEST.REFINEMENT": ["dark", "quarter"],
    "TEST.BLUR_KERNEL": [11, 1, 999],
    "TEST.USE_GT_BBOX": [True, False],
    "TEST.IMAGE_THRE": [0, -1.5],
    "TEST.NMS_THRE": [1, 0.5],
    "TEST.SOFT_NMS": [False, True],
    "TEST.OKS_THRE": [0.9],
    "TEST.IN_VIS_THRE": [0.2],
    "TEST.COCO_BBOX_FILE": ["", "boxes.json"],
    "TEST.BBOX_THRE": [1],
    "DEBUG.DEBUG": [False, True],
    "DEBUG.SAVE_BATCH_IMAGES_GT": [False, True],
    "DEBUG.SAVE_BATCH_IMAGES_PRED": [False, True],
    "DEBUG.SAVE_HEATMAPS_GT": [False, True],
    "DEBUG.SAVE_HEATMAPS_PRED": [False, True],
}  # fmt: skip

TEXTS = [
    "", " ", "text", "12", "1e400", "nan", "true", "null", "[1, 2]", "(", "[" * 200, "ünï 人",
    "\0", "a\0b", "\x1b[2J", "a\nb", "\u2028", "\ud800", "../up", "a/b", "..", ".", "~", "%s {cfg}",
    "x" * 3000, "9" * 5000, "\U0001f9cd",
]  # fmt: skip
NUMBERS = [
    0, -0.0, -1, 1, 2, 3, 7, 0.5, 1e-308, 5e-324, 3e38, 4e38, 1e308, -1e308, math.inf, -math.inf,
    math.nan, 2**31, 2**53 + 1, 2**62, 2**63, -(2**63), 10**30, 10**400,
]  # fmt: skip
LISTS = [
    [], [0], [1], [4, 4], [1, 2, 3], [32, 32, 32], [-1, 2], [2**40, 2**40], [1.0, 2.0], [[1], [2]],
    [None], [True, False], ["a"], ["32", "32"], [[]] * 3, [math.nan] * 2, list(range(500)),
]  # fmt: skip
ODD = [
    None, True, False, *TEXTS, *NUMBERS, *LISTS, {}, {"A": 1}, {"LR": {"LR": 1}}, {1: 2}, {None: 1},
    date(2001, 1, 1), b"\0\xff",
]  # fmt: skip
ALIKE = {str: TEXTS, int: NUMBERS, float: NUMBERS, list: LISTS}  # odd, but of the right type


def leaves(node: Mapping[Any, Any], section: str = "") -> list[str]:
    """Every dotted key; MODEL.EXTRA, which is a section, may be any."""
    keys = []
    for name, value in node.items():
        key = f"{section}{name}"
        inner = isinstance(value, Mapping) and key != "MODEL.EXTRA"
        keys += leaves(value, f"{key}.") if inner else [key]
    return keys


KEYS = leaves(get_cfg())
SECTIONS = sorted({key.rpartition(".")[0] for key in KEYS} - {""})
NAMES = [*KEYS, *SECTIONS, "BASE"]
BY_KIND = {  # so that each type is tried equally often
    kind: [key for key, good in GOOD.items() if type(good[0]) is kind]
    for kind in (bool, int, float, str, list)
}


def test_every_key_is_mutated() -> None:
    assert sorted(GOOD) == sorted(KEYS)


# Configurations


def section_of(values: dict[Any, Any], key: str) -> tuple[dict[Any, Any], str]:
    """The mapping that holds a dotted key, created if there is none, and the key's name."""
    *sections, name = key.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    return values, name


def put(values: dict[Any, Any], key: str, value: Any) -> None:
    section, name = section_of(values, key)
    section[name] = value


def drop(draw: DrawFn, values: dict[Any, Any]) -> None:
    section, name = section_of(values, draw(st.sampled_from([*leaves(SMALL), *SECTIONS])))
    section.pop(name, None)


def rename(draw: DrawFn, values: dict[Any, Any]) -> None:
    section, name = section_of(values, draw(st.sampled_from(leaves(SMALL))))
    other = draw(st.sampled_from([
        name.lower(), f"{name}S", name[1:], f"{name}.{name}", *TEXTS, 1, None, True, 0.5,
        date(2001, 1, 1), "EXTRA", "__class__", "clone", "BASE",
    ]))  # fmt: skip
    section[other] = section.pop(name, 1)


def nest(draw: DrawFn, values: dict[Any, Any]) -> None:
    """Move a key to another section, one deeper, or a whole section into another."""
    section, name = section_of(values, draw(st.sampled_from([*leaves(SMALL), "DATASET", "TRAIN"])))
    value = section.pop(name, 1)
    kind = draw(st.sampled_from(["deeper", "elsewhere", "top", "in a list"]))
    if kind == "deeper":
        section[name] = {name: value}
    elif kind == "in a list":
        section[name] = [value]
    else:
        position = "" if kind == "top" else draw(st.sampled_from(SECTIONS)) + "."
        put(values, f"{position}{name}", value)


def make_odd(draw: DrawFn, values: dict[Any, Any]) -> None:
    key = draw(st.sampled_from(draw(st.sampled_from([*BY_KIND.values(), SECTIONS]))))
    good = GOOD.get(key, [{}])
    pools = [ODD, ALIKE.get(type(good[0]), ODD), [str(v) for v in good] + [[v] for v in good]]
    put(values, key, draw(st.sampled_from(draw(st.sampled_from(pools)))))


LINES: dict[str, Callable[[DrawFn, str], str]] = {
    "twice": lambda draw, line: f"{line}\n{line}",
    "deeper": lambda draw, line: f" {line}",
    "less deep": lambda draw, line: line[1:],
    "tab": lambda draw, line: f"\t{line}",
    "no colon": lambda draw, line: line.replace(":", "", 1),
    "comment": lambda draw, line: f"{line}  # ünï: [",
    "hash": lambda draw, line: f"# {line}",
    "blank": lambda draw, line: f"\n{line}\n\n",
    "carriage return": lambda draw, line: f"{line}\r",
    "document": lambda draw, line: f"---\n{line}",
    "end": lambda draw, line: f"{line}\n...",
    "anchor": lambda draw, line: line.replace(": ", ": &a ", 1),
    "alias": lambda draw, line: re.sub(r": .*", ": *a", line),
    "both": lambda draw, line: f"A: &a 1\n{line}\nB: *a",
    "quoted": lambda draw, line: re.sub(r": (.+)", r": '\1'", line),
    "quote": lambda draw, line: line.replace(": ", ": '", 1),
    "bracket": lambda draw, line: line.replace(": ", ": [", 1),
    "block": lambda draw, line: re.sub(r":( |$)", ": |\n", line),
    "tag": lambda draw, line: re.sub(
        r":( |$)",
        lambda _: f": {draw(st.sampled_from(TAGS))} ",
        line,
        count=1,
    ),
    "merge": lambda draw, line: f"{indent(line)}<<: {draw(st.sampled_from(MERGES))}\n{line}",
    "number": lambda draw, line: re.sub(
        r"(: |- )[-\d.e]+",
        lambda match: match[1] + draw(st.sampled_from(SPELLINGS)),
        line,
        count=1,
    ),
}
TAGS = [
    "!!int", "!!float", "!!str", "!!bool", "!!null", "!!seq", "!!map", "!!set", "!!omap",
    "!!binary", "!!timestamp", "!!python/tuple", "!!python/object/apply:os.getcwd", "!own", "!",
    "!!", "!<tag:yaml.org,2002:int>", "&a !!int",
]  # fmt: skip
MERGES = [
    "{SEED: 1}", "{DIM: 16}", "{LR: 0.1}", "{}", "[{}, {LR: 0.5}]", "3", "*a", "text", "[1]", "",
]  # fmt: skip
SPELLINGS = [
    "1e400", "-1e400", ".inf", ".nan", "-0", "-0.0", "+1", "0x10", "0o17", "010", "1_000", "1:30",
    "1e-3", "1.", ".5", "1e5", "1,5", "9" * 5000, "'1'", "~", "yes", "2001-01-01", "=", "1 2",
]  # fmt: skip


def indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def change_line(draw: DrawFn, text: str) -> str:
    lines = text.splitlines()
    position = draw(st.integers(0, len(lines) - 1))
    lines[position] = LINES[draw(st.sampled_from(sorted(LINES)))](draw, lines[position])
    return "\n".join(lines) + "\n"


def change_bytes(draw: DrawFn, data: bytes) -> bytes:
    """Cut off, cut out, insert, replace or repeat bytes, as editors, disks and transfers do."""
    position = draw(st.integers(0, len(data)))
    end = position + draw(st.integers(1, 8))
    kind = draw(st.sampled_from(["replace", "insert", "cut out", "repeat", "cut off"]))
    if kind == "cut off":
        return data[:position]
    new = {
        "replace": lambda: draw(STRAY),
        "insert": lambda: draw(STRAY) + data[position:end],
        "cut out": lambda: b"",
        "repeat": lambda: data[position:end] * 2,
    }[kind]()
    return data[:position] + new + data[position + len(new) if kind == "replace" else end :]


STRAY = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.sampled_from([bytes([n]) for n in b"0123456789-.,:[]{}\"' \n\t#&*!|>%@`\0\x7f\x85eE"]),
    st.sampled_from([b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3", b"\xe2\x80\xa8", b"\xed\xa0\x80"]),
)

CODINGS = ["utf-8"] * 30 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"]


def encoded(draw: DrawFn, text: str) -> bytes:
    return text.encode(draw(st.sampled_from(CODINGS)), errors="replace")


def times(draw: DrawFn, *counts: int) -> range:
    return range(draw(st.sampled_from(counts)))


@st.composite
def configurations(draw: DrawFn) -> bytes:
    """A valid file with other valid values, then, half of the time, damaged."""
    values = copy.deepcopy(SMALL)
    for key in draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=5)):
        put(values, key, copy.deepcopy(draw(st.sampled_from(GOOD[key]))))
    for _ in times(draw, 0, 0, 0, 0, 0, 1, 1, 2):
        draw(st.sampled_from([make_odd, make_odd, drop, rename, nest]))(draw, values)
    flow = draw(st.sampled_from([False, None]))
    text = yaml.dump(values, Dumper=_Dumper, default_flow_style=flow, allow_unicode=flow is None)
    for _ in times(draw, 0, 0, 0, 0, 0, 1, 1, 2):
        text = change_line(draw, text)
    data = encoded(draw, text)
    for _ in times(draw, 0, 0, 0, 0, 0, 0, 1, 2):
        data = change_bytes(draw, data)
    return data


class _Dumper(yaml.SafeDumper):
    """Writes repeated values without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# Annotations


def good_entry(draw: DrawFn, entry: dict[str, Any], people: list[Any]) -> None:
    """Change a person to a strange but valid one."""
    joint = draw(st.integers(0, 15))
    far = draw(st.sampled_from([-1, 0, 1, -500, 900.5, 1e-300, 9e5, -9e5, 32]))
    kind = draw(st.sampled_from([
        "all hidden", "one hidden", "one visible", "all far", "one far", "all at one point",
        "scale", "center", "image", "more fields", "whole numbers", "visibility",
    ]))  # fmt: skip
    if kind in ("all hidden", "one visible"):
        entry["joints_vis"] = [0] * 16
    if kind in ("one hidden", "one visible"):
        entry["joints_vis"][joint] = int(kind == "one visible")
    if kind == "all far":
        entry["joints"] = [[x + far, y - far] for x, y in entry["joints"]]
        entry["joints"] = [[max(-9e5, min(9e5, v)) for v in point] for point in entry["joints"]]
    if kind == "one far":
        entry["joints"][joint] = [far, draw(st.sampled_from([far, -far, 3]))]
    if kind == "all at one point":
        entry["joints"] = [[far, far]] * 16
    if kind == "scale":
        entry["scale"] = draw(st.sampled_from([0.00401, 0.005, 0.05, 1, 10, 1e3, 9e5]))
    if kind == "center":
        entry["center"] = [far if far != -1 else 5, draw(st.sampled_from([far, -far]))]
    if kind == "image":
        entry["image"] = draw(st.sampled_from([
            "train_000001.jpg", "./train_000001.jpg", "ünï 人.jpg", "gray.png", "one_pixel.png",
        ]))  # fmt: skip
    if kind == "more fields":
        entry |= {"ünï": [None, {"a": "\ud800"}], "": 1, "head": math.nan}
    if kind == "whole numbers":
        entry |= {"joints": [[round(x), round(y)] for x, y in entry["joints"]]}
        entry["center"] = [round(value) for value in entry["center"]]
    if kind == "visibility":
        entry["joints_vis"][joint] = draw(st.sampled_from([2, 0.5, -1, True, 1e5, -0.0, 5e-324]))


BAD_IMAGE_FILES = ["not_an_image.jpg", "empty.jpg", "ends.jpg"]
BAD_IMAGES = [
    *BAD_IMAGE_FILES, "none.jpg", "", ".", "..", "../annot/train.json", "/etc/passwd",
    "a/../../b.jpg", "C:\\x.jpg", "train_000001.jpg/", "a\0b", "a\nb.jpg", "\u2028", "\ud800.jpg",
     "x" * 3000, "\U0001f9cd.jpg", "a:b", "%s", " train_000001.jpg", "TRAIN_1.JPG",
]  # fmt: skip


def bad_entry(draw: DrawFn, entry: dict[str, Any], people: list[Any]) -> None:
    """Change a person so that it is most likely invalid."""
    name = draw(st.sampled_from(sorted(entry)))
    kind = draw(st.sampled_from(["drop", "odd", "odd", "odd inside", "rename", "count", "image"]))
    if kind == "drop":
        del entry[name]
    elif kind == "rename":
        entry[draw(st.sampled_from([name.upper(), f" {name}", "joint", "\0"]))] = entry.pop(name)
    elif kind == "image":
        entry["image"] = draw(st.sampled_from(BAD_IMAGES))
    elif kind == "odd" or not isinstance(entry[name], list):
        entry[name] = draw(st.sampled_from(ODD_JSON))
    elif kind == "count":
        entry[name] = draw(st.sampled_from([
            entry[name][:-1], entry[name] * 2, [entry[name]], entry[name][:1], [*entry[name], 1],
        ]))  # fmt: skip
    else:
        position = entry[name]
        number = draw(st.integers(0, len(position) - 1))
        if isinstance(position[number], list) and draw(st.booleans()):
            position[number] = position = list(position[number])
            number = draw(st.integers(0, len(position) - 1))
        position[number] = draw(st.sampled_from(ODD_JSON))


ODD_JSON = [
    None, True, False, *TEXTS, *NUMBERS, *LISTS, {}, {"A": 1}, 10**6, 999999.9, -1e6, 0.004, -0.4,
    [[[1, 2]]], [[0, 0]] * 16, [[0]] * 16, [0] * 16, [{}] * 16, ["1"] * 16, [[1, 2], [3]],
]  # fmt: skip


def repeat(draw: DrawFn, entry: dict[str, Any], people: list[Any]) -> None:
    people.append(copy.deepcopy(entry))


def remove(draw: DrawFn, entry: dict[str, Any], people: list[Any]) -> None:
    people[:] = [person for person in people if person is not entry] or people


def alone(draw: DrawFn, entry: dict[str, Any], people: list[Any]) -> None:
    people[:] = [entry]


def bad_people(draw: DrawFn, entry: dict[str, Any], people: list[Any]) -> None:
    """Change a person, or all, to something else; a list of lists."""
    other = draw(st.sampled_from([*ODD_JSON, [entry]]))
    people[draw(st.integers(0, len(people) - 1)) :] = [other]


NUMBER = re.compile(r"-?\d+(\.\d+)?")
JSON_SPELLINGS = [
    "NaN", "Infinity", "-Infinity", "1e400", "-0", "-0.0", "1E2", "9" * 5000, "0x10", "1_0", "00",
    ".5", "+1", "null", "true", '"1"', "[]", "{}", "1.", "-", "1e-400", "1,1", "\uff11", "'1'",
]  # fmt: skip


def change_number(draw: DrawFn, text: str) -> str:
    """Spell a number of the file differently."""
    match = draw(st.sampled_from(list(NUMBER.finditer(text)) or [None]))
    if match is None:
        return text
    spelling = draw(st.sampled_from(JSON_SPELLINGS))
    return f"{text[: match.start()]}{spelling}{text[match.end() :]}"


WRAPPERS = [
    "[%s]", '{"people": %s}', "%s%s", "%s,", "// a comment\n%s", "\n\n%s\n", "callback(%s)",
    "[" * 5000 + "%s" + "]" * 5000, "%.0s", "%.0s[]", "%.0s{}", "%.0snull", '%.0s"text"',
    "%.0s[[]]",
]  # fmt: skip


def wrapped(draw: DrawFn, text: str) -> str:
    """Wrap the whole file, or replace it."""
    wrapper = draw(st.sampled_from(WRAPPERS))
    return wrapper % ((text,) * wrapper.count("s"))


@st.composite
def annotations(draw: DrawFn, good: list[dict[str, Any]]) -> bytes:
    """A valid file with some people changed to other valid ones, then, often, damaged."""
    people: list[Any] = copy.deepcopy(good)
    harmless = [good_entry] * 6 + [repeat, remove, alone]
    harmful = [bad_entry] * 8 + [bad_people]
    changes = [*(harmless for _ in times(draw, 1, 2, 3, 4)),
               *(harmful for _ in times(draw, 0, 0, 0, 0, 1, 1))]  # fmt: skip
    for kinds in changes:
        entry = draw(st.sampled_from(people))
        draw(st.sampled_from(kinds))(draw, entry, people)
    text = json.dumps(people[:8], indent=draw(st.sampled_from([None, 1])))
    for _ in times(draw, 0, 0, 0, 0, 0, 0, 1, 2):
        text = change_number(draw, text)
    for _ in times(draw, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1):
        text = wrapped(draw, text)
    data = encoded(draw, text)
    for _ in times(draw, 0, 0, 0, 0, 0, 1):
        data = change_bytes(draw, data)
    return data


# What each file is used for


class Tally:
    """Counts the outcomes of one kind of file."""

    def __init__(self, kind: str, names: Sequence[str]) -> None:
        self.kind = kind
        self.names = names  # an error must contain one of them
        self.ends: Counter[str] = Counter()
        self.done: set[bytes] = set()

    def try_out(self, path: str, data: bytes, act: Callable[[], None]) -> None:
        """Write a file; `act` must train on it or raise one clear line."""
        if data in self.done:
            reject()  # replaced by another
        Path(path).write_bytes(data)
        end = "tracebacks"
        try:
            act()
            end = "valid"
        except UserError as error:
            self._expect_clear(" ".join(str(error).split()))
            end = "refused"
        except UnsatisfiedAssumption:  # of `load_small`; replaced by another file
            end = "too large"
            raise
        finally:
            self.ends[end] += 1
        self.done.add(data)  # not a failure, which is tried again to shrink it

    def _expect_clear(self, line: str) -> None:
        assert 0 < len(line) <= MAX_ERROR, f"an error of {len(line)} characters: {line[:2000]}"
        assert line.isprintable(), f"an error with control characters: {line!a}"
        assert any(name in line for name in self.names), f"names neither file nor key: {line}"

    def report(self) -> None:
        ends = ("valid", "refused", "tracebacks", "too large")
        print(f"\n{self.kind}: {', '.join(f'{self.ends[end]} {end}' for end in ends)}")

    def check(self) -> None:
        assert self.ends["valid"] + self.ends["refused"] == len(self.done) == EXAMPLES
        assert self.ends["valid"] >= MIN_VALID * EXAMPLES


many = settings(
    max_examples=EXAMPLES,
    derandomize=True,  # the same files each time
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def train_a_step(path: str, *opts: Any) -> None:
    """Do the same as `tools/train.py` up to the first step."""
    folders = ("OUTPUT_DIR", "runs/output", "LOG_DIR", "runs/log", "WORKERS", 0)
    with session.open_session(path, [*folders, *opts], "train") as opened:
        trainer = Trainer(opened.cfg, opened.distributed, opened.folder, opened.log_folder)
        try:
            progress = trainer.progress
            trainer.sampler.set_state(progress.epoch, progress.step)
            batch = next(iter(trainer.loader))
            trainer.state.train_mode()
            try:
                trainer.state.step(batch)
            except NotFiniteError as error:
                trainer._count_skipped(error)
        finally:
            trainer.loader.close()


def load_small(path: str, opts: Sequence[Any]) -> CfgNode:
    """Load a configuration; reject the file if its network is large."""
    cfg = loading.load_cfg(path, opts)
    for key, largest in MAX_VALUES.items():
        value = value_of(cfg, key)
        if max(value if isinstance(value, list) else [value]) > largest:
            reject()
    return cfg


def small_defaults() -> CfgNode:
    """The defaults with the values of SMALL, so that missing keys remove the network small."""
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(SMALL))
    cfg.DATASET.ROOT = "data"
    return cfg


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """The annotation of six people in the working folder, with images and initial weights."""
    folder = tmp_path_factory.mktemp("fuzz")
    make_synthetic(folder / "data", {"train": 6, "valid": 2}, seed=0, image_size=64)
    images = folder / "data/images"
    entries = json.loads((folder / "data/annot/train.json").read_text())
    _write_odd_images(images)
    shutil.make_archive(str(images), "zip", images)

    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    threads, random = torch.get_num_threads(), torch.random.get_rng_state()
    cudnn = torch.backends.cudnn
    enabled, benchmark = cudnn.enabled, cudnn.benchmark
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(loading, "get_cfg", small_defaults)
        patch.setattr(session, "load_cfg", load_small)
        patch.setattr(session, "init_distributed", lambda gpus: Distributed(torch.device("cpu")))
        for name in ("_git_state", "_versions"):  # always the same, and slow
            patch.setattr(provenance, name, cache(getattr(provenance, name)))
        torch.set_num_threads(1)
        logging.disable()
        _write_weights(folder)
        yield entries
        logging.disable(logging.NOTSET)
    torch.set_num_threads(threads)
    torch.random.set_rng_state(random)
    torch.use_deterministic_algorithms(False)
    cudnn.enabled, cudnn.benchmark = enabled, benchmark
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


def _write_odd_images(folder: Path) -> None:
    image = (folder / "train_000001.jpg").read_bytes()
    (folder / "ünï 人.jpg").write_bytes(image)
    (folder / "ends.jpg").write_bytes(image[:200])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "not_an_image.jpg").write_bytes(b"not an image")
    for name, shape in (("gray", (40, 30)), ("one_pixel", (1, 1, 3))):
        _, data = cv2.imencode(".png", np.full(shape, 99, np.uint8))
        (folder / f"{name}.png").write_bytes(data.tobytes())


def _write_weights(folder: Path) -> None:
    """Write `weights.pth` and `start.pth`, a training's checkpoint."""
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    cfg = loading.load_cfg(folder / "small.yaml")
    trainer = Trainer(cfg, Distributed(torch.device("cpu")), folder, folder / "runs")
    save_weights(trainer.tested.state_dict(), folder / "weights.pth")
    training_checkpoint.save(
        folder / "start.pth",
        trainer.state,
        trainer.progress,
        trainer.identity,
        trainer.provenance,
    )


def test_a_changed_configuration_trains_or_is_an_error_of_one_line(people: list[Any]) -> None:
    files = ["fuzzed.yaml", "checkpoint", "annot/", "images", "weights"]
    tally = Tally("configurations", [*files, "command line", *NAMES])

    @many
    @given(data=configurations())
    def each(data: bytes) -> None:
        tally.try_out("fuzzed.yaml", data, lambda: train_a_step("fuzzed.yaml"))

    try:
        each()
    finally:
        tally.report()
    tally.check()


SETTINGS = [
    (),
    ("DATASET.PROB_HALF_BODY", 1, "DATASET.NUM_JOINTS_HALF_BODY", 0, "DATASET.SCALE_FACTOR", 0.9),
    ("DATASET.SKIP_BAD_IMAGES", 8, "MODEL.IMAGE_SIZE", [24, 40], "MODEL.HEATMAP_SIZE", [12, 20]),
    ("DATASET.DATA_FORMAT", "zip", "MODEL.IMAGE_SIZE", [64, 32], "MODEL.HEATMAP_SIZE", [32, 16]),
    ("LOSS.USE_OHKM", True, "TRAIN.EMA_DECAY", 0.9, "TRAIN.BATCH_SIZE_PER_GPU", 2,
     "TRAIN.ACCUMULATE", 4),
]  # fmt: skip


def test_a_changed_annotation_trains_or_is_an_error_of_one_line(people: list[Any]) -> None:
    tally = Tally("annotations", ["data/annot/fuzzed.json", "data/images", *BAD_IMAGE_FILES])

    @many
    @given(opts=st.sampled_from(SETTINGS), data=annotations(people))
    def each(opts: Sequence[Any], data: bytes) -> None:
        words = ("DATASET.TRAIN_SET", "fuzzed", *opts)
        tally.try_out("data/annot/fuzzed.json", data, lambda: train_a_step("small.yaml", *words))

    try:
        each()
    finally:
        tally.report()
    tally.check()
