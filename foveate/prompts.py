"""Builds the user turn of a question about images or a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foveate.errors import InvalidParameter, UnsupportedModel


@dataclass(frozen=True)
class Turn:
    """One user turn.

    Attributes:
        kind: "image" or "video".
        before: Number of images or videos before the question.
        words: The question.
        after: Number of images or videos after the question.
    """

    kind: str
    before: int
    words: str
    after: int

    def content(self, items: list[Any] | None = None) -> list[dict[str, Any]]:
        """The content list for a chat template, with the media where `items` are given."""
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
                f"{type(processor).__name__} has neither a chat template nor an image token, so a "
                "prompt can't be built; save a chat template with the processor."
            )
        # On separate lines, because some models count one image per run of placeholders.
        return "\n".join([token] * self.before + [self.words] + [token] * self.after)


def turn(processor: Any, question: str, count: int, kind: str = "image") -> Turn:
    """The turn of a question about `count` images or videos.

    Lines `<image>` (or `<video>`, or the model's own placeholder) at the start or the end of the
    question say where the items go, as in prompts for LLaVA. Without them the items go before the
    question. Other text that the tokenizer reads as a control token is refused.

    Args:
        processor: The processor.
        question: The question.
        count: Number of images or videos.
        kind: "image" or "video".
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
        raise InvalidParameter(f"The question {_short(question)} has no text; write a question.")
    if before + after and before + after != count:
        raise InvalidParameter(
            f"The question {_short(question)} has {before + after} placeholder line(s) for {count} "
            f"{kind}(s); write one line for each, or none to put them before the question."
        )
    control = _control_token(processor, words)
    if control in marks:
        raise InvalidParameter(
            f"The question {_short(question)} contains {control!r} inside the text; each {control} "
            "must stand on a line of its own, at the start or the end of the question."
        )
    if control is not None:
        raise InvalidParameter(
            f"The question {_short(question)} contains {control!r}, which is a control token of "
            "this model; remove it, or insert spaces."
        )
    if before + after == 0:
        before = count
    return Turn(kind, before, words, after)


def _short(question: str) -> str:
    return repr(question if len(question) <= 80 else question[:77] + "...")


def starts_by_itself(processor: Any, text: str) -> bool:
    """Whether a prompt already starts with the token that the tokenizer would add."""
    first = getattr(processor.tokenizer, "bos_token", None)
    return first is not None and text.startswith(first)


def _control_token(processor: Any, words: str) -> str | None:
    """The longest control token in `words`, or None."""
    tokenizer = processor.tokenizer
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    known = {token.content for token in added if token.special}
    known |= {*getattr(tokenizer, "all_special_tokens", ())}
    known |= {getattr(processor, f"{kind}_token", None) for kind in ("image", "video", "audio")}
    found = [
        token for token in known if isinstance(token, str) and token.strip() and token in words
    ]
    return max(found, key=len, default=None)
