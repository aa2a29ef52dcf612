"""Where the cube is in a picture, by its colour; and how far that is from where it should be, in mm."""

from collections.abc import Sequence

import numpy as np

REDNESS = 0.12  # of a pixel's red over its larger other channel, from which it belongs to the cube of cube-single
LEAST = 0.5  # sum of it, below which there is no cube to be seen
OUTLIER = 3.0  # pixels from the first fit, beyond which a picture does not count in the second: the cube is half hidden


def centroid(picture: np.ndarray) -> np.ndarray | None:
    """(2,) pixels, right and down, of what is red in (H, W, 3) uint8; None where nothing is."""
    values = picture.astype(np.float32) / 255.0
    red = np.maximum(values[..., 0] - values[..., 1:].max(2) - REDNESS, 0.0)
    total = float(red.sum())
    if total < LEAST:
        return None
    rows, columns = np.indices(red.shape)
    return np.array([(red * columns).sum(), (red * rows).sum()]) / total


class Projection:
    """A camera, `matrix` (3, 4), fitted to places (N, 3) m and the pixels (N, 2) they were found at, but for those farther than
    `outlier` from a first fit; ValueError with fewer than 20."""

    def __init__(self, places: np.ndarray, pixels: np.ndarray, outlier: float = OUTLIER) -> None:
        if len(places) < 20:
            raise ValueError(f"{len(places)} pictures with the thing to be seen, at least 20 are needed to fit the camera")
        self.matrix = _fit(places, pixels)
        near = np.linalg.norm(self(places) - pixels, axis=1) < outlier
        if near.sum() >= 20:
            self.matrix = _fit(places[near], pixels[near])

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """(N, 3) m → (N, 2) pixels."""
        seen = np.concatenate([places, np.ones((len(places), 1))], 1) @ self.matrix.T
        return seen[:, :2] / seen[:, 2:]

    def error(self, pixel: np.ndarray, place: np.ndarray) -> float:
        """mm: the least displacement of `place` (3,) m that would bring it to `pixel` (2,). Along the line of sight nothing is seen."""
        ends = place + 1e-3 * np.eye(3)
        here = self(place[None])[0]
        jacobian = (self(ends) - here).T  # pixels per mm
        return float(np.linalg.norm(np.linalg.pinv(jacobian) @ (pixel - here)))


def errors(projection: Projection, pictures: Sequence[np.ndarray], places: np.ndarray) -> np.ndarray:
    """(N,) mm; NaN where no cube was found."""
    found = [centroid(picture) for picture in pictures]
    return np.array([np.nan if pixel is None else projection.error(pixel, place) for pixel, place in zip(found, places, strict=True)])


def _fit(places: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Direct linear transformation, on centred and scaled coordinates (Hartley 1997)."""
    scale_3, scale_2 = _conditioned(places), _conditioned(pixels)
    x = np.concatenate([places, np.ones((len(places), 1))], 1) @ scale_3.T
    u, v = ((np.concatenate([pixels, np.ones((len(pixels), 1))], 1) @ scale_2.T)[:, :2]).T
    zero = np.zeros_like(x)
    equations = np.concatenate([np.concatenate([x, zero, -u[:, None] * x], 1), np.concatenate([zero, x, -v[:, None] * x], 1)])
    matrix = np.linalg.svd(equations, full_matrices=False)[2][-1].reshape(3, 4)
    return np.linalg.inv(scale_2) @ matrix @ scale_3


def _conditioned(points: np.ndarray) -> np.ndarray:
    """The matrix that gives homogeneous points zero mean and unit deviation."""
    size = points.shape[1]
    matrix = np.eye(size + 1)
    deviation = points.std(0).mean()
    matrix[:size, :size] /= deviation
    matrix[:size, size] = -points.mean(0) / deviation
    return matrix
