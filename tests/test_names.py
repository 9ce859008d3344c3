"""Names that are almost right: each is refused in one sentence that says what to write."""

from __future__ import annotations

import pytest

import foveate
from foveate.errors import FoveateError, InvalidParameter, UnknownName
from foveate.figure_table import figure
from tests.families import zoo


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fastervlm+fastv", r"foveate.create\('fastervlm'\) \+ foveate.create\('fastv'\)"),
        ("a + b", r"foveate.create\('a'\) \+ foveate.create\('b'\)"),
        ("mqt+fastv", "'mqt' .* is planned"),
        ("fastv+MQT", "'MQT' .* is planned"),
        ("MQT", "is planned"),
        ("DivPrune", "did you mean 'divprune'"),
        ("VTCCLS", "did you mean 'vtc_cls'"),
        ("divprun", "did you mean 'divprune'"),
    ],
)
def test_methods(name, words):
    with pytest.raises(UnknownName, match=words):
        foveate.create(name)
    with pytest.raises(UnknownName, match=words):
        foveate.attach(zoo.model("llava"), name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nano", r"foveate.mini\('nano'\)"),
        ("image", r"foveate.mini\('image'\)"),
        ("/nope", "There is no folder '/nope'"),
        ("./nope", "There is no folder './nope'"),
        ("", "There is no folder ''"),
        (__file__, "is a file"),
    ],
)
def test_processors_without_asking_the_hub(name, words, monkeypatch):
    monkeypatch.setattr("foveate.processors._load", lambda *_: pytest.fail("asked the Hub"))
    with pytest.raises(FoveateError, match=words):
        foveate.load_processor(name)


def test_switches_of_an_attachment():
    model = zoo.model("llava")
    for wrong in ({"full_logits": "yes"}, {"record_scores": "no"}, {"record_scores": None}):
        with pytest.raises(InvalidParameter, match=next(iter(wrong))):
            foveate.attach(model, "divprune", **wrong)
    with foveate.attach(model, "divprune", full_logits=True) as att:
        assert att.full_logits is True and att.record_scores is False
        with pytest.raises(InvalidParameter, match="full_logits=1 "):
            att.full_logits = 1
        with pytest.raises(InvalidParameter, match="record_scores='no'"):
            att.record_scores = "no"
        att.full_logits, att.record_scores = None, True
        assert att.full_logits is None and att.record_scores is True


def test_an_attachment_shows_its_method_and_model():
    with foveate.attach(zoo.model("llava"), foveate.DivPrune(keep=4)) as att:
        assert repr(att) == "<Attachment of DivPrune(keep=4) to LlavaForConditionalGeneration>"
        assert att.report.method == att.reports.method == "DivPrune(keep=4)"
    assert repr(att).endswith("LlavaForConditionalGeneration, detached>")


@pytest.mark.parametrize(
    ("value", "text"),
    [(9.999, "10.0"), (99.99, "100"), (999.9, "1,000"), (9.99, "9.99"), (0.0009999, "0.00100")],
)
def test_figures_have_three_digits(value, text):
    assert figure(value) == text
