"""The arguments that the HRNet family's commands share."""

import argparse


def command_parser(description: str) -> argparse.ArgumentParser:
    """Build a parser of `--cfg FILE [--modelDir D] [--logDir D] [--dataDir D] KEY VALUE ...`.

    The directories come out as `model_dir`, `log_dir` and `data_dir`, the overrides as `opts`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="the YAML configuration")
    for name, key in (("model", "OUTPUT_DIR"), ("log", "LOG_DIR"), ("data", "DATA_DIR")):
        parser.add_argument(
            f"--{name}Dir", dest=f"{name}_dir", metavar="DIR", help=f"replaces {key}"
        )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override keys")
    return parser


def overrides(arguments: argparse.Namespace) -> list[str]:
    """All overrides among the parsed arguments of `command_parser`, as `KEY VALUE ...`."""
    directories = (
        ("OUTPUT_DIR", arguments.model_dir),
        ("LOG_DIR", arguments.log_dir),
        ("DATA_DIR", arguments.data_dir),
    )
    given = [word for key, value in directories if value is not None for word in (key, value)]
    return [*arguments.opts, *given]
