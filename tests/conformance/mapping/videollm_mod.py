"""VideoLLM-MoD: the base system's loss, ranges and metrics.

Its own layer was never published. A third party's variant (LION-FS), in which vision tokens compete
over the whole sequence, is no method of ours: a later frame would change earlier choices.
"""

from types import SimpleNamespace

import torch

from foveate.benchmarks.streaming import Stream, evaluate
from foveate.training.streaming import stream_learn_ranges, stream_loss
from tests.conformance.reading import only


def loss(inputs, weights, params):
    frames = inputs["input_ids"] == params["v_placeholder_id"]
    weight = params["stream_loss_weight"]
    return {"loss": stream_loss(inputs["logits"], inputs["labels"], frames, weight)}


def ranges(inputs, weights, params):
    found = stream_learn_ranges(
        params["num_frames"],
        params["frame_num_tokens"],
        params["v_placeholder"],
        params["interval"],
    )
    return {"ranges": torch.tensor(found)}


def metrics(inputs, weights, params):
    only(params, ignore_id=-100)
    table, bias = inputs["logit_table"], inputs["position_bias"]

    def model(input_ids, use_cache):
        return SimpleNamespace(logits=table[input_ids] + bias[: input_ids.shape[1]])

    stream = Stream(
        frame=params["v_placeholder_id"],
        interval=params["frame_interval_id"],
        eos=params["eos_id"],
        tokens=params["tokens_per_frame"],
        threshold=params["threshold"],
    )
    found = evaluate(model, inputs["input_ids"][0], inputs["labels"][0], stream)
    return {"metrics": torch.tensor(list(vars(found).values()))}


OPS = {"stream_loss": loss, "stream_learn_ranges": ranges, "stream_metrics": metrics}
