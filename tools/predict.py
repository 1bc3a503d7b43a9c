"""Predict people's joints: python tools/predict.py --input WHAT [--cfg FILE TEST.MODEL_FILE FILE].

WHAT is an image, a folder, a glob pattern in quotes, or a video.
"""

import argparse
import os
import signal
from pathlib import Path

from lib.core.session import open_session
from lib.prediction.boxes import read_boxes
from lib.prediction.detectors import DETECTORS, MIN_SCORES, build_detector
from lib.prediction.media import find_sources, silence_codecs
from lib.prediction.output import WRITES, plan_outputs
from lib.prediction.run import Prediction
from lib.predictor import Predictor, people_network
from lib.utils.arguments import comma_list, command_parser, overrides
from lib.utils.errors import UserError, run_command


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__, default="the trained network in models/people")
    add = parser.add_argument
    add("--input", required=True, action="append", metavar="WHAT", help="repeatable")
    add("--detector", choices=DETECTORS, default="auto",
        help="what finds people's boxes; default: auto, which is --boxes, else torchvision if its "
        "weights are cached, else ssdlite if it is installed, else whole (each image is one "
        "person)")  # fmt: skip
    add("--download", action="store_true",
        help="fetch the weights of --detector torchvision if none are cached")  # fmt: skip
    add("--boxes", metavar="FILE",
        help="JSON: {name: [[x, y, width, height], ...]}, or COCO detections")  # fmt: skip
    add("--min-score", type=float, metavar="S",
        help="ignore boxes with a lower score; default: "
        + ", ".join(f"{score} for {name}" for name, score in MIN_SCORES.items()))  # fmt: skip
    add("--write", type=comma_list(str, WRITES), metavar=",".join(WRITES),
        help="default: what fits the input, and keypoints (COCO results)")  # fmt: skip
    add("--out", type=Path, metavar="DIR",
        help="default: `predict` in the run's folder, without --cfg in OUTPUT_DIR")  # fmt: skip
    arguments = parser.parse_intermixed_args()
    paths = [word for word in arguments.opts[::2] if os.path.exists(word)]
    if paths:
        parser.error(f"{paths[0]} is not a key; put the pattern of --input in quotes")
    return arguments


def main() -> None:
    """Predict, write the outputs, and print how many people and how fast."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # keeps results, as Ctrl-C does
    silence_codecs()
    cfg, opts = people_network() if arguments.cfg is None else (arguments.cfg, [])
    with open_session(cfg, [*opts, *overrides(arguments)], "predict") as session:
        device = session.distributed.device
        if session.distributed.world_size > 1:
            raise UserError("tools/predict.py is one process: start it without torchrun")
        sources = find_sources(arguments.input)
        boxes = read_boxes(arguments.boxes) if arguments.boxes else None
        if boxes is not None:
            boxes.check([source.name for source in sources])
        base = Path(session.cfg.OUTPUT_DIR) if arguments.cfg is None else session.folder
        folder = arguments.out or base / "predict"
        plan = plan_outputs(sources, folder, arguments.write, boxes)
        detector = build_detector(
            arguments.detector, boxes, device, arguments.min_score, arguments.download
        )
        prediction = Prediction(Predictor(session.cfg, session.model_file, device), detector, plan)
        try:
            prediction.run()
        finally:
            if prediction.frames:
                print(prediction.summary())
                files = [str(file) for outputs in plan.values() for file in outputs.files]
                print(f"results: {', '.join(files) if len(plan) == 1 else folder}")


if __name__ == "__main__":
    run_command(main)
