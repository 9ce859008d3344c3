"""`python -m tests.fuzz.runner --calls 1000 --seed 0`: run calls and print what breaks a law."""

from __future__ import annotations

import argparse
import copy
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from foveate.errors import FoveateError
from tests.families import zoo

from .draws import Draw, draw
from .laws import LAWS, Broken, check


@dataclass(frozen=True)
class Failure:
    """A call that broke a law or raised an error of somebody else's."""

    draw: Draw
    words: str


@cache
def _model(family: str, dtype: torch.dtype) -> Any:
    return copy.deepcopy(zoo.model(family)).to(dtype)


def run(
    seed: int, numbers: range, only: set[str] | None = None
) -> Iterator[tuple[Draw, str, Failure | None]]:
    """Per call its draw, how it went ("held", "refused", "near tie", "broken") and the failure."""
    for number in numbers:
        drawn = draw(seed, number)
        if only and drawn.call not in only:
            continue
        yield drawn, *judged(drawn)


def judged(drawn: Draw) -> tuple[str, Failure | None]:
    """How one call went."""
    try:
        check(drawn, _model(drawn.family, drawn.dtype))
    except FoveateError as error:
        words = str(error)
        return "refused", None if words.endswith(".") else Failure(drawn, f"no sentence: {words}")
    except Broken as broken:
        # Scores that differ by rounding alone may fall either way; in double precision they don't.
        try:
            check(drawn, _model(drawn.family, torch.float64))
        except FoveateError:
            return "near tie", None
        except Exception:
            return "broken", Failure(drawn, str(broken))
        return "near tie", None
    except Exception as error:
        if _bare_fails_too(drawn, type(error)):
            return "refused", None
        where = [f for f in traceback.extract_tb(error.__traceback__) if "foveate" in f.filename]
        at = f"{where[-1].filename.rsplit('/foveate/', 1)[-1]}:{where[-1].lineno}" if where else ""
        return "broken", Failure(drawn, f"{type(error).__name__}: {str(error)[:120]} @ {at}")
    return "held", None


class _Bare:
    """Stands in for an attachment where there is none."""

    report = None

    def __enter__(self) -> _Bare:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def _bare_fails_too(drawn: Draw, kind: type[Exception]) -> bool:
    from . import laws

    with_method, laws._attached = laws._attached, lambda *_: _Bare()
    try:
        check(drawn, _model(drawn.family, drawn.dtype))
    except kind:
        return True
    except Exception:
        return False
    finally:
        laws._attached = with_method
    return False


def main() -> None:
    """Print failures as they come, and counts at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=sorted(LAWS))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    numbers = range(asked.start, asked.start + asked.calls)
    for drawn, how, failure in run(asked.seed, numbers, set(asked.only or ())):
        counts[how] += 1
        if failure:
            print(f"{drawn}\n    {failure.words}", flush=True)
    print(dict(counts))


if __name__ == "__main__":
    main()
