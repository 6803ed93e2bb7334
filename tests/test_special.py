"""The special functions against stored values, SciPy, PyTorch and the rules of their language."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracegraph import philox
from tracegraph import special_functions as special
from tracegraph.ops.array_math import math_over
from tracegraph.special_functions import bessel, gamma, normal

NAMES = (
    "where", "exp", "log", "log1p", "expm1", "sqrt", "abs", "floor", "sin", "cos", "tan",
    "minimum", "maximum", "isnan",
)  # fmt: skip
ARRAYS = SimpleNamespace(**{name: getattr(np, name) for name in NAMES})
UNARY = [name for name in special.__all__ if name not in ("polygamma", "xlogy", "xlog1py")]

# Made with mpmath at 50 digits. The arguments are exact in float32.
REFERENCE = {
    "erf": {
        2.0**-30: 1.05088499104186201e-9, 0.125: 0.140316204801333817,
        -0.46875: -0.492613473217937992, 0.5: 0.520499877813046538, 1.5: 0.966105146475310727,
        -2.75: -0.999899378077880363, 3.875: 0.999999957486055918,
    },
    "erfc": {
        2.0**-30: 0.999999998949115009, -0.375: 1.4041169094348223, 0.5: 0.479500122186953462,
        -1.25: 1.92290012825645823, 2.5: 0.00040695201744495894, 4.5: 1.96616044154288748e-10,
        8.75: 3.59711572864707202e-35,
    },
    "ndtr": {
        0.25: 0.598706325682923724, -0.625: 0.265985529048700532, 1.0: 0.841344746068542949,
        -1.5: 0.066807201268858066, -4.5: 3.3976731247300604e-6, -9.0: 1.12858840595384065e-19,
        -12.5: 3.73256429887771338e-36,
    },
    "log_ndtr": {
        0.25: -0.512984075409430432, -0.625: -1.32431337375283879, 1.0: -0.17275377902344989,
        -1.5: -2.70594440082388981, 4.5: -3.39767889683446614e-6, -9.0: -43.6281491133321155,
        -1000.0: -500007.826694812184,
    },
    "ndtri": {
        2.0**-100: -11.4845404349730378, 2.0**-30: -6.00935356553074389,
        2.0**-10: -3.09726907819878446, 0.0625: -1.53412054435254631, 0.375: -0.318639363964375163,
        0.75: 0.674489750196081743, 0.9990234375: 3.09726907819878446,
    },
    "erfinv": {
        2.0**-30: 8.25363141906222341e-10, 0.125: 0.111235451840949959,
        -0.75: -0.813419847597618542, 0.84375: 1.00253397062403993, 0.9375: 1.31715033498613075,
        -0.9990234375: -2.33146777362194767, 1 - 2.0**-20: 3.46550502580333072,
    },
    "lgamma": {
        -(2.0**-20): 13.8629441616754089,
        2.0**-60: 41.5888308335967186, 0.375: 0.863073982270647462, 1.0625: -0.0329571002935778191,
        1.9375: -0.025147619402988871, 3.5: 1.20097360234707422, 7.75: 8.02545839631598387,
        30.5: 72.9534711841694083, 2.0**40: 29385423763643.474, -0.625: 1.33307761151638302,
        -4.25: -2.07007243425732411,
    },
    "digamma": {
        2.0**-60: -1.15292150460684698e+18, 0.375: -2.75399904914513958,
        1.4375: -0.0236135440052978991, 1.5: 0.0364899739785765206, 5.25: 1.55997733640754555,
        7.75: 1.9817915626943456, 30.5: 3.40124366896166108, 2.0**40: 27.7258872223973576,
        -0.625: -1.15399904914513958, -4.25: 4.70156998999733879,
    },
    "polygamma 1": {
        2.0**-10: 1048577.64258939215, 0.375: 8.16177763276150785, 1.5: 0.934802200544679309,
        7.75: 0.137713791447655661, 1000.0: 0.00100050016666663333, -0.625: 10.7217776327615079,
        -4.25: 19.5294483898814631,
    },
    "polygamma 2": {
        2.0**-10: -2147483650.39778392, 0.375: -38.962118497034144, 1.5: -0.828796644234319996,
        7.75: -0.018935466672670957, 1000.0: -1.00100049999983333e-6, -0.625: -30.770118497034144,
        -4.25: 123.981264367327579,
    },
    "polygamma 7": {
        0.0625: 21646635174959.2497, 0.375: 12888247.4729220481, 1.5: 200.218185598064969,
        7.75: 0.000654924938326414858, 100.0: 7.45535949615832797e-12, -0.625: 13104713.8246404481,
        -4.25: 330352695.843542513,
    },
    "i0": {
        2.0**-30: 1.0, 0.75: 1.14564677804400133, -3.5: 7.37820343222547966,
        9.75: 2221.61705310570244, 10.5: 4527.44171463888801, 60.0: 5.89407705560980117e+24,
    },
    "i0e": {
        2.0**-30: 0.999999999068677426, 0.75: 0.541165219203495323, -3.5: 0.222802438010779163,
        9.75: 0.129508419049560634, 10.5: 0.124669669459086165, 2.0**30: 0.0000121747522109337058,
    },
    "i1": {
        2.0**-30: 4.65661287307739258e-10, 0.75: 0.401992461580922205, -3.5: -6.20583492225836547,
        9.75: 2104.40468836843316, 10.5: 4306.13487509627468, 60.0: 5.84475158839046828e+24,
    },
    "i1e": {
        2.0**-30: 4.65661286874058389e-10, 0.75: 0.189887793304855017, -3.5: -0.187399976603049987,
        9.75: 0.122675563662101577, 10.5: 0.118575664881268372, 2.0**30: 0.000012174752205264395,
    },
    "sinc": {
        2.0**-30: 0.999999999999999999, 0.375: 0.784213303576537122, -1.25: -0.180063263231421214,
        2.75: 0.0818469378324641881, 1000.5: 0.000318150810778401471,
    },
    "entr": {
        2.0**-30: 1.93663085035964467e-8, 0.375: 0.367810969879397339, 0.875: 0.116839968546457295,
        2.5: -2.29072682968538766,
    },
    "logit": {
        2.0**-30: -20.7944154158670367, 0.125: -1.94591014905531331, 0.4375: -0.251314428280906078,
        0.625: 0.510825623765990683, 0.9990234375: 6.93049476595162648,
    },
    "expit": {
        0.375: 0.592666599954069759, -2.5: 0.0758581800212435512, 12.0: 0.999993855825397785,
        -60.0: 8.75651076269652034e-27,
    },
}  # fmt: skip

FLOAT64_BOUND = {"lgamma": 1e-13, "digamma": 1e-13, "polygamma": 1e-13}


def call(name: str, x: Any, m: SimpleNamespace = ARRAYS) -> Any:
    """Call the function of an entry such as "erf" or "polygamma 2"."""
    function, _, order = name.partition(" ")
    if order:
        return getattr(special, function)(m, int(order), x)
    return getattr(special, function)(m, x)


def bound(name: str, dtype: type) -> float:
    """Return the relative error that is allowed."""
    return 1e-6 if dtype is np.float32 else FLOAT64_BOUND.get(name.partition(" ")[0], 1e-14)


def assert_close(actual: np.ndarray, expected: np.ndarray, relative: float) -> None:
    """Compare with a relative bound alone, besides the spacing of subnormal numbers."""
    smallest = np.finfo(actual.dtype).tiny * relative
    error = np.abs(actual.astype(np.float64) - expected)
    assert np.all(error <= relative * np.abs(expected) + smallest)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", REFERENCE)
def test_stored_values(name: str, dtype: type) -> None:
    x = np.array(list(REFERENCE[name]), dtype)
    expected = np.array(list(REFERENCE[name].values()))
    actual = call(name, x)
    assert actual.dtype == dtype
    assert_close(actual, expected, bound(name, dtype))
    assert call(name, x[:1]).tolist() == actual[:1].tolist()


def test_every_function_has_stored_values() -> None:
    assert {name.partition(" ")[0] for name in REFERENCE} == {*UNARY, "polygamma"}


@pytest.mark.parametrize("name", ["erf", "erfc", "ndtr"])
def test_last_places(name: str) -> None:
    x = np.array(list(REFERENCE[name]))
    expected = np.array(list(REFERENCE[name].values()))
    assert np.all(np.abs(call(name, x) - expected) <= 4 * np.spacing(np.abs(expected)))


def grid(*parts: Iterable[float]) -> np.ndarray:
    """Join pieces of a grid; the points are exact in float32."""
    return np.concatenate([np.asarray(part, np.float32) for part in parts]).astype(np.float64)


SMALL = np.geomspace(1e-35, 1e-2, 200)
HALF_OPEN = grid(SMALL, np.linspace(1e-3, 0.999, 999))
EVERYWHERE = grid(-SMALL, SMALL, np.linspace(-9, 9, 1501))
# Away from the poles, and from the zeros of the functions for negative arguments.
POSITIVE = grid(SMALL, np.linspace(0.01, 20, 1777), np.geomspace(20, 1e6, 100))
GRIDS = {
    "erf": EVERYWHERE, "erfc": EVERYWHERE, "ndtr": EVERYWHERE, "log_ndtr": EVERYWHERE,
    "ndtri": HALF_OPEN, "erfinv": grid(-HALF_OPEN, HALF_OPEN), "lgamma": POSITIVE,
    "digamma": POSITIVE, "i0": EVERYWHERE, "i0e": grid(EVERYWHERE, POSITIVE), "i1": EVERYWHERE,
    "i1e": grid(EVERYWHERE, POSITIVE), "sinc": EVERYWHERE, "entr": HALF_OPEN,
    "logit": HALF_OPEN, "expit": EVERYWHERE, "polygamma 1": POSITIVE[100:],
    "polygamma 4": POSITIVE[150:],
}  # fmt: skip
# SciPy itself loses digits: x * x in the tails, sin(pi x) close to integers, differences of
# logarithms near the zeros of log Gamma, the exponential of a product.
SCIPY_BOUND = {
    "ndtr": 1e-13, "log_ndtr": 1e-13, "sinc": 1e-12, "digamma": 2e-13, "polygamma": 2e-13,
}  # fmt: skip
SCIPY_NAMES = {"lgamma": "gammaln"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", GRIDS)
def test_against_scipy(name: str, dtype: type) -> None:
    oracle = pytest.importorskip("scipy.special", reason="the oracle scipy is not installed")
    function, _, order = name.partition(" ")
    x = GRIDS[name]
    if function == "sinc":
        expected = np.sinc(x)
        x, expected = x[np.abs(expected) > 1e-3], expected[np.abs(expected) > 1e-3]
    elif order:
        expected = oracle.polygamma(int(order), x)
    else:
        expected = getattr(oracle, SCIPY_NAMES.get(function, function))(x)
    keep = np.abs(expected) < np.finfo(dtype).max
    actual = call(name, x[keep].astype(dtype))
    assert actual.dtype == dtype
    allowed = max(bound(name, dtype), SCIPY_BOUND.get(function, 0.0))
    assert_close(actual, expected[keep], allowed)


# Where the mathematical value is another than PyTorch's, or PyTorch's is inexact.
OUR_OWN = {
    "i0": [math.inf, -math.inf],  # inf; PyTorch has inf * 0 = NaN
    "i1": [math.inf, -math.inf],
    "sinc": [1e300, -1e300],  # 0; PyTorch overflows to NaN
    "polygamma 1": [-math.inf, -1.0, -2.0, -30.0, -1e300],  # the poles: inf, as in SciPy
    "polygamma 2": [math.inf, -math.inf],  # -0 at inf, as in SciPy
}
EDGES = [
    0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 30.0, -30.0, 5e-324, -5e-324, 1e-310, 1e-300, -1e-300,
    1e300, -1e300, math.inf, -math.inf, math.nan,
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("name", [*UNARY, "polygamma 1", "polygamma 2"])
def test_edges_as_in_pytorch(name: str) -> None:
    import torch

    function, _, order = name.partition(" ")
    own = OUR_OWN.get(name, [])
    x = np.array([edge for edge in EDGES if edge not in own])
    oracle = getattr(torch.special, {"lgamma": "gammaln"}.get(function, function))
    tensor = torch.from_numpy(x)
    expected = (oracle(int(order), tensor) if order else oracle(tensor)).numpy()
    with np.errstate(over="ignore", divide="ignore"):
        actual = call(name, x)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-15)  # trigamma: 5e-10
    if name in ("erf", "erfinv"):
        assert np.signbit(actual[:2]).tolist() == [False, True]


def test_edges_where_we_differ() -> None:
    with np.errstate(over="ignore"):
        values = call("i0", np.array([math.inf, -math.inf, 712.5])).tolist()
        assert values == [math.inf, math.inf, pytest.approx(4.06829309066434e307, rel=1e-14)]
        assert call("i1", np.array([math.inf, -math.inf])).tolist() == [math.inf, -math.inf]
    assert call("sinc", np.array([1e300, 3.0])).tolist() == [0, 0]
    assert call("polygamma 1", np.array([-1.0, -math.inf])).tolist() == [math.inf, math.inf]
    values = call("polygamma 2", np.array([-1.0, 0.0, math.inf])).tolist()
    assert values == [-math.inf, -math.inf, 0]
    assert np.isnan(call("digamma", np.array([-1.0, -1e300, -math.inf]))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_subnormal_arguments(dtype: type) -> None:
    x = np.array([1, 3, 1000], dtype) * np.finfo(dtype).smallest_subnormal
    for name, slope in (("erf", 2 / math.sqrt(math.pi)), ("erfinv", math.sqrt(math.pi) / 2)):
        assert call(name, x).tolist() == (x.astype(np.float64) * slope).astype(dtype).tolist()
    for name in ("i1", "i1e"):
        assert call(name, x).tolist() == (x * dtype(0.5)).tolist()
    logarithm = np.log(x.astype(np.longdouble)).astype(np.float64)
    assert_close(call("lgamma", x), -logarithm, 1e-6 if dtype is np.float32 else 1e-14)
    assert_close(call("lgamma", -x), -logarithm, 1e-6 if dtype is np.float32 else 1e-14)
    assert call("sinc", x).tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["xlogy", "xlog1py"])
def test_products_with_logarithms(name: str) -> None:
    function, log = getattr(special, name), {"xlogy": np.log, "xlog1py": np.log1p}[name]
    x = np.array([0.0, 0.0, -0.0, 0.0, math.nan, 2.0, 0.5, -3.0])
    y = np.array([-1.0, math.nan, math.inf, -7.0, 1.0, 3.0, 0.25, 1e-3])
    expected = [0, math.nan, 0, 0, math.nan, *(x[5:] * log(y[5:]))]
    np.testing.assert_array_equal(function(ARRAYS, x, y), expected)
    single = function(ARRAYS, x.astype(np.float32), y.astype(np.float32))
    assert single.dtype == np.float32


@pytest.mark.parametrize("order", [-1, 31, 1.0, "1"])
def test_other_orders_are_refused(order: Any) -> None:
    with pytest.raises(ValueError, match="integer order from 0 to 30"):
        special.polygamma(ARRAYS, order, np.ones(2))


def test_order_zero_is_digamma() -> None:
    x = np.array([0.5, 3.0, -1.25])
    assert call("polygamma 0", x).tolist() == call("digamma", x).tolist()


@pytest.mark.parametrize("order", range(1, 31))
def test_polygamma_recurrence(order: int) -> None:
    x = np.linspace(0.3, 40, 50)
    step = (-1) ** order * math.factorial(order) / x ** (order + 1)
    actual = special.polygamma(ARRAYS, order, x)
    error = special.polygamma(ARRAYS, order, x + 1) - (actual + step)
    assert np.all(np.abs(error) <= 1e-14 * np.abs(actual))


@given(st.floats(-30, 30))
def test_inverses_and_reflections(x: float) -> None:
    point = np.array([x])
    below = special.ndtr(ARRAYS, point)
    assert abs(below + special.ndtr(ARRAYS, -point) - 1) <= 2.3e-16
    if x < 5:
        assert abs(special.ndtri(ARRAYS, below) - x) <= 1e-14 * abs(x) + 1e-9 * (x > 0) + 1e-15
    assert abs(special.expit(ARRAYS, point) + special.expit(ARRAYS, -point) - 1) <= 2.3e-16
    error = special.erf(ARRAYS, point)
    assert special.erf(ARRAYS, -point) == -error
    assert abs(error + special.erfc(ARRAYS, point) - 1) <= 2.3e-16


def test_fitted_tables_are_what_the_tool_makes() -> None:
    pytest.importorskip("mpmath", reason="mpmath, which the fits are made with, is not installed")
    from tests.tools import fit_special

    for name, values in fit_special.tables().items():
        (module,) = (module for module in (bessel, gamma, normal) if hasattr(module, name))
        assert getattr(module, name) == values


def test_erf_for_float32() -> None:
    m = math_over(np)
    x = np.concatenate([np.linspace(-6, 6, 40001), [0.0, -0.0, 1e-30, 1e-10, 9.0, 1e18, np.inf]])
    x = x.astype(np.float32)
    exact = np.array([math.erf(v) for v in x.astype(np.float64)])
    assert_close(normal.erf_single(m, x), exact, 3.5e-7)
    assert np.abs(normal.erf_single(m, x)).max() == 1
    assert np.isnan(normal.erf_single(m, np.array([np.nan], np.float32)))
    assert m.erf(x).tolist() == normal.erf_single(m, x).tolist()
    assert m.erf(x.astype(np.float64)).tolist() == normal.erf(m, x.astype(np.float64)).tolist()


def test_both_copies_of_as241_are_equal() -> None:
    for region in ("CENTRAL", "MIDDLE", "FAR"):
        for part in ("NUMERATOR", "DENOMINATOR"):
            ours = getattr(normal, f"QUANTILE_{region}_{part}")
            assert ours == getattr(philox, f"{region}_{part}")
