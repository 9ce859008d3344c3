"""The embedded benchmark: accuracy and speed of methods on synthetic tasks, with baselines.

>>> import foveate
>>> from foveate import benchmarks
>>> model, processor = foveate.mini("nano")
>>> results = benchmarks.run(model, processor, out="runs/bench")
>>> results.summary("divprune").normalised_accuracy
"""

from foveate.benchmarks.acceptance import Verdict, check
from foveate.benchmarks.errors import BenchError
from foveate.benchmarks.metrics import Cell, Summary
from foveate.benchmarks.results import Results
from foveate.benchmarks.runner import run

__all__ = ["BenchError", "Cell", "Results", "Summary", "Verdict", "check", "run"]
