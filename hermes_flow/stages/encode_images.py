"""The stage ``encode_images`` runs the vision encoder of a model over the images of a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.convert import INTERNAL
from hermes_flow.config.quantities import Pixels, Tokens
from hermes_flow.config.schema import Model
from hermes_flow.config.vision import image_patches, image_tokens, tower_of
from hermes_flow.cost.passes import Site, image_pass
from hermes_flow.errors import ConfigError
from hermes_flow.program.units import Ints
from hermes_flow.program.work import PassCost
from hermes_flow.stages.kind import Receiver, RequestSizes, Role, stage_kinds

# source: the embeddings of images have the precision of activations, bf16 in the models' published configs
_EMBEDDING_BYTES = 2


@stage_kinds.register("encode_images")
@dataclass(frozen=True, slots=True)
class EncodeImages:
    """Every image has ``width_px`` × ``height_px`` pixels and joins the prompts after it as tokens of the model.

    Requests without images skip the stage. ``reader`` is the model whose encoder runs; the compiler sets it.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "batched"
    role: ClassVar[Role] = "images"
    width_px: Pixels = 1024
    """The width of every image in pixels."""
    height_px: Pixels = 1024
    """The height of every image in pixels."""
    tokens_per_image: Tokens | None = None
    """The prompt tokens that each image adds; null: as many as the model makes of its pixels."""
    in_prompt: bool = False
    """True where the workload's prompts count the tokens of images already, so that none are added."""
    reader: Model | None = field(default=None, metadata=INTERNAL)

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the patches that the encoder computes for each request."""
        return _images(sizes) * self.patches

    def adds(self, sizes: RequestSizes) -> Ints:
        """Return the tokens that the images of each request add to the prompts after them."""
        if self.in_prompt:
            return np.zeros_like(sizes.input_tokens)
        return _images(sizes) * self.image_tokens

    def takes(self, sizes: RequestSizes) -> NDArray[np.bool_]:
        """Return which requests have images."""
        has: NDArray[np.bool_] = _images(sizes) > 0
        return has

    def sends(self, to: Receiver, tokens: Ints) -> Ints | None:
        """Return the bytes of the embeddings of all images, for the prefill that reads them."""
        if to.role != "prompt" or self.reader is None:
            return None
        return tokens // self.patches * (self.image_tokens * self.reader.hidden_size * _EMBEDDING_BYTES)

    def passes(self, site: Site) -> PassCost:
        """Return the forward passes of the encoder over the images of several requests."""
        if self.reader is None:
            raise ConfigError(f"{site.key}.model", "null; images need the model whose encoder runs")
        return image_pass(site, self.reader, self.patches)

    @property
    def patches(self) -> int:
        """The patches of one image."""
        tower = None if self.reader is None else tower_of(self.reader)
        return 1 if tower is None else image_patches(tower, self.width_px, self.height_px)

    @property
    def image_tokens(self) -> int:
        """The prompt tokens of one image."""
        if self.tokens_per_image is not None:
            return self.tokens_per_image
        tower = None if self.reader is None else tower_of(self.reader)
        return 0 if tower is None else image_tokens(tower, self.width_px, self.height_px)


def _images(sizes: RequestSizes) -> Ints:
    return np.zeros_like(sizes.input_tokens) if sizes.images is None else sizes.images
