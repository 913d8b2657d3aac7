"""The KV memory of SGLang with the host's memory behind it, and the admission of prompts that are found there."""

from __future__ import annotations

from hermes_flow.pools.llm.decided_steps import Step
from hermes_flow.pools.llm.offload.links import LoadLinks
from hermes_flow.pools.llm.sglang.admission import Admission, Verdict
from hermes_flow.pools.llm.sglang.host_tree import HostNode, HostTree, Write
from hermes_flow.pools.llm.sglang.radix_tree import Node, Page
from hermes_flow.pools.llm.sglang.scheduler import SGLangScheduler
from hermes_flow.pools.llm.sglang.sequence import Sequence
from hermes_flow.pools.llm.sglang.token_pool import TokenPool
from hermes_flow.program.offload import OffloadSpec

LOAD_BACK_TOKENS = 10  # source: SGLang 0.5, load_back_threshold of HiRadixCache: fewer are computed again


class HostPool(TokenPool):
    """A token pool whose prefixes may be in the memory of the host.

    ``loaded_pages`` are those that the present decision loads, ``ends`` their nodes, ``over_ps`` when they are here.
    """

    __slots__ = ("ends", "host", "links", "loaded_pages", "over_ps", "read")

    def __init__(self, pages: int, page: int, offload: OffloadSpec, write: Write) -> None:
        super().__init__(pages, page, tree=False)
        self.links = LoadLinks(offload)
        self.host = HostTree(offload.blocks_in(offload.tiers[0]), write, self.links)
        self.tree = self.host
        self.ends: list[Node] = []
        self.loaded_pages = self.over_ps = self.read = 0

    @property
    def only_in_host(self) -> int:
        """The tokens after those of the last match that only the host has."""
        return self.host.host_pages * self.page

    def _insert(self, pages: list[Page], *, whole: bool) -> tuple[Node, int]:
        return self.host.insert(pages, counts=whole)

    def load_back(self, node: Node) -> tuple[Node, int]:
        """Load what the last match has found in the host behind ``node``; return the new end, and the tokens.

        All of it is loaded or nothing: nothing where it is below the threshold, or the devices have no room. The
        caller holds ``node``, and then the new end instead.
        """
        host, end = self.host, self.host.host_end
        nodes = host.bring_back(end)
        size = sum([len(one.pages) for one in nodes]) * self.page
        if size < LOAD_BACK_TOKENS:
            return node, 0
        if self.free < size:
            self.free += host.evict(size // self.page) * self.page
        if self.free < size or not self._still_there(end):
            return node, 0
        self.free -= size
        host.load(nodes)
        host.hold(end)  # until it is here
        host.hold(end)  # for the request
        host.release(node)
        self.ends.append(end)
        self.loaded_pages += size // self.page
        return end, size

    def start_loads(self) -> None:
        """Begin the loads of a decision, all in one."""
        if not self.ends:
            return
        pages = self.loaded_pages
        self.over_ps = self.links.load(self.host.now_ps, [pages])
        self.read += pages
        for end in self.ends:
            self.host.loading(end, self.over_ps)
        self.ends.clear()
        self.loaded_pages = 0

    def _still_there(self, node: HostNode) -> bool:
        """Whether the host has kept a node while the devices made room, and wrote to the host for that."""
        return node.parent is not None


class HostScheduler(SGLangScheduler):
    """The scheduler of a client with SGLang's hierarchical cache. ``from_host`` has, by task, the tokens loaded."""

    __slots__ = ("from_host",)

    pool: HostPool
    from_host: dict[int, int]

    def decide(self) -> Step | None:
        """Return the next step; loads for it have begun."""
        self.pool.over_ps = 0
        step = super().decide()
        self.pool.start_loads()
        return step

    def _begin_admission(self) -> None:
        self.pool.host.acknowledge()

    def _part(
        self, admission: Admission, sequence: Sequence, node: Node | None, prefix: int
    ) -> tuple[int | Verdict, Node | None, int]:
        pool = self.pool
        hit = pool.only_in_host
        part = admission.part(sequence, prefix, hit)
        if isinstance(part, str) or not hit:
            return part, node, prefix
        assert node is not None
        node, tokens = pool.load_back(node)
        prefix += tokens
        part = admission.cut(sequence.length - prefix, prefix)
        if tokens and not isinstance(part, str):
            self.from_host.setdefault(sequence.task, tokens)
        return part, node, prefix
