"""fluid.layers: losses and measures

Most losses give a value for each sample; take their mean to train.
"""
# ruff: noqa
#: setup
one = fluid.initializer.Constant(1.0)
#: layers.cross_entropy
p = data([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
show(layers.cross_entropy(p, data([[0], [1]])))  # -log of the label's probability
show(layers.cross_entropy(p, p, soft_label=True))
#: layers.softmax_with_cross_entropy
logits = data([[0.0, 0.0, 1.0986123]])
loss, p = layers.softmax_with_cross_entropy(logits, data([[2]]), return_softmax=True)
show(loss, p)
#: layers.sigmoid_cross_entropy_with_logits
x, label = data([[0.0, 2.0]]), data([[1.0, 0.0]])
show(layers.sigmoid_cross_entropy_with_logits(x, label))
#: layers.square_error_cost
show(layers.square_error_cost(data([[1.0], [4.0]]), data([[2.0], [2.0]])))
#: layers.smooth_l1
x, y = data([[0.0, 0.0]]), data([[0.5, 3.0]])
show(layers.smooth_l1(x, y))
#: layers.log_loss
show(layers.log_loss(data([[0.8]]), data([[1.0]])))
#: layers.bpr_loss
p = data([[2.0, 1.0, 0.0]])
show(layers.bpr_loss(p, data([[0]])))
#: layers.label_smooth
label = data([[1.0, 0.0, 0.0, 0.0]])
show(layers.label_smooth(label, epsilon=0.2))
#: layers.sigmoid_focal_loss
x = data([[0.0, 2.0]])
label, positives = data([[1]], dtype="int32"), data([1], dtype="int32")
show(layers.sigmoid_focal_loss(x, label, positives, gamma=2.0, alpha=0.25))
#: layers.nce
x = data([[1.0, 2.0]])
loss = layers.nce(x, data([[3]]), num_total_classes=10, num_neg_samples=4, param_attr=fluid.initializer.Constant(0.0))
show(loss)  # log-uniform probabilities aside, every score is 0
#: layers.hsigmoid
x = data([[1.0, 2.0]])
show(layers.hsigmoid(x, data([[2]]), num_classes=4, param_attr=fluid.initializer.Constant(0.0)))  # 2 log 2: two decisions
#: layers.sampled_softmax_with_cross_entropy
logits = data(np.zeros((1, 50)))
loss = layers.sampled_softmax_with_cross_entropy(logits, data([[7]]), num_samples=5)
show(layers.shape(loss))
#: layers.linear_chain_crf, layers.crf_decoding
scores = data([[5.0, 0.0], [0.0, 5.0], [5.0, 0.0]], lengths=[[3]])
label = data([[0], [1], [0]], lengths=[[3]])
attr = fluid.ParamAttr(name="transition", initializer=fluid.initializer.Constant(0.0))
cost = layers.linear_chain_crf(scores, label, param_attr=attr)
path = layers.crf_decoding(scores, param_attr=attr)
show(cost, path)
#: layers.chunk_eval
# IOB tags of one chunk type: 0 begins, 1 continues, 2 is outside
found = data([[0], [1], [2], [0]], lengths=[[4]])
label = data([[0], [1], [2], [2]], lengths=[[4]])
precision, recall, f1, n_found, n_label, n_correct = layers.chunk_eval(found, label, "IOB", num_chunk_types=1)
show(precision, recall, f1, n_found, n_label, n_correct)
#: layers.warpctc
logits = data(np.zeros((3, 3)), lengths=[[3]])
label = data([[1], [2]], lengths=[[2]], dtype="int32")
show(layers.warpctc(logits, label, blank=0))  # 5 of 27 paths give 1 2: -log(5 / 27)
#: layers.ctc_greedy_decoder
p = data([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], lengths=[[4]])
show(layers.ctc_greedy_decoder(p, blank=0))
#: layers.mean_iou
found, label = data([0, 1, 1, 2]), data([0, 1, 2, 2])
iou, wrong, correct = layers.mean_iou(layers.cast(found, "int32"), layers.cast(label, "int32"), num_classes=3)
show(iou, wrong, correct)
#: layers.accuracy
p = data([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
show(layers.accuracy(p, data([[1], [1], [1]])))
#: layers.auc
p = data([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9]])
total, batch, states = layers.auc(p, data([[0], [1], [1], [1]]))
show(total)
#: layers.detection.detection_map
found = data([[0.0, 0.9, 0.1, 0.1, 0.4, 0.4], [0.0, 0.8, 0.6, 0.6, 0.9, 0.9]], lengths=[[2]])
truth = data([[0.0, 0.1, 0.1, 0.4, 0.4], [0.0, 0.0, 0.0, 0.2, 0.2]], lengths=[[2]])
show(layers.detection.detection_map(found, truth, class_num=1, background_label=-1, overlap_threshold=0.5))
#: layers.huber_loss
show(layers.huber_loss(data([[0.0], [0.0]]), data([[0.5], [3.0]]), delta=1.0))
#: layers.kldiv_loss
show(layers.kldiv_loss(data([[-1.0, -2.0]]), data([[0.4, 0.6]]), reduction="sum"))
#: layers.rank_loss
show(layers.rank_loss(data([[1.0]]), data([[2.0]]), data([[0.5]])))
#: layers.margin_rank_loss
show(layers.margin_rank_loss(data([[1.0]]), data([[2.0]]), data([[1.5]]), margin=0.1))
#: layers.mse_loss
show(layers.mse_loss(data([[1.0], [4.0]]), data([[2.0], [2.0]])))
#: layers.dice_loss
show(layers.dice_loss(data([[0.9, 0.1]]), data([[0]])))
#: layers.npair_loss
show(layers.npair_loss(data([[1.0, 0.0], [0.0, 1.0]]), data([[1.0, 0.0], [0.0, 1.0]]), data([0.0, 1.0])))
#: layers.center_loss
loss = layers.center_loss(data([[1.0, 2.0]]), data([[0]]), num_classes=2, alpha=0.1, param_attr=fluid.initializer.Constant(0.0))
show(loss)
#: layers.teacher_student_sigmoid_loss
show(layers.teacher_student_sigmoid_loss(data([[0.0]]), data([[1.5]])))
#: layers.loss.cross_entropy2
p = data([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
show(layers.loss.cross_entropy2(p, data([[0], [1]])))
