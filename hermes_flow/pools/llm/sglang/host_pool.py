"""The KV memory of SGLang with the host's memory behind it, and the admission of prompts that are found there."""

from __future__ import annotations

from hermes_flow.pools.llm.decided_steps import Step
from hermes_flow.pools.llm.offload.links import LoadLinks
from hermes_flow.pools.llm.sglang.admission import Admission, Verdict
from hermes_flow.pools.llm.sglang.host_tree import HostNode, HostTree, Write
from hermes_flow.pools.llm.sglang.radix_tree import Node, Page
from hermes_flow.pools.llm.sglang.scheduler import SGLangScheduler
from hermes_flow.pools.llm.sglang.sequence import Sequence
from hermes_flow.pools.llm.sglang.storage import Fetch, Storage
from hermes_flow.pools.llm.sglang.token_pool import TokenPool
from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.pools import SGLangSettings

LOAD_BACK_TOKENS = 10  # source: SGLang 0.5, load_back_threshold of HiRadixCache: fewer are computed again


class HostPool(TokenPool):
    """A token pool whose prefixes may be in the memory of the host.

    ``loaded_pages`` are those that the present decision loads, ``ends`` their nodes, ``over_ps`` when they are here.
    """

    __slots__ = (
        "_fetches",
        "_most_sought",
        "_sought",
        "ends",
        "fetched",
        "host",
        "links",
        "loaded_pages",
        "over_ps",
        "read",
    )

    def __init__(self, pages: int, page: int, offload: OffloadSpec, write: Write) -> None:
        super().__init__(pages, page, tree=False)
        self.links = LoadLinks(offload)
        fetch = offload.fetch
        storage = None
        if fetch is not None:
            storage = Storage(offload.blocks_in(offload.tiers[1]), page, fetch, self.links)
        self._most_sought = 0 if fetch is None else fetch.most_tokens
        self.host = HostTree(offload.blocks_in(offload.tiers[0]), write, self.links, storage)
        self._fetches: dict[int, Fetch] = {}  # of waiting tasks
        self._sought = 0  # tokens that these looked for
        self.fetched: dict[int, int] = {}  # task → tokens that the drive gave it
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

    # The drive behind the host

    def seek(self, sequence: Sequence) -> None:
        """Look on the drive for what devices and host lack of a request that has come, and begin to read it."""
        host, page = self.host, self.page
        storage = host.storage
        assert storage is not None
        node, known = self.match(sequence, sequence.length - 1)
        assert isinstance(node, HostNode)
        if not node.backed:
            return
        end = host.host_end
        wanted = sequence.pages[known // page + host.host_pages : sequence.length // page]
        if len(wanted) < storage.threshold or self._sought >= self._most_sought:
            return
        end.guards += 1
        if host.reserve(len(wanted)):
            path = host.path(end)
            found = 0 if path is None else storage.find(path, wanted)
            if found >= storage.threshold:
                host.host_free += len(wanted) - found
                self._sought += len(wanted) * page
                self._fetches[sequence.task] = storage.fetch(end, wanted[:found], len(wanted))
                return
            host.host_free += len(wanted)
        host.unguard(end)

    def reads(self, sequence: Sequence) -> bool:
        """Return whether a request whose turn it is waits for the drive; if not, the host has what has come."""
        fetch = self._fetches.get(sequence.task)
        if fetch is None:
            return False
        assert self.host.storage is not None
        if not self.host.storage.goes_on(fetch):
            return True
        self._end(sequence, fetch, fetch.done)
        return False

    def give_up(self, sequence: Sequence) -> None:
        """Read no more for a request that is withdrawn."""
        fetch = self._fetches.get(sequence.task)
        if fetch is not None:
            self._end(sequence, fetch, 0)

    def _end(self, sequence: Sequence, fetch: Fetch, done: int) -> None:
        del self._fetches[sequence.task]
        fetch.over = True
        new = self.host.add(fetch.above, fetch.pages[:done])
        self.host.host_free += len(fetch.pages) - new
        self.host.unguard(fetch.above)
        self._sought -= fetch.asked * self.page
        if new:
            self.fetched[sequence.task] = new * self.page

    def _still_there(self, node: HostNode) -> bool:
        """Whether the host has kept a node while the devices made room, and wrote to the host for that."""
        return node.parent is not None


class HostScheduler(SGLangScheduler):
    """The scheduler of a client with SGLang's hierarchical cache.

    ``from_host`` has, by task, the tokens loaded that the host had, ``from_disk`` those that the drive has given it.
    """

    __slots__ = ("_coming", "from_disk", "from_host")

    pool: HostPool
    from_host: dict[int, int]
    from_disk: dict[int, int]

    def __init__(self, settings: SGLangSettings, pool: HostPool, max_running: int, *, overlap: bool) -> None:
        super().__init__(settings, pool, max_running, overlap=overlap)
        self._coming: list[Sequence] = []  # since the last decision; with a drive alone
        self.from_disk = {}

    @property
    def _out_of_memory(self) -> str:
        key = self._settings.key
        return (
            "by the rules of SGLang's scheduler a request would be aborted: it runs alone, and pages that move "
            f"between host and devices ({key}.offload) leave no memory for its next token; "
            f"expected write=evicted, or more {key}.kv_blocks"
        )

    def enqueue(self, sequence: Sequence) -> None:
        """Take in a request that has arrived."""
        super().enqueue(sequence)
        if self.pool.host.storage is not None:
            self._coming.append(sequence)

    def withdraw(self, sequence: Sequence) -> bool:
        """Remove a request that waits; see ``SGLangScheduler``."""
        if sequence in self._coming:
            self._coming.remove(sequence)
        self.pool.give_up(sequence)
        return super().withdraw(sequence)

    def equal_decodes(self) -> int:
        """Return how many plain decode steps are sure to follow; see ``SGLangScheduler``."""
        return 0 if self._coming or self.pool.host.unsaved else super().equal_decodes()

    def admits(self) -> bool:
        """Whether the next decision tries a request that arrives now, or looks for it on the drive."""
        return self.pool.host.storage is not None or super().admits()

    def decide(self) -> Step | None:
        """Return the next step; loads for it have begun."""
        self.pool.over_ps = 0
        if self.pool.host.storage is not None:
            for sequence in self._coming:
                self.pool.seek(sequence)
            self._coming.clear()
        step = super().decide()
        self.pool.start_loads()
        return step

    def _begin_admission(self) -> None:
        self.pool.host.acknowledge()

    def _before_decode(self) -> None:
        # source: SGLang 0.5, update_running_batch calls flush_write_through_acks before it checks the memory.
        self.pool.host.acknowledge_writes()

    def _put_back(self, sequence: Sequence) -> None:
        self.enqueue(sequence)

    def _held_back(self, sequence: Sequence) -> bool:
        return self.pool.reads(sequence)

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
        task = sequence.task
        if tokens and not isinstance(part, str) and task not in self.from_host:
            from_disk = min(tokens, pool.fetched.get(task, 0))
            self.from_host[task] = tokens - from_disk
            if from_disk:
                self.from_disk[task] = from_disk
        return part, node, prefix
