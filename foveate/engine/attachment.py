"""`attach`: a method living on a model, and the taps that make it work."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from foveate.engine.anatomy import Anatomy, anatomy
from foveate.engine.attention_taps import Reader, surrounded, tapped
from foveate.engine.cache.cache_parts import Caches
from foveate.engine.cache.provenance import Filled, filled_of, tag, untag
from foveate.engine.cache.stored_attention import apart
from foveate.engine.cache.stored_layer import KeptLayer, refuse_foreign
from foveate.engine.clock import Clock
from foveate.engine.copies import exclude_from_copies, include_in_copies
from foveate.engine.decoder.boundaries import Boundaries
from foveate.engine.decoder.checkpointing import hooks_outside
from foveate.engine.decoder.deepstack import Planes
from foveate.engine.decoder.forward_call import DecoderCall
from foveate.engine.decoder.rules import Rules
from foveate.engine.prompt.attention_structure import own_mask, plain, refuse_structure
from foveate.engine.prompt.host_copy import Known, read
from foveate.engine.prompt.labels import Targets, expanded, moved
from foveate.engine.prompt.locations import locate, towered
from foveate.engine.prompt.prompt import Prompt, cache_in, seen_columns, shifted
from foveate.engine.prompt.splice import TYPE_NAMES, Splice, compute_3d, worded
from foveate.engine.reporting import Reporter
from foveate.engine.thread_lock import lock_of, running
from foveate.engine.tower.encode import Encoder
from foveate.engine.tower.items import Record
from foveate.errors import AlreadyAttached, FoveateError, UnsupportedCall, shown
from foveate.method import Method, as_method, in_road_order
from foveate.parts import CachesPart, EncodersPart, FramesPart, Part, RulePart, TokensPart
from foveate.report import Report
from foveate.signals import DecoderKeys
from foveate.totals import Totals


@dataclass(eq=False)
class Call:
    """What belongs to one call of the inner model that is running.

    text: makes the books of its prompt where that has no visual tokens. filled: what is known of
    the cache that it continues, by how many columns. ahead: what a prompt gave that ran first.
    lent: name of a cache that its caller has not and must not get.
    """

    asked: Targets
    decoder: DecoderCall | None = None
    filled: Filled | None = None
    columns: int = 0
    ahead: Any = None
    lent: str | None = None
    prompt: Prompt | None = None
    text: Callable[[], Prompt] | None = None
    stack: ExitStack = field(default_factory=ExitStack)
    clock: Clock | None = None
    clocked: str = ""
    towers: list = field(default_factory=list)

    def close(self) -> None:
        """Take away what was put around layers for it."""
        self.stack.close()
        if self.filled is not None:
            self.filled.open = False
        if self.decoder is not None:
            self.decoder.over = True
        if self.clock is not None:
            self.clock.stop(self.clocked)


class Here(threading.local):
    """The calls that are running in this thread, innermost last."""

    def __init__(self) -> None:
        self.asked: list[Targets] = []
        self.answered = Targets()
        self.calls: list[Call] = []
        self.clock: Clock | None = None
        self.encoding = False
        self.known: Known | None = None
        # Columns of the prompt that `generate` was given, while it runs.
        self.prompted: int | None = None

    @property
    def decoder(self) -> DecoderCall | None:
        """What the layers of the innermost call share."""
        return self.calls[-1].decoder if self.calls else None


class Attachment:
    """A method on a model. Ends with `detach()`, or as a context manager; the model is then bare.

    Threads may call the model at once: each forward call has it for itself. A copy of the model,
    by `copy.deepcopy`, pickle or `torch.save`, comes without the method.

    Attributes:
        method: what is attached.
        report: figures of the last prompt, an empty `Report` before the first one. That of a prompt
            without visual tokens has no items. Decode steps count for the prompt whose cache they
            continue.
        reports: `Totals` over all prompts since `attach`.
        full_logits: whether logits have an entry for each token that was passed; see `attach`.
        record_scores: whether reports keep the scores by which methods ranked tokens; see `attach`.
            Can be set at any time, and holds from the next call on.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        full_logits: bool | None = None,
        record_scores: bool = False,
    ):
        self.anatomy: Anatomy = anatomy(model)
        self.method = method
        self.full_logits = full_logits
        self.record_scores = record_scores
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
        self._here = Here()
        self._reporter = Reporter(self.anatomy, method)
        self._hooks: dict[nn.Module, list[Any]] = {}
        towers = [self.anatomy.tower(m) for m in self.anatomy.modalities]
        self._lock = lock_of([self.anatomy.text, *towers])
        self._attach()

    @property
    def report(self) -> Report:
        """Figures of the last prompt; empty, and False as a condition, before the first one."""
        return self._reporter.report

    @property
    def reports(self) -> Totals:
        """Sums over all prompts since `attach`."""
        return self._reporter.totals

    def align_labels(self, labels: Tensor) -> Tensor:
        """Labels that fit the logits of the last forward call, for a loss outside the model.

        Args:
            labels: (B, L), an entry for each token that was passed, -100 where none counts.

        Returns (B, N), an entry for each token that is left behind the last layer: -100 for padding
        and for the first token of a row. Shift them against the logits as ever.
        """
        if not isinstance(labels, Tensor):
            raise UnsupportedCall(f"labels={shown(labels)} is no tensor; pass one of (B, L).")
        prompt = self._here.answered.shortened
        if prompt is None:
            return labels
        if labels.shape != (len(prompt.stages[-1].prompt_column), prompt.length):
            raise UnsupportedCall(
                f"Labels of shape {tuple(labels.shape)} don't fit the last forward call, which had "
                f"{len(prompt.stages[-1].prompt_column)} rows of {prompt.length} tokens."
            )
        return moved(labels, prompt.stages[-1])

    def expand_logits(self, logits: Tensor) -> Tensor:
        """Logits of the last forward call at each token that was passed, (B, L, V).

        Args:
            logits: (B, N, V), for each token that is left behind the last layer.

        A dropped token repeats the logits of the last one in front that was kept: they predict the
        token behind it. So `expand_logits(logits)[:, :-1]` are the scores of `input_ids[:, 1:]`.
        """
        if not isinstance(logits, Tensor):
            raise UnsupportedCall(f"logits={shown(logits)} is no tensor; pass one of (B, N, V).")
        prompt = self._here.answered.shortened
        if prompt is None:
            return logits
        if logits.dim() != 3 or logits.shape[:2] != prompt.stages[-1].prompt_column.shape:
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
        for module, handles in self._hooks.items():
            include_in_copies(module)
            for handle in handles:
                handle.remove()
        self._hooks.clear()
        a = self.anatomy
        if a.inner.__dict__.get("_foveate") is self:
            for name in (*self._own, "_foveate"):
                a.inner.__dict__.pop(name, None)
            for name in (*_BATCHED, "generate"):
                a.outer.__dict__.pop(name, None)
        self._drop(self._here.calls, 0)

    @property
    def _own(self) -> list[str]:
        """Attributes of the inner model while this is attached to it."""
        return [*self._encoders, *self._replaced]

    @property
    def _encoders(self) -> list[str]:
        return [f"get_{modality}_features" for modality in self.anatomy.modalities]

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
        for modality, name in zip(a.modalities, self._encoders, strict=True):
            a.inner.__dict__[name] = self._wrap(modality, getattr(a.inner, name))
        a.inner.__dict__.update(self._replaced)
        a.outer.__dict__["generate"] = self._wrap_generate(a.outer.generate)
        for name in _BATCHED:
            if hasattr(a.outer, name):
                a.outer.__dict__[name] = _refuse_batching
        self._before(a.outer, self._before_outer)
        self._behind(a.outer, self._after_outer, with_kwargs=True, always_call=True)
        self._before(a.inner, self._before_inner)
        self._behind(a.inner, self._after_inner, with_kwargs=True, always_call=True)
        if self._boundaries:
            self._attach_boundaries()
        if self._caches:
            for i, layer in enumerate(a.layers):
                self._before(layer, functools.partial(self._before_cached, i))
                after = functools.partial(self._after_cached, i)
                self._behind(layer, after, with_kwargs=True)
        # Behind the boundaries' hooks: rules hold for the columns that are left.
        for i in self._rules.at:
            self._before(a.layers[i], functools.partial(self._rules_before_layer, i))
        own = {a.inner: (*self._own, "_foveate"), a.outer: (*_BATCHED, "generate")}
        for module, handles in self._hooks.items():
            exclude_from_copies(module, {handle.id for handle in handles}, own.get(module, ()))

    def _attach_boundaries(self) -> None:
        a = self.anatomy
        self._before(a.text, self._before_text)
        self._before(a.text.rotary_emb, self._before_rotary)
        self._behind(a.text.rotary_emb, self._after_rotary, with_kwargs=True)
        for i, layer in enumerate(a.layers):
            if i >= self._boundaries.start:
                self._before(layer, functools.partial(self._before_layer, i))
            if DecoderKeys(i) in self._boundaries.needs:
                self._before(layer, functools.partial(self._before_keys, i))
            if i in self._boundaries.detours.at:
                self._behind(layer, self._after_layer)
            self._behind(layer, functools.partial(self._add_plane, i))

    def _before(self, module: nn.Module, hook: Any) -> None:
        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        self._hooks.setdefault(module, []).append(handle)

    def _behind(self, module: nn.Module, hook: Any, **how: bool) -> None:
        handle = module.register_forward_hook(hook, **how)
        self._hooks.setdefault(module, []).append(handle)

    def _wrap(self, modality: str, original):
        names = [n for n in inspect.signature(original).parameters if n != "kwargs"]

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any):
            here = self._here
            # Some families encode videos by calling their own image function.
            if here.encoding:
                return original(*args, **kwargs)
            _refuse_coarse()
            inputs = {**dict(zip(names, args, strict=False)), **kwargs}
            self._reporter.settle()
            if here.clock is None or here.clock.count("prefill"):
                here.clock = self._reporter.clock(next(self.anatomy.inner.parameters()).device)
            with self._lock, here.clock.span("encode"):
                here.encoding = True
                try:
                    clock, record = here.clock, self.record_scores
                    return self._encoder.run(modality, original, inputs, clock, record)
                finally:
                    here.encoding = False

        return wrapper

    def _wrap_generate(self, original):
        """`generate` encodes before the model sees ids; on a device they are read before that."""

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any):
            ids = kwargs.get("input_ids")
            ids = kwargs.get("inputs", args[0] if args else None) if ids is None else ids
            given = {**kwargs, "input_ids": ids}
            rows = isinstance(ids, Tensor) and ids.dim() == 2
            whole = rows and isinstance(given.get("attention_mask"), Tensor)
            if whole and ids.device.type != "cpu":
                self._here.known = read(given)
            self._here.prompted = ids.shape[1] if rows else None
            try:
                return original(*args, **kwargs)
            finally:
                self._here.known = self._here.prompted = None

        return wrapper

    def _before_outer(self, outer: nn.Module, args: tuple, kwargs: dict):
        _refuse_tracing()
        here = self._here
        self._drop(here.asked, running(outer) - 1 if here.asked else 0)
        names = inspect.signature(self.anatomy.outer.forward).parameters if args else ()
        kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
        here.asked.append(Targets())
        return (), here.asked[-1].take(kwargs)

    def _after_outer(self, outer: nn.Module, args: tuple, kwargs: dict, output: Any):
        if not self._here.asked:
            return None
        self._here.answered = answered = self._here.asked.pop()
        if output is None:
            return None
        training = outer.training and torch.is_grad_enabled()
        return answered.whole(output, self.full_logits, training)

    def _before_inner(self, inner: nn.Module, args: tuple, kwargs: dict):
        _refuse_tracing()
        if inner is not self.anatomy.inner:
            raise UnsupportedCall(
                "A replica of an attached model, as nn.DataParallel makes them, would answer with "
                "the original's parts; attach in a process of its own per device."
            )
        here = self._here
        # What an interrupted call left behind; a call that runs inside another one is none of it.
        self._drop(here.calls, running(inner) - 1 if here.calls else 0)
        self._lock.enter()
        outside = here.asked[-1] if here.asked else None
        inside = outside is None or any(call.asked is outside for call in here.calls)
        here.calls.append(Call(Targets() if inside else outside))
        self._lock.cleanups.append(here.calls[-1].close)
        kw = self.anatomy.bind(args, kwargs)
        if cache_in(kw) is not None and not hasattr(cache_in(kw), "layers"):
            _refuse_batching()
        outputs = {m: o for m, o in (kw.get("mm_encoder_outputs") or {}).items() if o is not None}
        inside_generate = bool(outputs)
        known = None if inside_generate or not self._pictured(kw) else read(kw)
        for modality in self.anatomy.modalities:
            if outputs.get(modality) is None:
                encoded = self._encode(inner, modality, kw)
                if encoded is not None:
                    outputs[modality] = encoded
        ids = kw.get("input_ids")
        if ids is None and (outputs or self._starts(kw)):
            raise UnsupportedCall(
                "Visual tokens can't be found in inputs_embeds; pass input_ids with placeholders."
            )
        if not outputs and not (self._rules.textual and self._starts(kw)):
            return (), self._continue(kw)
        if ids.shape[1] == 1 and outputs:
            return (), self._continue(kw)
        grown = self._grown(kw) if inside_generate else 0
        if grown:
            name = "cache" if "cache" in kw else "past_key_values"
            cached = {**kw, name: DynamicCache(config=self.anatomy.text.config)}
            here.calls[-1].lent = name
            return (), self._prompt_first(inner, cached, outputs, candidates=grown)
        keep = here.calls[-1].asked.logits_to_keep
        if inside_generate and isinstance(keep, int) and keep > 1:
            # An assistant model proposes candidates, of which logits are asked too.
            return (), self._prompt_first(inner, kw, outputs, candidates=keep - 1)
        if inside_generate and here.known is not None:
            known = here.known.behind(ids)
        kw = self._prefill(kw, outputs, known or read(kw))
        reads = not self.method.prompt_agnostic
        here.calls[-1].prompt.open_end = inside_generate and reads and not self._counts_logits
        return (), kw

    def _grown(self, kw: dict[str, Any]) -> int:
        """Columns that `generate` put behind its prompt, which it runs anew at each step if it
        has no cache: none of the question, where a part reads the question or a layer changes.
        """
        prompted = self._here.prompted
        inside = self._boundaries or self._rules or self._caches or not self.method.prompt_agnostic
        if prompted is None or not inside or cache_in(kw) is not None:
            return 0
        return max(0, kw["input_ids"].shape[1] - prompted)

    @functools.cached_property
    def _counts_logits(self) -> bool:
        """Whether the model is told how many columns at the end are asked for."""
        return "logits_to_keep" in inspect.signature(self.anatomy.outer.forward).parameters

    def _refuse_unseen(self, ids: Tensor | None) -> None:
        """Raise for a prompt (B, L) without its pictures, whose placeholders would be read as text.

        One new token isn't looked at: it would wait for the device at every step.
        """
        if ids is None or ids.shape[1] == 1:
            return
        marks = [self.anatomy.placeholder(m) for m in self.anatomy.modalities]
        unseen = sum((ids == mark for mark in marks if mark is not None), torch.zeros_like(ids))
        if bool(unseen.any()):
            raise UnsupportedCall(
                "The prompt has placeholders and no pixels came with it; pass them, and leave "
                "prefill_chunk_size unset."
            )

    def _starts(self, kw: dict[str, Any]) -> bool:
        """Whether this call begins a prompt."""
        cache = cache_in(kw)
        return cache is None or not seen_columns(cache)

    def _pictured(self, kw: dict[str, Any]) -> bool:
        """Whether a call brings ids and pixels."""
        pixels = (name for m in self.anatomy.modalities for name in self.anatomy.pixels(m))
        return kw.get("input_ids") is not None and any(kw.get(n) is not None for n in pixels)

    def _encode(self, inner: nn.Module, modality: str, kw: dict[str, Any]):
        if all(kw.get(name) is None for name in self.anatomy.pixels(modality)):
            return None
        features = getattr(inner, f"get_{modality}_features")
        names = [n for n in inspect.signature(features).parameters if kw.get(n) is not None]
        return features(**{n: kw[n] for n in names}, return_dict=True)

    def _prompt_first(
        self, inner: nn.Module, kw: dict[str, Any], outputs: dict, candidates: int
    ) -> dict[str, Any]:
        """Run the prompt alone, so that nothing takes candidates for a part of it.

        Returns the arguments of a call on the candidates, behind the prompt.
        """
        length = kw["input_ids"].shape[1] - candidates
        first = {**kw, "mm_encoder_outputs": outputs}
        # Candidates are text, as whatever is generated; kinds of tokens are told of prompts only.
        rest = {**kw, "mm_encoder_outputs": None, **dict.fromkeys(kw.keys() & {*TYPE_NAMES})}
        for name in ("input_ids", "position_ids", *TYPE_NAMES):
            if kw.get(name) is not None:
                first[name] = kw[name][..., :length]
        for name in ("input_ids", "position_ids"):
            if kw.get(name) is not None:
                rest[name] = kw[name][..., length:]
        if kw.get("attention_mask") is not None:
            first["attention_mask"] = kw["attention_mask"][:, :length]
        ahead = inner(**first)
        rest = self._continue(rest)
        self._here.calls[-1].ahead = ahead
        return rest

    def _prefill(self, kw: dict[str, Any], outputs: dict, known: Known) -> dict[str, Any]:
        cache = cache_in(kw)
        if cache is not None and seen_columns(cache):
            raise UnsupportedCall(
                "A new picture behind a filled cache can't be reduced; start a fresh call with the "
                "whole conversation."
            )
        if cache is not None:
            untag(cache)
        if not outputs:
            self._refuse_unseen(known.ids)
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
        current = self._here.calls[-1]
        if self._caches:
            refuse_foreign(cache)
            if any(m._compiled_call_impl is not None for m in self.anatomy.text.modules()):
                raise UnsupportedCall(
                    "A compiled language model may leave out what says how its cache is held; "
                    "load it without compile for a method that acts on the cache."
                )
        clock = next((r.clock for r in records.values()), None)
        clock = clock or self._reporter.clock(kw["input_ids"].device)
        _refuse_coarse()
        kw["mm_encoder_outputs"] = None
        counted = kw.get("position_ids") is None
        counted &= not hasattr(self.anatomy.inner, "compute_3d_position_ids")
        with clock.span("select"):
            splice = Splice(self.anatomy, kw, outputs, records, known)
            given = splice.given() if self._rules else None
            agnostic = self.method.prompt_agnostic
            reduced = splice.reduce(self._tokens, agnostic, self.record_scores)
            changed = any(record.changed for record in records.values())
            if changed or self._boundaries or self._rules or self._caches:
                refuse_structure(self.anatomy, kw, splice.mask)
            if changed:
                prompt = splice.shorten(reduced, self._packed)
            else:
                prompt = splice.whole(positions=bool(self._boundaries or self._rules))
        prompt.traces = splice.traces(reduced)
        prompt.scores = [] if self.record_scores else None
        prompt.given, prompt.rules, prompt.clock = given, self._rules.parts, clock
        if self._boundaries:
            locate(prompt, splice.rows, prompt.traces)
        if self._boundaries or self._rules or self._caches:
            call = DecoderCall(prompt, True, labels=current.asked.labels)
            call.padded_positions = counted and min(prompt.full) < prompt.length
            call.towered = towered(
                prompt,
                splice.rows,
                self._boundaries.towered,
                lambda p, need: records[p.modality].attention(
                    p.number, need, reduced[p.modality][p.number]
                ),
            )
            self._enter(call, dict(self._boundaries.readers(call)))
        if not outputs:
            splice.kw["mm_encoder_outputs"] = None
        current.prompt = prompt
        # Counts only: features and signals must not outlive the call.
        current.towers = [run for record in records.values() for run in record.tower]
        self._time("prefill", clock)
        return splice.kw

    def _time(self, stage: str, clock: Clock) -> None:
        current = self._here.calls[-1]
        current.clock, current.clocked = clock, stage
        clock.start(stage)

    def _enter(
        self,
        call: DecoderCall,
        readers: dict[int, Reader],
        held: dict[int, KeptLayer] | None = None,
    ) -> None:
        """Let parts see and change what the decoder's layers do in this call.

        held: layers of the cache to attend to as they are, where nobody else looks on.
        """
        self._here.calls[-1].decoder = call
        stack = self._here.calls[-1].stack
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
        stack.enter_context(hooks_outside(self.anatomy.layers))

    def _continue(self, kw: dict[str, Any]) -> dict[str, Any]:
        """A call without new pictures: text only, a decode step, or a second turn."""
        cache = cache_in(kw)
        new: Any = kw.get("inputs_embeds") if kw.get("input_ids") is None else kw["input_ids"]
        b, q = new.shape[:2]
        filled = filled_of(cache, q)
        if filled is None:
            self._refuse_unseen(kw.get("input_ids"))
            if self._starts(kw):
                self._reporter.settle()
                ids, mask = kw["input_ids"], kw.get("attention_mask")
                self._here.calls[-1].text = functools.partial(worded, ids, mask)
            return kw
        prompt = filled.prompt
        if prompt.clock is not None:
            self._time("decode", prompt.clock)
        if not prompt.changed:
            return kw
        filled.admit(self.method, b, q)
        if not plain(kw.get("attention_mask")) and not cache.is_compileable:
            raise own_mask()
        filled.open = True
        self._here.calls[-1].filled, self._here.calls[-1].columns = filled, q
        entry = prompt.at(0)
        positions = self._new_positions(kw, prompt, filled.new, b, q)
        later = _later(kw.get("attention_mask"), prompt.length, q)
        if prompt.missing or entry.ragged and prompt.reduced:
            kw["attention_mask"] = self._decode_mask(kw.get("attention_mask"), filled, b, q)
        if positions is not None and (
            kw.get("position_ids") is not None or entry.shift is not None
        ):
            kw["position_ids"] = shifted(positions, prompt.first.shift)
        if self._boundaries or self._rules or self._caches:
            call = DecoderCall(prompt, False, filled.new, positions=positions, later=later)
            call.idle = self._boundaries.idle(call, cache, q)
            held = self._caches.apart(cache, q, kw.get("attention_mask"))
            self._enter(call, dict(self._caches.readers(call, cache, q)), held)
        return kw

    def _new_positions(
        self, kw: dict[str, Any], prompt: Prompt, new: int, b: int, q: int
    ) -> Tensor | None:
        """Ids of `q` columns behind the prompt and `new` more, as the bare model would count them.

        None where nobody asks.
        """
        given = kw.get("position_ids")
        asked = self._rules or any(s.shift is not None for s in prompt.stages)
        if given is not None or not asked:
            return given
        if hasattr(self.anatomy.inner, "compute_3d_position_ids"):
            return compute_3d(self.anatomy.inner, kw, b, q)
        start = prompt.length + new + self.anatomy.family.position_offset
        return torch.arange(start, start + q, device=prompt.first.valid.device)[None]

    def _decode_mask(self, mask: Any, filled: Filled, b: int, q: int) -> Tensor | None:
        prompt = filled.prompt
        first = prompt.at(0)
        if mask is None and not first.ragged:
            return None
        if mask is None or isinstance(mask, dict) or mask.dim() == 4:
            new = filled.new + q
            behind = torch.ones(b, new, dtype=torch.long, device=first.valid.device)
        elif not first.ragged and min(prompt.full) == prompt.length:
            # A part of the caller's own mask says the same, at no cost.
            return mask[:, prompt.missing :]
        else:
            behind = mask[:, prompt.length :].long()
        return torch.cat([first.valid.long(), behind], 1)

    def _before_text(self, _: nn.Module, args: tuple, kwargs: dict):
        call = self._here.decoder
        return None if call is None else self._planes.before_text(call, args, kwargs)

    def _before_rotary(self, _: nn.Module, args: tuple, kwargs: dict):
        call = self._here.decoder
        return None if call is None else self._boundaries.widen(call, args, kwargs)

    def _after_rotary(self, _: nn.Module, args: tuple, kwargs: dict, output: Any):
        call = self._here.decoder
        return None if call is None else self._boundaries.narrow(call, args, kwargs, output)

    def _add_plane(self, i: int, _: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        call = self._here.decoder
        return None if call is None else self._planes.after_layer(i, call, output)

    def _before_layer(self, i: int, module: nn.Module, args: tuple, kwargs: dict):
        call = self._here.decoder
        if call is None or call.idle and kwargs.get("attention_mask") is None:
            return None
        return self._boundaries.before_layer(i, call, module, args, kwargs)

    def _before_keys(self, i: int, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self._here.decoder is not None:
            self._boundaries.keys_alone(i, self._here.decoder, module, args[0], kwargs)

    def _after_layer(self, _: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        call = self._here.decoder
        return None if call is None else self._boundaries.detours.leave(call, output)

    def _before_cached(self, i: int, module: nn.Module, args: tuple, kwargs: dict):
        call = self._here.decoder
        return None if call is None else self._caches.before_layer(i, call, module, args, kwargs)

    def _after_cached(self, i: int, _: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if self._here.decoder is not None:
            self._caches.after_layer(i, self._here.decoder, kwargs)

    def _rules_before_layer(self, i: int, module: nn.Module, args: tuple, kwargs: dict):
        call = self._here.decoder
        if call is None:
            return None
        changed = self._rules.before_layer(i, call, module, args[0], kwargs)
        return None if changed is None else (args, changed)

    def _after_inner(self, _: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if not self._here.calls:
            return
        call = self._here.calls[-1]
        prompt = call.prompt
        try:
            if output is not None and prompt is not None:
                cache = _cache_of(output, kwargs)
                if cache is not None:
                    tag(cache, prompt, self.method)
                call.asked.follow(prompt)
            if output is not None and call.filled is not None:
                call.filled.new += call.columns
            if output is not None and call.ahead is not None:
                _join(output, call.ahead)
            if output is not None and call.lent is not None:
                setattr(output, call.lent, None)
        finally:
            self._drop(self._here.calls, len(self._here.calls) - 1)
        if output is None:
            return
        if prompt is not None and prompt.clock is not None:
            self._reporter.add(prompt, call.towers, prompt.clock)
        elif call.text is not None:
            self._reporter.add(call.text)

    def _drop(self, calls: list[Any], left: int) -> None:
        """End calls until only the first `left` are running."""
        while len(calls) > max(left, 0):
            call = calls.pop()
            if isinstance(call, Call):
                call.close()
                if call.close in self._lock.cleanups:
                    self._lock.cleanups.remove(call.close)
                self._lock.leave()


_BATCHED = ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager")


def _refuse_batching(*_: Any, **__: Any) -> None:
    raise UnsupportedCall(
        "Continuous batching runs the rows of many prompts as one, so that no method can tell them "
        "apart; call generate, or detach the method first."
    )


def _refuse_tracing() -> None:
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        raise UnsupportedCall(
            "torch.export and torch.jit.trace freeze one prompt's choice of visual tokens into the "
            "graph; export the bare model."
        )


def _refuse_coarse() -> None:
    if torch.get_default_dtype() != torch.float32:
        raise UnsupportedCall(
            f"torch's default dtype is {torch.get_default_dtype()}, in which counts and scores of "
            "methods come out otherwise; call torch.set_default_dtype(torch.float32) once the "
            "model is loaded."
        )


def _later(mask: Any, length: int, q: int) -> Tensor | None:
    """What a mask says of columns (B, new) behind the prompt; None where none is padding.

    Looked at where several columns come at once only: a decode step must not wait for the device.
    """
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        return None
    later = mask[:, length:]
    return None if q > 1 and bool(later.all()) else later


def _join(output: Any, ahead: Any) -> None:
    """Make `output` of candidates that of the prompt and of candidates, in place."""
    if output.get("attentions") is not None:
        raise UnsupportedCall(
            "Attention maps of a shortened prompt and of candidates behind it make no one map; "
            "generate with an assistant without output_attentions."
        )
    output.last_hidden_state = torch.cat([ahead.last_hidden_state, output.last_hidden_state], 1)
    if output.get("hidden_states") is not None:
        both = zip(ahead.hidden_states, output.hidden_states, strict=True)
        output.hidden_states = tuple(torch.cat(pair, 1) for pair in both)


def _cache_of(output: Any, kwargs: dict) -> Cache | None:
    given = cache_in(kwargs)
    if given is not None:
        return given
    if isinstance(output, tuple):
        return next((x for x in output if isinstance(x, Cache)), None)
    return cache_in(output)


def attach(
    model: nn.Module,
    method: Method | str,
    *,
    full_logits: bool | None = None,
    record_scores: bool = False,
    **parameters: Any,
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
        record_scores: keep the scores by which the method ranks tokens, in
            `att.report.traces[i].scores`. False, the default, keeps nothing and costs nothing.
        parameters: those of the method that a slug names, such as `keep=64`.

    Raises `UnsupportedModel` for any other model, `AlreadyAttached` for one that carries a method.
    """
    return Attachment(model, as_method(method, **parameters), full_logits, record_scores)
