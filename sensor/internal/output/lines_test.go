package output

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

var (
	_ Output = (*Lines)(nil)
)

func TestLines(t *testing.T) {
	set, err := ParseDatasets("alert, handshake")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	l := NewLines(NewSink(&out, SinkOptions{}), set)
	for _, r := range []Record{
		{Dataset: Handshake, JSON: []byte(`{"n":1}`)},
		{Dataset: Certificate, JSON: []byte(`{"n":2}`)},
		{Dataset: Alert, JSON: []byte(`{"n":3}`)},
		{Dataset: Stats, JSON: []byte(`{"n":4}`)},
	} {
		if err := l.Write(&r); err != nil {
			t.Fatal(err)
		}
	}
	want := "{\"n\":1}\n{\"n\":3}\n"
	big := Record{Dataset: Alert, JSON: bytes.Repeat([]byte("x"), 1<<20)}
	if err := l.Write(&big); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, want) || len(got)-len(want) != 1<<20+1 {
		t.Errorf("%d bytes, beginning with %.40q", len(got), got)
	}
}

func TestParseDatasets(t *testing.T) {
	for list, want := range map[string][]Dataset{
		"alert":                             {Alert},
		"handshake,alert,handshake":         {Handshake, Alert},
		"handshake,certificate,alert,stats": {Handshake, Certificate, Alert, Stats},
	} {
		set, err := ParseDatasets(list)
		if err != nil {
			t.Errorf("%q: %v", list, err)
		}
		for d := range Datasets {
			if set.Has(d) != slices.Contains(want, d) {
				t.Errorf("%q: %v is %v", list, d, set.Has(d))
			}
		}
	}
	for _, list := range []string{"", "alerts", "alert,", "alert;stats", "Alert"} {
		if _, err := ParseDatasets(list); err == nil || !strings.Contains(err.Error(), "handshake, certificate, sighting, hello, alert and stats") {
			t.Errorf("%q: %v", list, err)
		}
	}
}
