"""Arguments that are accepted and have no meaning here: (function, its arguments, why).

Names are below millstream/fluid. tests/fluid/test_arguments.py finds every parameter that no code reads and fails when it is
not on this list; `docs/generate.py` writes the list into docs/reference/arguments.md.
"""

NAMES_NOTHING = "makes no operator or variable that could be named after it"
ONE_KERNEL = "there is one kernel on each device"
PLACE_OF_EXECUTOR = "the place of the Executor decides where operators run"
PART_OF_PROTOCOL = "belongs to the protocol that a decoder calls; this one needs less"
REFUSED = "the function raises an error that names another"

MEANINGLESS = [
    ("contrib.decoder.beam_search_decoder.BeamSearchDecoder.__init__", ["name"], NAMES_NOTHING),
    ("contrib.decoder.beam_search_decoder.StateCell.__init__", ["name"], NAMES_NOTHING),
    ("contrib.utils.hdfs_utils.multi_upload", ["sync"], "all uploads are done when it returns"),
    ("dataset.datasets.InMemoryDataset.get_memory_data_size", ["fleet"], "one worker"),
    ("dataset.datasets.InMemoryDataset.get_shuffle_data_size", ["fleet"], "one worker"),
    ("dataset.datasets.InMemoryDataset.global_shuffle", ["thread_num"], "nothing is sent"),
    ("dataset.datasets.InMemoryDataset.set_fea_eval", ["record_candidate_size"], "values are drawn from all samples"),
    ("dataset.datasets.InMemoryDataset.set_queue_num", ["queue_num"], "samples are not spread over queues"),
    ("debugger.run_fast_nan_inf_debug", ["dump_core"], "the error names the operator; there is no core to dump"),
    ("dygraph._building.Builder.convert", ["function"], PART_OF_PROTOCOL),
    ("dygraph._building.Builder.parameter", ["param"], PART_OF_PROTOCOL),
    ("dygraph.layer_object_helper.LayerObjectHelper.append_activation", ["use_cudnn", "use_mkl_dnn"], ONE_KERNEL),
    ("dygraph.nn.sampled.SequenceConv.__init__", ["padding"], "the output always has the input's rows"),
    ("dygraph.nn.sampled.TreeConv.__init__", ["name"], NAMES_NOTHING),
    ("graph.node.Graph.resolve_hazard", ["variables"], "the graph keeps the order of reads and writes from the start"),
    ("io.variables.get_parameter_value", ["executor"], "the value lies in the scope"),
    ("layers._eager.case", ["name"], NAMES_NOTHING),
    ("layers._eager.cond", ["name"], NAMES_NOTHING),
    ("layers._eager.create_array", ["dtype"], "an array is a list in dygraph mode"),
    ("layers._eager.switch_case", ["name"], NAMES_NOTHING),
    ("layers._eager.tensor_array_to_tensor", ["name"], NAMES_NOTHING),
    ("layers._eager.while_loop", ["is_test", "name"], "Python's own loop in dygraph mode"),
    ("layers.array.tensor_array_to_tensor", ["name"], "1.8.5 names nothing after it either"),
    ("layers.cells.decoder.BeamSearchDecoder.finalize", ["sequence_lengths"], PART_OF_PROTOCOL),
    ("layers.cells.decoder.BeamSearchDecoder.step", ["time"], PART_OF_PROTOCOL),
    ("layers.cells.next_inputs.BasicDecoder.finalize", ["sequence_lengths"], PART_OF_PROTOCOL),
    ("layers.cells.next_inputs.GreedyEmbeddingHelper.next_inputs", ["outputs", "time"], PART_OF_PROTOCOL),
    ("layers.cells.next_inputs.GreedyEmbeddingHelper.sample", ["states", "time"], PART_OF_PROTOCOL),
    ("layers.cells.next_inputs.SampleEmbeddingHelper.sample", ["states", "time"], PART_OF_PROTOCOL),
    ("layers.cells.next_inputs.TrainingHelper.next_inputs", ["outputs", "sample_ids"], PART_OF_PROTOCOL),
    ("layers.cells.next_inputs.TrainingHelper.sample", ["states", "time"], PART_OF_PROTOCOL),
    ("layers.control_flow.case", ["name"], NAMES_NOTHING),
    ("layers.control_flow.switch_case", ["name"], NAMES_NOTHING),
    ("layers.detection.priors.multi_box_head", ["name"], "1.8.5 names nothing after it either"),
    ("layers.device.ParallelDo.__init__", ["name", "use_nccl"], "all of it runs on one place"),
    ("layers.loss.dice_loss", ["name"], "1.8.5 names nothing after it either"),
    ("layers.nn.activation.softmax", ["use_cudnn"], ONE_KERNEL),
    ("layers.nn.dense.fc", ["is_test"], "the layer does the same in training and test (1.1)"),
    ("layers.nn.elementwise.addcmul", ["name"], "1.8.5 names nothing after it either"),
    ("layers.nn.gather.arange", ["name"], "1.8.5 names nothing after it either"),
    ("layers.nn.gather.full", ["device"], PLACE_OF_EXECUTOR),
    ("layers.nn.gather.full_like", ["device"], PLACE_OF_EXECUTOR),
    (
        "layers.nn.norm.data_norm",
        ["do_model_average_for_mean_and_var", "moving_mean_name", "moving_variance_name"],
        "1.8.5 does not read them either: the statistics are named by param_attr",
    ),
    ("layers.nn.pool.pool2d", ["use_cudnn"], ONE_KERNEL),
    ("layers.nn.pool.pool3d", ["use_cudnn"], ONE_KERNEL),
    ("layers.nn.random.randint", ["device"], PLACE_OF_EXECUTOR),
    ("layers.nn.random.randn", ["device"], PLACE_OF_EXECUTOR),
    ("layers.nn.random.randperm", ["device"], PLACE_OF_EXECUTOR),
    ("layers.reader_1_1.Preprocessor.__init__", ["name"], NAMES_NOTHING),
    ("layers.reader_io.random_data_generator", ["for_parallel"], "every device reads the same generator"),
    ("layers.sequence.sequence_conv", ["padding"], "the output always has the input's rows"),
    ("memory_optimization.memory_optimize", ["print_log", "skip_grads", "skip_opt_set"], "values are freed as they die"),
    ("memory_optimization.release_memory", ["skip_opt_set"], "values are freed as they die"),
    ("net_drawer.draw_edge", ["arg", "op", "var", "var_parent"], REFUSED),
    ("net_drawer.draw_graph", ["main_program", "startup_program"], REFUSED),
    ("net_drawer.draw_node", ["op"], REFUSED),
    ("net_drawer.parse_graph", ["graph", "program", "var_dict"], REFUSED),
    ("profiler.cuda_profiler", ["config"], "CUDA's profiler takes its options from its own command line"),
    ("reader.generator.DygraphGeneratorLoader.__init__", ["feed_list", "return_list"], "eager batches are always lists"),
    ("regularizer.L1DecayRegularizer.__call__", ["grad"], "the decay is of the parameter alone"),
    ("regularizer.L2DecayRegularizer.__call__", ["grad"], "the decay is of the parameter alone"),
]
