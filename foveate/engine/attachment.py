"""`attach`: a method living on a model, and the taps that make it work."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from foveate.engine.anatomy import Anatomy, anatomy
from foveate.engine.apart import apart
from foveate.engine.boundary import Boundaries
from foveate.engine.caching import Caches
from foveate.engine.call import Pass
from foveate.engine.clock import Clock
from foveate.engine.encoding import Encoder
from foveate.engine.kept import KeptLayer
from foveate.engine.labels import Targets, expanded, moved
from foveate.engine.places import locate, towered
from foveate.engine.planes import Planes
from foveate.engine.prompt import (
    Prompt,
    cache_in,
    prompt_of,
    seen_columns,
    shifted,
    tag,
    untag,
)
from foveate.engine.record import Record
from foveate.engine.reporting import build_report
from foveate.engine.rules import Rules
from foveate.engine.splice import Splice, compute_3d
from foveate.engine.taps import Reader, surrounded, tapped
from foveate.errors import AlreadyAttached, FoveateError, UnsupportedCall
from foveate.method import Method, as_method, in_road_order
from foveate.parts import CachesPart, EncodersPart, FramesPart, Part, RulePart, TokensPart
from foveate.report import Report


@dataclass
class Call(threading.local):
    """What belongs to the forward call that is running in this thread."""

    decoder: Pass | None = None
    prefilled: Prompt | None = None
    targets: Targets = field(default_factory=Targets)
    answered: Targets = field(default_factory=Targets)
    stack: ExitStack | None = None
    clocked: str | None = None
    encoding: bool = False
    towers: list = field(default_factory=list)


class Attachment:
    """A method on a model. Ends with `detach()`, or as a context manager; the model is then bare.

    Attributes:
        method: what is attached.
        report: figures of the last call, None before the first one with visual tokens.
        full_logits: whether logits have an entry for each token that was passed; see `attach`.
    """

    def __init__(self, model: nn.Module, method: Method, full_logits: bool | None = None):
        self.anatomy: Anatomy = anatomy(model)
        self.method = method
        self.full_logits = full_logits
        inner: Any = self.anatomy.inner
        if "_foveate" in inner.__dict__:
            raise AlreadyAttached(
                f"{type(self.anatomy.outer).__name__} carries {inner._foveate.method!r} already; "
                "detach it first, or compose methods with +."
            )
        layers = len(self.anatomy.layers)
        method.check(width=self.anatomy.text.config.hidden_size, layers=layers)
        parts = in_road_order(method.parts())
        self._refuse_foreign(parts)
        self._tokens = [p for p in parts if isinstance(p, TokensPart)]
        shortening = [p for p in parts if isinstance(p, FramesPart | EncodersPart | TokensPart)]
        self._packed = any(self.anatomy.packs(p.positions) for p in shortening)
        self._boundaries = Boundaries(self.anatomy, parts)
        self._caches = Caches(self.anatomy, [p for p in parts if isinstance(p, CachesPart)])
        rules = [p for p in parts if isinstance(p, RulePart)]
        self._rules = Rules(self.anatomy, rules, self._boundaries)
        self._encoder = Encoder(self.anatomy, parts)
        self._planes = Planes(self.anatomy, self._boundaries)
        self._replaced = self.anatomy.family.replaced(inner)
        self._call = Call()
        self._clock: Clock | None = None
        self._report: Any = None
        self._handles: list[Any] = []
        self._attach()

    @property
    def report(self) -> Report | None:
        """Figures of the last call."""
        return None if self._report is None else self._report()

    def align_labels(self, labels: Tensor) -> Tensor:
        """Labels that fit the logits of the last forward call, for a loss outside the model.

        Args:
            labels: (B, L), an entry for each token that was passed, -100 where none counts.

        Returns (B, N), an entry for each token that is left behind the last layer: -100 for padding
        and for the first token of a row. Shift them against the logits as ever.
        """
        prompt = self._call.answered.shortened
        if prompt is None:
            return labels
        if labels.shape != (len(prompt.stages[-1].index), prompt.length):
            raise UnsupportedCall(
                f"Labels of shape {tuple(labels.shape)} don't fit the last forward call, which had "
                f"{len(prompt.stages[-1].index)} rows of {prompt.length} tokens."
            )
        return moved(labels, prompt.stages[-1])

    def expand_logits(self, logits: Tensor) -> Tensor:
        """Logits of the last forward call at each token that was passed, (B, L, V).

        Args:
            logits: (B, N, V), for each token that is left behind the last layer.

        A dropped token repeats the logits of the last one in front that was kept: they predict the
        token behind it. So `expand_logits(logits)[:, :-1]` are the scores of `input_ids[:, 1:]`.
        """
        prompt = self._call.answered.shortened
        if prompt is None:
            return logits
        if logits.dim() != 3 or logits.shape[:2] != prompt.stages[-1].index.shape:
            raise UnsupportedCall(
                f"Logits of shape {tuple(logits.shape)} are not those of the last forward call, "
                f"which left {prompt.stages[-1].n} tokens in each row."
            )
        return expanded(logits, prompt)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: Any) -> None:
        self.detach()

    def detach(self) -> None:
        """Take every hook away; a second time does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for modality in self.anatomy.modalities:
            self.anatomy.inner.__dict__.pop(f"get_{modality}_features", None)
        for name in self._replaced:
            self.anatomy.inner.__dict__.pop(name, None)
        if self.anatomy.inner.__dict__.get("_foveate") is self:
            del self.anatomy.inner.__dict__["_foveate"]
        self._finish()

    def _refuse_foreign(self, parts: list[Part]) -> None:
        hosted = ("frames", "encoders", "tokens", "layers", "caches")
        for part in parts:
            if part.stage not in hosted:
                raise FoveateError(
                    f"{type(part).__name__} acts at stage {part.stage!r}, which attach doesn't "
                    f"host; it hosts {', '.join(hosted)}."
                )

    def _attach(self) -> None:
        a = self.anatomy
        a.inner.__dict__["_foveate"] = self
        for modality in a.modalities:
            name = f"get_{modality}_features"
            a.inner.__dict__[name] = self._wrap(modality, getattr(a.inner, name))
        a.inner.__dict__.update(self._replaced)
        add = self._handles.append
        add(a.outer.register_forward_pre_hook(self._before_outer, with_kwargs=True))
        add(a.outer.register_forward_hook(self._after_outer, with_kwargs=True, always_call=True))
        add(a.inner.register_forward_pre_hook(self._before_inner, with_kwargs=True))
        add(a.inner.register_forward_hook(self._after_inner, with_kwargs=True, always_call=True))
        if self._boundaries:
            self._attach_boundaries()
        if self._caches:
            for i, layer in enumerate(a.layers):
                before = functools.partial(self._before_cached, i)
                add(layer.register_forward_pre_hook(before, with_kwargs=True))
                after = functools.partial(self._after_cached, i)
                add(layer.register_forward_hook(after, with_kwargs=True))
        # Behind the boundaries' hooks: rules hold for the columns that are left.
        for i in self._rules.at:
            hook = functools.partial(self._rules_before_layer, i)
            add(a.layers[i].register_forward_pre_hook(hook, with_kwargs=True))

    def _attach_boundaries(self) -> None:
        a, add = self.anatomy, self._handles.append
        add(a.text.register_forward_pre_hook(self._planes.before_text, with_kwargs=True))
        for i, layer in enumerate(a.layers):
            if i >= self._boundaries.start:
                hook = functools.partial(self._before_layer, i)
                add(layer.register_forward_pre_hook(hook, with_kwargs=True))
            if i in self._boundaries.detours.at:
                add(layer.register_forward_hook(self._after_layer))
            hook = functools.partial(self._planes.after_layer, i)
            add(layer.register_forward_hook(hook))

    def _wrap(self, modality: str, original):
        names = [n for n in inspect.signature(original).parameters if n != "kwargs"]

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any):
            # Some families encode videos by calling their own image function.
            if self._call.encoding:
                return original(*args, **kwargs)
            inputs = {**dict(zip(names, args, strict=False)), **kwargs}
            if self._clock is None or self._clock.count("prefill"):
                self._clock = Clock(next(self.anatomy.inner.parameters()).device)
            self._call.encoding = True
            try:
                with self._clock.span("encode"):
                    return self._encoder.run(modality, original, inputs)
            finally:
                self._call.encoding = False

        return wrapper

    def _before_outer(self, _: nn.Module, args: tuple, kwargs: dict):
        names = inspect.signature(self.anatomy.outer.forward).parameters if args else ()
        kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
        self._call.targets = targets = Targets()
        return (), targets.take(kwargs)

    def _after_outer(self, outer: nn.Module, args: tuple, kwargs: dict, output: Any):
        self._call.prefilled = None
        self._call.answered, self._call.targets = self._call.targets, Targets()
        if output is None:
            return None
        training = outer.training and torch.is_grad_enabled()
        return self._call.answered.whole(output, self.full_logits, training)

    def _before_inner(self, inner: nn.Module, args: tuple, kwargs: dict):
        self._finish()
        self._call.prefilled = None
        kw = self.anatomy.bind(args, kwargs)
        outputs = {m: o for m, o in (kw.get("mm_encoder_outputs") or {}).items() if o is not None}
        inside_generate = bool(outputs)
        for modality in self.anatomy.modalities:
            if outputs.get(modality) is None:
                encoded = self._encode(inner, modality, kw)
                if encoded is not None:
                    outputs[modality] = encoded
        if not outputs and not self._starts_text(kw):
            return (), self._continue(kw)
        ids = kw.get("input_ids")
        if ids is None:
            raise UnsupportedCall(
                "Visual tokens can't be found in inputs_embeds; pass input_ids with placeholders."
            )
        if ids.shape[1] == 1 and outputs:
            return (), self._continue(kw)
        return (), self._prefill(kw, outputs, inside_generate)

    def _starts_text(self, kw: dict[str, Any]) -> bool:
        """Whether rules hold for this call though it has no visual tokens."""
        cache = cache_in(kw)
        empty = cache is None or not seen_columns(cache)
        return self._rules.textual and empty and kw.get("input_ids") is not None

    def _encode(self, inner: nn.Module, modality: str, kw: dict[str, Any]):
        if all(kw.get(name) is None for name in self.anatomy.pixels(modality)):
            return None
        features = getattr(inner, f"get_{modality}_features")
        names = [n for n in inspect.signature(features).parameters if kw.get(n) is not None]
        return features(**{n: kw[n] for n in names}, return_dict=True)

    def _prefill(self, kw: dict[str, Any], outputs: dict, inside_generate: bool) -> dict[str, Any]:
        cache = cache_in(kw)
        if cache is not None and seen_columns(cache):
            raise UnsupportedCall(
                "A new picture behind a filled cache can't be reduced; start a fresh call with the "
                "whole conversation."
            )
        if cache is not None:
            untag(cache)
        records: dict[str, Record] = {}
        for modality, output in outputs.items():
            record = output.get("foveate") if isinstance(output, Mapping) else None
            if record is None:
                raise UnsupportedCall(
                    f"The {modality} features were made or cut outside this model; pass pixels, "
                    "and leave prefill_chunk_size unset."
                )
            if not self._encoder.serves(record):
                raise UnsupportedCall(
                    f"The {modality} features were encoded under another method, which asked "
                    "something else of the vision encoder; encode them again."
                )
            records[modality] = record
        self.anatomy.family.check(self.anatomy.config, kw)
        keep = self._call.targets.logits_to_keep
        candidates = keep - 1 if inside_generate and isinstance(keep, int) and keep > 1 else 0
        if candidates and self.anatomy.family.prefix:
            raise UnsupportedCall(
                f"In {self.anatomy.family.name} the candidates of an assistant model would join "
                "the bidirectional prompt; generate without assistant_model."
            )
        if self._caches:
            self._caches.refuse(cache, candidates)
        clock = self._clock or Clock(kw["input_ids"].device)
        self._clock = clock
        kw["mm_encoder_outputs"] = None
        with clock.span("select"):
            splice = Splice(self.anatomy, kw, outputs, records)
            given = splice.given() if self._rules else None
            reduced = splice.reduce(self._tokens, self.method.prompt_agnostic)
            if any(record.changed for record in records.values()):
                prompt = splice.shorten(reduced, self._packed)
            else:
                prompt = splice.whole(positions=bool(self._boundaries or self._rules))
        prompt.traces = splice.traces(reduced)
        prompt.given, prompt.rules = given, self._rules.parts
        if self._boundaries:
            locate(prompt, splice.rows, prompt.traces)
        if self._boundaries or self._rules or self._caches:
            call = Pass(prompt, True, labels=self._call.targets.labels, candidates=candidates)
            call.towered = towered(
                prompt,
                splice.rows,
                self._boundaries.towered,
                lambda p, need: records[p.modality].attention(
                    p.number, need, reduced[p.modality][p.number]
                ),
            )
            if self._boundaries:
                self._planes.arm(call)
            self._enter(call, dict(self._boundaries.readers(call)))
        if not outputs:
            splice.kw["mm_encoder_outputs"] = None
        self._call.prefilled = prompt
        # Counts only: features and signals must not outlive the call.
        self._call.towers = [run for record in records.values() for run in record.tower]
        clock.start("prefill")
        self._call.clocked = "prefill"
        return splice.kw

    def _enter(
        self, call: Pass, readers: dict[int, Reader], held: dict[int, KeptLayer] | None = None
    ) -> None:
        """Let parts see and change what the decoder's layers do in this call.

        held: layers of the cache to attend to as they are, where nobody else looks on.
        """
        self._call.decoder = call
        self._call.stack = stack = ExitStack()
        shadows: dict[int, Any] = {}
        around = self._rules.enter(call, readers, shadows, stack)
        for i in readers.keys() - around:
            attention = self.anatomy.layers[i].self_attn
            stack.enter_context(tapped(attention, readers[i], shadows))
        for i, layer in (held or {}).items():
            if i not in readers and i not in around:
                answer = stack.enter_context(apart(layer))
                stack.enter_context(surrounded(self.anatomy.layers[i].self_attn, answer, shadows))
        if call.prefill:
            for watcher in self._boundaries.watchers(call):
                stack.enter_context(watcher)

    def _continue(self, kw: dict[str, Any]) -> dict[str, Any]:
        """A call without new pictures: text only, a decode step, or a second turn."""
        cache = cache_in(kw)
        prompt = prompt_of(cache)
        if cache is None or prompt is None:
            return kw
        if prompt.soft:
            raise UnsupportedCall(
                "The cache was filled while choices were soft, in training; fill it anew without "
                "labels, or pass use_cache=False."
            )
        new: Any = kw.get("inputs_embeds") if kw.get("input_ids") is None else kw["input_ids"]
        b, q = new.shape[:2]
        entry = prompt.at(0)
        if b != entry.valid.shape[0]:
            raise UnsupportedCall(
                f"The cache was filled by {entry.valid.shape[0]} rows and is continued by {b}; "
                "continue it with the same batch."
            )
        if prompt.rules != self._rules.parts:
            raise UnsupportedCall(
                "The cache was filled under other rules than this method's; continue it with the "
                "method that filled it, or start a fresh call."
            )
        if self._clock is not None:
            self._clock.start("decode")
            self._call.clocked = "decode"
        positions = self._new_positions(kw, prompt, b, q)
        behind = _padding_behind(kw.get("attention_mask"), prompt.length)
        if prompt.missing or entry.ragged and prompt.reduced:
            kw["attention_mask"] = self._decode_mask(kw.get("attention_mask"), prompt, cache, b, q)
        if positions is not None and (
            kw.get("position_ids") is not None or entry.shift is not None
        ):
            kw["position_ids"] = shifted(positions, prompt.first.shift)
        if self._boundaries or self._rules or self._caches:
            call = Pass(prompt, False, positions=positions, behind=behind)
            call.idle = self._boundaries.idle(call, cache, q)
            held = self._caches.apart(cache, q, kw.get("attention_mask"))
            self._enter(call, dict(self._caches.readers(call, cache, q)), held)
        return kw

    def _new_positions(self, kw: dict[str, Any], prompt: Prompt, b: int, q: int) -> Tensor | None:
        """Ids of new columns as the bare model would count them; None where nobody asks."""
        given = kw.get("position_ids")
        asked = self._rules or any(s.shift is not None for s in prompt.stages)
        if given is not None or not asked:
            return given
        if hasattr(self.anatomy.inner, "compute_3d_position_ids"):
            return compute_3d(self.anatomy.inner, kw, b, q)
        device = prompt.first.valid.device
        seen = cache_in(kw).get_seq_length()
        return (torch.arange(q, device=device) + seen)[None] + self.anatomy.family.position_offset

    def _decode_mask(
        self, mask: Any, prompt: Prompt, cache: Cache, b: int, q: int
    ) -> Tensor | None:
        first = prompt.at(0)
        if mask is None and not first.ragged:
            return None
        if mask is None or isinstance(mask, dict) or mask.dim() == 4:
            new = seen_columns(cache) - first.n + q
            behind = torch.ones(b, new, dtype=torch.long, device=first.valid.device)
        else:
            behind = mask[:, prompt.length :].long()
        return torch.cat([first.valid.long(), behind], 1)

    def _before_layer(self, i: int, module: nn.Module, args: tuple, kwargs: dict):
        call = self._call.decoder
        if call is None or call.idle and kwargs.get("attention_mask") is None:
            return None
        return self._boundaries.before_layer(i, call, module, args, kwargs)

    def _after_layer(self, _: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        call = self._call.decoder
        return None if call is None else self._boundaries.detours.leave(call, output)

    def _before_cached(self, i: int, module: nn.Module, args: tuple, kwargs: dict):
        call = self._call.decoder
        return None if call is None else self._caches.before_layer(i, call, module, args, kwargs)

    def _after_cached(self, i: int, _: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if self._call.decoder is not None:
            self._caches.after_layer(i, self._call.decoder, kwargs)

    def _rules_before_layer(self, i: int, module: nn.Module, args: tuple, kwargs: dict):
        call = self._call.decoder
        if call is None:
            return None
        changed = self._rules.before_layer(i, call, module, args[0], kwargs)
        return None if changed is None else (args, changed)

    def _after_inner(self, _: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        prompt = self._call.prefilled
        if output is not None and prompt is not None:
            cache = _cache_of(output, kwargs)
            if cache is not None:
                tag(cache, prompt)
            self._call.targets.follow(prompt)
        self._finish()
        if output is not None and prompt is not None:
            clock = self._clock or Clock(prompt.first.valid.device)
            self._report = build_report(self.anatomy, self.method, prompt, self._call.towers, clock)

    def _finish(self) -> None:
        if self._call.stack is not None:
            self._call.stack.close()
            self._call.stack = None
        if self._call.clocked is not None and self._clock is not None:
            self._clock.stop(self._call.clocked)
        self._call.clocked = None
        if self._call.decoder is not None:
            self._call.decoder.over = True
        self._call.decoder = None
        self._planes.disarm()


def _padding_behind(mask: Any, length: int) -> Tensor | None:
    """Which columns (B, new) behind the prompt are no padding; None where all are."""
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        return None
    behind = mask[:, length:].bool()
    return None if bool(behind.all()) else behind


def _cache_of(output: Any, kwargs: dict) -> Cache | None:
    given = cache_in(kwargs)
    if given is not None:
        return given
    if isinstance(output, tuple):
        return next((x for x in output if isinstance(x, Cache)), None)
    return cache_in(output)


def attach(
    model: nn.Module, method: Method | str, *, full_logits: bool | None = None, **parameters: Any
) -> Attachment:
    """Make `model` run with `method` until `detach()`; also a context manager.

    Args:
        model: a transformers vision-language model of a supported family, bare or wrapped by peft.
        method: a method, or the slug of one.
        full_logits: True gives logits for each token that was passed, where dropped tokens repeat
            those of the last one in front that was kept: for losses and scores that are computed
            outside the model (label smoothing, DPO). False gives logits of the tokens that are
            left, see `Attachment.align_labels`. The default, None, does as well, except in
            training without labels, which raises `UnsupportedCall`.
        parameters: those of the method that a slug names, such as `keep=64`.

    Raises `UnsupportedModel` for any other model, `AlreadyAttached` for one that carries a method.
    """
    return Attachment(model, as_method(method, **parameters), full_logits)
