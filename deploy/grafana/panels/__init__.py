"""The dashboards: which panels, in which rows; a file each."""

from typing import Final

from panels.machine import MACHINE
from panels.overview import OVERVIEW
from panels.serving import SERVING
from panels.work import WORK

DASHBOARDS: Final = {
    "overview": ("Nestvec: overview", OVERVIEW),
    "serving": ("Nestvec: serving", SERVING),
    "work": ("Nestvec: keys, batches, models", WORK),
    "machine": ("Nestvec: processes and GPUs", MACHINE),
}
