"""Every two methods together: an answer that batches don't change, or one sentence."""

from __future__ import annotations

import pytest

import foveate
from foveate.errors import FoveateError
from foveate.method import registered
from tests.engine.running import close, generate, pair
from tests.families import zoo
from tests.methods.made import halved, made

FAMILIES = ["llava", "qwen3_vl", "gemma3"]
every = pytest.mark.parametrize("slug", registered())


def mixed(name: str):
    """A sample, a sample of text, and both side by side."""
    both = [zoo.sample(name, "image", 0), zoo.text_sample(name)]
    return [zoo.batch(name, [one]) for one in both], zoo.batch(name, both)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@every
def test_two_methods_answer_alike_in_batches_or_refuse(name, slug):
    model = zoo.model(name)
    for other in registered():
        method = halved(slug) + halved(other)
        for alone, batch in (pair(name), mixed(name)):
            try:
                with foveate.attach(model, method):
                    rows = generate(model, batch, 3)[1]
                    for i, one in enumerate(alone):
                        away = (rows[i] - generate(model, one, 3)[1][0]).abs().max()
                        assert away < 2e-4, f"{method!r}: row {i} is {away} off"
            except FoveateError:
                continue


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@every
def test_two_methods_that_keep_all_are_the_bare_model(name, slug):
    model, methods = zoo.model(name), registered()
    _, batch = pair(name)
    bare = generate(model, batch, 3)[1]
    for other in methods:
        method = made(slug, **methods[slug].bare) + made(other, **methods[other].bare)
        try:
            with foveate.attach(model, method):
                away = (generate(model, batch, 3)[1] - bare).abs().max()
        except FoveateError:
            continue
        assert away < 2e-4, f"{method!r}: {away} off"


@every
def test_a_row_of_text_is_what_it_is_alone(slug):
    model = zoo.model("llava")
    (_, text), batch = mixed("llava")
    bare = generate(model, text, 3)[1]
    method = halved(slug)
    with foveate.attach(model, method):
        alone, row = generate(model, text, 3)[1], generate(model, batch, 3)[1][1:]
    assert (row - alone).abs().max() < 2e-4
    # Trained on text with other positions, one method changes what is no picture, too.
    if not any(getattr(part, "textual", False) for part in method.parts()):
        assert (alone - bare).abs().max() < 2e-4


def test_rules_for_text_run_beside_a_part_that_reads_the_tower():
    """Such a prompt has books, but no pictures to have signals of."""
    model, (text,) = zoo.model("llava"), mixed("llava")[0][1:]
    with foveate.attach(model, halved("tc_llava")):
        expected = generate(model, text, 3)
    with foveate.attach(model, halved("lvlm_csp") + halved("tc_llava")):
        assert close(generate(model, text, 3), expected)


@pytest.mark.parametrize("options", [{}, {"evict": True}, {"evict": True, "bits": (4, 2)}], ids=str)
def test_rows_of_text_stay_exact_in_packed_caches(options):
    """For as long as they are decoded, moved about by beams, and stored gap by gap."""
    model = zoo.model("llava")
    (_, text), batch = mixed("llava")
    bare = generate(model, text, 8)
    with foveate.attach(model, foveate.ZipVL(streaming_gap=3, **options)):
        rows = generate(model, batch, 8)
        beams = model.generate(**batch, num_beams=2, max_new_tokens=8, do_sample=False)
    assert (rows[1][1:] - bare[1]).abs().max() < 2e-4
    alone = model.generate(**text, num_beams=2, max_new_tokens=8, do_sample=False)
    assert beams[1, -8:].tolist() == alone[0, -8:].tolist()


@pytest.mark.parametrize(
    "method,message",
    [
        (foveate.DyMU(keep=8) + foveate.TCLLaVA(), "DyMU attends to tokens"),
        (foveate.YOPO() + foveate.DyMU(keep=8), "DyMU attends to tokens"),
        (foveate.DyMU(keep=8) + foveate.ZipVL(), "and ZipVL does not support"),
        (foveate.VistaLLaMA() + foveate.DyMU(keep=8), "and VistaLLaMA does not support"),
        (foveate.VistaLLaMA() + foveate.VistaLLaMA(), "VistaLLaMA acts twice"),
        (foveate.TCLLaVA() + foveate.TCLLaVA(), "TCLLaVA acts twice"),
    ],
    ids=repr,
)
def test_rules_that_can_not_hold_together_are_refused(method, message):
    with pytest.raises(FoveateError, match=message):
        foveate.attach(zoo.model("llava"), method)
