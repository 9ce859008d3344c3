"""Sequence packing: many questions about one image in one training sequence.

A sequence is [bos][user][visual tokens][q1 a1][q2 a2]... Every question block attends to the image
and to itself, and its positions start right after the image. So each block equals the prompt of
that question alone, and one encoded image serves many answers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .world.tasks import Question
from .world.vocabulary import ids

PREFIX = ("<bos>", "<user>")


@dataclass
class Packed:
    """The text of B images with T text tokens each; L = prefix + P visual tokens + T.

    Attributes:
        text: token ids, int64 (B, T).
        mask: True where a query (row) attends, bool (B, 1, L, L).
        positions: position ids, int64 (B, L).
        targets: the token to predict after each text token, -100 for none, int64 (B, T).
        answer: number of the question whose answer is predicted there, -1 elsewhere, int64 (B, T).
    """

    text: Tensor
    mask: Tensor
    positions: Tensor
    targets: Tensor
    answer: Tensor


def pack(questions: list[list[Question]], tokenizer, patches: int, device=None) -> Packed:
    """Pack the questions of each image one after the other, in tensors on ``device``."""
    flat = [q for row in questions for q in row]
    asked = tokenizer([q.text for q in flat], add_special_tokens=False).input_ids
    told = tokenizer([q.answer for q in flat], add_special_tokens=False).input_ids
    start, end = ids()["<assistant>"], ids()["<eos>"]
    rows, number = [], 0
    for row in questions:
        tokens, blocks, places, targets, answers = [], [], [], [], []
        for block, _ in enumerate(row):
            prompt, reply = asked[number] + [start], told[number] + [end]
            tokens += prompt + reply[:-1]
            n = len(prompt) + len(reply) - 1
            blocks += [block] * n
            places += range(n)
            targets += [-100] * (len(prompt) - 1) + reply
            answers += [-1] * (len(prompt) - 1) + [number] * len(reply)
            number += 1
        rows.append((tokens, blocks, places, targets, answers))
    length = max(len(row[0]) for row in rows)
    # Padding attends to the image only, and no token attends to it.
    fills = (ids()["<pad>"], -1, 0, -100, -1)
    text, block, place, target, answer = (
        torch.tensor([row[i] + [fill] * (length - len(row[i])) for row in rows], device=device)
        for i, fill in enumerate(fills)
    )
    head = len(PREFIX) + patches
    like = {"dtype": torch.bool, "device": device}
    causal = torch.ones(length, length, **like).tril()
    own = (block[:, :, None] == block[:, None, :]) & (block >= 0)[:, None, :] & causal
    mask = torch.zeros(len(rows), 1, head + length, head + length, **like)
    mask[:, :, :head, :head] = torch.ones(head, head, **like).tril()
    mask[:, :, head:, :head] = True
    mask[:, 0, head:, head:] = own
    front = torch.arange(head, device=device).expand(len(rows), head)
    return Packed(text, mask, torch.cat([front, place + head], 1), target, answer)


def attend(module, query, key, value, attention_mask=None, scaling=None, head: int = 0, **_):
    """Attention over a packed sequence, whose first ``head`` tokens are the prefix and the image.

    The result equals one call with the whole mask, with 0.6 of the multiplications. With ``head``
    = 0 it is ordinary attention.
    """
    if not head:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling)
    picture = (x[:, :, :head] for x in (query, key, value))
    first = scaled_dot_product_attention(*picture, is_causal=True, scale=scaling)
    later, visible = query[:, :, head:], attention_mask[:, :, head:]
    rest = scaled_dot_product_attention(later, key, value, attn_mask=visible, scale=scaling)
    return torch.cat([first, rest], 2).transpose(1, 2).contiguous(), None


# The attention implementation that only the trainer sets.
ATTENTION = "foveate_packed"
AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
