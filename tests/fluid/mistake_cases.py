"""Mistakes that users make, as functions of (fluid, np, folder) that raise: run by us and by 1.8.5.

Each runs in Programs, a Scope and an empty folder of its own. Names say what is wrong.
"""

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def cases(**functions):
    """Mistakes of one line; they take what a function takes."""
    CASES.update(functions)


def linear(fluid):
    x = fluid.data("x", [None, 2])
    return x, fluid.layers.fc(x, 1)


def ready(fluid):
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    return exe


def run(fluid, feed, *fetch):
    return ready(fluid).run(fluid.default_main_program(), feed=feed, fetch_list=list(fetch))


def ones(np, *shape):
    return np.ones(shape, "float32")


# ---- arguments of layers ----------------------------------------------------------------------------
def var(f, shape=(-1, 4), dtype="float32", name="x", **more):
    return f.data(name, list(shape), dtype, **more)


cases(
    fc_of_array=lambda f, np, d: f.layers.fc(ones(np, 2, 2), 3),
    fc_of_string=lambda f, np, d: f.layers.fc("x", 3),
    fc_of_int64=lambda f, np, d: f.layers.fc(var(f, dtype="int64"), 3),
    fc_without_size=lambda f, np, d: f.layers.fc(var(f)),
    fc_unknown_argument=lambda f, np, d: f.layers.fc(var(f), 3, activation="relu"),
    fc_param_attr_number=lambda f, np, d: f.layers.fc(var(f), 3, param_attr=3),
    fc_unknown_act=lambda f, np, d: f.layers.fc(var(f), 3, act="nothing"),
    relu_of_list=lambda f, np, d: f.layers.relu([1.0]),
    relu_of_int=lambda f, np, d: f.layers.relu(3),
    sigmoid_of_int64=lambda f, np, d: f.layers.sigmoid(var(f, dtype="int64")),
    softmax_of_int64=lambda f, np, d: f.layers.softmax(var(f, dtype="int64")),
    dropout_of_int64=lambda f, np, d: f.layers.dropout(var(f, dtype="int64"), 0.5),
    dropout_implementation=lambda f, np, d: f.layers.dropout(var(f), 0.5, dropout_implementation="other"),
    embedding_of_float=lambda f, np, d: f.layers.embedding(var(f), [10, 4]),
    embedding_size_int=lambda f, np, d: f.layers.embedding(var(f, (-1, 1), "int64"), 10),
    embedding_padding=lambda f, np, d: f.embedding(var(f, (-1, 1), "int64"), [10, 4], padding_idx=20),
    conv2d_of_array=lambda f, np, d: f.layers.conv2d(ones(np, 1, 3, 8, 8), 4, 3),
    conv2d_of_matrix=lambda f, np, d: f.layers.conv2d(var(f), 4, 3),
    conv2d_groups=lambda f, np, d: f.layers.conv2d(var(f, (-1, 3, 8, 8)), 4, 3, groups=2),
    conv2d_format=lambda f, np, d: f.layers.conv2d(var(f, (-1, 3, 8, 8)), 4, 3, data_format="HWC"),
    conv2d_use_cudnn=lambda f, np, d: f.layers.conv2d(var(f, (-1, 3, 8, 8)), 4, 3, use_cudnn="yes"),
    conv2d_padding=lambda f, np, d: f.layers.conv2d(var(f, (-1, 3, 8, 8)), 4, 3, padding="OTHER"),
    conv2d_filter_too_large=lambda f, np, d: f.layers.conv2d(var(f, (-1, 3, 2, 2)), 4, 5),
    conv2d_transpose_without_size=lambda f, np, d: f.layers.conv2d_transpose(var(f, (-1, 3, 8, 8)), 4),
    pool2d_type=lambda f, np, d: f.layers.pool2d(var(f, (-1, 3, 8, 8)), 2, "sum"),
    pool2d_size=lambda f, np, d: f.layers.pool2d(var(f, (-1, 3, 8, 8)), -1, "max"),
    pool2d_rank=lambda f, np, d: f.layers.pool2d(var(f), 2, "max"),
    batch_norm_of_array=lambda f, np, d: f.layers.batch_norm(ones(np, 2, 3)),
    batch_norm_rank=lambda f, np, d: f.layers.batch_norm(var(f, (4,))),
    layer_norm_axis=lambda f, np, d: f.layers.layer_norm(var(f), begin_norm_axis=3),
    instance_norm_rank=lambda f, np, d: f.layers.instance_norm(var(f, (4,))),
    group_norm_groups=lambda f, np, d: f.layers.group_norm(var(f, (-1, 6, 4, 4)), groups=4),
    concat_shapes=lambda f, np, d: f.layers.concat([var(f, (2, 3)), var(f, (3, 4), name="y")], axis=0),
    concat_of_one=lambda f, np, d: f.layers.concat(3),
    concat_of_numbers=lambda f, np, d: f.layers.concat([1, 2]),
    concat_axis=lambda f, np, d: f.layers.concat([var(f)], axis=5),
    split_uneven=lambda f, np, d: f.layers.split(var(f, (4, 5)), 2, dim=1),
    split_sections=lambda f, np, d: f.layers.split(var(f, (4, 5)), [2, 2], dim=1),
    split_number_float=lambda f, np, d: f.layers.split(var(f, (4, 4)), 2.0, dim=1),
    stack_shapes=lambda f, np, d: f.layers.stack([var(f, (2, 3)), var(f, (2, 4), name="y")]),
    reshape_sizes=lambda f, np, d: f.layers.reshape(var(f, (2, 3)), [4, 2]),
    reshape_two_unknown=lambda f, np, d: f.layers.reshape(var(f, (2, 3)), [-1, -1]),
    reshape_shape_int=lambda f, np, d: f.layers.reshape(var(f, (2, 3)), 6),
    reshape_zero_beyond=lambda f, np, d: f.layers.reshape(var(f, (2, 3)), [2, 3, 0]),
    transpose_perm=lambda f, np, d: f.layers.transpose(var(f, (2, 3)), [0, 1, 2]),
    transpose_perm_range=lambda f, np, d: f.layers.transpose(var(f, (2, 3)), [0, 2]),
    squeeze_axes_type=lambda f, np, d: f.layers.squeeze(var(f, (2, 1)), 1),
    unsqueeze_of_array=lambda f, np, d: f.layers.unsqueeze(ones(np, 2), [0]),
    matmul_shapes=lambda f, np, d: f.layers.matmul(var(f, (2, 3)), var(f, (4, 5), name="y")),
    matmul_dtypes=lambda f, np, d: f.layers.matmul(var(f, (2, 3)), var(f, (3, 5), "float64", name="y")),
    mul_shapes=lambda f, np, d: f.layers.mul(var(f, (2, 3)), var(f, (4, 5), name="y")),
    add_shapes=lambda f, np, d: f.layers.elementwise_add(var(f, (2, 3)), var(f, (4, 5), name="y")),
    add_of_number=lambda f, np, d: f.layers.elementwise_add(var(f), 1.0),
    add_axis=lambda f, np, d: f.layers.elementwise_add(var(f, (2, 3)), var(f, (3,), name="y"), axis=4),
    plus_string=lambda f, np, d: var(f) + "a",
    plus_none=lambda f, np, d: var(f) + None,
    reduce_sum_dim=lambda f, np, d: f.layers.reduce_sum(var(f, (2, 3)), dim=3),
    reduce_mean_of_list=lambda f, np, d: f.layers.reduce_mean([1.0, 2.0]),
    mean_of_array=lambda f, np, d: f.layers.mean(ones(np, 2)),
    argmax_of_list=lambda f, np, d: f.layers.argmax([1.0]),
    topk_k=lambda f, np, d: f.layers.topk(var(f, (2, 3)), k=5),
    cast_dtype=lambda f, np, d: f.layers.cast(var(f), "float31"),
    cast_of_array=lambda f, np, d: f.layers.cast(ones(np, 2), "int64"),
    fill_constant_dtype=lambda f, np, d: f.layers.fill_constant([1], "float31", 1.0),
    fill_constant_shape=lambda f, np, d: f.layers.fill_constant("a", "float32", 1.0),
    one_hot_of_float=lambda f, np, d: f.layers.one_hot(var(f, (-1, 1)), 4),
    gather_index_float=lambda f, np, d: f.layers.gather(var(f), var(f, (3,), name="i")),
    clip_range=lambda f, np, d: f.layers.clip(var(f), 1.0, 0.0),
    scale_of_list=lambda f, np, d: f.layers.scale([1.0], 2.0),
    slice_axes=lambda f, np, d: f.layers.slice(var(f, (2, 3)), [0, 1], [0], [1]),
    slice_axes_type=lambda f, np, d: f.layers.slice(var(f, (2, 3)), 0, [0], [1]),
    expand_times=lambda f, np, d: f.layers.expand(var(f, (2, 3)), [2]),
    pad_length=lambda f, np, d: f.layers.pad(var(f, (2, 3)), [1, 1]),
    lod_reset_nothing=lambda f, np, d: f.layers.lod_reset(var(f)),
    sequence_pool_type=lambda f, np, d: f.layers.sequence_pool(var(f, lod_level=1), "middle"),
    sequence_pool_of_array=lambda f, np, d: f.layers.sequence_pool(ones(np, 2), "sum"),
    dynamic_lstm_size=lambda f, np, d: f.layers.dynamic_lstm(var(f, lod_level=1), 7),
    dynamic_gru_size=lambda f, np, d: f.layers.dynamic_gru(var(f, lod_level=1), 3),
    image_resize_method=lambda f, np, d: f.layers.image_resize(var(f, (-1, 3, 8, 8)), [4, 4], resample="OTHER"),
    image_resize_nothing=lambda f, np, d: f.layers.image_resize(var(f, (-1, 3, 8, 8))),
    prelu_mode=lambda f, np, d: f.layers.prelu(var(f), "some"),
    maxout_groups=lambda f, np, d: f.layers.maxout(var(f, (-1, 5, 4, 4)), groups=2),
    index_too_many=lambda f, np, d: var(f, (2, 3))[0, 0, 0],
    index_float=lambda f, np, d: var(f, (2, 3))[1.5],
    item_assignment=lambda f, np, d: var(f, (2, 3)).__setitem__(0, 1.0),
    while_condition=lambda f, np, d: f.layers.While(var(f, (1,))),
    while_of_bool=lambda f, np, d: f.layers.While(True),
    cond_of_bool=lambda f, np, d: f.layers.cond(var(f, (1,)), 3, 4),
    while_loop_condition=lambda f, np, d: f.layers.while_loop(3, lambda i: i, [var(f)]),
    while_loop_vars=lambda f, np, d: f.layers.while_loop(lambda i: i, lambda i: i, var(f)),
    case_pairs=lambda f, np, d: f.layers.case([(1, 2, 3)]),
    switch_case_index=lambda f, np, d: f.layers.switch_case(var(f, (1,)), {0: lambda: 1}),
    array_write_index=lambda f, np, d: f.layers.array_write(var(f), 3),
    array_read_index=lambda f, np, d: f.layers.array_read(f.layers.create_array("float32"), 0),
    increment_of_many=lambda f, np, d: f.layers.increment(var(f, (2,))),
    data_shape_int=lambda f, np, d: f.data("q", 3),
    data_name_int=lambda f, np, d: f.data(3, [1]),
    data_dtype=lambda f, np, d: f.data("q", [1], "float31"),
    create_parameter_shape=lambda f, np, d: f.layers.create_parameter("a", "float32"),
    py_func_not_callable=lambda f, np, d: f.layers.py_func(3, var(f), var(f, name="y")),
)
# ---- losses ------------------------------------------------------------------------------------------
cases(
    cross_entropy_of_array=lambda f, np, d: f.layers.cross_entropy(ones(np, 2, 3), ones(np, 2, 1)),
    cross_entropy_ranks=lambda f, np, d: f.layers.cross_entropy(var(f, (2, 3)), var(f, (2,), "int64", "l")),
    cross_entropy_rows=lambda f, np, d: f.layers.cross_entropy(var(f, (2, 3)), var(f, (4, 1), "int64", "l")),
    square_error_of_array=lambda f, np, d: f.layers.square_error_cost(var(f), ones(np, 2, 4)),
    softmax_with_ce_list=lambda f, np, d: f.layers.softmax_with_cross_entropy([1.0], [1]),
    kldiv_reduction=lambda f, np, d: f.layers.kldiv_loss(var(f), var(f, name="t"), "most"),
    mse_of_array=lambda f, np, d: f.layers.mse_loss(ones(np, 2), ones(np, 2)),
    huber_of_list=lambda f, np, d: f.layers.huber_loss([1.0], [2.0], 1.0),
    hsigmoid_classes=lambda f, np, d: f.layers.hsigmoid(var(f), var(f, (-1, 1), "int64", "l"), 1),
    nce_sampler=lambda f, np, d: f.layers.nce(var(f), var(f, (-1, 1), "int64", "l"), 9, sampler="some"),
    center_loss_of_array=lambda f, np, d: f.layers.center_loss(ones(np, 2, 2), var(f), 2, 0.1, None),
    accuracy_of_array=lambda f, np, d: f.layers.accuracy(ones(np, 2, 2), ones(np, 2, 1)),
)


# ---- running -----------------------------------------------------------------------------------------
@case
def missing_feed(f, np, folder):
    _, y = linear(f)
    run(f, {}, y)


@case
def feed_of_unknown_name(f, np, folder):
    _, y = linear(f)
    run(f, {"z": ones(np, 3, 2)}, y)


@case
def feed_is_a_list(f, np, folder):
    _, y = linear(f)
    run(f, [ones(np, 3, 2)], y)


@case
def feed_wrong_size(f, np, folder):
    _, y = linear(f)
    run(f, {"x": ones(np, 3, 5)}, y)


@case
def feed_wrong_rank(f, np, folder):
    _, y = linear(f)
    run(f, {"x": ones(np, 3)}, y)


@case
def feed_wrong_dtype(f, np, folder):
    _, y = linear(f)
    run(f, {"x": np.array([["a", "b"]])}, y)


@case
def feed_of_objects(f, np, folder):
    _, y = linear(f)
    run(f, {"x": np.array([[1.0, None]], dtype=object)}, y)


@case
def feed_ragged_list(f, np, folder):
    _, y = linear(f)
    run(f, {"x": [[1.0, 2.0], [3.0]]}, y)


@case
def startup_forgotten(f, np, folder):
    _, y = linear(f)
    f.Executor(f.CPUPlace()).run(feed={"x": ones(np, 3, 2)}, fetch_list=[y])


@case
def fetch_unknown_name(f, np, folder):
    linear(f)
    run(f, {"x": ones(np, 3, 2)}, "nowhere")


@case
def fetch_number(f, np, folder):
    linear(f)
    run(f, {"x": ones(np, 3, 2)}, 3.0)


@case
def fetch_of_other_program(f, np, folder):
    linear(f)
    with f.program_guard(f.Program()):
        other = f.layers.fill_constant([1], "float32", 1.0)
    run(f, {"x": ones(np, 3, 2)}, other)


@case
def fetch_of_pruned(f, np, folder):
    _, y = linear(f)
    loss = f.layers.mean(y)
    test = f.default_main_program().clone(for_test=True)
    f.optimizer.SGD(0.1).minimize(loss)
    exe = ready(f)
    exe.run(test, feed={"x": ones(np, 3, 2)}, fetch_list=["fc_0.w_0@GRAD"])


@case
def run_of_nothing(f, np, folder):
    f.Executor(f.CPUPlace()).run("program")


@case
def run_of_number(f, np, folder):
    f.Executor(f.CPUPlace()).run(3)


@case
def fetch_list_string(f, np, folder):
    linear(f)
    ready(f).run(feed={"x": ones(np, 3, 2)}, fetch_list="fc")


@case
def executor_closed(f, np, folder):
    _, y = linear(f)
    exe = ready(f)
    exe.close()
    exe.run(feed={"x": ones(np, 3, 2)}, fetch_list=[y])


@case
def label_out_of_range(f, np, folder):
    loss = f.layers.cross_entropy(var(f, (-1, 3)), var(f, (-1, 1), "int64", "l"))
    run(f, {"x": ones(np, 1, 3), "l": np.array([[7]])}, loss)


@case
def softmax_label_out_of_range(f, np, folder):
    loss = f.layers.softmax_with_cross_entropy(var(f, (-1, 3)), var(f, (-1, 1), "int64", "l"))
    run(f, {"x": ones(np, 1, 3), "l": np.array([[7]])}, loss)


@case
def word_out_of_range(f, np, folder):
    run(f, {"x": np.array([[9]])}, f.layers.embedding(var(f, (-1, 1), "int64"), [5, 2]))


@case
def one_hot_out_of_range(f, np, folder):
    run(f, {"x": np.array([[9]])}, f.layers.one_hot(var(f, (-1, 1), "int64"), 5))


@case
def sequence_without_lengths(f, np, folder):
    run(f, {"x": ones(np, 3, 4)}, f.layers.sequence_pool(var(f, lod_level=1), "sum"))


@case
def sizes_that_meet_at_run_time(f, np, folder):
    y = f.layers.elementwise_add(var(f, (-1, 3)), var(f, (-1, 3), name="y"))
    run(f, {"x": ones(np, 2, 3), "y": ones(np, 4, 3)}, y)


@case
def matmul_at_run_time(f, np, folder):
    y = f.layers.matmul(var(f, (-1, -1)), var(f, (-1, -1), name="y"))
    run(f, {"x": ones(np, 2, 3), "y": ones(np, 4, 3)}, y)


@case
def reshape_at_run_time(f, np, folder):
    run(f, {"x": ones(np, 3, 4)}, f.layers.reshape(var(f), [5, -1]))


@case
def concat_at_run_time(f, np, folder):
    y = f.layers.concat([var(f, (-1, 3)), var(f, (-1, 3), name="y")], axis=1)
    run(f, {"x": ones(np, 2, 3), "y": ones(np, 4, 3)}, y)


@case
def py_func_raises(f, np, folder):
    def broken(x):
        raise KeyError("inside")

    x = var(f)
    out = f.default_main_program().current_block().create_var(name="out", dtype="float32", shape=[-1, 4])
    f.layers.py_func(broken, x, out)
    run(f, {"x": ones(np, 2, 4)}, out)


@case
def nan_found(f, np, folder):
    f.set_flags({"FLAGS_check_nan_inf": True})
    try:
        run(f, {"x": -ones(np, 2, 4)}, f.layers.log(var(f)))
    finally:
        f.set_flags({"FLAGS_check_nan_inf": False})


@case
def assert_fails(f, np, folder):
    f.layers.Assert(f.layers.fill_constant([1], "bool", False), [var(f)])
    run(f, {"x": ones(np, 2, 4)})


@case
def reader_at_its_end(f, np, folder):
    reader = f.layers.py_reader(2, [[-1, 2]], ["float32"], use_double_buffer=False)
    x = f.layers.read_file(reader)
    reader.decorate_paddle_reader(lambda: iter([[(np.ones(2, "float32"),)]]))
    exe = ready(f)
    reader.start()
    for _ in range(3):
        exe.run(fetch_list=[x])


@case
def reader_not_started(f, np, folder):
    loader = f.io.DataLoader.from_generator([var(f)], capacity=2, iterable=False)
    loader.set_batch_generator(lambda: iter([]))
    loader.reset()
    for _ in loader:
        pass


@case
def loader_without_source(f, np, folder):
    loader = f.io.DataLoader.from_generator([var(f)], capacity=2)
    for _ in loader:
        pass


@case
def compiled_without_loss_of_it(f, np, folder):
    f.CompiledProgram("program")


@case
def feeder_of_too_few_fields(f, np, folder):
    feeder = f.DataFeeder([var(f), var(f, (-1, 1), "int64", "l")], f.CPUPlace())
    feeder.feed([(np.ones(4, "float32"),)])


@case
def feeder_of_unknown_name(f, np, folder):
    f.DataFeeder(["nowhere"], f.CPUPlace())


@case
def feeder_wrong_size(f, np, folder):
    f.DataFeeder([var(f)], f.CPUPlace()).feed([(np.ones(3, "float32"),)])


cases(
    lod_of_wrong_sum=lambda f, np, d: f.create_lod_tensor(ones(np, 5, 1), [[2, 2]], f.CPUPlace()),
    lod_data_type=lambda f, np, d: f.create_lod_tensor("a", [[1]], f.CPUPlace()),
    tensor_of_list=lambda f, np, d: f.LoDTensor().set([1.0], f.CPUPlace()),
    tensor_of_string=lambda f, np, d: f.LoDTensor().set("a", f.CPUPlace()),
    tensor_empty_to_numpy=lambda f, np, d: np.array(f.LoDTensor()),
    tensor_bad_lod=lambda f, np, d: f.LoDTensor().set_lod([[2, 1]]),
    variable_as_bool=lambda f, np, d: bool(f.global_scope().find_var("nowhere").get_tensor()),
    cuda_place=lambda f, np, d: f.Executor(f.CUDAPlace(0)).run(f.default_startup_program()),
)
# ---- Programs ------------------------------------------------------------------------------------------
cases(
    unknown_variable=lambda f, np, d: f.default_main_program().global_block().var("nowhere"),
    variable_name_number=lambda f, np, d: f.default_main_program().global_block().var(3),
    program_guard_string=lambda f, np, d: f.program_guard("main").__enter__(),
    scope_guard_string=lambda f, np, d: f.scope_guard("scope").__enter__(),
    clone_for_nothing=lambda f, np, d: f.default_main_program().clone(test=True),
    parse_of_garbage=lambda f, np, d: f.Program.parse_from_string(b"garbage"),
    block_out_of_range=lambda f, np, d: f.default_main_program().block(7),
    random_seed_string=lambda f, np, d: setattr(f.default_main_program(), "random_seed", "a"),
    unknown_operator=lambda f, np, d: f.default_main_program().global_block().append_op(type="nothing"),
    unknown_attribute=lambda f, np, d: linear(f)[1].op.attr("nothing"),
    unknown_slot=lambda f, np, d: linear(f)[1].op.input("Nothing"),
    name_scope_number=lambda f, np, d: f.name_scope(3).__enter__(),
    device_guard_other=lambda f, np, d: f.device_guard("tpu").__enter__(),
    unknown_flag=lambda f, np, d: f.set_flags({"FLAGS_nothing": 1}),
    get_flags_number=lambda f, np, d: f.get_flags(3),
    require_version_number=lambda f, np, d: f.require_version(3),
    require_later_version=lambda f, np, d: f.require_version("9.9.9"),
    to_string_number=lambda f, np, d: f.default_main_program().to_string(1),
    param_attr_name=lambda f, np, d: f.ParamAttr(name=3),
    param_attr_trainable=lambda f, np, d: f.layers.fc(var(f), 1, param_attr=f.ParamAttr(initializer=3)),
    initializer_value=lambda f, np, d: f.initializer.Constant(None),
    numpy_initializer_list=lambda f, np, d: f.initializer.NumpyArrayInitializer([1.0]),
    shared_name_other_shape=lambda f, np, d: [f.layers.fc(var(f, (-1, n), name=str(n)), 1, param_attr="w") for n in (2, 3)],
)


# ---- training -------------------------------------------------------------------------------------------
cases(
    minimize_of_number=lambda f, np, d: f.optimizer.SGD(0.1).minimize(3.0),
    minimize_of_string=lambda f, np, d: f.optimizer.SGD(0.1).minimize("loss"),
    minimize_of_vector=lambda f, np, d: f.optimizer.SGD(0.1).minimize(linear(f)[1]),
    minimize_without_parameters=lambda f, np, d: f.optimizer.SGD(0.1).minimize(f.layers.mean(var(f))),
    learning_rate_none=lambda f, np, d: f.optimizer.SGD(None),
    learning_rate_string=lambda f, np, d: f.optimizer.SGD("0.1").minimize(f.layers.mean(linear(f)[1])),
    momentum_missing=lambda f, np, d: f.optimizer.Momentum(0.1),
    adam_unknown_argument=lambda f, np, d: f.optimizer.Adam(0.1, beta=0.9),
    regularization_number=lambda f, np, d: f.optimizer.SGD(0.1, regularization=0.1).minimize(f.layers.mean(linear(f)[1])),
    grad_clip_number=lambda f, np, d: f.optimizer.SGD(0.1, grad_clip=1.0),
    clip_by_value_negative=lambda f, np, d: f.clip.GradientClipByValue(-1.0),
    set_gradient_clip_number=lambda f, np, d: f.clip.set_gradient_clip(1.0),
    append_backward_number=lambda f, np, d: f.backward.append_backward(3),
    gradients_of_number=lambda f, np, d: f.gradients(3, 4),
    gradients_of_unrelated=lambda f, np, d: f.gradients(linear(f)[1], 3),
    parameter_list_numbers=lambda f, np, d: f.optimizer.SGD(0.1).minimize(f.layers.mean(linear(f)[1]), None, [3]),
    l2_none=lambda f, np, d: f.regularizer.L2Decay("a"),
    adagrad_none=lambda f, np, d: f.optimizer.Adagrad(0.1, epsilon=None),
    ema_without_update=lambda f, np, d: f.optimizer.ExponentialMovingAverage("a"),
    recompute_without_checkpoints=lambda f, np, d: f.optimizer.RecomputeOptimizer(f.optimizer.SGD(0.1)).minimize(
        f.layers.mean(linear(f)[1])
    ),
    lookahead_none=lambda f, np, d: f.optimizer.LookaheadOptimizer(None),
    lookahead_alpha=lambda f, np, d: f.optimizer.LookaheadOptimizer(f.optimizer.SGD(0.1), alpha=2.0),
    piecewise_lengths=lambda f, np, d: f.layers.piecewise_decay([1, 2], [0.1]),
    noam_of_strings=lambda f, np, d: f.layers.noam_decay("a", "b"),
    cosine_of_none=lambda f, np, d: f.layers.cosine_decay(None, 1, 1),
    warmup_rate_string=lambda f, np, d: f.layers.linear_lr_warmup("a", 1, 0.0, 0.1),
)
# ---- files ------------------------------------------------------------------------------------------------
cases(
    load_inference_model_missing=lambda f, np, d: f.io.load_inference_model(d + "/no", ready(f)),
    load_inference_model_no_file=lambda f, np, d: f.io.load_inference_model(d, ready(f)),
    load_persistables_missing=lambda f, np, d: (linear(f), f.io.load_persistables(ready(f), d + "/no")),
    load_params_missing=lambda f, np, d: (linear(f), f.io.load_params(ready(f), d)),
    load_combined_missing=lambda f, np, d: (linear(f), f.io.load_persistables(ready(f), d, filename="all")),
    load_missing=lambda f, np, d: f.load(f.default_main_program(), d + "/no"),
    load_of_string=lambda f, np, d: f.load("program", d + "/no"),
    load_state_missing=lambda f, np, d: f.load_program_state(d + "/no"),
    load_dygraph_missing=lambda f, np, d: f.load_dygraph(d + "/no"),
    save_nothing=lambda f, np, d: f.save(f.default_main_program(), d + "/"),
    save_params_no_directory=lambda f, np, d: (linear(f), f.io.save_params(ready(f), None)),
    save_inference_model_feeds=lambda f, np, d: f.io.save_inference_model(d, 3, [linear(f)[1]], ready(f)),
    save_inference_model_targets=lambda f, np, d: (linear(f), f.io.save_inference_model(d, ["x"], ["y"], ready(f))),
    save_inference_model_feed_name=lambda f, np, d: f.io.save_inference_model(d, ["q"], [linear(f)[1]], ready(f)),
    load_vars_program=lambda f, np, d: f.io.load_vars(ready(f), d, main_program="program"),
    predictor_missing=lambda f, np, d: f.core.create_paddle_predictor(f.core.AnalysisConfig(d + "/no")),
    dataset_kind=lambda f, np, d: f.DatasetFactory().create_dataset("OtherDataset"),
    dataset_variable=lambda f, np, d: f.DatasetFactory().create_dataset().set_use_var([var(f, dtype="float64")]),
    train_from_nothing=lambda f, np, d: ready(f).train_from_dataset(f.default_main_program(), None),
)


@case
def load_of_truncated(f, np, folder):
    linear(f)
    exe = ready(f)
    f.io.save_params(exe, folder)
    with open(folder + "/fc_0.w_0", "wb") as out:
        out.write(b"\1\2\3")
    f.io.load_params(exe, folder)


@case
def load_of_other_shape(f, np, folder):
    linear(f)
    exe = ready(f)
    f.io.save_params(exe, folder)
    other = f.Program()
    with f.program_guard(other, f.Program()), f.unique_name.guard():
        f.layers.fc(f.data("x", [None, 3]), 1)
    f.io.load_params(exe, folder, main_program=other)


# ---- the eager mode -----------------------------------------------------------------------------------------
def eager(function):
    def inside(f, np, folder):
        with f.dygraph.guard(f.CPUPlace()):
            return function(f, f.dygraph, np, folder)

    return inside


def value(g, np, *shape):
    return g.to_variable(ones(np, *shape))


def trained(f, g, np, **more):
    layer = g.Linear(2, 1)
    loss = f.layers.mean(layer(value(g, np, 3, 2)))
    loss.backward()
    return layer, loss


cases(
    eager_outside_of_guard=lambda f, np, d: f.dygraph.to_variable(ones(np, 2)),
    layer_outside_of_guard=lambda f, np, d: f.dygraph.Linear(2, 1)(ones(np, 2, 2)),
    numpy_of_static=lambda f, np, d: var(f).numpy(),
    backward_of_static=lambda f, np, d: var(f).backward(),
    to_variable_string=eager(lambda f, g, np, d: g.to_variable("a")),
    to_variable_number=eager(lambda f, g, np, d: g.to_variable(3.0)),
    to_variable_list=eager(lambda f, g, np, d: g.to_variable([1.0, 2.0])),
    eager_static_layer=eager(lambda f, g, np, d: f.layers.fc(value(g, np, 2, 2), 3)),
    eager_embedding_layer=eager(lambda f, g, np, d: f.layers.embedding(g.to_variable(np.array([[1]])), [3, 2])),
    eager_data=eager(lambda f, g, np, d: f.data("x", [1])),
    eager_add_shapes=eager(lambda f, g, np, d: value(g, np, 2, 3) + value(g, np, 4, 5)),
    eager_matmul_shapes=eager(lambda f, g, np, d: f.layers.matmul(value(g, np, 2, 3), value(g, np, 4, 5))),
    eager_reshape=eager(lambda f, g, np, d: f.layers.reshape(value(g, np, 2, 3), [4, 2])),
    eager_linear_size=eager(lambda f, g, np, d: g.Linear(2, 1)(value(g, np, 3, 5))),
    eager_linear_of_array=eager(lambda f, g, np, d: g.Linear(2, 1)(ones(np, 3, 2))),
    eager_conv_groups=eager(lambda f, g, np, d: g.Conv2D(3, 4, 3, groups=2)),
    eager_conv_channels=eager(lambda f, g, np, d: g.Conv2D(3, 4, 3)(value(g, np, 1, 2, 8, 8))),
    eager_pool_type=eager(lambda f, g, np, d: g.Pool2D(2, "sum")),
    eager_embedding_range=eager(lambda f, g, np, d: g.Embedding([5, 2])(g.to_variable(np.array([[9]])))),
    eager_embedding_float=eager(lambda f, g, np, d: g.Embedding([5, 2])(value(g, np, 2, 1))),
    eager_forward_missing=eager(lambda f, g, np, d: g.Layer()(value(g, np, 1))),
    eager_optimizer_without_parameters=eager(lambda f, g, np, d: f.optimizer.SGD(0.1).minimize(trained(f, g, np)[1])),
    eager_optimizer_parameters=eager(
        lambda f, g, np, d: f.optimizer.SGD(0.1, parameter_list=[3]).minimize(trained(f, g, np)[1])
    ),
    eager_minimize_of_array=eager(
        lambda f, g, np, d: f.optimizer.SGD(0.1, parameter_list=trained(f, g, np)[0].parameters()).minimize(3.0)
    ),
    eager_set_dict_wrong=eager(lambda f, g, np, d: g.Linear(2, 1).set_dict({"weight": ones(np, 3, 1), "bias": ones(np, 1)})),
    eager_set_dict_of_list=eager(lambda f, g, np, d: g.Linear(2, 1).set_dict([1])),
    eager_set_value_shape=eager(lambda f, g, np, d: g.Linear(2, 1).weight.set_value(ones(np, 3, 3))),
    eager_set_value_list=eager(lambda f, g, np, d: g.Linear(2, 1).weight.set_value("a")),
    eager_sublayer_number=eager(lambda f, g, np, d: g.Layer().add_sublayer("a", 3)),
    eager_parameter_number=eager(lambda f, g, np, d: g.Layer().add_parameter("a", 3)),
    eager_sequential_number=eager(lambda f, g, np, d: g.Sequential(3)),
    eager_layer_list_index=eager(lambda f, g, np, d: g.LayerList([g.Linear(2, 1)])[3]),
    eager_layer_list_number=eager(lambda f, g, np, d: g.LayerList([3])),
    eager_parameter_list_number=eager(lambda f, g, np, d: g.ParameterList([3])),
    eager_attribute=eager(lambda f, g, np, d: g.Linear(2, 1).nothing),
    eager_before_init=eager(lambda f, g, np, d: type("Late", (g.Layer,), {"__init__": late})(g)),
    eager_bool_of_many=eager(lambda f, g, np, d: bool(value(g, np, 2))),
    eager_float_of_many=eager(lambda f, g, np, d: float(value(g, np, 2))),
    eager_int_of_many=eager(lambda f, g, np, d: int(value(g, np, 2))),
    eager_index=eager(lambda f, g, np, d: value(g, np, 2)[0, 0, 0]),
    eager_index_range=eager(lambda f, g, np, d: value(g, np, 2)[5]),
    eager_gradient_of_data=eager(lambda f, g, np, d: value(g, np, 2).gradient().shape),
    eager_grad_of_number=eager(lambda f, g, np, d: g.grad(3, 4)),
    eager_grad_unrelated=eager(lambda f, g, np, d: g.grad(trained(f, g, np)[1], value(g, np, 2))),
    eager_save_nothing=eager(lambda f, g, np, d: f.save_dygraph({}, d + "/a")),
    eager_save_no_name=eager(lambda f, g, np, d: f.save_dygraph(g.Linear(2, 1).state_dict(), d + "/")),
    eager_load_missing=eager(lambda f, g, np, d: f.load_dygraph(d + "/no")),
    eager_rate_rank=eager(lambda f, g, np, d: g.PiecewiseDecay([1], [0.1], 0)()),
    eager_noam=eager(lambda f, g, np, d: g.NoamDecay("a", 1)()),
    eager_step_decay=eager(lambda f, g, np, d: g.StepDecay(0.5, step_size="a")),
    eager_lambda_decay=eager(lambda f, g, np, d: g.LambdaDecay(0.5, 3)),
    eager_plateau=eager(lambda f, g, np, d: g.ReduceLROnPlateau(0.5, mode="mid")),
    eager_set_lr=eager(lambda f, g, np, d: f.optimizer.SGD(0.1, parameter_list=g.Linear(2, 1).parameters()).set_lr("a")),
    eager_set_opt_state=eager(
        lambda f, g, np, d: f.optimizer.Adam(0.1, parameter_list=g.Linear(2, 1).parameters()).set_dict(3)
    ),
    traced_of_function=eager(lambda f, g, np, d: g.TracedLayer.trace(3, [value(g, np, 2)])),
    declarative_static_call=lambda f, np, d: f.dygraph.declarative(3),
    hook_not_callable=eager(lambda f, g, np, d: g.Linear(2, 1).register_forward_pre_hook(3)(value(g, np, 1, 2))),
    no_grad_of_number=lambda f, np, d: f.dygraph.no_grad(3)(),
)


def late(self, g):
    self.layer = g.Linear(2, 1)
