"""The tasks by id."""

from ..keys import WorldError
from ..scene import Canvas
from .base import Asked, Dialogue, Question, Series, Task
from .i1_attribute import Attribute
from .i2_locate import Locate
from .i3_relation import Relation
from .i4_count import Count
from .i5_exist import Exist
from .i6_tiny import Tiny
from .i7_camouflage import Camouflage
from .i8_crowd import Crowd
from .i9_read import Read
from .i10_anchor import Anchor
from .i11_document import Document
from .i12_chart import Chart
from .i13_scene import SceneType
from .i14_scale import Scale
from .i15_several import Several
from .i16_context import InContext
from .i17_dialogue import Conversation

# What nano learns: one picture of 8 x 8 patches is enough for these.
_CORE = (Attribute(), Locate(), Count(), Exist(), Read())
TASKS: dict[str, Task] = {task.id: task for task in _CORE}

_MORE = (
    Relation(),
    Tiny(),
    Camouflage(),
    Crowd(),
    Anchor(),
    Document(),
    Chart(),
    SceneType(),
    Scale(),
    Several(),
    InContext(),
    Conversation(),
)
CATALOGUE: dict[str, Asked] = {
    task.id: task for task in sorted((*_CORE, *_MORE), key=lambda task: int(task.id[1:]))
}


def tasks(size: int = 64, patch: int = 8, medium: str | None = None) -> dict[str, Asked]:
    """The tasks that exist for pictures of this size, by id.

    ``medium`` narrows them to "image", "images" or "dialogue"; those of medium "image" can draw and
    ask in training.
    """
    if medium not in (None, "image", "images", "dialogue"):
        raise WorldError(f'unknown medium {medium!r}: use "image", "images" or "dialogue".')
    canvas = Canvas(size, patch)
    return {
        name: task
        for name, task in CATALOGUE.items()
        if task.fits(canvas) and medium in (None, task.medium)
    }


__all__ = ["CATALOGUE", "TASKS", "Asked", "Dialogue", "Question", "Series", "Task", "tasks"]
