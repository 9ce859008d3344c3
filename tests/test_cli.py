"""The command line on good input: what it prints, what it writes, what it leaves alone."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import foveate
from foveate.assets import PHOTOGRAPH
from foveate.cli import app
from foveate.cli.checkup import EXTRAS
from foveate.cli.method_options import build_method, parse_keep
from foveate.errors import InvalidParameter
from foveate.method import from_dict, registered
from foveate.parts import CachesPart, DetourPart, LayersPart, RulePart
from foveate.trained import TrainedMethod
from tests.methods.made import EXTRA
from tests.tiny_model import save_tiny

ROOT = Path(__file__).parents[1]


def run(*arguments: object, code: int = 0, stdin: bytes | None = None):
    """One run of the command line."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def ask(tiny: Path, *arguments: object, **kwargs):
    """`foveate ask` about the photograph, five tokens long."""
    fixed = ["-q", "what is written?", "--model", tiny, "--max-new-tokens", "5"]
    return run("ask", PHOTOGRAPH, *fixed, *arguments, **kwargs)


def test_importing_the_command_line_loads_nothing_heavy():
    code = "import sys, foveate.cli; print({'torch', 'transformers', 'PIL'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "set()"


def test_help_names_every_command_and_works_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "foveate.cli", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0
    for command in ("ask", "methods", "train", "doctor"):
        assert command in done.stdout


def test_calibrate_writes_what_set_reads(tmp_path):
    path = tmp_path / "thresholds.json"
    fixed = ["calibrate", "--keep", "50%", "--world", 2, "--out", path]
    found = json.loads(run(*fixed, "--set", "r_schedule=linear", "--json").stdout)
    assert found["method"] == "dymu" and found["images"] > 20 and len(found["thresholds"]) == 3
    assert from_dict(json.loads(path.read_text())).r_schedule == "linear"
    options = ["--method", "dymu", "--set", f"thresholds={path}", "--json"]
    asked = json.loads(run("ask", PHOTOGRAPH, "-q", "how many objects are there?", *options).stdout)
    assert asked["method"]["thresholds"] == found["thresholds"]
    wrong = run("calibrate", "--method", "divprune", code=2)
    assert "Unknown method with thresholds: 'divprune'" in wrong.stderr
    both = run("calibrate", PHOTOGRAPH, "--world", 2, "--out", path, code=2)
    assert "both given" in both.stderr
    twice = run(*fixed, "--set", "keep=0.25", code=2)
    assert "keep of dymu is given twice" in twice.stderr


def test_version():
    assert run("--version").stdout.startswith("foveate ")


@pytest.mark.parametrize(
    ("text", "keep"), [("64", 64), ("1", 1), ("0.25", 0.25), ("25%", 0.25), ("100%", 1.0)]
)
def test_keep_as_typed(text, keep):
    parsed = parse_keep(text)
    assert parsed == keep and type(parsed) is type(keep)


def test_settings_become_parameters_of_the_declared_type():
    made = build_method("divprune", "25%", ["per_crop=true", "positions=original"])
    assert made.to_dict() == {
        "method": "divprune",
        "keep": 0.25,
        "positions": "original",
        "per_crop": True,
        "protect": False,
    }


@pytest.mark.parametrize(
    ("method", "setting", "value"),
    [
        ("tome", "r=(8,0.0)", (8, 0.0)),
        ("tome", "r=8", 8),
        ("tome", "r=[1, 2, 3]", (1, 2, 3)),
        ("tome", "r=none", None),
        ("pyramiddrop", "layer_list=[1,2]", (1, 2)),
        ("pyramiddrop", "layer_list=1,2", (1, 2)),
        ("pyramiddrop", "layer_list=2", (2,)),
        ("pyramiddrop", "layer_list=None", None),
        ("zipvl", "bits=[8, 4]", (8, 4)),
        ("zipvl", "evict=TRUE", True),
        ("zipvl", "tau=1", 1.0),
        ("visiondrop", "image_token_list=[[4,2],[2,1]]", ((4, 2), (2, 1))),
        ("yopo", "headmask=((1,0),(1,1))", ((1, 0), (1, 1))),
        ("dymu", "thresholds=[0.5, 1]", (0.5, 1.0)),
        ("dyvte", "weights=7", "7"),
        ("dyvte", "weights=null", None),
        ("fourier_vlm", "norm=None", None),
    ],
)
def test_settings_as_people_type_them(method, setting, value):
    made = build_method(method, None, [setting])
    found = getattr(made, setting.partition("=")[0])
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("method", "setting", "words"),
    [
        ("tome", "r=true", "a whole number"),
        ("tome", "r=(8,x)", "a whole number"),
        ("tome", "r=()()", "a whole number"),
        ("tome", "prop_attn=none", "true or false"),
        ("zipvl", "tau=none", "a finite number"),
        ("zipvl", "tau=nan", "a finite number"),
        ("zipvl", "bits=4", "2 whole numbers"),
        ("zipvl", "bits=(4, 2.5)", "2 whole numbers"),
        ("zipvl", "streaming_gap=1.5", "a whole number"),
        ("vispruner", "round_size=true", "a whole number"),
        ("fastervlm", "score=clss", "'cls', 'received' or 'auto'"),
        ("lvlm_csp", "segmenter=print", "a function"),
        ("aim", "iters=" + "9" * 5000, "a whole number"),
    ],
)
def test_settings_of_a_wrong_kind_are_refused(method, setting, words):
    with pytest.raises(InvalidParameter) as caught:
        build_method(method, None, [setting])
    text = str(caught.value)
    assert words in text and f"--set {setting.partition('=')[0]}=" in text and len(text) < 300


def test_composition_takes_settings_by_member():
    made = build_method("fastervlm+divprune", "0.5", ["divprune.keep=4", "score=cls"])
    first, second = made.to_dict()["methods"]
    assert (first["keep"], first["score"], second["keep"]) == (0.5, "cls", 4)


def test_no_method_changes_nothing():
    assert build_method(None, None, ()).parts() == ()


def test_ask_prints_answer_and_cost(tiny):
    out = ask(tiny, "--method", "divprune", "--keep", "25%").stdout
    for word in ("DivPrune(keep=0.25)", "visual tokens", "64", "16", "GFLOPs", "prefill"):
        assert word in out, out
    assert "retention ratio: 25.0 %" in out
    # One unit per quantity, named in the row.
    assert "KV cache (MB)" in out and "time (ms): encode " in out and "kB" not in out


def test_ask_tells_the_mean_over_layers_where_they_differ(tiny):
    assert "mean over layers" in ask(tiny, "--method", "fastv", "--keep", "25%").stdout
    assert "mean over layers" not in ask(tiny, "--method", "divprune").stdout


def test_ask_as_json(tiny):
    found = json.loads(ask(tiny, "--method", "fastervlm", "--keep", "10", "--json").stdout)
    assert found["method"]["method"] == "fastervlm" and found["method"]["keep"] == 10
    report = found["report"]
    assert report["tokens_in"] == [64] and report["tokens_out"] == [10]
    assert len(report["kept"][0]) == 10 and report["flops"] < report["flops_full"]
    assert isinstance(found["answer"], str)


def test_ask_compares_the_full_model_and_methods(tiny):
    methods = ["--method", "divprune", "--method", "fastervlm+fastv", "--compare"]
    out = ask(tiny, *methods, "--keep", "25%", "--set", "fastv.k=1").stdout
    rows = [line for line in out.splitlines() if " 1.00x " in line or "x  " in line]
    names = [row.split("  ")[0] for row in rows]
    composed = "FasterVLM() + FastV(keep=0.25, k=1)"
    assert names == ["full model", "DivPrune(keep=0.25)", composed]
    assert "TTFT" in out and "medians of 5" in out and "what is written?" in out
    found = json.loads(ask(tiny, *methods, "--json").stdout)
    assert found["question"] == "what is written?" and found["model"] == str(tiny)
    assert [row["name"] for row in found["rows"]][:2] == ["full model", "DivPrune()"]
    assert all(row["ttft"] > 0 for row in found["rows"])


def test_ask_compares_a_plan(tiny, tmp_path, monkeypatch):
    plan = foveate.DivPrune(keep=9)
    monkeypatch.setattr("foveate.tuning.plan.from_plan", lambda path: plan)
    found = json.loads(ask(tiny, "--plan", tmp_path / "p.json", "--compare", "--json").stdout)
    assert [row["report"]["tokens_out"] for row in found["rows"]] == [[64], [9]]


@pytest.mark.parametrize(
    ("name", "terminal", "quiet", "shown"),
    [
        ("org/name", True, False, True),
        ("org/name", True, True, False),
        ("org/name", False, False, False),
        ("nano", True, False, False),
    ],
)
def test_downloads_show_their_progress(monkeypatch, name, terminal, quiet, shown):
    """Bars of transformers and of the Hub, for people at a terminal who did not ask for JSON."""
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils.logging import is_progress_bar_enabled

    from foveate.cli import models

    def load(*_):
        return is_progress_bar_enabled(), not are_progress_bars_disabled()

    monkeypatch.setattr(models, "_load", load)
    monkeypatch.setattr("foveate.cli.console.watched", lambda: terminal)
    assert models.load_model(name, "cpu", "auto", quiet) == (shown, shown)
    assert is_progress_bar_enabled() and not are_progress_bars_disabled()


SLOW = """
import sys, time
import {module} as home
def slow(*_, **__):
    print("ready", flush=True)
    time.sleep(60)
home.{name} = slow
from foveate.cli import app
app(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("module", "name", "arguments", "words"),
    [
        ("foveate.mini.world", "items", ["world", "--out", "OUT"], "No file was written"),
        ("foveate.media", "load_image", ["ask", "x.png", "-q", "what?"], "Nothing is kept"),
        (
            *("foveate.mini.trainer", "train", ["train", "nano", "--out", "OUT"]),
            "No checkpoint was written yet: run the same command again to start",
        ),
    ],
)
def test_ctrl_c_says_what_is_kept(tmp_path, module, name, arguments, words):
    arguments = [str(tmp_path / "out") if a == "OUT" else a for a in arguments]
    code = SLOW.format(module=module, name=name)
    running = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Jobs in the background inherit that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said.startswith("Interrupted. ") and words in said and said.count("\n") == 1, said


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        (
            *("foveate.mini.trainer.train", ["train", "nano", "--out", "OUT"]),
            "The last checkpoint is saved in OUT: run the same command again to continue.",
        ),
        (
            *("foveate.mini.trainer.train", ["train", "nano", "--out", "OUT", "--no-resume"]),
            "run it again without --no-resume to continue.",
        ),
        (
            *("foveate.mini.world.exports.write", ["world", "--out", "OUT", "--n", "1"]),
            "OUT holds a part of the files: run the same command again with --force.",
        ),
        (
            *("foveate.benchmarks.runner.run", ["bench", "--out", "OUT"]),
            "No setting is finished yet: run the same command again.",
        ),
        (
            *("foveate.methods.encoders.dymu.DyMU.calibrate", ["calibrate", "--world", "1"]),
            "No thresholds were written",
        ),
        (
            *("foveate.tuning.tune", ["tune", "--world", "I1", "--n", "4", "--out", "OUT/p.json"]),
            "The finished measurements are saved in OUT/p.tune",
        ),
    ],
)
def test_an_interrupted_command_says_how_to_continue(
    tmp_path, monkeypatch, module, arguments, words
):
    out = tmp_path / "out"
    out.mkdir()

    def interrupted(*_, **__):
        (out / "checkpoint.pt").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, interrupted)
    arguments = [a.replace("OUT", str(out)) for a in arguments]
    result = run(*arguments, code=130)
    assert words.replace("OUT", str(out)) in result.stderr, result.stderr
    assert result.stderr.startswith("Interrupted. ") and result.stderr.count("\n") == 1


def test_ask_without_a_method_is_the_bare_model(tiny):
    assert "without method" in ask(tiny).stdout
    assert "with method" in ask(tiny, "--method", "divprune").stdout
    bare = json.loads(ask(tiny, "--json").stdout)
    everything = json.loads(ask(tiny, "--method", "divprune", "--keep", "100%", "--json").stdout)
    assert bare["method"] is None
    assert bare["answer"] == everything["answer"]
    assert bare["report"]["tokens_out"] == [64]


@pytest.mark.parametrize("slug", registered())
def test_every_method_can_be_asked_and_drawn(tiny, tmp_path, slug):
    cls = registered()[slug]
    arguments = ["--method", slug, "--json", "--overlay", tmp_path / "o.png"]
    arguments += ["--keep", "50%"] if cls.reduces else []
    if issubclass(cls, TrainedMethod):
        arguments += ["--set", "weights=random"]
    for name, value in EXTRA.get(slug, {}).items():
        arguments += ["--set", f"{name}={value}"]
    report = json.loads(ask(tiny, *arguments).stdout)["report"]
    # Rules, caches and detours leave every token in the stream.
    whole = RulePart | CachesPart | DetourPart
    drops = any(isinstance(p, LayersPart) or not isinstance(p, whole) for p in cls().parts())
    assert report["tokens_in"][0] == 64
    assert (report["tokens_out"][0] < 64) == drops
    assert min(Image.open(tmp_path / "o.png").size) >= 300


def test_composed_methods_act_one_after_the_other(tiny):
    out = ask(tiny, "--method", "fastervlm+divprune", "--keep", "0.5", "--json").stdout
    found = json.loads(out)
    assert found["report"]["tokens_out"] == [16]


def test_overlay_is_written(tiny, tmp_path):
    ask(tiny, "--method", "divprune", "--keep", "16", "--overlay", tmp_path / "o.png")
    drawn, original = Image.open(tmp_path / "o.png"), Image.open(PHOTOGRAPH)
    # The caption is above the picture.
    assert drawn.width >= original.width and drawn.height > original.height
    assert sum(drawn.convert("L").histogram()[:60]) > sum(original.convert("L").histogram()[:60])


def test_heatmap_is_written(tiny, tmp_path):
    path = tmp_path / "h.png"
    out = ask(tiny, "--method", "fastv", "--keep", "0.5", "--heatmap", path).stdout
    assert f"heatmap: {path}" in out.replace("\n", "")
    assert min(Image.open(path).size) >= 480


def test_several_pictures_in_one_question(tiny, tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    arguments = ["--method", "divprune", "--keep", "8", "--json", "--overlay", tmp_path / "o.png"]
    found = json.loads(ask(tiny, tmp_path / "red.png", *arguments).stdout)
    assert found["report"]["tokens_out"] == [8, 8]
    drawn = Image.open(tmp_path / "o.png")
    assert drawn.width > 1.5 * drawn.height


def test_a_picture_from_standard_input(tiny):
    result = run(
        *("ask", "-", "-q", "what is written?", "--model", tiny, "--max-new-tokens", "2"),
        stdin=PHOTOGRAPH.read_bytes(),
    )
    assert "visual tokens" in result.stdout


def test_one_pixel_is_answered(tiny, tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    run("ask", tmp_path / "dot.png", "-q", "what colour is it?", "--model", tiny)


def test_words_that_the_model_can_not_know_are_named(tiny):
    result = run("ask", PHOTOGRAPH, "-q", "what about the espresso?", "--model", tiny)
    assert "'espresso'" in result.stderr and "'what'" not in result.stderr


def test_the_demo_writes_a_sheet_per_picture(tiny, tmp_path, monkeypatch, capsys):
    from foveate import demo
    from foveate.cli import models

    load = models.load_model
    monkeypatch.setattr(models, "load_model", lambda _, *rest: load(str(tiny), *rest))
    demo.demo(tmp_path / "out", ["fastervlm"])
    printed = capsys.readouterr().out
    sheets = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert sheets == ["attribute.png", "locate.png", "photograph.png", "read.png"]
    assert all(name in printed for name in sheets)
    assert printed.count("FasterVLM 25%") == 4 and "GFLOPs" in printed
    photograph = Image.open(tmp_path / "out" / "photograph.png")
    assert photograph.width > 3 * 300


def test_the_demo_is_mostly_right_with_all_tokens(tmp_path, capsys):
    from foveate.demo import cases, demo

    demo(tmp_path, ["divprune"])
    expected = [case.expected for case in cases() if case.expected]
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines() if line.strip().startswith("all tokens")]
    right = [line[2] == word for line, word in zip(lines, expected, strict=False)]
    assert sum(right) >= 2


def test_ask_uses_nano_by_default():
    found = json.loads(run("ask", PHOTOGRAPH, "-q", "what is written?", "--json").stdout)
    assert found["model"] == "nano" and found["report"]["tokens_in"] == [64]


def test_methods_lists_the_catalogue():
    out = run("methods").stdout
    assert "divprune" in out and "available" in out and "planned" in out


def test_methods_as_json():
    rows = json.loads(run("methods", "--json").stdout)
    usable = json.loads(run("methods", "--available", "--json").stdout)
    assert {"slug", "name", "title", "year", "paper", "stages", "status"} <= set(rows[0])
    assert 0 < len(usable) < len(rows)
    assert all(row["status"] == "available" for row in usable)


def test_one_method():
    found = json.loads(run("methods", "fastervlm", "--json").stdout)
    assert found["class"] == "FasterVLM"
    assert [need.split("(")[0] for need in found["needs"]] == ["VisionAttention"]
    parameters = {p["name"]: p for p in found["parameters"]}
    assert parameters["keep"]["default"] == 0.25 and "ratio" in parameters["keep"]["doc"]
    assert "cls" in parameters["score"]["doc"]
    out = run("methods", "fastervlm").stdout
    assert "2412.01818" in out and "score" in out


def test_every_method_can_be_shown():
    for row in json.loads(run("methods", "--json").stdout):
        assert row["slug"] in run("methods", row["slug"]).stdout


def test_train_writes_a_model_that_can_be_asked(tmp_path, monkeypatch):
    from foveate.mini import model_specs

    smoke = replace(model_specs.NANO, recipe=model_specs.SMOKE)
    monkeypatch.setitem(model_specs.SPECS, "nano", smoke)
    arguments = ["train", "nano", "--out", tmp_path / "nano", "--steps", "2"]
    found = json.loads(run(*arguments, "--evaluate", "0", "--json").stdout)
    assert Path(found["folder"]) == tmp_path / "nano"
    run("ask", PHOTOGRAPH, "-q", "what is written?", "--model", tmp_path / "nano")


@pytest.mark.slow
def test_a_recipe_is_set_and_said(tmp_path):
    arguments = ["--method", "covipal", "--set", "layer=1", "--set", "keeps=(0.5, 0.25)"]
    sizes = ["--steps", "2", "--evaluate", "0", "--out", tmp_path / "parts"]
    card = json.loads(run("train", *arguments, *sizes, "--json").stdout)
    assert (card["recipe"]["layer"], card["recipe"]["keeps"]) == (1, [0.5, 0.25])
    assert card["command"].endswith("--steps 2 --set layer=1 --set 'keeps=(0.5, 0.25)'")


def test_doctor_knows_the_extras_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        extra: tuple(name.split("[")[0].split(">")[0] for name in packages)
        for extra, packages in project["optional-dependencies"].items()
        if extra != "dev"
    }
    assert declared == EXTRAS


def test_every_extra_has_code_and_every_error_names_an_existing_extra():
    code = "\n".join(p.read_text() for p in (ROOT / "foveate").rglob("*.py"))
    named = set(re.findall(r"foveate\[(\w+)\]", code))
    assert named == set(EXTRAS)
    for extra, (package, *_) in EXTRAS.items():
        assert re.search(rf"^ +(import|from) {package}\b", code, re.M), extra


def test_doctor(monkeypatch):
    monkeypatch.setattr("foveate.cli.checkup._imports", lambda name: "")
    found = json.loads(run("doctor", "--json").stdout)
    assert found["problems"] == [] and "torch" in found["system"]
    assert {extra["name"] for extra in found["extras"]} == set(EXTRAS)
    assert "torch" in run("doctor").stdout


def test_doctor_reports_a_companion_that_breaks_imports(monkeypatch):
    from foveate.cli import checkup

    broken = "RuntimeError: operator torchvision::nms does not exist"
    monkeypatch.setattr(checkup, "find_spec", lambda name: name)
    monkeypatch.setattr(checkup, "_imports", lambda name: broken if name == "torchvision" else "")
    result = run("doctor", code=1)
    assert "torchvision" in result.stdout and "uninstall it" in " ".join(result.stdout.split())


def test_doctor_imports_packages_in_a_process_of_their_own():
    from foveate.cli.checkup import _imports

    assert _imports("json") == ""
    assert "no_such_package" in _imports("no_such_package")
