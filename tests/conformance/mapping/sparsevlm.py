"""SparseVLM: its own `at_boundary` on given embeddings and attention, and its clusters."""

import torch

from foveate.methods.layers.sparsevlm import SparseVLM, sizes
from foveate.ops.attention import Heads
from foveate.ops.density import density_peaks
from foveate.signals import DecoderHeads
from tests.conformance.boundary import one_sample


def score_select(inputs, weights, params):
    embeds, attention = inputs["embeds"][None], inputs["attn"][None]
    n, start = embeds.shape[1], params["image_start"]
    end = start + params["image_len"]
    visual = torch.zeros(1, n, dtype=torch.bool)
    visual[:, start:end] = True
    # Logarithms as queries against unit keys: their softmax is the attention itself.
    unit = torch.eye(n).expand(attention.shape)
    whole = torch.ones(1, n, dtype=torch.bool)
    heads = Heads(attention.clamp(min=1e-30).log(), unit, 1.0, whole)
    state = one_sample(embeds, start, params["image_len"], {DecoderHeads(): heads})
    method = SparseVLM(pruning_layers=(0,), retained=(params["budget"],), recycle=False)
    assert method.at_boundary(0, 2, state) is None
    score = method._score(state)[0, start:end]
    merge = method.at_boundary(1, 2, state)
    mask = (merge.into[0] == torch.arange(n))[start:end]
    raters = state.notes["raters"][0, 0].nonzero()[:, 0]
    assert (raters >= start).all()
    return {"raters": raters - start, "score": score, "mask": mask}


def cluster(inputs, weights, params):
    x, count = inputs["tokens"], params["cluster_num"]
    group, _ = density_peaks(x, count, inputs["noise"] * 1e-6)
    weight = 1 / (sizes(group, count) + 1e-6).gather(1, group)
    merged = torch.zeros(len(x), count, x.shape[2])
    index = group[..., None].expand_as(x)
    return {"merged": merged.scatter_add_(1, index, x * weight[..., None])}


OPS = {"score_select": score_select, "cluster": cluster}
