"""Embedding + fully connected layer without activation -> embedding in the product of the two tables.

Rows of words cost a lookup instead of a product. The table grows from the embedding's width to the layer's, so that
it is done only within bounds.
"""

from __future__ import annotations

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import constant, node, value
from millstream.passes._rule import Match, Rule

_LARGEST, _GROWTH = 1 << 25, 8  # elements of the new table, and how much larger than the old one it may be

_lookup = node("lookup_table|lookup_table_v2", "lookup", shared=True, W=constant("table"), Ids=value("ids"))
_fc = node("fc", "layer", Input=_lookup, W=constant("weight"))
_mul = node("mul", "layer", X=_lookup, Y=constant("weight"))


def _why_not(found: Match) -> str | None:
    layer, lookup = found["layer"], found["lookup"]
    shape = found.shape(lookup.output("Out")[0]) or ()
    if layer.type == "fc":
        rows, weight_rows = layer.attr("in_num_col_dims"), 1
        if layer.attr("activation_type") or layer.attr("padding_weights"):
            return "the layer has an activation or padded weights"
    else:
        rows, weight_rows = layer.attr("x_num_col_dims"), layer.attr("y_num_col_dims")
    narrow = rows == len(shape) - 1 or (lookup.type == "lookup_table_v2" and rows == len(shape) - 2 and shape[-2] == 1)
    if len(shape) < 2 or rows < 1 or not narrow or weight_rows != 1:
        return "the layer takes more than the embedding's width at once"
    table, weight = (found.work.value(found.names[n]) for n in ("table", "weight"))
    bias = [found.work.value(n) for n in layer.input("Bias")]
    if table is None or weight is None or None in [b is not None or None for b in bias]:
        return "the value of a table is not known"
    if table.dim() != 2 or weight.dim() != 2 or table.dtype is not weight.dtype:
        return "the tables are not two matrices of one dtype"
    size = table.shape[0] * weight.shape[1]
    if size > _LARGEST or weight.shape[1] > _GROWTH * table.shape[1]:
        return f"the product would have {size} elements, {weight.shape[1] / table.shape[1]:.1f} times the embedding's"
    return None


def _build(found: Match) -> Operator:
    layer, lookup = found["layer"], found["lookup"]
    table, weight = (found.work.value(found.names[n]) for n in ("table", "weight"))
    assert table is not None and weight is not None  # _why_not looked
    padding = lookup.attr("padding_idx")
    rows = table.double()
    if padding != -1:
        rows[padding] = 0
    product = rows @ weight.double()
    for name in layer.input("Bias"):
        bias = found.work.value(name)
        assert bias is not None
        product += bias.reshape(1, -1)
    name = found.work.store(found.names["table"], product.to(table.dtype))
    inputs = {"W": [name], "Ids": lookup.input("Ids")}
    drops = len(found.shape(lookup.output("Out")[0]) or ()) != len(found.shape(layer.output("Out")[0]) or ())
    kind = "lookup_table" if drops else lookup.type  # of ids [N, 1] it makes [N, size], the other one [N, 1, size]
    return found.make(kind, inputs, {"Out": layer.output("Out")}, padding_idx=-1, is_sparse=False)


_rules = [Rule("fold_embedding_fc", pattern, _why_not, _build) for pattern in (_fc, _mul)]
register("fold_embedding_fc", lambda work: sum(rule(work) for rule in _rules))
