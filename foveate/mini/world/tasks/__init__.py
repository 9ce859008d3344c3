"""The tasks by id."""

from .base import Question, Task
from .i1_attribute import Attribute
from .i2_locate import Locate
from .i4_count import Count
from .i5_exist import Exist
from .i9_read import Read

_ALL = (Attribute(), Locate(), Count(), Exist(), Read())
TASKS: dict[str, Task] = {task.id: task for task in _ALL}

__all__ = ["TASKS", "Question", "Task"]
