package network

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2"
)

// database is one file in MaxMind's format (https://maxmind.github.io/MaxMind-DB/),
// in memory.
type database struct {
	reader *maxminddb.Reader
	size   int64 // bytes
	v6     bool  // it knows IPv6 too
}

// openDatabases reads databases into memory.
func (l *loader) openDatabases(files []string) (databases []database) {
	if len(files) > maxDatabases {
		l.problem(files[maxDatabases], 0, 0, "", "there are more than %d databases", maxDatabases)
		return nil
	}
	left := int64(maxDatabase)
	for _, name := range files {
		d, err := openDatabase(name, left)
		if err != nil {
			l.problem(name, 0, 0, "", "%s", plainError(err))
			continue
		}
		left -= d.size
		databases = append(databases, d)
	}
	return databases
}

// openDatabase reads a database of at most limit bytes.
func openDatabase(name string, limit int64) (d database, err error) {
	info, err := os.Stat(name) // before it is opened: a named pipe waits for somebody to write
	switch {
	case err != nil:
		return d, err
	case info.IsDir():
		return d, errors.New("is a folder: give the database in it")
	case !info.Mode().IsRegular():
		return d, errors.New("is no regular file")
	case info.Size() > limit:
		return d, fmt.Errorf("has %d bytes; all databases together may have %d", info.Size(), maxDatabase)
	case strings.EqualFold(filepath.Ext(name), ".gz"):
		return d, errors.New("is compressed: unpack it")
	}
	f, err := os.Open(name)
	if err != nil {
		return d, err
	}
	defer f.Close()
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return d, fmt.Errorf("read: %w", err)
	}
	return newDatabase(b)
}

// newDatabase takes the bytes of a database. It looks at the whole search tree, and
// decodes some of the records, so that a database that is corrupt, or has nothing
// that is asked for, is refused.
func newDatabase(b []byte) (database, error) {
	r, err := maxminddb.OpenBytes(b, maxminddb.DisableStringCache())
	if err != nil {
		return database{}, fmt.Errorf("is no database in MaxMind's format, or a corrupt one: %w", err)
	}
	m := &r.Metadata
	if m.BinaryFormatMajorVersion != 2 || m.IPVersion != 4 && m.IPVersion != 6 || m.RecordSize != 24 && m.RecordSize != 28 && m.RecordSize != 32 || m.NodeCount == 0 {
		return database{}, fmt.Errorf("has a format that is not read: version %d, for IPv%d, with %d nodes of 2 times %d bits",
			m.BinaryFormatMajorVersion, m.IPVersion, m.NodeCount, m.RecordSize)
	}
	d := database{r, int64(len(b)), m.IPVersion == 6}
	tree := b[:m.NodeCount*m.RecordSize/4] // OpenBytes has seen that they are there
	const separator = 16                   // bytes between tree and data
	data := uint64(len(b) - len(tree) - separator)
	places := make([]uint64, data/64+1) // a bit for each place of a record
	for node := uint(0); node < m.NodeCount; node++ {
		for _, next := range children(tree, node, m.RecordSize) {
			if next <= uint64(m.NodeCount) {
				continue
			}
			at := next - uint64(m.NodeCount) - separator
			if at >= data { // also where it was less than 0
				return database{}, errors.New("is corrupt: its search tree leads out of the file")
			}
			places[at/64] |= 1 << (at % 64)
		}
	}
	records := 0
	for _, word := range places {
		records += bits.OnesCount64(word)
	}
	step, i, useful := records/checkedRecords+1, 0, false
	for at, word := range places {
		for ; word != 0; word &= word - 1 {
			if i++; i%step != 0 {
				continue
			}
			v, err := d.values(uint32(at*64 + bits.TrailingZeros64(word)))
			if err != nil {
				return database{}, fmt.Errorf("is corrupt: %w", err)
			}
			useful = useful || v != values{}
		}
	}
	if !useful {
		return database{}, errors.New("has neither countries nor autonomous systems")
	}
	return d, nil
}

// children returns the two records of a node of a search tree, whose size is in bits.
func children(tree []byte, node, size uint) [2]uint64 {
	switch b := tree[node*size/4:]; size {
	case 24:
		return [2]uint64{uint64(b[0])<<16 | uint64(b[1])<<8 | uint64(b[2]), uint64(b[3])<<16 | uint64(b[4])<<8 | uint64(b[5])}
	case 28:
		return [2]uint64{uint64(b[3]>>4)<<24 | uint64(b[0])<<16 | uint64(b[1])<<8 | uint64(b[2]),
			uint64(b[3]&15)<<24 | uint64(b[4])<<16 | uint64(b[5])<<8 | uint64(b[6])}
	default:
		return [2]uint64{uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3]),
			uint64(b[4])<<24 | uint64(b[5])<<16 | uint64(b[6])<<8 | uint64(b[7])}
	}
}

// find returns where the record of an address is, plus 1; 0 where there is none.
func (d *database) find(a netip.Addr) uint32 {
	if a.Is6() && !d.v6 {
		return 0
	}
	r := d.reader.Lookup(a)
	if !r.Found() {
		return 0
	}
	return uint32(r.Offset()) + 1 // within maxDatabase
}

// values are what a record says; each may be unknown.
type values struct {
	asn          uint32
	organisation string
	country      string
}

// values decodes the record at a place. An error says that it is corrupt; a value
// of another type than expected is unknown.
func (d *database) values(at uint32) (v values, err error) {
	// The names are those of GeoLite2 and DB-IP, and of ip-location-db.
	var record struct {
		ASN          any `maxminddb:"autonomous_system_number"`
		Organisation any `maxminddb:"autonomous_system_organization"`
		Code         any `maxminddb:"country_code"`
		Country      any `maxminddb:"country"`
	}
	if err := d.reader.LookupOffset(uintptr(at)).Decode(&record); err != nil {
		if _, ok := errors.AsType[maxminddb.UnmarshalTypeError](err); ok {
			err = nil // the record is no map
		}
		return v, err
	}
	if n, ok := record.ASN.(uint64); ok && n < 1<<32 {
		v.asn = uint32(n)
	}
	if s, ok := record.Organisation.(string); ok {
		if len(s) > maxOrganisation {
			s = s[:maxOrganisation]
		}
		v.organisation = strings.Clone(strings.ToValidUTF8(s, ""))
	}
	if v.country = country(record.Code); v.country == "" {
		if m, ok := record.Country.(map[string]any); ok {
			v.country = country(m["iso_code"])
		}
	}
	return v, nil
}

// country returns v where it is a code of ISO 3166-1 alpha-2.
func country(v any) string {
	if s, ok := v.(string); ok && len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z' {
		return s
	}
	return ""
}
