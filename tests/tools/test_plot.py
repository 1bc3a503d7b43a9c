"""tools/plot.py draws runs of tools/train.py and tools/test.py, and reports what it cannot draw."""

from desk import Desk


def test_runs_of_the_commands_are_drawn(desk: Desk) -> None:
    assert desk.on_cfg("train", "TRAIN.END_EPOCH", 1).code == 0
    untested = desk.run("plot", desk.results)
    assert untested.code == 0, untested.err
    assert "not tested yet" in untested.err
    assert untested.out.split() == [str(desk.results / "training.png")]
    desk.run("plot", desk.results, "--worst", 3).fails_with("not tested yet")
    pdf = desk.run("plot", desk.results, "--format", "pdf")
    assert pdf.out.split() == [str(desk.results / "training.pdf")]

    assert desk.on_cfg("test").code == 0
    both = desk.run("plot", desk.results, desk.folder, "--out", desk.folder / "plots")
    assert both.code == 0, both.err
    assert both.err.startswith(f"note: {desk.folder}: not a run")
    names = ("training.png", "accuracy.png", "errors.png")
    assert both.out.split() == [str(desk.folder / "plots" / name) for name in names]

    worst = desk.run("plot", desk.results, "--worst", 4)
    assert worst.code == 0, worst.err
    assert "| Person | Image | Mean error (head sizes) |" in worst.out
    assert worst.out.count(".jpg |") == 4
    assert (desk.results / "worst.jpg").is_file()
    for words in (("--worst", 0), ("--worst", 501), ("--worst", 3, desk.folder)):
        outcome = desk.run("plot", desk.results, *words)
        assert (outcome.code, "--worst" in outcome.err) == (2, True)


def test_nothing_to_draw_is_an_error(desk: Desk) -> None:
    outcome = desk.run("plot", desk.folder, "--out", desk.folder / "new")
    outcome.fails_with("nothing can be drawn")
    assert not (desk.folder / "new").exists()
