"""The command draws runs that train.py and test.py made, and says what it could not draw."""

import json
import shutil

from desk import Desk


def test_runs_are_drawn_as_the_commands_leave_them(desk: Desk) -> None:
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1).code == 0
    untested = desk.run("plot", desk.results)
    assert untested.code == 0, untested.err
    assert "not tested yet" in untested.err
    assert untested.out.split() == [str(desk.results / "training.png")]
    assert desk.on_cfg("test").code == 0

    names = ("training.png", "pckh.png", "errors.png")
    other = desk.results.with_name("other")  # what is known of its training is in the logs alone
    shutil.copytree(desk.results, other)
    logs = desk.folder / "log/synthetic/pose_tokenpose_s"
    shutil.copytree(logs / "small", logs / "other")
    (other / "history.json").unlink()
    both = desk.run("plot", desk.results, other, desk.folder / "none")
    assert both.code == 0
    assert both.err == f"note: {desk.folder / 'none'}: there is no such folder\n"
    assert both.out.split() == [str(desk.results.parent / name) for name in names]

    (other / "results.json").write_text(json.dumps({"data": {}}))
    shutil.rmtree(logs)
    nothing = desk.run("plot", other, "--out", desk.folder / "new")
    nothing.fails_with("nothing could be drawn")
    assert not (desk.folder / "new").exists()
    desk.run("plot", desk.folder, "--logDir", desk.folder / "none").fails_with("nothing")
