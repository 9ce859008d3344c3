import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from foveate import systems as catalogue
from foveate.systems import SYSTEM_STAGES, MethodInfo, systems

PEERS = {
    "dart", "dycoke", "evs", "fastv", "fastvid", "prunevid", "rekv", "sparsevlm", "tome",
    "visionzip", "vispruner",
}  # fmt: skip


def test_seeds_are_numbered_1_to_77_by_slug():
    seeds = [row for row in systems().values() if row.seed is not None]
    assert [row.seed for row in seeds] == list(range(1, 78))
    assert [row.slug for row in seeds] == sorted(row.slug for row in seeds)


def test_every_seed_is_another_paper():
    papers = [row.paper for row in systems().values() if row.seed is not None]
    assert len(set(papers)) == 77


def test_second_halves_point_at_the_seed_with_their_paper():
    rows = systems()
    halves = [row for row in rows.values() if row.part_of is not None]
    assert len(halves) == 6
    for row in halves:
        whole = rows[row.part_of]
        assert row.seed is None
        assert whole.seed is not None
        assert (row.title, row.paper, row.year) == (whole.title, whole.paper, whole.year)


def test_the_rest_are_the_peers():
    rest = {row.slug for row in systems().values() if row.seed is None and row.part_of is None}
    assert rest == PEERS


@pytest.mark.parametrize("row", systems().values(), ids=lambda row: row.slug)
def test_row_is_well_formed(row):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", row.slug)
    assert row.name.strip() == row.name != ""
    assert row.title.strip() == row.title != ""
    assert row.stages
    assert list(row.stages) == [stage for stage in SYSTEM_STAGES if stage in row.stages]
    assert isinstance(row.trained, bool)
    assert row.venue is None or re.search(r"20\d\d", row.venue)
    arxiv = re.fullmatch(r"arXiv (\d\d)\d\d\.\d{5}", row.paper)
    if arxiv:
        assert row.year == 2000 + int(arxiv[1])
    else:
        assert row.slug == "evs"


def test_known_rows():
    row = systems()["divprune"]
    assert (row.name, row.year, row.venue, row.paper) == (
        "DivPrune",
        2025,
        "CVPR 2025",
        "arXiv 2503.02175",
    )
    assert row.stages == ("tokens",)
    assert not row.trained
    assert systems()["storm"].stages == ("tokens", "projectors")
    assert systems()["mqt"].trained


def test_info_carries_the_row_and_the_status():
    row = systems()["fastv"]
    info = row.info(available=True)
    assert isinstance(info, MethodInfo)
    assert info.status == "available"
    assert row.info(available=False).status == "planned"
    for field in dataclasses.fields(MethodInfo):
        if field.name != "status":
            assert getattr(info, field.name) == getattr(row, field.name)


def test_callers_cannot_spoil_the_catalogue():
    systems().clear()
    assert len(systems()) == 94
    with pytest.raises(dataclasses.FrozenInstanceError):
        systems()["fastv"].seed = 78


def test_module_is_light():
    code = (
        "import sys, importlib.util as u\n"
        f"spec = u.spec_from_file_location('light', {str(Path(catalogue.__file__))!r})\n"
        "sys.modules['light'] = module = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
