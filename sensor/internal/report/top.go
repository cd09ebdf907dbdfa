package report

import "slices"

// top keeps the first n of what it is given, in an order, and counts all of it.
type top[T any] struct {
	n       int
	compare func(a, b T) int
	list    []T
	total   uint64
}

func (t *top[T]) add(v T) {
	t.total++
	if t.list = append(t.list, v); len(t.list) >= 2*t.n+64 {
		t.shrink()
	}
}

func (t *top[T]) shrink() {
	slices.SortStableFunc(t.list, t.compare)
	if len(t.list) > t.n {
		clear(t.list[t.n:])
		t.list = t.list[:t.n]
	}
}

// first returns what it keeps, in order.
func (t *top[T]) first() []T {
	t.shrink()
	return t.list
}
