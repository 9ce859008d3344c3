"""From what is known of a prompt to the figures of a report."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch

from foveate.engine.anatomy import Anatomy
from foveate.engine.clock import Clock, Sums
from foveate.engine.item_traces import items_of, traces_of
from foveate.engine.prompt.prompt import Prompt, Stage
from foveate.errors import UnsupportedModel
from foveate.flops import DecoderShape, VisionShape, kv_bytes, prefill_flops, vision_flops
from foveate.method import Method, in_road_order
from foveate.parts import CachesPart, DetourPart, LayersPart, Part, RulePart, Widths
from foveate.report import Report
from foveate.totals import Totals

Runs = Sequence[tuple[int, list[int]]]
"""Per crop or frame its patches, and the tokens that ran through each block of the encoder."""


class CallFigures:
    """The figures of one call, worked out when they are read.

    prompt: what was run, or a function that makes it. clock: None for a call that is not timed.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        method: Method,
        prompt: Prompt | Callable[[], Prompt],
        towers: Runs,
        clock: Clock | None,
    ):
        self._anatomy = anatomy
        self._method = method
        self._source = prompt
        self._towers = towers
        self._clock = clock

    @cached_property
    def counted(self) -> Report:
        """The report without traces and times. The host knows all of it, apart from what rules
        of attention saved and from the lengths of prompts without visual tokens.
        """
        report = _counts(self._anatomy, self._method, self._prompt)
        report.vision_flops = _vision(self._anatomy, self._towers)
        report.method_flops = _choosing(
            self._anatomy, self._method, self._prompt, self._towers, report
        )
        return report

    @cached_property
    def _traced(self) -> Report:
        report = replace(self.counted)
        report.traces = traces_of(self._anatomy, self._method, self._prompt)
        report.kept = [trace.index.sort().values for trace in report.traces]
        return report

    def read(self) -> Report:
        """The report, always the same object; its times follow later decode steps."""
        if self._clock is not None:
            self._traced.seconds = self._clock.seconds()
        return self._traced

    @cached_property
    def _prompt(self) -> Prompt:
        return self._source if isinstance(self._source, Prompt) else self._source()


class Reporter:
    """The report of an attachment's last call, and the totals over all its calls.

    The figures of a call are worked out when the next one begins, or when they are read.
    """

    def __init__(self, anatomy: Anatomy, method: Method):
        self._anatomy = anatomy
        self._method = method
        self._last: CallFigures | None = None
        self._pending: CallFigures | None = None
        self._totals = Totals(repr(method))
        self._sums = Sums()
        self._unknown: UnsupportedModel | None = None
        # Threads share an attachment.
        self._lock = threading.Lock()

    def clock(self, device: torch.device) -> Clock:
        """A clock for one prompt, whose times the totals take in too."""
        return Clock(device, self._sums)

    def add(
        self, prompt: Prompt | Callable[[], Prompt], towers: Runs = (), clock: Clock | None = None
    ) -> None:
        """Take in a call that ran a prompt."""
        self.settle()
        self._last = CallFigures(self._anatomy, self._method, prompt, towers, clock)
        with self._lock:
            self._pending = self._last

    def settle(self) -> None:
        """Add the last call to the totals. Where a new prompt begins this costs no extra wait:
        the host reads the new prompt's ids from the device at the same moment.
        """
        with self._lock:
            pending, self._pending = self._pending, None
            if pending is None:
                return
            try:
                self._totals.add(pending.counted)
            except UnsupportedModel as error:
                # A call must not fail for its figures; whoever reads them is told.
                self._unknown = error

    @property
    def report(self) -> Report:
        """Figures of the last call; only the method before the first one."""
        return Report(repr(self._method)) if self._last is None else self._last.read()

    @property
    def totals(self) -> Totals:
        """Sums over all calls so far."""
        self.settle()
        if self._unknown is not None:
            raise self._unknown
        return replace(self._totals, seconds=self._sums.seconds())


def _counts(anatomy: Anatomy, method: Method, prompt: Prompt) -> Report:
    report = Report(method=repr(method))
    layers = len(anatomy.layers)
    stages = [prompt.at(i) for i in range(layers)]
    for b, number, trace in items_of(prompt):
        report.tokens_in.append(trace.layout.n)
        report.tokens_out.append(prompt.stages[-1].held[b][number])
        report.tokens_by_layer.append([stage.held[b][number] for stage in stages])
    shape = DecoderShape.from_config(anatomy.config)
    width = next(anatomy.text.parameters()).element_size()
    for b, full in enumerate(prompt.full):
        lengths = [s.lengths[b] for s in stages]
        report.prompt_tokens.append(prompt.stream(0).lengths[b])
        report.flops += prefill_flops(shape, lengths)
        report.flops_full += prefill_flops(shape, full)
        plain = [0 if i in prompt.stored else n for i, n in enumerate(lengths)]
        report.kv_bytes += kv_bytes(shape, plain, width)
        report.kv_bytes_full += kv_bytes(shape, full, width)
    if prompt.saved:
        # One read for all layers: each read makes the host wait for the device.
        flops = torch.stack([flops.sum().long() for flops, _ in prompt.saved]).sum()
        held = [held.sum().long() for _, held in prompt.saved if held is not None]
        saved = torch.stack([flops, torch.stack(held).sum() if held else flops * 0]).tolist()
        report.flops -= saved[0]
        report.kv_bytes -= saved[1]
    report.kv_bytes += sum(prompt.stored.values())
    return report


def _vision(anatomy: Anatomy, runs: Runs) -> int | None:
    """FLOPs of the towers over all crops and frames."""
    shape = VisionShape.from_config(anatomy.config)
    if shape is None or not runs:
        return None
    return sum(vision_flops(shape, tokens, patches=patches) for patches, tokens in runs)


def _choosing(anatomy: Anatomy, method: Method, prompt: Prompt, runs: Runs, report: Report) -> int:
    """FLOPs that the parts spend on choosing, by their own account."""
    vision, text = anatomy.config.vision_config, DecoderShape.from_config(anatomy.config)
    tower = VisionShape.from_config(anatomy.config)
    heads = getattr(vision, "num_attention_heads", None) or getattr(vision, "num_heads", 1)
    widths = Widths(
        tower=0 if tower is None else tower.hidden,
        head=0 if tower is None else tower.hidden // heads,
        blocks=0 if tower is None else tower.layers,
        model=text.hidden,
        keys=text.kv_heads * text.head_dim,
    )
    total = 0
    for part in in_road_order(method.parts()):
        if isinstance(part, LayersPart | DetourPart):
            for before, behind in _steps(part, prompt, len(anatomy.layers)):
                columns = zip(before.lengths, behind.lengths, strict=True)
                total += sum(part.cost(n, left, widths) for n, left in columns if left < n)
        elif isinstance(part, RulePart):
            for i in part.layers(len(anatomy.layers)):
                total += sum(part.cost(n, n, widths) for n in prompt.at(i).lengths)
        elif isinstance(part, CachesPart):
            continue
        elif part.stage == "encoders":
            total += sum(part.cost(patches, tokens[-1], widths) for patches, tokens in runs)
        else:
            pairs = zip(report.tokens_in, report.tokens_by_layer, strict=True)
            total += sum(part.cost(n, left[0], widths) for n, left in pairs if left[0] < n)
    return total


def _steps(part: Part, prompt: Prompt, layers: int) -> Iterator[tuple[Stage, Stage]]:
    """What reached each place where a part acts, and what went on from there."""
    if isinstance(part, LayersPart):
        yield from ((_before(prompt, k), prompt.stream(k)) for k in part.boundaries(layers))
    if isinstance(part, DetourPart):
        yield from ((prompt.stream(i), prompt.at(i)) for i in part.layers(layers))


def _before(prompt: Prompt, k: int) -> Stage:
    """The stage that reaches boundary k."""
    return next(s for s in reversed(prompt.stages) if s.boundary < k or s is prompt.first)
