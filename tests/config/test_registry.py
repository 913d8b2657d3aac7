from __future__ import annotations

from dataclasses import dataclass

import pytest

from hermes_flow.config.registry import Registry
from hermes_flow.errors import ConfigError

shapes: Registry[object] = Registry("shape", tag="form")


@shapes.register("circle")
@dataclass(frozen=True, slots=True)
class Circle:
    radius: float = 1.0

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ConfigError("radius", f"{self.radius:g} is not above 0")


@shapes.register("square")
@dataclass(frozen=True, slots=True)
class Square:
    side: float


def refusal(value: object) -> str:
    with pytest.raises(ConfigError) as caught:
        shapes.parse(value, "drawing.shape")
    return str(caught.value)


def test_a_mapping_with_the_tag_gives_the_variant() -> None:
    assert shapes.parse({"form": "square", "side": 2}, "drawing.shape") == Square(2.0)


def test_a_name_alone_gives_the_variant_with_its_defaults() -> None:
    assert shapes.parse("circle", "drawing.shape") == Circle(1.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"form": "sqare", "side": 2}, "drawing.shape.form: unknown shape 'sqare'; did you mean 'square'?"),
        ("hexagon", "drawing.shape: unknown shape 'hexagon'; expected one of: circle, square"),
        ({"form": 3}, "drawing.shape.form: unknown shape 3; expected one of: circle, square"),
        ({"form": ["square"]}, "drawing.shape.form: unknown shape ['square']; did you mean 'square'?"),
        ({"side": 2}, "drawing.shape.form: missing; expected one of: circle, square"),
        (7, "drawing.shape: 7 is not a mapping whose form is one of: circle, square"),
        (None, "drawing.shape: null is not a mapping whose form is one of: circle, square"),
        ({"form": "circle", "radios": 2}, "drawing.shape.radios: unknown key; did you mean 'radius'?"),
        ({"form": "square"}, "drawing.shape.side: missing; expected a number"),
        ({"form": "square", "side": "long"}, "drawing.shape.side: 'long' is not a number"),
        ({"form": "circle", "radius": -1}, "drawing.shape.radius: -1 is not above 0"),
    ],
)
def test_a_wrong_variant_is_refused_with_its_full_key(value: object, message: str) -> None:
    assert refusal(value) == message


def test_a_key_of_another_variant_is_refused_and_told_whose_it_is() -> None:
    assert refusal({"form": "circle", "side": 2}) == "drawing.shape.side: unknown key; it is a key of square"


def test_two_classes_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="shape 'circle' is registered twice"):
        shapes.register("circle")(Square)
    assert shapes.find("circle", "key") is Circle


def test_names_are_sorted() -> None:
    assert shapes.names == ["circle", "square"]
