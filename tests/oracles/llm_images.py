"""The naive cache of encoded images: a list, in which the image that was used last stands last."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class NaiveImages:
    """Images of ``tokens`` tokens each; a pass over n of them takes ``pass_ps[n]``."""

    tokens: int
    pass_ps: list[int]
    kept_tokens: int
    step_tokens: int
    kept: list[int] = field(default_factory=list)
    encoded: int = 0
    found: int = 0

    def asked(self, images: tuple[int, ...], computed: int) -> list[int]:
        """Return the images that end behind the tokens which are computed already."""
        return [image for place, image in enumerate(images) if (place + 1) * self.tokens > computed]

    def lacking(self, images: tuple[int, ...], computed: int) -> int:
        return len(set(self.asked(images, computed)) - set(self.kept))

    def fit(self, in_step: int, images: tuple[int, ...], computed: int) -> bool:
        """Return whether a step that encodes so many images has room for those of a prompt."""
        lacking = self.lacking(images, computed)
        return not in_step or not lacking or (in_step + lacking) * self.tokens <= self.step_tokens

    def admit(self, images: tuple[int, ...], computed: int) -> int:
        """Note that a prompt is admitted; return how many of its images are encoded."""
        lacking, asked = self.lacking(images, computed), self.asked(images, computed)
        self.encoded += lacking
        self.found += len(asked) - lacking
        for image in asked:
            if image in self.kept:
                self.kept.remove(image)
            self.kept.append(image)
        room = max(1, self.kept_tokens // self.tokens)
        self.kept = self.kept[-room:]
        return lacking
