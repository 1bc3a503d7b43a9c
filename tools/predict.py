"""Predict people's joints: python tools/predict.py --input WHAT [--cfg FILE TEST.MODEL_FILE FILE].

WHAT is an image, a folder, a glob pattern in quotes, or a video. The exit code is 2 if a file could
not be read or written in full; the others are still done.
"""

import argparse
import os
import signal
from pathlib import Path

from lib.core.session import open_session
from lib.dataset.boxes import read_boxes
from lib.prediction.detectors import DETECTORS, MIN_SCORES, build_detector
from lib.prediction.media import find_sources, silence_codecs
from lib.prediction.output import WRITES, Options, plan_outputs
from lib.prediction.run import Prediction
from lib.predictor import Predictor, people_network
from lib.utils.arguments import comma_list, command_parser, overrides
from lib.utils.drawing import KEYPOINT_THRESHOLD
from lib.utils.errors import UserError, run_command


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__, default="the trained network in models/people")
    add = parser.add_argument
    add("--input", required=True, action="append", metavar="WHAT",
        help="image, folder, pattern or video to predict on; repeatable")  # fmt: skip
    add("--recursive", action="store_true", help="also take the folders in a folder")
    add("--detector", choices=DETECTORS, default="auto",
        help="what finds the boxes of people; default: auto, which is --boxes if given, else "
        "torchvision if its weights are cached, else ssdlite if it is installed, else whole (each "
        "image shows one person)")  # fmt: skip
    add("--download", action="store_true",
        help="download the weights of --detector torchvision if none are cached")  # fmt: skip
    add("--boxes", metavar="FILE",
        help="JSON file of boxes: {name: [[x, y, width, height], ...]}, COCO detections, or an "
        "annotation file of COCO")  # fmt: skip
    add("--min-score", type=float, metavar="S",
        help="ignore boxes with a lower score; default: "
        + ", ".join(f"{score} for {name}" for name, score in MIN_SCORES.items()))  # fmt: skip
    add("--track", action="store_true", help="give each person in a video a track id")
    add("--smooth", action="store_true",
        help="smooth joints in videos over time (One-Euro filter); implies --track")  # fmt: skip
    add("--write", type=comma_list(str, WRITES), metavar=",".join(WRITES),
        help="what to write; default: drawn images for images, a drawn video for videos, and "
        "keypoints (JSON, as COCO results) for both")  # fmt: skip
    add("--kpt-thr", type=float, default=KEYPOINT_THRESHOLD, metavar="T",
        help="draw only joints with a higher score; default: %(default)s")  # fmt: skip
    add("--draw-bbox", action="store_true", help="draw the boxes, too, with track ids if any")
    add("--out", type=Path, metavar="DIR",
        help="folder of the results; default: `predict` in OUTPUT_DIR, with --cfg in the run's "
        "folder")  # fmt: skip
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
        base = Path(session.cfg.OUTPUT_DIR) if arguments.cfg is None else session.folder
        folder = arguments.out or base / "predict"
        sources = find_sources(arguments.input, arguments.recursive, exclude=folder)
        boxes = read_boxes(arguments.boxes) if arguments.boxes else None
        if boxes is not None:
            boxes.check([source.name for source in sources])
        plan = plan_outputs(sources, folder, arguments.write, boxes)
        detector = build_detector(
            arguments.detector, boxes, device, arguments.min_score, arguments.download
        )
        options = Options(
            arguments.kpt_thr, arguments.draw_bbox, arguments.track, arguments.smooth,
            session.cfg.DATASET.MAX_PIXELS,
        )  # fmt: skip
        predictor = Predictor(session.cfg, session.model_file, device)
        prediction = Prediction(predictor, detector, plan, options)
        try:
            prediction.run()
        finally:
            if prediction.frames:
                print(prediction.summary())
                files = [str(file) for files, _ in plan.values() for file in files.values()]
                print(f"results: {', '.join(files) if len(plan) == 1 else folder}")


if __name__ == "__main__":
    run_command(main)
