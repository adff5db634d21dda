# ruff: noqa: E501 - one row of a table is one line
"""Modules, parameters, state, optimizers."""

from __future__ import annotations

from collections.abc import Iterator

from .declare import CARD, CPU, Case, Outcome, Raises, checked, gives

MODULE = "docs: torch.nn.Module; torch/nn/modules/module.py: _apply"
FORWARD = "aten/src/ATen/native/Linear.cpp and the generated checks of what it calls"
OPTIM = "torch/optim/adamw.py, torch/optim/sgd.py: state is made like the parameter, the step on the CPU"

LINEAR = "m = nn.Linear(3, 2)\n"
X = f"{CARD} float32 2x3"
XC = f"{CPU} float32 2x3"
EMBEDDING = "m = nn.Embedding(4, 3)\n"

ROWS: list[tuple[str, dict[str, str], str, Outcome]] = [
    ("to", {}, LINEAR + "list(m.to('cuda:0').parameters())", gives("cuda:0 float32", "cuda:0 float32")),
    ("to other and dtype", {}, LINEAR + "list(m.to('cuda:1', torch.bfloat16).parameters())", gives("cuda:1 bfloat16", "cuda:1 bfloat16")),
    ("to and back", {}, LINEAR + "m.to('cuda:0').to('cpu').weight", gives("cpu float32")),
    ("to is in place", {}, LINEAR + "w = m.weight\n_ = m.to('cuda:0')\nm.weight is w, w", gives("= True", "cuda:0 float32")),
    (".cuda()", {}, LINEAR + "m.cuda().weight", gives("cuda:0 float32")),
    (".cuda(1)", {}, LINEAR + "m.cuda(1).weight", gives("cuda:1 float32")),
    (".cpu()", {}, LINEAR + "m.to('cuda:1').cpu().weight", gives("cpu float32")),
    (".half()", {}, LINEAR + "m.to('cuda:1').half().weight", gives("cuda:1 float16")),
    ("to dtype leaves integers", {}, "m = nn.Module()\nm.register_buffer('i', torch.arange(2))\nm.to('cuda:0', torch.float16).i", gives("cuda:0 int64")),
    ("device argument", {}, "nn.Linear(3, 2, device='cuda:1', dtype=torch.float16).weight", gives("cuda:1 float16")),
    ("buffers", {}, "m = nn.BatchNorm1d(3).to('cuda:0')\nlist(m.buffers())", gives("cuda:0 float32", "cuda:0 float32", "cuda:0 int64")),
    ("plain attributes stay", {}, "m = nn.Module()\nm.t = torch.ones(1)\nm.to('cuda:0').t", gives("cpu float32")),
    ("part of a model", {}, "m = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))\n_ = m[1].to('cuda:1')\nlist(m.parameters())", gives("cpu float32", "cuda:1 float32")),
    ("tied parameters stay tied", {}, "m = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))\nm[1].weight = m[0].weight\n_ = m.to('cuda:0')\nm[1].weight is m[0].weight", gives("= True")),
    ("state_dict", {}, LINEAR + "m.to('cuda:1').state_dict()", gives("cuda:1 float32", "cuda:1 float32")),
    ("load_state_dict stays", {}, LINEAR + "s = m.state_dict()\nn = nn.Linear(3, 2, device='cuda:1')\n_ = n.load_state_dict(s)\nn.weight", gives("cuda:1 float32")),
    ("load_state_dict, assigned", {}, LINEAR + "n = nn.Linear(3, 2, device='cuda:1')\n_ = n.load_state_dict(m.state_dict(), assign=True)\nn.weight", gives("cpu float32")),
    ("deepcopy", {}, LINEAR + "copy.deepcopy(m.to('cuda:1')).weight", gives("cuda:1 float32")),
    ("parameter moved is no parameter", {}, "p = nn.Parameter(torch.ones(2))\nq = p.to('cuda:0')\nisinstance(q, nn.Parameter), q.is_leaf, q", gives("= False", "= False", "cuda:0 float32")),
    ("parameter of a card's tensor", {"x": X}, "p = nn.Parameter(x)\np.is_leaf, p", gives("= True", "cuda:0 float32")),
    ("requires_grad is kept", {}, LINEAR + "_ = m.requires_grad_(False).to('cuda:0')\nm.weight.requires_grad, m.weight.is_leaf", gives("= False", "= True")),
    ("to_empty", {}, "nn.Linear(3, 2, device='meta').to_empty(device='cuda:1').weight", gives("cuda:1 float32")),
    ("register_parameter", {"x": X}, "m = nn.Module()\nm.p = nn.Parameter(x)\nlist(m.parameters())", gives("cuda:0 float32")),
    ("ParameterList", {"x": X}, "list(nn.ParameterList([x, x.to('cuda:1')]))", gives("cuda:0 float32", "cuda:1 float32")),
    ("parameters_to_vector", {}, LINEAR + "torch.nn.utils.parameters_to_vector(m.to('cuda:1').parameters())", gives("cuda:1 float32")),
    ("clip_grad_norm_", {"x": X}, LINEAR + "m = m.to('cuda:0')\nm(x).sum().backward()\ntorch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)", gives("cuda:0 float32")),
]  # fmt: skip

FORWARDS: list[tuple[str, dict[str, str], str, Outcome]] = [
    ("linear on a card", {"x": X}, LINEAR + "m.to('cuda:0')(x)", gives("cuda:0 float32")),
    ("linear, input on the cpu", {"x": XC}, LINEAR + "m.to('cuda:0')(x)", checked("mat1", CPU, CARD, "wrapper_CUDA_addmm")),
    ("linear, model on the cpu", {"x": X}, LINEAR + "m(x)", checked("mat1", CARD, CPU, "wrapper_CUDA_addmm")),
    ("linear, model on the other", {"x": X}, LINEAR + "m.to('cuda:1')(x)", checked("mat1", CARD, "cuda:1", "wrapper_CUDA_addmm")),
    ("no bias, input on the cpu", {"x": XC}, "nn.Linear(3, 2, bias=False).to('cuda:0')(x)", checked("mat2", CARD, CPU, "wrapper_CUDA_mm")),
    ("embedding on a card", {"i": f"{CARD} int64 2"}, EMBEDDING + "m.to('cuda:0')(i)", gives("cuda:0 float32")),
    ("embedding, ids on the cpu", {"i": f"{CPU} int64 2"}, EMBEDDING + "m.to('cuda:0')(i)", checked("index", CPU, CARD, "wrapper_CUDA__index_select")),
    ("embedding, ids on a card", {"i": f"{CARD} int64 2"}, EMBEDDING + "m(i)", checked("index", CARD, CPU, "wrapper_CUDA__index_select")),
    ("layer norm, model on the cpu", {"x": X}, "nn.LayerNorm(3)(x)", checked("weight", CPU, CARD, "wrapper_CUDA__native_layer_norm")),
    ("layer norm, input on the cpu", {"x": XC}, "nn.LayerNorm(3).to('cuda:0')(x)", checked("weight", CARD, CPU, "wrapper_CUDA__native_layer_norm")),
    ("rms norm, model on the cpu", {"x": X}, "nn.RMSNorm(3)(x)", checked("weight", CPU, CARD, "wrapper_CUDA___fused_rms_norm")),
    ("sequence over two cards", {"x": X}, "nn.Sequential(nn.Linear(3, 3).to('cuda:0'), nn.Linear(3, 3).to('cuda:1'))(x)", checked("mat1", CARD, "cuda:1", "wrapper_CUDA_addmm")),
    ("dropout in eval", {"x": X}, "nn.Dropout().eval()(x)", gives("cuda:0 float32")),
    ("cross entropy, labels on the cpu", {"x": X, "y": f"{CPU} int64 2"}, "nn.CrossEntropyLoss()(x, y)", checked("target", CPU, CARD, "wrapper_CUDA_nll_loss_forward")),
]  # fmt: skip

STEP = "loss = (p ** 2).sum()\nloss.backward()\no.step()\n"
OPTIMIZERS: list[tuple[str, str, Outcome]] = [
    ("SGD", "o = torch.optim.SGD([p], lr=0.1)\n" + STEP + "p", gives("cuda:1 float32")),
    ("SGD's momentum", "o = torch.optim.SGD([p], lr=0.1, momentum=0.9)\n" + STEP + "o.state[p]['momentum_buffer']", gives("cuda:1 float32")),
    ("AdamW's state", "o = torch.optim.AdamW([p])\n" + STEP + "[o.state[p][k] for k in ('step', 'exp_avg', 'exp_avg_sq')]", gives("cpu float32", "cuda:1 float32", "cuda:1 float32")),
    ("zero_grad", "o = torch.optim.SGD([p], lr=0.1)\n" + STEP + "o.zero_grad()\np.grad", gives("= None")),
]  # fmt: skip

META = Raises(
    "NotImplementedError",
    "Cannot copy out of meta tensor; no data! Please use torch.nn.Module.to_empty() instead of torch.nn.Module.to() "
    "when moving module from meta to a different device.",
)


def cases() -> Iterator[Case]:
    for name, operands, code, expected in ROWS:
        # Parameters are initialised at random, by the generator of their device.
        yield Case(
            f"module/{name}",
            operands,
            code,
            expected,
            MODULE,
            values=False,
            alone=".cuda(" not in code and "p.to(" not in code,
        )
    for name, operands, code, expected in FORWARDS:
        yield Case(f"forward/{name}", operands, code, expected, FORWARD, values=False)
    for name, code, expected in OPTIMIZERS:
        yield Case(f"optimizer/{name}", {"p": "cuda:1 float32 3 grad"}, code, expected, OPTIM)
    yield Case("module/from meta", {}, "nn.Linear(2, 2, device='meta').to('cuda:0')", META, MODULE, alone=False)
