"""The commands of docs/own_data.md, from drawn pictures to an exported network."""

import json
import re
from pathlib import Path

import cv2
import onnx
import pytest
import yaml
from desk import ROOT, Desk

PAGE = (ROOT / "docs/own_data.md").read_text()
RUN = "output/coco/pose_tokenpose_s/fish"
CFG = "experiments/own/tokenpose/fish.yaml"


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```\n(python .*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split()[1:] for line in lines]


def test_every_command_of_the_page_runs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.folder)
    Path("experiments").symlink_to(ROOT / "experiments")
    assert len(commands()) == 6
    outputs = {}
    for script, *words in commands():
        done = desk.run(f"../{script.removesuffix('.py')}", *words)
        assert done.code == 0, done.err
        outputs[Path(script).stem] = done.out
    assert "0 findings" in outputs["check_data"]
    assert "PCK@0.05" in outputs["test"]
    assert json.loads(Path(RUN, "results.json").read_text())["scores"]["PCK@0.1"] >= 80
    people = json.loads(Path(RUN, "predict/keypoints.json").read_text())
    assert "left_fin" in json.dumps(people)
    assert [path for path in Path(RUN, "predict").rglob("*.jpg") if cv2.imread(str(path)).any()]
    metadata = {e.key: e.value for e in onnx.load(f"{RUN}/final_state.onnx").metadata_props}
    assert json.loads(metadata["joint_names"]) == ["head", "tail", "left_fin", "right_fin"]
    assert json.loads(metadata["skeleton"])["mirrors"] == [[2, 3]]

    # The network belongs to these joints; sigmas are of the metric only.
    path = Path("data/own/skeleton.yaml")
    skeleton = path.read_text()
    path.write_text(skeleton + "sigmas: [0.05, 0.05, 0.05, 0.05]\n")
    scored = desk.run("test", "--cfg", CFG, "TEST.MODEL_FILE", f"{RUN}/final_state.onnx")
    assert scored.code == 0, scored.err
    assert "AP .5" in scored.out
    path.write_text(skeleton.replace("mirrors: [[left_fin, right_fin]]", "mirrors: []"))
    other = desk.run("test", "--cfg", CFG, "TEST.MODEL_FILE", f"{RUN}/final_state.onnx")
    other.fails_with("skeleton")
    resumed = desk.run("train", "--cfg", CFG, "AUTO_RESUME", "true")
    resumed.fails_with("was trained with skeleton")


def test_the_page_shows_the_files_as_they_are(desk: Desk) -> None:
    root = desk.folder / "own"
    drawn = desk.run("../docs/make_own_data", "--out", root)
    assert drawn.code == 0, drawn.err
    assert (root / "skeleton.yaml").read_text() in PAGE
    assert len(list(root.glob("images/*/*.jpg"))) == 5
    (shown,) = re.findall(r"^```yaml\n(DATASET:.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    cfg = yaml.safe_load((ROOT / CFG).read_text())
    for section, keys in yaml.safe_load(shown).items():
        assert keys.items() <= cfg[section].items()
    desk.run("../docs/make_own_data", "--out", root).fails_with("exists: choose another folder")
