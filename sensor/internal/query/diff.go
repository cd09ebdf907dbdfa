package query

import (
	"bytes"
	"iter"

	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// Change is one thing that differs between two inventories, A and B.
type Change struct {
	// What is "certificate" for one that only A or only B has, "server" likewise, and
	// "changed" for a server that shows other certificates of its own in B than in A.
	What string
	In   string // "A" or "B", where only that has it; empty for changed

	Certificate *Row              // of a certificate
	Server      *inventory.Server // of a server; of changed, that in B
	Only        [2][]*Row         // of changed: the certificates that the server shows only in A, and only in B
}

// Diff returns what differs: certificates in the order of their hashes, then servers in
// their order. Certificates are leaves, issuers and those of clients.
func Diff(a, b *inventory.Store) iter.Seq2[*Change, error] {
	return func(yield func(*Change, error) bool) {
		certificates := merge(a.Certificates(), b.Certificates(), func(x, y *inventory.Certificate) int { return bytes.Compare(x.SHA256[:], y.SHA256[:]) })
		for pair, err := range certificates {
			if err != nil {
				yield(nil, err)
				return
			}
			store, c, in := a, pair.a, "A"
			if pair.a != nil && pair.b != nil {
				continue
			}
			if c == nil {
				store, c, in = b, pair.b, "B"
			}
			row, err := NewRow(store, c, 0)
			if !yield(&Change{What: "certificate", In: in, Certificate: row}, err) || err != nil {
				return
			}
		}
		servers := merge(a.Servers(), b.Servers(), func(x, y *inventory.Server) int { return x.ServerKey.Compare(y.ServerKey) })
		for pair, err := range servers {
			var change *Change
			switch {
			case err != nil:
			case pair.b == nil:
				change = &Change{What: "server", In: "A", Server: pair.a}
			case pair.a == nil:
				change = &Change{What: "server", In: "B", Server: pair.b}
			default:
				change, err = changed(a, b, pair.b)
			}
			if change == nil && err == nil {
				continue
			}
			if !yield(change, err) || err != nil {
				return
			}
		}
	}
}

// changed returns how the certificates of a server differ; nil where they do not.
func changed(a, b *inventory.Store, v *inventory.Server) (*Change, error) {
	leaves := [2]map[inventory.Hash]bool{{}, {}}
	for i, store := range []*inventory.Store{a, b} {
		for s, err := range store.ShownBy(v.ServerKey) {
			if err != nil {
				return nil, err
			}
			if s.Roles&inventory.Leaf != 0 {
				leaves[i][s.Certificate] = true
			}
		}
	}
	c := &Change{What: "changed", Server: v}
	found := false
	for i, store := range []*inventory.Store{a, b} {
		for _, hash := range sortedHashes(leaves[i]) {
			if leaves[1-i][hash] {
				continue
			}
			found = true
			certificate, err := store.Certificate(hash)
			if err != nil {
				return nil, err
			}
			row, err := NewRow(store, certificate, 0)
			if err != nil {
				return nil, err
			}
			c.Only[i] = append(c.Only[i], row)
		}
	}
	if !found {
		return nil, nil
	}
	return c, nil
}

type pair[T any] struct{ a, b T }

// merge walks through two sequences in the same order at once. What is only in one of
// them has a nil in the other place.
func merge[T any](a, b iter.Seq2[*T, error], compare func(x, y *T) int) iter.Seq2[pair[*T], error] {
	return func(yield func(pair[*T], error) bool) {
		nextA, stopA := iter.Pull2(a)
		defer stopA()
		nextB, stopB := iter.Pull2(b)
		defer stopB()
		x, errA, okA := nextA()
		y, errB, okB := nextB()
		for okA || okB {
			for _, err := range []error{errA, errB} {
				if err != nil {
					yield(pair[*T]{}, err)
					return
				}
			}
			order := 0
			switch {
			case !okA:
				order = 1
			case !okB:
				order = -1
			default:
				order = compare(x, y)
			}
			var p pair[*T]
			if order <= 0 {
				p.a = x
			}
			if order >= 0 {
				p.b = y
			}
			if !yield(p, nil) {
				return
			}
			if order <= 0 {
				x, errA, okA = nextA()
			}
			if order >= 0 {
				y, errB, okB = nextB()
			}
		}
	}
}
