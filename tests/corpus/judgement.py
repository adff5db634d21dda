"""Says which hints are right for each bug, judged by hand by what the case says goes wrong.

A hint is right where its text names the mistake among its causes, or what the mistake directly leads to at that place
(tensors that meet on two devices). A hint that names something that is not there is wrong, also where its finding is
right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pytest_llmdevice import Finding

Verdict = Literal["right", "wrong", "none"]

RIGHT: Final[Mapping[str, str]] = {
    # generate_attention.py
    "causal-mask-on-the-cpu": "two-devices",
    "attention-looks-ahead": "other-logits mask-error",
    "attention-looks-ahead-when-padded": "other-in-a-batch padding-seen",
    "softmax-never-cast-back": "two-dtypes",
    "mask-never-made": "other-in-a-batch padding-seen",
    "window-ignored": "configuration-overridden",
    "minimum-of-float32": "not-finite masked-row",
    # generate_input_kinds.py, generate_inputs.py
    "ids-cast-to-half": "inputs-cast two-dtypes",
    "ids-promoted-to-float": "inputs-cast two-dtypes",
    "ids-bound-before-the-move": "two-devices inputs-left-behind",
    "embeddings-in-float32": "inputs-not-cast two-dtypes",
    "inputs-left-beside-a-quantized-model": "inputs-left-behind two-devices",
    "to-without-assignment": "inputs-left-behind two-devices",
    "only-the-ids-moved": "inputs-left-behind two-devices",
    "first-parameters-device": "inputs-left-behind meta-tensor",
    "device-remembered-at-construction": "inputs-left-behind two-devices",
    "tensors-in-lists-left-behind": "inputs-left-behind two-devices",
    "cuda-by-name": "no-such-device",
    "device-type-without-index": "inputs-left-behind two-devices",
    # generate_padding.py
    "padded-on-the-right": "right-padding other-in-a-batch",
    "mask-dropped": "wrong-mask other-in-a-batch",
    "mask-of-ones": "wrong-mask other-in-a-batch",
    "encoder-sees-padding": "wrong-mask other-in-a-batch",
    "start-token-kept": "prompt-in-front row-shifted",
    "masked-by-value": "wrong-mask",
    "cut-by-its-own-length": "prompt-in-front row-shifted",
    "truncated-on-the-right": "prompt-cut",
    "mask-in-prefill-only": "wrong-positions wrong-mask other-in-a-batch",
    # generate_positions.py
    "prompt-counted-in-half": "wrong-positions",
    "history-rounded": "history-changes-new-tokens cache-dtype",
    "columns-as-positions": "wrong-positions other-in-a-batch",
    "columns-as-positions-in-prefill": "wrong-positions other-in-a-batch",
    "positions-dropped-after-prefill": "wrong-positions other-in-a-batch",
    "position-repeated": "wrong-positions history-changes-new-tokens",
    "history-through-half": "cache-dtype history-changes-new-tokens",
    "history-in-bfloat16": "cache-dtype history-changes-new-tokens",
    "history-on-one-card": "cache-apart cache-device two-devices",
    "history-without-reset": "kept-between-calls not-repeated history-changes-new-tokens",
    "sorted-and-not-put-back": "rows-in-another-order",
    "beams-not-reordered": "beams-not-reordered beams",
    # generate_saved.py
    "saved-in-half": "saved-dtype",
    "saved-with-a-prefix": "saved-values",
    "head-untied-silently": "tie-lost saved-tie",
    # generate_serving.py
    "last-batch-dropped": "rows-lost-or-mixed",
    "rows-put-back-in-place": "rows-in-another-order rows-lost-or-mixed",
    "batch-ends-with-the-first-row": "batch-ends-with-one-row",
    "answers-kept-by-prompt": "answers-kept-by-prompt",
    "prompt-cut": "prompt-cut",
    "start-token-again": "token-in-front-of-the-prompt",
    # generate_settings.py
    "sampling-left-on": "not-deterministic other-choice",
    "repetition-penalty-left-on": "other-choice",
    "length-of-all-for-the-new": "",
    "end-token-ignored": "end-ignored",
    "end-token-of-another-model": "end-tokens",
    "autocast-around-generate": "autocast",
    "forward-under-autocast": "autocast upcast two-dtypes",
    "training-while-generating": "training-mode not-deterministic model-changed-by-generating",
    "training-for-one-answer": "training-mode",
    "cast-for-one-answer": "model-changed-by-generating",
    "prompt-returned-too": "prompt-in-front",
    # generate_tensors.py
    "rotary-table-keyed-on-length": "two-devices",
    "angles-in-half": "far-positions module-computes-otherwise",
    "positions-counted-in-half": "far-positions",
    "logits-bias-on-the-cpu": "two-devices logits-processors",
    "float64-on-mps": "float64",
    "default-device-left-set": "default-device-left",
    "seed-on-the-cpu": "two-devices",
    # load_adapters.py
    "adapter-made-on-the-cpu": "adapter-elsewhere two-devices",
    "adapter-of-peft-on-the-cpu": "adapter-elsewhere two-devices",
    "adapter-in-float32-without-a-cast": "two-dtypes",
    "adapter-in-training-mode": "training-mode",
    "adapter-taken-off-in-half": "weights-changed",
    "base-cast-with-the-adapter": "created-late two-dtypes",
    # load_dtypes_cases.py
    "dtype-never-handed-on": "dtype-dropped upcast",
    "always-half": "other-half config-dtype upcast",
    "torch-dtype-after-the-rename": "dtype-dropped upcast",
    "float32-on-every-cpu": "dtype-dropped upcast",
    "dtype-popped-from-the-options": "dtype-dropped upcast",
    "norms-left-in-float32": "created-late",
    "norm-and-head-in-float32": "created-late upcast",
    "router-without-dtype": "created-late",
    "experts-written-as-stored": "created-late",
    "grown-head-in-float32": "grown-embedding created-late two-dtypes",
    "float32-through-half": "weights-rounded",
    "kept-in-float32-by-substring": "created-late",
    "skeleton-without-dtype": "dtype-dropped upcast saved-config-dtype",
    "configuration-tells-another-dtype": "config-dtype",
    # load_placement_cases.py
    "card-without-index": "wrong-index",
    "card-zero-is-false": "never-moved",
    "auto-map-for-one-card": "spread-by-a-map",
    "card-zero-in-the-code": "wrong-index",
    "card-on-a-cpu-cell": "card-preferred",
    "apple-is-not-cuda": "never-moved",
    "rocm-has-no-cuda-version": "never-moved",
    "intel-is-not-cuda": "never-moved",
    "device-of-the-first-model": "other-the-second-time",
    "moved-after-the-map": "stale-map two-devices",
    "rotary-module-not-in-the-list": "buffer-left-behind",
    "last-norm-not-in-the-list": "left-behind two-devices",
    "tied-head-on-another-card": "stale-map tie-lost two-devices",
    "two-cards-and-no-hooks": "spread-without-hooks two-devices",
    "tensor-that-is-no-buffer": "plain-attribute two-devices",
    "head-left-on-meta": "never-materialized tie-lost meta-tensor",
    "offload-that-never-happens": "strategy-not-followed",
    # load_quantization_cases.py
    "quantization-for-cards-only": "quantization-dropped",
    "eight-bits-for-four": "quantization-dropped",
    "four-bits-of-the-default-type": "quantization-dropped",
    "compute-dtype-by-default": "compute-dtype",
    "double-quantization-lost": "quantization-dropped",
    "skip-list-without-the-head": "not-excluded",
    "skip-list-by-substring": "quantization-dropped",
    "eight-bits-kept-in-half": "wrapped-not-packed int8-kept-in-half",
    "head-replaced-too": "not-excluded",
    "packed-before-it-was-read": "packed-from-other-values",
    "cast-after-quantization": "other-half buffer-cast upcast",
    "dense-rest-in-float16": "other-half config-dtype upcast",
    "quantization-state-on-the-cpu": "state-elsewhere two-devices",
    "prepared-for-training": "prepared-for-training upcast saved-dtype",
    "dequantized-again": "weights-changed quantization-dropped",
    # load_state_cases.py
    "visible-devices-set": "environment-changed",
    "default-dtype-left": "default-dtype-left",
    "default-device-left": "default-device-left",
    "current-card-left": "current-card-changed",
    "initializers-left-patched": "function-left-patched",
    "kept-by-folder-alone": "served-from-a-cache",
    "moved-with-the-first-model": "served-from-a-cache",
    "kept-in-a-list": "model-kept-alive",
    "configuration-of-the-first-load": "other-the-second-time",
    "autocast-left-on": "autocast-left-on",
    "matrix-products-less-exact": "matrix-products-less-exact",
    "training-mode": "training-mode not-deterministic",
    # load_values_cases.py
    "rotary-frequencies-cast": "buffer-cast",
    "rotary-frequencies-rounded": "buffer-rounded far-positions module-computes-otherwise",
    "buffers-never-computed": "buffer-never-computed",
    "prefix-and-not-strict": "random-initial-value",
    "last-group-never-read": "random-initial-value unrelated-weights",
    "square-weight-turned": "other-weights",
    "key-rows-permuted": "other-weights",
    "keys-and-values-exchanged": "other-weights",
    "tie-lost-in-the-configuration": "random-initial-value tie-lost saved-tie",
    "rotary-base-by-default": "buffer-of-another-configuration",
    "epsilon-of-another-model": "configuration-overridden",
    "one-added-twice": "weights-changed",
    "gate-and-up-exchanged": "other-weights",
    "head-initialized-again": "random-initial-value",
    "layers-of-another-stage": "other-weights",
}
"""Name of a case -> the names of the hints that are right for it."""


def verdict(right: str, finding: Finding) -> Verdict:
    """What the hint of `finding` is worth where those named in `right` are right."""
    if finding.hint is None:
        return "none"
    return "right" if finding.hint.name in right.split() else "wrong"
