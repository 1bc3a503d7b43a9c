"""tools/evaluate.py scores files of predictions; a bad file is an error of one line."""

import json

import numpy as np
from desk import Desk
from scipy.io import loadmat, savemat

from lib.metrics.pckh import PCKh, load_gt, pckh


def test_the_table_is_printed_and_json_written(desk: Desk) -> None:
    gt_path, pred_path = desk.data / "annot/gt_valid.mat", desk.folder / "pred.mat"
    content = {name: value for name, value in loadmat(gt_path).items() if name[0] != "_"}
    content["jnt_missing"][9] = 1  # no person has a head
    savemat(gt_path, content)
    gt = load_gt(gt_path)
    predictions = gt["pos_gt_src"].transpose(2, 0, 1) + np.random.default_rng(0).normal(0, 5, 2)
    savemat(pred_path, {"preds": predictions})
    scored = desk.run(
        "evaluate", "--gt", gt_path, "--pred", pred_path, "--json", desk.folder / "scores.json"
    )
    assert scored.code == 0, scored.err
    scores = pckh(predictions, gt)
    assert scored.out.rstrip("\n") == PCKh().table({str(pred_path): scores})
    written = json.loads((desk.folder / "scores.json").read_text())
    assert written.pop("Head") is None
    assert written == {name: score for name, score in scores.items() if name != "Head"}


def test_bad_predictions_are_errors_of_one_line(desk: Desk) -> None:
    gt = desk.data / "annot/gt_valid.mat"
    desk.run("evaluate", "--gt", gt, "--pred", "none.mat").fails_with("none.mat")
    desk.run("evaluate", "--gt", gt, "--pred", gt).fails_with("preds")
    savemat(desk.folder / "pred.mat", {"preds": np.zeros((3, 16, 2))})
    desk.run("evaluate", "--gt", gt, "--pred", desk.folder / "pred.mat").fails_with("pred.mat")


def test_joints_that_are_not_annotated_need_no_prediction(desk: Desk) -> None:
    gt_path, pred_path = desk.data / "annot/gt_valid.mat", desk.folder / "pred.mat"
    content = {name: value for name, value in loadmat(gt_path).items() if name[0] != "_"}
    content["jnt_missing"][:5, 2] = 1
    savemat(gt_path, content)
    predictions = content["pos_gt_src"].transpose(2, 0, 1)
    predictions[2, :5] = np.nan
    savemat(pred_path, {"preds": predictions})
    scored = desk.run("evaluate", "--gt", gt_path, "--pred", pred_path)
    assert scored.code == 0, scored.err
    assert scored.out.count("100.000") == 10
    predictions[1, 7] = np.nan
    savemat(pred_path, {"preds": predictions})
    desk.run("evaluate", "--gt", gt_path, "--pred", pred_path).fails_with("person 1, joint 7")
