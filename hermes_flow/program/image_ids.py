"""The names of images, by which an engine knows those that come again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints


@dataclass(frozen=True, slots=True)
class ImageIds:
    """The images of each request: request r has ``ids[offsets[r]:offsets[r + 1]]``; equal ids are equal images."""

    ids: Ints
    offsets: Ints

    def of(self, request: int) -> tuple[int, ...]:
        """Return the images of a request, in the order of its prompt."""
        return tuple(self.ids[self.offsets[request] : self.offsets[request + 1]].tolist())

    def reordered(self, order: NDArray[np.intp]) -> ImageIds:
        """Return the same images with the requests in another order."""
        parts = [self.ids[self.offsets[row] : self.offsets[row + 1]] for row in order.tolist()]
        offsets = np.concatenate(([0], np.cumsum(np.diff(self.offsets)[order])))
        return ImageIds(np.concatenate(parts), offsets)
