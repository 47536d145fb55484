"""Every optimizer and every learning-rate object on one small imperative net."""

from dygraph_model import DygraphModel
from program_model import repeat
from programs.dygraph.nets import regress, vector_data


def optimizers(fluid):
    o = fluid.optimizer if fluid else None
    return {
        "sgd": lambda p: o.SGD(0.1, parameter_list=p),
        "momentum": lambda p: o.Momentum(0.05, 0.9, parameter_list=p, use_nesterov=True),
        "adam": lambda p: o.Adam(0.01, parameter_list=p),
        "adagrad": lambda p: o.Adagrad(0.05, parameter_list=p),
        "rmsprop": lambda p: o.RMSProp(0.01, centered=True, momentum=0.3, epsilon=1e-4, parameter_list=p),
        "adamax": lambda p: o.Adamax(0.02, parameter_list=p),
        "adadelta": lambda p: o.Adadelta(0.5, parameter_list=p),
        "ftrl": lambda p: o.Ftrl(0.05, l1=0.01, l2=0.01, parameter_list=p),
        "decayed_adagrad": lambda p: o.DecayedAdagrad(0.02, parameter_list=p),
        "lars": lambda p: o.LarsMomentum(0.5, 0.9, lars_coeff=0.01, parameter_list=p),
        "lamb": lambda p: o.Lamb(0.02, parameter_list=p),
        "clip_value_l1": lambda p: o.SGD(
            0.1,
            parameter_list=p,
            grad_clip=fluid.clip.GradientClipByValue(0.1),
            regularization=fluid.regularizer.L1Decay(0.01),
        ),
    }


def schedules(fluid):
    d = fluid.dygraph if fluid else None
    return {
        "noam": lambda: d.NoamDecay(16, 5),
        "piecewise": lambda: d.PiecewiseDecay([4, 10], [0.1, 0.05, 0.01], 0),
        "cosine": lambda: d.CosineDecay(0.1, 4, 5),
        "exponential": lambda: d.ExponentialDecay(0.1, 5, 0.6),
        "exponential_staircase": lambda: d.ExponentialDecay(0.1, 5, 0.6, staircase=True),
        "natural_exp": lambda: d.NaturalExpDecay(0.1, 5, 0.6),
        "inverse_time": lambda: d.InverseTimeDecay(0.1, 5, 0.6),
        "polynomial": lambda: d.PolynomialDecay(0.1, 6, 0.01, power=2.0, cycle=True),
        "warmup": lambda: d.LinearLrWarmup(d.ExponentialDecay(0.1, 5, 0.6), 6, 0.01, 0.1),
        "warmup_number": lambda: d.LinearLrWarmup(0.1, 6, 0.01, 0.1),
        "step": lambda: d.StepDecay(0.1, step_size=2),
        "multi_step": lambda: d.MultiStepDecay(0.1, milestones=[2, 4]),
        "lambda": lambda: d.LambdaDecay(0.1, lambda epoch: 0.8**epoch),
        "plateau": lambda: d.ReduceLROnPlateau(0.1, decay_rate=0.5, patience=1, cooldown=1),
    }


VARIANTS = tuple(sorted(optimizers(None))) + tuple("lr_" + name for name in sorted(schedules(None)))
BY_EPOCH = ("lr_step", "lr_multi_step", "lr_lambda")


def build(fluid, variant):
    net = fluid.dygraph.Sequential(fluid.dygraph.Linear(4, 5, act="tanh"), fluid.dygraph.Linear(5, 1))
    if not variant.startswith("lr_"):
        return DygraphModel(net, repeat(vector_data), regress, optimizers(fluid)[variant])
    rate = schedules(fluid)[variant[3:]]()

    def after_step(step, loss):
        if variant in BY_EPOCH and step % 4 == 3:
            rate.epoch()
        if variant == "lr_plateau":
            rate.step(loss)

    return DygraphModel(
        net,
        repeat(vector_data),
        regress,
        lambda p: fluid.optimizer.SGD(rate, parameter_list=p),
        after_step=after_step,
        record_rate=True,
    )
