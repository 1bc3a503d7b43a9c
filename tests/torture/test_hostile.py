"""Hostile files and values are errors of one line: no code of theirs runs, no file is touched."""

import contextlib
import functools
import io
import json
import operator
import os
import pickle
import random
import shutil
import stat
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import json_tricks
import numpy as np
import pytest
import torch
import yaml
from desk import ROOT, Desk
from scipy.io import loadmat, savemat
from scipy.sparse import csc_matrix

from lib.config import load_cfg
from lib.utils.checkpoint import save_checkpoint
from lib.utils.files import previous_of


@pytest.fixture
def canary(tmp_path: Path, desk: Desk) -> Iterator[Path]:
    """A path that must never exist; code that runs creates it."""
    path = tmp_path / "canary"
    before = outside(desk)
    yield path
    assert not path.exists(), "code was run"
    assert outside(desk) == before, "a file was written outside the desk"


def outside(desk: Desk) -> set[Path]:
    """All files and folders outside the desk."""
    above = desk.folder.parent
    return {path for path in above.rglob("*") if desk.folder not in (path, *path.parents)}


# Pickles


class Call:
    """Pickles as the call of a function; callable, so that calls can be nested."""

    def __init__(self, function: Callable, *arguments: object, then: tuple = ()) -> None:
        self.reduced = (function, arguments, *then)

    def __reduce__(self) -> tuple:
        return self.reduced

    def __call__(self) -> None:
        raise AssertionError("only the pickled call is made")


def tricks(canary: str) -> dict[str, object]:
    """Objects whose pickles create the canary, by method."""
    inner = pickle.dumps(Call(os.mkdir, canary))
    touch = f"touch '{canary}'"
    return {
        "a command": Call(os.system, touch),
        "a process": Call(subprocess.check_call, ["touch", canary]),
        "exec": Call(exec, f"import os; os.mkdir({canary!r})"),
        "eval": Call(eval, f"__import__('os').mkdir({canary!r})"),
        "an attribute": Call(Call(getattr, Call(__import__, "os"), "mkdir"), canary),
        "a method caller": Call(operator.methodcaller("mkdir", canary), Call(__import__, "os")),
        "a partial": Call(functools.partial(os.mkdir, canary)),
        "a path": Call(Path.mkdir, Path(canary)),
        "open": Call(open, canary, "w"),
        "a pickle in it": Call(pickle.loads, inner),
        "a checkpoint in it": Call(
            functools.partial(torch.load, weights_only=False), Call(io.BytesIO, _legacy(inner))
        ),
        "items of a list": Call(list, then=(None, iter([Call(os.mkdir, canary)]))),
        "items of a mapping": Call(
            OrderedDict, then=(None, None, iter([("x", Call(os.mkdir, canary))]))
        ),
        "a state": Call(OrderedDict, then=({"x": Call(os.mkdir, canary)},)),
        "an array of objects": np.array([Call(os.mkdir, canary), None], dtype=object),
    }


def opcodes(canary: str) -> dict[str, bytes]:
    """Pickles that Python's pickler does not write."""
    name = canary.encode()
    return {
        "GLOBAL": b"cos\nmkdir\n(S'" + name + b"'\ntR.",
        "INST": b"(S'" + name + b"'\nios\nmkdir\n.",
        "OBJ": b"(cos\nmkdir\nS'" + name + b"'\no.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93(S'" + name + b"'\ntR.",
        "called in between": b"\x80\x02cos\nmkdir\n(S'" + name + b"'\ntR0}.",
    }


def _legacy(inner: bytes) -> bytes:
    """A checkpoint of PyTorch before 1.6, which begins with that pickle."""
    return inner + pickle.dumps(0)


TRICKS, OPCODES = list(tricks("")), list(opcodes(""))


def write_pickle(path: Path, trick: str, container: str, canary: Path, content: dict) -> None:
    """Write the trick in a container, next to other content of a checkpoint."""
    raw = opcodes(str(canary)).get(trick)
    if raw is None:
        content = {**content, "x": tricks(str(canary))[trick]}
        {
            "zip": lambda: torch.save(content, path),
            "legacy": lambda: torch.save(content, path, _use_new_zipfile_serialization=False),
            "bare": lambda: path.write_bytes(pickle.dumps(content)),
        }[container]()
    elif container in ("legacy", "bare"):
        path.write_bytes(_legacy(raw) if container == "legacy" else raw)
    else:
        save_checkpoint(content, path)
        _replace_pickle(path, raw)


def _replace_pickle(path: Path, raw: bytes) -> None:
    """Put another pickle into a checkpoint."""
    new = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w") as archive:
        for entry in old.namelist():
            archive.writestr(entry, raw if entry.endswith("data.pkl") else old.read(entry))
    path.write_bytes(new.getbuffer())


CONTAINERS = ("zip", "legacy", "bare")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("trick", [*TRICKS, *OPCODES])
def test_every_trick_works_on_a_trusting_reader(tmp_path: Path, trick: str, container: str) -> None:
    """Otherwise the test below would show nothing."""
    path, canary = tmp_path / "x.pth", tmp_path / "canary"
    write_pickle(path, trick, container, canary, {})
    with contextlib.suppress(pickle.UnpicklingError, RuntimeError, TypeError, AttributeError):
        if container == "bare":
            pickle.loads(path.read_bytes())  # noqa: S301 - the attack itself
        else:
            torch.load(path, weights_only=False)
    assert canary.exists()


def _as_weights(desk: Desk) -> tuple[Path, list[object]]:
    path = desk.folder / "weights.pth"
    return path, ["test", "TEST.MODEL_FILE", path]


def _as_safetensors(desk: Desk) -> tuple[Path, list[object]]:
    path = desk.folder / "weights.safetensors"
    return path, ["test", "TEST.MODEL_FILE", path]


def _as_final_state(desk: Desk) -> tuple[Path, list[object]]:
    return desk.results / "final_state.pth", ["test"]


def _as_pretrained(desk: Desk) -> tuple[Path, list[object]]:
    path = desk.folder / "stem.pth"
    return path, ["train", "MODEL.PRETRAINED", path]


def _as_checkpoint(desk: Desk) -> tuple[Path, list[object]]:
    return desk.results / "checkpoint.pth", ["train", "AUTO_RESUME", "True"]


def _as_checkpoint_before(desk: Desk) -> tuple[Path, list[object]]:
    newest = desk.results / "checkpoint.pth"
    newest.write_bytes(b"cut off")
    return previous_of(newest), ["train", "AUTO_RESUME", "True"]


def _as_named_checkpoint(desk: Desk) -> tuple[Path, list[object]]:
    path = desk.folder / "named.pth"
    return path, ["train", "TRAIN.RESUME", "True", "TRAIN.CHECKPOINT", path]


TARGETS = {
    "TEST.MODEL_FILE": _as_weights,
    "a .safetensors": _as_safetensors,
    "final_state.pth": _as_final_state,
    "MODEL.PRETRAINED": _as_pretrained,
    "checkpoint.pth": _as_checkpoint,
    "checkpoint_previous.pth": _as_checkpoint_before,
    "TRAIN.CHECKPOINT": _as_named_checkpoint,
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("target", TARGETS)
def test_no_pickle_runs(desk: Desk, canary: Path, target: str, container: str) -> None:
    desk.results.mkdir(parents=True)
    path, (tool, *opts) = TARGETS[target](desk)
    for trick in (*TRICKS, *OPCODES):
        write_pickle(path, trick, container, canary, {"format": 2, "model": {}})
        desk.on_cfg(tool, *opts).fails_with(path.name)
        assert not canary.exists(), trick


def _repeated_aliases() -> str:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    return "\n".join(lines)


CRAFTED: dict[str, Callable[[dict], object]] = {
    "format a tensor": lambda it: it.update(format=torch.tensor([2, 2])),
    "seed a tensor": lambda it: it["identity"].update(seed=torch.tensor([0, 0])),
    "epoch a float": lambda it: it["progress"].update(epoch=1.0),
    "epoch not a number": lambda it: it["progress"].update(epoch=float("nan")),
    "step huge": lambda it: it["progress"].update(step=10**9),
    "best a text": lambda it: it["progress"].update(best="x"),
    "history a text": lambda it: it["progress"].update(history="x"),
    "random empty": lambda it: it.update(random=[]),
    "average not finite": lambda it: [v.fill_(float("nan")) for v in it["ema"].values() if v.dim()],
    "moments of another shape": lambda it: it["optimizer"]["state"][0].update(
        exp_avg=torch.ones(7)
    ),
    "moments in one place": lambda it: it["optimizer"]["state"].update(
        {i: {k: v[:1].sum().expand(v.shape) if v.dim() else v for k, v in moments.items()}
         for i, moments in it["optimizer"]["state"].items()}
    ),
    "no betas": lambda it: it["optimizer"]["param_groups"][0].pop("betas"),
    "schedule's step a text": lambda it: it["scheduler"].update(last_epoch="x"),
    "aliases": lambda it: it["provenance"].update(config=_repeated_aliases()),
}  # fmt: skip


def test_no_crafted_checkpoint_is_resumed(desk: Desk, canary: Path) -> None:
    """They have valid checksums; see also tests/core/test_crafted_checkpoint.py."""
    opts = ("TRAIN.END_EPOCH", 2, "TRAIN.LR_STEP", [1], "TRAIN.EMA_DECAY", 0.9)
    assert desk.train_and_stop(6, *opts).code == 130
    newest = desk.results / "checkpoint.pth"
    previous_of(newest).unlink()
    whole = newest.read_bytes()
    for change in CRAFTED.values():
        content = torch.load(io.BytesIO(whole), weights_only=True)
        change(content)
        torch.save(content, newest)
        desk.on_cfg("train", *opts, "AUTO_RESUME", "True").fails_with("checkpoint.pth")
        assert not (desk.results / "final_state.pth").exists()
    newest.write_bytes(whole)
    assert desk.on_cfg("train", *opts, "AUTO_RESUME", "True").code == 0


# YAML

YAML = {
    "apply": "!!python/object/apply:os.mkdir ['{canary}']",
    "apply a command": "!!python/object/apply:os.system [\"mkdir '{canary}'\"]",
    "apply a process": "!!python/object/apply:subprocess.check_call [[mkdir, '{canary}']]",
    "apply exec": "!!python/object/apply:exec ['import os; os.mkdir(\"{canary}\")']",
    "apply with a mapping": "!!python/object/apply:os.mkdir {{args: ['{canary}']}}",
    "new": "!!python/object/new:os.mkdir ['{canary}']",
    "new with a name in it": (
        "!!python/object/new:tuple [!!python/object/new:map "
        "[!!python/name:os.mkdir , ['{canary}']]]"
    ),
    "the same, spelled out": "!<tag:yaml.org,2002:python/object/apply:os.mkdir> ['{canary}']",
}
HARMLESS_YAML = {  # runs nothing, but is no value of a configuration
    "name": "!!python/name:os.mkdir",
    "module": "!!python/module:os",
    "object": "!!python/object:collections.OrderedDict {{}}",
    "tuple": "!!python/tuple [1, 2]",
    "include": "!include {canary}",
    "environment": "!ENV ${{HOME}}",
    "binary": "!!binary aGFybQ==",
    "set": "!!set {{a, b}}",
    "date": "2020-01-01",
}
SPOTS = {
    "the file": "{it}",
    "a section": "MODEL: {it}",
    "a number": "WORKERS: {it}",
    "a text": "MODEL: {{PRETRAINED: {it}}}",
    "a list": "GPUS: {it}",
    "an entry": "TRAIN: {{LR_STEP: [{it}]}}",
    "a free section": "MODEL: {{EXTRA: {{X: [{it}]}}}}",
    "a key": "? {it}\n: 1",
    "the base": "BASE: {it}",
}


@pytest.mark.parametrize("tag", YAML)
def test_every_tag_works_on_a_trusting_reader(tmp_path: Path, tag: str) -> None:
    canary = tmp_path / "canary"
    with contextlib.suppress(TypeError):
        yaml.unsafe_load(YAML[tag].format(canary=canary))
    assert canary.exists()


@pytest.mark.parametrize("spot", SPOTS)
@pytest.mark.parametrize("tag", [*YAML, *HARMLESS_YAML])
def test_no_tag_runs(desk: Desk, canary: Path, tag: str, spot: str) -> None:
    text = SPOTS[spot].format(it=(YAML | HARMLESS_YAML)[tag].format(canary=canary))
    (desk.folder / "small.yaml").write_text(text)
    desk.on_cfg("train").fails_with("small.yaml")
    (desk.folder / "base.yaml").write_text(text)
    (desk.folder / "small.yaml").write_text("BASE: base.yaml")
    desk.on_cfg("train").fails_with("base.yaml")


EXPRESSIONS = (
    "__import__('os').mkdir('{canary}')",
    "().__class__.__base__.__subclasses__()",
    "[__import__('os').mkdir('{canary}')]",
    "{{**__import__('os').environ}}",
    'f\'{{__import__("os").mkdir("{canary}")}}\'',
    "$(mkdir '{canary}')",
    "`mkdir '{canary}'`",
    "| mkdir '{canary}'",
    "{{cfg.__class__.__init__.__globals__}}",
)
KEYS = {  # and the text of the error
    "WORKERS": "WORKERS",
    "TRAIN.LR": "TRAIN.LR",
    "TRAIN.SHUFFLE": "TRAIN.SHUFFLE",
    "GPUS": "GPUS",
    "MODEL.IMAGE_SIZE": "MODEL.IMAGE_SIZE",
    "MODEL": "MODEL",
    "MODEL.EXTRA": "MODEL.EXTRA",
    "MODEL.EXTRA.PRETRAINED_LAYERS": "PRETRAINED_LAYERS",
    "MODEL.PRETRAINED": "cannot read the checkpoint",
    "TRAIN.OPTIMIZER": "TRAIN.OPTIMIZER",
    "MODEL.__class__": "no such key",
    "__dict__": "no such key",
}


@pytest.mark.parametrize("key", KEYS)
def test_no_value_on_the_command_line_runs(desk: Desk, canary: Path, key: str) -> None:
    for text in (*YAML.values(), *HARMLESS_YAML.values(), *EXPRESSIONS):
        if text != "2020-01-01" or key != "WORKERS":
            desk.on_cfg("train", key, text.format(canary=canary)).fails_with(KEYS[key])


def test_free_values_stay_texts(desk: Desk, canary: Path) -> None:
    for text in (*YAML.values(), *EXPRESSIONS):
        value = text.format(canary=canary)
        cfg = load_cfg(desk.yaml, ["MODEL.EXTRA.X", value])
        assert value == cfg.MODEL.EXTRA.X


# JSON


def markers(module: str) -> dict[str, dict]:
    """Markers that some JSON readers turn into objects; importing the module creates the canary."""
    return {
        "instance": {"__instance_type__": [module, "Thing"], "attributes": {"a": 1}},
        "slots": {"__instance_type__": [module, "Thing"], "slots": {"a": 1}, "attributes": {}},
        "enum": {"__enum__": {"__enum_instance_type__": [module, "Thing"], "name": "a"}},
        "py/object": {"py/object": f"{module}.Thing", "a": 1},
        "py/reduce": {"py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": [module]}]},
        "class": {"__class__": f"{module}.Thing", "__module__": module},
        "array": {"__ndarray__": [64.0, 64.0], "dtype": "float64", "shape": [2]},
        "date": {"__date__": None, "year": 2020, "month": 1, "day": 1},
        "path": {"__pathlib__": "/etc/hostname"},
    }


SPOTS_IN_JSON: dict[str, Callable[[list, dict], object]] = {
    "the file": lambda entries, it: it,
    "a person": lambda entries, it: [it, *entries],
    "an image": lambda entries, it: [{**entries[0], "image": it}, *entries],
    "a center": lambda entries, it: [{**entries[0], "center": it}, *entries],
    "a scale": lambda entries, it: [{**entries[0], "scale": it}, *entries],
    "joints": lambda entries, it: [{**entries[0], "joints": it}, *entries],
    "a joint": lambda entries, it: [{**entries[0], "joints": [it] * 16}, *entries],
    "a coordinate": lambda entries, it: [{**entries[0], "joints": [[it, 1.0]] * 16}, *entries],
    "visibility": lambda entries, it: [{**entries[0], "joints_vis": it}, *entries],
}


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module whose import creates the canary."""
    folder = tmp_path / "modules"
    folder.mkdir()
    name = "module_of_the_trap"
    text = f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\nclass Thing: pass\n"
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_the_marker_works_on_a_trusting_reader(tmp_path: Path, trap: str) -> None:
    json_tricks.loads(json.dumps(markers(trap)["instance"]))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["train", "valid"])
@pytest.mark.parametrize("spot", SPOTS_IN_JSON)
def test_no_marker_makes_an_object(
    desk: Desk, trap: str, canary: Path, spot: str, name: str
) -> None:
    path = desk.data / f"annot/{name}.json"
    entries = json.loads(path.read_text())
    for marker in markers(trap).values():
        path.write_text(json.dumps(SPOTS_IN_JSON[spot](entries, marker)))
        desk.on_cfg("train").fails_with(path.name)
        assert trap not in sys.modules


# Names of images


@pytest.fixture
def secret(desk: Desk) -> Path:
    """A valid image outside the folder of images."""
    path = desk.folder.parent / "secret.jpg"
    shutil.copy(desk.data / "images/train_000000.jpg", path)
    return path


def names_that_climb(secret: Path) -> dict[str, str]:
    """Names that might reach the secret from `home/data/images`."""
    up = "../../../secret.jpg"
    return {
        "up": up,
        "up from a folder": f"a/../{up}",
        "up from here": f"./{up}",
        "backslashes": up.replace("/", "\\"),
        "mixed": "..\\../../secret.jpg",
        "absolute": str(secret),
        "absolute twice": f"/{secret}",
        "absolute with backslashes": str(secret).replace("/", "\\"),
        "a drive": f"C:{secret}",
        "a file address": f"file://{secret}",
        "a cut": "train_000000.jpg\0/../../../../secret.jpg",
        "a cut at the end": "train_000000.jpg\0",
    }


def names_of_nothing(secret: Path) -> dict[str, str]:
    return {
        "a user": f"~/{secret.name}",
        "the folder": ".",
        "half a letter": "\ud800.jpg",
        "too long": "x" * 5000,
        "a variable": "${HOME}/x.jpg",
        "a pattern": "*.jpg",
    }


def first_image(desk: Desk, name: str) -> None:
    """Set the image of the first person of the training set."""
    path = desk.data / "annot/train.json"
    entries = json.loads(path.read_text())
    entries[0]["image"] = name
    path.write_text(json.dumps(entries))


def zipped(desk: Desk) -> zipfile.ZipFile:
    """A zip of the images, open for adding more."""
    archive = zipfile.ZipFile(desk.data / "images.zip", "w")
    for image in (desk.data / "images").iterdir():
        if image.name != "train_000000.jpg":
            archive.write(image, image.name)
    return archive


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["jpg", "zip"])
@pytest.mark.parametrize("name", names_that_climb(Path("/")))
def test_no_image_is_read_from_outside(
    desk: Desk, secret: Path, canary: Path, name: str, kind: str, workers: int
) -> None:
    climb = names_that_climb(secret)[name]
    first_image(desk, climb)
    with zipped(desk) as archive:
        archive.write(secret, climb)  # not even if the zip has such an entry
    desk.on_cfg("train", "DATASET.DATA_FORMAT", kind, "WORKERS", workers).fails_with("image")


@pytest.mark.parametrize("kind", ["jpg", "zip"])
@pytest.mark.parametrize("name", names_of_nothing(Path("/")))
def test_an_odd_name_is_an_error(
    desk: Desk, secret: Path, canary: Path, name: str, kind: str
) -> None:
    first_image(desk, names_of_nothing(secret)[name])
    zipped(desk).close()
    desk.on_cfg("train", "DATASET.DATA_FORMAT", kind).fails_with("image")


@pytest.mark.parametrize("target", ["../../secret.jpg", "../../../secret.jpg", "{secret}"])
def test_a_link_in_a_zip_leads_nowhere(desk: Desk, secret: Path, canary: Path, target: str) -> None:
    entry = zipfile.ZipInfo("train_000000.jpg")
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipped(desk) as archive:
        archive.writestr(entry, target.format(secret=secret))
    desk.on_cfg("train", "DATASET.DATA_FORMAT", "zip").fails_with("train_000000.jpg")


def test_a_linked_folder_in_a_zip_leads_nowhere(desk: Desk, secret: Path, canary: Path) -> None:
    entry = zipfile.ZipInfo("out")
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipped(desk) as archive:
        archive.writestr(entry, str(secret.parent))
    first_image(desk, "out/secret.jpg")
    desk.on_cfg("train", "DATASET.DATA_FORMAT", "zip").fails_with("out/secret.jpg")


# Names of results and of sets

OUTPUT_NAMES = {
    "up": "../../../escaped",  # from home/output/synthetic
    "absolute": "{outside}/escaped",
    "up and down": "x/../../../../escaped",
    "up once": "..",
    "here": ".",
    "empty": "",
    "a folder in it": "a/b",
    "backslashes": "..\\..\\..\\escaped",
    "a cut": "x\0y",
    "a line break": "x\ny",
}


@pytest.mark.parametrize("by", ["command line", "file"])
@pytest.mark.parametrize("key", ["MODEL.NAME", "DATASET.DATASET"])
@pytest.mark.parametrize("name", OUTPUT_NAMES)
def test_no_result_is_written_outside(
    desk: Desk, canary: Path, name: str, key: str, by: str
) -> None:
    value = OUTPUT_NAMES[name].format(outside=desk.folder.parent)
    if key == "DATASET.DATASET":
        value = value.replace("../", "", 1)  # its folder is one level higher
    if by == "file":
        section, _, last = key.partition(".")
        content = yaml.safe_load(desk.yaml.read_text())
        content[section][last] = value
        desk.yaml.write_text(yaml.safe_dump(content))
        outcome = desk.on_cfg("train")
    elif "\0" in value:
        pytest.skip("no command line can hold it")
    else:
        outcome = desk.on_cfg("train", key, value)
    outcome.fails_with(key)
    for folder in ("output", "log"):
        assert not (desk.folder / folder).exists()


def test_a_configuration_named_as_the_folder_above_writes_nothing_there(
    desk: Desk, canary: Path
) -> None:
    desk.yaml = desk.yaml.rename(desk.folder / "...yaml")  # whose stem is `..`
    desk.on_cfg("train", "TRAIN.END_EPOCH", 1)
    assert not list((desk.folder / "output/synthetic").glob("*.*"))


@pytest.mark.parametrize(
    "key", ["OUTPUT_DIR", "LOG_DIR", "DATA_DIR", "DATASET.ROOT", "MODEL.PRETRAINED"]
)
def test_a_path_with_a_null_character_is_an_error(desk: Desk, canary: Path, key: str) -> None:
    """YAML's "\\0" is not allowed in paths."""
    content = yaml.safe_load(desk.yaml.read_text()) | {
        "OUTPUT_DIR": str(desk.folder / "output"), "LOG_DIR": str(desk.folder / "log"),
    }  # fmt: skip
    content["DATASET"]["ROOT"] = str(desk.data)
    section, _, last = key.rpartition(".")
    (content[section] if section else content)[last] = f"{desk.folder}/x\0y"
    desk.yaml.write_text(yaml.safe_dump(content))
    desk.run("train", "--cfg", desk.yaml).fails_with("")


@pytest.mark.parametrize("key", ["DATASET.TRAIN_SET", "DATASET.TEST_SET"])
@pytest.mark.parametrize("name", ["../../../elsewhere", "{outside}/elsewhere"])
def test_a_set_is_a_path_as_its_root_is_and_only_read(
    desk: Desk, tmp_path: Path, key: str, name: str
) -> None:
    """It may be anywhere, as DATASET.ROOT, but must be an annotation; no content is shown."""
    shutil.copy(desk.data / "annot/train.json", tmp_path / "elsewhere.json")
    before = outside(desk)
    words = (key, name.format(outside=tmp_path), "TRAIN.END_EPOCH", 1)
    outcome = desk.on_cfg("train", *words)
    assert outcome.code == 0, outcome.err
    (tmp_path / "elsewhere.json").write_text("root:x:0:0")
    shutil.rmtree(desk.results)
    outcome = desk.on_cfg("train", *words)
    outcome.fails_with("elsewhere.json")
    assert "root:x" not in outcome.err
    assert outside(desk) == before


# Studies

STUDY_SPOTS = ("{it}", "CFG: {it}", "SEEDS: {it}", "SEEDS: [{it}]", "VARIANTS: {it}", "? {it}\n: 1")
BAD_YAML = {
    "a date": "2020-13-45",
    "a number": "0x_",
    "deep": "[" * 5000,
    "many": "[&a [x, x], &b [*a, *a], *b]",
    "a mapping as a key": "{{{{a: 1}}: 2}}",
    "a byte": "\0",
}


@pytest.mark.parametrize("spot", STUDY_SPOTS)
@pytest.mark.parametrize("tag", [*YAML, *HARMLESS_YAML, *BAD_YAML])
def test_no_tag_of_a_study_runs(desk: Desk, canary: Path, tag: str, spot: str) -> None:
    study = desk.folder / "study.yaml"
    text = spot.format(it=(YAML | HARMLESS_YAML | BAD_YAML)[tag].format(canary=canary))
    rest = {"CFG": "small.yaml", "SEEDS": [0], "VARIANTS": {"a": {}}}
    given = text.partition(":")[0]
    study.write_text(
        text
        if spot == "{it}"
        else text + "\n" + yaml.safe_dump({k: v for k, v in rest.items() if k != given})
    )
    desk.run("study", "--study", study, "OUTPUT_DIR", desk.folder / "output").fails_with("study")


@pytest.mark.parametrize("name", ["..", ".", "../../../../../escaped", "a/../../b", "a\\..\\b"])
def test_no_variant_of_a_study_writes_outside_its_folder(
    desk: Desk, canary: Path, name: str
) -> None:
    study = desk.folder / "study.yaml"
    content = {"CFG": "small.yaml", "VARIANTS": {name: {"TRAIN.END_EPOCH": 1}}}
    study.write_text(yaml.safe_dump(content))
    folders = ("OUTPUT_DIR", desk.folder / "output", "LOG_DIR", desk.folder / "log")
    desk.run("study", "--study", study, *folders, "DATASET.ROOT", desk.data)
    for base in ("output", "log"):
        runs = desk.folder / base / "synthetic/pose_tokenpose_s"
        assert [entry.name for entry in runs.iterdir()] == ["study"]
        seeds = list(runs.rglob("seed_0"))
        assert all(seed.parent.parent == runs / "study" for seed in seeds)


# MATLAB files


def _cells(value: np.ndarray) -> np.ndarray:
    cells = np.empty(value.shape, dtype=object)
    cells[...] = value.ravel()[0]
    return cells


def _in_a_cell(value: np.ndarray) -> np.ndarray:
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = value
    return cell


HOSTILE_ARRAYS: dict[str, Callable[[np.ndarray], object]] = {
    "cells": _cells,
    "cells in cells": lambda value: _cells(_cells(value)),
    "an array in a cell": _in_a_cell,
    "a struct": lambda value: {"a": value, "b": {"c": value}},
    "a text": lambda value: "os.system('x')",
    "texts": lambda value: np.array(["x"] * 16, dtype=object),
    "sparse": lambda value: csc_matrix(np.ones((16, 6))),
    "complex": lambda value: np.ones(value.shape, dtype=complex),
    "nothing": lambda value: np.zeros((0, 0)),
    "numbers that are none": lambda value: np.full(value.shape, np.nan),
    "another shape": lambda value: np.ones((1, 10_000)),
}


def write_mat(path: Path, key: str, hostile: str) -> None:
    """Replace an array of a .mat file."""
    content = {name: value for name, value in loadmat(path).items() if name[0] != "_"}
    content[key] = HOSTILE_ARRAYS[hostile](content[key])
    savemat(path, content)


GT_KEYS = ("dataset_joints", "jnt_missing", "pos_gt_src", "headboxes_src")


@pytest.mark.parametrize("key", GT_KEYS)
@pytest.mark.parametrize("hostile", HOSTILE_ARRAYS)
def test_hostile_arrays_of_the_annotation_are_errors(
    desk: Desk, canary: Path, key: str, hostile: str
) -> None:
    gt = desk.data / "annot/gt_valid.mat"
    savemat(desk.folder / "pred.mat", {"preds": np.ones((6, 16, 2))})
    write_mat(gt, key, hostile)
    desk.on_cfg("train").fails_with("gt_valid.mat")
    scored = ("evaluate", "--gt", gt, "--pred", desk.folder / "pred.mat")
    desk.run(*scored).fails_with("gt_valid.mat")


@pytest.mark.parametrize("hostile", HOSTILE_ARRAYS)
def test_hostile_predictions_are_errors(desk: Desk, canary: Path, hostile: str) -> None:
    pred = desk.folder / "pred.mat"
    savemat(pred, {"preds": np.ones((6, 16, 2))})
    write_mat(pred, "preds", hostile)
    scored = ("evaluate", "--gt", desk.data / "annot/gt_valid.mat", "--pred", pred)
    desk.run(*scored).fails_with("pred.mat")


MATS = 150
READ_ALL = """
import sys
from lib.metrics.pckh import load_gt
from lib.utils.errors import UserError
for line in sys.stdin:
    print("reading", flush=True)
    try:
        load_gt(line.strip())
        print("accepted", flush=True)
    except UserError as error:
        print("refused" if len(str(error).splitlines()) == 1 else "lines", flush=True)
"""


# What scipy.io writes is not compressed; MATLAB, and this code, compress.
@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_mat_never_ends_the_process(desk: Desk, canary: Path, compressed: bool) -> None:
    gt = desk.data / "annot/gt_valid.mat"
    content = {name: value for name, value in loadmat(gt).items() if name[0] != "_"}
    savemat(gt, content, do_compression=compressed)
    data, files, rng = gt.read_bytes(), [], random.Random(0)
    for number in range(MATS):
        position = rng.randrange(len(data))
        flipped = data[:position] + bytes([data[position] ^ 1 << number % 8]) + data[position + 1 :]
        files.append(desk.folder / f"{number}.mat")
        files[-1].write_bytes(data[:position] if number % 4 == 0 else flipped)
    outcomes, crashes = Counter(), []
    while files:
        reader = subprocess.run(
            [sys.executable, "-c", READ_ALL], input="\n".join(map(str, files)),
            capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        words = reader.stdout.split()
        outcomes += Counter(words)
        assert words, reader.stderr
        if reader.returncode:
            crashes.append(f"{files[words.count('reading') - 1].name}: {reader.returncode}")
        files = files[words.count("reading") :]
    kind = "compressed" if compressed else "plain"
    print(f"\n{kind} .mat: {outcomes['refused']} of {MATS} damaged files refused, "
          f"{outcomes['accepted']} accepted, {len(crashes)} end the process")  # fmt: skip
    assert not outcomes["lines"]
    assert not crashes
