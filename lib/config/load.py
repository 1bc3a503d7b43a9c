"""From a YAML file and `KEY VALUE` pairs to a configuration: read, merge, check, freeze."""

import ast
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode as Node

from lib.config.check import check, fault
from lib.config.default import get_cfg
from lib.utils.errors import UserError
from lib.utils.text import brief

BASE = "BASE"  # key of a file that says which file it builds upon
COMMAND_LINE = "command line"

_LARGEST = 3e38  # of a float: more does not fit into weights, which have 32 bits
_KIND = {
    bool: "true or false",
    int: "a whole number",
    float: f"a number from -{_LARGEST} to {_LARGEST}",
    str: "a text",
}


def load_cfg(path: str | Path, opts: Sequence[Any] = ()) -> Node:
    """Return the defaults, changed by a YAML file, then by `KEY VALUE ...`; checked and frozen.

    A file may build upon another with `BASE: other.yaml`, relative to itself. Raises UserError, one
    line that names key, value and where it was said, for whatever is wrong with file or values.
    """
    cfg = get_cfg()
    origins: dict[str, str] = {}
    for file, values in _with_bases(Path(path)):
        _merge(cfg, values, str(file), origins)
    if len(opts) % 2:
        raise UserError(f"{COMMAND_LINE}: {opts[-1]} has no value; write KEY VALUE ...")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        _merge(cfg, _nested(str(key), value), COMMAND_LINE, origins)
    check(cfg, lambda key: origins.get(key, f"{path} (default)"))
    cfg.freeze()
    return cfg


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, less what a configuration has no use for."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # A few aliases of aliases make a list of more entries than fit into memory.
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not taken", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key {key.value} stands twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; UserError, one line, where it does not."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str | bytes, where: str) -> dict[str, Any]:
    """Read YAML that holds a mapping; UserError, one line that begins with `where`, else."""
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = brief(str(error.problem or error))
        raise UserError(f"{where}: not a good YAML file: {problem}{line}") from error
    # Beside its own errors PyYAML lets through what a malformed number, date or tag raises.
    except (
        yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError,
    ) as error:  # fmt: skip
        raise UserError(f"{where}: not a good YAML file: {brief(str(error))}") from error
    if values is None:
        raise UserError(f"{where}: is empty")
    if not isinstance(values, dict):
        raise UserError(f"{where}: must hold `KEY: value` lines, not a {type(values).__name__}")
    return values


def _with_bases(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Read a file and those that it builds upon, the deepest first."""
    chain: list[tuple[Path, dict[str, Any]]] = []
    seen: list[Path] = []
    while True:
        values = read_yaml(path)
        chain.insert(0, (path, values))
        seen.append(path.resolve())
        if BASE not in values:
            return chain
        base = values.pop(BASE)
        if not isinstance(base, str) or not base:
            raise fault(str(path), BASE, base, "expected the name of a YAML file")
        following = path.parent / base
        if not os.path.isfile(following):  # unlike Path.is_file it never raises
            raise fault(str(path), BASE, base, "there is no such file")
        if following.resolve() in seen:
            raise fault(str(path), BASE, base, "the file builds upon itself")
        path = following


def _nested(key: str, value: Any) -> dict[str, Any]:
    """`A.B` and a value as {A: {B: value}}."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _merge(
    cfg: Node, values: Mapping[Any, Any], origin: str, origins: dict[str, str], section: str = ""
) -> None:
    """Write values into `cfg`, and into `origins` who said so."""
    for name, value in values.items():
        key = f"{section}{name}"
        old = cfg.get(name)
        if isinstance(old, Node) and isinstance(value, Mapping):
            _merge(old, value, origin, origins, f"{key}.")
        elif cfg.is_new_allowed():
            if not isinstance(name, str) or not _is_plain(value):
                raise fault(origin, key, value, "expected texts, numbers, lists and mappings")
            cfg[name] = _free(value)
        elif name not in cfg:
            raise _unknown(origin, key, value)
        elif isinstance(old, Node):
            raise fault(origin, key, value, f"is a section; it holds keys as {_first(old, key)}")
        else:
            cfg[name] = _coerced(value, old, origin, key)
            origins[key] = origin


def _unknown(origin: str, key: str, value: Any) -> UserError:
    """The error for a key that does not exist."""
    while isinstance(value, Mapping) and len(value) == 1:  # as `SECTION.KEY VALUE` comes
        ((name, value),) = value.items()
        key = f"{key}.{name}"
    nearest = difflib.get_close_matches(key.upper(), [*_keys(get_cfg()), BASE], n=1, cutoff=0)[0]
    mend = "keys nest, one level a section" if nearest == key else f"the nearest is {nearest}"
    return fault(origin, key, value, f"there is no such key; {mend}")


def _keys(cfg: Node, section: str = "") -> Iterator[str]:
    """Every key and section of `cfg`, dotted."""
    for name, value in cfg.items():
        yield section + name
        if isinstance(value, Node):
            yield from _keys(value, f"{section}{name}.")


def _first(cfg: Node, section: str) -> str:
    """A key of a section, as an example."""
    return f"{section}.{next(iter(cfg), 'KEY')}"


def _coerced(value: Any, default: Any, origin: str, key: str) -> Any:
    """Return `value` as a value of the default's type."""
    kind = type(default)
    read = value if kind is str else _literal(value)
    if kind not in (list, tuple):
        result = _scalar(read, kind)
        if result is None:
            raise fault(origin, key, value, f"expected {_KIND[kind]}")
        return result
    if kind is tuple and not isinstance(read, list | tuple):
        read = (read,)  # GPUS 0
    numbers = [_scalar(v, int) for v in read] if isinstance(read, list | tuple) else [None]
    if None in numbers:
        raise fault(origin, key, value, "expected a list of whole numbers")
    return kind(numbers)


def _scalar(value: Any, kind: type) -> Any:
    """Return `value` as that kind, or None where it is another; a bool is no number."""
    if kind is float and type(value) is int and abs(value) < 2**63:
        value = float(value)
    if type(value) is not kind:
        return None
    if kind is float and not abs(value) <= _LARGEST:  # nan is not either
        return None
    if kind is int and not abs(value) < 2**63:
        return None
    return value


def _literal(value: Any) -> Any:
    """Read a text that stands for a number, a truth value or a list; else return it as it is.

    YAML 1.1 takes 1e-3 and (0, 1) for texts, and on the command line everything is one.
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
    """Whether `value` is of texts, numbers, lists and mappings alone, so that it can be saved."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _free(value: Any) -> Any:
    """A value of a section that may hold anything; mappings become sections of that kind."""
    if not isinstance(value, Mapping):
        return _literal(value)
    node = Node(new_allowed=True)
    for name, entry in value.items():
        node[name] = _free(entry)
    return node
