"""fluid.dygraph: learning rates

A rate is handed to an optimizer, whose steps move it on; `rate()` gives what is next.
"""
# ruff: noqa
#: setup
def steps(rate, count=4):
    """What the next steps learn with."""
    return [round(float(np.array(rate().numpy()).item()), 4) for _ in range(count)]


def epochs(rate, count=4):
    """What the next epochs learn with: rates that move on when `epoch` is called."""
    found = []
    for _ in range(count):
        found.append(round(float(np.array(rate().numpy()).item()), 4))
        rate.epoch()
    return found
#: dygraph.ExponentialDecay
with fluid.dygraph.guard():
    print(steps(fluid.dygraph.ExponentialDecay(1.0, decay_steps=2, decay_rate=0.25)))
    print(steps(fluid.dygraph.ExponentialDecay(1.0, decay_steps=2, decay_rate=0.25, staircase=True)))
#: dygraph.NaturalExpDecay
with fluid.dygraph.guard():
    print(steps(fluid.dygraph.NaturalExpDecay(1.0, decay_steps=1, decay_rate=0.5)))  # exp(-0.5 t)
#: dygraph.InverseTimeDecay
with fluid.dygraph.guard():
    print(steps(fluid.dygraph.InverseTimeDecay(1.0, decay_steps=1, decay_rate=1.0)))  # 1 / (1 + t)
#: dygraph.PolynomialDecay
with fluid.dygraph.guard():
    print(steps(fluid.dygraph.PolynomialDecay(1.0, decay_steps=2, end_learning_rate=0.5)))
#: dygraph.CosineDecay
with fluid.dygraph.guard():
    print(steps(fluid.dygraph.CosineDecay(1.0, step_each_epoch=1, epochs=4)))
#: dygraph.LinearLrWarmup
with fluid.dygraph.guard():
    print(steps(fluid.dygraph.LinearLrWarmup(0.5, warmup_steps=2, start_lr=0.0, end_lr=0.5)))
#: dygraph.StepDecay
with fluid.dygraph.guard():
    print(epochs(fluid.dygraph.StepDecay(1.0, step_size=2, decay_rate=0.5)))
#: dygraph.MultiStepDecay
with fluid.dygraph.guard():
    print(epochs(fluid.dygraph.MultiStepDecay(1.0, milestones=[1, 3], decay_rate=0.5)))
#: dygraph.LambdaDecay
with fluid.dygraph.guard():
    print(epochs(fluid.dygraph.LambdaDecay(1.0, lr_lambda=lambda epoch: 0.5**epoch)))
#: dygraph.ReduceLROnPlateau
with fluid.dygraph.guard():
    rate = fluid.dygraph.ReduceLROnPlateau(1.0, decay_rate=0.5, patience=1)
    for loss in (3.0, 2.0, 2.0, 2.0):  # no better loss twice: that is one more than the patience
        rate.step(fluid.dygraph.to_variable(np.array([loss], "float32")))
        print(round(float(np.array(rate().numpy()).item()), 4))
#: dygraph.learning_rate_scheduler.LearningRateDecay
class Halving(fluid.dygraph.learning_rate_scheduler.LearningRateDecay):
    """Half of the rate at every step."""

    def step(self):
        return self.create_lr_var(0.5**self.step_num)


with fluid.dygraph.guard():
    print(steps(Halving()))
