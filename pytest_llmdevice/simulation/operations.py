"""Lists how PyTorch's code generator treats each operation, from native_functions.yaml of PyTorch 2.13.

The generated wrapper of an operation in neither table checks devices, and has the name of a wrapper without a
structured kernel.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> list[str]:
    return text.split()


STRUCTURED: Final = frozenset(
    _words(
        """
        _addmm_activation _convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo _linalg_det _linalg_eigh
        _linalg_slogdet _linalg_solve_ex _linalg_svd _log_softmax _log_softmax_backward_data _softmax
        _softmax_backward_data _upsample_bicubic2d_aa _upsample_bicubic2d_aa_backward _upsample_bilinear2d_aa
        _upsample_bilinear2d_aa_backward _upsample_lanczos2d_aa _upsample_lanczos2d_aa_backward
        _upsample_nearest_exact1d _upsample_nearest_exact1d_backward _upsample_nearest_exact2d
        _upsample_nearest_exact2d_backward _upsample_nearest_exact3d _upsample_nearest_exact3d_backward acosh
        adaptive_max_pool2d adaptive_max_pool2d_backward adaptive_max_pool3d adaptive_max_pool3d_backward addmm
        addmm_ addmv addmv_ amax amin argmax argmin asinh atanh avg_pool2d avg_pool2d_backward avg_pool3d
        avg_pool3d_backward baddbmm baddbmm_ bmm cat clamp clamp_ clamp_max clamp_max_ clamp_min clamp_min_
        elu_backward exp2 fractional_max_pool2d fractional_max_pool2d_backward fractional_max_pool3d gather gcd gcd_
        gelu_backward glu hardshrink_backward hardsigmoid_backward hash_tensor i0 igamma igamma_ igammac igammac_
        index_add index_add_ index_copy index_copy_ index_reduce index_reduce_ isin isneginf isposinf lcm lcm_
        leaky_relu_backward linalg_cholesky_ex linalg_cross linalg_inv_ex linalg_ldl_factor_ex linalg_ldl_solve
        linalg_lu linalg_lu_factor_ex linalg_lu_solve linalg_qr linalg_vector_norm logaddexp logaddexp2
        logit_backward lu_unpack max_pool2d_with_indices max_pool2d_with_indices_backward mish mm nextafter
        nextafter_ nll_loss_backward nll_loss_forward reflection_pad1d reflection_pad1d_backward reflection_pad3d
        reflection_pad3d_backward replication_pad1d replication_pad1d_backward replication_pad2d replication_pad3d
        scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ sgn sigmoid_backward signbit silu
        silu_backward sinc slow_conv_transpose2d softplus_backward softshrink_backward sort special_airy_ai
        special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_entr special_erfcx
        special_i0e special_i1 special_i1e special_log_ndtr special_modified_bessel_i0 special_modified_bessel_i1
        special_modified_bessel_k0 special_modified_bessel_k1 special_ndtri special_scaled_modified_bessel_k0
        special_scaled_modified_bessel_k1 special_spherical_bessel_j0 tanh_backward threshold_backward topk
        triangular_solve tril triu upsample_bicubic2d upsample_bicubic2d_backward upsample_bilinear2d
        upsample_bilinear2d_backward upsample_linear1d upsample_linear1d_backward upsample_nearest1d
        upsample_nearest1d_backward upsample_nearest2d upsample_nearest2d_backward upsample_nearest3d
        upsample_nearest3d_backward upsample_trilinear3d upsample_trilinear3d_backward
        """
    )
)
"""Operations with a structured kernel whose wrapper, named `wrapper_CUDA_NAME_OVERLOAD`, checks devices."""

ITERATOR: Final = frozenset(
    _words(
        """
        __ilshift__ __irshift__ __lshift__ __rshift__ _foreach_add _foreach_add_ _foreach_addcdiv _foreach_addcdiv_
        _foreach_addcmul _foreach_addcmul_ _foreach_clamp_max _foreach_clamp_max_ _foreach_clamp_min
        _foreach_clamp_min_ _foreach_copy_ _foreach_div _foreach_div_ _foreach_lerp _foreach_lerp_ _foreach_maximum
        _foreach_maximum_ _foreach_minimum _foreach_minimum_ _foreach_mul _foreach_mul_ _foreach_pow _foreach_pow_
        _foreach_sub _foreach_sub_ _index_put_impl_ abs acos add add_ addcdiv addcdiv_ addcmul addcmul_ all aminmax
        angle any asin atan atan2 atan2_ binary_cross_entropy bitwise_and bitwise_and_ bitwise_left_shift
        bitwise_left_shift_ bitwise_not bitwise_or bitwise_or_ bitwise_right_shift bitwise_right_shift_ bitwise_xor
        bitwise_xor_ ceil copysign copysign_ cos cosh cumprod cumsum digamma div div_ elu eq eq_ erf erfc erfinv exp
        expm1 fill_ floor floor_divide floor_divide_ fmax fmin fmod fmod_ frac ge ge_ gelu gt gt_ hardshrink
        hardsigmoid hardswish hardtanh heaviside heaviside_ hypot hypot_ index index_fill_ le le_ leaky_relu lerp
        lerp_ lgamma log log10 log1p log2 log_sigmoid_forward logical_and logical_not logical_or logical_xor lt lt_
        masked_fill_ max maximum mean min minimum mse_loss mul mul_ ne ne_ neg norm polygamma pow pow_ prod
        reciprocal remainder remainder_ renorm round rsqrt rsub sigmoid sign sin sinh smooth_l1_loss softplus
        softshrink special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v
        special_chebyshev_polynomial_w special_hermite_polynomial_h special_hermite_polynomial_he
        special_laguerre_polynomial_l special_legendre_polynomial_p special_shifted_chebyshev_polynomial_t
        special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v
        special_shifted_chebyshev_polynomial_w special_xlog1py special_zeta sqrt std sub sub_ sum tan tanh threshold
        trunc var where xlogy xlogy_
        """
    )
)
"""Operations without a check in the wrapper (`device_check: NoCheck`): a TensorIterator checks their operands."""
