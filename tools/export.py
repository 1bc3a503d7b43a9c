"""Export a network: python tools/export.py --cfg FILE TEST.MODEL_FILE CHECKPOINT.

The file, of ONNX, OpenVINO or fp16 weights, is compared with PyTorch on real images first, and kept
only if they agree.
"""

from pathlib import Path

from lib.core.session import open_session
from lib.inference.export import SUFFIXES, crops_of_images, crops_of_set, export
from lib.utils.arguments import command_parser, overrides
from lib.utils.errors import run_command


def main() -> None:
    """Export, and print how far the file is from PyTorch."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--format", choices=SUFFIXES, default="onnx",
        help="default: onnx; weights is a .safetensors file of fp16 weights")  # fmt: skip
    add("--decode", action="store_true",
        help="the file gives joints and scores, too; default: heatmaps only")  # fmt: skip
    add("--out", metavar="FILE", help="file to write; default: next to the checkpoint")
    add("--images", type=Path, metavar="FILE|FOLDER",
        help="images to check on; default: the first people of DATASET.TEST_SET")  # fmt: skip
    arguments = parser.parse_intermixed_args()
    is_weights = arguments.format == "weights"
    if is_weights and arguments.decode:
        parser.error("--decode: a file of weights cannot decode")
    with open_session(arguments.cfg, overrides(arguments), "export") as session:
        cfg, weights = session.cfg, session.model_file
        ending = "_joints" if arguments.decode else "_fp16" if is_weights else ""
        name = f"{weights.stem}{ending}{SUFFIXES[arguments.format]}"
        path = Path(arguments.out or weights.with_name(name))
        images = arguments.images
        crops, source = crops_of_images(cfg, images) if images else crops_of_set(cfg)
        check = export(
            cfg, weights, path, crops, file_format=arguments.format, decode=arguments.decode
        )
        print(f"checked on {source}: {check}")
        print(f"wrote {path}")


if __name__ == "__main__":
    run_command(main)
