"""Which passes run, in order."""

PLAN = (
    "fuse_rnn", "fuse_bias_relu_pool", "fuse_attention_layers", "fuse_dense_layers", "chain_layer_gradients",
    "release_operands", "fuse_batch_norm_relu", "fuse_scaled_sum", "fuse_conv_batch_norm", "fuse_scaled_norm",
    "fuse_added_gradient", "fuse_summed_gradient", "fuse_softmax_cross_entropy", "fold_loss_gradient", "classify_ahead",
    "take_loss_gradient_ahead", "fuse_squared_error", "keep_sparse", "lay_out_sums", "fuse_lookups", "skip_row_merge",
    "fuse_fc", "fuse_fc_relu", "fuse_projected_gru", "fuse_bigru", "skip_parameter_casts", "fuse_clipping",
    "step_with_gradient", "fuse_optimizers",
)  # fmt: skip
"""For every Plan; a Plan for a debugging run (FLAGS_check_nan_inf) has none, so that errors name the user's operators."""

CLEAN = (
    "set_is_test", "remove_dead", "split_versions", "remove_identities", "fold_constants", "merge_common", "fold_conv_bn",
)  # fmt: skip
"""What is right for any inference Program and any engine: the result has Fluid's own operators, none of them fused."""

EXPORT = (*CLEAN, "pair_quantization", "fuse_quantized_bias")
"""For other engines, which fuse by themselves."""

_CONVOLUTION = ("fuse_conv_bias", "fuse_conv_residual", "fuse_conv_activation")
_DENSE = ("fuse_fc", "fuse_matmul_fc", "fuse_fc_relu")
_SEQUENCE = ("fuse_seqconv_relu", "fuse_seqexpand_concat_fc")
_ATTENTION = (
    "fuse_layer_norm", "fuse_attention", "fuse_attention_heads", "fuse_embedding_layer_norm", "fuse_add_layer_norm",
)  # fmt: skip
_LSTM = ("fold_embedding_fc", "fuse_embedding_lstm", "fuse_fc_lstm")

_IN_FLUID = (*_DENSE, *_LSTM, "fuse_fc_gru", *_SEQUENCE, "fuse_repeated_fc_relu", "remove_dead")

FLUID = ("for_fluid", "fold_dequantize", "spell_quantization", *CLEAN, *_IN_FLUID)
"""All that can be said in Fluid's own operators, so that PaddlePaddle reads the result too."""

FLUID_ONEDNN = ("for_fluid", "fold_dequantize", "spell_quantization", *CLEAN, *_CONVOLUTION, *_IN_FLUID)
"""FLUID with fused convolutions: only oneDNN's kernels in PaddlePaddle (on CPUs) look at what was fused into conv2d."""

INFER = (
    "fold_dequantize", *CLEAN, "simplify_arithmetic", "fuse_quantize_pairs", "fuse_activations", "fuse_attention_lstm",
    *_CONVOLUTION, *_ATTENTION, *_DENSE, *_LSTM,
    "fuse_projected_gru", "fuse_bigru", *_SEQUENCE, "fuse_seqpool_concat", "fuse_repeated_fc_relu", "fuse_elementwise",
    "pack_bigru", "fuse_bigru_tagger", "pack_conv", "remove_dead", "reuse_memory",
)  # fmt: skip
"""For inference by millstream (`passes.optimize`)."""
