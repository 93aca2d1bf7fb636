"""Mean field of a fully connected CRF whose two kernels are lattices, all labels at once.

Source: Kraehenbuehl & Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NIPS 2011, algorithm 1, with Potts compatibility. A row holds a number for each label.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trashseg.compiled import compiled
from trashseg.crf.lattice import Lattice, restrict
from trashseg.crf.simd import (
    Rows,
    empty_rows,
    fill,
    lane_count,
    lanes_of,
    larger,
    largest,
    load,
    magnitude,
    put_rows,
    store,
    take_rows,
    total,
)

# numba compiles this file anew when it changes, but not when another does whose functions it uses.
SIMD_VERSION = "3a030e8bf9ca"
"""Hash of simd.py; a test says what it has to be."""

DECIDED = 0.999
"""A pixel whose likeliest label has more than this after the first iteration is held from then on."""
DRIFT = 2e-3
"""How far the last iteration may move a pixel that was held; if it moves one further, none is held."""


def infer(
    prior: Rows, wide: Lattice, near: Lattice, iterations: int, *, hold_decided: bool = True
) -> Rows:
    """Probabilities (N,) rows after `iterations`; row i of each argument is about the same pixel.
    `prior` (N,) are the probabilities before, over 0 but where a row is only filled up; their sum does
    not matter. `wide` is the lattice of 5 dimensions, `near` that of 2.

    Most pixels of a photo are decided after one iteration and do not change any more. They take part
    in the first iteration and in the last. In between they are held: what they send to the others is
    worked out once, and the others go on in lattices of their own, which are smaller. No label is left
    out, and no iteration. The last one, which is whole, tells whether a pixel that was held would have
    gone elsewhere (`DRIFT`); then all is done again and no pixel is held. Of 182 votes on real photos
    that were 4, and on none was a probability more than 0.003 away from pydensecrf's. Without
    `hold_decided` no pixel is ever held.
    """
    field = MeanField(prior, wide, near)
    if hold_decided and iterations > 2 and _infer_undecided(field, iterations):
        return field.q
    field.begin()
    for iteration in range(iterations):
        field.iterate(last=iteration == iterations - 1)
    return field.q


def _infer_undecided(field: "MeanField", iterations: int) -> bool:
    """Whether it could be done with the decided pixels held."""
    field.begin()
    field.iterate()
    field.hold_decided()
    field.iterate_others(iterations - 2)
    return field.iterate(last=True) <= DRIFT


class Messages(NamedTuple):
    """What N pixels send to each other through one lattice of M vertices."""

    vertices: NDArray[np.int32]
    weights: NDArray[np.float32]
    neighbours: NDArray[np.int32]
    blurred: Rows
    """(M+1,) what the pixels receive; the row of vertex 0, which is none, is zero."""
    splatted: Rows
    """(M+1,) what they have sent."""


class MeanField:
    """Probabilities `q` of N pixels, and the messages that go with them."""

    def __init__(self, prior: Rows, wide: Lattice, near: Lattice) -> None:
        self.prior = prior
        self.q = empty_rows(len(prior), lane_count(prior))
        self.held = np.zeros(len(prior), dtype=np.bool_)
        self._lattices = wide, near
        self._wide, self._near = (_no_messages(lattice, prior) for lattice in (wide, near))

    def begin(self) -> None:
        """Probabilities that no message has changed yet."""
        self._update(informed=False, last=False)

    def iterate(self, last: bool = False) -> float:
        """One iteration; how far a pixel that is held has moved at most. After the last one nothing is
        sent any more."""
        self._blur()
        return self._update(informed=True, last=last)

    def hold_decided(self) -> None:
        self.held = _decided(self.q, np.float32(DECIDED))

    def iterate_others(self, iterations: int) -> None:
        """Some iterations of all pixels but those that are held."""
        others = np.flatnonzero(~self.held)
        self._splat(np.flatnonzero(self.held))
        self._blur()
        prior = empty_rows(len(others), lane_count(self.prior))
        _inform(others, self.prior, self._wide, self._near, prior)
        part = MeanField(prior, *(restrict(lattice, others) for lattice in self._lattices))
        part.q = take_rows(self.q, others)
        part._splat(np.arange(len(others)))
        for _ in range(iterations):
            part.iterate()
        put_rows(self.q, others, part.q)
        self._splat(np.arange(len(self.q)))

    def _update(self, informed: bool, last: bool) -> float:
        rows = self.prior, self.q, self.held
        return float(_update(*rows, self._wide, self._near, informed, last))

    def _blur(self) -> None:
        self._wide, self._near = _blurred(self._wide), _blurred(self._near)

    def _splat(self, rows: NDArray[np.intp]) -> None:
        _splat(rows, self.q, self._wide)
        _splat(rows, self.q, self._near)


def _no_messages(lattice: Lattice, like: Rows) -> Messages:
    count, lanes = lattice.neighbours.shape[1], lane_count(like)
    tables = empty_rows(count, lanes), empty_rows(count, lanes)
    for table in tables:
        lanes_of(table[:1])[:] = 0
    return Messages(lattice.vertices, lattice.weights, lattice.neighbours, *tables)


def _blurred(messages: Messages) -> Messages:
    """What was splatted becomes what is received."""
    blurred, other = _blur(messages.splatted, messages.blurred, messages.neighbours)
    return messages._replace(blurred=blurred, splatted=other)


# --- loops over pixels -------------------------------------------------------------------------


@compiled
def _update(prior: Any, q: Any, held: Any, wide: Any, near: Any, informed: bool, last: bool) -> Any:
    """Receive messages if `informed`, decide, and send what was decided unless it is the `last`."""
    _clear(wide.splatted)
    _clear(near.splatted)
    moved = fill(prior, 0.0)
    for p in range(len(prior)):
        new = _informed(prior, p, wide, near) if informed else load(prior, p)
        new = new * (np.float32(1) / total(new))
        if held[p]:
            moved = larger(moved, magnitude(new - load(q, p)))
        store(q, p, new)
        if not last:
            _send(wide, p, new)
            _send(near, p, new)
    return largest(moved)


@compiled
def _inform(rows: Any, prior: Any, wide: Any, near: Any, informed: Any) -> None:
    """`prior` of these rows after the messages that they receive."""
    for i in range(len(rows)):
        store(informed, i, _informed(prior, rows[i], wide, near))


@compiled
def _informed(prior: Any, p: int, wide: Any, near: Any) -> Any:
    """What is proportional to prior * exp(messages); the largest exponential is 1, and none is 0."""
    messages = _receive_wide(wide, p) + _receive_near(near, p)
    relative = larger(messages - largest(messages), fill(prior, -50.0))
    return load(prior, p) * _exponential(relative)


@compiled
def _splat(rows: Any, q: Any, messages: Any) -> None:
    """Only these rows send."""
    _clear(messages.splatted)
    for i in range(len(rows)):
        _send(messages, rows[i], load(q, rows[i]))


@compiled
def _send(messages: Any, p: int, value: Any) -> None:
    for i in range(messages.vertices.shape[1]):
        vertex = messages.vertices[p, i]
        share = value * messages.weights[p, i]
        store(messages.splatted, vertex, load(messages.splatted, vertex) + share)


@compiled
def _receive_wide(messages: Any, p: int) -> Any:
    """In pairs: in a loop each addition would wait for the one before."""
    first = _from_vertex(messages, p, 0) + _from_vertex(messages, p, 1)
    second = _from_vertex(messages, p, 2) + _from_vertex(messages, p, 3)
    third = _from_vertex(messages, p, 4) + _from_vertex(messages, p, 5)
    return first + second + third


@compiled
def _receive_near(messages: Any, p: int) -> Any:
    first = _from_vertex(messages, p, 0) + _from_vertex(messages, p, 1)
    return first + _from_vertex(messages, p, 2)


@compiled
def _from_vertex(messages: Any, p: int, i: int) -> Any:
    return load(messages.blurred, messages.vertices[p, i]) * messages.weights[p, i]


@compiled
def _decided(q: Any, least: Any) -> Any:
    decided = np.empty(len(q), np.bool_)
    for p in range(len(q)):
        decided[p] = largest(load(q, p)) > least
    return decided


@compiled
def _exponential(x: Any) -> Any:
    """e**x by Taylor's series at x / 64, squared six times: to 1e-5 of itself for x from -20 to 0, and
    to 1e-2 from -50, where it is 2e-22."""
    y = x * np.float32(1 / 64)
    e = y * np.float32(1 / 720) + np.float32(1 / 120)
    e = e * y + np.float32(1 / 24)
    e = e * y + np.float32(1 / 6)
    e = e * y + np.float32(1 / 2)
    e = e * y + np.float32(1)
    e = e * y + np.float32(1)
    e = e * e
    e = e * e
    e = e * e
    e = e * e
    e = e * e
    return e * e


# --- loops over vertices -----------------------------------------------------------------------


@compiled
def _clear(table: Any) -> None:
    zero = fill(table, 0.0)
    for vertex in range(len(table)):
        store(table, vertex, zero)


@compiled
def _blur(values: Any, other: Any, neighbours: Any) -> Any:
    """Along all axes, by (1/2, 1, 1/2), to and fro between two tables: that which holds the result
    comes first."""
    for axis in range(len(neighbours)):
        for vertex in range(1, len(values)):
            before = load(values, neighbours[axis, vertex, 0])
            after = load(values, neighbours[axis, vertex, 1])
            store(other, vertex, load(values, vertex) + (before + after) * np.float32(0.5))
        values, other = other, values
    return values, other
