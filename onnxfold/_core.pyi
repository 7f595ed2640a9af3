"""k-means and Ward clustering of points given by their Gram matrix (compiled; see csrc/)."""

import numpy as np
from numpy.typing import NDArray

def cluster(
    gram: NDArray[np.float64],
    k: int,
    seed: int,
    restarts: int,
    sweeps: int,
    perturbations: int,
    threads: int,
) -> tuple[NDArray[np.int32], float, int]: ...
def ward(gram: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]: ...
