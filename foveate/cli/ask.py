"""`foveate ask`: one question about images, answered with a method, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli.models import DEFAULT
from foveate.cli.options import (
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    JsonOption,
    ModelOption,
    SettingsOption,
)
from foveate.cli.sentences import interruptible


def ask(
    media: Annotated[list[str], typer.Argument(help="Images; - reads one from standard input.")],
    question: Annotated[
        str,
        typer.Option(
            "--question",
            "-q",
            help="What to ask about them. The images come before the question. To place them "
            "yourself, start or end the question with lines that hold only <image>, one line per "
            "image. Other control tokens are refused.",
        ),
    ],
    model: ModelOption = DEFAULT,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Slug of a method; a+b uses two together. Repeat the option with --compare."
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Visual tokens to keep, for each method. A ratio: 0.25 or 25%; 1.0 or 100% keeps "
            "all. An integer is a number of tokens per image: 64, and 1 keeps one token; InternVL "
            "counts per tile, Idefics3 and SmolVLM per prompt."
        ),
    ] = None,
    set_: SettingsOption = None,
    plan: Annotated[
        Path | None, typer.Option(help="A plan that 'foveate tune' wrote, in place of --method.")
    ] = None,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Show the full model and the methods side by side, timed."),
    ] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Write an image of the kept, merged and dropped patches to this file."),
    ] = None,
    heatmap: Annotated[
        Path | None, typer.Option(help="Write an image of the token scores to this file.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Dtype.auto,
    as_json: JsonOption = False,
) -> None:
    """Ask a model about images, with fewer visual tokens."""
    with interruptible("Nothing is kept; run the same command again."):
        # Cheap mistakes are found before the model loads.
        from foveate.cli.overlay_file import check_drawings, check_scores
        from foveate.errors import FoveateError
        from foveate.media import load_image

        if not question.strip():
            raise FoveateError("The question is empty; write one after -q.")
        drawn = {"--overlay": overlay, "--heatmap": heatmap}
        check_drawings(overlay, heatmap)
        for option, path in drawn.items():
            if compare and path is not None:
                raise FoveateError(f"{option} draws one method: omit --compare or {option}.")
        chosen = _methods(method or [], keep, set_ or [], plan, compare)
        given = bool(method or plan)
        if heatmap is not None:
            check_scores(chosen[0], given)
        images = [load_image(source) for source in media]

        from foveate.cli.console import print_json
        from foveate.cli.models import load_model

        loaded, processor = load_model(model, device.value, dtype.value, as_json)
        unknown = _unknown_words(processor, question)
        if unknown:
            words = ", ".join(unknown)
            typer.echo(f"Note: the tokenizer of {model} does not know {words}.", err=True)
        asked = {"question": question, "media": media, "model": model}
        if compare:
            found = _compared(loaded, processor, images, question, chosen, max_new_tokens, as_json)
            print_json({**asked, **found.to_dict()}) if as_json else _plain(str(found))
            return
        result = _answered(
            loaded, processor, images, question, chosen[0], max_new_tokens, as_json,
            scores=heatmap is not None,
        )  # fmt: skip
        # A picture that fails must not cost the answer.
        failed = _failed(drawn, images, processor, question, result)
        if as_json:
            print_json(
                {
                    "answer": result.text,
                    **asked,
                    "method": chosen[0].to_dict() if given else None,
                    "overlay": _written(overlay, "--overlay", failed),
                    "heatmap": _written(heatmap, "--heatmap", failed),
                    "report": result.report.to_dict(),
                }
            )
        else:
            done = {o: path for o, path in drawn.items() if path is not None and o not in failed}
            _print(result, f"{chosen[0] if given else 'no method'} on {model}", done)
        for error in failed.values():
            raise error


def _methods(
    slugs: list[str], keep: str | None, settings: list[str], plan: Path | None, compare: bool
) -> list[Any]:
    """The methods that the options name; the method that changes nothing if there is none."""
    from foveate.cli.method_options import build_method, build_methods
    from foveate.errors import FoveateError

    if plan is not None:
        given = (("--method", slugs), ("--keep", keep is not None), ("--set", settings))
        both = " and ".join(name for name, value in given if value)
        if both:
            raise FoveateError(f"--plan already names a method and its parameters; omit {both}.")
        from foveate.tuning.plan import from_plan

        return [from_plan(plan)]
    if compare and not slugs:
        raise FoveateError("--compare has no method to compare; name one or more with --method.")
    listed = next((slug for slug in slugs if "," in slug), None)
    if listed is not None:
        names = [name.strip() for name in listed.split(",") if name.strip()]
        raise FoveateError(
            f"--method {listed!r} is a list; write --method {'+'.join(names)} to use the methods "
            f"together, or --compare {' '.join(f'--method {name}' for name in names)} to compare "
            "them."
        )
    if len(slugs) > 1 and not compare:
        raise FoveateError(
            f"--method is given {len(slugs)} times; write --method {'+'.join(slugs)} to use the "
            "methods together, or add --compare to compare them."
        )
    return build_methods(slugs, keep, settings) if slugs else [build_method(None, keep, settings)]


def _compared(
    model: Any, processor: Any, images: list[Any], question: str, methods: list[Any],
    max_new_tokens: int, quiet: bool,
) -> Any:  # fmt: skip
    import foveate
    from foveate.cli.console import waiting

    with waiting("comparing", quiet):
        return foveate.compare(
            model, processor, images, question, methods, max_new_tokens=max_new_tokens
        )


def _answered(
    model: Any, processor: Any, images: list[Any], question: str, method: Any,
    max_new_tokens: int, quiet: bool, scores: bool,
) -> Any:  # fmt: skip
    from foveate.answering import answer
    from foveate.cli.console import waiting

    with waiting("answering", quiet):
        return answer(model, processor, images, question, method, max_new_tokens, scores)


def _failed(
    drawn: dict[str, Path | None], images: list[Any], processor: Any, question: str, result: Any
) -> dict[str, Exception]:
    """Draw the pictures, and return the errors of those that fail, by option."""
    from foveate.cli.overlay_file import write_heatmap, write_overlay
    from foveate.errors import FoveateError

    write = {"--overlay": write_overlay, "--heatmap": write_heatmap}
    failed: dict[str, Exception] = {}
    for option, path in drawn.items():
        try:
            if path is not None:
                write[option](path, images, processor, result.report, question, result.text)
        except FoveateError as error:
            failed[option] = error
    return failed


def _written(path: Path | None, option: str, failed: dict[str, Exception]) -> str | None:
    return str(path) if path is not None and option not in failed else None


def _unknown_words(processor: Any, question: str) -> list[str]:
    """Words that the word-level tokenizer of an embedded model does not know."""
    tokenizer = processor.tokenizer
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None:
        return []
    words = question.replace("?", " ").replace(".", " ").replace(",", " ").split()
    return [
        repr(word) for word in words if unknown in tokenizer.encode(word, add_special_tokens=False)
    ]


def _plain(text: str) -> None:
    from foveate.cli.console import console

    console().print(text, markup=False, soft_wrap=True)


def _print(result: Any, title: str, drawn: dict[str, Path]) -> None:
    from foveate.cli.console import console

    out = console()
    out.print(result.text or "(no words)", style="bold", markup=False, soft_wrap=True)
    out.print(f"\n{title}", style="cyan", markup=False, soft_wrap=True)
    # The first line of a report is the method, which the title names.
    _plain("\n".join(str(result.report).splitlines()[1:]))
    for option, path in drawn.items():
        _plain(f"{option.removeprefix('--')}: {path}")
