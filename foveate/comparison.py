"""`foveate.compare`: the full model and methods side by side on one question."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from foveate.answering import Answer, answer_to, few_threads, greedy
from foveate.engine.anatomy import anatomy
from foveate.engine.attachment import attach
from foveate.errors import FoveateError, InvalidParameter, shown
from foveate.figure_table import figure, html_table, percent, text_table
from foveate.method import Composed, Method, as_method
from foveate.model_inputs import media_of, model_inputs
from foveate.report import Report

FULL = "full model"
_TIMED = 16
"""Most output tokens of a timed run."""


@dataclass(frozen=True)
class ComparisonRow:
    """The full model or one method.

    Attributes:
        name: "full model", or the method as `repr` shows it.
        method: the method; None for the full model.
        answer: greedy answer.
        report: figures of the call that gave the answer; `report.peak_memory` is measured on CUDA.
        ttft: measured seconds from the start of `generate` to the first output token, the vision
            encoder included and the processor not; a median.
        time_per_output_token: measured seconds per output token after the first, a median; 0.0
            where `max_new_tokens=1`.
        measured_speedup: TTFT of the full model / TTFT.
    """

    name: str
    method: Method | None
    answer: str
    report: Report
    ttft: float
    time_per_output_token: float
    measured_speedup: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **vars(self),
            "method": None if self.method is None else self.method.to_dict(),
            "report": self.report.to_dict(),
            "retention_ratio": self.report.retention_ratio,
            "speedup": self.report.speedup,
            "peak_memory": self.report.peak_memory,
        }


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `foveate.compare` returns. `print` shows a table, a notebook shows HTML.

    Attributes:
        question: what was asked.
        rows: the full model first, then the methods in the order in which they were given.
        repeats: timed runs per row.
        device: where the model ran.
        dtype: the model's dtype.
    """

    question: str
    rows: tuple[ComparisonRow, ...]
    repeats: int
    device: str
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "rows": [row.to_dict() for row in self.rows]}

    def __repr__(self) -> str:
        names = ", ".join(row.name for row in self.rows)
        return f"<Comparison of {names}>"

    def __str__(self) -> str:
        header, cells = self._table()
        answers = [f"{row.name}: {row.answer or '(no words)'}" for row in self.rows]
        return "\n".join(
            [self.question, *answers, "", text_table(header, cells), "", *self._notes()]
        )

    def _repr_html_(self) -> str:
        header, cells = self._table()
        cells = [(*line, row.answer) for line, row in zip(cells, self.rows, strict=True)]
        return html_table(self.question, (*header, "answer"), cells, self._notes())

    def _table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Header and rows, each column in one unit."""
        header = (
            "",
            "visual\ntokens",
            "retention\nratio",
            "prefill\nGFLOPs",
            "theoretical\nspeed-up",
            "TTFT\n(ms)",
            "measured\nspeed-up",
            "ms per\noutput token",
            "KV cache\n(MB)",
        )
        measured = all(row.report.peak_memory is not None for row in self.rows)
        rows = [_cells(row, measured) for row in self.rows]
        return (*header, "peak memory\n(MB)") if measured else header, rows

    def _notes(self) -> list[str]:
        return [
            "Theoretical speed-up: FLOPs of the LLM's prefill, token selection included. "
            "Measured speed-up: TTFT, vision encoder included.",
            f"Times are medians of {self.repeats} interleaved runs after a warm-up, on "
            f"{self.device} in {self.dtype}.",
        ]


def compare(
    model: Any,
    processor: Any,
    media: Any,
    question: str,
    methods: Method | str | Sequence[Method | str],
    *,
    max_new_tokens: int = 32,
    repeats: int = 5,
    frames: int = 8,
) -> Comparison:
    """Run the full model and each method on one question and show them side by side.

    Every row first answers the question, which also warms the device up. Then the rows take turns,
    `repeats` times: each decodes the same number of tokens, at most 16, whatever it answers. On
    CUDA the counter of `torch.cuda.max_memory_allocated` is reset before each run.

    Args:
        model: a transformers vision-language model without a method attached.
        processor: its processor, such as `foveate.load_processor` gives.
        media: an image as a path, PIL image, array or tensor; a list of images; or a video as a
            path or as `foveate.media.Frames`. A model that reads no videos gets the frames of a
            video as images.
        question: what to ask. Lines `<image>` at its start or end, one per image, say where the
            images stand.
        methods: methods or slugs, or one of them.
        max_new_tokens: longest answer, in tokens, at least 1.
        repeats: timed runs per row, at least 1.
        frames: frames that are read from a video file, at least 1.
    """
    anatomy(model)
    _check(processor, question, max_new_tokens=max_new_tokens, repeats=repeats, frames=frames)
    given = [*methods] if isinstance(methods, list | tuple) else [methods]
    if not given:
        raise InvalidParameter("methods=[] is empty; give at least one method or slug.")
    variants = [Composed(), *map(as_method, given)]
    inputs = model_inputs(model, processor, [question], [media_of(model, processor, media, frames)])
    answers = [_answer(model, processor, inputs, m, max_new_tokens) for m in variants]
    # The full model is timed without any hook.
    timed = _timed(model, inputs, [None, *variants[1:]], min(max_new_tokens, _TIMED), repeats)
    rows = []
    for method, answered, (ttft, per_token, peak) in zip(variants, answers, timed, strict=True):
        answered.report.peak_memory = peak
        rows.append(
            ComparisonRow(
                name=repr(method) if rows else FULL,
                method=method if rows else None,
                answer=answered.text,
                report=answered.report,
                ttft=ttft,
                time_per_output_token=per_token,
                measured_speedup=timed[0][0] / ttft,
            )
        )
    dtype = str(model.dtype).removeprefix("torch.")
    return Comparison(question, tuple(rows), repeats, str(model.device), dtype)


def _check(processor: Any, question: Any, **counts: Any) -> None:
    if getattr(processor, "tokenizer", None) is None:
        raise InvalidParameter(
            f"processor={shown(processor)} is not a processor with a tokenizer; pass what "
            "foveate.load_processor(NAME) gives."
        )
    if not isinstance(question, str):
        raise InvalidParameter(f"question={shown(question)} is not a text; pass a string.")
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidParameter(f"{name}={shown(value)} is not valid; use an int of at least 1.")


def _timed(
    model: Any, inputs: dict[str, Any], methods: Sequence[Method | None], tokens: int, repeats: int
) -> list[tuple[float, float, int | None]]:
    """Per method TTFT and seconds per output token as medians, and peak bytes on CUDA."""
    taken: list[list[_Run]] = [[] for _ in methods]
    with torch.no_grad(), few_threads(model):
        for _ in range(repeats):
            for runs, method in zip(taken, methods, strict=True):
                with nullcontext() if method is None else attach(model, method):
                    runs.append(_run(model, inputs, tokens))
    return [
        (
            median(run.first for run in runs),
            median(run.rest for run in runs),
            None if runs[0].peak is None else max(run.peak or 0 for run in runs),
        )
        for runs in taken
    ]


@dataclass(frozen=True)
class _Run:
    """Seconds to the first token, seconds per later token, peak bytes."""

    first: float
    rest: float
    peak: int | None


class _Stopwatch:
    """A streamer that notes when tokens reach the host, which waits for the device to give them."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: torch.Tensor) -> None:
        """Called by `generate` with the prompt, then with every new token."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Called by `generate` at the end."""


def _run(model: Any, inputs: dict[str, Any], tokens: int) -> _Run:
    cuda = model.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(model.device)
        torch.cuda.reset_peak_memory_stats(model.device)
    watch = _Stopwatch()
    start = time.perf_counter()
    model.generate(**inputs, **greedy(tokens), min_new_tokens=tokens, streamer=watch)
    if cuda:
        torch.cuda.synchronize(model.device)
    _, first, *rest = watch.times
    later = (rest[-1] - first) / len(rest) if rest else 0.0
    peak = torch.cuda.max_memory_allocated(model.device) if cuda else None
    return _Run(first - start, later, peak)


def _answer(model: Any, processor: Any, inputs: Any, method: Method, tokens: int) -> Answer:
    """The answer with a method; the error of a method names it."""
    try:
        return answer_to(model, processor, inputs, method, tokens)
    except FoveateError as error:
        if not repr(method):
            raise
        raise type(error)(f"{method!r}: {error}") from error


def _cells(row: ComparisonRow, peak: bool) -> tuple[str, ...]:
    report = row.report
    total = report.flops + report.method_flops
    cells = (
        row.name,
        str(sum(report.tokens_out)),
        percent(report.retention_ratio),
        figure(total / 1e9),
        f"{report.speedup:.2f}x",
        figure(1000 * row.ttft),
        f"{row.measured_speedup:.2f}x",
        figure(1000 * row.time_per_output_token) if row.time_per_output_token else "-",
        figure(report.kv_bytes / 1e6),
    )
    return (*cells, figure((report.peak_memory or 0) / 1e6)) if peak else cells
