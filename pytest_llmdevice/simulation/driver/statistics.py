"""Computes the statistics of the caching allocator in the layout of `torch.cuda.memory_stats_as_nested_dict`."""

from __future__ import annotations

from typing import Any

from pytest_llmdevice.simulation.memory import SEGMENT, Pool

Numbers = dict[str, int]

_ZEROS = {"current": 0, "peak": 0, "allocated": 0, "freed": 0}


def allocator_statistics(pool: Pool) -> dict[str, Any]:
    """Bytes and counts of one card, all in the large pool, because the simulated allocator has no small pool."""
    allocated_before, reserved_before, blocks_before = pool.at_reset
    in_bytes = _numbers(pool.allocated, pool.allocated_peak, pool.allocated_sum, allocated_before)
    in_blocks = _numbers(pool.blocks, pool.blocks_peak, pool.blocks_sum, blocks_before)
    reserved = _numbers(pool.reserved, pool.reserved_peak, pool.reserved_sum, reserved_before)
    segments = {name: -(-value // SEGMENT) for name, value in reserved.items()}
    return {
        "num_alloc_retries": pool.failures,
        "num_ooms": pool.failures,
        "max_split_size": -1,
        "num_sync_all_streams": 0,
        "num_device_alloc": segments["allocated"],
        "num_device_free": segments["freed"],
        "allocation": _pools(in_blocks),
        "segment": _pools(segments),
        "active": _pools(in_blocks),
        "inactive_split": _pools(_ZEROS),
        "allocated_bytes": _pools(in_bytes),
        "reserved_bytes": _pools(reserved),
        "active_bytes": _pools(in_bytes),
        "inactive_split_bytes": _pools(_ZEROS),
        "requested_bytes": _pools(in_bytes),
        "oversize_allocations": dict(_ZEROS),
        "oversize_segments": dict(_ZEROS),
    }


def pinned_memory_statistics() -> dict[str, Any]:
    """The statistics of pinned memory, all zero."""
    times = {"total": 0, "max": 0, "min": 0, "count": 0, "avg": 0}
    counted = ("allocations", "segments", "allocated_bytes", "reserved_bytes")
    return {
        "num_host_alloc": 0,
        "num_host_free": 0,
        "host_alloc_time": dict(times),
        "host_free_time": dict(times),
        **{name: dict(_ZEROS) for name in counted},
    }


def _numbers(current: int, peak: int, increased: int, before: int) -> Numbers:
    return {"current": current, "peak": peak, "allocated": increased, "freed": before + increased - current}


def _pools(numbers: Numbers) -> dict[str, Numbers]:
    return {"all": dict(numbers), "small_pool": dict(_ZEROS), "large_pool": dict(numbers)}
