package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestVolumes(t *testing.T) {
	line := func(dataset string) string {
		return fmt.Sprintf(`{"event":{"dataset":"oddcert.%s"},"log":{"file":{"path":"a"}},"oddcert":{"pcap":{"packet_number":1,"filter":"x"},"carrier":"tls"}}`, dataset)
	}
	const live = `{"event":{"dataset":"oddcert.alert"},"oddcert":{"carrier":"tls"}}`
	if got := string(asLive([]byte(line("alert")))); got != live || !json.Valid([]byte(got)) {
		t.Errorf("live it is %s", got)
	}
	text := strings.Repeat(line("handshake")+"\n", 30_000) + line("alert") + "\n"
	all, err := readVolumes(strings.NewReader(text), datasetOf, asLive)
	if err != nil {
		t.Fatal(err)
	}
	h, a := all["handshake"], all["alert"]
	if len(all) != 2 || h.records != 30_000 || a.records != 1 || a.bytes != int64(len(live)+1) || h.bytes != 30_000*int64(len(live)+5) {
		t.Errorf("%+v, %+v", h, a)
	}
	if h.gzipped == 0 || h.gzipped > h.bytes/10 || a.gzipped == 0 {
		t.Errorf("%d bytes become %d, and %d become %d", h.bytes, h.gzipped, a.bytes, a.gzipped)
	}
}
