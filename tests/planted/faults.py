"""The planted faults: each is one line of `loader`, written otherwise."""

# A planted line stands as it is in the loader, on one line.
# ruff: noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from pytest_llmdevice import Cell

SOURCE: Final = (Path(__file__).parent / "loader.py").read_text("utf-8")

CPU: Final = Cell("llama", "cpu", "float32")
HALF: Final = Cell("llama", "cpu", "bfloat16")
CARD: Final = Cell("llama", "cuda:1", "bfloat16", simulated=True)
PACKED: Final = Cell("llama", "cpu", "bfloat16", "nf4", "device-map")

TO: Final = "        model = model.to(device)"
EVAL: Final = "    model = model.eval()"
CONFIG: Final = "    config = AutoConfig.from_pretrained(checkpoint)"
IDS: Final = "    ids = torch.tensor([[PAD] * (width - len(prompt)) + list(prompt) for prompt in prompts])"
MASK: Final = "    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])"
MOVE: Final = "    ids, mask = ids.to(device), mask.to(device)"
OPTIONS: Final = '    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": max_new_tokens}'
CALL: Final = "        output = model.generate(input_ids=ids, attention_mask=mask, pad_token_id=PAD, **options)"
ROWS: Final = "    rows = output[:, width:].tolist()"
END: Final = "    return rows  # noqa: RET504"
MADE: Final = "    return model  # noqa: RET504  # a line by itself, to be written otherwise"
FIRST: Final = "    dtype = cell.torch_dtype"
DEVICE: Final = "    device = cell.torch_device"


@dataclass(frozen=True)
class Fault:
    """A line of the loader, written otherwise.

    Attributes:
        name: what is wrong, in words joined by hyphens.
        line: the line as it is right.
        planted: what stands in its place.
        cells: where the fault shows.
        root: a check that the cause of the problem is found by.
    """

    name: str
    line: str
    planted: str
    cells: tuple[Cell, ...]
    root: str


def planted(*faults: Fault) -> ModuleType:
    """The loader with `faults` in it, each on a line of its own.

    Raises:
        ValueError: a line is not in the loader, or more than once.
    """
    text = SOURCE
    for fault in faults:
        if text.count(f"{fault.line}\n") != 1:
            raise ValueError(f"{fault.name}: {fault.line!r} is in the loader {text.count(fault.line)} times")
        text = text.replace(f"{fault.line}\n", f"{fault.planted}\n")
    module = ModuleType("planted_" + "_and_".join(fault.name.replace("-", "_") for fault in faults))
    exec(compile(text, module.__name__, "exec"), vars(module))  # the text above
    return module


def _after(line: str, *more: str) -> str:
    """`line`, and more statements on it, as one planted line has them."""
    return "; ".join((line, *more))


LAST: Final = "model.model.layers[1]"

FAULTS: Final = (
    # loads
    Fault("load-raises", CONFIG, "    raise RuntimeError('no such revision')", (CPU, HALF), "loads"),
    Fault("nothing-returned", MADE, "    return None", (CPU, HALF), "loads"),
    Fault("text-returned", MADE, "    return str(model)", (CPU, HALF), "loads"),
    Fault("no-head", MADE, "    return model.model", (CPU,), "loads"),
    Fault("vocabulary-resized", EVAL, _after(EVAL, "model.resize_token_embeddings(200)"), (CPU, HALF), "loads"),
    Fault("layer-cut-off", CONFIG, _after(CONFIG, "config.num_hidden_layers = 1"), (CPU,), "loads"),
    Fault("rope-theta-guessed", CONFIG, _after(CONFIG, "config.rope_parameters['rope_theta'] = 1e6"), (CPU, HALF), "loads"),
    # placement
    Fault("never-moved", TO, "        pass", (CARD,), "placement"),
    Fault("card-by-number", DEVICE, "    device = torch.device(0 if cell.kind == 'cuda' else 'cpu')", (CARD,), "placement"),
    Fault("head-left-behind", EVAL, _after(EVAL, "model.lm_head.to('cpu')"), (CARD,), "placement"),
    Fault("one-norm-left-behind", EVAL, _after(EVAL, "model.model.norm.to('cpu')"), (CARD,), "placement"),
    Fault("rope-buffer-left-behind", EVAL, _after(EVAL, "model.model.rotary_emb.to('cpu')"), (CARD,), "placement"),
    Fault("on-meta", EVAL, _after(EVAL, f"{LAST}.mlp.up_proj.to('meta')"), (CPU, HALF), "meta"),
    # dtypes
    Fault("dtype-dropped", FIRST, "    dtype = torch.float32", (HALF, CARD), "dtypes"),
    Fault("another-half", FIRST, "    dtype = torch.float16", (CPU, HALF), "dtypes"),
    Fault("head-in-float32", EVAL, _after(EVAL, "model.lm_head.float()"), (HALF,), "dtypes"),
    Fault("one-layer-in-float32", EVAL, _after(EVAL, f"{LAST}.mlp.float()"), (HALF, CARD), "dtypes"),
    Fault("cast-to-half-and-back", EVAL, "    model = model.bfloat16().to(dtype).eval()", (CPU,), "values"),
    Fault("buffer-rounded", EVAL, "    model = model.to(torch.float16).to(dtype).eval()", (HALF,), "dtypes"),
    # values
    Fault("weight-zeroed", EVAL, _after(EVAL, f"{LAST}.mlp.down_proj.weight.data.zero_()"), (CPU, HALF), "values"),
    Fault("weight-initialised-again", EVAL, _after(EVAL, f"{LAST}.self_attn.q_proj.reset_parameters()"), (CPU, HALF), "values"),
    Fault("buffer-zeroed", EVAL, _after(EVAL, "model.model.rotary_emb.inv_freq.zero_()"), (CPU, HALF), "values"),
    Fault("weight-scaled", EVAL, _after(EVAL, "model.model.embed_tokens.weight.data.mul_(1.5)"), (CPU,), "values"),
    Fault("weight-nan", EVAL, _after(EVAL, "model.model.norm.weight.data[0] = float('nan')"), (CPU, CARD), "values"),
    Fault("layers-exchanged", EVAL, _after(EVAL, "model.model.layers[0], model.model.layers[1] = model.model.layers[1], model.model.layers[0]"), (CPU,), "loads"),
    Fault("tie-broken", EVAL, _after(EVAL, "model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())"), (Cell("qwen2", "cpu", "float32"),), "tied"),
    Fault("head-made-anew", EVAL, _after(EVAL, "model.lm_head = torch.nn.Linear(model.lm_head.in_features, model.lm_head.out_features, bias=False)"), (CARD, HALF), "placement"),
    # quantization
    Fault("quantization-dropped", '    if cell.quantization == "nf4":', '    if cell.quantization == "nf4" and cell.kind == "cuda":', (PACKED,), "quantization"),
    Fault("compute-dtype-forgotten", "            bnb_4bit_compute_dtype=dtype,", "            # the default", (PACKED,), "quantization"),
    Fault("another-four-bits", '            bnb_4bit_quant_type="nf4",', '            bnb_4bit_quant_type="fp4",', (PACKED,), "quantization"),
    Fault("module-skipped", "            load_in_4bit=True,", "            load_in_4bit=True, llm_int8_skip_modules=['down_proj', 'lm_head'],", (PACKED,), "quantization"),
    # modes, hooks, process
    Fault("training-mode", EVAL, "    model = model.train()", (CPU, HALF), "mode"),
    Fault("hook-left", EVAL, _after(EVAL, f"{LAST}.mlp.register_forward_hook(lambda module, given, made: made * 1.1)"), (CPU, HALF), "agreement"),
    Fault("forward-patched", EVAL, _after(EVAL, f"{LAST}.mlp.forward = lambda hidden: hidden * 0"), (CPU,), "agreement"),
    Fault("attention-not-causal", EVAL, _after(EVAL, f"setattr({LAST}.self_attn, 'is_causal', False)", "model.set_attn_implementation('eager')", "model.model.layers[0].self_attn.register_forward_pre_hook(lambda module, given, named: (given, {**named, 'attention_mask': None}), with_kwargs=True)"), (CPU,), "loads"),
    Fault("default-dtype-left", FIRST, _after(FIRST, "torch.set_default_dtype(torch.float16)"), (CPU, HALF), "state"),
    Fault("environment-left", FIRST, _after(FIRST, "__import__('os').environ.update(CUDA_VISIBLE_DEVICES='0')"), (CPU,), "state"),
    Fault("model-kept-alive", MADE, _after("    KEPT.append(model)", "return model"), (CPU, HALF), "reload"),
    Fault("served-from-a-cache", MADE, _after("    KEPT.append(model)", "return KEPT[0]"), (CPU,), "reload"),
    # what is handed to the model
    Fault("no-mask", MASK, "    mask = None", (CPU,), "generation"),
    Fault("mask-of-ones", MASK, "    mask = torch.ones_like(ids)", (CPU, HALF), "inputs"),
    Fault("mask-inverted", MASK, "    mask = torch.tensor([[1] * (width - len(prompt)) + [0] * len(prompt) for prompt in prompts])", (CPU,), "inputs"),
    Fault("padded-on-the-right", IDS, "    ids = torch.tensor([list(prompt) + [PAD] * (width - len(prompt)) for prompt in prompts])", (CPU, HALF), "inputs"),
    Fault("inputs-left-on-the-cpu", MOVE, "    pass", (CARD,), "inputs"),
    Fault("ids-as-numbers", IDS, "    ids = torch.tensor([[PAD] * (width - len(prompt)) + list(prompt) for prompt in prompts]).float()", (CPU, HALF), "inputs"),
    Fault("prompt-cut", IDS, "    ids = torch.tensor([[PAD] * (width - len(prompt)) + [PAD] + list(prompt)[1:] for prompt in prompts])", (CPU,), "agreement"),
    Fault("autocast-on", CALL, CALL.replace("        output", "        with torch.autocast('cpu', torch.bfloat16): output"), (CPU,), "inputs"),
    # generation
    Fault("sampling-left-on", OPTIONS, OPTIONS.replace("False", "True"), (CPU, HALF), "generation"),
    Fault("beams-left-on", OPTIONS, OPTIONS.replace("{", '{"num_beams": 3, '), (CPU,), "agreement"),
    Fault("prompt-in-front", ROWS, "    rows = output.tolist()", (CPU, HALF), "generation"),
    Fault("cut-too-late", ROWS, "    rows = output[:, width + 1:].tolist()", (CPU,), "generation"),
    Fault("one-token-too-few", OPTIONS, OPTIONS.replace("max_new_tokens}", "max_new_tokens - 1}"), (CPU, HALF), "generation"),
    Fault("texts-returned", END, "    return [str(row) for row in rows]", (CPU, HALF), "generation"),
    Fault("rows-reversed", END, "    return rows[::-1]", (CPU,), "agreement"),
    Fault("a-row-lost", END, "    return rows[:-1]", (CPU, HALF), "generation"),
    Fault("generate-raises", END, "    return rows.numpy()", (CPU, HALF), "generation"),
    Fault("model-cast-by-generating", CALL, "        output = model.half().generate(input_ids=ids, attention_mask=mask, pad_token_id=PAD, **options)", (CPU,), "state"),
)  # fmt: skip
