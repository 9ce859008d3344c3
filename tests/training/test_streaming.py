"""What a stream learns: the labels behind its frames, and their weight in the loss."""

import torch
from torch.nn.functional import cross_entropy

import foveate
from foveate.training.streaming import stream_labels, stream_loss


def test_behind_each_frame_what_comes_next_is_learned():
    _, processor = foveate.mini("nano")
    text = "what , <image>,<image>,<image> red"
    made = processor.tokenizer(
        text, return_tensors="pt", return_offsets_mapping=True, add_special_tokens=False
    )
    ids, offsets = made["input_ids"][0], made["offset_mapping"][0]
    labels = stream_labels(text, ids, offsets, 3, 1, placeholder="<image>", interval=",")
    words = processor.tokenizer.convert_ids_to_tokens(ids)
    learned = [(word, int(label) != -100) for word, label in zip(words, labels, strict=True)]
    assert [w for w, told in learned if told] == [",", ","]
    assert learned[1] == (",", False), "a comma in front of the stream says nothing"
    assert torch.equal(labels[labels != -100], ids[labels != -100])


def test_frames_weigh_as_asked():
    g = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 5, 7, generator=g), torch.randint(0, 7, (2, 5), generator=g)
    labels[0, 1] = -100
    frames = torch.tensor([[True, False, False, True, False], [False] * 5])
    plain = cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(stream_loss(logits, labels, frames), plain)
    each = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(2, 5)
    expected = (each.sum() - 0.75 * each[frames].sum()) / 9
    torch.testing.assert_close(stream_loss(logits, labels, frames, 0.25), expected)
