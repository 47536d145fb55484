"""fluid.metrics, fluid.evaluator, fluid.average

Figures gathered over many batches, in Python or in the Program.
"""
# ruff: noqa
#: metrics.Accuracy
accuracy = fluid.metrics.Accuracy()
accuracy.update(value=0.5, weight=10)
accuracy.update(value=1.0, weight=30)
print(accuracy.eval())
#: metrics.Auc
auc = fluid.metrics.Auc("auc")
auc.update(preds=np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]), labels=np.array([[0], [1], [0]]))
print(round(auc.eval(), 4))
#: metrics.ChunkEvaluator
chunks = fluid.metrics.ChunkEvaluator()
chunks.update(num_infer_chunks=4, num_label_chunks=5, num_correct_chunks=3)
print([round(float(v), 4) for v in chunks.eval()])
#: metrics.DetectionMAP
found = data([[0.0, 0.9, 0.1, 0.1, 0.4, 0.4]], lengths=[[1]])  # label, score, box
label, box = data([[0.0]], lengths=[[1]]), data([[0.1, 0.1, 0.4, 0.4]], lengths=[[1]])
metric = fluid.metrics.DetectionMAP(found, label, box, class_num=1, background_label=-1)
now, accumulated = metric.get_map_var()
show(now, accumulated)
#: evaluator.DetectionMAP
found = data([[0.0, 0.9, 0.1, 0.1, 0.4, 0.4]], lengths=[[1]])
label, box = data([[0.0]], lengths=[[1]]), data([[0.1, 0.1, 0.4, 0.4]], lengths=[[1]])
evaluator = fluid.evaluator.DetectionMAP(found, label, box, class_num=1, background_label=-1)
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
evaluator.reset(exe)
show(evaluator.get_map_var()[1])
#: evaluator.EditDistance
found, label = data([[1], [2], [3]], lengths=[[3]]), data([[1], [3]], lengths=[[2]])
evaluator = fluid.evaluator.EditDistance(found, label)
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
evaluator.reset(exe)
exe.run(feed=feed)
average, wrong = evaluator.eval(exe)
print(average.item(), wrong.item())
#: evaluator.ChunkEvaluator
found, label = data([[0], [1], [4], [2]], lengths=[[4]]), data([[0], [1], [4], [4]], lengths=[[4]])  # B-0 I-0 O B-1, or O
evaluator = fluid.evaluator.ChunkEvaluator(found, label, chunk_scheme="IOB", num_chunk_types=2)
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
evaluator.reset(exe)
exe.run(feed=feed)
print([round(value.item(), 4) for value in evaluator.eval(exe)])  # precision, recall, F1
#: evaluator.Evaluator
class Rows(fluid.evaluator.Evaluator):
    """Counts rows over all runs."""

    def __init__(self, input):
        super(Rows, self).__init__("rows")
        self.total = self._create_state(suffix="total", dtype="int32", shape=[1])
        layers.sums([self.total, layers.slice(layers.shape(input), axes=[0], starts=[0], ends=[1])], out=self.total)

    def eval(self, executor, eval_program=None):
        return fluid.executor._fetch_var(self.total.name)

evaluator = Rows(data([[1.0], [2.0], [3.0]]))
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
evaluator.reset(exe)
for _ in range(2):
    exe.run(feed=feed)
print(evaluator.eval(exe).tolist())
#: average.WeightedAverage
average = fluid.average.WeightedAverage()
average.add(value=2.0, weight=1)
average.add(value=4.0, weight=3)
print(average.eval())
#: metrics.Precision
precision = fluid.metrics.Precision()
precision.update(preds=np.array([[0.9], [0.8], [0.1]]), labels=np.array([[1], [0], [1]]))
print(precision.eval())
#: metrics.Recall
recall = fluid.metrics.Recall()
recall.update(preds=np.array([[0.9], [0.8], [0.1]]), labels=np.array([[1], [0], [1]]))
print(recall.eval())
#: metrics.CompositeMetric
both = fluid.metrics.CompositeMetric()
both.add_metric(fluid.metrics.Precision())
both.add_metric(fluid.metrics.Recall())
both.update(preds=np.array([[0.9], [0.8]]), labels=np.array([[1], [0]]))
print(both.eval())
#: metrics.EditDistance
distance = fluid.metrics.EditDistance("distance")
distance.update(np.array([[2.0], [0.0]]), 2)
print([float(v) for v in distance.eval()])
