"""Indexing, gathering, scattering, masks and searches."""

from __future__ import annotations

from collections.abc import Iterator

from .declare import (
    CARD,
    CPU,
    GENERATED,
    ITERATOR,
    KERNEL,
    OTHER,
    Case,
    Outcome,
    checked,
    family,
    gives,
    placements,
    runtime,
    same,
)

INDEX = "aten/src/ATen/native/TensorAdvancedIndexing.cpp: check_indices_on_cpu_or_selfdevice"
PUT = "aten/src/ATen/native/TensorAdvancedIndexing.cpp: _index_put_impl_"
BASIC = "torch/csrc/autograd/python_variable_indexing.cpp: basic indices are views, assignment is copy_"
NUMBER = "torch/csrc/autograd/python_variable_indexing.cpp: a 0-dim integer tensor is read like a number"
FILL = "aten/src/ATen/native/cuda/Indexing.cu: masked_fill__cuda"
FILLED = "aten/src/ATen/native/Fill.cpp: fill_"
TABLE = "aten/src/ATen/native/Embedding.cpp: embedding_symint calls index_select"
ALONG = "aten/src/ATen/native/TensorAdvancedIndexing.cpp: take_along_dim calls checkDevice of TensorUtils.cpp"
JOIN = "aten/src/ATen/native/TensorShape.cpp: stack, hstack and vstack call cat"

A, S, IDX, M = "float32 4x3", "float32 2x3", "int64 2 index", "bool 4x3"

FAMILIES = [
    ("index_select", "self.index_select(0, index)", "_index_select", {"self": A, "index": IDX}, ""),
    ("embedding", "F.embedding(index, self)", "_index_select", {"self": A, "index": IDX}, TABLE),
    ("embedding[2d]", "F.embedding(index, self)", "_index_select", {"self": A, "index": "int64 2x2 index"}, TABLE),
    ("gather", "self.gather(0, index)", "gather", {"self": A, "index": "int64 2x3 index"}, ""),
    ("take", "self.take(index)", "_take", {"self": A, "index": IDX}, ""),
    (
        "scatter",
        "self.scatter(0, index, src)",
        "scatter_src",
        {"self": A, "index": "int64 1x3 index", "src": "float32 1x3"},
        "",
    ),
    ("scatter/number", "self.scatter(0, index, 2.0)", "scatter_value", {"self": A, "index": "int64 1x3 index"}, ""),
    ("scatter_", "self.scatter_(0, index, 2.0)", "scatter__value", {"self": A, "index": "int64 1x3 index"}, ""),
    (
        "scatter_add",
        "self.scatter_add(0, index, src)",
        "scatter_add",
        {"self": A, "index": "int64 1x3 index", "src": "float32 1x3"},
        "",
    ),
    (
        "index_add",
        "self.index_add(0, index, source)",
        "index_add",
        {"self": A, "index": "int64 2 distinct", "source": S},
        "",
    ),
    (
        "index_add_",
        "self.index_add_(0, index, source)",
        "index_add_",
        {"self": A, "index": "int64 2 distinct", "source": S},
        "",
    ),
    (
        "index_copy_",
        "self.index_copy_(0, index, source)",
        "index_copy_",
        {"self": A, "index": "int64 2 distinct", "source": S},
        "",
    ),
    ("put_", "self.put_(index, source)", "_put_", {"self": A, "index": "int64 2 distinct", "source": "float32 2"}, ""),
    ("masked_select", "self.masked_select(mask)", "_masked_select", {"self": A, "mask": M}, ""),
    (
        "masked_scatter_",
        "self.masked_scatter_(mask, source)",
        "_masked_scatter_",
        {"self": A, "mask": M, "source": "float32 12"},
        "",
    ),
]

INTEGERS = [
    (
        "isin",
        "torch.isin(elements, test_elements)",
        "isin_Tensor_Tensor",
        {"elements": "int64 4", "test_elements": "int64 2"},
        "bool",
    ),
    (
        "searchsorted",
        "torch.searchsorted(sorted_sequence, self)",
        "Tensor_searchsorted",
        {"sorted_sequence": "float32 4 sorted", "self": "float32 2"},
        "int64",
    ),
    (
        "bucketize",
        "torch.bucketize(self, boundaries)",
        "Tensor_bucketize",
        {"self": "float32 2", "boundaries": "float32 4 sorted"},
        "int64",
    ),
]


def away(device: str) -> Outcome:
    return runtime(f"indices should be either on cpu or on the same device as the indexed tensor ({device})")


def on(**operands: str) -> dict[str, str]:
    return operands


def mask_away(mask: str, tensor: str) -> Outcome:
    return runtime(f"expected self and mask to be on the same device, but got mask on {mask} and self on {tensor}")


F32, F32_CPU, F32_OTHER = gives("cuda:0 float32"), gives("cpu float32"), gives("cuda:1 float32")
ROWS: list[tuple[str, dict[str, str], str, Outcome | None, str]] = [
    ("index/card by card", on(x=f"{CARD} {A}", i=f"{CARD} {IDX}"), "x[i]", F32, INDEX),
    ("index/card by cpu", on(x=f"{CARD} {A}", i=f"{CPU} {IDX}"), "x[i]", F32, INDEX),
    ("index/other by other", on(x=f"{OTHER} {A}", i=f"{OTHER} {IDX}"), "x[i]", F32_OTHER, INDEX),
    ("index/cpu by card", on(x=f"{CPU} {A}", i=f"{CARD} {IDX}"), "x[i]", away("cpu"), INDEX),
    ("index/card by other", on(x=f"{CARD} {A}", i=f"{OTHER} {IDX}"), "x[i]", away(CARD), INDEX),
    ("index/cpu mask", on(x=f"{CARD} {A}", m=f"{CPU} {M}"), "x[m]", F32, INDEX),
    ("index/card mask", on(x=f"{CARD} {A}", m=f"{CARD} {M}"), "x[m]", F32, INDEX),
    ("index/cpu by card mask", on(x=f"{CPU} {A}", m=f"{CARD} {M}"), "x[m]", away("cpu"), INDEX),
    ("index/cpu and card", on(x=f"{CARD} {A}", i=f"{CARD} {IDX}", j=f"{CPU} {IDX}"), "x[i, j]", F32, INDEX),
    (
        "index/cpu by cpu and card",
        on(x=f"{CPU} {A}", i=f"{CPU} {IDX}", j=f"{CARD} {IDX}"),
        "x[i, j]",
        away("cpu"),
        INDEX,
    ),
    ("index/list", on(x=f"{CARD} {A}"), "x[[0, 1]]", F32, INDEX),
    ("index/slice", on(x=f"{CARD} {A}", i=f"{CPU} {IDX}"), "x[1:, i]", F32, INDEX),
    ("index/int32", on(x=f"{CARD} {A}", i=f"{CARD} int32 2 index"), "x[i]", F32, INDEX),
    ("index/cpu by a card's number", on(x=f"{CPU} {A}", i=f"{CARD} int64 0d"), "x[i]", F32_CPU, NUMBER),
    ("index/card by a cpu's number", on(x=f"{CARD} {A}", i=f"{CPU} int64 0d"), "x[i]", F32, NUMBER),
    (
        "index/slice by a card's number",
        on(x=f"{CPU} {A}", i=f"{CARD} int64 0d"),
        "x[i:]",
        F32_CPU,
        "torch/_tensor.py: __index__",
    ),
    (
        "index/list by a card's number",
        on(i=f"{CARD} int64 0d"),
        "['a', 'b', 'c'][i]",
        gives("= 'a'"),
        "torch/_tensor.py: __index__",
    ),
    ("assign/row from the cpu", on(x=f"{CARD} {A}", v=f"{CPU} float32 3"), "x[0] = v\nx", F32, BASIC),
    ("assign/slice from a card", on(x=f"{CPU} {A}", v=f"{CARD} float32 2x3"), "x[1:3] = v\nx", F32_CPU, BASIC),
    ("assign/slice from the other", on(x=f"{CARD} {A}", v=f"{OTHER} float32 3"), "x[:] = v\nx", F32, BASIC),
    ("assign/number", on(x=f"{CARD} {A}"), "x[0, 1] = 7\nx", F32, BASIC),
    ("assign/indices, number", on(x=f"{CARD} {A}", i=f"{CARD} {IDX}"), "x[i] = 7.0\nx", F32, PUT),
    ("assign/cpu indices, number", on(x=f"{CARD} {A}", i=f"{CPU} {IDX}"), "x[i] = 7.0\nx", F32, PUT),
    (
        "assign/indices, card",
        on(x=f"{CARD} {A}", i=f"{CPU} int64 2 distinct", v=f"{CARD} {S}"),
        "x[i] = v\nx",
        F32,
        PUT,
    ),
    (
        "assign/indices, cpu",
        on(x=f"{CARD} {A}", i=f"{CARD} int64 2 distinct", v=f"{CPU} {S}"),
        "x[i] = v\nx",
        same(CARD, CPU),
        f"{PUT}; {ITERATOR}",
    ),
    ("assign/indices, cpu[0d]", on(x=f"{CARD} {A}", i=f"{CARD} {IDX}", v=f"{CPU} float32 0d"), "x[i] = v\nx", F32, PUT),
    (
        "assign/indices, other[0d]",
        on(x=f"{CARD} {A}", i=f"{CARD} {IDX}", v=f"{OTHER} float32 0d"),
        "x[i] = v\nx",
        F32,
        PUT,
    ),
    ("assign/mask, number", on(x=f"{CARD} {A}", m=f"{CARD} {M}"), "x[m] = 7.0\nx", F32, f"{PUT}; {FILL}"),
    # A mask elsewhere is no case for masked_fill_: its indices are moved.
    (
        "assign/cpu mask, number",
        on(x=f"{CARD} {A}", m=f"{CPU} {M}"),
        "x[m] = 7.0\nx",
        F32,
        f"{PUT}; TensorAdvancedIndexingUtils.h: canDispatchToMaskedFill, make_info",
    ),
    (
        "assign/cpu by card mask",
        on(x=f"{CPU} {A}", m=f"{CARD} {M}"),
        "x[m] = 7.0\nx",
        None,
        "open: make_info moves the mask, but nobody has seen it",
    ),
    (
        "assign/cpu by card indices",
        on(x=f"{CPU} {A}", i=f"{CARD} {IDX}"),
        "x[i] = 7.0\nx",
        None,
        "open: make_info moves the indices, but nobody has seen it",
    ),
    (
        "assign/added, cpu",
        on(x=f"{CARD} {A}", i=f"{CARD} {IDX}", v=f"{CPU} {S}"),
        "x.index_put_((i,), v, accumulate=True)",
        runtime("expected device cuda:0 but got device cpu for value tensor"),
        PUT,
    ),
    ("masked_fill/card", on(x=f"{CARD} {A}", m=f"{CARD} {M}"), "x.masked_fill(m, 7.0)", F32, FILL),
    ("masked_fill/cpu mask", on(x=f"{CARD} {A}", m=f"{CPU} {M}"), "x.masked_fill(m, 7.0)", mask_away(CPU, CARD), FILL),
    ("masked_fill/card mask", on(x=f"{CPU} {A}", m=f"{CARD} {M}"), "x.masked_fill(m, 7.0)", mask_away(CARD, CPU), FILL),
    (
        "masked_fill_/other mask",
        on(x=f"{CARD} {A}", m=f"{OTHER} {M}"),
        "x.masked_fill_(m, 7.0)",
        mask_away(OTHER, CARD),
        FILL,
    ),
    (
        "masked_fill/cpu value",
        on(x=f"{CARD} {A}", m=f"{CARD} {M}", v=f"{CPU} float32 0d"),
        "x.masked_fill(m, v)",
        F32,
        FILL,
    ),
    (
        "masked_fill/card value",
        on(x=f"{CPU} {A}", m=f"{CPU} {M}", v=f"{CARD} float32 0d"),
        "x.masked_fill(m, v)",
        runtime("masked_fill_: Expected inputs to be on same device"),
        FILL,
    ),
    ("fill_/cpu", on(x=f"{CARD} {A}", v=f"{CPU} float32 0d"), "x.fill_(v)", F32, FILLED),
    ("fill_/card", on(x=f"{CPU} {A}", v=f"{CARD} float32 0d"), "x.fill_(v)", F32_CPU, FILLED),
    ("index_fill_/card", on(x=f"{CARD} {A}", i=f"{CARD} {IDX}"), "x.index_fill_(0, i, 7.0)", F32, KERNEL),
    ("index_fill_/cpu", on(x=f"{CARD} {A}", i=f"{CPU} {IDX}"), "x.index_fill_(0, i, 7.0)", same(CARD, CPU), ITERATOR),
    (
        "repeat_interleave/cpu",
        on(x=f"{CARD} {S}", r=f"{CPU} int64 2 nonzero"),
        "x.repeat_interleave(r, dim=0)",
        checked("index", CPU, CARD, "wrapper_CUDA__index_select"),
        f"aten/src/ATen/native/Repeat.cpp; {GENERATED}",
    ),
    (
        "repeat_interleave/card",
        on(x=f"{CARD} {S}", r=f"{CARD} int64 2 nonzero"),
        "x.repeat_interleave(r, dim=0)",
        F32,
        KERNEL,
    ),
]

JOINS = [("cat", "torch.cat([a, b])"), ("stack", "torch.stack([a, b])"), ("hstack", "torch.hstack([a, b])")]
SHARED = [
    (
        "embedding/float indices",
        {"x": f"{CARD} {A}", "i": f"{CARD} float32 2"},
        "F.embedding(i, x)",
        runtime(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got "
            "torch.cuda.FloatTensor instead (while checking arguments for embedding)"
        ),
        "aten/src/ATen/native/Embedding.cpp: embedding_symint",
    ),
    (
        "assign/dtypes",
        {"x": f"{CARD} {A}", "i": f"{CARD} int64 2 distinct", "v": f"{CARD} float16 2x3"},
        "x[i] = v",
        runtime(
            "Index put requires the source and destination dtypes match, got Float for the destination and Half "
            "for the source."
        ),
        "TensorAdvancedIndexing.cpp: make_index_put_iterator",
    ),
]


def along_dim() -> Iterator[Case]:
    for device, other in placements(2):
        text = (
            f"Expected tensor to have {device} Device, but got tensor with {other} Device (while checking arguments "
            "for torch.take_along_dim():)"
        )
        yield Case(
            f"take_along_dim/{device}+{other}",
            {"self": f"{device} {A}", "index": f"{other} int64 2x3 index"},
            "self.take_along_dim(index, 0)",
            gives(f"{device} float32") if device == other else runtime(text),
            ALONG,
        )


def cases() -> Iterator[Case]:
    for name, code, method, operands, source in FAMILIES:
        yield from family(name, code, method, operands, "float32", source)
    yield from along_dim()
    for name, code, method, operands, result in INTEGERS:
        yield from family(name, code, method, operands, result)
    for name, given, code, expected, source in ROWS:
        yield Case(name, given, code, expected, source)
    for name, code in JOINS:
        for first, second in ((CARD, CARD), (CARD, CPU), (CPU, CARD), (CARD, OTHER), (OTHER, CARD), (OTHER, OTHER)):
            yield Case(
                f"{name}/{first}+{second}",
                {"a": f"{first} {S}", "b": f"{second} {S}"},
                code,
                gives(f"{first} float32") if first == second else checked("tensors", second, first, "wrapper_CUDA_cat"),
                f"{JOIN}; {GENERATED}",
            )
    yield Case(
        "cat/float16+float32", {"a": f"{CARD} float16 2x3", "b": f"{CARD} {S}"}, "torch.cat([a, b])", F32, KERNEL
    )
    for name, given, code, expected, source in SHARED:
        yield Case(name, given, code.replace("= v", "= v\nx"), expected, source, alone=False)
