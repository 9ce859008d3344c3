"""Evaluate one method on the items of a task: answers, tokens, FLOPs and time."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import foveate
from foveate.benchmarks.loaded_model import LoadedModel
from foveate.benchmarks.task_items import Batch
from foveate.method import Method

MODES = ("likelihood", "generate")


@dataclass(frozen=True)
class EvalResult:
    """The measurement of one setting.

    Attributes:
        right: answers (n,), 1 correct and 0 wrong.
        digests: per batch, a hash of the candidate scores (bit-exact) or of the generated text.
        tokens_in: visual tokens per item before the LLM without a method.
        tokens_out: visual tokens per item after the last decoder layer.
        tokens_mean: visual tokens per item, mean over the decoder layers.
        flops: FLOPs of the LLM prefill and of the token selection, per item.
        flops_full: prefill FLOPs of the full model, per item.
        method_flops: FLOPs of the token selection alone, per item.
        kv_bytes: size of the KV cache per item, in bytes.
        seconds: seconds per item and stage, median over batches; "wall" is the whole time and
            "own" the overhead of the benchmark.
    """

    right: np.ndarray
    digests: list[str]
    tokens_in: float
    tokens_out: float
    tokens_mean: float
    flops: float
    flops_full: float
    method_flops: float
    kv_bytes: float
    seconds: dict[str, float]


def evaluate_method(
    loaded: LoadedModel,
    batches: Iterable[Batch],
    method: Method,
    mode: str = "likelihood",
    before: Callable[[Batch], None] | None = None,
    inputs: Callable[[Batch], dict[str, Any]] | None = None,
) -> EvalResult:
    """Evaluate `method` on all items of `batches`.

    Args:
        loaded: the model.
        batches: prepared items.
        method: the method to attach.
        mode: "likelihood" of the candidate answers, or "generate". Default "likelihood".
        before: called with each batch before the model, for controls that need the evidence.
        inputs: returns the model inputs for a batch, with the method attached. Default None: the
            inputs of the batch.
    """
    right: dict[int, bool] = {}
    digests: list[str] = []
    sums: dict[str, float] = {}
    times: dict[str, list[float]] = {}
    answer = _likely if mode == "likelihood" else _greedy
    began, calls = time.perf_counter(), 0.0
    with torch.no_grad(), foveate.attach(loaded.model, method) as attached:
        for batch in batches:
            if before is not None:
                before(batch)
            if inputs is not None:
                batch = replace(batch, inputs=inputs(batch))
            start = time.perf_counter()
            answers, given = answer(loaded, batch)
            calls += time.perf_counter() - start
            digests.append(hashlib.blake2b(given, digest_size=8).hexdigest())
            for number, item, text in zip(batch.numbers, batch.items, answers, strict=True):
                right[number] = text == item.answer
            report = attached.report
            _add(sums, report)
            for stage, seconds in report.seconds.items():
                times.setdefault(stage, []).append(seconds / len(batch.items))
    n = len(right)
    seconds = {stage: median(values) for stage, values in times.items()}
    whole = time.perf_counter() - began
    seconds |= {"wall": whole / n, "own": (whole - calls) / n}
    return EvalResult(
        right=np.array([right[number] for number in sorted(right)], dtype=int),
        digests=digests,
        **{name: total / n for name, total in sums.items()},
        seconds=seconds,
    )


def _add(sums: dict[str, float], report: Any) -> None:
    by_layer = [sum(layers) / len(layers) for layers in report.tokens_by_layer]
    figures = {
        "tokens_in": sum(report.tokens_in),
        "tokens_out": sum(report.tokens_out),
        "tokens_mean": sum(by_layer),
        "flops": report.flops + report.method_flops,
        "flops_full": report.flops_full,
        "method_flops": report.method_flops,
        "kv_bytes": report.kv_bytes,
    }
    for name, value in figures.items():
        sums[name] = sums.get(name, 0.0) + value


def _greedy(loaded: LoadedModel, batch: Batch) -> tuple[list[str], bytes]:
    tokenizer = loaded.processor.tokenizer
    words = {word for item in batch.items for word in item.candidates}
    longest = max(len(tokenizer(word, add_special_tokens=False).input_ids) for word in words)
    tokens = loaded.model.generate(**batch.inputs, max_new_tokens=longest + 1, do_sample=False)
    new = tokens[:, batch.inputs["input_ids"].shape[1] :]
    decoded = loaded.processor.batch_decode(new, skip_special_tokens=True)
    answers = [text.strip() for text in decoded]
    return answers, "\n".join(answers).encode()


def _likely(loaded: LoadedModel, batch: Batch) -> tuple[list[str], bytes]:
    """The candidate with the highest likelihood per item, and the scores as bytes."""
    tokenizer = loaded.processor.tokenizer
    spelled = {
        word: tokenizer(word, add_special_tokens=False).input_ids
        for word in {word for item in batch.items for word in item.candidates}
    }
    longest = max(map(len, spelled.values()))
    out = loaded.model(**batch.inputs, logits_to_keep=1, use_cache=longest > 1)
    logits = out.logits[:, -1].float()
    if longest == 1:
        rows = [logits[b, [spelled[w][0] for w in i.candidates]] for b, i in enumerate(batch.items)]
    else:
        rows = _spelled_out(loaded, batch, spelled, logits.log_softmax(-1), out)
    answers = [
        item.candidates[int(row.argmax())] for item, row in zip(batch.items, rows, strict=True)
    ]
    return answers, torch.cat(rows).cpu().numpy().tobytes()


def _spelled_out(
    loaded: LoadedModel, batch: Batch, spelled: dict[str, list[int]], first: Tensor, prompt: Any
) -> list[Tensor]:
    """Log-likelihood of every candidate with its end-of-text token, from one prefill.

    A tokenizer without an end-of-text token leaves it out.
    Each candidate is scored with a copy of the KV cache, for the whole batch. Text-guided methods
    see the prompt only, never a candidate.

    Args:
        loaded: the model.
        batch: the items.
        spelled: token ids by candidate.
        first: log-probabilities (B, V) of the first token.
        cache: KV cache of the prompt.
    """
    end = loaded.processor.tokenizer.eos_token_id
    ends = [] if end is None else [end]
    # transformers 5.24 renamed the cache.
    name = "cache" if "cache" in prompt.keys() else "past_key_values"
    words = list(dict.fromkeys(word for item in batch.items for word in item.candidates))
    scores = {}
    for word in words:
        ids = torch.tensor(spelled[word], device=first.device).expand(len(first), -1)
        mask = batch.inputs["attention_mask"]
        out = loaded.model(
            input_ids=ids,
            attention_mask=torch.cat([mask, mask.new_ones(ids.shape)], 1),
            **{name: copy.deepcopy(prompt[name])},
            use_cache=True,
        )
        later = out.logits.float().log_softmax(-1)
        told = torch.cat([ids[:, 1:], ids.new_tensor(ends).expand(len(ids), -1)], 1)
        score = first.gather(1, ids[:, :1])[:, 0]
        likelihoods = later[:, : told.shape[1]].gather(2, told[..., None])[..., 0]
        scores[word] = score + likelihoods.sum(1)
    return [
        torch.stack([scores[word][b] for word in item.candidates])
        for b, item in enumerate(batch.items)
    ]
