"""Knowledge distillation: a fixed teacher's softened scores and a hint layer teach a smaller student (Hinton et al., 2015;
Romero et al., 2014)."""

from program_model import Model, repeat

BATCH, SIZE, CLASSES, TEMPERATURE = 4, 16, 6, 2.0


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "label": rng.randint(0, CLASSES, (BATCH, 1)).astype("int64"),
    }


def conv_bn(fluid, x, width, stride, name, is_test=False):
    conv = fluid.layers.conv2d(
        x, width, 3, stride=stride, padding=1, bias_attr=False, param_attr=fluid.ParamAttr(name=name + "_weights")
    )
    return fluid.layers.batch_norm(
        conv,
        act="relu",
        is_test=is_test,
        param_attr=fluid.ParamAttr(name=name + "_scale"),
        bias_attr=fluid.ParamAttr(name=name + "_offset"),
        moving_mean_name=name + "_mean",
        moving_variance_name=name + "_variance",
    )


def net(fluid, image, widths, prefix, is_test=False):
    """(scores, the last feature map)."""
    x = image
    for i, width in enumerate(widths):
        x = conv_bn(fluid, x, width, 2 if i else 1, "%s_conv%d" % (prefix, i), is_test)
    pool = fluid.layers.pool2d(x, pool_type="avg", global_pooling=True)
    return fluid.layers.fc(
        pool, CLASSES, param_attr=fluid.ParamAttr(name=prefix + "_fc_w"), bias_attr=prefix + "_fc_b"
    ), x


def build(fluid):
    layers = fluid.layers
    image = layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    label = layers.data(name="label", shape=[1], dtype="int64")
    with fluid.name_scope("teacher"):
        teacher, teacher_map = net(fluid, image, (8, 12, 12), "teacher", is_test=True)
        for variable in (teacher, teacher_map):
            variable.stop_gradient = True
    student, student_map = net(fluid, image, (4, 6, 8), "student")

    hard = layers.mean(layers.softmax_with_cross_entropy(student, label))
    soft_label = layers.softmax(teacher / TEMPERATURE)
    soft_label.stop_gradient = True
    student_soft = layers.softmax(student / TEMPERATURE)
    soft = layers.reduce_mean(layers.cross_entropy(student_soft, soft_label, soft_label=True))
    hint = layers.conv2d(
        student_map, teacher_map.shape[1], 1, param_attr=fluid.ParamAttr(name="hint_w"), bias_attr=False
    )
    l2 = layers.reduce_mean(layers.square(hint - teacher_map))

    def flow(first, second):
        """The matrix of products between two layers' channels (Yim et al., 2017)."""
        return layers.fsp_matrix(first, second)

    fsp = layers.reduce_mean(layers.square(flow(hint, hint) - flow(teacher_map, teacher_map)))
    loss = hard + TEMPERATURE**2 * soft + 0.5 * l2 + 0.1 * fsp

    def train():
        learned = [p.name for p in fluid.default_main_program().all_parameters() if not p.name.startswith("teacher")]
        fluid.optimizer.Momentum(
            learning_rate=0.02, momentum=0.9, regularization=fluid.regularizer.L2Decay(4e-5)
        ).minimize(loss, parameter_list=learned)

    return Model(loss, repeat(data, 5), [hard, soft, l2, fsp], train)
