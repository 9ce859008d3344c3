"""The cheapest method and budget for your model and data, within a given accuracy drop.

>>> import foveate
>>> model, processor = foveate.mini("nano")
>>> plan = foveate.tune(model, processor, "samples.jsonl", max_drop=0.01)
>>> foveate.attach(model, plan.method)
"""

from foveate.tuning.errors import TuneError
from foveate.tuning.evaluations import Score
from foveate.tuning.plan import Plan, from_plan, read_plan
from foveate.tuning.samples import Sample, read_samples, world_samples
from foveate.tuning.tuner import tune

__all__ = [
    "Plan",
    "Sample",
    "Score",
    "TuneError",
    "from_plan",
    "read_plan",
    "read_samples",
    "tune",
    "world_samples",
]
