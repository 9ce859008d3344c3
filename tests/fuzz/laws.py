"""One law per kind of call: what must come out whatever the method is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import foveate
from tests.families import zoo
from tests.families.running import distance, generate

from .draws import Draw

# Logits have a spread of about 5; equal sums in another order differ by 1e-5.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}


class Broken(AssertionError):
    """A call whose answer is not what the law says."""


def check(draw: Draw, model: Any) -> None:
    """Run one call. Raises `Broken`, a `FoveateError`, or whatever foreign error comes out."""
    torch.manual_seed(draw.seed)
    LAWS[draw.call](draw, model)


def _attached(model: Any, draw: Draw) -> AbstractContextManager:
    return foveate.attach(model, draw.method())


def _run(model: Any, inputs: dict[str, Any], draw: Draw, **how: Any):
    return generate(model, _cast(inputs, model), draw.steps, **how)


def _cast(inputs: dict[str, Any], model: Any) -> dict[str, Any]:
    dtype = next(model.parameters()).dtype
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}


def _same(draw: Draw, model: Any, a: tuple[Any, Tensor], b: tuple[Any, Tensor], what: str) -> None:
    """bfloat16 runs are only asked not to fail."""
    dtype = next(model.parameters()).dtype
    if dtype == torch.bfloat16:
        return
    off = distance(a, b)
    if not off < TOLERANCE[dtype]:
        raise Broken(f"{what}: logits differ by {off:.2g}")


def _alone(draw: Draw) -> list[dict[str, Any]]:
    """Every row as a batch of its own, without padding."""
    return [zoo.batch(draw.family, [row]) for row in draw.rows()]


def batch_is_its_rows(draw: Draw, model: Any, **how: Any) -> None:
    with _attached(model, draw):
        together = _run(model, draw.inputs(), draw, **how)
        for b, one in enumerate(_alone(draw)):
            single = _run(model, one, draw, **how)
            _same(draw, model, together.row(b), single.row(0), f"row {b} of the batch and alone")
    for b, row in enumerate(draw.samples):
        if row.startswith("t") and not _textual(draw):
            bare = _run(model, _alone(draw)[b], draw, **how)
            _same(draw, model, together.row(b), bare.row(0), f"text row {b} and the bare model")


def _textual(draw: Draw) -> bool:
    return any(getattr(p, "textual", False) for p in draw.method().parts())


def forward_is_its_rows(draw: Draw, model: Any) -> None:
    """Rows padded on the right end at different columns, so their losses are compared."""
    with _attached(model, draw), torch.no_grad():
        if draw.side == "left":
            together = model(**_cast(draw.inputs(), model), use_cache=False).logits[:, -1:]
            for b, one in enumerate(_alone(draw)):
                single = model(**_cast(one, model), use_cache=False).logits[:, -1:]
                what = f"row {b} of a forward call"
                _same(draw, model, ([0], together[b]), ([0], single[0]), what)
            return
        mean = _loss_of_the_end(model, draw.inputs())
        alone = [_loss_of_the_end(model, one) for one in _alone(draw)]
    expected = sum(alone) / len(alone)
    _same(draw, model, ([0], mean[None]), ([0], expected[None]), "the loss of rows and its mean")


def _loss_of_the_end(model: Any, inputs: dict[str, Any]) -> Tensor:
    """Mean loss of the last token of every row."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    end = mask.shape[1] - 1 - mask.flip(1).argmax(1, keepdim=True)
    labels = torch.full_like(ids, -100).scatter(1, end, ids.gather(1, end))
    return model(**_cast(inputs, model), labels=labels, use_cache=False).loss


def keeping_all_is_bare(draw: Draw, model: Any) -> None:
    bare = _run(model, draw.inputs(), draw)
    with foveate.attach(model, draw.whole()):
        kept = _run(model, draw.inputs(), draw)
    for b in range(len(draw.samples)):
        _same(draw, model, kept.row(b), bare.row(b), f"row {b} with all kept and bare")


def twice_is_once(draw: Draw, model: Any) -> None:
    with _attached(model, draw):
        first = _run(model, draw.inputs(), draw)
        with torch.no_grad():
            model(**_cast(draw.inputs(), model), use_cache=False)
        second = _run(model, draw.inputs(), draw)
    if not torch.equal(first.logits, second.logits):
        raise Broken("a second call gives other logits")


def detached_is_bare(draw: Draw, model: Any) -> None:
    before = _run(model, draw.inputs(), draw)
    try:
        with _attached(model, draw):
            _run(model, draw.inputs(), draw)
    finally:
        after = _run(model, draw.inputs(), draw)
        if not torch.equal(before.logits, after.logits):
            raise Broken("the detached model gives other logits")


def beams_are_their_rows(draw: Draw, model: Any) -> None:
    with _attached(model, draw):
        together = _beams(model, draw.inputs(), draw)
        for b, one in enumerate(_alone(draw)):
            single = _beams(model, one, draw)
            off = (together.sequences_scores[b] - single.sequences_scores[0]).abs().item()
            if next(model.parameters()).dtype != torch.bfloat16 and off > 1e-3:
                raise Broken(f"row {b} of a batch of beams: scores differ by {off:.2g}")


def _beams(model: Any, inputs: dict[str, Any], draw: Draw) -> Any:
    return model.generate(
        **_cast(inputs, model),
        max_new_tokens=draw.steps,
        do_sample=False,
        num_beams=2,
        return_dict_in_generate=True,
        output_scores=True,
    )


def static_is_dynamic(draw: Draw, model: Any) -> None:
    with _attached(model, draw):
        dynamic = _run(model, draw.inputs(), draw)
        static = _run(model, draw.inputs(), draw, cache_implementation="static")
    for b in range(len(draw.samples)):
        _same(draw, model, static.row(b), dynamic.row(b), f"row {b} with a static cache")


def eager_is_sdpa(draw: Draw, model: Any) -> None:
    with _attached(model, draw):
        sdpa = _run(model, draw.inputs(), draw)
        try:
            _kernel(draw.family, model, "eager")
            eager = _run(model, draw.inputs(), draw)
        finally:
            _kernel(draw.family, model, "sdpa")
    for b in range(len(draw.samples)):
        _same(draw, model, eager.row(b), sdpa.row(b), f"row {b} with eager attention")


def _kernel(family: str, model: Any, name: str) -> None:
    model.set_attn_implementation({"text_config": name} if family == "fast_vlm" else name)


def turns_go_on(draw: Draw, model: Any) -> None:
    """A second turn through `generate` is a loop over single tokens on the same cache."""
    draw = replace(draw, padding=0, samples=draw.samples[:1], side="left")
    inputs = _cast(draw.inputs(), model)
    question = torch.tensor([[8, 9, 10]])
    how = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    with _attached(model, draw), torch.no_grad():
        first = model.generate(**inputs, max_new_tokens=2, **how)
        more = torch.cat([first.sequences, question], 1)
        second = model.generate(
            input_ids=more,
            attention_mask=torch.ones_like(more),
            past_key_values=first.past_key_values,
            max_new_tokens=1,
            **how,
        )
        again = model.generate(**inputs, max_new_tokens=2, **how)
        seen = again.past_key_values.get_seq_length()
        for column in range(seen, more.shape[1]):
            new = more[:, column : column + 1]
            mask = torch.ones(1, column + 1, dtype=torch.long)
            out = model(input_ids=new, attention_mask=mask, past_key_values=again.past_key_values)
    found = ([0], second.logits[0])
    _same(draw, model, found, ([0], out.logits[:, -1]), "a second turn and a loop")


def several_are_one_by_one(draw: Draw, model: Any) -> None:
    """New tokens that come several at once are the same ones as they come one at a time."""
    draw = replace(draw, side="left")
    inputs, found = _cast(draw.inputs(), model), []
    new = torch.randint(5, 60, (len(draw.samples), 9))
    with _attached(model, draw), torch.no_grad():
        for several in (1, 2, 4):
            out, mask, logits = model(**inputs, use_cache=True), inputs["attention_mask"], []
            for tokens in new.split(several, 1):
                mask = torch.cat([mask, torch.ones_like(tokens)], 1)
                kw = {"attention_mask": mask, "past_key_values": out.past_key_values}
                logits.append(model(input_ids=tokens, **kw).logits)
            found.append(([0], torch.cat(logits, 1)[None]))
    for several in (1, 2):
        _same(draw, model, found[several], found[0], "several new tokens and one at a time")


def lookup_is_greedy(draw: Draw, model: Any) -> None:
    draw = replace(draw, padding=0, steps=8)
    inputs = _cast(draw.inputs(), model)
    how = {"max_new_tokens": draw.steps, "do_sample": False}
    bare = model.generate(**inputs, **how)
    if not torch.equal(bare, model.generate(**inputs, **how, prompt_lookup_num_tokens=3)):
        return
    with _attached(model, draw):
        plain = model.generate(**inputs, **how)
        looked = model.generate(**inputs, **how, prompt_lookup_num_tokens=3)
    if next(model.parameters()).dtype != torch.bfloat16 and not torch.equal(plain, looked):
        raise Broken("prompt lookup gives other tokens than greedy decoding")


def _labelled(draw: Draw, rows: list[zoo.Sample] | None = None) -> dict[str, Any]:
    inputs = draw.inputs(rows)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    labels = ids.masked_fill(mask == 0, -100)
    for special in (zoo.IMAGE, zoo.VIDEO, zoo.START, zoo.END):
        labels = labels.masked_fill(labels == special, -100)
    # Text in front of a picture is no answer.
    labels[:, : labels.shape[1] // 3] = -100
    return {**inputs, "labels": labels}


def loss_is_finite_and_repeats(draw: Draw, model: Any) -> None:
    inputs = _cast(_labelled(draw), model)
    with _attached(model, draw), torch.no_grad():
        one, two = (float(model(**inputs).loss) for _ in range(2))
    if one != two or not 0 <= one < float("inf"):
        raise Broken(f"losses of the same batch are {one} and {two}")


def checkpointing_changes_nothing(draw: Draw, model: Any) -> None:
    if not getattr(model, "supports_gradient_checkpointing", False):
        return
    inputs, found = _cast(_labelled(draw), model), []
    weight = model.get_input_embeddings().weight
    for checkpointed in (False, True):
        model.train()
        if checkpointed:
            model.gradient_checkpointing_enable()
        try:
            with _attached(model, draw):
                torch.manual_seed(draw.seed)
                loss = model(**inputs, use_cache=False).loss
                (grad,) = torch.autograd.grad(loss, weight, allow_unused=True)
            found.append((loss.detach(), grad))
        finally:
            model.gradient_checkpointing_disable()
            model.eval()
            model.zero_grad(set_to_none=True)
    (loss, grad), (loss2, grad2) = found
    if next(model.parameters()).dtype == torch.bfloat16:
        return
    off = max(float((loss - loss2).abs()), float((grad - grad2).abs().max()))
    if not off < 1e-3:
        raise Broken(f"gradient checkpointing changes loss or gradients by {off:.2g}")


def order_does_not_matter(draw: Draw, model: Any) -> None:
    rows = draw.rows()
    with _attached(model, draw):
        forth = _run(model, draw.inputs(rows), draw)
        back = _run(model, draw.inputs(rows[::-1]), draw)
    for b in range(len(rows)):
        _same(draw, model, forth.row(b), back.row(-1 - b), f"row {b} of the batch turned round")


def caches_hold_what_is_reported(draw: Draw, model: Any) -> None:
    """Layer 0 holds as many columns as the report says entered, and text."""
    draw = replace(draw, padding=0, samples=draw.samples[:1], side="left")
    inputs = _cast(draw.inputs(), model)
    with _attached(model, draw) as attachment, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        report = attachment.report
    if not report.tokens_by_layer:
        return
    text = inputs["input_ids"].shape[1] - sum(report.tokens_in)
    entered = sum(layers[0] for layers in report.tokens_by_layer)
    held = cache.layers[0].get_seq_length()
    if held != text + entered and not getattr(cache.layers[0], "is_sliding", False):
        raise Broken(f"layer 0 holds {held} columns, of {text} words and {entered} visual tokens")
    for kept, out in zip(report.kept, report.tokens_out, strict=True):
        if len(kept) != out:
            raise Broken(f"{len(kept)} tokens are listed as kept, {out} are counted")


LAWS: dict[str, Callable[[Draw, Any], None]] = {
    "generate": batch_is_its_rows,
    "forward": forward_is_its_rows,
    "keep_all": keeping_all_is_bare,
    "again": twice_is_once,
    "detach": detached_is_bare,
    "beams": beams_are_their_rows,
    "static": static_is_dynamic,
    "eager": eager_is_sdpa,
    "turns": turns_go_on,
    "several": several_are_one_by_one,
    "lookup": lookup_is_greedy,
    "labels": loss_is_finite_and_repeats,
    "checkpointed": checkpointing_changes_nothing,
    "order": order_does_not_matter,
    "short": caches_hold_what_is_reported,
}
