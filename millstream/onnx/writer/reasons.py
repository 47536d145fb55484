"""Why operators without an emitter have none."""

from __future__ import annotations

_RANDOM = "it draws at random with Fluid's generator"
_TRAINING = "it is a part of training (a loss, sampled targets), not of inference"
_METRIC = "it is a metric with a state of its own"
_SPARSE = "it works on SelectedRows, which ONNX has not"
_HOST = "it acts on the host (files, readers, Python), not on tensors"

_GROUPS = {
    _RANDOM: "gaussian_random gaussian_random_batch_size_like uniform_random uniform_random_batch_size_like "
    "truncated_gaussian_random randint randperm random_crop sampling_id seed shuffle_batch tdm_sampler nce sample_logits",
    _TRAINING: "linear_chain_crf warpctc hierarchical_sigmoid yolov3_loss center_loss generate_mask_labels "
    "generate_proposal_labels retinanet_target_assign rpn_target_assign target_assign mine_hard_examples bipartite_match "
    "dgc dgc_clip_by_norm teacher_student_sigmoid_loss",
    _METRIC: "auc chunk_eval detection_map edit_distance positive_negative_pair precision_recall mean_iou",
    _SPARSE: "get_tensor_from_selected_rows merge_selected_rows split_selected_rows lookup_sparse_table merge_ids split_ids "
    "ref_by_trainer_id",
    _HOST: "load load_combine save save_combine read py_func create_batch_reader create_double_buffer_reader "
    "create_py_reader create_random_data_generator create_shuffle_reader delete_var get_places fake_init coalesce_tensor",
    "it merges boxes one after another, each with what was merged before": "locality_aware_nms",
    "its numbers are bytes packed into floats, which ONNX can't take apart": "lookup_table_dequant",
    "it walks through a tree or a table whose form depends on the data": "tree_conv similarity_focus filter_by_instag",
    "every sequence is an image of a size of its own": "match_matrix_tensor var_conv_2d sequence_topk_avg_pooling",
    "every region is read through a perspective of its own": "roi_perspective_transform deformable_psroi_pooling",
    "a training pass made it; export the Program that was built": "batch_norm_relu row_loop rows_to_steps "
    "scaled_sum_relu",
    "it runs an engine; export the Program that was loaded": "engine_run",
    "XXH64 of the ids, which ONNX has no integer operators for": "hash pyramid_hash",
}
REASONS = {name: reason for reason, names in _GROUPS.items() for name in names.split()}
