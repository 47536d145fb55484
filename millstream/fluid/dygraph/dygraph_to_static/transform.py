"""Python functions rewritten: statements whose condition may be a Variable become calls of convert's functions."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import types
from collections.abc import Callable
from typing import Any

from millstream.fluid.dygraph.dygraph_to_static import convert

_HELPER = "_convert"
_cache: dict[Any, Callable[..., Any]] = {}


def converted(function: Any) -> Callable[..., Any]:
    """The rewritten form of a Python function (or bound method); OSError when it has no source text."""
    if isinstance(function, types.MethodType):
        return types.MethodType(converted(function.__func__), function.__self__)
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"only functions can be converted, received {type(function).__name__}")
    code = function.__code__
    # a function that is defined again and again shares its code, but not its closure
    key = (code, tuple(id(c) for c in function.__closure__ or ()))
    found = _cache.get(key)
    if found is None:
        found = _cache[key] = _build(function)
    return found


def code_of(function: Any) -> str:
    """The rewritten text."""
    plain: Any = function.__func__ if isinstance(function, types.MethodType) else function
    return ast.unparse(_rewritten(plain))


def _rewritten(function: types.FunctionType) -> ast.FunctionDef:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef):
        raise SyntaxError(f"{function.__qualname__} is no plain def")
    first = function.__code__.co_firstlineno
    ast.increment_lineno(node, first - 1)
    node.decorator_list = []
    node.returns = None
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    node.body = _FunctionRewriter(node).rewrite()
    return ast.fix_missing_locations(node)


def _build(function: types.FunctionType) -> Callable[..., Any]:
    node = _rewritten(function)
    none = ast.Constant(None)
    node.args.defaults = [none for _ in node.args.defaults]
    node.args.kw_defaults = [None if d is None else none for d in node.args.kw_defaults]
    free = [_HELPER, *function.__code__.co_freevars]
    factory = ast.FunctionDef(
        name="_factory",
        args=ast.arguments(posonlyargs=[], args=[ast.arg(n) for n in free], kwonlyargs=[], kw_defaults=[], defaults=[]),
        body=[node, ast.Return(ast.Name(node.name, ast.Load()))],
        decorator_list=[],
    )
    module = ast.fix_missing_locations(ast.Module([factory], []))
    scratch: dict[str, Any] = {}
    # the text is the user's own function, which runs anyway
    exec(compile(module, function.__code__.co_filename, "exec"), scratch)
    inner = scratch["_factory"](*[None] * len(free))
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or ()))
    cells[_HELPER] = types.CellType(convert)
    closure = tuple(cells[n] for n in inner.__code__.co_freevars)
    made = types.FunctionType(inner.__code__, function.__globals__, function.__name__, function.__defaults__, closure)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__qualname__, made.__module__, made.__doc__ = function.__qualname__, function.__module__, function.__doc__
    return made


# ---- pieces of trees ---------------------------------------------------------------------------
def _helper(name: str, *args: ast.expr) -> ast.Call:
    return ast.Call(ast.Attribute(ast.Name(_HELPER, ast.Load()), name, ast.Load()), list(args), [])


def _text(names: list[str]) -> ast.Tuple:
    return ast.Tuple([ast.Constant(n) for n in names], ast.Load())


def _names(names: list[str], context: ast.expr_context) -> ast.Tuple:
    return ast.Tuple([ast.Name(n, context) for n in names], context)


def _picked(names: list[str]) -> ast.Call:
    return _helper("pick", ast.Call(ast.Name("locals", ast.Load()), [], []), _text(names))


def _define(name: str, parameters: list[str], body: list[ast.stmt]) -> ast.FunctionDef:
    args = ast.arguments(
        posonlyargs=[], args=[ast.arg(p) for p in parameters], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    return ast.FunctionDef(name=name, args=args, body=body or [ast.Pass()], decorator_list=[])


def _thunk(value: ast.expr) -> ast.Lambda:
    return ast.Lambda(ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]), value)


def _assign_to(names: list[str], value: ast.expr) -> ast.stmt:
    return ast.Assign([_names(names, ast.Store())], value) if names else ast.Expr(value)


class _Stores(ast.NodeVisitor):
    """Names that statements assign to; functions and classes inside count by their own name only."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, (ast.Store, ast.Del)):
            self.names[node.id] = None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if not node.name.startswith(_HELPER):
            self.names[node.name] = None

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.names[node.name] = None

    def visit_Lambda(self, node: ast.Lambda) -> None:
        pass

    def visit_alias(self, node: ast.alias) -> None:
        self.names[(node.asname or node.name).partition(".")[0]] = None

    def _comprehension(self, node: Any) -> None:
        pass

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension


def _stores(statements: list[ast.stmt]) -> list[str]:
    visitor = _Stores()
    for statement in statements:
        visitor.visit(statement)
    return list(visitor.names)


def _has(statements: list[ast.stmt], kinds: tuple[type, ...], through_loops: bool) -> bool:
    """Whether one of `kinds` stands in the statements (not in functions; in loops only with `through_loops`)."""
    for statement in statements:
        if isinstance(statement, kinds):
            return True
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            continue
        if isinstance(statement, (ast.For, ast.While)) and not through_loops:
            if _has(statement.orelse, kinds, through_loops):
                return True
            continue
        for field in ("body", "orelse", "finalbody"):
            if _has(getattr(statement, field, None) or [], kinds, through_loops):
                return True
        for handler in getattr(statement, "handlers", ()):
            if _has(handler.body, kinds, through_loops):
                return True
    return False


class _Expressions(ast.NodeTransformer):
    """and, or, not, conditional expressions, and calls."""

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        return _helper("and_" if isinstance(node.op, ast.And) else "or_", *[_thunk(v) for v in node.values])

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return _helper("not_", node.operand) if isinstance(node.op, ast.Not) else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        return _helper("if_expression", node.test, _thunk(node.body), _thunk(node.orelse))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in ("super", "locals", "isinstance", "getattr", "hasattr"):
            return node
        if isinstance(node.func, (ast.Name, ast.Attribute)):
            node.func = _helper("call", node.func)
        return node

    def _leave(self, node: Any) -> Any:
        return node

    visit_FunctionDef = visit_ClassDef = visit_AsyncFunctionDef = _leave


class _FunctionRewriter:
    """Rewrites the body of one function."""

    def __init__(self, node: ast.FunctionDef) -> None:
        self.node = node
        self.counter = itertools.count()
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
        outer = {n for s in ast.walk(node) if isinstance(s, (ast.Global, ast.Nonlocal)) for n in s.names}
        self.outer = outer
        self.local = [a.arg for a in every]
        self.local += [n for n in _stores(node.body) if n not in self.local and n not in outer]

    def rewrite(self) -> list[ast.stmt]:
        body = list(self.node.body)
        docstring = []
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            docstring, body = body[:1], body[1:]
        return docstring + self.block(self.returns(body, top=True))

    def fresh(self, what: str) -> str:
        return f"{_HELPER}_{what}_{next(self.counter)}"

    # ---- return inside if --------------------------------------------------------------------
    def returns(self, body: list[ast.stmt], top: bool = False) -> list[ast.stmt]:
        """Move what follows an if with return into its branches, so that both end in return."""
        for i, statement in enumerate(body):
            if isinstance(statement, ast.Return):
                return body[: i + 1]
            if isinstance(statement, ast.If) and _has([statement], (ast.Return,), False):
                rest = body[i + 1 :]
                if not rest:
                    rest = [ast.Return(ast.Constant(None))]
                made = ast.If(
                    statement.test,
                    self.returns([*statement.body, *rest]),
                    self.returns([*statement.orelse, *rest]),
                )
                made._returns = True  # type: ignore[attr-defined]
                return [*body[:i], ast.copy_location(made, statement)]
        if not top and not (body and isinstance(body[-1], ast.Return)):
            return [*body, ast.Return(ast.Constant(None))]
        return body

    # ---- statements --------------------------------------------------------------------------
    def block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for statement in body:
            new = self.statement(statement)
            for part in new:
                for node in ast.walk(part):
                    if not hasattr(node, "lineno"):
                        ast.copy_location(node, statement)
            made += new
        return made

    def expression(self, node: Any) -> Any:
        return _Expressions().visit(node) if node is not None else None

    def statement(self, node: ast.stmt) -> list[ast.stmt]:
        if isinstance(node, ast.If):
            return self.if_(node)
        if isinstance(node, ast.While):
            return self.while_(node)
        if isinstance(node, ast.For):
            return self.for_(node)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            return [node]
        if isinstance(node, ast.Assert):
            node.test = _helper("plain", self.expression(node.test), ast.Constant("assert"))
            return [node]
        if isinstance(node, (ast.With, ast.Try)):
            for field in ("body", "orelse", "finalbody"):
                inner = getattr(node, field, None)
                if inner:
                    setattr(node, field, self.block(inner))
            for handler in getattr(node, "handlers", ()):
                handler.body = self.block(handler.body)
            for item in getattr(node, "items", ()):
                item.context_expr = self.expression(item.context_expr)
            return [node]
        return [self.expression(node)]

    def if_(self, node: ast.If) -> list[ast.stmt]:
        test = self.expression(node.test)
        if getattr(node, "_returns", False):
            names = list(self.local)
            true, false = self.fresh("true"), self.fresh("false")
            return [
                _define(true, names, self.block(node.body)),
                _define(false, names, self.block(node.orelse)),
                ast.Return(_helper("returning_if", test, *[ast.Name(n, ast.Load()) for n in (true, false)], _picked(names))),
            ]
        branches = [*node.body, *node.orelse]
        for kinds, what in (((ast.Return,), "return"), ((ast.Break, ast.Continue), "break or continue"),
                            ((ast.Yield, ast.YieldFrom), "yield")):  # fmt: skip
            if _has(branches, kinds, what == "return"):
                node.test = _helper("plain", test, ast.Constant(f"an if with {what} inside"))
                node.body, node.orelse = self.block(node.body), self.block(node.orelse)
                return [node]
        names = [n for n in _stores(branches) if n not in self.outer]
        true, false = self.fresh("true"), self.fresh("false")
        done = ast.Return(_names(names, ast.Load()))
        call = _helper("if_", test, *[ast.Name(n, ast.Load()) for n in (true, false)], _picked(names), _text(names))
        return [
            _define(true, names, [*self.block(node.body), done]),
            _define(false, names, [*self.block(node.orelse), done]),
            _assign_to(names, call),
        ]

    # ---- loops -------------------------------------------------------------------------------
    def _jumps(self, body: list[ast.stmt], brk: str, cont: str) -> list[ast.stmt]:
        """break and continue as flags; what follows them runs only while no flag is set."""
        made: list[ast.stmt] = []
        for i, statement in enumerate(body):
            if isinstance(statement, (ast.Break, ast.Continue)):
                flag = brk if isinstance(statement, ast.Break) else cont
                return [*made, ast.copy_location(ast.Assign([ast.Name(flag, ast.Store())], ast.Constant(True)), statement)]
            if _has([statement], (ast.Break, ast.Continue), False) and isinstance(statement, ast.If):
                new = ast.If(
                    statement.test,
                    self._jumps(statement.body, brk, cont),
                    self._jumps(statement.orelse, brk, cont),
                )
                made.append(ast.copy_location(new, statement))
                rest = self._jumps(body[i + 1 :], brk, cont)
                if rest:
                    flags: list[ast.expr] = [ast.Name(n, ast.Load()) for n in (brk, cont)]
                    made.append(
                        ast.copy_location(
                            ast.If(ast.UnaryOp(ast.Not(), ast.BoolOp(ast.Or(), flags)), rest, []), statement
                        )
                    )
                return made
            made.append(statement)
        return made

    def _loop_body(self, body: list[ast.stmt]) -> tuple[list[ast.stmt], list[ast.stmt], str | None]:
        """(statements before the loop, body without jumps, name of the break flag)."""
        if not _has(body, (ast.Break, ast.Continue), False):
            return [], body, None
        brk, cont = f"_break_{next(self.counter)}", f"_continue_{next(self.counter)}"
        before: list[ast.stmt] = [ast.Assign([ast.Name(n, ast.Store())], ast.Constant(False)) for n in (brk, cont)]
        reset: ast.stmt = ast.Assign([ast.Name(cont, ast.Store())], ast.Constant(False))
        inner = [reset, *self._jumps(body, brk, cont)]
        guarded: ast.stmt = ast.If(ast.UnaryOp(ast.Not(), ast.Name(brk, ast.Load())), inner, [])
        return before, [guarded], brk

    def _stays_python(self, node: Any) -> bool:
        """Loops with return, yield or else, or with a jump that stands in with or try."""
        return bool(
            node.orelse
            or _has(node.body, (ast.Return,), True)
            or any(isinstance(n, (ast.Yield, ast.YieldFrom, ast.Await)) for s in node.body for n in ast.walk(s))
            or any(
                isinstance(s, (ast.With, ast.Try)) and _has([s], (ast.Break, ast.Continue), False)
                for b in node.body
                for s in ast.walk(b)
            )
        )

    def while_(self, node: ast.While) -> list[ast.stmt]:
        if self._stays_python(node):
            what = ast.Constant("a while with return, yield or else inside")
            node.test = _helper("plain", self.expression(node.test), what)
            node.body, node.orelse = self.block(node.body), self.block(node.orelse)
            return [node]
        before, body, brk = self._loop_body(node.body)
        test = node.test
        if brk is not None:
            test = ast.BoolOp(ast.And(), [ast.UnaryOp(ast.Not(), ast.Name(brk, ast.Load())), test])
        names = [n for n in _stores([*before, *body]) if n not in self.outer]
        self.local += [n for n in names if n not in self.local]
        cond, step = self.fresh("while"), self.fresh("body")
        call = _helper("while_", *[ast.Name(n, ast.Load()) for n in (cond, step)], _picked(names), _text(names))
        return [
            *before,
            _define(cond, names, [ast.Return(self.expression(test))]),
            _define(step, names, [*self.block(body), ast.Return(_names(names, ast.Load()))]),
            _assign_to(names, call),
        ]

    def for_(self, node: ast.For) -> list[ast.stmt]:
        if self._stays_python(node):
            node.iter = _helper("plain", self.expression(node.iter), ast.Constant("a for with return, yield or else inside"))
            node.body, node.orelse = self.block(node.body), self.block(node.orelse)
            return [node]
        before, body, brk = self._loop_body(node.body)
        item = self.fresh("item")
        take: ast.stmt = ast.Assign([node.target], ast.Name(item, ast.Load()))
        names = [n for n in _stores([*before, take, *body]) if n not in self.outer]
        self.local += [n for n in names if n not in self.local]
        step = self.fresh("body")
        stop = ast.Constant(names.index(brk) if brk is not None else None)
        call = _helper(
            "for_", self.expression(node.iter), ast.Name(step, ast.Load()), _picked(names), _text(names), stop
        )
        return [
            *before,
            _define(step, [item, *names], [take, *self.block(body), ast.Return(_names(names, ast.Load()))]),
            _assign_to(names, call),
        ]
