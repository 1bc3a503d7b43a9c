"""From a YAML file and `KEY VALUE` pairs to a configuration: read, merge, check, freeze."""

import ast
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode as Node

from lib.config.check import ORIGINS, check, value_error
from lib.config.default import get_cfg
from lib.utils.errors import UserError
from lib.utils.text import expand_home, shorten

BASE = "BASE"  # key of a file that names the file it is based on
COMMAND_LINE = "command line"

MAX_FLOAT = 3e38  # weights are float32
MAX_INT = 2**63 - 1
_KIND = {
    bool: "true or false",
    int: "a whole number",
    float: f"a number from -{MAX_FLOAT} to {MAX_FLOAT}",
    str: "a text",
    list: "a list of whole numbers",
    tuple: "a list of whole numbers",
}

# Names of other codebases, without underscores, and the names here.
_SYNONYMS = {
    "LEARNINGRATE": "LR", "BASELR": "LR", "WEIGHTDECAY": "WD", "BATCH": "BATCH_SIZE_PER_GPU",
    "EPOCHS": "END_EPOCH", "NUMEPOCHS": "END_EPOCH", "MAXEPOCHS": "END_EPOCH", "PATH": "ROOT",
    "MILESTONES": "LR_STEP", "GAMMA": "LR_FACTOR", "SCHEDULER": "LR_SCHEDULER", "GPU": "GPUS",
    "GRADCLIP": "CLIP_GRAD", "FP16": "PRECISION", "AMP": "PRECISION", "NUMWORKERS": "WORKERS",
    "INPUTSIZE": "IMAGE_SIZE", "OUTPUTSIZE": "HEATMAP_SIZE", "WEIGHTS": "MODEL_FILE",
    "MINLR": "LR_END", "ETAMIN": "LR_END", "LRDECAY": "LR_FACTOR", "NUMHEADS": "TRANSFORMER_HEADS",
    "LAYERS": "TRANSFORMER_DEPTH", "NUMLAYERS": "TRANSFORMER_DEPTH", "KEYPOINTS": "NUM_JOINTS",
    "VALSET": "TEST_SET", "VALIDSET": "TEST_SET", "EVALINTERVAL": "INTERVAL", "DEVICE": "GPUS",
}  # fmt: skip


def load_cfg(path: str | Path, opts: Sequence[Any] = ()) -> Node:
    """Return the defaults, changed by a YAML file, then by `KEY VALUE ...`; checked and frozen.

    A file may be based on another: `BASE: other.yaml`, relative to itself. UserError, one line
    with key, value and where it was set, if the file or a value is wrong.
    """
    cfg = get_cfg()
    origins: dict[str, str] = {}
    for file, values in _read_with_bases(Path(path)):
        _merge(cfg, values, str(file), origins)
    if len(opts) % 2:
        raise UserError(f"{COMMAND_LINE}: {opts[-1]} has no value; write KEY VALUE ...")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        for name in reversed(str(key).split(".")):
            value = {name: value}
        _merge(cfg, value, COMMAND_LINE, origins)
    cfg.__dict__[ORIGINS] = dict.fromkeys(_keys(cfg), f"{path} (default)") | origins
    check(cfg)
    cfg.freeze()
    return cfg


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, without aliases and repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # A few aliases of aliases make a list of more entries than fit into memory.
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                problem = f"the key {name} is repeated"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; UserError, one line, if it does not."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse YAML that holds a mapping; otherwise UserError, one line that begins with `where`."""
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a SafeLoader
    except Exception as error:  # PyYAML does not wrap errors of malformed numbers, dates, tags
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = shorten(str(getattr(error, "problem", None) or error))
        raise UserError(f"{where}: not valid YAML: {problem}{line}") from error
    if not isinstance(values, dict):
        raise UserError(f"{where}: must hold `KEY: value` lines, not {type(values).__name__}")
    return values


def _read_with_bases(
    path: Path, visited: tuple[Path, ...] = ()
) -> list[tuple[Path, dict[str, Any]]]:
    """Read a file and those that it is based on, the deepest first."""
    values = read_yaml(path)
    if BASE not in values:
        return [(path, values)]
    base, visited = values.pop(BASE), (*visited, path.resolve())
    base = expand_home(base) if isinstance(base, str) else base
    if not isinstance(base, str) or not os.path.isfile(path.parent / base):
        raise value_error(str(path), BASE, base, "there is no such file")
    if (path.parent / base).resolve() in visited:
        raise value_error(str(path), BASE, base, "the file is based on itself")
    return [*_read_with_bases(path.parent / base, visited), (path, values)]


def _merge(
    cfg: Node, values: Mapping[Any, Any], origin: str, origins: dict[str, str], section: str = ""
) -> None:
    """Write values into `cfg`, and their origin into `origins`."""
    for name, value in values.items():
        key = f"{section}{name}"
        old = cfg.get(name)
        if isinstance(old, Node) and isinstance(value, Mapping):
            _merge(old, value, origin, origins, f"{key}.")
        elif cfg.is_new_allowed():
            if not isinstance(name, str) or not _is_plain(value):
                raise value_error(origin, key, value, "expected texts, numbers, lists and mappings")
            cfg[name] = _free(value)
            origins[key] = origin
        elif name not in cfg:
            raise _unknown_key(origin, key, value)
        elif isinstance(old, Node):
            example = f"{key}.{next(iter(old), 'KEY')}"
            raise value_error(origin, key, value, f"is a section with keys such as {example}")
        else:
            cfg[name] = _coerce(value, old, origin, key)
            origins[key] = origin


def _unknown_key(origin: str, key: str, value: Any) -> UserError:
    """Return the error for a key that does not exist; it names the nearest."""
    while isinstance(value, Mapping) and len(value) == 1:  # SECTION.KEY VALUE
        ((name, value),) = value.items()
        key = f"{key}.{name}"
    section, dot, name = key.upper().replace("-", "_").rpartition(".")
    name = _SYNONYMS.get(name.replace("_", ""), name)
    keys = [*_keys(get_cfg()), BASE]
    # A key with the same words is nearer than one with the same letters.
    alike = [k for k in keys if {*name.split("_")} <= {*k.rpartition(".")[2].split("_")}]
    nearest = difflib.get_close_matches(section + dot + name, alike or keys, n=1, cutoff=0)[0]
    hint = "nest the keys, a level per section" if nearest == key else f"the nearest is {nearest}"
    return value_error(origin, key, value, f"there is no such key; {hint}")


def _keys(cfg: Node, section: str = "") -> Iterator[str]:
    """Every key and section of `cfg`, dotted."""
    for name, value in cfg.items():
        yield section + name
        if isinstance(value, Node):
            yield from _keys(value, f"{section}{name}.")


def _coerce(value: Any, default: Any, origin: str, key: str) -> Any:
    """Return `value` with the type of the default."""
    kind = type(default)
    read = value if kind is str else _literal(value)
    if kind is str and isinstance(value, str):
        read = expand_home(value)  # only paths begin with ~
    if kind in (list, tuple):
        entries = read if isinstance(read, list | tuple) else [read] if kind is tuple else [None]
        numbers = [_scalar(entry, int) for entry in entries]  # GPUS 0 is GPUS [0]
        result = None if None in numbers else kind(numbers)
    else:
        result = _scalar(read, kind)
    if result is None:
        raise value_error(origin, key, value, f"expected {_KIND[kind]}")
    return result


def _scalar(value: Any, kind: type) -> Any:
    """Return `value` as that kind, or None if it is of another; a bool is no number."""
    if kind is float and type(value) in (int, float) and abs(value) <= MAX_FLOAT:  # nan is not
        return float(value)
    if kind is int and type(value) is int and abs(value) <= MAX_INT:
        return value
    return value if kind in (bool, str) and type(value) is kind else None


def _literal(value: Any) -> Any:
    """Parse a text that is a number, a bool or a list; return others unchanged.

    On the command line every value is a text, and YAML 1.1 reads 1e-3 and (0, 1) as texts.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        result = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value
    is_read = isinstance(result, int | float | list | tuple) and _is_plain(result)
    return result if is_read else value


def _is_plain(value: Any) -> bool:
    """Whether `value` has only texts, numbers, lists and mappings, so that it can be saved."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _free(value: Any) -> Any:
    """Return the value of a section that may hold anything; mappings become such sections."""
    if not isinstance(value, Mapping):
        return _literal(value)
    node = Node(new_allowed=True)
    for name, entry in value.items():
        node[name] = _free(entry)
    return node
