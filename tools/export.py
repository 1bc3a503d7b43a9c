"""Export a network: python tools/export.py --cfg FILE TEST.MODEL_FILE CHECKPOINT.

The file, of ONNX, OpenVINO or fp16 weights, is compared with PyTorch on real images first, and kept
only if they agree. With --int8 it is then quantised, calibrated on training people and tested.
"""

from pathlib import Path

from lib.core.int8 import quantization
from lib.core.session import open_session
from lib.inference.export import SUFFIXES, crops_of_images, crops_of_set, export
from lib.utils.arguments import command_parser, overrides, positive
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
        help="images to check on; default: people of DATASET.TEST_SET")  # fmt: skip
    add("--int8", action="store_true", help="quantise ONNX or OpenVINO to int8; default: fp32")
    add("--calibration", type=positive, default=300, metavar="N",
        help="training people to calibrate int8 on; default: 300")  # fmt: skip
    add("--max-loss", type=float, metavar="PERCENT",
        help="share of the test score that int8 may lose, default: 0.5; with --images share of the "
        "joints that it may move, default: 5")  # fmt: skip
    arguments = parser.parse_intermixed_args()
    is_weights = arguments.format == "weights"
    if is_weights and arguments.decode:
        parser.error("--decode: a file of weights cannot decode")
    if is_weights and arguments.int8:
        parser.error("--int8: for --format onnx or openvino")
    with open_session(arguments.cfg, overrides(arguments), "export") as session:
        cfg, weights = session.cfg, session.model_file
        ending = "_joints" if arguments.decode else "_fp16" if is_weights else ""
        ending += "_int8" if arguments.int8 else ""
        name = f"{weights.stem}{ending}{SUFFIXES[arguments.format]}"
        path = Path(arguments.out or weights.with_name(name))
        images = arguments.images
        crops, source = crops_of_images(cfg, images) if images else crops_of_set(cfg)
        finish = None
        if arguments.int8:
            finish = quantization(
                cfg, session.distributed, arguments.format, crops if images else None,
                people=arguments.calibration, max_loss=arguments.max_loss,
            )  # fmt: skip
        check = export(
            cfg, weights, path, crops, file_format=arguments.format, decode=arguments.decode,
            finish=finish,
        )  # fmt: skip
        print(f"checked on {source}: {check}")
        print(f"wrote {path}")


if __name__ == "__main__":
    run_command(main)
