"""More kinds of statements: calls of the op families, and what programs do with their results."""

from __future__ import annotations

from tests.fuzz.writer import Shape, Writer


def _dropped(shape: Shape, dim: int) -> Shape:
    return shape[:dim] + shape[dim + 1 :]


def along(w: Writer) -> None:
    """Functions along a dim that keep the shape."""
    v = w.floats(least=1)
    dim = w.c.integer(0, v.ndim - 1)
    forms = ["{0}.cumsum({1})", "T.softmax({0}, {1})", "T.flip({0}, [{1}])", "{0}.log_softmax({1})",
             "T.roll({0}, 1, {1})", "{0}.movedim({1}, {1}) + 0.0"]  # fmt: skip
    if v.shape[dim]:
        forms.append("T.sort({0}, dim={1})[0]")
    w.new(w.c.pick(forms).format(v.name, dim), v.shape)


def extreme(w: Writer) -> None:
    """The values and places of maxima."""
    v = w.floats(least=1)
    dim = w.c.integer(0, v.ndim - 1)
    if not v.shape[dim]:
        return
    name = w.c.pick(("max", "min"))
    if w.c.chance(50):
        w.new(f"{v.name}.{name}({dim})[0]", _dropped(v.shape, dim))
    else:
        w.new(f"{v.name}.arg{name}({dim})", _dropped(v.shape, dim), "i")


def piece(w: Writer) -> None:
    """Views by the named functions."""
    v = w.anything(least=1)
    dim = w.c.integer(0, v.ndim - 1)
    size = v.shape[dim]
    if not size:
        return
    at = w.c.integer(0, size - 1)
    moved = list(v.shape)
    moved.insert(v.ndim - 1, moved.pop(dim))
    forms = [
        (f"{v.name}.select({dim}, {at})", _dropped(v.shape, dim)),
        (
            f"{v.name}.narrow({dim}, {at}, {size - at})",
            (*v.shape[:dim], size - at, *v.shape[dim + 1 :]),
        ),
        (f"{v.name}.unbind({dim})[{at}]", _dropped(v.shape, dim)),
        (f"T.movedim({v.name}, {dim}, -1)", tuple(moved)),
        (f"{v.name}.chunk(2, {dim})[0]", (*v.shape[:dim], -(-size // 2), *v.shape[dim + 1 :])),
        (f"{v.name}.unflatten({dim}, ({size}, 1))", (*v.shape[:dim], size, 1, *v.shape[dim + 1 :])),
        (f"{v.name}.swapaxes(0, {dim})", _swapped(v.shape, dim)),
    ]
    value, shape = w.c.pick(forms)
    w.view(v, value, shape)


def _swapped(shape: Shape, dim: int) -> Shape:
    sizes = list(shape)
    sizes[0], sizes[dim] = sizes[dim], sizes[0]
    return tuple(sizes)


def _places(w: Writer, size: int, count: int) -> str:
    return f"T.tensor({[w.c.integer(0, size - 1) for _ in range(count)]})"


def picked(w: Writer) -> None:
    """Gathers by tensors of indices."""
    v = w.floats(least=1)
    dim = w.c.integer(0, v.ndim - 1)
    if not v.shape[dim]:
        return
    count = w.c.integer(1, 3)
    where = _places(w, v.shape[dim], count)
    shape = (*v.shape[:dim], count, *v.shape[dim + 1 :])
    if w.c.chance(50):
        w.new(f"{v.name}.index_select({dim}, {where})", shape)
    else:
        sizes = [1] * v.ndim
        sizes[dim] = count
        places = f"{where}.reshape({tuple(sizes)}).expand({shape})"
        w.new(f"{v.name}.gather({dim}, {places})", shape)


def scattered(w: Writer) -> None:
    """Writes by tensors of indices, repeats included."""
    v = w.target()
    if v is None or not v.ndim or not v.shape[0]:
        return
    count = w.c.integer(1, 3)
    where = _places(w, v.shape[0], count)
    rest = (count, *v.shape[1:])
    source = f"T.full({rest}, {w.scalar()}, dtype=D)"
    sizes = (count,) + (1,) * (v.ndim - 1)
    w.line(w.c.pick((
        f"{v.name}.index_add_(0, {where}, {source})",
        f"{v.name}.scatter_add_(0, {where}.reshape({sizes}).expand({rest}), {source})",
        f"{v.name}.index_fill_(0, {where}, 0.5)",
        f"{v.name}.index_put_(({where},), {source}, accumulate=True)",
        f"{v.name}.masked_fill_({v.name} > 0.1, -0.5)",
        f"{v.name}.index_copy_(0, T.tensor([0]), {v.name}[:1].clone())",
    )))  # fmt: skip


def layer(w: Writer) -> None:
    """Functions of neural networks."""
    v = w.floats(ndim=2)
    rows, columns = v.shape
    weights = w.find(lambda o: o.kind == "f" and o.ndim == 2 and o.shape[1] == columns)
    forms = [(f"T.nn.functional.gelu({v.name})", v.shape),
             (f"T.nn.functional.silu({v.name})", v.shape),
             (f"T.nn.functional.layer_norm({v.name}, ({columns},))", v.shape)]  # fmt: skip
    if weights is not None:
        forms.append(
            (f"T.nn.functional.linear({v.name}, {weights.name})", (rows, weights.shape[0]))
        )
    if columns > 1 and rows:
        forms.append((f"T.nn.functional.mse_loss({v.name}, {v.name}.detach() * 0.5)", ()))
        forms.append((f"T.nn.functional.conv1d({v.name}.unsqueeze(1), T.ones(2, 1, 2, dtype=D))",
                      (rows, 2, columns - 1)))  # fmt: skip
    value, shape = w.c.pick(forms[: 2 if not columns else None])
    w.new(value, shape)


def own_random(w: Writer) -> None:
    """Random functions that PyTorch draws otherwise."""
    v = w.floats()
    form = w.c.integer(0, 3)
    if form == 0:
        w.new(f"T.nn.functional.dropout({v.name}, 0.5)", v.shape)
    elif form == 1:
        w.new(f"T.randn({v.shape}, dtype=D)", v.shape)
    elif form == 2:
        w.new(f"T.rand_like({v.name})", v.shape)
    else:
        target = w.target()
        if target is not None:
            w.line(f"{target.name}.normal_()")


def custom(w: Writer) -> None:
    """A user-defined function."""
    v = w.floats()
    w.new(f"Cube.apply({v.name})", v.shape)


def new_leaf(w: Writer) -> None:
    """A leaf made inside, differentiated at once."""
    if w.depth or w.no_grad:
        return
    v = w.floats()
    leaf = w.new(f"{v.name}.detach().clone().requires_grad_()", v.shape, locked=True)
    w.line(f"({leaf.name} * {leaf.name}).sum().backward()")
    w.new(f"{leaf.name}.grad * 1.0", v.shape)


def kept_gradient(w: Writer) -> None:
    """A gradient of what is no leaf."""
    if w.depth or not w.params:
        return
    p = w.c.pick(w.params)
    middle = w.new(f"{p.name} * 3.0", p.shape)
    with w.block(f"if {middle.name}.requires_grad:"):
        w.line(f"{middle.name}.retain_grad()")
        w.line(f"T.sin({middle.name}).sum().backward()")
    w.new(f"grad_of({middle.name}) * 1.0", p.shape)


def forgotten(w: Writer) -> None:
    """History dropped in place."""
    v = w.floats()
    made = w.new(f"{v.name} * 2.0", v.shape)
    w.line(f"{made.name}.detach_()")


def integers(w: Writer) -> None:
    """Arithmetic of integers."""
    v = w.find(lambda o: o.kind == "i")
    if v is None:
        w.new("T.arange(3)", (3,), "i")
        return
    w.new(
        w.c.pick(("{0} * 2", "{0} + {0}", "{0} % 3", "{0} // 2", "-{0}")).format(v.name),
        v.shape,
        "i",
    )


def integer_write(w: Writer) -> None:
    """A write to integers."""
    v = w.find(lambda o: o.kind == "i" and not o.spread)
    if v is not None:
        w.line(
            w.c.pick(("{0}.add_(1)", "{0}[...] = 2", "{0}.mul_({0})", "{0}.zero_()")).format(v.name)
        )


def optimizer_step(w: Writer) -> None:
    """A step of one of the optimizers of the setup."""
    if w.depth or w.no_grad or not w.optimizers:
        return
    name, parameters = w.c.pick(w.optimizers)
    if w.c.chance(30):
        w.line(f"{name}.zero_grad()")
    loss = " + ".join(f"({p.name} * {p.name}).sum()" for p in parameters)
    v = w.floats()
    w.line(f"({loss} + {v.name}.sum()).backward()")
    w.line(f"{name}.step()")


def rebound_name(w: Writer) -> None:
    """A closure variable or a global that is bound to a new tensor."""
    names = [v for v in w.state if v.name in ("c0", "g0")]
    if not names or w.depth:
        return
    v = w.c.pick(names)
    scope = "nonlocal" if v.name == "c0" else "global"
    if f"{scope} {v.name}" not in w.heads:
        w.heads.append(f"{scope} {v.name}")
    w.line(f"{v.name} = {v.name}.detach() * 0.5 + {w.operand(v.shape)}")


def folded(w: Writer) -> None:
    """A view or a copy, by the memory layout of its operand, and a write to one of the two."""
    v = w.find(lambda o: o.kind == "f" and o.ndim > 1 and not o.spread and not o.locked)
    if v is None or w.depth:
        return
    if w.c.chance(50):
        v = w.new(f"{v.name} * 1.5", v.shape)
    size = v.shape[0] * v.shape[1]
    flat = (size * (v.shape[2] if v.ndim > 2 else 1),)
    forms = [("{}.reshape(-1)", flat), ("{}.flatten()", flat), ("{}.ravel()", flat),
             ("{}.flatten(0, 1)", (size, *v.shape[2:])),
             ("{}.transpose(0, 1).reshape(-1)", flat)]  # fmt: skip
    value, shape = w.c.pick(forms)
    made = w.view(v, value.format(v.name), shape)
    target = w.c.pick((made, made, v))
    if target.shape[0]:
        w.line(f"{target.name}{w.c.pick(('[0] = 0.5', '[0] += 1.0', '.mul_(2.0)', '[:] = -0.5'))}")


FAMILIES = [
    (3, along), (2, extreme), (4, piece), (2, picked), (4, scattered), (3, layer), (2, own_random),
    (2, custom), (1, new_leaf), (1, kept_gradient), (1, forgotten), (2, integers),
    (2, integer_write), (3, optimizer_step), (2, rebound_name), (3, folded),
]  # fmt: skip
