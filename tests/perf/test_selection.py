from dataclasses import replace

import pytest

from foveate.families.base import raster
from perf import selection, selection_in_model, signal_recording
from perf.timing import extra_bytes

GIGABYTE = 1e9


@pytest.mark.slow
@pytest.mark.parametrize("slug", selection.methods())
def test_selection_among_many_tokens_needs_less_than_a_gigabyte(slug):
    method = selection.methods()[slug]
    for layout in selection.MEMORY:
        assert extra_bytes(selection.reduction(method, layout)) < GIGABYTE


def test_methods_get_their_rows(monkeypatch):
    some = {slug: method for slug, method in selection.methods().items() if slug < "d"}
    monkeypatch.setattr(selection, "methods", lambda: some)
    monkeypatch.setattr(selection, "TIMED", {144: raster(1, 12, 12), 256: raster(1, 16, 16)})
    monkeypatch.setattr(selection, "MEMORY", (raster(1, 16, 16),))
    result = selection.measure(
        1,
        prefill=lambda n: lambda: sum(range(100 * n)),
        inside=lambda: {"tome": ([0.001, 0.004], 10**6)},
    )
    assert result["methods"].keys() == some.keys()
    for row in result["methods"].values():
        assert row["seconds"][144] > 0 and row["extra_bytes"] >= 0
    page = selection.page(result)
    assert page.count("| 144 tokens | overhead | 256 ") == 2 and "| 4.0× | 1 MB |" in page


@pytest.mark.slow
def test_time_and_memory_of_selection_inside_the_model_are_measured(monkeypatch):
    for name in ("ENCODER", "DECODER"):
        tiny = replace(getattr(selection_in_model, name), visual=64, tower_layers=12)
        monkeypatch.setattr(selection_in_model, name, tiny)
    found = selection_in_model.measure((1, 2, 3))
    assert {"tome", "dymu", "tca", "fastv", "dart", "sparsevlm", "catp"} <= found.keys()
    for times, most in found.values():
        assert len(times) == 2 and min(times) > 0 and 0 <= most < GIGABYTE


def test_recording_is_timed_for_methods_that_read_the_vision_encoder(monkeypatch):
    tiny = replace(selection_in_model.ENCODER, visual=64, tower_layers=3)
    monkeypatch.setattr(signal_recording, "ENCODER", tiny)
    some = {slug: selection.methods()[slug] for slug in ("catp", "fastervlm", "visionzip")}
    found = signal_recording.measure(some, (1, 2), 2)
    assert found["catp"] == [0.0, 0.0]
    assert min(found["fastervlm"]) > 0 and min(found["visionzip"]) > 0
