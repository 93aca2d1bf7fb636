"""Rows of float32 as single values in numba's code: what is loaded, added and stored is a whole row.

numba leaves it to LLVM to find vectors in loops over single numbers, which fails wherever two arrays
might overlap. Here a row of L numbers is a value of LLVM's type <L x float>, for which it uses whatever
registers the processor has. An array of rows has a record as dtype (`row_dtype`): so L is known when a
function is compiled.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, overload, register_model
from numpy.typing import NDArray

from trashseg.compiled import compiled

Rows = NDArray[np.void]
CACHE_LINE = 64  # bytes
FAST = ("nnan", "ninf", "nsz", "contract", "reassoc")


def row_dtype(lanes: int) -> np.dtype[np.void]:
    return np.dtype([("lanes", np.float32, (lanes,))])


def empty_rows(count: int, lanes: int) -> Rows:
    """(count,) rows. The first begins a cache line, so that no row lies across more than it must."""
    size = count * lanes * 4
    memory = np.empty(size + CACHE_LINE, dtype=np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(row_dtype(lanes))


def lane_count(rows: Rows) -> int:
    return rows.dtype.itemsize // 4


def lanes_of(rows: Rows) -> NDArray[np.float32]:
    """The same memory as an array (count, lanes)."""
    return rows.view(np.float32).reshape(len(rows), lane_count(rows))


class Vector(types.Type):
    """numba's type of a row that has been loaded."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"float32x{lanes}")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, _llvm(vector.lanes))


def _llvm(lanes: int) -> ir.VectorType:
    return ir.VectorType(ir.FloatType(), lanes)


def _lanes(rows: Any) -> int:
    return int(rows.dtype.size) // 4


# --- memory: indices are not checked, and never negative ---------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def load(typingctx: Any, rows: Any, index: Any) -> Any:
    """Row `index` of an array of rows."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature, arguments), align=4)

    return Vector(_lanes(rows))(rows, index), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(typingctx: Any, rows: Any, index: Any, vector: Any) -> Any:
    """Write row `index`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _address(context, builder, signature, arguments), align=4)
        return context.get_dummy_value()

    return types.void(rows, index, vector), generate


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    rows, index = signature.args[:2]
    array = context.make_array(rows)(context, builder, arguments[0])
    place = context.cast(builder, arguments[1], index, types.intp)
    first = builder.mul(place, ir.Constant(place.type, _lanes(rows)))
    numbers = builder.bitcast(array.data, ir.FloatType().as_pointer())
    return builder.bitcast(builder.gep(numbers, [first]), _llvm(_lanes(rows)).as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def fill(typingctx: Any, rows: Any, number: Any) -> Any:
    """A row as long as those of `rows`, with the same number everywhere."""
    lanes = _lanes(rows)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scalar = context.cast(builder, arguments[1], signature.args[1], types.float32)
        return _repeat(builder, scalar, lanes)

    return Vector(lanes)(rows, number), generate


def _repeat(builder: Any, scalar: Any, lanes: int) -> Any:
    undefined = ir.Constant(_llvm(lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(first, undefined, zeros)


# --- arithmetic --------------------------------------------------------------------------------


def _arithmetic(instruction: str) -> Any:
    """Of a row and a row, or of a row and a single number."""

    @intrinsic  # type: ignore[untyped-decorator]
    def calculate(typingctx: Any, left: Any, right: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            first, second = arguments
            if not isinstance(right, Vector):
                second = context.cast(builder, second, signature.args[1], types.float32)
                second = _repeat(builder, second, left.lanes)
            return getattr(builder, instruction)(first, second, flags=FAST)

        return left(left, right), generate

    return calculate


def _overload(symbol: Callable[[Any, Any], Any], calculate: Any) -> None:
    @overload(symbol)  # type: ignore[untyped-decorator]
    def choose(left: Any, right: Any) -> Any:
        def apply(left: Any, right: Any) -> Any:
            return calculate(left, right)

        return apply if isinstance(left, Vector) else None


_overload(operator.add, _arithmetic("fadd"))
_overload(operator.sub, _arithmetic("fsub"))
_overload(operator.mul, _arithmetic("fmul"))


def _call(builder: Any, name: str, lanes: int, result: Any, arguments: list[Any]) -> Any:
    """LLVM's intrinsic function `name` for rows of that length."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{lanes}f32")
    return builder.call(function, arguments, fastmath=FAST)


@intrinsic  # type: ignore[untyped-decorator]
def larger(typingctx: Any, left: Any, right: Any) -> Any:
    """The larger of two rows' numbers, place by place."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "maxnum", left.lanes, _llvm(left.lanes), list(arguments))

    return left(left, right), generate


@intrinsic  # type: ignore[untyped-decorator]
def magnitude(typingctx: Any, vector: Any) -> Any:
    """A row's numbers without their signs."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "fabs", vector.lanes, _llvm(vector.lanes), list(arguments))

    return vector(vector), generate


@intrinsic  # type: ignore[untyped-decorator]
def largest(typingctx: Any, vector: Any) -> Any:
    """The largest of a row's numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name = "vector.reduce.fmax"
        return _call(builder, name, vector.lanes, ir.FloatType(), list(arguments))

    return types.float32(vector), generate


@intrinsic  # type: ignore[untyped-decorator]
def total(typingctx: Any, vector: Any) -> Any:
    """The sum of a row's numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(ir.FloatType(), 0.0)
        name = "vector.reduce.fadd"
        return _call(builder, name, vector.lanes, ir.FloatType(), [zero, *arguments])

    return types.float32(vector), generate


# --- copying: numpy takes eight times as long for records ---------------------------------------


def take_rows(rows: Rows, places: NDArray[np.intp]) -> Rows:
    """A copy of the rows in these places, in this order."""
    taken = empty_rows(len(places), lane_count(rows))
    _take(rows, places, taken)
    return taken


@compiled
def _take(rows: Any, places: Any, taken: Any) -> None:
    for i in range(len(places)):
        store(taken, i, load(rows, places[i]))


@compiled
def put_rows(rows: Any, places: Any, new: Any) -> None:
    """Write `new` to these places of `rows`."""
    for i in range(len(places)):
        store(rows, places[i], load(new, i))
