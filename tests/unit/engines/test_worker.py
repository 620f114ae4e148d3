"""What our calls inside vLLM's worker do, on a stand-in for its LoRA manager."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from engines.worker import WorkerExtension


class Cache(dict[int, None]):
    """Stands for vLLM's LRUCache: ordered, with pins."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned_items: set[int] = set()

    @property
    def order(self) -> list[int]:
        return list(self)


class Manager:
    """Stands for LRUCacheLoRAModelManager with two slots."""

    lora_slots = 2

    def __init__(self) -> None:
        self._active_adapters, self._registered_adapters = Cache(), Cache()
        self.lora_index_to_id: list[int | None] = [None, None]

    def activate_adapter(self, lora_id: int) -> bool:
        if lora_id in self._active_adapters:
            return False
        if len(self._active_adapters) == self.lora_slots:
            oldest = next(iter(self._active_adapters))
            del self._active_adapters[oldest]
            self.lora_index_to_id[self.lora_index_to_id.index(oldest)] = None
        self.lora_index_to_id[self.lora_index_to_id.index(None)] = lora_id
        self._active_adapters[lora_id] = None
        self._registered_adapters[lora_id] = None
        return True


class Worker(WorkerExtension):
    """vLLM's worker, as far as the extension knows it."""

    def __init__(self) -> None:
        self.manager = Manager()
        self.model_runner: Any = SimpleNamespace(lora_manager=SimpleNamespace(_adapter_manager=self.manager))


def test_it_says_what_is_where_and_what_moved_since_it_was_last_asked() -> None:
    worker = Worker()
    assert worker.tenantry_residency()["slots"] == []
    for number in (1, 2, 1, 3):
        worker.manager.activate_adapter(number)
    said = worker.tenantry_residency()
    assert (sorted(said["slots"]), said["host"], said["pinned"]) == ([2, 3], [1, 2, 3], [])
    assert len(said["activation_s"]) == 3 and all(seconds >= 0 for seconds in said["activation_s"])
    assert said["slot_evictions"] == 1
    said = worker.tenantry_residency()
    assert (said["activation_s"], said["slot_evictions"]) == ([], 0)


def test_times_kept_between_two_questions_are_bounded() -> None:
    worker = Worker()
    worker.tenantry_residency()
    for number in range(3000):
        worker.manager.activate_adapter(number)
    said = worker.tenantry_residency()
    assert len(said["activation_s"]) == 1000 and said["slot_evictions"] == 2998


def test_a_pin_is_let_go_in_both_tiers_and_an_unknown_one_does_no_harm() -> None:
    worker = Worker()
    worker.manager.activate_adapter(1)
    for cache in (worker.manager._active_adapters, worker.manager._registered_adapters):
        cache.pinned_items.add(1)
    assert worker.tenantry_residency()["pinned"] == [1]
    assert worker.tenantry_unpin(1) and not worker.tenantry_unpin(1) and not worker.tenantry_unpin(9)
    assert worker.tenantry_residency()["pinned"] == []
    assert not worker.manager._registered_adapters.pinned_items


def test_no_method_can_clash_with_one_of_vllms_worker() -> None:
    own = [name for name in vars(WorkerExtension) if not name.startswith("__")]
    assert own and all(name.lstrip("_").startswith("tenantry_") for name in own)
