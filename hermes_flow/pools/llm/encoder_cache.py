"""The encoded images that one client keeps, so that an image that comes again is not encoded again."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ImagesOfTasks:
    """The images of the prompts of a pool: their ids by task, in order, from the beginning of each prompt on.

    Equal ids are equal images. Each is ``tokens`` long. ``pass_ps`` is the time to encode so many of one prompt in a
    pass. A client keeps ``kept_tokens`` of images, and encodes up to ``step_tokens`` in a step.
    """

    ids: Sequence[tuple[int, ...]]
    tokens: int
    pass_ps: Sequence[int]
    kept_tokens: int
    step_tokens: int


class EncoderCache:
    """The images that a client has encoded and not thrown out: those that were used longest ago go first.

    ``encoded`` and ``found`` count the images of admitted prompts that were encoded, and that were there.
    """

    __slots__ = ("_images", "_kept", "_most", "_step_ps", "_used", "encoded", "found")

    def __init__(self, images: ImagesOfTasks) -> None:
        self._images = images
        self._kept: dict[int, None] = {}  # the one used longest ago first
        self._most = max(1, images.kept_tokens // max(1, images.tokens))
        self._step_ps = -1  # the step whose images ``_used`` counts
        self._used = 0
        self.encoded = 0
        self.found = 0

    def fits(self, task: int, computed: int, start_ps: int) -> bool:
        """Return whether the step that begins at ``start_ps`` has room to encode the images of a task.

        A step that encodes nothing else has room for all images of one prompt. ``computed`` are its first tokens
        that need no images, as their KV is there.
        """
        used = self._used if start_ps == self._step_ps else 0
        if not used:
            return True
        missing = self._missing(task, computed)
        return not missing or (used + len(missing)) * self._images.tokens <= self._images.step_tokens

    def take(self, task: int, computed: int, start_ps: int) -> int:
        """Note that a task is admitted to the step that begins at ``start_ps``; return the time for its images."""
        if start_ps != self._step_ps:
            self._step_ps, self._used = start_ps, 0
        needed = self._needed(task, computed)
        if not needed:
            return 0
        missing = self._missing(task, computed)
        self.encoded += len(missing)
        self.found += len(needed) - len(missing)
        self._used += len(missing)
        kept = self._kept
        for image in needed:
            kept.pop(image, None)
            kept[image] = None
        while len(kept) > self._most:
            del kept[next(iter(kept))]
        return self._images.pass_ps[len(missing)]

    def _needed(self, task: int, computed: int) -> tuple[int, ...]:
        images = self._images
        return (
            images.ids[task][computed // images.tokens :] if computed and images.tokens else images.ids[task]
        )

    def _missing(self, task: int, computed: int) -> list[int]:
        return [image for image in dict.fromkeys(self._needed(task, computed)) if image not in self._kept]
