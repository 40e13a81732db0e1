"""Names that all modules of the exporter share."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]

# Domain of the operators that ONNX Runtime adds to the standard ("contrib ops").
CONTRIB_DOMAIN: Final = "com.microsoft"
