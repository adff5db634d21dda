# ruff: noqa: E501 - one row of a table is one line
"""Tensors made on a device, and generators."""

from __future__ import annotations

from collections.abc import Iterator

from .declare import CARD, CPU, OTHER, Case, Outcome, Raises, gives, runtime

CREATION = "docs: torch, creation ops; aten/src/ATen/native/TensorFactories.cpp"
DEVICE = "docs: torch.Tensor attributes, torch.device"
GENERATOR = "aten/src/ATen/core/Generator.h: check_generator"
ORDINAL = "c10/cuda/CUDAException.cpp: c10_cuda_check_implementation; its first line"
STRING = "c10/core/Device.cpp: parse_from_string"

FACTORIES = [
    ("zeros", "torch.zeros(2, 3, device={})", "float32", True),
    ("ones", "torch.ones(2, dtype=torch.bfloat16, device={})", "bfloat16", True),
    ("full", "torch.full((2,), 7, device={})", "int64", True),
    ("empty", "torch.empty(2, dtype=torch.float16, device={})", "float16", False),
    ("arange", "torch.arange(4, device={})", "int64", True),
    ("linspace", "torch.linspace(0, 1, 4, device={})", "float32", True),
    ("eye", "torch.eye(2, device={})", "float32", True),
    ("tensor", "torch.tensor([1, 2], device={})", "int64", True),
    ("tensor of floats", "torch.tensor(1.5, device={})", "float32", True),
    ("as_tensor", "torch.as_tensor([True], device={})", "bool", True),
    ("randn", "torch.randn(2, device={})", "float32", False),
    ("rand", "torch.rand(2, dtype=torch.float64, device={})", "float64", False),
    ("randint", "torch.randint(0, 9, (2,), device={})", "int64", False),
    ("randperm", "torch.randperm(4, device={})", "int64", False),
    ("empty_strided", "torch.empty_strided((2, 2), (1, 2), device={})", "float32", False),
    ("tril_indices", "torch.tril_indices(2, 2, device={})", "int64", True),
    ("from a like", "torch.zeros_like(x, device={})", "float32", True),
    ("new_zeros", "x.new_zeros(2, device={})", "float32", True),
    ("parameter", "nn.Parameter(torch.ones(2, device={}))", "float32", True),
]

SPELLINGS = [
    ("'cuda'", CARD),
    ("torch.device('cuda')", CARD),
    ("0", CARD),
    ("1", OTHER),
    ("torch.device('cuda:1')", OTHER),
    ("torch.device('cuda', 1)", OTHER),
    ("torch.device(1)", OTHER),
    ("x.device", OTHER),
]

LIKES = [
    ("zeros_like", "torch.zeros_like(x)", "float16", True),
    ("empty_like", "torch.empty_like(x)", "float16", False),
    ("rand_like", "torch.rand_like(x)", "float16", False),
    ("full_like", "torch.full_like(x, 2, dtype=torch.int64)", "int64", True),
    ("new_zeros", "x.new_zeros(3)", "float16", True),
    ("new_ones", "x.new_ones(3, dtype=torch.int64)", "int64", True),
    ("new_full", "x.new_full((2,), 1.5)", "float16", True),
    ("new_empty", "x.new_empty(2)", "float16", False),
    ("new_tensor", "x.new_tensor([1, 2])", "float16", True),
    ("tensor of a tensor", "torch.tensor(x)", "float16", True),
    ("as_tensor of a tensor", "torch.as_tensor(x)", "float16", True),
    ("asarray of a tensor", "torch.asarray(x)", "float16", True),
]

CONTEXTS: list[tuple[str, str, Outcome]] = [
    ("cuda.device", "with torch.cuda.device(1):\n    y = torch.zeros(2, device='cuda')\ny", gives("cuda:1 float32")),
    ("cuda.device, .cuda()", "with torch.cuda.device(1):\n    y = torch.zeros(2).cuda()\ny", gives("cuda:1 float32")),
    ("cuda.device, cpu", "with torch.cuda.device(1):\n    y = torch.zeros(2)\ny", gives("cpu float32")),
    (
        "cuda.device, index",
        "with torch.cuda.device(1):\n    y = torch.zeros(2, device='cuda:0')\ny",
        gives("cuda:0 float32"),
    ),
    ("torch.device", "with torch.device('cuda:1'):\n    y = torch.arange(3)\ny", gives("cuda:1 int64")),
    ("torch.device, tensor", "with torch.device('cuda:1'):\n    y = torch.tensor([1.0])\ny", gives("cuda:1 float32")),
    ("torch.device, cpu", "with torch.device('cuda:1'):\n    y = torch.ones(2, device='cpu')\ny", gives("cpu float32")),
    (
        "torch.device, module",
        "with torch.device('cuda:1'):\n    y = nn.Linear(2, 2).weight\ny.device",
        gives("= device(type='cuda', index=1)"),
    ),
    (
        "current_device",
        "with torch.cuda.device(1):\n    y = torch.cuda.current_device()\ny, torch.cuda.current_device()",
        gives("= 1", "= 0"),
    ),
    (
        "device_of",
        "with torch.cuda.device_of(torch.ones(1, device='cuda:1')):\n    y = torch.cuda.current_device()\ny",
        gives("= 1"),
    ),
]

WRONG_CPU = runtime("Expected a 'cuda' device type for generator but found 'cpu'")
WRONG_CARD = runtime("Expected a 'cpu' device type for generator but found 'cuda'")
GENERATORS: list[tuple[str, str, Outcome]] = [
    ("rand/cpu's on a card", "torch.rand(2, device='cuda:0', generator=torch.Generator())", WRONG_CPU),
    ("randn/card's on the cpu", "torch.randn(2, generator=torch.Generator('cuda'))", WRONG_CARD),
    ("randint/cpu's on a card", "torch.randint(0, 9, (2,), device='cuda:0', generator=torch.Generator())", WRONG_CPU),
    ("normal_/cpu's on a card", "torch.ones(2, device='cuda:0').normal_(generator=torch.Generator())", WRONG_CPU),
    ("uniform_/card's on the cpu", "torch.ones(2).uniform_(generator=torch.Generator('cuda'))", WRONG_CARD),
    (
        "multinomial/cpu's on a card",
        "torch.ones(4, device='cuda:0').multinomial(1, generator=torch.Generator())",
        WRONG_CPU,
    ),
    (
        "bernoulli_/cpu's on a card",
        "torch.ones(2, device='cuda:0').bernoulli_(0.5, generator=torch.Generator())",
        WRONG_CPU,
    ),
    (
        "rand/card's on a card",
        "torch.rand(2, device='cuda:0', generator=torch.Generator('cuda'))",
        gives("cuda:0 float32"),
    ),
    ("multinomial", "torch.ones(4, device='cuda:1').multinomial(2)", gives("cuda:1 int64")),
    (
        "device",
        "torch.Generator('cuda').device.type, torch.Generator('cuda:1').device",
        gives("= 'cuda'", "= device(type='cuda', index=1)"),
    ),
    ("dropout", "F.dropout(torch.ones(4, device='cuda:1', dtype=torch.float16))", gives("cuda:1 float16")),
    ("dropout of nothing", "F.dropout(torch.ones(4, device='cuda:0'), 0.5, training=False)", gives("cuda:0 float32")),
    (
        "repeatable",
        "torch.cuda.manual_seed(3)\na = torch.rand(4, device='cuda:0')\ntorch.cuda.manual_seed(3)\nbool((a == torch.rand(4, device='cuda:0')).all())",
        gives("= True"),
    ),
]

INVALID = Raises("AcceleratorError", "CUDA error: invalid device ordinal")
NAMES: list[tuple[str, str, Outcome, str]] = [
    ("zeros on a missing card", "torch.zeros(1, device='cuda:63')", INVALID, ORDINAL),
    ("to a missing card", "torch.zeros(1).to('cuda:63')", INVALID, ORDINAL),
    (".cuda of a missing card", "torch.zeros(1).cuda(63)", INVALID, ORDINAL),
    ("set_device of a missing card", "torch.cuda.set_device(63)", INVALID, ORDINAL),
    (
        "properties of a missing card",
        "torch.cuda.get_device_properties(63)",
        Raises("AssertionError", "Invalid device id"),
        "torch/cuda/__init__.py: get_device_properties",
    ),
    ("name of a missing card", "str(torch.device('cuda:63'))", gives("= 'cuda:63'"), DEVICE),
    ("negative", "torch.device('cuda:-1')", runtime("Invalid device string: 'cuda:-1'"), STRING),
    ("no number", "torch.device('cuda:a')", runtime("Invalid device string: 'cuda:a'"), STRING),
    (
        "equality",
        "torch.device('cuda') == torch.device('cuda:0'), torch.device('cuda', 1) == torch.device('cuda:1')",
        gives("= False", "= True"),
        DEVICE,
    ),
    ("available", "torch.cuda.is_available()", gives("= True"), "docs: torch.cuda"),
    (
        "memory",
        "x = torch.ones(1024, device='cuda:0')\ntorch.cuda.memory_allocated(0) >= 4096",
        gives("= True"),
        "docs: torch.cuda.memory_allocated",
    ),
    ("synchronize", "torch.cuda.synchronize()", gives("= None"), "docs: torch.cuda.synchronize"),
]


def cases() -> Iterator[Case]:
    for name, code, dtype, values in FACTORIES:
        for spelling in ("'cuda:0'", "'cuda:1'"):
            # A like of a tensor elsewhere: the argument wins.
            operands = {"x": f"{CPU} float32 2"} if "x." in code or "(x" in code else {}
            result = gives(f"{spelling[1:-1]} {dtype}")
            yield Case(f"{name}/{spelling[1:-1]}", operands, code.format(spelling), result, CREATION, values)
    for spelling, place in SPELLINGS:
        operands = {"x": f"{OTHER} float32 2"} if "x" in spelling else {}
        code = f"torch.zeros(2, device={spelling})"
        yield Case(f"device={spelling}", operands, code, gives(f"{place} float32"), DEVICE, alone=False)
    for number, (name, code, dtype, values) in enumerate(LIKES):
        device = (CARD, OTHER)[number % 2]
        yield Case(f"like/{name}", {"x": f"{device} float16 2"}, code, gives(f"{device} {dtype}"), CREATION, values)
    yield Case(
        "like/cuda", {"x": f"{OTHER} float16 2"}, "torch.ones_like(x, device='cuda')", gives("cuda:0 float16"), DEVICE
    )
    for name, code, expected in CONTEXTS:
        yield Case(
            f"context/{name}", {}, code, expected, "docs: torch.cuda.device, torch.device as a context", alone=False
        )
    for name, code, expected in GENERATORS:
        source = GENERATOR if isinstance(expected, Raises) else CREATION
        yield Case(
            f"generator/{name}", {}, code, expected, source, values=False, alone=name not in {"device", "repeatable"}
        )
    for name, code, expected, source in NAMES:
        yield Case(f"name/{name}", {}, code, expected, source, alone=False)
