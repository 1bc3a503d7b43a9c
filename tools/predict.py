"""Find people's joints: python tools/predict.py --cfg FILE --input WHAT TEST.MODEL_FILE CHECKPOINT.

WHAT is a picture, a folder, a pattern in quotes, a video, or the number of a camera.
"""

import argparse
import os
import signal
from pathlib import Path

from lib.core.prediction.detectors import KINDS, MIN_SCORE, make_finder
from lib.core.prediction.run import WRITES, Prediction
from lib.core.session import open_session
from lib.dataset.boxes import read_boxes
from lib.dataset.media import gather_media, hush_codecs
from lib.predictor import Predictor
from lib.utils.arguments import command_parser, one_of, overrides, several
from lib.utils.errors import UserError, run_command


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, action="append", metavar="WHAT", help="may be given repeatedly")
    add("--people", type=one_of(KINDS), default="auto", metavar="|".join(KINDS),
        help="who finds people's boxes; auto: --boxes, else a detector that is here, else "
        "the whole picture is one person")  # fmt: skip
    add("--boxes", metavar="FILE", help="JSON: {name: [[x, y, width, height], ...]}, or COCO's")
    add("--min-score", type=float, metavar="S",
        help=f"of boxes; of detected ones {MIN_SCORE} where not said")  # fmt: skip
    add("--write", type=several(one_of(WRITES)), metavar=",".join(WRITES),
        help="a picture of each picture or frame, a video of each video, keypoints as COCO's "
        "results; without it what fits, and nothing of a camera")  # fmt: skip
    add("--out", type=Path, metavar="DIR", help="else `predict` in the run's folder")
    arguments = parser.parse_intermixed_args()
    strays = [word for word in arguments.opts[::2] if os.path.exists(word)]
    if strays:
        parser.error(f"{strays[0]} is no key; put a pattern of --input in quotes")
    return arguments


def main() -> None:
    """Find people, write what was asked for, and say how many and how fast."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it keeps what was done, as Ctrl-C
    hush_codecs()
    with open_session(arguments.cfg, overrides(arguments), "predict") as session:
        cfg, world = session.cfg, session.world
        if world.size > 1:
            raise UserError("tools/predict.py is one process: start it without torchrun")
        media = gather_media(arguments.input)
        boxes = read_boxes(arguments.boxes) if arguments.boxes else None
        folder = arguments.out or session.folder / "predict"
        prediction = Prediction(
            media, Predictor(cfg, session.model_file, world.device),
            make_finder(arguments.people, boxes, world.device, arguments.min_score), folder,
            writes=arguments.write, boxes=boxes,
        )  # fmt: skip
        try:
            prediction.run()
        finally:
            done = prediction.tally
            if done.frames:
                pace = done.frames / done.seconds
                left = f", {done.left_out} left out" if done.left_out else ""
                print(f"{done.people} people in {done.frames} frames, {pace:.1f} a second{left}")
                print(f"results: {folder}")


if __name__ == "__main__":
    run_command(main)
