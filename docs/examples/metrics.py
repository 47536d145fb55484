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
