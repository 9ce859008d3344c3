"""The catalogue lists every system once, whatever was imported before."""

from __future__ import annotations

import pytest

import foveate
from foveate.catalogue import describe
from foveate.errors import UnknownName
from foveate.method import registered


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
    assert all(row["doc"] for row in told["parameters"])
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
    assert not hasattr(foveate, "Nothing")
