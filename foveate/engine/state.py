"""What changes while an attached model runs: the state of each thread, and of each call in it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from foveate.engine.cache.provenance import Filled
from foveate.engine.clock import Clock
from foveate.engine.decoder.forward_call import DecoderCall
from foveate.engine.prompt.host_copy import Known
from foveate.engine.prompt.labels import Targets
from foveate.engine.prompt.prompt import Prompt
from foveate.engine.thread_lock import ThreadLock, running


@dataclass(eq=False)
class ModelCall:
    """One forward call of the inner model, from its pre-hook to its hook.

    Attributes:
        targets: labels and `logits_to_keep` of the outer call that it belongs to; empty where it
            belongs to none.
        phase: "prefill" or "decode", which the clock measures; empty for a prompt of text alone.
        clock: measures the phase; None where it is not measured.
        prompt: the prompt that it runs, in prefill.
        filled: the record of the cache that it continues, in decoding; None where the cache holds
            what the bare model's would.
        new_columns: how many columns it adds to that cache.
        text_prompt: makes the `Prompt` of a prompt of text alone, for the report.
        prompt_output: output of the prompt where it ran first, in a call of its own.
        lent_cache: name of the cache argument that the engine added and the caller must not get.
        decoder: what the hooks of decoder layers share; None where no part acts inside the LLM.
        encoder_runs: tokens in each block of the vision encoder, for the report.
        stack: what was put around decoder layers for this call.
    """

    targets: Targets
    phase: str = ""
    clock: Clock | None = None
    prompt: Prompt | None = None
    filled: Filled | None = None
    new_columns: int = 0
    text_prompt: Callable[[], Prompt] | None = None
    prompt_output: Any = None
    lent_cache: str | None = None
    decoder: DecoderCall | None = None
    encoder_runs: list[tuple[int, list[int]]] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    def start(self, phase: str, clock: Clock) -> None:
        """Enter a phase, and measure it until the call ends."""
        self.phase, self.clock = phase, clock
        clock.start(phase)

    def close(self) -> None:
        """Take away what was put around decoder layers, and stop the clock."""
        self.stack.close()
        if self.filled is not None:
            self.filled.open = False
        if self.decoder is not None:
            self.decoder.over = True
        if self.clock is not None:
            self.clock.stop(self.phase)


class ThreadState(threading.local):
    """What one attachment knows of the calls that run in the current thread.

    Attributes:
        lock: lets one thread at a time through the modules of the model.
        targets: of the calls of the outer model that are running, innermost last.
        answered: those of the last call of the outer model that has ended.
        calls: the calls of the inner model that are running, innermost last.
        clock: measures the next prompt; the encode phase comes before there is a call.
        encoding: whether the encode phase is running.
        known: the prompt of the running `generate` on the CPU, where the model is on another
            device.
        prompted: columns of the prompt that the running `generate` was given.
    """

    def __init__(self, lock: ThreadLock) -> None:
        self.lock = lock
        self.targets: list[Targets] = []
        self.answered = Targets()
        self.calls: list[ModelCall] = []
        self.clock: Clock | None = None
        self.encoding = False
        self.known: Known | None = None
        self.prompted: int | None = None

    @property
    def decoder(self) -> DecoderCall | None:
        """What the hooks of decoder layers share in the innermost call."""
        return self.calls[-1].decoder if self.calls else None

    def begin_outer(self, outer: nn.Module) -> Targets:
        """A call of the outer model begins; calls that an exception has ended are forgotten."""
        if self.targets:
            del self.targets[max(0, running(outer) - 1) :]
        self.targets.append(Targets())
        return self.targets[-1]

    def begin(self, inner: nn.Module) -> ModelCall:
        """A call of the inner model begins."""
        if self.calls:
            # Calls that were interrupted before their hook ran. A call that runs inside another
            # one leaves that one alone.
            self.end(running(inner) - 1)
        self.lock.enter()
        outer = self.targets[-1] if self.targets else None
        inside = outer is None or any(call.targets is outer for call in self.calls)
        call = ModelCall(Targets() if inside else outer)
        self.calls.append(call)
        self.lock.cleanups.append(call.close)
        return call

    def end(self, left: int) -> None:
        """End calls of the inner model until only the first `left` are running."""
        while len(self.calls) > max(left, 0):
            call = self.calls.pop()
            call.close()
            if call.close in self.lock.cleanups:
                self.lock.cleanups.remove(call.close)
            self.lock.leave()
