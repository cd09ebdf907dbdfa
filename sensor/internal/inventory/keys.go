package inventory

import (
	"encoding/binary"
	"net/netip"

	"github.com/oddcert/oddcert/parsers/event"
)

// bucket is a table of the database.
type bucket uint8

// The buckets. Keys are in the order of the iterators. The numbers are on disk.
const (
	general      bucket = 1 + iota // "format" and "totals"
	certificates                   // hash
	ders                           // number of the certificate: new ones lie together
	servers                        // server
	sightings                      // hash, server
	shown                          // server, hash: an index of the sightings
	contacts                       // client, server
	met                            // server, client: an index of the contacts
	alerts                         // time, id
	alertTimes                     // id: an index of the alerts, whose values are times
	runs                           // number
	known                          // time, hash: handshakes and alerts that were counted
	counted                        // bucket, key of the entry: sets that are too large for it
	buckets
)

var bucketNames = [buckets]string{"", "general", "certificates", "ders", "servers", "sightings", "shown", "contacts", "met", "alerts", "alert times", "runs", "known", "counted"}

// name is the key of b in the root of the database.
func (b bucket) name() []byte { return []byte(bucketNames[b]) }

// isIndex reports whether what b has follows from other buckets. Its values have no
// checksum.
func (b bucket) isIndex() bool { return b == shown || b == met || b == alertTimes }

// bucketNamed is the bucket of a name in the root of the database.
func bucketNamed(name string) (bucket, bool) {
	for b := general; b < buckets; b++ {
		if bucketNames[b] == name {
			return b, true
		}
	}
	return 0, false
}

// appendAddress appends an address so that the bytes are in the order of
// [netip.Addr.Compare]: the number of its bits, then the address.
func appendAddress(b []byte, a netip.Addr) []byte {
	b, _ = a.AppendBinary(append(b, byte(a.BitLen()))) // it never fails
	return b
}

// appendServer appends a server so that the bytes are in the order of
// [ServerKey.Compare], and none begins another.
func appendServer(b []byte, k *ServerKey) []byte {
	if b = appendAddress(b, k.Address); !k.Address.IsValid() {
		b = append(b, k.MAC[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, k.Port)
	b = append(b, byte(k.Transport))
	b = append(b, k.Carrier...)
	return append(b, 0)
}

// cutAddress is the address that a key begins with, and the rest of the key.
func cutAddress(key []byte) (netip.Addr, []byte) {
	n := 1 + int(key[0])/8
	a, _ := netip.AddrFromSlice(key[1:n])
	return a, key[n:]
}

// parseContact is who the key of a contact names: both have addresses.
func parseContact(key []byte) (client netip.Addr, server ServerKey) {
	client, key = cutAddress(key)
	server.Address, key = cutAddress(key)
	server.Port, server.Transport, server.Carrier = binary.BigEndian.Uint16(key), event.Transport(key[2]), string(key[3:len(key)-1])
	return client, server
}

// appendTime appends a time so that the bytes are in its order.
func appendTime(b []byte, t int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t)^1<<63)
}

// keyOf is the key of an entry in its bucket. A value that was decoded is that of its
// key only if this is the same.
func (v *Certificate) keyOf(b []byte) []byte { return append(b, v.SHA256[:]...) }
func (v *Server) keyOf(b []byte) []byte      { return appendServer(b, &v.ServerKey) }
func (v *Sighting) keyOf(b []byte) []byte {
	return appendServer(append(b, v.Certificate[:]...), &v.Server)
}
func (v *Contact) keyOf(b []byte) []byte {
	return appendServer(appendAddress(b, v.Client), &v.Server)
}
func (v *Alert) keyOf(b []byte) []byte { return append(appendTime(b, v.Time), v.ID...) }

// The keys of the indexes.
func (v *Sighting) shownKey(b []byte) []byte {
	return append(appendServer(b, &v.Server), v.Certificate[:]...)
}
func (v *Contact) metKey(b []byte) []byte {
	return appendAddress(appendServer(b, &v.Server), v.Client)
}
