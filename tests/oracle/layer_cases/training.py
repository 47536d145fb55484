"""What append_backward and the optimizers add to a program."""

NET = "h = L.fc(x, 5, act='relu'); p = L.fc(h, 1); out = L.mean(L.square_error_cost(p, y1))\n"
EMB = "e = L.embedding(ids, [10, 4], is_sparse=True, param_attr=fluid.ParamAttr(name='emb')); f = L.embedding(label, [10, 4], is_sparse=True, param_attr=fluid.ParamAttr(name='emb')); out = L.mean(L.fc([e, f], 1))\n"
OPT = "fluid.optimizer."

TAILS = {
    "sgd": OPT + "SGD(0.1).minimize(out)",
    "sgd_var_lr": OPT + "SGD(L.exponential_decay(0.1, 10, 0.9)).minimize(out)",
    "sgd_named": OPT + "SGD(0.1, name='opt').minimize(out)",
    "momentum": OPT + "Momentum(0.1, 0.9, use_nesterov=True).minimize(out)",
    "momentum_l2": OPT + "Momentum(0.1, 0.9, regularization=fluid.regularizer.L2Decay(1e-3)).minimize(out)",
    "sgd_l1": OPT + "SGD(0.1, regularization=fluid.regularizer.L1Decay(1e-3)).minimize(out)",
    "adam": OPT + "Adam(0.1).minimize(out)",
    "adam_lazy": OPT + "Adam(0.1, lazy_mode=True).minimize(out)",
    "adagrad": OPT + "Adagrad(0.1).minimize(out)",
    "adagrad_init": OPT + "Adagrad(0.1, initial_accumulator_value=0.1).minimize(out)",
    "adamax": OPT + "Adamax(0.1).minimize(out)",
    "adadelta": OPT + "Adadelta(0.1).minimize(out)",
    "rmsprop": OPT + "RMSProp(0.1, momentum=0.5, centered=True).minimize(out)",
    "ftrl": OPT + "Ftrl(0.1, l1=0.01, l2=0.01).minimize(out)",
    "decayed_adagrad": OPT + "DecayedAdagrad(0.1).minimize(out)",
    "dpsgd": OPT + "Dpsgd(0.1).minimize(out)",
    "lars": OPT + "LarsMomentum(0.1, 0.9).minimize(out)",
    "lamb": OPT + "Lamb(0.1, exclude_from_weight_decay_fn=lambda p: p.name.endswith('b_0')).minimize(out)",
    "dgc": OPT + "DGCMomentumOptimizer(0.1, 0.9, 1).minimize(out)",
    "clip_value": OPT + "SGD(0.1, grad_clip=fluid.clip.GradientClipByValue(1.0)).minimize(out)",
    "clip_norm": OPT + "SGD(0.1, grad_clip=fluid.clip.GradientClipByNorm(1.0)).minimize(out)",
    "clip_global": OPT + "SGD(0.1, grad_clip=fluid.clip.GradientClipByGlobalNorm(1.0)).minimize(out)",
    "set_clip": "fluid.clip.set_gradient_clip(fluid.clip.GradientClipByGlobalNorm(1.0))\n" + OPT + "SGD(0.1).minimize(out)",
    "model_average": OPT
    + "SGD(0.1).minimize(out)\nma = "
    + OPT
    + "ModelAverage(0.15, min_average_window=2, max_average_window=4)",
    "ema": OPT + "SGD(0.1).minimize(out)\nema = " + OPT + "ExponentialMovingAverage(0.9)\nema.update()",
    "ema_thres": OPT
    + "SGD(0.1).minimize(out)\nema = "
    + OPT
    + "ExponentialMovingAverage(0.9, thres_steps=L.autoincreased_step_counter())\nema.update()",
    "lookahead": OPT + "LookaheadOptimizer(" + OPT + "SGD(0.1), 0.5, 3).minimize(out)",
    "recompute": "o = " + OPT + "RecomputeOptimizer(" + OPT + "SGD(0.1))\no._set_checkpoints([h])\no.minimize(out)",
    "no_grad_set": OPT + "SGD(0.1).minimize(out, no_grad_set={'fc_0.w_0'})",
    "parameter_list": OPT + "SGD(0.1).minimize(out, parameter_list=['fc_1.w_0'])",
    "backward": "pg = fluid.backward.append_backward(out)\nout = [v for t in pg for v in t]",
    "backward_apply": "o = " + OPT + "SGD(0.1)\npg = o.backward(out)\no.apply_gradients(pg)",
    "gradients": "out = fluid.gradients([out], [h])",
    "calc_gradient": "out = fluid.backward.calc_gradient(out, [h])",
    "gradients_twice": "g = fluid.gradients(out, h)[0]\nout = fluid.gradients(L.mean(L.square(g)), h)",
    "two_minimize": OPT + "Adam(0.1).minimize(out)\n" + OPT + "SGD(0.1).minimize(L.scale(out, 2.0))",
    "clone_test": "c = fluid.default_main_program().clone(for_test=True)\n" + OPT + "SGD(0.1).minimize(out)",
    "amp": "fluid.contrib.mixed_precision.decorate(" + OPT + "SGD(0.1)).minimize(out)",
    "quantized_lr_scale": OPT + "SGD(0.1).minimize(L.scale(out, 0.5))",
}

EXTRA = {
    "grad_sum": "h = L.fc(x, 4); out = L.mean(L.elementwise_add(L.elementwise_mul(h, h), L.relu(h)))\n"
    + OPT
    + "SGD(0.1).minimize(out)",
    "grad_sum3": "h = L.fc(x, 4); out = L.mean(L.sums([L.tanh(h), L.relu(h), L.sigmoid(h)]))\n"
    + OPT
    + "SGD(0.1).minimize(out)",
    "stop_gradient": "h = L.fc(x, 4); g = L.fc(h, 4); g.stop_gradient = True; out = L.mean(L.elementwise_add(h, g))\n"
    + OPT
    + "SGD(0.1).minimize(out)",
    "shared_weight": "a = L.fc(x, 4, param_attr='w', bias_attr=False); b = L.fc(a, 4, param_attr='w', bias_attr=False); out = L.mean(b)\n"
    + OPT
    + "SGD(0.1).minimize(out)",
    "per_param_lr": "h = L.fc(x, 4, param_attr=fluid.ParamAttr(learning_rate=0.5)); out = L.mean(h)\n"
    + OPT
    + "SGD(0.1).minimize(out)",
    "per_param_reg": "h = L.fc(x, 4, param_attr=fluid.ParamAttr(regularizer=fluid.regularizer.L1Decay(0.1)), bias_attr=fluid.ParamAttr(trainable=False)); out = L.mean(h)\n"
    + OPT
    + "SGD(0.1, regularization=fluid.regularizer.L2Decay(0.2)).minimize(out)",
    "per_param_clip": "h = L.fc(x, 4); out = L.mean(h)\nfluid.clip.set_gradient_clip(fluid.clip.GradientClipByNorm(1.0), param_list=['fc_0.w_0'])\n"
    + OPT
    + "SGD(0.1).minimize(out)",
    "per_param_do_avg": "h = L.fc(x, 4, bias_attr=fluid.ParamAttr(do_model_average=False)); out = L.mean(h)\n"
    + OPT
    + "SGD(0.1).minimize(out)\nma = "
    + OPT
    + "ModelAverage(0.15)",
    "bn_dropout": "h = L.dropout(L.batch_norm(L.conv2d(img, 4, 3, bias_attr=False), act='relu'), 0.5); out = L.mean(h)\n"
    + OPT
    + "Momentum(0.1, 0.9).minimize(out)",
    "softmax_ce": "p = L.fc(x, 3, act='softmax'); out = L.mean(L.cross_entropy(p, label)); acc = L.accuracy(p, label)\n"
    + OPT
    + "Adam(0.1).minimize(out)",
    "sparse_sgd": EMB + OPT + "SGD(0.1).minimize(out)",
    "sparse_adam_clip": EMB
    + OPT
    + "Adam(0.1, grad_clip=fluid.clip.GradientClipByGlobalNorm(1.0), regularization=fluid.regularizer.L2Decay(0.1)).minimize(out)",
    "sparse_adagrad": EMB + OPT + "Adagrad(0.1).minimize(out)",
    "layer_norm_grad": "out = L.mean(L.layer_norm(L.fc(x, 4)))\n" + OPT + "SGD(0.1).minimize(out)",
    "reshape_grad": "out = L.mean(L.transpose(L.reshape(L.fc(x, 4), [-1, 2, 2]), [0, 2, 1]))\n"
    + OPT
    + "SGD(0.1).minimize(out)",
    "concat_split_grad": "a, b = L.split(L.fc(x, 4), 2, dim=1); out = L.mean(L.concat([b, a], axis=1))\n"
    + OPT
    + "SGD(0.1).minimize(out)",
    "split_partial_grad": "a, b = L.split(L.fc(x, 4), 2, dim=1); out = L.mean(a)\n" + OPT + "SGD(0.1).minimize(out)",
    "topk_partial_grad": "v, i = L.topk(L.fc(x, 4), 2); out = L.mean(v)\n" + OPT + "SGD(0.1).minimize(out)",
    "lstm_grad": "h, c = L.dynamic_lstm(L.fc(seq, 12), 12); out = L.mean(L.sequence_pool(h, 'max'))\n"
    + OPT
    + "SGD(0.1).minimize(out)",
    "gru_grad": "h = L.dynamic_gru(L.fc(seq, 12), 4); out = L.mean(L.sequence_last_step(h))\n"
    + OPT
    + "SGD(0.1).minimize(out)",
    "crf_grad": "f = L.fc(seq, 4); c = L.linear_chain_crf(f, wseq, param_attr=fluid.ParamAttr(name='crfw', learning_rate=0.1)); out = L.mean(c)\n"
    + OPT
    + "SGD(0.1).minimize(out)",
    "auc_grad": "p = L.fc(x, 2, act='softmax'); a, b, st = L.auc(p, label); out = L.mean(L.cross_entropy(p, label))\n"
    + OPT
    + "SGD(0.1).minimize(out)",
    "nce_grad": "out = L.mean(L.nce(L.fc(x, 4), label, 20, num_neg_samples=3))\n" + OPT + "SGD(0.1).minimize(out)",
    "while_grad": """i = L.fill_constant([1], 'int64', 0)
n = L.fill_constant([1], 'int64', 3)
h0 = L.fc(x, 4)
arr = L.array_write(h0, i)
cond = L.less_than(i, n)
w = L.While(cond)
with w.block():
    prev = L.array_read(arr, i)
    nxt = L.fc(prev, 4, param_attr='w', bias_attr=False)
    L.increment(i, in_place=True)
    L.array_write(nxt, i, array=arr)
    L.less_than(i, n, cond=cond)
out = L.mean(L.array_read(arr, i))
fluid.optimizer.SGD(0.1).minimize(out)""",
}

CASES = "\n".join(
    ["--- min_%s\n%s%s" % (k, NET, v) for k, v in TAILS.items()] + ["--- bwd_%s\n%s" % kv for kv in EXTRA.items()]
)
