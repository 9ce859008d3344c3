"""Bad input to the command line ends in one sentence on standard error and exit code 2."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from typer import Exit
from typer.testing import CliRunner

from foveate.assets import PHOTOGRAPH
from foveate.cli import app
from foveate.mini.weights_loading import silent_bars
from tests.tiny_model import save_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def refused(*arguments: object) -> str:
    """The sentence with which a command is refused."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return result.stderr


def sentence(*arguments: object) -> str:
    """`refused`, where the message must be ours: one line."""
    text = refused(*arguments)
    assert text.startswith("Error: ") and text.endswith((".\n", "?\n")), text
    assert text.count("\n") == 1, text
    return text


def ask(model: object, *arguments: object, media: object = PHOTOGRAPH) -> str:
    return sentence("ask", media, "-q", "what is written?", "--model", model, *arguments)


# -- budgets and methods


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ("0", "at least 1"),
        ("-1", "at least 1"),
        ("0.0", "is not a valid ratio"),
        ("1.5", "is not a valid ratio"),
        ("nan", "is not a valid ratio"),
        ("inf", "is not a valid ratio"),
        ("150%", "is not a valid ratio"),
        ("-5%", "is not a valid ratio"),
        ("many", "is not a valid budget"),
        ("%", "is not a valid budget"),
        ("", "is not a valid budget"),
        ("150%", "keep=150% is not a valid ratio: use 0% < keep <= 100%"),
        ("nan%", "keep=nan% is not a valid ratio"),
        ("\u0666\u0664", "is not a valid budget"),
        ("1_0", "is not a valid budget"),
        ("1_0%", "is not a valid budget"),
        ("9999", "64 tokens"),
    ],
)
def test_keep(tiny, keep, words):
    text = ask(tiny, "--method", "divprune", "--keep", keep)
    assert words in text and "keep=" in text


def test_unknown_method(tiny):
    assert "did you mean 'divprune'" in ask(tiny, "--method", "divprun", "--keep", "4")
    assert "'nonsense'" in ask(tiny, "--method", "divprune+nonsense")
    assert "Unknown method: ''" in ask(tiny, "--method", "")


def test_a_planned_method_is_unknown_for_now(tiny):
    assert "damro" in ask(tiny, "--method", "damro")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("per_crp=true", "did you mean 'per_crop'"),
        ("per_crop", "NAME=VALUE"),
        ("=3", "NAME=VALUE"),
        ("per_crop=perhaps", "true or false"),
        ("per_crop=3", "true or false"),
        ("keep=0", "at least 1"),
        ("positions=sideways", "'native', 'original' or 'packed'"),
        ("vispruner.keep=3", "method in --method"),
        ("divprune.per_crp=3", "did you mean 'per_crop'"),
    ],
)
def test_settings(tiny, setting, words):
    assert words in ask(tiny, "--method", "divprune", "--set", setting)


def test_a_setting_that_could_mean_either(tiny):
    text = ask(tiny, "--method", "divprune+fastervlm", "--set", "keep=3")
    assert "divprune and fastervlm" in text


def test_a_budget_without_a_method(tiny):
    assert "--method" in ask(tiny, "--keep", "0.5")
    assert "--method" in ask(tiny, "--set", "a=1")


# -- pictures


def _bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.png", "no file"),
        ("empty.png", "is empty"),
        ("text.png", "looks like text"),
        ("cut.jpg", "cut short"),
        ("strip.png", "200:1"),
        ("bomb.png", "178,956,970 pixels"),
        (".", "is a folder"),
    ],
)
def test_pictures(tiny, tmp_path, name, words):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("This is text.\n")
    data = PHOTOGRAPH.read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    Image.new("RGB", (20_000, 10)).save(tmp_path / "strip.png")
    (tmp_path / "bomb.png").write_bytes(_bomb())
    assert words in ask(tiny, media=tmp_path / name)


def test_an_address_is_no_path(tiny):
    assert "download" in ask(tiny, media="https://example.org/a.png")


def test_standard_input_may_be_empty(tiny):
    assert "Standard input is empty" in ask(tiny, media="-")


# -- models


def test_unknown_models(tmp_path):
    assert "no folder" in ask(tmp_path / "nowhere")
    assert "no config.json" in ask(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"x")
    assert "is a file" in ask(tmp_path / "a.bin")
    assert "no folder ''" in ask("")
    assert "did you mean 'nano'" in ask("nanno")


def test_a_model_without_vision(tmp_path):
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    with silent_bars():
        LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert "'llama' model, which reads no images" in ask(tmp_path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "blip"}, "'blip' are not supported"),
        ({"model_type": "no_such_type"}, "can't be read"),
        ({}, "can't be read"),
    ],
)
def test_configurations(tmp_path, config, words):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert words in ask(tmp_path)


def test_a_configuration_that_is_no_json(tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert "can't be read" in ask(tmp_path)


def test_a_model_without_its_processor(tiny, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    assert "image processor" in ask(tmp_path)


def test_a_model_with_a_tokenizer_alone(tiny, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    assert "image processor" in ask(tmp_path)


@pytest.mark.parametrize("weights", [None, b"", b"no weights at all"])
def test_broken_weights(tiny, tmp_path, weights):
    for path in tiny.iterdir():
        if path.name != "model.safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    if weights is not None:
        (tmp_path / "model.safetensors").write_bytes(weights)
    assert "can't be loaded" in ask(tmp_path)


def test_weights_that_are_not_all_there(tiny, tmp_path):
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights[next(name for name in weights if "q_proj" in name)]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 weights" in ask(tmp_path)


# -- the rest


def test_an_empty_question(tiny):
    assert "question is empty" in sentence("ask", PHOTOGRAPH, "-q", " ", "--model", tiny)


@pytest.mark.parametrize(
    ("name", "words"),
    [("o.txt", "is not an image"), ("folder.png", "is a folder"), ("no/o.png", "does not exist")],
)
def test_overlay_files(tiny, tmp_path, name, words):
    (tmp_path / "folder.png").mkdir()
    assert words in ask(tiny, "--overlay", tmp_path / name)
    assert f"--heatmap '{tmp_path / name}'" in ask(tiny, "--heatmap", tmp_path / name)


@pytest.mark.parametrize("method", [(), ("--method", "divprune")])
def test_a_heatmap_needs_scores(tiny, tmp_path, method):
    said = ask(tiny, *method, "--heatmap", tmp_path / "h.png")
    assert "does not rank tokens by a score" in said and "use --overlay" in said
    assert not (tmp_path / "h.png").exists()


def test_cuda_where_there_is_none(tiny, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA device" in ask(tiny, "--device", "cuda")


def test_unknown_slug_of_methods():
    assert "did you mean 'fastervlm'" in sentence("methods", "fastervml")


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask"],
        ["ask", PHOTOGRAPH],
        ["ask", PHOTOGRAPH, "-q", "what?", "--max-new-tokens", "0"],
        ["ask", PHOTOGRAPH, "-q", "what?", "--device", "tpu"],
        ["ask", PHOTOGRAPH, "-q", "what?", "--dtype", "int8"],
        ["ask", PHOTOGRAPH, "-q", "what?", "--kepe", "3"],
        ["train", "mega"],
        ["train", "nano", "--steps", "1"],
        ["train", "nano", "--steps", "many"],
        ["train", "nano", "--device", "tpu"],
        ["no_such_command"],
    ],
)
def test_usage(arguments):
    text = sentence(*arguments)
    assert "│" not in text and "Usage" not in text


def test_usage_names_what_is_wrong():
    assert "'foveate ask --help' lists the options" in sentence("ask", PHOTOGRAPH)
    assert "'--question'" in sentence("ask", "")
    assert "did you mean 'ask'?" in sentence("askk")
    assert "'foveate --help' lists the options" in sentence("--kepe")
    assert "'foveate --help' lists the commands" in sentence("nope")
    few = sentence("bench", "--n", 0)
    assert "'--n': use at least 1;" in few, few
    assert "'--n': use a valid integer;" in sentence("bench", "--n", "x")


def test_a_model_of_another_kind():
    assert "clip is a CLIP model, not a vision-language model; use nano or image." in ask("clip")


def test_missing_thresholds(tmp_path):
    text = sentence("calibrate", "--set", "thresholds=no", "--out", tmp_path / "out.json")
    assert "there is no file 'no'" in text and "Errno" not in text


def test_an_empty_path(tiny):
    assert "path of the image is empty" in ask(tiny, media="")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "divprune", "--method", "fastv"], "--method divprune+fastv"),
        (["--method", "divprune,fastv"], "write --method divprune+fastv to use"),
        (["--method", "divprune,fastv"], "--compare --method divprune --method fastv to compare"),
        (
            ["--method", "divprune", "--method", "fastv", "--compare", "--set", "k=1"],
            "but divprune has no parameter 'k': use --set fastv.k=1.",
        ),
        (["--compare"], "--compare has no method"),
        (["--method", "fastv", "--compare", "--overlay", "o.png"], "omit --compare or --overlay"),
        (["--method", "fastv", "--compare", "--heatmap", "o.png"], "omit --compare or --heatmap"),
        (["--method", "fastv", "--keep", "10%", "--set", "keep=3"], "keep of fastv is given twice"),
        (["--plan", "p.json", "--method", "fastv"], "omit --method."),
        (["--plan", "p.json", "--keep", "10%"], "omit --keep."),
        (["--plan", "p.json", "--keep", "9", "--set", "k=1"], "omit --keep and --set."),
        (
            ["--method", "fastv", "--method", "tome", "--compare", "--set", "divprune.keep=1"],
            "method in --method",
        ),
    ],
)
def test_options_that_contradict(tiny, arguments, words):
    assert words in ask(tiny, *arguments)


@pytest.mark.parametrize(
    ("what", "words"), [("mini-image-192", "no CUDA device"), ("mini-text", "trains on the CPU")]
)
def test_training_on_a_gpu_that_cannot_be(tmp_path, monkeypatch, what, words):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert words in sentence("train", what, "--device", "cuda", "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nano", "--set", "rate=0.1"], "--set needs --method"),
        (["--method", "covipal", "--set", "rates=0.1"], "did you mean 'rate'"),
        (["--method", "covipal", "--set", "rate=fast"], "use a finite number"),
        (["--method", "covipal", "--set", "rate"], "use --set NAME=VALUE"),
        (["--method", "covipal", "--set", "target=loud"], "target='loud'"),
    ],
)
def test_a_recipe_that_cannot_be(tmp_path, arguments, words):
    assert words in sentence("train", *arguments, "--out", tmp_path / "out")


def test_two_things_at_once(tmp_path):
    both = sentence("train", "nano", "--method", "dyvte", "--out", tmp_path / "out")
    assert "are given: use one" in both
    arguments = ["--world", "I1", "--data", tmp_path / "q.jsonl", "--out", tmp_path / "plan.json"]
    assert "both given" in sentence("tune", *arguments)
    counted = ["--n", 8, "--data", tmp_path / "q.jsonl", "--out", tmp_path / "plan.json"]
    assert "omit it with --data" in sentence("tune", *counted)


def test_a_text_encoder_for_no_model(tmp_path):
    out = tmp_path / "out"
    text = sentence("train", "mini-text", "--model", tmp_path, "--steps", "2", "--out", out)
    assert "can't be read" in text


def test_train_into_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    text = sentence("train", "nano", "--steps", "2", "--out", tmp_path / "file")
    assert "can't be written" in text


def test_demo_of_an_unknown_method(tmp_path, capsys):
    from foveate.demo import demo

    with pytest.raises(Exit) as caught:
        demo(tmp_path, ["divprun"])
    assert caught.value.exit_code == 2
    assert "did you mean 'divprune'" in capsys.readouterr().err


def test_an_interrupt_is_no_error(tiny, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("foveate.media.load_image", interrupted)
    arguments = ["ask", str(PHOTOGRAPH), "-q", "what?", "--model", str(tiny)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 130 and "Traceback" not in result.output


# -- what would take long, or do nothing


@pytest.mark.parametrize("option", ["--methods", "--keep", "--tasks"])
@pytest.mark.parametrize("text", ["", ",", " , "])
def test_a_bench_of_nothing(tmp_path, option, text):
    assert "is an empty list" in sentence("bench", option, text, "--out", tmp_path)


@pytest.mark.parametrize("setting", ["steps=-1", "steps=0", "pictures=0", "checkpoint_every=0"])
def test_training_of_nothing(tmp_path, setting):
    out = tmp_path / "parts"
    text = sentence("train", "--method", "dyvte", "--set", setting, "--out", out)
    assert setting in text and "at least 1" in text
    assert not out.exists()


@pytest.mark.parametrize("seed", ["-1", str(2**63), "9" * 30])
def test_a_seed_that_no_generator_takes(tmp_path, seed):
    assert "--seed" in sentence("train", "--method", "dyvte", "--seed", seed, "--out", tmp_path)


def test_a_plan_needs_a_file_and_says_so_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("foveate.cli.models.load_model", lambda *_: pytest.fail("loaded"))
    for out in ("", ".", tmp_path):
        assert "is a folder" in sentence("tune", "--world", "I1", "--n", 8, "--out", out)


def test_a_name_in_other_letters_is_near():
    assert "did you mean 'divprune'?" in sentence("methods", "DIVPRUNE")
