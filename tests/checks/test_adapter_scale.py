"""An adapter that was merged with another scale is told as that, not as weights of something else."""

from __future__ import annotations

import pytest
import torch

from pytest_llmdevice.checks.adapter_values import scale_of_change


@pytest.fixture(scope="module")
def base() -> torch.Tensor:
    return torch.randn(24, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def change() -> torch.Tensor:
    numbers = torch.Generator().manual_seed(1)
    return torch.randn(24, 4, generator=numbers) @ torch.randn(4, 16, generator=numbers) * 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("times", [-1.0, 0.25, 2.0, 8.0, 64.0])
def test_any_scale_is_found(base: torch.Tensor, change: torch.Tensor, times: float, dtype: torch.dtype) -> None:
    value = (base + times * change).to(dtype)
    found = scale_of_change(value, base + change, base)
    assert found == pytest.approx(times, rel=0.02, abs=0.02)


@pytest.mark.parametrize("wrong", ["transposed factors", "one row", "unrelated", "another adapter"])
def test_other_weights_are_no_scale(base: torch.Tensor, change: torch.Tensor, wrong: str) -> None:
    noise = torch.randn(24, 16, generator=torch.Generator().manual_seed(2))
    value = {
        "transposed factors": base + change.flip(0),
        "one row": torch.cat([base[:1] + 2 * change[:1], (base + change)[1:]]),
        "unrelated": noise,
        "another adapter": base + 0.1 * noise,
    }[wrong]
    assert scale_of_change(value, base + change, base) is None
