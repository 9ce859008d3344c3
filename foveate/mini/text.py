"""The word-level tokenizer of the embedded models, built from the world's vocabulary."""

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .world.vocabulary import groups, ids

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<' + message['role'] + '>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>"
    "{% elif part['type'] == 'video' %}<video>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, digit or sign; unknown words become ``<unk>``.

    Words are lowercased. A single capital is a letter of its own (answer options, spelled strings):
    "What is (A)?" becomes "what is ( A ) ?".
    """
    tokenizer = Tokenizer(models.WordLevel(ids(), unk_token="<unk>"))
    lowering = [
        normalizers.Replace(Regex(f"{letter}(?=[a-z])"), letter.lower())
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    ]
    tokenizer.normalizer = normalizers.Sequence(lowering)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("[a-z]+(?:-[a-z]+)*|[A-Z0-9]|[^\\sa-zA-Z0-9]"), "isolated"),
            pre_tokenizers.WhitespaceSplit(),
        ]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="\x00", cleanup=True)
    roles = ("<pad>", "<bos>", "<eos>", "<unk>")
    others = [token for token in groups()["special"] if token not in roles]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=others,
        padding_side="left",
        model_max_length=2048,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
