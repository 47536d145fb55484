"""fluid.layers: distributions

Parameters are numbers, arrays or Variables. `Normal`, `Uniform`, `Categorical` and `MultivariateNormalDiag` stand both in
`fluid.layers` and in `fluid.layers.distributions`.
"""
# ruff: noqa
#: layers.Normal
unit, wide = layers.Normal(0.0, 1.0), layers.Normal([0.0], [2.0])
show(wide.entropy(), unit.log_prob(data([0.0])), unit.kl_divergence(wide))
print(wide.sample([5], seed=1).shape)
#: layers.Uniform
fair = layers.Uniform([0.0], [4.0])
show(fair.entropy(), fair.log_prob(data([1.0])))  # log 4 and -log 4
draws = fair.sample([100], seed=3)
show(layers.reduce_all((draws >= 0.0)), layers.reduce_all((draws < 4.0)))
#: layers.Categorical
logits = data(np.log([[0.5, 0.25, 0.25]]))
certain, even = layers.Categorical(logits), layers.Categorical(data([[0.0, 0.0, 0.0]]))
show(certain.entropy(), certain.kl_divergence(even))
#: layers.MultivariateNormalDiag
loc, scale = data([0.0, 0.0]), data([[1.0, 0.0], [0.0, 2.0]])
one = layers.MultivariateNormalDiag(loc, scale)
show(one.entropy(), one.kl_divergence(layers.MultivariateNormalDiag(data([1.0, 0.0]), data([[1.0, 0.0], [0.0, 2.0]]))))
#: layers.distributions.Distribution
class Certain(layers.distributions.Distribution):
    """Always the same value: what a distribution must offer is sample, entropy, log_prob, kl_divergence."""

    def __init__(self, value):
        self.value = value

    def sample(self, shape, seed=0):
        return layers.fill_constant(shape, "float32", self.value)

    def entropy(self):
        return layers.fill_constant([1], "float32", 0.0)


show(Certain(3.0).sample([2]), Certain(3.0).entropy())
