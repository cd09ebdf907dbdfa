// Package outputtest has records that a sensor wrote, for tests of what delivers them.
package outputtest

import (
	"bufio"
	"bytes"
	_ "embed" // the records
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/output"
)

//go:embed records.json
var lines []byte

// Records returns the records, which are the caller's.
func Records(t testing.TB) (records []*output.Record) {
	t.Helper()
	s := bufio.NewScanner(bytes.NewReader(lines))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		records = append(records, Record(t, s.Bytes()))
	}
	return records
}

// Record is the record of a line, whose bytes it copies.
func Record(t testing.TB, line []byte) *output.Record {
	t.Helper()
	var head struct {
		Time  time.Time `json:"@timestamp"`
		Event struct {
			ID      string `json:"id"`
			Dataset string `json:"dataset"`
		} `json:"event"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		t.Fatal(err)
	}
	r := &output.Record{ID: head.Event.ID, Time: head.Time.UnixNano(), JSON: bytes.Clone(line)}
	for r.Dataset.String() != strings.TrimPrefix(head.Event.Dataset, "oddcert.") {
		r.Dataset++
	}
	return r
}
