"""The kinds of statements that programs are made of, with how often each is written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.fuzz.writer import SHAPES, Shape, Var, Writer

Statement = Callable[[Writer], None]


# Elementwise, reductions, contraction.

LIMITS = ("0.31", "0.617", "-1.03")  # that no sum meets up to rounding, as it would 0.6
UNARY = ("{}.neg()", "T.tanh({})", "T.sigmoid({})", "{}.abs()", "T.sin({})", "T.square({})",
         "T.exp({}.clamp(max=2.0))", "T.sqrt({}.abs() + 0.5)", "{}.clamp(-1.0, 1.5)", "T.sign({})",
         "T.floor({})", "T.log({}.abs() + 1.0)", "{}.clone()", "T.cos({})",
         "T.where({0} > 0.1, {0}, 0.1)", "T.relu({})", "{}.contiguous()")  # fmt: skip
BINARY = ("{} + {}", "{} * {}", "{} - {}", "{} / ({} + 3.5)", "T.where({0} > {1}, {0}, 0.0)",
          "T.add({}, {}, alpha=2)")  # fmt: skip
TENSOR_BINARY = ("T.maximum({}, {})", "T.minimum({}, {})", "T.where({0} > 0.3, {0}, {1})")


def unary(w: Writer) -> None:
    v = w.floats()
    # Whether contiguous() gave its operand itself is not known to a trace.
    text = w.c.pick(UNARY[:-1] if w.laid else UNARY).format(v.name)
    w.new(text, v.shape, **({"root": v.root} if "contiguous" in text else {}))


def binary(w: Writer) -> None:
    v = w.floats()
    if w.c.chance(25):
        w.new(w.c.pick(TENSOR_BINARY).format(v.name, w.tensor_operand(v.shape)), v.shape)
        return
    other = w.operand(v.shape)
    pair = (v.name, other)
    if other[0] in "-0123456789" or not w.c.chance(30):
        w.new(w.c.pick(BINARY).format(*pair), v.shape)
    else:
        w.new(w.c.pick(BINARY[:3]).format(*reversed(pair)), v.shape)


def reduction(w: Writer) -> None:
    v = w.floats()
    name = w.c.pick(("sum", "mean", "amax", "sum", "prod"))
    if not v.ndim or (name != "amax" and w.c.chance(40)):
        w.new(f"{v.name}.{'sum' if name == 'amax' else name}()", ())
        return
    dim = w.c.integer(0, v.ndim - 1)
    if name == "amax" and not v.shape[dim]:
        name = "sum"
    keep = w.c.chance(40)
    left = [n for i, n in enumerate(v.shape) if i != dim or keep]
    if keep:
        left[dim] = 1
    w.new(f"{v.name}.{name}(dim={dim}, keepdim={keep})", tuple(left))


def contraction(w: Writer) -> None:
    a = w.floats(ndim=2)
    b = w.find(lambda v: v.kind == "f" and v.ndim in (1, 2) and v.shape[0] == a.shape[1])
    if b is None:
        w.new(f"{a.name} @ {a.name}.T", (a.shape[0], a.shape[0]))
    else:
        w.new(f"{a.name} @ {b.name}", (a.shape[0], *b.shape[1:]))


def comparison(w: Writer) -> None:
    v = w.floats()
    w.new(f"{v.name} {w.c.pick(('>', '<=', '!='))} 0.1", v.shape, "b")


def conversion(w: Writer) -> None:
    v = w.anything()
    w.new(f"{v.name}.to(D)" if v.kind != "f" else f"({v.name} > 0.1).to(D)", v.shape)


def creation(w: Writer) -> None:
    shape = w.c.pick(SHAPES)
    form = w.c.integer(0, 5)
    if form == 5:
        w.new(f"T.arange({max(1, len(shape))}, dtype=D)", (max(1, len(shape)),))
        return
    w.new((
        f"T.zeros({shape}, dtype=D)", f"T.ones({shape}, dtype=D)", f"T.full({shape}, 1.5, dtype=D)",
        f"tensor(90{''.join(f', {n}' for n in shape)})",
        f"T.zeros({shape}, dtype=D, requires_grad=True)",
    )[form], shape, locked=form == 4)  # fmt: skip


def joining(w: Writer) -> None:
    v = w.floats(least=1)
    others = [o for o in w.vars if o.kind == "f" and o.shape == v.shape]
    other = w.c.pick(others)
    if w.c.chance(50):
        w.new(f"T.stack([{v.name}, {other.name}], dim=0)", (2, *v.shape))
    else:
        w.new(f"T.cat([{v.name}, {other.name}], dim=0)", (2 * v.shape[0], *v.shape[1:]))


def random(w: Writer) -> None:
    v = w.floats()
    sizes = ", ".join(map(str, v.shape))
    if w.c.chance(50):
        w.new(f"{v.name} * (uniform({sizes}) > 0.5).to(D)", v.shape)
    else:
        w.new(f"uniform({sizes})", v.shape)


# Views.


def _slice(w: Writer, size: int) -> str:
    start = w.c.integer(0, size)
    stop = w.c.integer(start, size + 1)
    step = w.c.pick(("", "", ":2", ":3"))
    return f"{start or ''}:{stop if stop <= size else ''}{step}"


def _key(w: Writer, shape: Shape) -> str:
    """A basic index."""
    items: list[str] = []
    for size in shape:
        form = w.c.integer(0, 9)
        if form < 3:
            items.append(":")
        elif form < 5 and size:
            items.append(str(w.c.integer(0, size - 1) - (size if w.c.chance(30) else 0)))
        elif form == 9 and w.c.chance(40):
            items.append("None, :")
        else:
            items.append(_slice(w, size))
    if w.c.chance(10):
        return "..."
    if len(items) > 1 and w.c.chance(25):
        items[-1] = "..." if items[-1] == ":" else items[-1]
    return ", ".join(items[: w.c.integer(1, len(items))] if items else ["..."])


def _indexed(shape: Shape, key: str) -> Shape:
    return tuple(eval(f"a[{key}]", {"a": np.broadcast_to(np.zeros(()), shape)}).shape)


def index_view(w: Writer) -> None:
    v = w.anything(least=1)
    key = _key(w, v.shape)
    w.view(v, f"{v.name}[{key}]", _indexed(v.shape, key))


def shape_view(w: Writer) -> None:
    v = w.anything(least=w.c.integer(0, 2))
    forms: list[tuple[str, Shape]] = [
        (f"{v.name}.unsqueeze(0)", (1, *v.shape)),
        (f"{v.name}.unsqueeze(-1)", (*v.shape, 1)),
        (f"{v.name}.squeeze()", tuple(n for n in v.shape if n != 1)),
        (f"{v.name}.reshape(-1)", (int(np.prod(v.shape)),)),
        (f"{v.name}.flatten()", (int(np.prod(v.shape)),)),
        (f"{v.name}.view({tuple(v.shape)})", v.shape),
    ]
    if v.ndim >= 1:
        forms.append((f"{v.name}.reshape({tuple(reversed(v.shape))})", tuple(reversed(v.shape))))
        forms.append((f"{v.name}.view({(1, *v.shape)})", (1, *v.shape)))
    if v.ndim >= 2:
        swapped = (v.shape[1], v.shape[0], *v.shape[2:])
        forms.append((f"{v.name}.transpose(0, 1)", swapped))
        forms.append((f"{v.name}.transpose(-2, -1)", (*v.shape[:-2], v.shape[-1], v.shape[-2])))
        diagonal = (*v.shape[2:], min(v.shape[:2]))
        forms.append((f"{v.name}.diagonal()", diagonal))
    if v.ndim == 3:
        forms.append((f"{v.name}.permute(2, 0, 1)", (v.shape[2], v.shape[0], v.shape[1])))
    value, shape = w.c.pick(forms)
    w.view(v, value, shape)


def expansion(w: Writer) -> None:
    v = w.anything()
    if w.c.chance(30):
        w.view(v, f"{v.name}.expand({(1, *v.shape)})", (1, *v.shape))
        return
    if v.ndim and 1 in v.shape:
        shape = tuple(3 if n == 1 else n for n in v.shape)
        w.view(v, f"{v.name}.expand({shape})", shape, spread=True)
    else:
        w.view(v, f"{v.name}.expand({(2, *v.shape)})", (2, *v.shape), spread=True)


def splitting(w: Writer) -> None:
    v = w.floats(least=1)
    if v.shape[0] < 2:
        return unary(w)
    size = w.c.integer(1, v.shape[0] - 1)
    form = w.c.pick((f"{v.name}.split({size})[-1]", f"T.split({v.name}, [{size}, "
                     f"{v.shape[0] - size}])[1]"))  # fmt: skip
    last = v.shape[0] % size or size if "[-1]" in form else v.shape[0] - size
    w.view(v, form, (last, *v.shape[1:]))


def detached(w: Writer) -> None:
    v = w.floats()
    w.new(f"{v.name}.{w.c.pick(('detach()', 'data'))}", v.shape, spread=v.spread, root=v.root)


# Gathers.


def gathered(w: Writer) -> None:
    v = w.floats(least=1)
    if not v.shape[0]:
        return unary(w)
    picks = [w.c.integer(0, v.shape[0] - 1) for _ in range(w.c.integer(1, 3))]
    w.new(f"{v.name}[{picks}]", (len(picks), *v.shape[1:]))


# Writes.

WRITES = ("{0}.add_({1})", "{0}.mul_({1})", "{0}.sub_({1})", "{0} += {1}", "{0} *= {1}",
          "{0}.data.add_({1})", "{0}.detach().mul_({1})", "{0}[...] = {1}", "{0}[:] = {1}",
          "{0}.div_({1} + 3.5)")  # fmt: skip
PLAIN_WRITES = ("{0}.zero_()", "{0}.fill_(1.25)", "{0}.neg_()", "{0}.tanh_()", "{0}.clamp_(-1, 1)",
                "{0}.data.zero_()", "{0}.sigmoid_()", "{0}.detach().fill_(0.5)")  # fmt: skip


def write(w: Writer) -> None:
    v = w.target()
    if v is None:
        return creation(w)
    form = w.c.integer(0, 9)
    if form < 5:
        text = w.c.pick(WRITES)
        if "[:]" in text and not v.ndim:
            text = WRITES[0]
        other = w.operand(v.shape, v, whole=True)
        if v.name.startswith("c") and "=" in text and "[" not in text:
            text = WRITES[0]
        w.line(text.format(v.name, other))
    elif form < 7:
        w.line(w.c.pick(PLAIN_WRITES).format(v.name))
    else:
        w.line(f"{v.name}.copy_({w.tensor_operand(v.shape, v)})")


def write_index(w: Writer) -> None:
    v = w.target()
    if v is None or not v.ndim:
        return write(w)
    key = _key(w, v.shape)
    value = w.operand(_indexed(v.shape, key), v)
    how = "=" if key == "..." else w.c.pick(("=", "=", "+=", "*="))
    w.line(f"{v.name}[{key}] {how} {value}")


def write_mask(w: Writer) -> None:
    v = w.target()
    if v is None:
        return write(w)
    masks = [m.name for m in w.vars if m.kind == "b" and m.shape == v.shape]
    mask = w.c.pick([f"{v.name} > 0.1", *masks])
    w.line(f"{v.name}[{mask}] = {w.scalar()}")


def write_gathered(w: Writer) -> None:
    v = w.target()
    if v is None or not v.ndim or not v.shape[0]:
        return write(w)
    picks = sorted({w.c.integer(0, v.shape[0] - 1) for _ in range(w.c.integer(1, 3))})
    value = w.operand((len(picks), *v.shape[1:]), v)
    w.line(f"{v.name}[{picks}] = {value}")


def loop(w: Writer) -> None:
    """A loop of writes, unrolled by the trace."""
    if w.depth > 1:
        return write(w)
    with w.block(f"for _ in range({w.c.integer(1, 2)}):"):
        for _ in range(w.c.integer(1, 2)):
            w.c.pick((write, write_index, write_mask))(w)


# State.


def rebind(w: Writer) -> None:
    names = [v for v in w.state if v.name.startswith("box.h")]
    if not names:
        return write(w)
    v = w.c.pick(names)
    others = [o for o in w.vars if o.kind == "f" and o.shape == v.shape]
    form = w.c.integer(0, 9)
    if form == 8:
        other, how = w.c.pick(others), w.c.pick(("", ".clone()", ".detach()"))
        w.line(f"{v.name} = {other.name}{how}")
        if how != ".clone()":
            w.share(v, other)
    elif form == 9:
        other = w.c.pick([o for o in names if o.shape == v.shape])
        w.line(f"{v.name}, {other.name} = {other.name}, {v.name}")
        w.share(v, other)
    else:
        w.line(f"{v.name} = {v.name} * 0.5 + {w.operand(v.shape)}")


def update(w: Writer) -> None:
    """A step of gradient descent on State."""
    if not w.params or w.depth:
        return write(w)
    p = w.c.pick(w.params)
    form = w.c.integer(0, 2)
    if form == 0:
        with w.block("with T.no_grad():"):
            w.line(f"{p.name}.sub_(0.1 * grad_of({p.name}))")
    else:
        w.line(f"{p.name}.data.add_(grad_of({p.name}), alpha=-0.25)")


# Autograd.


def _loss(w: Writer) -> str:
    v = w.floats()
    loss = f"({v.name} * {v.name}).sum()" if w.c.chance(50) else f"{v.name}.sum()"
    for p in w.params[: w.c.integer(0, 2)]:
        loss += f" + ({p.name} * 0.5).sum()"
    return loss


def backward(w: Writer) -> None:
    if w.depth:
        return write(w)
    loss = w.new(_loss(w), ())
    keep = w.c.pick(("", "retain_graph=True", "", "create_graph=False"))
    with w.block(f"if {loss.name}.requires_grad:"):
        w.line(f"{loss.name}.backward({keep})")


def gradient(w: Writer) -> None:
    if w.depth:
        return write(w)
    leaves = [*w.params, *(v for v in w.vars if v.locked and v.name.startswith(("v", "x")))]
    if not leaves or w.no_grad:
        return backward(w)
    p = w.c.pick(leaves)
    loss = w.new(_loss(w) + f" + ({p.name} * 1.5).sum()", ())
    twice = w.c.chance(35)
    options = ", create_graph=True" if twice else w.c.pick((", retain_graph=True", ""))
    w.new(f"grad({loss.name}, [{p.name}]{options})[0]", p.shape)


def no_grad(w: Writer) -> None:
    if w.depth:
        return write(w)
    w.no_grad += 1
    with w.block("with T.no_grad():"):
        for _ in range(w.c.integer(1, 2)):
            w.c.pick((write, unary, write_index, binary))(w)
    w.no_grad -= 1


def hook(w: Writer) -> None:
    if w.depth:
        return write(w)
    v = fresh(w)  # PyTorch 2.13 crashes on a hook of a view whose base has got a history since
    with w.block(f"if {v.name}.requires_grad:"):
        w.line(f"{v.name}.register_hook(lambda g: g * 2.0)")


def gradient_read(w: Writer) -> None:
    if not w.params:
        return unary(w)
    p = w.c.pick(w.params)
    w.new(f"grad_of({p.name}){w.c.pick((' * 1.0', '.clone()'))}", p.shape)


def _arm(w: Writer) -> None:
    """Statements of a branch; what they make is not known after it."""
    known = len(w.vars)
    for _ in range(w.c.integer(1, 3)):
        w.c.pick((write, unary, write_index, binary, random))(w)
    del w.vars[known:]


def branch(w: Writer) -> None:
    if w.depth or w.no_grad:
        return write(w)
    v = w.floats()
    with w.block(f"if {v.name}.sum() > {w.c.pick(LIMITS)}:"):
        _arm(w)
    if w.c.chance(60):
        w.body[-1] += "\nelse:"
        w.depth += 1
        _arm(w)
        w.depth -= 1


def fresh(w: Writer) -> Var:
    """A variable with memory of its own, for writes."""
    v = w.floats()
    return w.new(f"{v.name} * 1.0", v.shape)


def overwritten(w: Writer) -> None:
    """A result that its gradient needs is overwritten before that is asked for: an error."""
    if w.depth or w.no_grad or not w.params or not w.c.chance(12):
        return write(w)
    p = w.c.pick(w.params)
    v = w.new(f"T.exp({p.name}.clamp(max=2.0))", p.shape)
    loss = w.new(f"({v.name} * 2.0).sum()", ())
    w.line(f"{v.name}.add_(1.0)")
    w.new(f"grad({loss.name}, [{p.name}])[0]", p.shape)


STATEMENTS: list[tuple[int, Statement]] = [
    (6, unary), (9, binary), (5, reduction), (3, contraction), (2, comparison), (1, conversion),
    (4, creation), (3, joining), (3, random), (8, index_view), (9, shape_view), (2, expansion),
    (3, splitting), (4, detached), (2, gathered), (10, write), (10, write_index), (4, write_mask),
    (2, write_gathered), (2, loop), (4, rebind), (4, update), (6, backward), (3, gradient),
    (3, no_grad), (1, hook), (2, gradient_read), (5, fresh), (6, branch),
    (1, overwritten),
]  # fmt: skip
