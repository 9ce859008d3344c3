"""The catalogue lists every system once, whatever was imported before."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

import foveate
from foveate.catalogue import describe
from foveate.errors import UnknownName
from foveate.method import registered
from foveate.method_docs import method_doc
from foveate.parameter_docs import parameter_docs


def test_it_can_be_asked_twice():
    first, second = foveate.catalog(), foveate.catalog()
    assert first == second
    assert len({info.slug for info in first}) == len(first)


def test_all_seeds_and_all_methods_are_there():
    infos = {info.slug: info for info in foveate.catalog()}
    assert sorted(i.seed for i in infos.values() if i.seed) == list(range(1, 78))
    for slug in registered():
        assert infos[slug].status == "available"
    assert infos["streamingvlm"].status == "planned"


def test_methods_are_described_from_their_code():
    told = describe("divprune")
    assert told["class"] == "DivPrune" and "arXiv 2503.02175" in told["about"]
    assert {row["name"] for row in told["parameters"]} >= {"keep", "positions", "per_crop"}
    assert told["summary"] == told["about"].split("\n")[0]
    assert "parameters" not in describe("streamingvlm")
    with pytest.raises(UnknownName, match="divprune"):
        describe("divprun")


PLANNED = [info for info in foveate.catalog() if info.status == "planned"]


@pytest.mark.parametrize("info", PLANNED, ids=lambda info: info.slug)
def test_planned_systems_say_so(info):
    for ask in (foveate.create, lambda slug: foveate.from_dict({"method": slug})):
        with pytest.raises(UnknownName, match="is planned, not available yet") as caught:
            ask(info.slug)
        assert info.name in str(caught.value)
    with pytest.raises(AttributeError, match="planned, not available yet"):
        getattr(foveate, info.slug.title().replace("_", ""))


def test_planned_is_not_said_of_what_is_available():
    from foveate.training.recipe import recipe_of

    with pytest.raises(UnknownName) as caught:
        recipe_of("divprune")
    assert "planned" not in str(caught.value)
    with pytest.raises(UnknownName, match="planned, not available yet"):
        recipe_of("mqt")


def test_a_misspelt_class_names_the_nearest():
    with pytest.raises(AttributeError, match="did you mean 'DivPrune'"):
        getattr(foveate, "DivPrun")  # noqa: B009
    with pytest.raises(AttributeError, match="did you mean 'FastV'"):
        getattr(foveate, "Fastv")  # noqa: B009
    assert not hasattr(foveate, "Nothing")


def test_every_parameter_is_documented():
    for slug, cls in registered().items():
        parameters = describe(slug)["parameters"]
        assert [row["name"] for row in parameters] == [field.name for field in fields(cls)]
        undocumented = [row["name"] for row in parameters if not row["doc"]]
        assert not undocumented, slug


@dataclass(frozen=True, kw_only=True, repr=False)
class Documented(foveate.DivPrune):
    """A method whose parameters are documented in a block.

    Attributes:
        keep: tokens to keep,
            in two lines.
        per_crop: of its own
        reduces: a class attribute.

    protect: not in the block.
    """


def test_parameters_are_documented_in_a_block_or_inherited():
    docs = parameter_docs(Documented)
    assert docs["keep"] == "tokens to keep, in two lines." and docs["per_crop"] == "of its own"
    assert docs["protect"] == parameter_docs(foveate.DivPrune)["protect"]
    assert docs["positions"] == parameter_docs(foveate.Method)["positions"]
    assert docs.keys() == {field.name for field in fields(Documented)}


@pytest.mark.parametrize("slug", registered())
def test_every_method_file_has_the_same_sections(slug):
    doc = method_doc(registered()[slug])
    assert doc.summary.endswith(".") and ":" not in doc.summary.split()[0]
    assert doc.sections.keys() >= {"Rule", "Needs", "Cost"}
    assert doc.example.startswith("model, processor = foveate.mini(") and "attach" in doc.example
    if registered()[slug].paper:
        assert registered()[slug].paper in " ".join(doc.intro.split())
