"""What a user asks about pictures or a video, as one turn that a processor can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foveate.errors import InvalidParameter, UnsupportedModel


@dataclass(frozen=True)
class Turn:
    """One user turn.

    Attributes:
        kind: "image" or "video".
        before: visual items in front of the words.
        words: the question itself.
        after: visual items behind the words.
    """

    kind: str
    before: int
    words: str
    after: int

    def content(self, items: list[Any] | None = None) -> list[dict[str, Any]]:
        """The turn as a chat template takes it, with pictures where `items` are given."""
        shown: list[dict[str, Any]] = [{"type": self.kind}] * (self.before + self.after)
        if items is not None:
            shown = [{"type": self.kind, self.kind: item} for item in items]
        text = {"type": "text", "text": self.words}
        return [*shown[: self.before], text, *shown[self.before :]]

    def text(self, processor: Any) -> str:
        """The prompt with placeholders, by the chat template where the processor has one."""
        if getattr(processor, "chat_template", None):
            return processor.apply_chat_template(
                [{"role": "user", "content": self.content()}], add_generation_prompt=True
            )
        token = getattr(processor, f"{self.kind}_token", None)
        if not isinstance(token, str):
            raise UnsupportedModel(
                f"{type(processor).__name__} has neither a chat template nor an image token, so no "
                "prompt can be written for it; save a chat template with the processor."
            )
        # Apart, so that models which count a picture per run of placeholders count them all.
        return "\n".join([token] * self.before + [self.words] + [token] * self.after)


def turn(processor: Any, question: str, count: int, kind: str = "image") -> Turn:
    """The turn of a question about `count` visual items.

    Lines `<image>` (or `<video>`, or the model's own placeholder) at the start or the end of the
    question, as prompts for LLaVA have them, say where the items stand. Without them the items
    stand in front. Any other text that the tokenizer would read as a control token is refused.
    """
    named = getattr(processor, f"{kind}_token", None)
    marks = {f"<{kind}>", named} if isinstance(named, str) else {f"<{kind}>"}
    lines = question.split("\n")
    start, end = 0, len(lines)
    while start < end and lines[start].strip() in marks:
        start += 1
    while end > start and lines[end - 1].strip() in marks:
        end -= 1
    before, after, words = start, len(lines) - end, "\n".join(lines[start:end])
    if not words.strip():
        raise InvalidParameter(f"The question {_short(question)} has no words; ask something.")
    if before + after and before + after != count:
        raise InvalidParameter(
            f"The question {_short(question)} has {before + after} placeholder line(s) for {count} "
            f"{kind}(s); write one for each, or none, and they are put in front."
        )
    control = _control_token(processor, words)
    if control is not None:
        raise InvalidParameter(
            f"The question {_short(question)} contains {control!r}, which this model reads as a "
            "control token and not as words; leave it out, or put spaces into it."
        )
    if before + after == 0:
        before = count
    return Turn(kind, before, words, after)


def _short(question: str) -> str:
    return repr(question if len(question) <= 80 else question[:77] + "...")


def starts_by_itself(processor: Any, text: str) -> bool:
    """Whether a prompt brings the token that the tokenizer would put in front of it."""
    first = getattr(processor.tokenizer, "bos_token", None)
    return first is not None and text.startswith(first)


def _control_token(processor: Any, words: str) -> str | None:
    """The longest control token in `words`, None without one."""
    tokenizer = processor.tokenizer
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    known = {token.content for token in added if token.special}
    known |= {*getattr(tokenizer, "all_special_tokens", ())}
    known |= {getattr(processor, f"{kind}_token", None) for kind in ("image", "video", "audio")}
    found = [
        token for token in known if isinstance(token, str) and token.strip() and token in words
    ]
    return max(found, key=len, default=None)
