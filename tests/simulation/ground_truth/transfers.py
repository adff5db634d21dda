# ruff: noqa: E501 - one row of a table is one line
"""Moves, copies, views, conversions to Python, storage, gradients, files."""

from __future__ import annotations

from collections.abc import Iterator

from .declare import CARD, CPU, OTHER, Case, Outcome, Raises, gives, runtime

TO = "docs: torch.Tensor.to, .cuda, .cpu"
COPY = "aten/src/ATen/native/Copy.cpp: copy_ goes between any two devices"
VIEWS = "docs: Tensor Views: a view shares its base's storage"
PYTHON = "docs: torch.Tensor"
NUMPY = "torch/csrc/utils/tensor_numpy.cpp: tensor_to_numpy"
GRAD = "torch/csrc/autograd/python_variable.cpp: check_legal_grad_assignment"
AUTOGRAD = "docs: Autograd mechanics; a gradient is on the device of its tensor"
FILES = "docs: Serialization semantics; torch/_tensor.py: _reduce_ex_internal"
DATA = "torch/csrc/autograd/variable.cpp: set_data"
META = "aten/src/ATen/native/Copy.cpp and TensorConversions.cpp: no data in a meta tensor"
META_TEXT = Raises("NotImplementedError", "Cannot copy out of meta tensor; no data!")

MOVES = [
    ("to card", CPU, "x.to('cuda:0')", "cuda:0 float32"),
    ("to other", CARD, "x.to('cuda:1')", "cuda:1 float32"),
    ("to cpu", OTHER, "x.to('cpu')", "cpu float32"),
    ("to current", OTHER, "x.to('cuda')", "cuda:0 float32"),
    ("to device and dtype", CPU, "x.to('cuda:1', torch.float16)", "cuda:1 float16"),
    ("to dtype", OTHER, "x.to(torch.bfloat16)", "cuda:1 bfloat16"),
    ("to like", CPU, "x.to(torch.ones(1, device='cuda:1', dtype=torch.float64))", "cuda:1 float64"),
    ("to keywords", CPU, "x.to(device='cuda:1', dtype=torch.int64, non_blocking=True)", "cuda:1 int64"),
    ("to copy", CARD, "x.to('cuda:0', copy=True)", "cuda:0 float32"),
    ("to number", CPU, "x.to(1)", "cuda:1 float32"),
    (".cuda()", CPU, "x.cuda()", "cuda:0 float32"),
    (".cuda() of other", OTHER, "x.cuda()", "cuda:0 float32"),
    (".cuda(1)", CPU, "x.cuda(1)", "cuda:1 float32"),
    (".cuda(device)", CPU, "x.cuda(torch.device('cuda:1'))", "cuda:1 float32"),
    (".cpu()", OTHER, "x.cpu()", "cpu float32"),
    (".half()", OTHER, "x.half()", "cuda:1 float16"),
    (".type()", OTHER, "x.type(torch.float64)", "cuda:1 float64"),
    (".type_as()", CPU, "x.type_as(torch.ones(1, device='cuda:0', dtype=torch.float16))", "cuda:0 float16"),
    ("to meta", CARD, "x.to('meta')", "meta float32"),
    ("clone", OTHER, "x.clone()", "cuda:1 float32"),
    ("detach", OTHER, "x.detach()", "cuda:1 float32"),
    ("contiguous", OTHER, "x.t().contiguous()", "cuda:1 float32"),
    ("deepcopy", OTHER, "copy.deepcopy(x)", "cuda:1 float32"),
    ("copy", OTHER, "copy.copy(x)", "cuda:1 float32"),
    ("reshape", OTHER, "x.t().reshape(6)", "cuda:1 float32"),
]

VIEWED = [
    "x.view(6)", "x.t()", "x.transpose(0, 1)", "x.permute(1, 0)", "x[0]", "x[:, 1:]", "x[None]", "x.unsqueeze(0)", "x.mT",
    "x.expand(4, 2, 3)", "x.narrow(1, 0, 2)", "x.diagonal()", "x.flatten()", "x.unfold(1, 2, 1)", "x.view(torch.int32)",
    "x.as_strided((2,), (1,))", "x.data", "x.squeeze()", "x.select(0, 1)", "x.movedim(0, 1)", "x.unflatten(1, (3, 1))",
]  # fmt: skip

PARTS = [("chunk", "x.chunk(2)", 2), ("split", "x.split(1, dim=1)", 3), ("unbind", "x.unbind()", 2)]

READ: list[tuple[str, str, str, str]] = [
    ("item", "float32 0d", "x.item()", "-1.5625"),
    ("tolist", "int64 3", "x.tolist()", ""),
    ("float", "float32 0d", "float(x)", "-1.5625"),
    ("int", "int64 1 nonzero", "int(x)", "1"),
    ("bool", "bool 0d", "bool(x)", "True"),
    ("len", "float32 2x3", "len(x)", "2"),
    ("shape", "float32 2x3", "x.shape", "torch.Size([2, 3])"),
    ("is_cuda", "float32 2", "x.is_cuda", "True"),
    ("is_cpu", "float32 2", "x.is_cpu", "False"),
    ("device", "float32 2", "x.device", "device(type='cuda', index=1)"),
    ("device type", "float32 2", "x.device.type", "'cuda'"),
    ("device index", "float32 2", "x.device.index", "1"),
    ("get_device", "float32 2", "x.get_device()", "1"),
    ("type", "float16 2", "x.type()", "'torch.cuda.HalfTensor'"),
    ("type of cpu()", "float32 2", "x.cpu().type()", "'torch.FloatTensor'"),
    ("repr", "int64 3", "repr(x)", "\"tensor([0, 1, 2], device='cuda:1')\""),
    ("format", "int64 0d nonzero", "f'{x}'", "'1'"),
    ("numpy of cpu()", "int64 3", "x.cpu().numpy().tolist() == [0, 1, 2]", "True"),
    ("numpy, forced", "int64 3", "x.numpy(force=True).tolist() == [0, 1, 2]", "True"),
    ("storage's device", "float32 2", "x.untyped_storage().device", "device(type='cuda', index=1)"),
    ("a view's storage", "float32 2x3", "x.t().untyped_storage().data_ptr() == x.untyped_storage().data_ptr()", "True"),
    ("to itself", "float32 2", "x.to('cuda:1') is x", "True"),
    ("a copy's identity", "float32 2", "x.to('cuda:1', copy=True) is x", "False"),
    ("pinned", "float32 2", "x.is_pinned(), x.cpu().pin_memory().is_pinned()", "False|True"),
    ("in a condition", "bool 0d", "1 if x else 2", "1"),
    ("range", "int64 0d nonzero", "list(range(x))", "0"),
    ("can_device_access", "float32 2", "x.cpu().is_cuda", "False"),
]  # fmt: skip

TEXT = "device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
ERRORS: list[tuple[str, str, str, Outcome, str, bool]] = [
    ("numpy", "cuda:0 float32 2", "x.numpy()", Raises("TypeError", f"can't convert cuda:0 {TEXT}"), NUMPY, True),
    ("numpy of other", "cuda:1 float32 2", "np.asarray(x)", Raises("TypeError", f"can't convert cuda:1 {TEXT}"), NUMPY, True),
    ("numpy of a gradient's tensor", "cuda:0 float32 2 grad", "x.numpy()", Raises("TypeError", f"can't convert cuda:0 {TEXT}"), NUMPY, False),
    ("from meta", "meta float32 2", "x.to('cuda:0')", META_TEXT, META, False),
    ("copy_ from meta", "meta float32 2", "torch.ones(2, device='cuda:0').copy_(x)", META_TEXT, META, False),
    ("pin a card's", "cuda:0 float32 2", "x.pin_memory()", runtime("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned"), "aten/src/ATen/native/Memory.cpp: _pin_memory", False),
    (
        "grad from the cpu",
        "cuda:0 float32 2 grad",
        "x.grad = torch.ones(2)",
        runtime("attempting to assign a gradient with device type 'cpu' to a tensor with device type 'cuda'. Please ensure that the gradient and the tensor are on the same device"),
        GRAD,
        True,
    ),
    (
        "grad from a card",
        "cpu float32 2 grad",
        "x.grad = torch.ones(2, device='cuda:0')",
        runtime("attempting to assign a gradient with device type 'cuda' to a tensor with device type 'cpu'. Please ensure that the gradient and the tensor are on the same device"),
        GRAD,
        True,
    ),
    (
        "grad from the other",
        "cuda:0 float32 2 grad",
        "x.grad = torch.ones(2, device='cuda:1')",
        # The numbers of cards are printed as characters, and what follows a 0 is lost.
        runtime("attempting to assign a gradient located on device with index '\x01' to a tensor located on device with index '"),
        GRAD,
        True,
    ),
    ("number of two", "cuda:0 float32 2", "x.item()", runtime("a Tensor with 2 elements cannot be converted to Scalar"), PYTHON, False),
]  # fmt: skip

ROWS: list[tuple[str, str, str, Outcome, str]] = [
    ("copy_/cpu from card", "cuda:0 float32 2x3", "torch.zeros(2, 3).copy_(x)", gives("cpu float32"), COPY),
    ("copy_/card from cpu", "cpu float32 2x3", "torch.zeros(2, 3, device='cuda:0').copy_(x)", gives("cuda:0 float32"), COPY),
    ("copy_/other from card", "cuda:0 float32 2x3", "torch.zeros(2, 3, device='cuda:1').copy_(x)", gives("cuda:1 float32"), COPY),
    ("copy_/float16 from cpu float32", "cpu float32 3", "torch.zeros(2, 3, device='cuda:0', dtype=torch.float16).copy_(x)", gives("cuda:0 float16"), COPY),
    ("data/card", "cpu float32 2", "x.data = torch.ones(2, device='cuda:0')\nx", gives("cuda:0 float32"), DATA),
    ("data/move", "cuda:0 float32 2", "x.data = x.data.to('cuda:1')\nx", gives("cuda:1 float32"), DATA),
    ("data/cpu", "cuda:0 float32 2", "x.data = x.data.cpu()\nx", gives("cpu float32"), DATA),
    ("set_/card", "cuda:0 float32 2", "torch.empty(0, device='cuda:0').set_(x)", gives("cuda:0 float32"), DATA),
    ("backward/card", "cuda:1 float32 2 grad", "(x * 2).sum().backward()\nx.grad", gives("cuda:1 float32"), AUTOGRAD),
    ("backward/across", "cpu float32 2 grad", "(x.to('cuda:0') * 2).sum().backward()\nx.grad", gives("cpu float32"), AUTOGRAD),
    ("backward/two cards", "cuda:1 float32 2 grad", "(x.to('cuda:0') * 2).sum().backward()\nx.grad", gives("cuda:1 float32"), AUTOGRAD),
    ("grad/assigned", "cuda:0 float32 2 grad", "x.grad = torch.ones(2, device='cuda:0')\nx.grad", gives("cuda:0 float32"), GRAD),
    ("pickle", "cuda:1 float32 2", "pickle.loads(pickle.dumps(x))", gives("cuda:1 float32"), FILES),
    ("save and load", "cuda:1 float16 2", "f = io.BytesIO()\ntorch.save({'x': x}, f)\n_ = f.seek(0)\ntorch.load(f)", gives("cuda:1 float16"), FILES),
    ("load to the cpu", "cuda:1 float16 2", "f = io.BytesIO()\ntorch.save(x, f)\n_ = f.seek(0)\ntorch.load(f, map_location='cpu')", gives("cpu float16"), FILES),
    ("load to a card", "cpu float32 2", "f = io.BytesIO()\ntorch.save(x, f)\n_ = f.seek(0)\ntorch.load(f, map_location='cuda:0')", gives("cuda:0 float32"), FILES),
    ("load by a map", "cuda:1 float32 2", "f = io.BytesIO()\ntorch.save(x, f)\n_ = f.seek(0)\ntorch.load(f, map_location={'cuda:1': 'cuda:0'})", gives("cuda:0 float32"), FILES),
    ("from_numpy in a context", "cpu float32 2", "with torch.device('cuda:0'):\n    y = torch.from_numpy(x.numpy())\ny", gives("cpu float32"), "docs: torch.set_default_device: factories only"),
    ("share_memory_", "cuda:0 float32 2", "x.share_memory_()", gives("cuda:0 float32"), "docs: torch.Tensor.share_memory_: no-op for CUDA tensors"),
]  # fmt: skip


def cases() -> Iterator[Case]:
    for name, device, code, leaf in MOVES:
        alone = not any(part in code for part in (".cuda(", "x.to(1)"))
        yield Case(f"move/{name}", {"x": f"{device} float32 2x3"}, code, gives(leaf), TO, alone=alone)
    for number, code in enumerate(VIEWED):
        device = (CARD, OTHER)[number % 2]
        dtype = "int32" if "int32" in code else "float32"
        yield Case(f"view/{code}", {"x": f"{device} float32 2x3"}, code, gives(f"{device} {dtype}"), VIEWS)
    for name, code, count in PARTS:
        yield Case(f"view/{name}", {"x": f"{CARD} float32 2x3"}, code, gives(*["cuda:0 float32"] * count), VIEWS)
    for name, operand, code, text in READ:
        leaves = [f"= {part}" for part in text.split("|")] if text else ["= 0", "= 1", "= 2"]
        alone = name in {"item", "tolist", "float", "int", "bool", "len", "shape", "in a condition", "range"}
        yield Case(f"read/{name}", {"x": f"{OTHER} {operand}"}, code, gives(*leaves), PYTHON, alone=alone)
    for name, operand, code, expected, source, alone in ERRORS:
        line = f"{code}\nx" if ".grad =" in code else code
        yield Case(f"refused/{name}", {"x": operand}, line, expected, source, alone=alone)
    for name, operand, code, expected, source in ROWS:
        yield Case(name, {"x": operand}, code, expected, source, alone="cuda:1': 'cuda:0" not in code)
