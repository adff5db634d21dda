"""Names the kernel of a card that has no version for a dtype where the CPU's kernel has none either.

Both refuse with `"NAME" not implemented for 'Long'`, each with the name that its source has. Which name of the CPU's
belongs to which of a card's was asked of PyTorch 2.13's CUDA build (tests/simulation/ground_truth/executed).
"""

from __future__ import annotations

import re
from typing import Final

KERNELS: Final = {
    "GeluKernelImpl": "GeluCUDAKernelImpl",
    "abs_cpu_reduced_float": "abs_cuda",
    "add_stub": "ufunc_add_CUDA",
    "aminmax_cpu": "aminmax_all_cuda",
    "baddbmm": "baddbmm_cuda",
    "digamma": "digamma_cuda",
    "div_cpu_reduced_float": "div_true_cuda",
    "div_floor_cpu_reduced_float": "div_floor_cuda",
    "div_trunc_cpu_reduced_float": "div_trunc_cuda",
    "exp2": "exp2_cuda",
    **dict.fromkeys(("ge_cpu", "gt_cpu", "le_cpu", "lt_cpu"), "compare_cuda"),
    "index_add_": "index_add",
    "masked_fill": "masked_fill_",
    "masked_scatter": "masked_scatter_",
    "max_all": "max_all_cuda",
    "maximum_cpu": "max_elementwise_cuda",
    "median_out": "median_out_impl",
    "min_all": "min_all_cuda",
    "minimum_cpu": "min_elementwise_cuda",
    "mode_cpu": "cuda_mode",
    "mul_cpu_reduced_float": "mul_cuda",
    "nan_to_num": "nan_to_num_cuda",
    "nonzero_count_cpu": "nonzero_cuda",
    "scatter_gather_scalar_cpu": "cuda_scatter_fill_base_kernel_func",
    "scatter_gather_tensor_cpu": "cuda_scatter_gather_base_kernel_func",
    "sigmoid_cpu_reduced_float": "sigmoid_cuda",
    "sorting_kernel_method_name": "sortKeyValueInplace",
    "take_put_cpu": "put_cuda",
    "topk_cpu": "topk_out_cuda",
    "trace": "sum_cuda",
    **dict.fromkeys(("tril", "triu"), "triu_tril_cuda_template"),
    "trigamma": "trigamma_cuda",
    "_segment_reduce_cpu": "segment_reduce_cuda",
    "adaptive_avg_pool2d": "adaptive_avg_pool2d_cuda",
    "adaptive_max_pool2d": "adaptive_max_pool2d_cuda",
    "addmm_impl_cpu_": "addmm_cuda",
    "avg_pool2d": "avg_pool2d_out_cuda_frame",
    "avg_pool3d_out_frame": "avg_pool3d_out_cuda",
    "batch_norm": "batch_norm_stats_cuda",
    "binary_cross_entropy": "binary_cross_entropy_out_cuda",
    "bmm": "baddbmm_cuda",
    "cdist": "cdist_cuda",
    "cholesky_inverse_out_cpu": "cholesky_cuda_potrs",
    "cholesky_solve_cpu": "cholesky_cuda_potrs",
    "compute_indices_weights_cubic": "upsample_bicubic2d_out_frame",
    "clamp_max_scalar_cpu": "clamp_scalar_cuda",
    "clamp_min_scalar_cpu": "clamp_scalar_cuda",
    "cross": "cross_cuda",
    "grid_sampler3d_cpu": "grid_sampler_3d_cuda",
    "grid_sampler_2d_cpu_kernel_impl": "grid_sampler_2d_cuda",
    "im2col_out_cpu": "im2col_out_cuda",
    "index_func_": "index_reduce",
    "lerp_kernel_scalar": "lerp_cuda",
    "lerp_kernel_tensor": "lerp_cuda",
    "linalg.lu_solve_cpu": "lu_solve_cublas",
    "linalg_svd_cpu": "svd_cuda_gesvdjBatched",
    "log_sigmoid_cpu": "log_sigmoid_forward_cuda",
    "log_softmax_lastdim_kernel_impl": "host_softmax",
    "max_pool2d": "max_pool2d_with_indices_out_cuda_frame",
    "max_pool3d": "max_pool3d_with_indices_out_frame",
    "max_unpool2d": "max_unpooling2d_forward_kernel",
    "max_unpool3d": "max_unpooling3d_forward_kernel",
    "multilabel_margin_loss_forward_out_frame": "multilabel_margin_loss_forward_kernel",
    "nll_loss_out_frame": "nll_loss_forward_no_reduce_cuda_kernel",
    "ormqr_cpu": "orgmr_cuda",
    "pow": "pow_cuda",
    "reflection_pad1d": "reflection_pad1d_out",
    "replication_pad1d": "replication_pad1d_cuda",
    "replication_pad2d": "replication_pad2d_cuda",
    "rms_norm": "LayerNormKernelImpl",
    "scatter_gather_tensor_cpu_reduce_mean": "cuda_scatter_gather_base_kernel_func",
    "searchsorted_out_cpu": "searchsorted_out_cuda",
    "softmax_lastdim_kernel_impl": "host_softmax",
    "upsample_bilinear2d_channels_last": "upsample_bilinear2d_out_frame",
}
"""The name of a kernel of the CPU -> that of the card's, where it does not follow from it."""

_CPU: Final = re.compile(r"(_vml|_out)?_cpu(_kernel|_out|_)?$")
"""The usual end of a name of the CPU's, which is `_cuda` on a card."""

RESAMPLED: Final = {
    "compute_indices_weights_linear": {
        3: "upsample_linear1d_out_frame",
        4: "upsample_bilinear2d_out_frame",
        5: "upsample_trilinear3d_out_frame",
    },
    "compute_indices_weights_nearest": {3: "upsample_nearest1d_out_frame"},
}
"""The same of kernels that the CPU has for several numbers of dimensions: name -> dimensions of the input -> name."""

BY_FUNCTION: Final = {"histc": "histc"}
"""The same of functions of which the CPU calls another kernel first: function -> name."""

_REFUSAL: Final = re.compile(r'"(\S+)" not implemented for')


def of_a_card(text: str, dims: int, function: str) -> str:
    """The text of an error of the CPU with the name that a card's kernel has.

    Args:
        text: what the CPU's kernel says.
        dims: the number of dimensions of its first operand.
        function: the name of the function that called it.
    """
    found = _REFUSAL.match(text)
    if found is None:
        return text
    resampled = RESAMPLED.get(found[1], {}).get(dims)
    name = BY_FUNCTION.get(function) or resampled or KERNELS.get(found[1]) or _CPU.sub("_cuda", found[1])
    return text.replace(found[1], name, 1)
