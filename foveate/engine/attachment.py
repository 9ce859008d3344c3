"""`attach` puts a method on a model: hooks that dispatch each call to the phase that it is in.

attach(model, method)         makes a Setup (parts by stage), a ThreadState and the hooks
model.generate(...)           notes the length and the ids of the prompt        phases/generate
 |- get_image_features        ENCODE: runs the vision encoder with its parts;   phases/encode
 |                            a Record of items and signals goes on its output
 |- outer.forward             takes labels and logits_to_keep (Targets)
 |   |- inner.forward         begins a ModelCall and finds its phase            phases/forward
 |   |    first call          PREFILL: selects tokens, makes the Prompt; the    phases/prefill
 |   |                        LLM gets shorter ids, features and positions
 |   |    later calls         DECODE: takes the Prompt from the KV cache;       phases/decode
 |   |                        the LLM gets masks and positions that fit it
 |   |   |- decoder layers    drop, merge, skip: parts share a DecoderCall      layer_hooks
 |   |- end of inner          the Prompt goes to the cache and the report       phases/finish
 |- end of outer              expands logits where full_logits=True
attachment.report             figures of the last Prompt, computed when read    reporting
attachment.detach()           removes all hooks
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from foveate.engine.anatomy import Anatomy, anatomy
from foveate.engine.hooks import Hooks
from foveate.engine.layer_hooks import LayerHooks
from foveate.engine.phases.encode import wrap_features
from foveate.engine.phases.finish import finish, report
from foveate.engine.phases.forward import forward
from foveate.engine.phases.generate import wrap_generate
from foveate.engine.prompt.labels import expanded, moved
from foveate.engine.refusals import (
    CONTINUOUS_BATCHING,
    refuse_batching,
    refuse_replica,
    refuse_tracing,
)
from foveate.engine.setup import Setup
from foveate.engine.state import ThreadState
from foveate.engine.thread_lock import lock_of
from foveate.errors import AlreadyAttached, UnsupportedCall, shown
from foveate.method import Method, as_method
from foveate.parameters import as_declared
from foveate.report import Report
from foveate.totals import Totals


class Attachment:
    """A method on a model, until `detach()` or the end of a `with` block restores the bare model.

    Several threads may call the model: their forward calls run one at a time, each with a state of
    its own. A copy of the model by `copy.deepcopy`, pickle or `torch.save` comes without the
    method.

    Attributes:
        anatomy: the model and its sub-modules.
        method: the method.
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
        record_scores = as_declared("record_scores", record_scores, bool)
        inner: Any = self.anatomy.inner
        if "_foveate" in inner.__dict__:
            raise AlreadyAttached(
                f"{type(self.anatomy.outer).__name__} already has {inner._foveate.method!r} "
                "attached; detach it first, or combine the methods with +."
            )
        self._setup = Setup(self.anatomy, method, record_scores)
        towers = [self.anatomy.tower(m) for m in self.anatomy.modalities]
        self._state = ThreadState(lock_of([self.anatomy.text, *towers]))
        self._hooks = Hooks()
        self._attach()

    @property
    def report(self) -> Report:
        """Figures of the last prompt that completed; without figures before the first one, and
        then False as a condition.

        Decode steps and later turns count for the prompt whose cache they continue. The report of
        a prompt without images or videos has no items.
        """
        return self._setup.reporter.report

    @property
    def reports(self) -> Totals:
        """Sums over all prompts since `attach`."""
        return self._setup.reporter.totals

    @property
    def full_logits(self) -> bool | None:
        """Whether logits have an entry for each token that was passed; see `attach`.

        It can be set at any time, and holds from the next call on.
        """
        return self._full_logits

    @full_logits.setter
    def full_logits(self, full: bool | None) -> None:
        self._full_logits = as_declared("full_logits", full, bool | None)

    @property
    def record_scores(self) -> bool:
        """Whether reports keep the scores by which the method ranked tokens; see `attach`.

        It can be set at any time, and holds from the next call on.
        """
        return self._setup.record_scores

    @record_scores.setter
    def record_scores(self, record: bool) -> None:
        self._setup.record_scores = as_declared("record_scores", record, bool)

    def align_labels(self, labels: Tensor) -> Tensor:
        """Labels that fit the logits of the last forward call, for a loss outside the model.

        Args:
            labels: one label for each token that was passed, (B, L); -100 where none counts.

        Returns:
            One label for each token that is left after the last layer, (B, N). -100 for padding and
            for the first token of a row. Shift them against the logits as usual.
        """
        if not isinstance(labels, Tensor):
            raise UnsupportedCall(f"labels={shown(labels)} is not a tensor; pass a tensor (B, L).")
        prompt = self._state.answered.shortened
        if prompt is None:
            return labels
        last = prompt.stages[-1]
        if labels.shape != (len(last.prompt_column), prompt.length):
            raise UnsupportedCall(
                f"Labels of shape {tuple(labels.shape)} do not fit the last forward call, which "
                f"had {len(last.prompt_column)} rows of {prompt.length} tokens."
            )
        return moved(labels, last)

    def expand_logits(self, logits: Tensor) -> Tensor:
        """Logits of the last forward call at each token that was passed, (B, L, V).

        A dropped token repeats the logits of the last kept token before it, because these predict
        the token after it. So `expand_logits(logits)[:, :-1]` are the scores of `input_ids[:, 1:]`.

        Args:
            logits: for each token that is left after the last layer, (B, N, V).
        """
        if not isinstance(logits, Tensor):
            raise UnsupportedCall(
                f"logits={shown(logits)} is not a tensor; pass a tensor (B, N, V)."
            )
        prompt = self._state.answered.shortened
        if prompt is None:
            return logits
        last = prompt.stages[-1]
        if logits.dim() != 3 or logits.shape[:2] != last.prompt_column.shape:
            raise UnsupportedCall(
                f"Logits of shape {tuple(logits.shape)} are not those of the last forward call, "
                f"which left {last.n} tokens in each row."
            )
        return expanded(logits, prompt)

    def __repr__(self) -> str:
        attached = self.anatomy.inner.__dict__.get("_foveate") is self
        model = type(self.anatomy.outer).__name__
        detached = "" if attached else ", detached"
        return f"<Attachment of {self.method!r} to {model}{detached}>"

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: Any) -> None:
        self.detach()

    def detach(self) -> None:
        """Restore the bare model; a second time does nothing."""
        self._hooks.remove()
        self._state.end(0)

    def _attach(self) -> None:
        a, hooks = self.anatomy, self._hooks
        replaced = a.family.replaced(a.inner)
        hooks.put(a.inner, "_foveate", self)
        for modality in a.modalities:
            name = f"get_{modality}_features"
            features = wrap_features(self._setup, self._state, modality, getattr(a.inner, name))
            hooks.put(a.inner, name, features)
        for name, value in replaced.items():
            hooks.put(a.inner, name, value)
        hooks.put(a.outer, "generate", wrap_generate(self._state, a.outer.generate))
        for name in CONTINUOUS_BATCHING:
            if hasattr(a.outer, name):
                hooks.put(a.outer, name, refuse_batching)
        hooks.before(a.outer, self._before_outer)
        hooks.after(a.outer, self._after_outer, with_kwargs=True, always_call=True)
        hooks.before(a.inner, self._before_inner)
        hooks.after(a.inner, self._after_inner, with_kwargs=True, always_call=True)
        LayerHooks(self._setup, self._state).register(hooks)
        hooks.exclude_from_copies()

    def _before_outer(self, outer: nn.Module, args: tuple, kwargs: dict):
        refuse_tracing()
        names = inspect.signature(self.anatomy.outer.forward).parameters if args else ()
        kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
        return (), self._state.begin_outer(outer).take(kwargs)

    def _after_outer(self, outer: nn.Module, args: tuple, kwargs: dict, output: Any):
        state = self._state
        if not state.targets:
            return None
        state.answered = state.targets.pop()
        if output is None:
            return None
        training = outer.training and torch.is_grad_enabled()
        return state.answered.whole(output, self.full_logits, training)

    def _before_inner(self, inner: nn.Module, args: tuple, kwargs: dict):
        refuse_tracing()
        refuse_replica(self.anatomy, inner)
        call = self._state.begin(inner)
        kw = self.anatomy.bind(args, kwargs)
        return (), forward(self._setup, self._state, call, inner, kw)

    def _after_inner(self, _: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        calls = self._state.calls
        if not calls:
            return
        call = calls[-1]
        try:
            # PyTorch passes None where the call raised.
            if output is not None:
                finish(self._setup, call, kwargs, output)
        finally:
            self._state.end(len(calls) - 1)
        if output is not None:
            report(self._setup, call)


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
        model: a transformers vision-language model of a supported family, also wrapped by peft.
        method: a method, or the slug of one.
        full_logits: whether logits have an entry for each token that was passed. True: a dropped
            token repeats the logits of the last kept token before it. Use it for losses and scores
            that are computed outside the model (label smoothing, DPO). False: logits of the tokens
            that are left; see `Attachment.align_labels`. None, the default: as False, but training
            without labels raises `UnsupportedCall`.
        record_scores: keep the scores by which the method ranks tokens, in
            `att.report.traces[i].scores`. False, the default, keeps nothing and costs nothing.
        parameters: parameters of the method that a slug names, such as `keep=64`.

    Raises:
        UnsupportedModel: for a model of another kind or family.
        AlreadyAttached: for a model that has a method attached.
    """
    return Attachment(model, as_method(method, **parameters), full_logits, record_scores)
