"""Losses over many classes that score only some of them: nce and sample_logits."""

from __future__ import annotations

import math

import torch

from millstream.errors import InvalidProgramError, ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import SelectedRows, Spec

UNIFORM, LOG_UNIFORM, CUSTOM = 0, 1, 2
_FEW = 1 << 20  # numbers that stay in the cache: up to here products and sums beat as many small products of matrices


# ---- samplers ----------------------------------------------------------------------------------------
# Log-uniform over [0, n): probability of c is log((c + 2) / (c + 1)) / log(n + 1). Fluid's nce takes n = classes - 1 (the
# last class is never drawn), its sample_logits n = classes.
def _log_uniform_probability(classes: torch.Tensor, n: int, dtype: torch.dtype) -> torch.Tensor:
    c = classes.to(dtype)
    return torch.log((c + 2) / (c + 1)) / math.log(n + 1)


def _probability(classes, total, sampler, custom, dtype):
    """Probability of each class under the sampler."""
    if sampler == UNIFORM:
        return torch.full(classes.shape, 1.0 / total, dtype=dtype, device=classes.device)
    if sampler == LOG_UNIFORM:
        return _log_uniform_probability(classes, total - 1, dtype)
    return custom.reshape(-1)[classes].to(dtype)


def _draw_log_uniform(shape, n, rng, device):
    u = torch.rand(shape, generator=rng, dtype=torch.float64, device=device)
    return (torch.exp(u * math.log(n + 1)) - 1).long().clamp_(0, n - 1)


def _draw(shape, total, sampler, alias, alias_probs, rng, device):
    """Classes drawn with repeats."""
    if sampler == LOG_UNIFORM:
        return _draw_log_uniform(shape, total - 1, rng, device)
    drawn = torch.randint(0, total, shape, generator=rng, device=device)
    if sampler == UNIFORM:
        return drawn
    keep = torch.rand(shape, generator=rng, device=device) < alias_probs.reshape(-1)[drawn]
    return torch.where(keep, drawn, alias.reshape(-1).long()[drawn])


def scored(x: torch.Tensor, weight: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """weight[classes[n, k]] . x[n] for each n, k."""
    rows = torch.embedding(weight, classes)  # indexing takes five times as long
    if rows.numel() > _FEW:
        return torch.bmm(rows, x.unsqueeze(2)).squeeze(2)
    return (rows * x.unsqueeze(1)).sum(2)


# ---- nce ---------------------------------------------------------------------------------------------
def _nce_spec(x, label, weight, bias, sample_weight, probs, alias, alias_probs, *, num_total_classes, num_neg_samples,
              sampler, custom_neg_classes, **rest):
    if len(x.shape) != 2 or len(weight.shape) != 2:
        raise ShapeError(f"Input and Weight must have 2 dims, received {list(x.shape)} and {list(weight.shape)}")
    if x.shape[1] >= 0 and weight.shape[1] >= 0 and x.shape[1] != weight.shape[1]:
        raise ShapeError(f"Weight must be as wide as Input ({x.shape[1]}), received {list(weight.shape)}")
    if weight.shape[0] >= 0 and weight.shape[0] != num_total_classes:
        raise ShapeError(f"Weight must have num_total_classes = {num_total_classes} rows, received {list(weight.shape)}")
    if bias is not None and bias.shape[0] >= 0 and bias.shape[0] != num_total_classes:
        raise ShapeError(f"Bias must have num_total_classes = {num_total_classes} rows, received {list(bias.shape)}")
    if custom_neg_classes and len(custom_neg_classes) != num_neg_samples:
        count = len(custom_neg_classes)
        raise ShapeError(f"custom_neg_classes must be num_neg_samples = {num_neg_samples} classes, received {count}")
    if sampler not in (UNIFORM, LOG_UNIFORM, CUSTOM):
        raise InvalidProgramError(f"sampler must be 0 (uniform), 1 (log uniform) or 2 (custom), received {sampler}")
    if sampler == CUSTOM and (probs is None or alias is None or alias_probs is None):
        raise InvalidProgramError("sampler 2 needs CustomDistProbs, CustomDistAlias and CustomDistAliasProbs")
    true = label.shape[1] if len(label.shape) == 2 else 1
    samples = (x.shape[0], true + num_neg_samples if true >= 0 else -1)
    return x.like(shape=(x.shape[0], 1), lod_level=0), Spec(samples, x.dtype), Spec(samples, VarType.INT64)


@op(
    "nce",
    slots="Input, Label, Weight, Bias?, SampleWeight?, CustomDistProbs?, CustomDistAlias?, CustomDistAliasProbs? -> "
    "Cost, SampleLogits~, SampleLabels~",
    infer=_nce_spec,
    nodiff="Label, SampleWeight, CustomDistProbs, CustomDistAlias, CustomDistAliasProbs",
)
def nce(
    x, label, weight, bias, sample_weight, probs, alias, alias_probs, *, num_total_classes: int, num_neg_samples: int = 10,
    sampler: int = 0, seed: int = 0, is_sparse: bool = False, custom_neg_classes: list[int] = [], rng,
):
    """Noise contrastive estimation (Gutmann and Hyvarinen 2010; Mnih and Teh 2012).

    For the true classes and `num_neg_samples` drawn ones a row: o = sigmoid(Weight[c] . x + Bias[c]),
    q = num_neg_samples * probability(c); Cost = sum of -log(o / (o + q)) (true) and -log(q / (o + q)) (drawn),
    times SampleWeight. Input [N, D], Label [N, T], Weight [C, D], Bias [C, 1], Cost [N, 1]; SampleLogits (o) and
    SampleLabels are [N, T + drawn]. custom_neg_classes are taken instead of drawn ones.
    """
    label = label.long().reshape(x.shape[0], -1)
    shape = (x.shape[0], num_neg_samples)
    if custom_neg_classes:
        drawn = torch.tensor(custom_neg_classes, device=x.device).expand(shape)
    else:
        drawn = _draw(shape, num_total_classes, sampler, alias, alias_probs, rng, x.device)
    classes = torch.cat([label, drawn], 1)
    o = _sampled_logits(x, weight, bias, classes)
    q = _probability(classes, num_total_classes, sampler, probs, x.dtype) * num_neg_samples
    true = label.shape[1]
    cost = -torch.log(torch.cat([o[:, :true], q[:, true:]], 1) / (o + q)).sum(1, keepdim=True)
    if sample_weight is not None:
        cost = cost * sample_weight.reshape(-1, 1)
    return cost, o, classes


def _sampled_logits(x, weight, bias, classes):
    score = scored(x, weight, classes)
    return torch.sigmoid(score if bias is None else score + bias.reshape(-1)[classes])


def _nce_grad_spec(x, label, weight, bias, *rest, is_sparse, **attrs):
    kind = VarType.SELECTED_ROWS if is_sparse else VarType.LOD_TENSOR
    return x, weight.like(type=kind), bias


@op(
    "nce_grad",
    slots="Input, Label, Weight, Bias?, SampleWeight?, SampleLogits, SampleLabels, CustomDistProbs?, Cost@GRAD -> "
    "Input@GRAD, Weight@GRAD, Bias@GRAD",
    infer=_nce_grad_spec,
    nodiff="SampleLogits",
)
def nce_grad(
    x, label, weight, bias, sample_weight, o, classes, probs, dcost, *, num_total_classes: int, num_neg_samples: int = 10,
    sampler: int = 0, is_sparse: bool = False, want,
):
    """The derivative with the drawn classes fixed; with is_sparse, Weight's is SelectedRows, one row a sample."""
    true = label.numel() // max(x.shape[0], 1)
    if torch.is_grad_enabled():  # to be differentiated again: SampleLogits is a function of the others then
        o = _sampled_logits(x, weight, bias, classes)
    q = _probability(classes, num_total_classes, sampler, probs, x.dtype) * num_neg_samples
    g = torch.cat([q[:, :true] * (o[:, :true] - 1), (o * (1 - o))[:, true:]], 1) / (o + q) * dcost
    if sample_weight is not None:
        g = g * sample_weight.reshape(-1, 1)
    dx = torch.bmm(g.unsqueeze(1), torch.embedding(weight, classes)).squeeze(1) if want[0] else None
    return dx, *row_grads(g, x, classes, weight, bias, is_sparse, want[1], want[2])


def row_grads(g, x, classes, weight, bias, is_sparse, want_weight, want_bias):
    """Gradients of Weight and Bias from g [N, K], those of the scores Weight[classes[n, k]] . x[n] + Bias[classes[n, k]]."""
    rows = classes.reshape(-1)
    dweight = dbias = None
    if want_weight:
        values = (g.unsqueeze(2) * x.unsqueeze(1)).reshape(-1, x.shape[1])
        dweight = SelectedRows(rows, values, weight.shape[0])
    if want_bias and bias is not None:
        dbias = SelectedRows(rows, g.reshape(-1, *[1] * (bias.dim() - 1)), bias.shape[0]).to_dense()
    if dweight is not None and not is_sparse:
        dweight = dweight.to_dense()
    return dweight, dbias


# ---- sample_logits -----------------------------------------------------------------------------------
def _sample_logits_spec(logits, labels, samples, probabilities, *, use_customized_samples, num_samples, uniq, **rest):
    if len(logits.shape) != 2 or len(labels.shape) != 2:
        raise ShapeError(f"Logits and Labels must have 2 dims, received {list(logits.shape)} and {list(labels.shape)}")
    if use_customized_samples and (samples is None or probabilities is None):
        raise InvalidProgramError("use_customized_samples needs CustomizedSamples and CustomizedProbabilities")
    if not use_customized_samples and not uniq:
        raise InvalidProgramError("sample_logits draws without repeats only: uniq must be true")
    n, true = logits.shape[0], labels.shape[1]
    width = true + num_samples if true >= 0 else -1
    all_ = (n, width)
    return (
        Spec(all_, VarType.INT64), Spec(all_, logits.dtype), Spec((*logits.shape, 0), logits.dtype),
        Spec((*labels.shape, 0), labels.dtype), Spec(all_, logits.dtype), Spec((n, true), VarType.INT64),
    )


@op(
    "sample_logits",
    slots="Logits, Labels, CustomizedSamples?, CustomizedProbabilities? -> "
    "Samples~, Probabilities~, LogitsDim~, LabelsDim~, SampledLogits~, SampledLabels", shares=True,
    infer=_sample_logits_spec,
    nodiff="Labels, CustomizedSamples, CustomizedProbabilities",
)
def sample_logits(
    logits, labels, samples, probabilities, *, use_customized_samples: bool = False, uniq: bool = True,
    remove_accidental_hits: bool = True, num_samples: int, seed: int = 0, rng,
):
    """Sampled softmax (Jean et al. 2014): logits of the true and of `num_samples` drawn classes, minus log probability.

    Logits [N, C], Labels [N, T]; Samples, Probabilities, SampledLogits [N, T + num_samples], true classes first;
    SampledLabels [N, T] is 0..T-1. Classes are drawn log-uniformly without repeats, the same for all rows, unless the
    customized ones are used. A drawn class that is a true one (an accidental hit) gets its logit lowered by 1e20.
    """
    labels = labels.long()
    n, true = labels.shape
    if use_customized_samples:
        samples, probabilities = samples.long(), probabilities.to(logits.dtype)
    else:
        samples, probabilities = _draw_unique(labels, logits.shape[1], num_samples, rng, logits.dtype)
    sampled = logits.gather(1, samples)
    if remove_accidental_hits:
        hits = (samples[:, true:].unsqueeze(2) == samples[:, :true].unsqueeze(1)).any(2)
        lowered = torch.cat([torch.zeros_like(labels, dtype=torch.bool), hits], 1)
        sampled = torch.where(lowered, sampled - 1e20, sampled)
    sampled = (sampled - torch.log(probabilities)).clamp(-1e20, 1e20)
    positions = torch.arange(true, device=logits.device).expand(n, true).contiguous()
    dims = logits.new_empty((*logits.shape, 0)), labels.new_empty((*labels.shape, 0))
    return samples, probabilities, *dims, sampled, positions


def _draw_unique(labels, total, count, rng, dtype):
    """Distinct log-uniform draws shared by all rows, and expected counts: 1 - (1 - p)^tries."""
    if count > total:
        raise ShapeError(f"num_samples must be at most the number of classes, {total}, received {count}")
    drawn: dict[int, None] = {}
    tries = 0
    while len(drawn) < count:
        for c in _draw_log_uniform((count,), total, rng, labels.device).tolist():
            tries += 1
            drawn.setdefault(c)
            if len(drawn) == count:
                break
    row = torch.tensor(list(drawn), dtype=torch.int64, device=labels.device).expand(labels.shape[0], count)
    samples = torch.cat([labels, row], 1)
    p = _log_uniform_probability(samples, total, torch.float64)
    return samples, (-torch.expm1(tries * torch.log1p(-p))).to(dtype)


@op("sample_logits_grad", slots="LogitsDim, Samples, SampledLogits@GRAD -> Logits@GRAD", nodiff="LogitsDim, Samples")
def sample_logits_grad(logits_dim, samples, dout, *, num_samples: int):
    """dOut added up at the sampled classes."""
    dx = torch.zeros(logits_dim.shape[:-1], dtype=dout.dtype, device=dout.device)
    return dx.scatter_add_(1, samples.long(), dout)
