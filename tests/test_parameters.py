"""What users hand in as parameters: plain values whatever they came as, or one sentence."""

from __future__ import annotations

import enum
import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import reduce
from pathlib import Path
from typing import Any, Literal, Optional, Union

import numpy as np
import pytest
import torch

import foveate
from foveate.errors import BudgetError, FoveateError, InvalidParameter, UnknownName
from foveate.method import Composed, Method, create, from_dict, registered
from foveate.methods.tokens.base import TokensMethod
from tests.families import zoo
from tests.methods.made import made

METHODS = registered()
every = pytest.mark.parametrize("slug", METHODS)
PLAIN = (bool, int, float, str, type(None))
FRACTIONS = [np.float32(0.5), np.float16(0.5), np.array(0.5), torch.tensor(0.5), Fraction(1, 2)]
FRACTIONS += [torch.tensor([0.5], dtype=torch.bfloat16), np.array([[0.5]])]
COUNTS = [np.int64(9), np.uint8(9), np.array(9), torch.tensor(9), torch.tensor([9]), enum.IntEnum]
COUNTS[-1] = COUNTS[-1]("Few", {"NINE": 9}).NINE


class Word(str, enum.Enum):  # noqa: UP042 as they do
    """Words as configuration libraries hold them."""

    KEYS = "keys"


def is_plain(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(is_plain, value))
    return type(value) in PLAIN


def alike(a: Method, b: Method) -> None:
    """One is the other in every way in which methods are compared and written down."""
    assert a == b and hash(a) == hash(b) and repr(a) == repr(b)
    assert from_dict(a.to_dict()) == from_dict(json.loads(json.dumps(a.to_dict()))) == b
    for name, value in a.to_dict().items():
        assert is_plain(value) or name == "segmenter", (name, value)
        assert type(value) is type(b.to_dict()[name])


def refused(call: Callable[[], Any], *words: str, error: type = InvalidParameter) -> None:
    """One sentence, no longer than a few lines of a terminal."""
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert text.endswith((".", "?")) and "\n" not in text and len(text) < 400, text
    for word in words:
        assert word in text, text


# -- numbers of numpy and torch


@every
def test_a_budget_is_a_plain_number_whatever_made_it(slug):
    counts = slug not in ("yopo",) and METHODS[slug].reduces
    for keep in FRACTIONS if METHODS[slug].reduces else ():
        alike(made(slug, keep=keep), made(slug, keep=0.5))
    for keep in COUNTS if counts else ():
        alike(made(slug, keep=keep), made(slug, keep=9))
    alike(made(slug, keep=np.float32(1)), made(slug, keep=1.0))


@every
def test_every_number_is_plain_whatever_made_it(slug):
    default = made(slug)
    for field in fields(default):
        value = getattr(default, field.name)
        if isinstance(value, bool):
            given = [np.bool_(value), torch.tensor(value)]
        elif isinstance(value, int | float):
            given = [np.array(value), torch.tensor(value, dtype=torch.float64)]
            given = given[: 1 if isinstance(value, int) else 2]
        elif isinstance(value, tuple):
            given = [list(value), np.array(value), torch.tensor(value, dtype=torch.float64)]
            given = given[: 3 if value and isinstance(value[0], float) else 2]
            given.append(list(map(np.array, value)))
        else:
            continue
        for other in given:
            alike(made(slug, **{field.name: other}), default)


@pytest.mark.parametrize(
    "slug",
    ["pyramiddrop", "gsearch", "sparsevlm", "transprune", "visiondrop", "aim", "catp", "dyvte"]
    + ["atp_llava", "covipal", "lvlm_csp", "videollm_mod", "divprune", "zipvl", "tome"],
)
def test_numpy_numbers_prune_as_python_numbers_do(slug):
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", i) for i in (0, 1)])

    def layers(keep: Any) -> list:
        method = made(slug, keep=keep)
        with foveate.attach(model, method) as attached, torch.no_grad():
            logits = model(**inputs).logits
        return [attached.report.tokens_by_layer, attached.report.flops, logits]

    for plain, others in ((12, (np.int64(12), torch.tensor(12))), (0.75, (np.float32(0.75),))):
        expected = layers(plain)
        for keep in others:
            found = layers(keep)
            assert found[:2] == expected[:2] and torch.equal(found[2], expected[2])


@every
@pytest.mark.parametrize(
    "keep", [True, np.True_, torch.tensor(True), np.array([1, 2]), "64", np.nan, 10**30, 1j, {}]
)
def test_what_is_no_budget_is_refused(slug, keep):
    refused(lambda: made(slug, keep=keep), "keep=", error=BudgetError)


def test_lists_are_tuples():
    for m, plain in (
        (foveate.ToMe(r=[1, 2]), (1, 2)),
        (foveate.ToMe(r=np.array([1, 2])), (1, 2)),
        (foveate.ToMe(r=[8, 0.0]), (8, 0.0)),
        (foveate.ToMe(r=np.int64(3)), 3),
    ):
        assert m.r == plain and is_plain(m.r)
        alike(m, foveate.ToMe(r=plain))
    assert type(foveate.ToMe(r=[8, 0.0]).r[1]) is float
    alike(foveate.PyramidDrop(layer_list=[1, 2]), foveate.PyramidDrop(layer_list=(1, 2)))
    pairs = foveate.VisionDrop(image_token_list=[[4, 2], (2, np.int64(1))])
    alike(pairs, foveate.VisionDrop(image_token_list=((4, 2), (2, 1))))
    mask = torch.tensor([[True, False], [True, True]])
    alike(foveate.YOPO(headmask=mask), foveate.YOPO(headmask=((True, False), (True, True))))
    alike(
        foveate.ZipVL(bits=[8, 4], probes=np.array([8, 8])),
        foveate.ZipVL(bits=(8, 4), probes=(8, 8)),
    )
    alike(foveate.GSearch(schedule=range(1, 0, -1)), foveate.GSearch(schedule=(1.0,)))


def test_words_are_plain_strings():
    alike(foveate.AIM(metric=Word.KEYS), foveate.AIM(metric="keys"))
    alike(foveate.AIM(metric=np.str_("keys")), foveate.AIM(metric="keys"))
    alike(made("dyvte", weights=Path("some") / "folder"), made("dyvte", weights="some/folder"))


# -- wrong kinds


WRONG = [
    "x",
    "2",
    "",
    b"x",
    None,
    [],
    [1],
    ["a"],
    [[1, 2]],
    (1, 2),
    (1, None),
    {},
    set(),
    object(),
    int,
    len,
]
WRONG += [
    float("nan"),
    float("inf"),
    -float("inf"),
    -1,
    -1.5,
    0,
    0.5,
    3,
    10**30,
    -(10**30),
    True,
    1j,
]
WRONG += [
    np.nan,
    np.array("x"),
    np.array([1, 2]),
    np.zeros((0,)),
    torch.tensor(1),
    torch.ones(2, 2),
]
WRONG += [torch.empty(1, device="meta"), (float("nan"),), (True,), ("a", "b"), (10**30,), Exception]


@every
def test_wrong_kinds_are_a_sentence_or_a_method(slug):
    accepted = 0
    for field in fields(METHODS[slug]):
        for value in WRONG:
            try:
                method = made(slug, **{field.name: value})
            except FoveateError as error:
                text = str(error)
                assert field.name in text and "\n" not in text and len(text) < 400, text
                continue
            accepted += 1
            assert is_plain(getattr(method, field.name)) or field.name == "segmenter"
            hash(method), repr(method)
    assert accepted, "a method takes some of its own values"


@pytest.mark.slow
@every
def test_what_is_accepted_runs_or_is_refused_in_a_sentence(slug):
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", i) for i in (0, 1)])
    for field in fields(METHODS[slug]):
        for value in WRONG if field.name != "segmenter" else ():
            try:
                method = made(slug, **{field.name: value})
                with foveate.attach(model, method), torch.no_grad():
                    assert model(**inputs).logits.isfinite().all(), method
            except FoveateError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: foveate.FastV(k="2"), ("k='2'", "a whole number")),
        (lambda: foveate.FastV(k=2.0), ("k=2.0", "a whole number")),
        (lambda: foveate.FastV(k=True), ("k=True", "a whole number")),
        (lambda: foveate.AIM(iters=None), ("iters=None", "a whole number")),
        (lambda: foveate.AIM(step="a"), ("step='a'", "a finite number or None")),
        (lambda: foveate.ZipVL(tau="0.9"), ("tau='0.9'", "a finite number")),
        (lambda: foveate.ZipVL(tau=float("nan")), ("tau=nan", "a finite number")),
        (lambda: foveate.ZipVL(bits=4), ("bits=4", "a tuple of 2 whole numbers or None")),
        (lambda: foveate.ZipVL(bits=(4, 2, 2)), ("bits=(4, 2, 2)", "a tuple of 2 whole numbers")),
        (lambda: foveate.YOPO(renormalize=1), ("renormalize=1", "true or false")),
        (lambda: foveate.YOPO(headmask=[1, 0]), ("headmask=[1, 0]", "a tuple of tuples")),
        (lambda: foveate.ToMe(r=(1, "a")), ("r=(1, 'a')", "a tuple of whole numbers")),
        (lambda: foveate.FasterVLM(score="clss"), ("score='clss'", "'cls', 'received' or 'auto'")),
        (lambda: foveate.AIM(metric=["keys"]), ("metric=['keys']", "'features' or 'keys'")),
        (lambda: foveate.DivPrune(positions=3), ("positions=3",)),
        (lambda: foveate.LVLMCSP(selector="seg_first", segmenter=3), ("segmenter=3", "a function")),
        (lambda: foveate.Random(seed=10**30), ("seed=1000", "a whole number")),
        (lambda: foveate.FastV(k=torch.ones(400)), ("k=tensor([1.,", "a whole number")),
    ],
)
def test_the_sentence_says_what_which_value_and_what_is_allowed(make, words):
    refused(make, *words)


def test_any_seed_runs():
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    for seed in (-1, 2**62, 2**63 - 1, -(2**63)):
        for method in (
            foveate.Random(keep=0.5, seed=seed),
            foveate.FastV(k=0, seed=seed),
            foveate.ZipVL(keep=0.5, seed=seed, probes=(4, 4)),
            made("videollm_mod", keep=0.75, selector="random", seed=seed),
            foveate.LVLMCSP(keep=0.5, selector="random", seed=seed),
        ):
            with foveate.attach(model, method), torch.no_grad():
                assert model(**inputs).logits.isfinite().all()


# -- methods from outside the package


def outside(**annotations: Any) -> type[Method]:
    """A frozen dataclass with these fields, made where their names mean nothing elsewhere."""
    hidden = Literal["a", "b"]  # noqa: F841 known to nobody who resolves annotations

    @dataclass(frozen=True, kw_only=True, repr=False)
    class Outside(TokensMethod):
        slug = "outside"
        word: hidden = "a"
        count: int = 1
        old: Optional[int] = None  # noqa: UP045
        either: Union[float, tuple[int, ...]] = 0.5  # noqa: UP007
        several: Sequence[float] = ()
        call: Callable[[int], int] | None = None
        anything: Any = None
        unknown: torch.device | None = None
        mixed: tuple[str, int, bool | None] = ("a", 1, None)

        def select(self, tokens, signals, keep):
            return torch.arange(keep).expand(len(tokens.features), -1)

    return Outside


def test_methods_from_outside_are_checked_by_their_annotations():
    cls = outside()
    m = cls(
        keep=np.int64(9),
        count=np.int32(2),
        old=torch.tensor(3),
        either=[np.int64(1), 2],
        several=np.array([1, 2]),
        mixed=["b", np.int8(2), np.True_],
        call=len,
        anything={1},
        unknown=torch.device("cpu"),
    )
    plain = {"keep": 9, "count": 2, "old": 3, "either": (1, 2), "several": (1.0, 2.0)}
    plain |= {"mixed": ("b", 2, True), "call": len, "anything": {1}}
    for name, value in plain.items():
        assert getattr(m, name) == value and type(getattr(m, name)) is type(value), name
    for name, value in (
        ("count", "2"),
        ("count", 1.5),
        ("old", "x"),
        ("either", "x"),
        ("several", ["x"]),
        ("call", 3),
        ("mixed", ("b", 2)),
        ("mixed", ("b", None, True)),
    ):
        refused(lambda: cls(**{name: value}), f"{name}=")  # noqa: B023


def test_a_method_from_outside_without_a_slug_is_refused():
    class Nameless(TokensMethod):
        pass

    refused(lambda: foveate.register(Nameless), "Nameless", "slug", error=FoveateError)


# -- attach, create, composition, descriptions


def test_attach_takes_a_slug_with_parameters():
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with foveate.attach(model, "divprune", keep=np.int64(5)) as attached, torch.no_grad():
        model(**inputs)
    assert attached.method == foveate.DivPrune(keep=5) and attached.report.tokens_out == [5]
    with foveate.attach(model, "fastervlm") as attached:
        assert attached.method == foveate.FasterVLM()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (None, ("None is not a method", "foveate.DivPrune(keep=64)")),
        ([foveate.DivPrune(keep=0.5)], ("[DivPrune(keep=0.5)]", "+")),
        ((), ("()", "+")),
        (foveate.DivPrune, ("DivPrune", "DivPrune()")),
        ({"method": "divprune"}, ("{'method': 'divprune'}", "foveate.from_dict")),
        (0.5, ("0.5 is not a method",)),
        (len, ("len", "is not a method")),
    ],
)
def test_attach_refuses_what_is_no_method(method, words):
    model = zoo.model("llava")
    refused(lambda: foveate.attach(model, method), *words)
    foveate.attach(model, "divprune").detach()


def test_attach_refuses_unknown_slugs_and_parameters():
    model = zoo.model("llava")
    for call, words in (
        (lambda: foveate.attach(model, "divprun", keep=64), "did you mean 'divprune'"),
        (lambda: foveate.attach(model, "divprune", kep=64), "did you mean 'keep'"),
        (lambda: foveate.attach(model, ""), "Unknown method: ''"),
    ):
        refused(call, words, error=UnknownName)
    refused(lambda: foveate.attach(model, foveate.DivPrune(), keep=64), "keep=", "slug")
    refused(lambda: foveate.attach(model, "divprune", keep=0), "keep=0", error=BudgetError)


@pytest.mark.parametrize("model", [None, "llava-hf/llava-1.5-7b-hf", object(), {}, torch.nn.Linear])
def test_attach_refuses_what_is_no_model(model):
    words = ("ForConditionalGeneration",)
    refused(lambda: foveate.attach(model, "divprune"), *words, error=foveate.UnsupportedModel)


def test_attach_refuses_models_without_language():
    for model in (torch.nn.Linear(1, 1), zoo.model("llava").model, type(zoo.model("llava"))):
        refused(lambda: foveate.attach(model, "divprune"), error=foveate.UnsupportedModel)  # noqa: B023


@pytest.mark.parametrize("other", [None, 0, 0.5, "divprun", [foveate.FastV()], foveate.FastV, {}])
def test_only_methods_are_composed(other):
    method = foveate.DivPrune(keep=0.5)
    error = UnknownName if isinstance(other, str) else InvalidParameter
    for call in (
        lambda: method + other,
        lambda: other + method,
        lambda: method + method + other,
        lambda: Composed(methods=(method, other)),
    ):
        refused(call, error=error)
    refused(lambda: sum([method, foveate.FastV()]), "0 is not a method", "+")


def test_compositions_are_flat_and_come_back():
    a, b, c = foveate.DivPrune(keep=0.5), foveate.FastV(), foveate.YOPO()
    flat = a + b + c
    assert flat.methods == (a, b, c)
    others = [a + (b + c), sum([b, c], a), reduce(operator.add, [a, b, c])]
    others += [Composed(methods=[a, b, c]), Composed(methods=[Composed(methods=[a, b]), c])]
    others += [a + Composed() + b + c, from_dict({"methods": [(a + b).to_dict(), c.to_dict()]})]
    for other in others:
        assert other == flat and hash(other) == hash(flat) and repr(other) == repr(flat)
        assert from_dict(json.loads(json.dumps(other.to_dict()))) == flat
    refused(lambda: Composed(methods=(a, b), keep=0.5), "keep=0.5", "its methods")
    refused(lambda: Composed(methods=a), "methods=DivPrune(keep=0.5)")


@pytest.mark.parametrize("slug", [None, 5, ["divprune"], foveate.DivPrune, {"a": 1}])
def test_create_wants_a_slug(slug):
    refused(lambda: create(slug), "slug", "'divprune'")


@pytest.mark.parametrize(
    ("described", "words"),
    [
        (None, "None"),
        ("divprune", "'divprune'"),
        ([{"method": "divprune"}], "to_dict"),
        ({}, "'method'"),
        ({"keep": 0.5}, "'method'"),
        ({"method": None}, "slug"),
        ({"method": "divprune", "keep": "half"}, "keep='half'"),
        ({"methods": None}, "methods=None"),
        ({"methods": "divprune"}, "methods='divprune'"),
        ({"methods": [{"method": "divprune"}], "keep": 0.5}, "['keep']"),
        ({"methods": [None]}, "None"),
    ],
)
def test_descriptions_of_nothing_are_refused(described, words):
    refused(lambda: from_dict(described), words, error=FoveateError)


def test_descriptions_with_unknown_entries_are_refused():
    wrong = {"method": "divprune", "keeps": 0.5}
    refused(lambda: from_dict(wrong), "did you mean 'keep'", error=UnknownName)
    refused(lambda: from_dict({"method": "divprun"}), "did you mean 'divprune'", error=UnknownName)
    refused(lambda: from_dict({"method": "divprune", 3: 0.5}), "'3'", error=UnknownName)
