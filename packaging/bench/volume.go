package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/oddcert/oddcert/packaging/bench/traffic"
)

// A busy sensor sees this many handshakes a second. The capture that stands for
// its traffic has as large a share of new names as [traffic.NewNames].
const busy = 50_000

// bulkSize is how many bytes of records are compressed at once, as in requests to
// Elasticsearch.
const bulkSize = 1 << 20

// zeekLine is the mean size of a line of Zeek's ssl.log in JSON, as published for
// its defaults. Certificates are in other logs.
const zeekLine = 618

// volume is how much a program has written of one kind of record.
type volume struct {
	records  int
	bytes    int64
	gzipped  int64
	pending  []byte // of the bulk in the making
	compress *gzip.Writer
}

// add takes one line, without its line feed.
func (v *volume) add(line []byte) error {
	v.records++
	v.bytes += int64(len(line)) + 1
	v.pending = append(append(v.pending, line...), '\n')
	if len(v.pending) < bulkSize {
		return nil
	}
	return v.flush()
}

// flush compresses the bulk.
func (v *volume) flush() error {
	if len(v.pending) == 0 {
		return nil
	}
	var out counter
	if v.compress == nil {
		v.compress, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is one of its own
	}
	v.compress.Reset(&out)
	if _, err := v.compress.Write(v.pending); err != nil {
		return err
	}
	if err := v.compress.Close(); err != nil {
		return err
	}
	v.gzipped += int64(out)
	v.pending = v.pending[:0]
	return nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// readVolumes reads JSON lines, and returns what there is of each kind. kind names
// that of a line, and change is what is done to it before it is counted.
func readVolumes(r io.Reader, kind func(line []byte) (string, error), change func([]byte) []byte) (map[string]*volume, error) {
	all := make(map[string]*volume)
	err := lines(r, func(line []byte) error {
		line = change(line)
		name, err := kind(line)
		if err != nil {
			return err
		}
		v := all[name]
		if v == nil {
			v = new(volume)
			all[name] = v
		}
		return v.add(line)
	})
	for _, v := range all {
		if err == nil {
			err = v.flush()
		}
	}
	return all, err
}

// asLive removes from one of oddcert's records what only those of captures have.
func asLive(line []byte) []byte {
	for _, member := range []string{`"log":{`, `"pcap":{`} {
		from := bytes.Index(line, []byte(member))
		if from < 0 {
			continue
		}
		end, depth := from+len(member), 1
		for depth > 0 && end < len(line) {
			switch line[end] {
			case '{':
				depth++
			case '}':
				depth--
			}
			end++
		}
		line = append(line[:from], bytes.TrimPrefix(line[end:], []byte(","))...)
	}
	return line
}

// datasetOf names the dataset of one of oddcert's records.
func datasetOf(line []byte) (string, error) {
	var r struct {
		Event struct {
			Dataset string `json:"dataset"`
		} `json:"event"`
	}
	err := json.Unmarshal(line, &r)
	return strings.TrimPrefix(r.Event.Dataset, "oddcert."), err
}

// eventOf names the kind of one of Suricata's.
func eventOf(line []byte) (string, error) {
	var r struct {
		Type string `json:"event_type"`
	}
	err := json.Unmarshal(line, &r)
	return r.Type, err
}

// measureVolume has oddcert, and Suricata where it is installed, read handshakes
// of which a share has new names, and prints how many bytes a day of them is. What
// only the records of captures have is not counted.
func measureVolume(ctx context.Context, b *bench, stdout io.Writer) error {
	in, err := b.capture(ctx, traffic.NewNames, b.scale)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(in.truth)
	if err != nil {
		return err
	}
	var truth traffic.Truth
	if err := json.Unmarshal(text, &truth); err != nil {
		return fmt.Errorf("read %s: %w", in.truth, err)
	}
	handshakes := len(truth.Connections)
	names := make(map[string]bool)
	for i := range truth.Connections {
		names[truth.Connections[i].SNI] = true
	}
	m := describe(ctx, b)
	var out strings.Builder
	fmt.Fprintf(&out, "%s. %d handshakes, with %d names; a day is %d handshakes a second.\n\n", strings.Join(m.versions, "; "), handshakes, len(names), busy)
	var rows [][]string
	row := func(program, kind string, v *volume) {
		share := func(n int64) string { return fmt.Sprintf("%.0f", float64(n)/float64(handshakes)) }
		day := func(n int64) string {
			return fmt.Sprintf("%.2f TB", float64(n)/float64(handshakes)*busy*86400/1e12)
		}
		rows = append(rows, []string{program, kind, fmt.Sprint(v.records), fmt.Sprintf("%.0f", float64(v.bytes)/float64(max(v.records, 1))),
			share(v.bytes), share(v.gzipped), day(v.bytes), day(v.gzipped)})
	}
	measure := func(name string, p program, kind func([]byte) (string, error), change func([]byte) []byte) error {
		if _, err := b.once(ctx, p); err != nil {
			return err
		}
		f, err := os.Open(p.output)
		if err != nil {
			return err
		}
		defer f.Close()
		all, err := readVolumes(f, kind, change)
		if err != nil {
			return fmt.Errorf("read %s: %w", p.output, err)
		}
		var kinds []string
		sum := new(volume)
		for kind, v := range all {
			kinds = append(kinds, kind)
			sum.records, sum.bytes, sum.gzipped = sum.records+v.records, sum.bytes+v.bytes, sum.gzipped+v.gzipped
		}
		slices.SortFunc(kinds, func(a, b string) int { return cmp.Compare(all[b].bytes, all[a].bytes) })
		for _, kind := range kinds {
			row(name, kind, all[kind])
		}
		row(name, "all", sum)
		return nil
	}
	const everything = "handshake,certificate,sighting,hello,alert"
	if err := measure("oddcert", b.sensor(oneWorker, in.path, 1, "--records", everything), datasetOf, asLive); err != nil {
		return err
	}
	if _, ok := b.peers["suricata"]; ok {
		if err := measure("Suricata", b.suricata(in.path, "single"), eventOf, func(line []byte) []byte { return line }); err != nil {
			return err
		}
	}
	row("Zeek, published", "ssl.log", &volume{records: handshakes, bytes: int64(handshakes) * zeekLine})
	rows[len(rows)-1][5], rows[len(rows)-1][7] = "", ""
	table(&out, []string{"program", "records", "how many", "bytes of one", "bytes a handshake", "gzipped", "a day", "gzipped"}, rows)
	_, err = io.WriteString(stdout, out.String())
	return err
}
