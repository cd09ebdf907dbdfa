package network

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// mmdb makes a database in MaxMind's format, after its specification
// (https://maxmind.github.io/MaxMind-DB/).
type mmdb struct {
	v6       bool
	size     uint // of a record of the tree: 24, 28 or 32 bits
	networks []mmdbNetwork
}

type mmdbNetwork struct {
	prefix string
	value  any // a map[string]any, or whatever the test wants
}

// encode encodes a value of a few types.
func mmdbValue(b []byte, v any) []byte {
	control := func(kind, size int) {
		head := byte(min(size, 29))
		if size >= 285 {
			head = 30
		}
		if kind < 8 {
			b = append(b, byte(kind)<<5|head)
		} else {
			b = append(b, head, byte(kind-7))
		}
		switch head {
		case 29:
			b = append(b, byte(size-29))
		case 30:
			b = binary.BigEndian.AppendUint16(b, uint16(size-285))
		}
	}
	switch v := v.(type) {
	case string:
		control(2, len(v))
		b = append(b, v...)
	case uint16:
		control(5, 2)
		b = binary.BigEndian.AppendUint16(b, v)
	case uint32:
		control(6, 4)
		b = binary.BigEndian.AppendUint32(b, v)
	case uint64:
		control(9, 8)
		b = binary.BigEndian.AppendUint64(b, v)
	case map[string]any:
		control(7, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			b = mmdbValue(mmdbValue(b, k), v[k])
		}
	case []any:
		control(11, len(v))
		for _, e := range v {
			b = mmdbValue(b, e)
		}
	case raw:
		b = append(b, v...)
	default:
		panic(v)
	}
	return b
}

// raw is bytes of the data section.
type raw []byte

func (m mmdb) bytes() []byte {
	// A child is empty (0), another node (its index), or data (-1 - its offset).
	nodes := [][2]int{{}}
	var data []byte
	for _, n := range m.networks {
		p := netip.MustParsePrefix(n.prefix)
		a, bits := p.Addr().As16(), p.Bits()
		from := 0
		if p.Addr().Is4() {
			clear(a[:12]) // in a tree of IPv6, IPv4 is at ::/96
			if bits += 96; !m.v6 {
				from = 96
			}
		}
		at := 0
		for i := from; i < bits-1; i++ {
			bit := a[i/8] >> (7 - i%8) & 1
			if nodes[at][bit] <= 0 {
				old := nodes[at][bit]
				nodes[at][bit] = len(nodes)
				nodes = append(nodes, [2]int{old, old})
			}
			at = nodes[at][bit]
		}
		nodes[at][a[(bits-1)/8]>>(7-(bits-1)%8)&1] = -1 - len(data)
		data = mmdbValue(data, n.value)
	}
	var b []byte
	for _, n := range nodes {
		var r [2]uint32
		for i, child := range n {
			switch {
			case child == 0:
				r[i] = uint32(len(nodes))
			case child > 0:
				r[i] = uint32(child)
			default:
				r[i] = uint32(len(nodes) + 16 + -1 - child)
			}
		}
		switch m.size {
		case 24:
			b = append(b, byte(r[0]>>16), byte(r[0]>>8), byte(r[0]), byte(r[1]>>16), byte(r[1]>>8), byte(r[1]))
		case 28:
			b = append(b, byte(r[0]>>16), byte(r[0]>>8), byte(r[0]), byte(r[0]>>24)<<4|byte(r[1]>>24), byte(r[1]>>16), byte(r[1]>>8), byte(r[1]))
		case 32:
			b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, r[0]), r[1])
		}
	}
	b = append(append(b, make([]byte, 16)...), data...)
	version := uint16(4)
	if m.v6 {
		version = 6
	}
	return mmdbValue(append(b, "\xAB\xCD\xEFMaxMind.com"...), map[string]any{
		"binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0), "build_epoch": uint64(1780000000),
		"database_type": "test", "description": map[string]any{"en": "test"}, "languages": []any{"en"},
		"ip_version": version, "node_count": uint32(len(nodes)), "record_size": uint16(m.size),
	})
}

// write writes what is in a file to a folder of the test.
func write(t testing.TB, name string, b []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
