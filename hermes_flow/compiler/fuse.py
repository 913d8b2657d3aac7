"""Phase 4: places stages on pools, and fuses a prefill and its decode if one pool serves both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hermes_flow.compiler.placement import Placement
from hermes_flow.compiler.stage_tasks import StageTasks, outputs
from hermes_flow.program.units import Ints
from hermes_flow.program.work import EarlierPrompt
from hermes_flow.stages.graph import Stage
from hermes_flow.stages.placed import EncodedImages, PlacedStage

Mask = NDArray[np.bool_]


def fuse(
    placement: Placement,
    tasks: Mapping[str, StageTasks],
    pools: Sequence[str],
    models: Mapping[str, Mask],
    decodes_emit_first: bool = False,
    within: frozenset[str] = frozenset(),
) -> tuple[PlacedStage, ...]:
    """Return the placed stages in topological order; ``pools`` gives the order of pool numbers.

    ``tasks`` are the instances of stages, predecessors first. One whose stage has a pool for each model is placed on
    each, taken by the requests that ask for it (``models``). A decode on a pool of its own is taken by requests of a
    single token only where ``decodes_emit_first``: else the prefill has emitted it. Stages in ``within`` encode
    images as a part of the prefills after them, and have no place of their own.
    """
    fusing = _Fusing(placement, tasks, pools, models, decodes_emit_first, within)
    for name in tasks:
        if tasks[name].instance.stage.name in within:
            continue
        for model in placement[tasks[name].instance.stage.name]:
            if (name, model) not in fusing.places:  # else: made with its prefill
                fusing.add(name, model)
    return tuple(fusing.placed)


class _Fusing:
    """What has been placed so far: ``places`` tells where an instance is for a model ("": any)."""

    def __init__(
        self,
        placement: Placement,
        tasks: Mapping[str, StageTasks],
        pools: Sequence[str],
        models: Mapping[str, Mask],
        decodes_emit_first: bool,
        within: frozenset[str],
    ) -> None:
        self.placed: list[PlacedStage] = []
        self.places: dict[tuple[str, str], int] = {}
        self._placement = placement
        self._tasks = tasks
        self._pools = pools
        self._models = models
        self._decodes_emit_first = decodes_emit_first
        self._within = within
        self._decodes = {
            own.instance.after[0]: own for own in tasks.values() if own.instance.stage.role == "answer"
        }

    def add(self, name: str, model: str) -> None:
        """Place an instance for the requests that ask for ``model``."""
        own = self._tasks[name]
        place = len(self.placed)
        self.places[name, model] = place
        make = {"prompt": self._prefill, "answer": self._decode}.get(own.instance.stage.role, self._other)
        self.placed.append(make(own, model))

    def _prefill(self, own: StageTasks, model: str) -> PlacedStage:
        """A prefill, with its decode if that is on the same pool; a prefill by itself generates one token."""
        instance = own.instance
        name, output = instance.name, np.ones_like(own.tokens)
        stages: tuple[Stage, ...] = (instance.stage,)
        decode = self._decodes.get(instance.name)
        if decode is not None and self._pool(decode, model) == self._pool(own, model):
            self.places[decode.instance.name, model] = len(self.placed)
            name = _fused_name(own, decode)
            stages, output = (*stages, decode.instance.stage), self._output(decode, model)
        extends, with_op = self._earlier(own, model)
        written = None if decode is None else decode.written
        if written is not None and extends is not None:  # after a pause: where the KV of what was said is
            with_op = extends.sources[0]
        return PlacedStage(
            name=_named(name, model),
            stages=stages,
            pool=self._index(own, model),
            after=self._after(own, model),
            tokens=own.tokens,
            taken=self._taken(own, model),
            output=output,
            decided=own.decided,
            with_op=with_op,
            extends=extends,
            branch=instance.branch,
            written=written,
            images=self._images(own),
        )

    def _images(self, own: StageTasks) -> EncodedImages | None:
        """Return the images that are encoded within a prefill; None if there are none."""
        found = [self._tasks[name] for name in own.instance.after if self._is_within(name)]
        if not found:
            return None
        params = found[0].instance.stage.params
        patches = [one.tokens if one.taken is None else np.where(one.taken, one.tokens, 0) for one in found]
        return EncodedImages(np.sum(patches, axis=0), params)

    def _is_within(self, name: str) -> bool:
        return self._tasks[name].instance.stage.name in self._within

    def _before_images(self, own: StageTasks) -> list[str]:
        """Return the instances that one comes after, those of images within it replaced by what comes before them."""
        names: list[str] = []
        for name in own.instance.after:
            names += self._before_images(self._tasks[name]) if self._is_within(name) else [name]
        return names

    def _decode(self, own: StageTasks, model: str) -> PlacedStage:
        """A decode on a pool of its own."""
        after = self._after(own, model)
        prefill, output = self.placed[after[0]], self._output(own, model)
        return PlacedStage(
            name=_named(own.instance.name, model),
            stages=(own.instance.stage,),
            pool=self._index(own, model),
            after=after,
            tokens=prefill.tokens,
            taken=prefill.taken if self._decodes_emit_first else _both(output > 1, prefill.taken),
            output=output,
            decided=own.decided,
            branch=own.instance.branch,
            written=own.written,
            kv_from=after[0],
        )

    def _other(self, own: StageTasks, model: str) -> PlacedStage:
        return PlacedStage(
            name=_named(own.instance.name, model),
            stages=(own.instance.stage,),
            pool=self._index(own, model),
            after=self._after(own, model),
            tokens=own.tokens,
            taken=self._taken(own, model),
            service_ns=own.service_ns,
            known_ns=own.known_ns,
            decided=own.decided,
            at_token=own.at_token,
            extends=self._scored(own, model),
        )

    def _earlier(self, own: StageTasks, model: str) -> tuple[EarlierPrompt | None, int | None]:
        """Return what a prompt begins with (another branch's prompt, or an earlier one and its answer), and where.

        Branches share their prompt on the client of the first one.
        """
        instance = own.instance
        if instance.twin is not None:
            twin = self.places[instance.twin, model]
            return EarlierPrompt((twin,)), twin
        prefills = [self._tasks[decode].instance.after[0] for decode in instance.continues]
        sources = tuple(place for prefill in prefills for place in self._before(prefill, model))
        return (EarlierPrompt(sources, answer=True) if sources else None), None

    def _scored(self, own: StageTasks, model: str) -> EarlierPrompt | None:
        """Return the prompt and the answer that a reward model scores."""
        if own.instance.stage.role != "score":
            return None
        prefill = self._tasks[own.instance.after[0]].instance.after[0]
        return EarlierPrompt(tuple(self._before(prefill, model)), answer=True)

    def _before(self, name: str, model: str) -> list[int]:
        """Return the places of an instance before one for ``model``: the same model's, or else all."""
        if (name, model) in self.places:
            return [self.places[name, model]]
        return [place for (other, _), place in self.places.items() if other == name]

    def _after(self, own: StageTasks, model: str) -> tuple[int, ...]:
        names = self._before_images(own) if self._within else own.instance.after
        return tuple(sorted({place for name in names for place in self._before(name, model)}))

    def _pool(self, own: StageTasks, model: str) -> str | None:
        return self._placement[own.instance.stage.name].get(model)

    def _index(self, own: StageTasks, model: str) -> int:
        return self._pools.index(self._placement[own.instance.stage.name][model])

    def _output(self, decode: StageTasks, model: str) -> Ints:
        """Return the tokens of the answers; one, the prefill's, where a request does not take the decode."""
        return outputs(decode.tokens, self._taken(decode, model))

    def _taken(self, own: StageTasks, model: str) -> Mask | None:
        """Return which requests that ask for ``model`` take an instance."""
        return _both(self._models[model], own.taken) if model else own.taken


def _both(mask: Mask, other: Mask | None) -> Mask:
    return mask if other is None else mask & other


def _named(name: str, model: str) -> str:
    return f"{name}@{model}" if model else name


def _fused_name(prefill: StageTasks, decode: StageTasks) -> str:
    """Return what a prefill with its decode is called: ``generate``, or both names where they are the user's own."""
    stage = prefill.instance.stage.name
    suffix = prefill.instance.name.removeprefix(stage)
    return f"generate{suffix}" if stage == "prefill" else f"{stage}+{decode.instance.stage.name}{suffix}"
