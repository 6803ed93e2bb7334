"""The code of sliding windows (see `windows`): rows of windows, vectors of them, taps."""

from __future__ import annotations

from collections.abc import Sequence

from tracegraph.dtypes import DType, bool_, int32, int64
from tracegraph.runtime.cpu.code.lane_access import ALL_LANES, gather, scatter, steps_of
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.storage import narrowed, stored_dtype, widened
from tracegraph.runtime.cpu.code.unit_code import Lanes, UnitCode
from tracegraph.runtime.cpu.code.values import Value, constant_text, element_type
from tracegraph.runtime.cpu.code.writer import Word, element_bytes, suffix, vector_of
from tracegraph.runtime.cpu.kernels import name_of
from tracegraph.runtime.cpu.moves.windows import Windows, slots
from tracegraph.runtime.cpu.nests.functions import neutral
from tracegraph.runtime.cpu.products.launches import Kernel


def windows_kernel(windows: Windows, target: Target) -> Kernel:
    """Return the kernel of windows."""
    return Kernel(name_of("windows", windows), _text, windows, target)


def _text(windows: Windows, target: Target) -> str:
    code = _Code(windows, target)
    return code.text(name_of("windows", windows), slots(windows), ("x", "y"), code.unit)


class _Code(UnitCode):
    """Writes one kernel."""

    def __init__(self, windows: Windows, target: Target) -> None:
        super().__init__(target, target.vector_bytes // windows.dtype.compute.itemsize)
        self.spec = windows
        self.kind = element_type(stored_dtype(windows.dtype))
        dtypes = [windows.dtype.compute]
        if windows.kind == "places":
            dtypes.append(int32)
        self.carried = [vector_of(element_type(d), self.width) for d in dtypes]
        self._define(dtypes)

    # What happens to a vector.

    def _define(self, dtypes: list[DType]) -> None:
        spec, stored = self.spec, stored_dtype(self.spec.dtype)

        def tap(m: Emitter, *given: Value) -> tuple[Value, ...]:
            x = widened(m, given[len(dtypes)], spec.dtype)
            if spec.kind != "places":
                return (given[0] + x if spec.kind == "sum" else m.maximum(given[0], x),)
            best, place, _, here, there = given
            hit = (x > best) | (place < 0)
            if spec.dtype.is_floating_point:
                hit = hit | ((x != x) & (best == best))
            hit = hit & there
            return m.where(hit, x, best), m.where(hit, here, place)

        more = [int32, bool_] if spec.kind == "places" else []
        self.library.define("tap", self.width, tap, [*dtypes, stored, *more], cold=False)

        def end(m: Emitter, *given: Value) -> Value:
            if spec.kind != "places":
                return narrowed(m, given[0], spec.result_dtype)
            return m.convert("sext", m.where(given[1] < 0, given[2], given[1]), int64)

        more = [int32] if spec.kind == "places" else []
        self.library.define("end", self.width, end, [*dtypes, *more], cold=False)

    # Loops.

    def unit(self, unit: str) -> None:
        """Compute a block of lanes for all windows of the last dim: or some of these as lanes."""
        w, words, spec = self.w, self.words, self.spec
        result = element_type(stored_dtype(spec.result_dtype))
        rest, block = w.divmod(unit, words["blocks"])
        dims = [f"free{d}" for d in range(spec.free)]
        dims += [f"windows{d}" for d in range(spec.pooled - 1)]
        places = self.places(rest, dims)
        x, y, windows = words["x"], words["y"], places[spec.free :]
        for d, place in enumerate(places[: spec.free]):
            x = w.at(x, w.mul(place, words[f"x_free{d}"]), self.kind)
            y = w.at(y, w.mul(place, words[f"y_free{d}"]), result)
        for d, window in enumerate(windows):
            y = w.at(y, w.mul(window, words[f"y_stride{d}"]), result)
        begin, end = self.block(block)
        if not spec.is_across:
            self.over(begin, end, lambda lanes: self._vector(x, y, windows, lanes))
            return
        last = spec.pooled - 1

        def window_of_all(window: str) -> None:
            to = w.at(y, w.mul(window, words[f"y_stride{last}"]), result)
            self.over(begin, end, lambda lanes: self._vector(x, to, [*windows, window], lanes))

        w.loop(words[f"windows{last}"], window_of_all)

    # Windows.

    def _vector(self, x: str, y: str, windows: Sequence[Word], lanes: Lanes) -> None:
        """Compute and store a vector of results; `windows` has one for each dim but the lanes'."""
        w, spec = self.w, self.spec
        starts = [
            w.sub(w.mul(window, self.words[f"step{d}"]), self.words[f"pad{d}"])
            for d, window in enumerate(windows)
        ]
        if not spec.is_across:
            d = spec.pooled - 1
            starts.append(w.sub(w.mul(lanes.start, self.words[f"step{d}"]), self.words[f"pad{d}"]))
        initial = [self._constant(neutral("sum" if spec.kind == "sum" else "amax",
                                          spec.dtype.compute), spec.dtype.compute)]  # fmt: skip
        if spec.kind == "places":
            initial.append(self._constant(-1, int32))
        found = self._taps(0, x, 0, starts, lanes, initial)
        given = [f"{kind} {v}" for kind, v in zip(self.carried, found, strict=True)]
        if spec.kind == "places":
            first: Word = 0
            for d, start in enumerate(starts):
                first = w.add(w.mul(first, self.words[f"size{d}"]), start)
            given.append(f"<{self.width} x i32> {self._here(first)}")
        kind = element_type(stored_dtype(spec.result_dtype))
        (value,) = self.called("end", [vector_of(kind, self.width)], given)
        if spec.result == "strided":
            stride = self.words["y_lane"]
            start = w.at(y, w.mul(lanes.start, stride), kind)
            scatter(w, kind, self.width, value, start, steps_of(w, self.width, stride), lanes.mask)
        else:
            w.store_lanes(kind, self.width, value, w.at(y, lanes.start, kind), lanes.mask)

    def _constant(self, number: float, dtype: DType) -> str:
        return f"splat ({element_type(dtype)} {constant_text(number, dtype)})"

    def _taps(
        self, d: int, x: str, place: Word, starts: Sequence[Word], lanes: Lanes,
        known: Sequence[str],
    ) -> list[str]:  # fmt: skip
        """Return the fold over the taps of the dims from d on; `place` is that of dims before."""
        w, words, spec = self.w, self.words, self.spec
        if d == spec.pooled:
            return self._tap(x, place, starts[-1], lanes, known)
        is_lanes = d == spec.pooled - 1 and not spec.is_across
        first: Word = 0
        last: Word = words[f"taps{d}"]
        if not is_lanes:  # taps inside of the array
            dilation = words[f"dilation{d}"]
            less = w.sub(dilation, 1)
            first = w.div(w.add(w.most(w.sub(0, starts[d]), 0), less), dilation)
            behind = w.most(w.sub(words[f"size{d}"], starts[d]), 0)
            last = w.least(last, w.div(w.add(behind, less), dilation))

        def turn(values: list[str]) -> list[Word]:
            element = w.add(starts[d], w.mul(values[0], words[f"dilation{d}"]))
            flat = w.add(w.mul(place, words[f"size{d}"]), element)
            if is_lanes:
                folded = self._tap(x, flat, element, lanes, values[1:])
            else:
                start = w.at(x, w.mul(element, words[f"x_stride{d}"]), self.kind)
                folded = self._taps(d + 1, start, flat, starts, lanes, values[1:])
            return [w.add(values[0], 1), *folded]

        begin = [("i64", first), *zip(self.carried, known, strict=True)]
        found = w.repeat(begin, lambda values: w.compare("slt", values[0], last), turn)
        return found[1:]

    def _tap(
        self, x: str, place: Word, element: Word, lanes: Lanes, known: Sequence[str]
    ) -> list[str]:
        """Fold one tap: of elements in all lanes, or from an element of the last dim on."""
        w, spec, width = self.w, self.spec, self.width
        there = lanes.mask or ALL_LANES
        if spec.is_across:
            value = w.load_lanes(self.kind, width, w.at(x, lanes.start, self.kind), lanes.mask)
        else:
            value = self._run(x, element)
        given = [f"{kind} {v}" for kind, v in zip(self.carried, known, strict=True)]
        given.append(f"{vector_of(self.kind, width)} {value}")
        if spec.kind == "places":
            if not spec.is_across:
                there = self._inside(element, self._step(), width)
            given += [f"<{width} x i32> {self._here(place)}", f"<{width} x i1> {there}"]
        return self.called("tap", self.carried, given)

    def _here(self, place: Word) -> str:
        """Return the positions of the elements of a vector, the first of which is known."""
        return self._numbers(place, 0 if self.spec.is_across else self._step(), self.width)

    def _step(self) -> Word:
        """Return the elements from window to window of the last dim."""
        spec = self.spec
        return spec.step if spec.step > 0 else self.words[f"step{spec.pooled - 1}"]

    def _numbers(self, first: Word, step: Word, width: int) -> str:
        """Return first, first + step, ... as i32."""
        w, vector = self.w, f"<{width} x i32>"
        start = w.splat(w.let(f"trunc i64 {first} to i32"), "i32", width)
        if isinstance(step, int):
            steps = f"<{', '.join(f'i32 {i * step}' for i in range(width))}>"
        else:
            wide = steps_of(w, width, step)
            steps = w.let(f"trunc <{width} x i64> {wide} to {vector}")
        return w.let(f"add {vector} {start}, {steps}")

    def _inside(self, element: Word, step: Word, width: int) -> str:
        """Return the mask of element, element + step, ... that are inside of the last dim."""
        w, size = self.w, self.words[f"size{self.spec.pooled - 1}"]
        sizes = w.splat(w.let(f"trunc i64 {size} to i32"), "i32", width)
        return w.let(f"icmp ult <{width} x i32> {self._numbers(element, step, width)}, {sizes}")

    def _run(self, x: str, element: Word) -> str:
        """Load element, element + step, ... of the last dim, neutral where there is none."""
        w, spec, width, kind = self.w, self.spec, self.width, self.kind
        start, vector = w.at(x, element, kind), f"<{width} x {kind}>"
        if spec.step < 0:
            step = self._step()
            mask = self._inside(element, step, width)
            got = gather(w, kind, width, start, steps_of(w, width, step), mask)
            empty = self._neutral_bits(width)
            return w.let(f"select <{width} x i1> {mask}, {vector} {got}, {vector} {empty}")
        count = width * spec.step
        mask = self._inside(element, 1, count)
        place, wide = f"ptr align {element_bytes(kind)} {start}", f"<{count} x {kind}>"
        name = f"@llvm.masked.load.{suffix(kind, count)}.p0"
        got = w.let(f"call {wide} {name}({place}, <{count} x i1> {mask}, "
                    f"{wide} {self._neutral_bits(count)})")  # fmt: skip
        if spec.step == 1:
            return got
        chosen = ", ".join(f"i32 {i * spec.step}" for i in range(width))
        return w.let(f"shufflevector {wide} {got}, {wide} poison, <{width} x i32> <{chosen}>")

    def _neutral_bits(self, width: int) -> str:
        """Return a vector of what changes no fold, as it lies in memory."""
        spec = self.spec
        if spec.kind == "sum":
            return "zeroinitializer"
        dtype = spec.dtype
        number = neutral("amax", dtype)
        if dtype.compute is not dtype:
            bits = int.from_bytes(dtype.np.type(number).tobytes(), "little")
            return f"splat ({self.kind} {bits})"
        return f"splat ({self.kind} {constant_text(number, dtype)})"
