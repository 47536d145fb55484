"""How often each pass fires on what one would serve of each model family, and the operators before and after."""

# family: (operators as saved, operators after, {pass: changes})
FIRED = {
    "classify/densenet": (74, 49, {"remove_identities": 8, "fold_conv_bn": 8, "fuse_conv_bias": 8,
        "fuse_conv_activation": 8, "fuse_fc": 1}),  # fmt: skip
    "classify/distillation": (45, 27, {"remove_identities": 4, "fold_conv_bn": 6, "fuse_conv_bias": 6,
        "fuse_conv_activation": 6, "fuse_fc": 2}),  # fmt: skip
    "classify/inception-googlenet": (44, 37, {"remove_identities": 3, "fuse_conv_bias": 3, "fuse_fc": 1}),
    "classify/inception-v4": (54, 24, {"remove_identities": 3, "fold_conv_bn": 13, "fuse_conv_bias": 13,
        "fuse_conv_activation": 13, "fuse_fc": 1}),  # fmt: skip
    "classify/mobilenet-v1": (32, 12, {"remove_identities": 1, "fold_conv_bn": 9, "fuse_conv_bias": 9,
        "fuse_conv_activation": 9, "fuse_fc": 1}),  # fmt: skip
    "classify/mobilenet-v2": (53, 20, {"remove_identities": 1, "fold_conv_bn": 17, "fuse_conv_bias": 17,
        "fuse_conv_residual": 2, "fuse_conv_activation": 12, "fuse_fc": 1}),  # fmt: skip
    "classify/mobilenet-v3": (55, 30, {"remove_identities": 2, "fold_conv_bn": 11, "fuse_conv_bias": 15,
        "fuse_conv_residual": 1, "fuse_conv_activation": 6, "fuse_fc": 1}),  # fmt: skip
    "classify/resnet_d": (63, 24, {"remove_identities": 1, "fold_conv_bn": 18, "fuse_conv_bias": 18,
        "fuse_conv_residual": 4, "fuse_conv_activation": 15, "fuse_fc": 1}),  # fmt: skip
    "classify/se_resnext": (73, 34, {"remove_identities": 3, "fold_conv_bn": 13, "fuse_conv_bias": 13,
        "fuse_conv_residual": 3, "fuse_conv_activation": 10, "fuse_fc": 7, "fuse_fc_relu": 3}),  # fmt: skip
    "classify/shufflenet_v2": (73, 41, {"remove_identities": 1, "fold_conv_bn": 18, "fuse_conv_bias": 18,
        "fuse_conv_activation": 12, "fuse_fc": 1}),  # fmt: skip
    "classify/vgg": (34, 18, {"remove_identities": 5, "fuse_conv_activation": 6, "fuse_fc": 3,
        "fuse_fc_relu": 2}),  # fmt: skip
    "dense/attention_ocr": (71, 63, {"remove_identities": 2, "fold_conv_bn": 2, "fuse_conv_bias": 2,
        "fuse_conv_activation": 2, "fuse_fc": 1, "fold_embedding_fc": 1}),  # fmt: skip
    "dense/crnn_ctc": (31, 15, {"remove_identities": 3, "fold_conv_bn": 3, "fuse_conv_bias": 3,
        "fuse_conv_activation": 3, "fuse_fc": 2, "fuse_projected_gru": 2}),  # fmt: skip
    "dense/deeplabv3p": (93, 50, {"remove_identities": 5, "fold_constants": 1, "fold_conv_bn": 18,
        "fuse_conv_bias": 19, "fuse_conv_activation": 18}),  # fmt: skip
    "dense/human_pose": (40, 19, {"remove_identities": 1, "fold_conv_bn": 11, "fuse_conv_bias": 10,
        "fuse_conv_residual": 3, "fuse_conv_activation": 7}),  # fmt: skip
    "dense/icnet": (91, 40, {"remove_identities": 3, "merge_common": 1, "fold_conv_bn": 14,
        "fuse_conv_bias": 17, "fuse_conv_residual": 4, "fuse_conv_activation": 12}),  # fmt: skip
    "dense/tsn-tsn": (39, 17, {"remove_identities": 3, "fold_conv_bn": 9, "fuse_conv_bias": 9,
        "fuse_conv_residual": 2, "fuse_conv_activation": 7, "fuse_fc": 1}),  # fmt: skip
    "dense/tsn-tsm": (41, 19, {"remove_identities": 3, "fold_conv_bn": 9, "fuse_conv_bias": 9,
        "fuse_conv_residual": 2, "fuse_conv_activation": 7, "fuse_fc": 1}),  # fmt: skip
    "detect/rcnn-faster": (36, 20, {"remove_identities": 1, "fuse_conv_bias": 5, "fuse_conv_activation": 4,
        "fuse_fc": 4, "fuse_fc_relu": 2}),  # fmt: skip
    "detect/rcnn-fpn": (68, 40, {"remove_identities": 2, "fuse_conv_bias": 13, "fuse_conv_activation": 7,
        "fuse_fc": 4, "fuse_fc_relu": 2}),  # fmt: skip
    "detect/rcnn-mask": (49, 28, {"remove_identities": 2, "fuse_conv_bias": 7, "fuse_conv_activation": 6,
        "fuse_fc": 4, "fuse_fc_relu": 2}),  # fmt: skip
    "detect/retinanet": (48, 27, {"remove_identities": 1, "fuse_conv_bias": 12, "fuse_conv_activation": 8}),
    "detect/ssd-mobilenet": (65, 44, {"remove_identities": 1, "fold_conv_bn": 7, "fuse_conv_bias": 13,
        "fuse_conv_activation": 7}),  # fmt: skip
    "detect/ssd-normalised": (66, 45, {"remove_identities": 1, "fold_conv_bn": 7, "fuse_conv_bias": 13,
        "fuse_conv_activation": 7}),  # fmt: skip
    "detect/yolov3": (83, 38, {"remove_identities": 4, "fold_conv_bn": 19, "fuse_conv_bias": 22,
        "fuse_conv_activation": 19}),  # fmt: skip
    "gan/cyclegan": (60, 47, {"remove_identities": 1, "fuse_conv_bias": 10, "fuse_conv_activation": 2}),
    "gan/digits-cgan": (16, 15, {"remove_identities": 1}),
    "gan/digits-dcgan": (15, 14, {"remove_identities": 1}),
    "gan/wgan_gp": (17, 9, {"remove_identities": 1, "fuse_conv_bias": 2, "fuse_conv_activation": 2,
        "fuse_fc": 2, "fuse_fc_relu": 1}),  # fmt: skip
    "ranking/cross_nets-dcn": (25, 21, {"remove_identities": 1, "fuse_fc": 2, "fuse_fc_relu": 1}),
    "ranking/cross_nets-xdeepfm": (36, 29, {"remove_identities": 1, "merge_common": 1, "fuse_fc": 4,
        "fuse_fc_relu": 1}),  # fmt: skip
    "ranking/deepfm": (36, 27, {"remove_identities": 3, "fuse_fc": 3, "fuse_fc_relu": 2,
        "fuse_repeated_fc_relu": 1}),  # fmt: skip
    "ranking/din": (43, 34, {"remove_identities": 2, "fuse_fc": 7}),
    "ranking/dssm": (38, 27, {"remove_identities": 1, "fuse_fc": 10}),
    "ranking/gru4rec-cross_entropy": (11, 6, {"remove_identities": 2, "fuse_fc": 2, "fold_embedding_fc": 1}),
    "ranking/gru4rec-bpr": (12, 8, {"remove_identities": 2, "fuse_fc": 1, "fold_embedding_fc": 1}),
    "ranking/multiview_simnet-bow": (25, 18, {"remove_identities": 4, "fuse_fc": 3}),
    "ranking/multiview_simnet-cnn": (37, 22, {"remove_identities": 4, "fuse_fc": 3, "fuse_seqconv_relu": 4}),
    "ranking/multiview_simnet-gru": (33, 22, {"remove_identities": 4, "fuse_fc": 3, "fold_embedding_fc": 4}),
    "ranking/ssr": (26, 20, {"remove_identities": 3, "fuse_fc": 3, "fold_embedding_fc": 1}),
    "ranking/tagspace": (22, 18, {"remove_identities": 3, "fuse_fc": 1}),
    "ranking/wide_deep": (24, 14, {"remove_identities": 3, "fuse_fc": 4, "fuse_fc_relu": 2,
        "fuse_repeated_fc_relu": 1}),  # fmt: skip
    "ranking/word2vec-negatives": (18, 16, {"remove_identities": 2}),
    "ranking/word2vec-nce": (9, 6, {"remove_identities": 2, "fuse_fc": 1}),
    "ranking/word2vec-hsigmoid": (8, 5, {"remove_identities": 2, "fuse_fc": 1}),
    "ranking/word2vec-custom_tree": (8, 5, {"remove_identities": 2, "fuse_fc": 1}),
    "text/bert": (99, 41, {"split_versions": 8, "remove_identities": 9, "fuse_attention": 2,
        "fuse_attention_heads": 2, "fuse_embedding_layer_norm": 1, "fuse_add_layer_norm": 4, "fuse_fc": 15,
        "fuse_matmul_fc": 1}),  # fmt: skip
    "text/bidaf": (62, 42, {"remove_identities": 5, "fold_constants": 1, "fuse_fc": 3, "fuse_fc_relu": 1,
        "fold_embedding_fc": 4, "fuse_embedding_lstm": 4, "fuse_fc_lstm": 4, "remove_dead": 2}),  # fmt: skip
    "text/bigru_crf": (19, 10, {"remove_identities": 1, "fuse_fc": 5, "fold_embedding_fc": 2,
        "fuse_projected_gru": 2, "remove_dead": 1}),  # fmt: skip
    "text/dam": (334, 214, {"remove_identities": 1, "merge_common": 28, "fuse_add_layer_norm": 36,
        "fuse_fc": 37, "fuse_fc_relu": 18}),  # fmt: skip
    "text/language_model-static": (64, 55, {"remove_identities": 7, "fuse_matmul_fc": 2}),
    "text/language_model-unrolled": (183, 172, {"remove_identities": 1, "fuse_matmul_fc": 10}),
    "text/language_model-lod_lstm": (7, 2, {"remove_identities": 1, "fuse_fc": 1, "fold_embedding_fc": 1,
        "fuse_embedding_lstm": 1, "fuse_fc_lstm": 1}),  # fmt: skip
    "text/language_model-lod_gru": (5, 2, {"remove_identities": 1, "fuse_fc": 1, "fold_embedding_fc": 1}),
    "text/rnn_search": (64, 58, {"remove_identities": 3, "fuse_fc": 1, "fold_embedding_fc": 3,
        "remove_dead": 1}),  # fmt: skip
    "text/sentiment-bow": (13, 9, {"remove_identities": 2, "fuse_fc": 2}),
    "text/sentiment-cnn": (20, 17, {"remove_identities": 2, "fuse_fc": 1}),
    "text/sentiment-gru": (16, 10, {"remove_identities": 2, "fuse_fc": 3, "fold_embedding_fc": 1}),
    "text/sentiment-lstm": (16, 9, {"remove_identities": 2, "fuse_fc": 3, "fold_embedding_fc": 1,
        "fuse_embedding_lstm": 1}),  # fmt: skip
    "text/sentiment-bilstm": (22, 13, {"remove_identities": 2, "fuse_fc": 4, "fold_embedding_fc": 2,
        "fuse_embedding_lstm": 2, "remove_dead": 1}),  # fmt: skip
    "text/sentiment-textcnn_padded": (23, 14, {"remove_identities": 2, "fold_constants": 1,
        "fuse_conv_bias": 2, "fuse_conv_activation": 2, "fuse_fc": 2}),  # fmt: skip
    "text/seq2seq_cells": (160, 136, {"remove_identities": 2, "fold_constants": 13, "merge_common": 5,
        "fuse_matmul_fc": 4}),  # fmt: skip
    "text/transformer": (197, 127, {"split_versions": 24, "remove_identities": 8, "fuse_attention": 6,
        "fuse_attention_heads": 4, "fuse_add_layer_norm": 2, "fuse_fc": 8, "fuse_fc_relu": 4}),  # fmt: skip
}
