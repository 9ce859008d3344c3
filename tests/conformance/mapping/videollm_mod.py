"""VideoLLM-MoD: the base system's loss, ranges and metrics, and the layer of LION-FS."""

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from foveate.benchmarks.streaming import Stream, stream_metrics
from foveate.methods.layers.lionfs import lionfs_layer
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
    table, bias = inputs["logit_table"], inputs["position_bias"]
    ids = inputs["input_ids"][0]

    def follow(start, new):
        return table[new] + bias[start : start + len(new)]

    stream = Stream(
        frame=params["v_placeholder_id"],
        interval=params["frame_interval_id"],
        eos=params["eos_id"],
        tokens=params["tokens_per_frame"],
        threshold=params["threshold"],
    )
    assert params["ignore_id"] == -100
    found = stream_metrics(ids, inputs["labels"][0], follow(0, ids), follow, stream)
    return {"metrics": torch.tensor(list(vars(found).values()))}


@torch.no_grad()
def mod_layer(inputs, weights, params):
    only(params, selection="global", positions="compact", scale="mlp")
    config = LlamaConfig(
        hidden_size=inputs["hidden"].shape[-1],
        intermediate_size=params["intermediate"],
        num_attention_heads=params["num_heads"],
        num_key_value_heads=params["num_kv_heads"],
        head_dim=params["head_dim"],
        rms_norm_eps=params["rms_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": params["rope_theta"]},
        attn_implementation="sdpa",
    )
    layer = LlamaDecoderLayer(config, 0).eval()
    layer.load_state_dict({k: v for k, v in weights.items() if not k.startswith("router")})
    visual = inputs["visual_mask"].bool()
    hidden, ran, loss = lionfs_layer(
        layer,
        LlamaRotaryEmbedding(config),
        weights["router.weight"],
        inputs["hidden"],
        visual,
        params["keep_ratio"],
    )
    return {"hidden": hidden, "processed": ran, "aux_loss": loss[None]}


OPS = {
    "stream_loss": loss,
    "stream_learn_ranges": ranges,
    "stream_metrics": metrics,
    "mod_layer_lionfs": mod_layer,
}
