"""The images of a model with a vision encoder: their patches, their tokens, and the encoder's shape."""

from __future__ import annotations

from hermes_flow.config.model import Model, ModelPrecision, VisionTower


def tower_of(model: Model) -> VisionTower | None:
    """Return the layers of the model's encoder of images; None where it has none, or they are not known."""
    return next((side.tower for side in model.side_encoders.values() if side.tower is not None), None)


def image_tokens(tower: VisionTower, width_px: int, height_px: int) -> int:
    """Return the prompt tokens of one image.

    Its edges are rounded to whole tokens, at least one (Qwen2-VL, ``smart_resize`` of its image processor).
    """
    if tower.tokens is not None:
        return tower.tokens
    edge = tower.patch_px * tower.merge
    return max(1, round(width_px / edge)) * max(1, round(height_px / edge))


def image_patches(tower: VisionTower, width_px: int, height_px: int) -> int:
    """Return the patches of one image, which the encoder computes."""
    return image_tokens(tower, width_px, height_px) * tower.merge**2


def tower_model(model: Model, tower: VisionTower) -> Model:
    """Return the layers of the encoder as a model whose tokens are patches.

    Its weights are bf16. Its embedding and the projector after it are not among its layers.
    """
    return Model(
        name=f"{model.name}'s vision encoder",
        kind="encoder",
        layers=tower.layers,
        hidden_size=tower.hidden_size,
        heads=tower.heads,
        kv_heads=tower.heads,
        head_dim=max(1, tower.hidden_size // tower.heads),
        intermediate_size=tower.intermediate_size,
        vocab_size=1,
        max_context=10**12,
        parameters_b=next(side.parameters_b for side in model.side_encoders.values() if side.tower is tower),
        mlp=tower.mlp,
        tied_embeddings=True,
        attention="bidirectional",
        precision=ModelPrecision(),
    )
