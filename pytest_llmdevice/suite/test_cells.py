"""What must hold of each cell, in the order in which it is looked at.

All tests are in one file: from several files, pytest's progress would name a file at each turn of each cell.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_llmdevice.checks.examination import Examination

# A project may turn warnings into errors; what the libraries under test deprecate is not its affair here.
pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

Check = Callable[[str], None]


@pytest.mark.llm_check("loads")
def test_loads(check: Check) -> None:
    """The target loads the cell, and the model has parameters."""
    check("loads")


@pytest.mark.llm_check("meta")
def test_no_stray_meta_tensor(check: Check) -> None:
    """No tensor was left on meta without a hook that brings it."""
    check("meta")


@pytest.mark.llm_check("placement")
def test_placement(check: Check) -> None:
    """Every parameter and buffer is on the device that was asked for."""
    check("placement")


@pytest.mark.llm_check("dtypes")
def test_dtypes(check: Check) -> None:
    """Every parameter and buffer is in the dtype that was asked for."""
    check("dtypes")


@pytest.mark.llm_check("values")
def test_values(check: Check) -> None:
    """Every weight has the checkpoint's value, and every buffer the one that a plain load computes."""
    check("values")


@pytest.mark.llm_check("tied")
def test_tied_weights(check: Check) -> None:
    """Weights that the configuration ties are one tensor, others are not."""
    check("tied")


@pytest.mark.llm_check("quantization")
def test_quantization(check: Check) -> None:
    """Every linear and expert weight is quantized as was asked for, and nothing else is."""
    check("quantization")


@pytest.mark.llm_check("mode")
def test_eval_mode(check: Check) -> None:
    """The model is ready for inference."""
    check("mode")


@pytest.mark.llm_check("forward")
def test_forward(check: Check) -> None:
    """A padded batch beside the embedding gives finite logits on the right device, in the right dtype."""
    check("forward")


@pytest.mark.llm_check("inputs")
def test_inputs(check: Check) -> None:
    """What the target hands to the model while it generates is where the model is, and belongs together."""
    check("inputs")


@pytest.mark.llm_check("generation")
def test_generation(check: Check) -> None:
    """Greedy generation gives as many tokens as were asked for, twice the same, from inputs where they belong."""
    check("generation")


@pytest.mark.llm_check("agreement")
def test_agreement(check: Check) -> None:
    """Logits and tokens agree with those of the same model on the cpu in float32."""
    check("agreement")


@pytest.mark.llm_check("padding")
def test_padding(check: Check) -> None:
    """A prompt in a padded batch has the logits that it has alone, and masks give no nan."""
    check("padding")


@pytest.mark.llm_check("prefix")
def test_prefix(check: Check) -> None:
    """What the model says of a token depends on the tokens before it alone, far into a text too."""
    check("prefix")


@pytest.mark.llm_check("cache")
def test_cache(check: Check) -> None:
    """A cache changes nothing, and is kept where each layer computes, in the dtype that was asked for."""
    check("cache")


@pytest.mark.llm_check("sampling")
def test_sampling(check: Check) -> None:
    """Sampling, end tokens, logits processors and beams work on the model's device."""
    check("sampling")


@pytest.mark.llm_check("save")
def test_save(check: Check) -> None:
    """Saved and loaded again, the model is the same."""
    check("save")


@pytest.mark.llm_check("state")
def test_state(check: Check) -> None:
    """Neither the load nor the generation left the process otherwise than it was."""
    check("state")


@pytest.mark.llm_check("reload")
def test_reload(check: Check) -> None:
    """Another cell of the model, then this one again: each is loaded as asked for, and none is kept alive."""
    check("reload")


@pytest.mark.llm_check("cards")
def test_stays_on_the_cpu_beside_cards(llm_examination: Examination, check: Check) -> None:
    """A cpu cell, loaded and run once more where cards are visible, does not touch them."""
    if llm_examination.beside is None:
        pytest.skip("not requested: --llm-simulate shows simulated cards to a cell of the cpu")
    check("cards")
