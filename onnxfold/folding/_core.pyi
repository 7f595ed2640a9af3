"""k-means and Ward clustering of points given by their Gram matrix (compiled; see csrc/)."""

import numpy as np
from numpy.typing import NDArray

Gram = NDArray[np.float64] | NDArray[np.float32]

def cluster(
    gram: Gram,
    k: int,
    seed: int,
    restarts: int,
    sweeps: int,
    perturbations: int,
    threads: int,
) -> tuple[NDArray[np.int32], float, int]: ...
def ward(gram: Gram) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]: ...
