"""Adds one entry of most kinds to the registry, as a project of its own would."""

from __future__ import annotations

from pytest_llmdevice import (
    Cell,
    Check,
    Examination,
    Family,
    Finding,
    Hint,
    Profile,
    Registry,
    Result,
    Rule,
    Strategy,
)

LARGE = Hint(
    "large-weight",
    "a weight is far larger than training leaves one: it was scaled twice, or read in the wrong dtype",
    "https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html",
    failure="numeric",
    patterns=(r"weight of \d+ is out of range",),
)


def small_weights(exam: Examination) -> Result:
    """No weight is far from zero; in bfloat16 the bound is one that every model breaks."""
    bound = 1e-6 if exam.cell.dtype == "bfloat16" else 1e3
    parameters = dict(exam.model.named_parameters())
    findings = tuple(
        Finding(name, f"at most {bound:g}", f"{float(parameter.abs().max()):.3g}", LARGE)
        for name, parameter in parameters.items()
        if float(parameter.abs().max()) > bound
    )
    return Result("small_weights", findings, {"parameters": len(parameters)})


def tensor_by_tensor(checkpoint: str, cell: Cell):
    """Load on the CPU, then move one tensor after another."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype, attn_implementation="eager")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.to(cell.torch_device)
    return model.eval()


def no_packed_weights(cell: Cell, _machine: object) -> str | None:
    """Why a cell cannot be loaded by `tensor_by_tensor`, or None."""
    return "packed weights have a state that would stay behind" if cell.quantization != "none" else None


def pytest_llm_register(registry: Registry) -> None:
    """Add the entries; see `own.toml` for a matrix that uses them."""
    registry.add(
        Check(
            "small_weights",
            small_weights,
            question="no weight is far from zero",
            meaning="A weight was changed on its way from the file to the model.",
            failure="numeric",
            after="values",
        ),
        Strategy(
            "tensor-by-tensor",
            "moves one tensor after another",
            tensor_by_tensor,
            rules=(Rule("dense-only", "the strategy's definition", no_packed_weights),),
        ),
        Family(
            "wide-llama",
            "LlamaConfig",
            {
                "hidden_size": 128,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 32,
                "max_position_embeddings": 512,
            },
            notes="twice as wide as the family llama",
        ),
        Profile("cuda-small", "cuda", "Small Card", 2**30, (8, 0), toolkit="13.0"),
        LARGE,
    )
